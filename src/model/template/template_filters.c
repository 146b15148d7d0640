/* template_filters.c: filters of chat templates that take or make single values; those over lists are in
 * template_list_filters.c. See template_run.h. */
#include "model/template/template_filters.h"

#include "model/template/template_library.h"

#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool text_of_input(struct run *run, const struct call *call, struct string *text)
{
    return run_text(run, call->input, text) && run_step(run, 1 + text->len / 16);
}

static bool filter_string(struct run *run, const struct call *call, struct value *out)
{
    struct string text;
    if (!text_of_input(run, call, &text))
        return false;
    *out = value_string(text);
    return true;
}

static bool filter_safe(struct run *run, const struct call *call, struct value *out)
{
    if (!filter_string(run, call, out))
        return false;
    out->string.is_markup = true;
    return true;
}

static bool filter_escape(struct run *run, const struct call *call, struct value *out)
{
    if (!filter_string(run, call, out))
        return false;
    if (!out->string.is_markup)
        out->string = text_escape(run->arena, out->string);
    return true;
}

static bool filter_trim(struct run *run, const struct call *call, struct value *out)
{
    struct string text;
    if (!text_of_input(run, call, &text))
        return false;
    const struct value *set = call->p[0] && call->p[0]->kind != VALUE_NONE ? call->p[0] : NULL;
    if (set && set->kind != VALUE_STRING)
        return run_fail(run, "trim: the characters are %s", value_type(*set));
    *out = value_string(text_strip(text, set ? &set->string : NULL, true, true));
    return true;
}

static bool change_case(struct run *run, const struct call *call, enum text_case to, struct value *out)
{
    struct string text;
    if (!text_of_input(run, call, &text))
        return false;
    *out = value_string(text_change_case(run->arena, text, to));
    return true;
}

static bool filter_upper(struct run *run, const struct call *call, struct value *out)
{
    return change_case(run, call, TEXT_UPPER, out);
}

static bool filter_lower(struct run *run, const struct call *call, struct value *out)
{
    return change_case(run, call, TEXT_LOWER, out);
}

static bool filter_capitalize(struct run *run, const struct call *call, struct value *out)
{
    return change_case(run, call, TEXT_CAPITALIZE, out);
}

/* Words begin after white space and after - ( { [ <, as the filter has them (the method title() has others). */
static bool filter_title(struct run *run, const struct call *call, struct value *out)
{
    struct string text;
    struct string_builder builder = {.arena = run->arena};
    uint32_t code;
    if (!text_of_input(run, call, &text))
        return false;
    for (size_t i = 0; i < text.len;) {
        size_t begin = i, n = 0, first = 0;
        while (i < text.len) {
            n = text_character(text.bytes + i, text.len - i, &code);
            if (text_is_space(code) || (code < 128 && strchr("-({[<", (int)code)))
                break;
            first = first ? first : n;
            i += n;
        }
        builder_add(&builder,
                    text_change_case(run->arena, string_part(text, begin, begin + first), TEXT_UPPER));
        builder_add(&builder, text_change_case(run->arena, string_part(text, begin + first, i), TEXT_LOWER));
        if (i < text.len) {
            builder_add(&builder, string_part(text, i, i + n));
            i += n;
        }
    }
    *out = value_string(builder_string(&builder));
    return true;
}

static bool filter_replace(struct run *run, const struct call *call, struct value *out)
{
    struct string text, old, new;
    int64_t n_most = call->p[2] && call->p[2]->kind == VALUE_INT ? call->p[2]->integer : -1;
    if (!text_of_input(run, call, &text) || !run_text(run, *call->p[0], &old) ||
        !run_text(run, *call->p[1], &new))
        return false;
    if (text.is_markup && !new.is_markup)
        new = text_escape(run->arena, new);
    if (text.is_markup && !old.is_markup)
        old = text_escape(run->arena, old);
    *out = value_string(text_replace(run->arena, text, old, new, n_most));
    return true;
}

static bool filter_default(struct run *run, const struct call *call, struct value *out)
{
    (void)run;
    bool also_false = call->p[1] && value_is_true(*call->p[1]);
    bool missing = call->input.kind == VALUE_UNDEFINED || (also_false && !value_is_true(call->input));
    *out = !missing ? call->input : call->p[0] ? *call->p[0] : value_string(string_made(""));
    return true;
}

/* The integer that a string is; false: none. */
static bool parse_integer(struct string text, int base, int64_t *integer)
{
    char digits[80];
    text = text_strip(text, NULL, true, true);
    size_t n = 0;
    for (size_t i = 0; i < text.len && n + 1 < sizeof digits; i++)
        if (text.bytes[i] != '_')
            digits[n++] = text.bytes[i];
    digits[n] = '\0';
    char *end;
    errno = 0;
    *integer = strtoll(digits, &end, base);
    return n && !errno && !*end && end > digits && text.len < sizeof digits;
}

