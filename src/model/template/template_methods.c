/* template_methods.c: methods of strings, dicts and lists in chat templates. Those that would change a value are refused
 * when they are called. See template_run.h. */
#include "model/template/template_filters.h"

#include <string.h>

/* An argument that must be a string. */
static bool need_string(struct run *run, const struct call *call, int i, struct string *string)
{
    if (call->p[i]->kind != VALUE_STRING)
        return run_fail(run, "a method of a string is given %s, expected a string", value_type(*call->p[i]));
    *string = call->p[i]->string;
    return true;
}

static bool give(struct value *out, struct string string)
{
    *out = value_string(string);
    return true;
}

static bool strip(struct run *run, const struct call *call, bool left, bool right, struct value *out)
{
    struct string set;
    bool has_set = call->p[0] && call->p[0]->kind != VALUE_NONE;
    if (has_set && !need_string(run, call, 0, &set))
        return false;
    return run_step(run, call->input.string.len / 64) &&
           give(out, text_strip(call->input.string, has_set ? &set : NULL, left, right));
}

static bool method_strip(struct run *run, const struct call *call, struct value *out)
{
    return strip(run, call, true, true, out);
}

static bool method_lstrip(struct run *run, const struct call *call, struct value *out)
{
    return strip(run, call, true, false, out);
}

static bool method_rstrip(struct run *run, const struct call *call, struct value *out)
{
    return strip(run, call, false, true, out);
}

/* Words between white space. */
static bool split_space(struct run *run, struct string text, int64_t n_most, bool from_right,
                        struct value *out)
{
    uint32_t code;
    struct value words;
    text = text_strip(text, NULL, true, true);
    if (!run_new_list(run, VALUE_LIST, &words))
        return false;
    for (size_t i = 0; i < text.len;) {
        size_t begin = i, n = 0;
        while (i < text.len && (n = text_character(text.bytes + i, text.len - i, &code)) &&
               !text_is_space(code))
            i += n;
        bool rest = !from_right && n_most >= 0 && (int64_t)words.list->n == n_most;
        if (!run_add(run, words, value_string(string_part(text, begin, rest ? text.len : i))))
            return false;
        if (rest)
            break;
        while (i < text.len && (n = text_character(text.bytes + i, text.len - i, &code)) &&
               text_is_space(code))
            i += n;
    }
    if (from_right && n_most >= 0 && (int64_t)words.list->n > n_most + 1) {
        size_t n_joined = words.list->n - (size_t)n_most;
        struct string first = words.list->items[0].string, last = words.list->items[n_joined - 1].string;
        words.list->items[n_joined - 1] = value_string(string_part(
            text, (size_t)(first.bytes - text.bytes), (size_t)(last.bytes - text.bytes) + last.len));
        words.list->items += n_joined - 1;
        words.list->n -= n_joined - 1;
        words.list->cap = words.list->n;
    }
    *out = words;
    return true;
}

static void reverse(struct list *list)
{
    for (size_t i = 0; i < list->n / 2; i++) {
        struct value other = list->items[list->n - 1 - i];
        list->items[list->n - 1 - i] = list->items[i];
        list->items[i] = other;
    }
}

static bool split(struct run *run, const struct call *call, bool from_right, struct value *out)
{
    struct string text = call->input.string, mark;
    int64_t n_most = -1;
    if (call->p[1] && call->p[1]->kind != VALUE_INT)
        return run_fail(run, "split: maxsplit is %s", value_type(*call->p[1]));
    if (call->p[1])
        n_most = call->p[1]->integer;
    if (!run_step(run, text.len / 16))
        return false;
    if (!call->p[0] || call->p[0]->kind == VALUE_NONE)
        return split_space(run, text, n_most, from_right, out);
    if (!need_string(run, call, 0, &mark))
        return false;
    if (!mark.len)
        return run_fail(run, "split: the separator is empty");
    if (!run_new_list(run, VALUE_LIST, out))
        return false;
    while (n_most < 0 || (int64_t)out->list->n < n_most) {
        size_t found = from_right ? text_find_last(text, mark) : text_find(text, mark, 0);
        if (found == SIZE_MAX)
            break;
        struct string before = string_part(text, 0, found),
                      after = string_part(text, found + mark.len, text.len);
        if (!run_add(run, *out, value_string(from_right ? after : before)))
            return false;
        text = from_right ? before : after;
    }
    if (!run_add(run, *out, value_string(text)))
        return false;
    if (from_right)
        reverse(out->list);
    return true;
}

