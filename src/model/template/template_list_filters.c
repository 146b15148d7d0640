/* template_list_filters.c: filters of chat templates over lists, dicts and sequences. See template_run.h. */
#include "model/template/template_filters.h"

#include "model/template/template_library.h"

#include <string.h>

bool filter_length(struct run *run, const struct call *call, struct value *out)
{
    struct value input = call->input;
    switch (input.kind) {
    case VALUE_UNDEFINED:
        *out = value_int(0);
        return true;
    case VALUE_STRING:
        *out = value_int((int64_t)text_count(input.string));
        return run_step(run, input.string.len / 32);
    case VALUE_LIST:
    case VALUE_TUPLE:
    case VALUE_VIEW:
        *out = value_int((int64_t)input.list->n);
        return true;
    case VALUE_DICT:
        *out = value_int((int64_t)input.dict->n);
        return true;
    case VALUE_LOOP:
        *out = value_int((int64_t)input.loop->items->n);
        return true;
    default:
        return run_fail(run, "%s has no length", value_type(input));
    }
}

bool filter_items(struct run *run, const struct call *call, struct value *out)
{
    if (!run_new_list(run, VALUE_SEQUENCE, out))
        return false;
    if (call->input.kind == VALUE_UNDEFINED)
        return true;
    if (call->input.kind != VALUE_DICT)
        return run_fail(run, "items of %s", value_type(call->input));
    for (size_t i = 0; i < call->input.dict->n; i++) {
        struct value pair;
        if (!run_new_list(run, VALUE_TUPLE, &pair) || !run_add(run, pair, call->input.dict->entries[i].key) ||
            !run_add(run, pair, call->input.dict->entries[i].value) || !run_add(run, *out, pair))
            return false;
    }
    return true;
}

bool filter_list(struct run *run, const struct call *call, struct value *out)
{
    struct list items;
    if (!run_items(run, call->input, &items) || !run_new_list(run, VALUE_LIST, out))
        return false;
    *out->list = (struct list){.items = items.items, .n = items.n, .cap = items.n};
    return true;
}

bool filter_first(struct run *run, const struct call *call, struct value *out)
{
    struct list items;
    if (call->input.kind == VALUE_SEQUENCE && call->input.list->n_taken < call->input.list->n) {
        *out = call->input.list->items[call->input.list->n_taken++];
        return true;
    }
    if (!run_items(run, call->input, &items))
        return false;
    *out = items.n ? items.items[0] : value_undefined(string_of("the first of no items", 21, true));
    return true;
}

bool filter_last(struct run *run, const struct call *call, struct value *out)
{
    struct list items;
    if (call->input.kind == VALUE_SEQUENCE)
        return run_fail(run, "last of a sequence that is walked once");
    if (call->input.kind == VALUE_UNDEFINED)
        return run_fail(run, "last of an undefined value");
    if (!run_items(run, call->input, &items))
        return false;
    *out = items.n ? items.items[items.n - 1] : value_undefined(string_of("the last of no items", 20, true));
    return true;
}

/* What "attribute" names, "a.b.0" for instance, of an item. */
static bool attribute_of(struct run *run, struct value item, struct value attribute, struct value *out)
{
    *out = item;
    if (attribute.kind == VALUE_INT)
        return run_item(run, item, attribute, out);
    if (attribute.kind != VALUE_STRING)
        return run_fail(run, "an attribute is named by %s", value_type(attribute));
    for (size_t begin = 0; begin <= attribute.string.len;) {
        size_t end = text_find(attribute.string, string_made("."), begin);
        if (end == SIZE_MAX)
            end = attribute.string.len;
        struct string part = string_part(attribute.string, begin, end);
        int64_t index = 0;
        bool digits = part.len > 0 && part.len < 10;
        for (size_t i = 0; i < part.len && digits; i++) {
            digits = part.bytes[i] >= '0' && part.bytes[i] <= '9';
            index = index * 10 + part.bytes[i] - '0';
        }
        if (!run_item(run, *out, digits ? value_int(index) : value_string(part), out))
            return false;
        begin = end + 1;
    }
    return true;
}