static bool parse_real(struct string text, double *real)
{
    char digits[80], *end;
    text = text_strip(text, NULL, true, true);
    if (!text.len || text.len >= sizeof digits)
        return false;
    memcpy(digits, text.bytes, text.len);
    digits[text.len] = '\0';
    *real = strtod(digits, &end);
    return !*end && !strpbrk(digits, "xX");
}

static bool filter_int(struct run *run, const struct call *call, struct value *out)
{
    struct value input = call->input;
    int64_t base = call->p[1] && call->p[1]->kind == VALUE_INT ? call->p[1]->integer : 10, integer;
    double real;
    *out = call->p[0] ? *call->p[0] : value_int(0);
    if (input.kind == VALUE_UNDEFINED)
        return run_fail(run, "int of an undefined value");
    if (input.kind == VALUE_BOOL || input.kind == VALUE_INT)
        *out = value_int(input.kind == VALUE_BOOL ? input.boolean : input.integer);
    else if (input.kind == VALUE_STRING && base >= 2 && base <= 36 &&
             parse_integer(input.string, (int)base, &integer))
        *out = value_int(integer);
    else if (input.kind == VALUE_FLOAT || (input.kind == VALUE_STRING && parse_real(input.string, &real))) {
        real = input.kind == VALUE_FLOAT ? input.real : real;
        if (real > 9e18 || real < -9e18)
            return run_fail(run, "a number of more than 64 bits");
        if (real == real)
            *out = value_int((int64_t)real);
    }
    return true;
}

static bool filter_float(struct run *run, const struct call *call, struct value *out)
{
    double real;
    *out = call->p[0] ? *call->p[0] : value_float(0);
    if (call->input.kind == VALUE_UNDEFINED)
        return run_fail(run, "float of an undefined value");
    if (value_is_number(call->input))
        *out = value_float(value_number(call->input));
    else if (call->input.kind == VALUE_STRING && parse_real(call->input.string, &real))
        *out = value_float(real);
    return true;
}

static bool filter_abs(struct run *run, const struct call *call, struct value *out)
{
    if (!value_is_number(call->input))
        return run_fail(run, "abs of %s", value_type(call->input));
    if (value_number(call->input) >= 0)
        return run_binary(run, "+", value_int(0), call->input, out);
    return run_binary(run, "-", value_int(0), call->input, out);
}

static bool filter_round(struct run *run, const struct call *call, struct value *out)
{
    int64_t digits = call->p[0] && call->p[0]->kind == VALUE_INT ? call->p[0]->integer : 0;
    struct string method =
        call->p[1] && call->p[1]->kind == VALUE_STRING ? call->p[1]->string : string_made("common");
    if (!value_is_number(call->input) || digits < -15 || digits > 15)
        return run_fail(run, "round of %s, or to more than 15 digits", value_type(call->input));
    double scale = pow(10, (double)digits), scaled = value_number(call->input) * scale;
    if (string_equals(method, "ceil"))
        scaled = ceil(scaled);
    else if (string_equals(method, "floor"))
        scaled = floor(scaled);
    else if (string_equals(method, "common"))
        scaled = nearbyint(scaled);
    else
        return run_fail(run, "round: the method is common, ceil or floor");
    *out = value_float(scaled / scale);
    return true;
}

static bool is_line_end(uint32_t code)
{
    return (code >= 10 && code <= 13) || (code >= 28 && code <= 30) || code == 0x85 || code == 0x2028 ||
           code == 0x2029;
}

bool filter_lines(struct run *run, struct string text, bool keep_ends, struct value *out)
{
    uint32_t code;
    if (!run_new_list(run, VALUE_LIST, out))
        return false;
    for (size_t i = 0; i < text.len;) {
        size_t begin = i, end = i, n = 0;
        while (end < text.len) {
            n = text_character(text.bytes + end, text.len - end, &code);
            if (is_line_end(code))
                break;
            end += n;
        }
        i = end < text.len ? end + n : end;
        if (end < text.len && text.bytes[end] == '\r' && i < text.len && text.bytes[i] == '\n')
            i++;
        if (!run_add(run, *out, value_string(string_part(text, begin, keep_ends ? i : end))))
            return false;
    }
    return true;
}