static bool method_split(struct run *run, const struct call *call, struct value *out)
{
    return split(run, call, false, out);
}

static bool method_rsplit(struct run *run, const struct call *call, struct value *out)
{
    return split(run, call, true, out);
}

static bool partition(struct run *run, const struct call *call, bool last, struct value *out)
{
    struct string text = call->input.string, mark, nothing = string_of("", 0, false);
    if (!need_string(run, call, 0, &mark) || !run_new_list(run, VALUE_TUPLE, out))
        return false;
    if (!mark.len)
        return run_fail(run, "partition: the separator is empty");
    size_t found = last ? text_find_last(text, mark) : text_find(text, mark, 0);
    struct string parts[] = {text, nothing, nothing};
    if (found == SIZE_MAX && last) {
        parts[0] = nothing;
        parts[2] = text;
    } else if (found != SIZE_MAX) {
        parts[0] = string_part(text, 0, found);
        parts[1] = string_part(text, found, found + mark.len);
        parts[2] = string_part(text, found + mark.len, text.len);
    }
    for (int i = 0; i < 3; i++)
        if (!run_add(run, *out, value_string(parts[i])))
            return false;
    return run_step(run, text.len / 16);
}

static bool method_partition(struct run *run, const struct call *call, struct value *out)
{
    return partition(run, call, false, out);
}

static bool method_rpartition(struct run *run, const struct call *call, struct value *out)
{
    return partition(run, call, true, out);
}

static bool ends(struct string text, struct string part, bool at_end)
{
    return text.len >= part.len && string_same(at_end ? string_part(text, text.len - part.len, text.len)
                                                      : string_part(text, 0, part.len),
                                               part);
}

/* startswith and endswith: with one string or a tuple of them. */
static bool has_end(struct run *run, const struct call *call, bool at_end, struct value *out)
{
    struct value given = *call->p[0];
    struct list one = {.items = &given, .n = 1}, *parts = given.kind == VALUE_TUPLE ? given.list : &one;
    bool found = false;
    for (size_t i = 0; i < parts->n; i++) {
        if (parts->items[i].kind != VALUE_STRING)
            return run_fail(run, "startswith or endswith %s", value_type(parts->items[i]));
        found |= ends(call->input.string, parts->items[i].string, at_end);
    }
    *out = value_bool(found);
    return true;
}

static bool method_startswith(struct run *run, const struct call *call, struct value *out)
{
    return has_end(run, call, false, out);
}

static bool method_endswith(struct run *run, const struct call *call, struct value *out)
{
    return has_end(run, call, true, out);
}

static bool remove_end(struct run *run, const struct call *call, bool at_end, struct value *out)
{
    struct string text = call->input.string, part;
    if (!need_string(run, call, 0, &part))
        return false;
    if (ends(text, part, at_end))
        text = at_end ? string_part(text, 0, text.len - part.len) : string_part(text, part.len, text.len);
    return give(out, text);
}

static bool method_removeprefix(struct run *run, const struct call *call, struct value *out)
{
    return remove_end(run, call, false, out);
}

static bool method_removesuffix(struct run *run, const struct call *call, struct value *out)
{
    return remove_end(run, call, true, out);
}

static bool method_replace(struct run *run, const struct call *call, struct value *out)
{
    struct string old, new, text = call->input.string;
    if (!need_string(run, call, 0, &old) || !need_string(run, call, 1, &new) || !run_step(run, text.len / 16))
        return false;
    if (text.is_markup && !new.is_markup)
        new = text_escape(run->arena, new);
    return give(out, text_replace(run->arena, text, old, new,
                                  call->p[2] && call->p[2]->kind == VALUE_INT ? call->p[2]->integer : -1));
}

