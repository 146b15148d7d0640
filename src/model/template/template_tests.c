/* template_tests.c: what stands after "is" in chat templates. See template_run.h. */
#include "model/template/template_library.h"
#include "model/template/template_run.h"

#include <stdio.h>
#include <string.h>

static bool answer(struct value *out, bool result)
{
    *out = value_bool(result);
    return true;
}

static bool test_defined(struct run *run, const struct call *call, struct value *out)
{
    (void)run;
    return answer(out, call->input.kind != VALUE_UNDEFINED);
}

static bool test_undefined(struct run *run, const struct call *call, struct value *out)
{
    (void)run;
    return answer(out, call->input.kind == VALUE_UNDEFINED);
}

static bool test_none(struct run *run, const struct call *call, struct value *out)
{
    (void)run;
    return answer(out, call->input.kind == VALUE_NONE);
}

static bool test_string(struct run *run, const struct call *call, struct value *out)
{
    (void)run;
    return answer(out, call->input.kind == VALUE_STRING);
}

static bool test_number(struct run *run, const struct call *call, struct value *out)
{
    (void)run;
    return answer(out, value_is_number(call->input));
}

static bool test_integer(struct run *run, const struct call *call, struct value *out)
{
    (void)run;
    return answer(out, call->input.kind == VALUE_INT);
}

static bool test_float(struct run *run, const struct call *call, struct value *out)
{
    (void)run;
    return answer(out, call->input.kind == VALUE_FLOAT);
}

static bool test_boolean(struct run *run, const struct call *call, struct value *out)
{
    (void)run;
    return answer(out, call->input.kind == VALUE_BOOL);
}

static bool test_true(struct run *run, const struct call *call, struct value *out)
{
    (void)run;
    return answer(out, call->input.kind == VALUE_BOOL && call->input.boolean);
}

static bool test_false(struct run *run, const struct call *call, struct value *out)
{
    (void)run;
    return answer(out, call->input.kind == VALUE_BOOL && !call->input.boolean);
}

static bool test_mapping(struct run *run, const struct call *call, struct value *out)
{
    (void)run;
    return answer(out, call->input.kind == VALUE_DICT);
}

static bool test_iterable(struct run *run, const struct call *call, struct value *out)
{
    (void)run;
    enum value_kind kind = call->input.kind;
    return answer(out, value_is_list(call->input) || kind == VALUE_DICT || kind == VALUE_STRING ||
                           kind == VALUE_UNDEFINED || kind == VALUE_LOOP);
}

static bool test_sequence(struct run *run, const struct call *call, struct value *out)
{
    (void)run;
    enum value_kind kind = call->input.kind;
    return answer(out, kind == VALUE_LIST || kind == VALUE_TUPLE || kind == VALUE_DICT ||
                           kind == VALUE_STRING || kind == VALUE_UNDEFINED);
}

static bool test_callable(struct run *run, const struct call *call, struct value *out)
{
    (void)run;
    return answer(out, call->input.kind >= VALUE_LOOP || call->input.kind == VALUE_UNDEFINED);
}

static bool remainder_of(struct run *run, const struct call *call, int64_t by, bool *divisible)
{
    struct value rest;
    if (!run_binary(run, "%", call->input, value_int(by), &rest) || !value_is_number(rest))
        return run_fail(run, "a remainder of %s", value_type(call->input));
    *divisible = value_number(rest) == 0;
    return true;
}

static bool test_even(struct run *run, const struct call *call, struct value *out)
{
    bool even;
    return remainder_of(run, call, 2, &even) && answer(out, even);
}

static bool test_odd(struct run *run, const struct call *call, struct value *out)
{
    bool even;
    return remainder_of(run, call, 2, &even) && answer(out, !even);
}

static bool test_divisibleby(struct run *run, const struct call *call, struct value *out)
{
    bool divisible;
    if (call->p[0]->kind != VALUE_INT)
        return run_fail(run, "divisibleby %s", value_type(*call->p[0]));
    return remainder_of(run, call, call->p[0]->integer, &divisible) && answer(out, divisible);
}

static bool test_eq(struct run *run, const struct call *call, struct value *out)
{
    bool equal;
    return run_equals(run, call->input, *call->p[0], &equal) && answer(out, equal);
}

static bool test_ne(struct run *run, const struct call *call, struct value *out)
{
    bool equal;
    return run_equals(run, call->input, *call->p[0], &equal) && answer(out, !equal);
}