bool filter_join(struct run *run, const struct call *call, struct value *out)
{
    struct list items;
    struct string between = string_made(""), text;
    struct string_builder builder = {.arena = run->arena};
    if (call->p[0] && !run_text(run, *call->p[0], &between))
        return false;
    if (!run_items(run, call->input, &items))
        return false;
    for (size_t i = 0; i < items.n; i++) {
        struct value item = items.items[i];
        if (call->p[1] && call->p[1]->kind != VALUE_NONE && !attribute_of(run, item, *call->p[1], &item))
            return false;
        if (!run_text(run, item, &text) || !run_step(run, 1 + text.len / 32 + between.len / 32))
            return false;
        if (i)
            builder_add(&builder, between);
        builder_add(&builder, text);
    }
    *out = value_string(builder_string(&builder));
    return true;
}

static const struct value *named(const struct arguments *arguments, const char *name)
{
    for (size_t i = 0; i < arguments->n_named; i++)
        if (string_equals(arguments->named[i].name, name))
            return &arguments->named[i].value;
    return NULL;
}

/* The filter or test that the first argument names, and the arguments after it. */
static bool split_arguments(struct run *run, const struct call *call, size_t n_before, struct arguments *rest,
                            struct string *name)
{
    const struct arguments *arguments = call->arguments;
    if (arguments->n <= n_before)
        return run_fail(run, "a filter over a list is given no name of what it shall do");
    if (arguments->items[n_before].kind != VALUE_STRING)
        return run_fail(run, "a filter over a list is given %s for the name of what it shall do",
                        value_type(arguments->items[n_before]));
    *name = arguments->items[n_before].string;
    *rest = *arguments;
    rest->items += n_before + 1;
    rest->n -= n_before + 1;
    return true;
}

static bool map_one(struct run *run, const struct call *call, struct value item, struct value *out)
{
    const struct value *attribute = named(call->arguments, "attribute"),
                       *fallback = named(call->arguments, "default");
    if (call->arguments->n == 0 && attribute) {
        if (!attribute_of(run, item, *attribute, out))
            return false;
        if (fallback && out->kind == VALUE_UNDEFINED)
            *out = *fallback;
        return true;
    }
    struct arguments rest;
    struct call inner = {.input = item, .arguments = &rest};
    if (!split_arguments(run, call, 0, &rest, &inner.name))
        return false;
    const struct filter *filter = library_filter(inner.name);
    if (!filter)
        return run_fail(run, "map: the filter is not known");
    return run_apply(run, filter->parameters, filter->apply, &inner, out);
}

/* The items of what may also be none or 0, which count as no items here. */
static bool items_or_none(struct run *run, struct value value, struct list *items)
{
    *items = (struct list){0};
    return !value_is_true(value) || run_items(run, value, items);
}

bool filter_map(struct run *run, const struct call *call, struct value *out)
{
    struct list items;
    if (!items_or_none(run, call->input, &items) || !run_new_list(run, VALUE_SEQUENCE, out))
        return false;
    for (size_t i = 0; i < items.n; i++) {
        struct value mapped;
        if (!run_enter(run) || !map_one(run, call, items.items[i], &mapped) || !run_add(run, *out, mapped))
            return false;
        run_leave(run);
    }
    return true;
}