static bool change(struct run *run, const struct call *call, enum text_case to, struct value *out)
{
    return run_step(run, call->input.string.len / 8) &&
           give(out, text_change_case(run->arena, call->input.string, to));
}

static bool method_upper(struct run *run, const struct call *call, struct value *out)
{
    return change(run, call, TEXT_UPPER, out);
}

static bool method_lower(struct run *run, const struct call *call, struct value *out)
{
    return change(run, call, TEXT_LOWER, out);
}

static bool method_title(struct run *run, const struct call *call, struct value *out)
{
    return change(run, call, TEXT_TITLE, out);
}

static bool method_capitalize(struct run *run, const struct call *call, struct value *out)
{
    return change(run, call, TEXT_CAPITALIZE, out);
}

static bool method_join(struct run *run, const struct call *call, struct value *out)
{
    struct list items;
    struct string_builder builder = {.arena = run->arena};
    if (call->p[0]->kind == VALUE_UNDEFINED)
        return run_fail(run, "join of an undefined value");
    if (!run_items(run, *call->p[0], &items))
        return false;
    for (size_t i = 0; i < items.n; i++) {
        if (items.items[i].kind != VALUE_STRING)
            return run_fail(run, "join of %s", value_type(items.items[i]));
        if (i)
            builder_add(&builder, call->input.string);
        builder_add(&builder, items.items[i].string);
        if (!run_step(run, 1 + (call->input.string.len + items.items[i].string.len) / 32))
            return false;
    }
    return give(out, builder_string(&builder));
}

static bool method_format(struct run *run, const struct call *call, struct value *out)
{
    return format_braces(run, call->input.string, call->arguments, out);
}

static bool method_splitlines(struct run *run, const struct call *call, struct value *out)
{
    return run_step(run, call->input.string.len / 16) &&
           filter_lines(run, call->input.string, call->p[0] && value_is_true(*call->p[0]), out);
}

/* The place of a part in characters; -1: it is not there. */
static bool place(struct run *run, const struct call *call, bool last, int64_t *place)
{
    struct string part, text = call->input.string;
    if (!need_string(run, call, 0, &part) || !run_step(run, text.len / 16))
        return false;
    size_t found = last ? text_find_last(text, part) : text_find(text, part, 0);
    *place = found == SIZE_MAX ? -1 : (int64_t)text_count(string_part(text, 0, found));
    return true;
}

static bool method_find(struct run *run, const struct call *call, struct value *out)
{
    int64_t found;
    if (!place(run, call, false, &found))
        return false;
    *out = value_int(found);
    return true;
}

static bool method_rfind(struct run *run, const struct call *call, struct value *out)
{
    int64_t found;
    if (!place(run, call, true, &found))
        return false;
    *out = value_int(found);
    return true;
}

static bool method_index(struct run *run, const struct call *call, struct value *out)
{
    if (!method_find(run, call, out))
        return false;
    return out->integer >= 0 || run_fail(run, "index: the part is not in the string");
}

static bool method_count(struct run *run, const struct call *call, struct value *out)
{
    struct string part, text = call->input.string;
    int64_t n = 0;
    if (!need_string(run, call, 0, &part) || !run_step(run, text.len / 16))
        return false;
    if (!part.len)
        n = (int64_t)text_count(text) + 1;
    for (size_t at = 0; part.len && (at = text_find(text, part, at)) != SIZE_MAX; at += part.len)
        n++;
    *out = value_int(n);
    return true;
}