static bool test_lt(struct run *run, const struct call *call, struct value *out)
{
    int order;
    return run_compare(run, call->input, *call->p[0], &order) && answer(out, order < 0);
}

static bool test_le(struct run *run, const struct call *call, struct value *out)
{
    int order;
    return run_compare(run, call->input, *call->p[0], &order) && answer(out, order <= 0);
}

static bool test_gt(struct run *run, const struct call *call, struct value *out)
{
    int order;
    return run_compare(run, call->input, *call->p[0], &order) && answer(out, order > 0);
}

static bool test_ge(struct run *run, const struct call *call, struct value *out)
{
    int order;
    return run_compare(run, call->input, *call->p[0], &order) && answer(out, order >= 0);
}

static bool test_in(struct run *run, const struct call *call, struct value *out)
{
    bool contains;
    return run_contains(run, *call->p[0], call->input, &contains) && answer(out, contains);
}

static bool test_sameas(struct run *run, const struct call *call, struct value *out)
{
    struct value a = call->input, b = *call->p[0];
    bool same = a.kind == b.kind;
    if (same && (value_is_list(a) || a.kind == VALUE_DICT))
        same = a.list == b.list;
    else if (same && !run_equals(run, a, b, &same))
        return false;
    return answer(out, same);
}

/* Whether changing the case of a text leaves it as it is, and it has letters at all. */
static bool has_case(struct run *run, const struct call *call, enum text_case to, struct value *out)
{
    struct string text;
    if (!run_text(run, call->input, &text) || !run_step(run, text.len / 8))
        return false;
    struct string changed = text_change_case(run->arena, text, to);
    struct string other = text_change_case(run->arena, text, to == TEXT_UPPER ? TEXT_LOWER : TEXT_UPPER);
    return answer(out, string_same(text, changed) && !string_same(changed, other));
}

static bool test_lower(struct run *run, const struct call *call, struct value *out)
{
    return has_case(run, call, TEXT_LOWER, out);
}

static bool test_upper(struct run *run, const struct call *call, struct value *out)
{
    return has_case(run, call, TEXT_UPPER, out);
}

static bool test_escaped(struct run *run, const struct call *call, struct value *out)
{
    (void)run;
    return answer(out, call->input.kind == VALUE_STRING && call->input.string.is_markup);
}

static bool test_filter(struct run *run, const struct call *call, struct value *out)
{
    (void)run;
    return answer(out, call->input.kind == VALUE_STRING && library_filter(call->input.string));
}

static bool test_test(struct run *run, const struct call *call, struct value *out)
{
    (void)run;
    return answer(out, call->input.kind == VALUE_STRING && library_test(call->input.string));
}

static const struct test tests[] = {
    {"boolean", "", test_boolean},
    {"callable", "", test_callable},
    {"defined", "", test_defined},
    {"divisibleby", "num!", test_divisibleby},
    {"eq", "other!", test_eq},
    {"equalto", "other!", test_eq},
    {"escaped", "", test_escaped},
    {"even", "", test_even},
    {"false", "", test_false},
    {"filter", "", test_filter},
    {"float", "", test_float},
    {"ge", "other!", test_ge},
    {"greaterthan", "other!", test_gt},
    {"gt", "other!", test_gt},
    {"in", "seq!", test_in},
    {"integer", "", test_integer},
    {"iterable", "", test_iterable},
    {"le", "other!", test_le},
    {"lessthan", "other!", test_lt},
    {"lower", "", test_lower},
    {"lt", "other!", test_lt},
    {"mapping", "", test_mapping},
    {"ne", "other!", test_ne},
    {"none", "", test_none},
    {"number", "", test_number},
    {"odd", "", test_odd},
    {"sameas", "other!", test_sameas},
    {"sequence", "", test_sequence},
    {"string", "", test_string},
    {"test", "", test_test},
    {"true", "", test_true},
    {"undefined", "", test_undefined},
    {"upper", "", test_upper},
};

const struct test *library_test(struct string name)
{
    for (size_t i = 0; i < sizeof tests / sizeof *tests; i++)
        if (string_equals(name, tests[i].name))
            return &tests[i];
    return NULL;
}

void library_test_names(char text[LIBRARY_NAMES_BYTES])
{
    size_t len = 0;
    for (size_t i = 0; i < sizeof tests / sizeof *tests && len < LIBRARY_NAMES_BYTES; i++)
        len += (size_t)snprintf(text + len, LIBRARY_NAMES_BYTES - len, "%s%s", i ? ", " : "", tests[i].name);
}