/* Whether an item, or the attribute of it that the first argument names, passes the test. */
static bool passes(struct run *run, const struct call *call, bool by_attribute, struct value item,
                   bool *result)
{
    struct value tested = item, answer;
    struct arguments rest;
    struct call inner = {.arguments = &rest};
    if (by_attribute && !call->arguments->n)
        return run_fail(run, "a filter by an attribute is given no attribute");
    if (by_attribute && !attribute_of(run, item, call->arguments->items[0], &tested))
        return false;
    if (call->arguments->n == by_attribute) {
        *result = value_is_true(tested);
        return true;
    }
    inner.input = tested;
    if (!split_arguments(run, call, by_attribute, &rest, &inner.name))
        return false;
    const struct test *test = library_test(inner.name);
    if (!test)
        return run_fail(run, "select: the test is not known");
    if (!run_apply(run, test->parameters, test->apply, &inner, &answer))
        return false;
    *result = value_is_true(answer);
    return true;
}

static bool filter_by(struct run *run, const struct call *call, bool by_attribute, bool keeps,
                      struct value *out)
{
    struct list items;
    if (!items_or_none(run, call->input, &items) || !run_new_list(run, VALUE_SEQUENCE, out))
        return false;
    for (size_t i = 0; i < items.n; i++) {
        bool passed = false;
        if (!run_enter(run) || !passes(run, call, by_attribute, items.items[i], &passed) || !run_step(run, 1))
            return false;
        run_leave(run);
        if (passed == keeps && !run_add(run, *out, items.items[i]))
            return false;
    }
    return true;
}

bool filter_select(struct run *run, const struct call *call, struct value *out)
{
    return filter_by(run, call, false, true, out);
}

bool filter_reject(struct run *run, const struct call *call, struct value *out)
{
    return filter_by(run, call, false, false, out);
}

bool filter_selectattr(struct run *run, const struct call *call, struct value *out)
{
    return filter_by(run, call, true, true, out);
}

bool filter_rejectattr(struct run *run, const struct call *call, struct value *out)
{
    return filter_by(run, call, true, false, out);
}

struct sorted {
    struct value key, item;
};

/* What items are ordered by: themselves or an attribute, strings in lower case unless case counts. */
static bool key_of(struct run *run, struct value item, const struct value *attribute, bool case_counts,
                   struct value *key)
{
    *key = item;
    if (attribute && attribute->kind != VALUE_NONE && !attribute_of(run, item, *attribute, key))
        return false;
    if (key->kind == VALUE_STRING && !case_counts)
        key->string = text_change_case(run->arena, key->string, TEXT_LOWER);
    return run_step(run, 1 + (key->kind == VALUE_STRING ? key->string.len / 16 : 0));
}

/* Merges two sorted halves; equal items keep their order, also if it is reversed. */
static bool merge(struct run *run, struct sorted *items, size_t middle, size_t n, bool reverse,
                  struct sorted *room)
{
    size_t left = 0, right = middle;
    for (size_t i = 0; i < n; i++) {
        int order = 0;
        if (left < middle && right < n && !run_compare(run, items[left].key, items[right].key, &order))
            return false;
        bool from_left = right == n || (left < middle && (reverse ? order >= 0 : order <= 0));
        room[i] = items[from_left ? left++ : right++];
    }
    memcpy(items, room, n * sizeof *items);
    return true;
}

static bool sort(struct run *run, struct sorted *items, size_t n, bool reverse, struct sorted *room)
{
    size_t middle = n / 2;
    return n < 2 ||
           (sort(run, items, middle, reverse, room) && sort(run, items + middle, n - middle, reverse, room) &&
            merge(run, items, middle, n, reverse, room));
}

static bool sorted_list(struct run *run, const struct list *items, const struct value *attribute,
                        bool case_counts, bool reverse, struct value *out)
{
    struct sorted *all = template_arena_alloc(run->arena, 2 * items->n * sizeof *all);
    if (!all || !run_new_list(run, VALUE_LIST, out))
        return run_step(run, 0);
    for (size_t i = 0; i < items->n; i++) {
        all[i].item = items->items[i];
        if (!key_of(run, all[i].item, attribute, case_counts, &all[i].key))
            return false;
    }
    if (!sort(run, all, items->n, reverse, all + items->n))
        return false;
    for (size_t i = 0; i < items->n; i++)
        if (!run_add(run, *out, all[i].item))
            return false;
    return true;
}