/* Whether all characters are of a kind, and there are some. Kinds of other alphabets are not known here. */
static bool all_are(struct run *run, const struct call *call, const char *set, bool spaces, struct value *out)
{
    struct string text = call->input.string;
    bool all = text.len > 0;
    uint32_t code;
    for (size_t i = 0; i < text.len && all;) {
        i += text_character(text.bytes + i, text.len - i, &code);
        if (!spaces && code > 127)
            return run_fail(run, "the kind of a character that is not ASCII is asked for");
        all = spaces ? text_is_space(code) : code && strchr(set, (int)code) != NULL;
    }
    *out = value_bool(all);
    return run_step(run, text.len / 16);
}

#define LETTERS "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
#define DIGITS  "0123456789"

static bool method_isspace(struct run *run, const struct call *call, struct value *out)
{
    return all_are(run, call, "", true, out);
}

static bool method_isdigit(struct run *run, const struct call *call, struct value *out)
{
    return all_are(run, call, DIGITS, false, out);
}

static bool method_isalpha(struct run *run, const struct call *call, struct value *out)
{
    return all_are(run, call, LETTERS, false, out);
}

static bool method_isalnum(struct run *run, const struct call *call, struct value *out)
{
    return all_are(run, call, LETTERS DIGITS, false, out);
}

static bool is_case(struct run *run, const struct call *call, enum text_case to, struct value *out)
{
    struct string text = call->input.string, changed = text_change_case(run->arena, text, to);
    struct string other = text_change_case(run->arena, text, to == TEXT_UPPER ? TEXT_LOWER : TEXT_UPPER);
    *out = value_bool(string_same(text, changed) && !string_same(changed, other));
    return run_step(run, text.len / 8);
}

static bool method_isupper(struct run *run, const struct call *call, struct value *out)
{
    return is_case(run, call, TEXT_UPPER, out);
}

static bool method_islower(struct run *run, const struct call *call, struct value *out)
{
    return is_case(run, call, TEXT_LOWER, out);
}

static bool justify(struct run *run, const struct call *call, int left_share, struct value *out)
{
    struct string text = call->input.string, fill = string_of(" ", 1, false);
    struct string_builder builder = {.arena = run->arena};
    if (call->p[0]->kind != VALUE_INT || call->p[0]->integer > 100000)
        return run_fail(run, "a width of %s, or of more than 100000", value_type(*call->p[0]));
    if (call->p[1] && !need_string(run, call, 1, &fill))
        return false;
    int64_t missing = call->p[0]->integer - (int64_t)text_count(text), n_left;
    missing = missing > 0 ? missing : 0;
    n_left = left_share == 1   ? missing / 2 + (missing & call->p[0]->integer & 1)
             : left_share == 2 ? missing
                               : 0;
    for (int64_t i = 0; i < n_left; i++)
        builder_add(&builder, fill);
    builder_add(&builder, text);
    for (int64_t i = n_left; i < missing; i++)
        builder_add(&builder, fill);
    return run_step(run, (size_t)missing) && give(out, builder_string(&builder));
}

static bool method_ljust(struct run *run, const struct call *call, struct value *out)
{
    return justify(run, call, 0, out);
}

static bool method_center(struct run *run, const struct call *call, struct value *out)
{
    return justify(run, call, 1, out);
}

static bool method_rjust(struct run *run, const struct call *call, struct value *out)
{
    return justify(run, call, 2, out);
}

static bool method_get(struct run *run, const struct call *call, struct value *out)
{
    if (!value_is_key(*call->p[0]))
        return run_fail(run, "%s cannot be the key of a dict", value_type(*call->p[0]));
    const struct value *found = dict_get(call->input.dict, *call->p[0]);
    *out = found ? *found : call->p[1] ? *call->p[1] : value_none();
    return true;
}

static bool method_items(struct run *run, const struct call *call, struct value *out)
{
    if (!filter_items(run, call, out))
        return false;
    out->kind = VALUE_VIEW;
    return true;
}

static bool columns(struct run *run, const struct call *call, bool values, struct value *out)
{
    if (!run_new_list(run, VALUE_VIEW, out))
        return false;
    for (size_t i = 0; i < call->input.dict->n; i++)
        if (!run_add(run, *out,
                     values ? call->input.dict->entries[i].value : call->input.dict->entries[i].key))
            return false;
    return true;
}

