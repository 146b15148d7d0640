/* template_operators.c: arithmetic and slices of chat templates, as Python has them, in 64 bits. See template_run.h. */
#include "model/template/template_run.h"

#include <math.h>
#include <string.h>

static int64_t integer_of(struct value value)
{
    return value.kind == VALUE_BOOL ? value.boolean : value.integer;
}

static bool power(int64_t base, int64_t exponent, int64_t *result)
{
    *result = 1;
    for (; exponent > 0; exponent--) {
        if (base == 0 || base == 1 || base == -1) {
            *result = base == -1 && exponent % 2 == 0 ? 1 : base;
            return true;
        }
        if (__builtin_mul_overflow(*result, base, result))
            return false;
    }
    return true;
}

static bool integers(struct run *run, char operator, bool floors, int64_t a, int64_t b, struct value *out)
{
    int64_t result = 0;
    bool overflow = false;
    if ((operator== '/' || operator== '%') && b == 0)
        return run_fail(run, "division by zero");
    switch (operator) {
    case '+':
        overflow = __builtin_add_overflow(a, b, &result);
        break;
    case '-':
        overflow = __builtin_sub_overflow(a, b, &result);
        break;
    case '*':
        overflow = floors ? !power(a, b, &result) : __builtin_mul_overflow(a, b, &result);
        break;
    case '/': /* rounded down */
        overflow = a == INT64_MIN && b == -1;
        result = overflow ? 0 : a / b - (a % b != 0 && (a < 0) != (b < 0));
        break;
    default:
        result = b == -1 ? 0 : a % b;
        result += result != 0 && (result < 0) != (b < 0) ? b : 0;
    }
    if (overflow)
        return run_fail(run, "a number of more than 64 bits");
    *out = value_int(result);
    return true;
}

static bool reals(struct run *run, char operator, bool doubled, double a, double b, struct value *out)
{
    if ((operator== '/' || operator== '%') && b == 0)
        return run_fail(run, "division by zero");
    double rest = b != 0 ? fmod(a, b) : 0;
    if (rest != 0 && (rest < 0) != (b < 0))
        rest += b;
    *out = value_float(operator== '+' ? a + b :
                       operator== '-' ? a - b
                       :
                       operator== '*' && doubled ? pow(a, b)
                       :
                       operator== '*' ? a * b
                       :
                       operator== '/' && doubled ? floor(a / b)
                       :
                       operator== '/' ? a / b
                                      : rest);
    if (!isfinite(out->real))
        return run_fail(run, "a number that is too large");
    return true;
}

static bool join_strings(struct run *run, struct string a, struct string b, struct value *out)
{
    struct string_builder builder = {.arena = run->arena};
    bool is_markup = a.is_markup || b.is_markup;
    if (is_markup && !a.is_markup)
        a = text_escape(run->arena, a);
    if (is_markup && !b.is_markup)
        b = text_escape(run->arena, b);
    builder_add(&builder, a);
    builder_add(&builder, b);
    *out = value_string(builder_string(&builder));
    out->string.is_markup = is_markup;
    return run_step(run, (a.len + b.len) / 32);
}

static bool join_lists(struct run *run, struct value a, struct value b, struct value *out)
{
    if (!run_new_list(run, a.kind, out))
        return false;
    for (size_t i = 0; i < a.list->n; i++)
        if (!run_add(run, *out, a.list->items[i]))
            return false;
    for (size_t i = 0; i < b.list->n; i++)
        if (!run_add(run, *out, b.list->items[i]))
            return false;
    return true;
}

static bool repeat(struct run *run, struct value what, int64_t n, struct value *out)
{
    if (what.kind == VALUE_STRING) {
        struct string_builder builder = {.arena = run->arena};
        for (int64_t i = 0; i < n && what.string.len; i++) {
            builder_add(&builder, what.string);
            if (!run_step(run, 1 + what.string.len / 32))
                return false;
        }
        *out = value_string(builder_string(&builder));
        out->string.is_markup = what.string.is_markup;
        return true;
    }
    if (!run_new_list(run, what.kind, out))
        return false;
    for (int64_t i = 0; i < n && what.list->n; i++)
        for (size_t k = 0; k < what.list->n; k++)
            if (!run_add(run, *out, what.list->items[k]))
                return false;
    return true;
}