static bool filter_indent(struct run *run, const struct call *call, struct value *out)
{
    bool first = call->p[1] && value_is_true(*call->p[1]), blank = call->p[2] && value_is_true(*call->p[2]);
    struct value width = call->p[0] ? *call->p[0] : value_int(4), lines;
    struct string indentation = string_of("", 0, false);
    struct string_builder builder = {.arena = run->arena};
    if (width.kind == VALUE_STRING)
        indentation = width.string;
    else if (!run_binary(run, "*", value_string(string_made(" ")), width, &width))
        return false;
    else
        indentation = width.string;
    if (call->input.kind != VALUE_STRING)
        return run_fail(run, "indent of %s", value_type(call->input));
    struct string text = call->input.string;
    builder_add(&builder, text);
    builder_add_made(&builder, "\n");
    if (!run_step(run, text.len / 8) || !filter_lines(run, builder_string(&builder), false, &lines))
        return false;
    struct string_builder result = {.arena = run->arena};
    for (size_t i = 0; i < lines.list->n; i++) {
        struct string line = lines.list->items[i].string;
        if (i)
            builder_add_made(&result, "\n");
        if (i ? line.len || blank : first)
            builder_add(&result, indentation);
        builder_add(&result, line);
        if (!run_step(run, 1 + indentation.len / 32))
            return false;
    }
    *out = value_string(builder_string(&result));
    return true;
}

static bool filter_wordcount(struct run *run, const struct call *call, struct value *out)
{
    struct string text;
    int64_t n = 0;
    bool in_word = false;
    uint32_t code;
    if (!text_of_input(run, call, &text))
        return false;
    for (size_t i = 0; i < text.len;) {
        i += text_character(text.bytes + i, text.len - i, &code);
        bool is_word = code > 127 || isalnum((int)code) || code == '_';
        n += is_word && !in_word;
        in_word = is_word;
    }
    *out = value_int(n);
    return true;
}

static bool filter_attr(struct run *run, const struct call *call, struct value *out)
{
    struct string name;
    if (!run_text(run, *call->p[0], &name))
        return false;
    if (call->input.kind == VALUE_DICT &&
        !library_has_method(call->input, name)) { /* keys are no attributes */
        *out = value_undefined(name);
        return true;
    }
    return run_attribute(run, call->input, name, out);
}

static bool filter_format(struct run *run, const struct call *call, struct value *out)
{
    struct string text;
    struct value values;
    if (!text_of_input(run, call, &text) || !run_new_list(run, VALUE_TUPLE, &values))
        return false;
    if (call->arguments->n_named)
        return run_fail(run, "format: arguments with names are not known here");
    *values.list = (struct list){.items = call->arguments->items, .n = call->arguments->n};
    return format_percent(run, text, values, out);
}

static const struct filter filters[] = {
    {"abs", "", filter_abs},
    {"attr", "name!", filter_attr},
    {"capitalize", "", filter_capitalize},
    {"count", "", filter_length},
    {"d", "default_value boolean", filter_default},
    {"default", "default_value boolean", filter_default},
    {"dictsort", "case_sensitive by reverse", filter_dictsort},
    {"e", "", filter_escape},
    {"escape", "", filter_escape},
    {"first", "", filter_first},
    {"float", "default", filter_float},
    {"format", NULL, filter_format},
    {"indent", "width first blank", filter_indent},
    {"int", "default base", filter_int},
    {"items", "", filter_items},
    {"join", "d attribute", filter_join},
    {"last", "", filter_last},
    {"length", "", filter_length},
    {"list", "", filter_list},
    {"lower", "", filter_lower},
    {"map", NULL, filter_map},
    {"max", "case_sensitive attribute", filter_max},
    {"min", "case_sensitive attribute", filter_min},
    {"reject", NULL, filter_reject},
    {"rejectattr", NULL, filter_rejectattr},
    {"replace", "old! new! count", filter_replace},
    {"reverse", "", filter_reverse},
    {"round", "precision method", filter_round},
    {"safe", "", filter_safe},
    {"select", NULL, filter_select},
    {"selectattr", NULL, filter_selectattr},
    {"sort", "reverse case_sensitive attribute", filter_sort},
    {"string", "", filter_string},
    {"sum", "attribute start", filter_sum},
    {"title", "", filter_title},
    {"tojson", "ensure_ascii indent separators sort_keys", json_write},
    {"trim", "chars", filter_trim},
    {"unique", "case_sensitive attribute", filter_unique},
    {"upper", "", filter_upper},
    {"wordcount", "", filter_wordcount},
};

const struct filter *library_filter(struct string name)
{
    for (size_t i = 0; i < sizeof filters / sizeof *filters; i++)
        if (string_equals(name, filters[i].name))
            return &filters[i];
    return NULL;
}

void library_filter_names(char text[LIBRARY_NAMES_BYTES])
{
    size_t len = 0;
    for (size_t i = 0; i < sizeof filters / sizeof *filters && len < LIBRARY_NAMES_BYTES; i++)
        len +=
            (size_t)snprintf(text + len, LIBRARY_NAMES_BYTES - len, "%s%s", i ? ", " : "", filters[i].name);
}