static bool method_keys(struct run *run, const struct call *call, struct value *out)
{
    return columns(run, call, false, out);
}

static bool method_values(struct run *run, const struct call *call, struct value *out)
{
    return columns(run, call, true, out);
}

/* Nothing changes a list or a dict, so that it is its own copy. */
static bool method_copy(struct run *run, const struct call *call, struct value *out)
{
    (void)run;
    *out = call->input;
    return true;
}

static bool method_list_index(struct run *run, const struct call *call, struct value *out)
{
    for (size_t i = 0; i < call->input.list->n; i++) {
        bool equal;
        if (!run_equals(run, call->input.list->items[i], *call->p[0], &equal))
            return false;
        *out = value_int((int64_t)i);
        if (equal)
            return true;
    }
    return run_fail(run, "index: the value is not in the list");
}

static bool method_list_count(struct run *run, const struct call *call, struct value *out)
{
    int64_t n = 0;
    for (size_t i = 0; i < call->input.list->n; i++) {
        bool equal;
        if (!run_equals(run, call->input.list->items[i], *call->p[0], &equal))
            return false;
        n += equal;
    }
    *out = value_int(n);
    return true;
}

static bool method_cycle(struct run *run, const struct call *call, struct value *out)
{
    if (!call->arguments->n || call->arguments->n_named)
        return run_fail(run, "loop.cycle: expected values");
    *out = call->arguments->items[call->input.loop->index % call->arguments->n];
    return true;
}

static bool method_changed(struct run *run, const struct call *call, struct value *out)
{
    struct value now;
    bool equal = false;
    if (!run_new_list(run, VALUE_TUPLE, &now))
        return false;
    *now.list = (struct list){.items = call->arguments->items, .n = call->arguments->n};
    if (call->input.loop->changed.kind == VALUE_TUPLE &&
        !run_equals(run, call->input.loop->changed, now, &equal))
        return false;
    call->input.loop->changed = now;
    *out = value_bool(!equal);
    return true;
}

static bool method_refused(struct run *run, const struct call *call, struct value *out)
{
    (void)call;
    (void)out;
    return run_fail(run, "a method that changes a value, or is not known here");
}