static bool is_repeatable(struct value value)
{
    return value.kind == VALUE_STRING || value.kind == VALUE_LIST || value.kind == VALUE_TUPLE;
}

static bool is_integer(struct value value)
{
    return value.kind == VALUE_INT || value.kind == VALUE_BOOL;
}

bool run_binary(struct run *run, const char *operator, struct value a, struct value b, struct value *out)
{
    bool doubled = operator[1] != '\0';
    if (is_integer(a) && is_integer(b) && strcmp(operator, "/") != 0 &&
        !(strcmp(operator, "**") == 0 && integer_of(b) < 0))
        return integers(run, operator[0], doubled, integer_of(a), integer_of(b), out);
    if (value_is_number(a) && value_is_number(b))
        return reals(run, operator[0], doubled, value_number(a), value_number(b), out);
    if (strcmp(operator, "+") == 0 && a.kind == VALUE_STRING && b.kind == VALUE_STRING)
        return join_strings(run, a.string, b.string, out);
    if (strcmp(operator, "+") == 0 && a.kind == b.kind && (a.kind == VALUE_LIST || a.kind == VALUE_TUPLE))
        return join_lists(run, a, b, out);
    if (strcmp(operator, "*") == 0 && is_repeatable(a) && is_integer(b))
        return repeat(run, a, integer_of(b), out);
    if (strcmp(operator, "*") == 0 && is_repeatable(b) && is_integer(a))
        return repeat(run, b, integer_of(a), out);
    if (strcmp(operator, "%") == 0 && a.kind == VALUE_STRING)
        return format_percent(run, a.string, b, out);
    return run_fail(run, "%s %s %s", value_type(a), operator, value_type(b));
}

/* An end of a slice: within 0 to n, or -1 to n - 1 if it goes backwards. */
static int64_t clamp(int64_t at, int64_t n, bool backwards)
{
    if (at < 0)
        at = at < -n ? -1 : at + n;
    if (at < 0)
        return backwards ? -1 : 0;
    return at < n ? at : backwards ? n - 1 : n;
}

static bool slice_string(struct run *run, struct string string, int64_t begin, int64_t end, int64_t step,
                         struct value *out)
{
    if (step == 1) {
        size_t first = text_offset(string, (size_t)begin);
        size_t last =
            end <= begin ? first
                         : first + text_offset(string_part(string, first, string.len), (size_t)(end - begin));
        *out = value_string(string_part(string, first, last));
        return true;
    }
    struct list characters;
    struct string_builder builder = {.arena = run->arena};
    if (!run_items(run, value_string(string), &characters))
        return false;
    for (int64_t i = begin; step > 0 ? i < end : i > end; i += step)
        builder_add(&builder, characters.items[i].string);
    *out = value_string(builder_string(&builder));
    out->string.is_markup = string.is_markup;
    return true;
}

bool run_slice(struct run *run, struct value object, const struct value *begin, const struct value *end,
               const struct value *step, struct value *out)
{
    const struct value *parts[] = {begin, end, step};
    bool sliceable = is_repeatable(object);
    for (int i = 0; i < 3; i++)
        sliceable &= !parts[i] || is_integer(*parts[i]);
    *out = value_undefined(string_of("a slice", 7, true));
    if (object.kind == VALUE_UNDEFINED)
        return run_fail(run, "an undefined value is sliced");
    if (!sliceable)
        return true;
    int64_t n = object.kind == VALUE_STRING ? (int64_t)text_count(object.string) : (int64_t)object.list->n;
    int64_t by = step ? integer_of(*step) : 1;
    bool backwards = by < 0;
    if (!run_step(run, (size_t)n / 16))
        return false;
    if (!by)
        return run_fail(run, "a slice has step 0");
    by = by > n ? n + 1 : by < -n ? -n - 1 : by;
    int64_t from = begin ? clamp(integer_of(*begin), n, backwards) : backwards ? n - 1 : 0;
    int64_t to = end ? clamp(integer_of(*end), n, backwards) : backwards ? -1 : n;
    if (object.kind == VALUE_STRING)
        return slice_string(run, object.string, from, to, by, out);
    if (!run_new_list(run, object.kind, out))
        return false;
    for (int64_t i = from; backwards ? i > to : i < to; i += by)
        if (!run_add(run, *out, object.list->items[i]))
            return false;
    return true;
}