static bool flag(const struct value *value)
{
    return value && value_is_true(*value);
}

bool filter_sort(struct run *run, const struct call *call, struct value *out)
{
    struct list items;
    return run_items(run, call->input, &items) &&
           sorted_list(run, &items, call->p[2], flag(call->p[1]), flag(call->p[0]), out);
}

bool filter_dictsort(struct run *run, const struct call *call, struct value *out)
{
    struct value pairs, by = value_int(0);
    if (call->input.kind != VALUE_DICT)
        return run_fail(run, "dictsort of %s", value_type(call->input));
    if (call->p[1] && call->p[1]->kind == VALUE_STRING && string_equals(call->p[1]->string, "value"))
        by = value_int(1);
    else if (call->p[1] && !(call->p[1]->kind == VALUE_STRING && string_equals(call->p[1]->string, "key")))
        return run_fail(run, "dictsort: by is \"key\" or \"value\"");
    return filter_items(run, call, &pairs) &&
           sorted_list(run, pairs.list, &by, flag(call->p[0]), flag(call->p[2]), out);
}

bool filter_unique(struct run *run, const struct call *call, struct value *out)
{
    struct list items;
    struct value seen, key;
    if (!run_items(run, call->input, &items) || !run_new_list(run, VALUE_SEQUENCE, out) ||
        !run_new_dict(run, &seen))
        return false;
    for (size_t i = 0; i < items.n; i++) {
        if (!key_of(run, items.items[i], call->p[1], flag(call->p[0]), &key))
            return false;
        if (!value_is_key(key))
            return run_fail(run, "unique: %s cannot be compared so", value_type(key));
        if (dict_get(seen.dict, key))
            continue;
        if (!dict_set(run->arena, seen.dict, key, value_none()) || !run_add(run, *out, items.items[i]))
            return run_step(run, 0);
    }
    return true;
}

static bool extreme(struct run *run, const struct call *call, int sign, struct value *out)
{
    struct list items;
    struct value best_key = value_none(), key;
    if (!run_items(run, call->input, &items))
        return false;
    *out = value_undefined(string_of("the extreme of no items", 23, true));
    for (size_t i = 0; i < items.n; i++) {
        int order = sign;
        if (!key_of(run, items.items[i], call->p[1], flag(call->p[0]), &key) ||
            (i && !run_compare(run, key, best_key, &order)))
            return false;
        if (i && (sign < 0 ? order >= 0 : order <= 0))
            continue;
        best_key = key;
        *out = items.items[i];
    }
    return true;
}

bool filter_min(struct run *run, const struct call *call, struct value *out)
{
    return extreme(run, call, -1, out);
}

bool filter_max(struct run *run, const struct call *call, struct value *out)
{
    return extreme(run, call, 1, out);
}

bool filter_sum(struct run *run, const struct call *call, struct value *out)
{
    struct list items;
    *out = call->p[1] ? *call->p[1] : value_int(0);
    if (!run_items(run, call->input, &items))
        return false;
    for (size_t i = 0; i < items.n; i++) {
        struct value item = items.items[i];
        if (call->p[0] && call->p[0]->kind != VALUE_NONE && !attribute_of(run, item, *call->p[0], &item))
            return false;
        if (!run_binary(run, "+", *out, item, out) || !run_step(run, 1))
            return false;
    }
    return true;
}

bool filter_reverse(struct run *run, const struct call *call, struct value *out)
{
    struct list items;
    if (call->input.kind == VALUE_STRING) {
        struct value back = value_int(-1);
        return run_slice(run, call->input, NULL, NULL, &back, out);
    }
    if (!run_items(run, call->input, &items) || !run_new_list(run, VALUE_SEQUENCE, out))
        return false;
    for (size_t i = items.n; i-- > 0;)
        if (!run_add(run, *out, items.items[i]))
            return false;
    return true;
}