static const struct {
    enum value_kind kind;
    const char *name, *parameters;
    library_function *apply;
} methods[] = {
    {VALUE_STRING, "capitalize", "", method_capitalize},
    {VALUE_STRING, "casefold", NULL, method_refused},
    {VALUE_STRING, "center", "width! fillchar", method_center},
    {VALUE_STRING, "count", "sub!", method_count},
    {VALUE_STRING, "encode", NULL, method_refused},
    {VALUE_STRING, "endswith", "suffix!", method_endswith},
    {VALUE_STRING, "expandtabs", NULL, method_refused},
    {VALUE_STRING, "find", "sub!", method_find},
    {VALUE_STRING, "format", NULL, method_format},
    {VALUE_STRING, "format_map", NULL, method_refused},
    {VALUE_STRING, "index", "sub!", method_index},
    {VALUE_STRING, "isalnum", "", method_isalnum},
    {VALUE_STRING, "isalpha", "", method_isalpha},
    {VALUE_STRING, "isascii", NULL, method_refused},
    {VALUE_STRING, "isdecimal", "", method_isdigit},
    {VALUE_STRING, "isdigit", "", method_isdigit},
    {VALUE_STRING, "isidentifier", NULL, method_refused},
    {VALUE_STRING, "islower", "", method_islower},
    {VALUE_STRING, "isnumeric", "", method_isdigit},
    {VALUE_STRING, "isprintable", NULL, method_refused},
    {VALUE_STRING, "isspace", "", method_isspace},
    {VALUE_STRING, "istitle", NULL, method_refused},
    {VALUE_STRING, "isupper", "", method_isupper},
    {VALUE_STRING, "join", "iterable!", method_join},
    {VALUE_STRING, "ljust", "width! fillchar", method_ljust},
    {VALUE_STRING, "lower", "", method_lower},
    {VALUE_STRING, "lstrip", "chars", method_lstrip},
    {VALUE_STRING, "maketrans", NULL, method_refused},
    {VALUE_STRING, "partition", "sep!", method_partition},
    {VALUE_STRING, "removeprefix", "prefix!", method_removeprefix},
    {VALUE_STRING, "removesuffix", "suffix!", method_removesuffix},
    {VALUE_STRING, "replace", "old! new! count", method_replace},
    {VALUE_STRING, "rfind", "sub!", method_rfind},
    {VALUE_STRING, "rindex", NULL, method_refused},
    {VALUE_STRING, "rjust", "width! fillchar", method_rjust},
    {VALUE_STRING, "rpartition", "sep!", method_rpartition},
    {VALUE_STRING, "rsplit", "sep maxsplit", method_rsplit},
    {VALUE_STRING, "rstrip", "chars", method_rstrip},
    {VALUE_STRING, "split", "sep maxsplit", method_split},
    {VALUE_STRING, "splitlines", "keepends", method_splitlines},
    {VALUE_STRING, "startswith", "prefix!", method_startswith},
    {VALUE_STRING, "strip", "chars", method_strip},
    {VALUE_STRING, "swapcase", NULL, method_refused},
    {VALUE_STRING, "title", "", method_title},
    {VALUE_STRING, "translate", NULL, method_refused},
    {VALUE_STRING, "upper", "", method_upper},
    {VALUE_STRING, "zfill", NULL, method_refused},
    {VALUE_DICT, "clear", NULL, method_refused},
    {VALUE_DICT, "copy", "", method_copy},
    {VALUE_DICT, "fromkeys", NULL, method_refused},
    {VALUE_DICT, "get", "key! default", method_get},
    {VALUE_DICT, "items", "", method_items},
    {VALUE_DICT, "keys", "", method_keys},
    {VALUE_DICT, "pop", NULL, method_refused},
    {VALUE_DICT, "popitem", NULL, method_refused},
    {VALUE_DICT, "setdefault", NULL, method_refused},
    {VALUE_DICT, "update", NULL, method_refused},
    {VALUE_DICT, "values", "", method_values},
    {VALUE_LIST, "append", NULL, method_refused},
    {VALUE_LIST, "clear", NULL, method_refused},
    {VALUE_LIST, "copy", "", method_copy},
    {VALUE_LIST, "count", "value!", method_list_count},
    {VALUE_LIST, "extend", NULL, method_refused},
    {VALUE_LIST, "index", "value!", method_list_index},
    {VALUE_LIST, "insert", NULL, method_refused},
    {VALUE_LIST, "pop", NULL, method_refused},
    {VALUE_LIST, "remove", NULL, method_refused},
    {VALUE_LIST, "reverse", NULL, method_refused},
    {VALUE_LIST, "sort", NULL, method_refused},
    {VALUE_TUPLE, "count", "value!", method_list_count},
    {VALUE_TUPLE, "index", "value!", method_list_index},
    {VALUE_LOOP, "changed", NULL, method_changed},
    {VALUE_LOOP, "cycle", NULL, method_cycle},
};

enum { N_METHODS = sizeof methods / sizeof *methods };

/* N_METHODS: none. */
static size_t find_method(struct value object, struct string name)
{
    size_t i = 0;
    while (i < N_METHODS && !(methods[i].kind == object.kind && string_equals(name, methods[i].name)))
        i++;
    return i;
}

bool library_has_method(struct value object, struct string name)
{
    return find_method(object, name) < N_METHODS;
}

bool run_method(struct run *run, const struct method *method, const struct arguments *arguments,
                struct value *out)
{
    size_t i = find_method(method->object, method->name);
    if (i == N_METHODS)
        return run_fail(run, "a method that is not known");
    struct call call = {.input = method->object, .name = method->name, .arguments = arguments};
    return run_apply(run, methods[i].parameters, methods[i].apply, &call, out);
}
