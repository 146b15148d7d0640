/* template_run.c: what all parts of the evaluator share: bounds, failures, and what compares and walks over values.
 * See template_run.h. */
#include "model/template/template_run.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

bool run_fail(struct run *run, const char *format, ...)
{
    if (run->code)
        return false;
    char message[192];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(message, sizeof message, format, arguments);
    va_end(arguments);
    run->code = error_set(run->error, RUNNEL_EINVAL, "chat template, line %u: %s", run->line, message);
    return false;
}

bool run_fail_bound(struct run *run, size_t bound, const char *what)
{
    if (!run->code)
        run->code = error_set(run->error, TEMPLATE_EBOUND, "chat template, line %u: more than %zu %s",
                              run->line, bound, what);
    return false;
}

bool run_step(struct run *run, size_t n)
{
    if (run->code)
        return false;
    if (run->arena->failed) {
        run->code = error_set(run->error, RUNNEL_ENOMEM, "out of memory for the prompt");
        return false;
    }
    if (run->arena->over_the_limit)
        return run_fail_bound(run, run->arena->limit, "bytes of memory");
    if (n > run->limits->n_steps - run->n_steps)
        return run_fail_bound(run, run->limits->n_steps, "steps");
    run->n_steps += n;
    return true;
}

bool run_enter(struct run *run)
{
    if (run->depth == run->limits->depth)
        return run_fail(run, "more than %u levels within each other", run->limits->depth);
    run->depth++;
    return true;
}

void run_leave(struct run *run)
{
    run->depth--;
}

bool run_new_list(struct run *run, enum value_kind kind, struct value *out)
{
    struct value list = value_list(run->arena, kind);
    if (!list.list)
        return run_step(run, 0);
    *out = list;
    return true;
}

bool run_new_dict(struct run *run, struct value *out)
{
    struct value dict = value_dict(run->arena);
    if (!dict.dict)
        return run_step(run, 0);
    *out = dict;
    return true;
}

bool run_add(struct run *run, struct value list, struct value item)
{
    return list_add(run->arena, list.list, item) ? run_step(run, 1) : run_step(run, 0);
}

bool run_equals(struct run *run, struct value a, struct value b, bool *equal)
{
    size_t left = run->limits->n_steps - run->n_steps;
    struct value_budget budget = {left, run->limits->depth - run->depth + 1};
    *equal = value_equals(a, b, &budget);
    if (!budget.n_steps)
        return run_fail(run, "a comparison of values that is too deep or takes too many steps");
    return run_step(run, left - budget.n_steps);
}

static bool compare_lists(struct run *run, const struct list *a, const struct list *b, int *order)
{
    for (size_t i = 0; i < a->n && i < b->n; i++) {
        bool equal;
        if (!run_equals(run, a->items[i], b->items[i], &equal))
            return false;
        if (!equal)
            return run_enter(run) && run_compare(run, a->items[i], b->items[i], order) &&
                   (run_leave(run), true);
    }
    *order = a->n < b->n ? -1 : a->n > b->n;
    return true;
}

bool run_compare(struct run *run, struct value a, struct value b, int *order)
{
    if (!run_step(run, 1))
        return false;
    if (a.kind == VALUE_INT && b.kind == VALUE_INT) {
        *order = a.integer < b.integer ? -1 : a.integer > b.integer;
        return true;
    }
    if (value_is_number(a) && value_is_number(b)) {
        *order = value_number(a) < value_number(b) ? -1 : value_number(a) > value_number(b);
        return true;
    }
    if (a.kind == VALUE_STRING && b.kind == VALUE_STRING) { /* in UTF-8 bytes have the order of code points */
        size_t len = a.string.len < b.string.len ? a.string.len : b.string.len;
        *order = memcmp(a.string.bytes, b.string.bytes, len);
        if (!*order)
            *order = a.string.len < b.string.len ? -1 : a.string.len > b.string.len;
        return run_step(run, len / 32);
    }
    if (a.kind == b.kind && (a.kind == VALUE_LIST || a.kind == VALUE_TUPLE))
        return compare_lists(run, a.list, b.list, order);
    return run_fail(run, "%s and %s have no order", value_type(a), value_type(b));
}

static bool characters(struct run *run, struct string string, struct list *items)
{
    uint32_t code;
    for (size_t i = 0, n; i < string.len; i += n) {
        n = text_character(string.bytes + i, string.len - i, &code);
        if (!list_add(run->arena, items, value_string(string_part(string, i, i + n))) || !run_step(run, 1))
            return run_step(run, 0);
    }
    return true;
}

bool run_items(struct run *run, struct value value, struct list *items)
{
    *items = (struct list){0};
    switch (value.kind) {
    case VALUE_UNDEFINED:
        return true;
    case VALUE_SEQUENCE:
        items->n = value.list->n - value.list->n_taken;
        if (items->n)
            items->items = value.list->items + value.list->n_taken;
        value.list->n_taken = value.list->n;
        return true;
    case VALUE_LIST:
    case VALUE_TUPLE:
    case VALUE_VIEW:
        *items = *value.list;
        return true;
    case VALUE_STRING:
        return characters(run, value.string, items);
    case VALUE_DICT:
        for (size_t i = 0; i < value.dict->n; i++)
            if (!list_add(run->arena, items, value.dict->entries[i].key) || !run_step(run, 1))
                return run_step(run, 0);
        return true;
    default:
        return run_fail(run, "%s has no items to go through", value_type(value));
    }
}

bool run_contains(struct run *run, struct value in, struct value value, bool *contains)
{
    struct list items;
    *contains = false;
    if (in.kind == VALUE_STRING) {
        if (value.kind != VALUE_STRING)
            return run_fail(run, "%s is looked for in a string", value_type(value));
        *contains = text_find(in.string, value.string, 0) != SIZE_MAX;
        return run_step(run, in.string.len / 32);
    }
    if (in.kind == VALUE_DICT) {
        if (!value_is_key(value))
            return run_fail(run, "%s cannot be the key of a dict", value_type(value));
        *contains = dict_get(in.dict, value);
        return true;
    }
    if (!run_items(run, in, &items))
        return false;
    for (size_t i = 0; i < items.n && !*contains; i++)
        if (!run_equals(run, items.items[i], value, contains))
            return false;
    return true;
}
