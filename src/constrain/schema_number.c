/* schema_number.c: numbers of a schema, within bounds. See schema_rules.h.
 *
 * A bound is turned into the expression of all plain numbers (no exponent) on its right side, digit by digit; several bounds
 * are an intersection. Zero with a sign counts as zero. */
#include "constrain/schema_rules.h"

#include <stdlib.h>
#include <string.h>

enum {
    MAX_DIGITS = 60,
    MAX_COUNT = 1000000,
    MAX_STEP = 1000000,        /* of "multipleOf", its point left out */
    MAX_STEP_SEARCHED = 10000, /* of several, or beside a maximum */
};

/* Of a number without its sign: whole part without leading zeros ("0" is empty), fraction without zeros at its end. */
struct decimal {
    bool is_negative;
    char whole[MAX_DIGITS + 1], fraction[MAX_DIGITS + 1];
    size_t n_whole, n_fraction;
};

/* False: it has too many digits. */
static bool read_decimal(const char *text, struct decimal *decimal)
{
    char digits[MAX_DIGITS + 1];
    size_t n = 0, first = 0;
    long point = 0, exponent = 0;
    bool has_point = false;
    *decimal = (struct decimal){.is_negative = *text == '-'};
    for (text += *text == '-'; *text && *text != 'e' && *text != 'E'; text++) {
        if (*text == '.') {
            has_point = true;
            continue;
        }
        if (n == MAX_DIGITS)
            return false;
        digits[n++] = *text;
        point += !has_point;
    }
    if (*text)
        exponent = strtol(text + 1, NULL, 10);
    if (exponent > MAX_DIGITS || exponent < -MAX_DIGITS)
        return false;
    point += exponent;
    while (first < n && digits[first] == '0' && point > 0) {
        first++;
        point--;
    }
    while (n > first && digits[n - 1] == '0' && (long)(n - first) > point)
        n--;
    if (n == first)
        return true;
    for (long i = 0; i < point; i++) {
        if (decimal->n_whole == MAX_DIGITS)
            return false;
        decimal->whole[decimal->n_whole++] = first + (size_t)i < n ? digits[first + (size_t)i] : '0';
    }
    for (long i = point; i < (long)(n - first); i++) {
        if (decimal->n_fraction == MAX_DIGITS)
            return false;
        decimal->fraction[decimal->n_fraction++] = i < 0 ? '0' : digits[first + (size_t)i];
    }
    return true;
}

static uint32_t digit(struct exprs *exprs, int from, int to)
{
    return from > to ? EXPR_NONE : expr_range(exprs, (unsigned)from, (unsigned)to);
}

static uint32_t any_digits(struct exprs *exprs, uint32_t min, uint32_t max)
{
    return expr_repeat(exprs, digit(exprs, '0', '9'), min, max);
}

static uint32_t point(struct exprs *exprs)
{
    return expr_range(exprs, '.', '.');
}

static uint32_t any_fraction(struct exprs *exprs)
{
    return expr_optional(exprs, expr_cat(exprs, point(exprs), any_digits(exprs, 1, EXPR_FOREVER)));
}

static uint32_t any_whole(struct exprs *exprs)
{
    uint32_t longer = expr_cat(exprs, digit(exprs, '1', '9'), any_digits(exprs, 0, EXPR_FOREVER));
    return expr_either(exprs, digit(exprs, '0', '0'), longer);
}

/* Whole numbers above, or below, this one. */
static uint32_t other_whole(struct exprs *exprs, const struct decimal *decimal, bool above)
{
    uint32_t same_length = EXPR_NONE, n = (uint32_t)decimal->n_whole;
    for (size_t i = n; i-- > 0;) { /* the numbers of the digits from i on */
        int c = decimal->whole[i], least = i ? '0' : '1';
        uint32_t differs = above ? digit(exprs, c + 1, '9') : digit(exprs, least, c - 1);
        differs = expr_cat(exprs, differs, any_digits(exprs, n - 1 - (uint32_t)i, n - 1 - (uint32_t)i));
        same_length = expr_either(exprs, differs, expr_cat(exprs, digit(exprs, c, c), same_length));
    }
    if (above)
        return expr_either(exprs, same_length,
                           expr_cat(exprs, digit(exprs, '1', '9'), any_digits(exprs, n, EXPR_FOREVER)));
    if (n) {
        uint32_t shorter = expr_repeat(exprs, digit(exprs, '0', '9'), 0, n > 1 ? n - 2 : 0);
        if (n > 1)
            same_length = expr_either(exprs, same_length, expr_cat(exprs, digit(exprs, '1', '9'), shorter));
        same_length = expr_either(exprs, same_length, digit(exprs, '0', '0'));
    }
    return same_length;
}

/* The fractions, with their point, that make the same whole number at least, or at most, this one. */
static uint32_t other_fraction(struct exprs *exprs, const struct decimal *decimal, bool above, bool is_strict)
{
    uint32_t zeros = expr_repeat(exprs, digit(exprs, '0', '0'), 0, EXPR_FOREVER),
             all = any_digits(exprs, 0, EXPR_FOREVER);
    uint32_t more = expr_cat(exprs, zeros, expr_cat(exprs, digit(exprs, '1', '9'), all));
    uint32_t rest = above ? (is_strict ? more : all) : (is_strict ? EXPR_NONE : zeros);
    for (size_t i = decimal->n_fraction; i-- > 0;) {
        int c = decimal->fraction[i];
        uint32_t differs = above ? digit(exprs, c + 1, '9') : digit(exprs, '0', c - 1);
        rest = expr_either(exprs, expr_cat(exprs, differs, all), expr_cat(exprs, digit(exprs, c, c), rest));
        if (!above)
            rest = expr_optional(exprs, rest);
    }
    uint32_t written =
        expr_cat(exprs, point(exprs), expr_both(exprs, rest, any_digits(exprs, 1, EXPR_FOREVER)));
    bool none_does = decimal->n_fraction ? !above : !is_strict;
    return none_does ? expr_optional(exprs, written) : written;
}

/* Numbers without a sign that are at least, or at most, this one. */
static uint32_t on_side(struct exprs *exprs, const struct decimal *decimal, bool above, bool is_strict)
{
    uint32_t whole =
        decimal->n_whole ? expr_literal(exprs, decimal->whole, decimal->n_whole) : digit(exprs, '0', '0');
    return expr_either(exprs, expr_cat(exprs, other_whole(exprs, decimal, above), any_fraction(exprs)),
                       expr_cat(exprs, whole, other_fraction(exprs, decimal, above, is_strict)));
}

static uint32_t bound_expr(struct exprs *exprs, const struct decimal *decimal, bool is_lower, bool is_strict)
{
    uint32_t minus = expr_range(exprs, '-', '-'),
             all = expr_cat(exprs, any_whole(exprs), any_fraction(exprs));
    bool is_zero = !decimal->n_whole && !decimal->n_fraction, is_negative = decimal->is_negative && !is_zero;
    uint32_t plain, signed_ones;
    if (is_lower) {
        plain = is_negative ? all : on_side(exprs, decimal, true, is_strict);
        signed_ones = is_negative             ? on_side(exprs, decimal, false, is_strict)
                      : is_zero && !is_strict ? on_side(exprs, decimal, false, false)
                                              : EXPR_NONE;
    } else {
        plain = is_negative ? EXPR_NONE : on_side(exprs, decimal, false, is_strict);
        signed_ones = is_negative || (is_zero && is_strict) ? on_side(exprs, decimal, true, is_strict) : all;
    }
    return expr_either(exprs, plain, expr_cat(exprs, minus, signed_ones));
}

static bool read_bound(struct schema *schema, const struct schema_rule *rule, struct decimal *decimal)
{
    const struct json *value = rule_value(rule);
    if (value->kind != JSON_NUMBER) {
        schema_fail(schema, RUNNEL_EINVAL, "%s: expected a number", rule_keyword(rule));
        return false;
    }
    if (!read_decimal(value->text, decimal))
        schema_fail(schema, RUNNEL_EUNSUPPORTED, "%s: '%.70s' has too many digits", rule_keyword(rule),
                    value->text);
    return !schema->failed;
}

/* The digits of a number as an integer; 0: there are too many. */
static uint32_t all_digits(const struct decimal *decimal)
{
    uint32_t number = 0;
    for (size_t i = 0; i < decimal->n_whole + decimal->n_fraction; i++) {
        number = number * 10 + (uint32_t)((i < decimal->n_whole ? decimal->whole[i]
                                                                : decimal->fraction[i - decimal->n_whole]) -
                                          '0');
        if (number > MAX_STEP)
            return 0;
    }
    return number;
}

/* What is left of it once each of n zeros behind a number has given its factors 2 and 5. */
static uint32_t step_before_zeros(uint32_t step, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        step = step % 2 ? step : step / 2;
        step = step % 5 ? step : step / 5;
    }
    return step;
}

/* A step with n digits behind its point: numbers with 0 to n of them, each as an integer that the step's digits divide once zeros are
 * added to the full n; and zeros behind those. */
static uint32_t multiples(struct schema *schema, const struct schema_rule *rule)
{
    struct exprs *exprs = schema->exprs;
    struct decimal decimal;
    if (!read_bound(schema, rule, &decimal))
        return EXPR_ALL;
    uint32_t step = all_digits(&decimal), n = (uint32_t)decimal.n_fraction, expr = EXPR_NONE;
    if (decimal.is_negative || !(decimal.n_whole || decimal.n_fraction))
        schema_fail(schema, RUNNEL_EINVAL, "multipleOf: expected a number above 0");
    else if (!step)
        schema_fail(schema, RUNNEL_EUNSUPPORTED,
                    "multipleOf: '%.70s' has too many digits: at most %d without its point",
                    rule_value(rule)->text, MAX_STEP);
    if (schema->failed)
        return EXPR_ALL;
    uint32_t zero = digit(exprs, '0', '0');
    uint32_t end =
        n ? expr_repeat(exprs, zero, 0, EXPR_FOREVER)
          : expr_optional(exprs, expr_cat(exprs, point(exprs), expr_repeat(exprs, zero, 1, EXPR_FOREVER)));
    for (uint32_t i = 0; i <= n; i++) {
        uint32_t fraction = i ? expr_cat(exprs, point(exprs), any_digits(exprs, i, i)) : EXPR_EMPTY;
        uint32_t number = expr_both(exprs, expr_cat(exprs, any_whole(exprs), fraction),
                                    expr_multiple(exprs, step_before_zeros(step, n - i)));
        expr = expr_either(exprs, expr, i == n ? expr_cat(exprs, number, end) : number);
    }
    return expr_cat(exprs, expr_optional(exprs, expr_range(exprs, '-', '-')), expr);
}

static uint32_t greatest_divisor(uint32_t a, uint32_t b)
{
    while (b) {
        uint32_t rest = a % b;
        a = b;
        b = rest;
    }
    return a;
}

static bool bounds_above(const struct schema_rule *rule)
{
    bool is_lower = rule_is(rule, "minimum") || rule_is(rule, "exclusiveMinimum");
    return (rule_is(rule, "maximum") || rule_is(rule, "exclusiveMaximum") || is_lower) &&
           is_lower == rule->is_not;
}

/* Whether a number that was begun can become a multiple is known for any one step (scanner.c), but has to be searched for beside others,
 * unless it is a multiple of them, and below a maximum. */
static void check_steps(struct schema *schema, const struct rule_list *list)
{
    uint64_t step = 1, largest = 0;
    bool is_bounded = false;
    for (uint32_t i = 0; i < list->n && !schema->failed; i++) {
        const struct schema_rule *rule = &list->rules[i];
        struct decimal decimal;
        is_bounded |= bounds_above(rule);
        if (!rule_is(rule, "multipleOf") || !read_bound(schema, rule, &decimal))
            continue;
        uint32_t other = all_digits(&decimal);
        if (!other)
            continue;
        largest = other > largest ? other : largest;
        step *= other / greatest_divisor(other, (uint32_t)(step % other));
        step = step < UINT32_MAX ? step : UINT32_MAX;
    }
    if (step > MAX_STEP_SEARCHED && (step > largest || is_bounded))
        schema_fail(schema, RUNNEL_EUNSUPPORTED,
                    "multipleOf: beside %s at most %d is supported, without its point, found %llu",
                    step > largest ? "another one" : "a maximum", MAX_STEP_SEARCHED,
                    (unsigned long long)step);
}

/* What one keyword leaves of numbers; EXPR_ALL: everything. */
static uint32_t keyword_expr(struct schema *schema, const struct schema_rule *rule)
{
    bool is_lower = rule_is(rule, "minimum") || rule_is(rule, "exclusiveMinimum");
    bool is_strict = rule_is(rule, "exclusiveMinimum") || rule_is(rule, "exclusiveMaximum");
    const struct json *exclusive;
    struct decimal decimal;
    if (rule_is(rule, "multipleOf")) {
        if (rule->is_not)
            schema_fail_opposite(schema, "multipleOf", "within it");
        return multiples(schema, rule);
    }
    if (!is_lower && !rule_is(rule, "maximum") && !rule_is(rule, "exclusiveMaximum"))
        return EXPR_ALL;
    const struct json *value = rule_value(rule);
    if (is_strict && (value->kind == JSON_TRUE || value->kind == JSON_FALSE) && !rule->is_not)
        return EXPR_ALL; /* before 2017 it says how "minimum" is meant */
    exclusive = json_tree_member(rule->json, is_lower ? "exclusiveMinimum" : "exclusiveMaximum");
    is_strict |= exclusive && exclusive->kind == JSON_TRUE;
    if (!read_bound(schema, rule, &decimal))
        return EXPR_ALL;
    if (rule->is_not) /* what is not at least 5 is below it */
        return bound_expr(schema->exprs, &decimal, !is_lower, !is_strict);
    return bound_expr(schema->exprs, &decimal, is_lower, is_strict);
}

uint32_t number_expr(struct schema *schema, const struct rule_list *list, unsigned kinds)
{
    struct exprs *exprs = schema->exprs;
    uint32_t sign = expr_optional(exprs, expr_range(exprs, '-', '-')), whole = any_whole(exprs);
    uint32_t integer = expr_cat(exprs, sign, whole);
    struct byte_set letters = {0}, signs = {0};
    byte_set_add(&letters, 'e', 'e');
    byte_set_add(&letters, 'E', 'E');
    byte_set_add(&signs, '+', '+');
    byte_set_add(&signs, '-', '-');
    uint32_t exponent = expr_cat(
        exprs, expr_bytes(exprs, &letters),
        expr_cat(exprs, expr_optional(exprs, expr_bytes(exprs, &signs)), any_digits(exprs, 1, EXPR_FOREVER)));
    uint32_t plain = expr_cat(exprs, integer, any_fraction(exprs));
    uint32_t expr = kinds == VALUE_INTEGER ? integer : expr_cat(exprs, plain, expr_optional(exprs, exponent));
    if (kinds == VALUE_FRACTION) { /* a digit behind the point that is not 0 */
        uint32_t zeros = expr_repeat(exprs, digit(exprs, '0', '0'), 0, EXPR_FOREVER);
        uint32_t fraction = expr_cat(exprs, digit(exprs, '1', '9'), any_digits(exprs, 0, EXPR_FOREVER));
        expr = expr_cat(exprs, integer, expr_cat(exprs, point(exprs), expr_cat(exprs, zeros, fraction)));
    }
    for (uint32_t i = 0; i < list->n; i++)
        expr = expr_both(exprs, expr, keyword_expr(schema, &list->rules[i]));
    check_steps(schema, list);
    return expr;
}

uint32_t schema_count(struct schema *schema, const struct schema_rule *rule)
{
    const struct json *value = rule_value(rule);
    struct decimal decimal;
    if (value->kind != JSON_NUMBER || !read_decimal(value->text, &decimal) || decimal.is_negative ||
        decimal.n_fraction) {
        schema_fail(schema, RUNNEL_EINVAL, "%s: expected an integer from 0 on", rule_keyword(rule));
        return 0;
    }
    unsigned long count =
        decimal.n_whole > 9 ? MAX_COUNT + 1 : strtoul(decimal.n_whole ? decimal.whole : "0", NULL, 10);
    if (count > MAX_COUNT) {
        if (!strncmp(rule_keyword(rule), "max", 3)) /* no answer is as long */
            return EXPR_FOREVER - 1;
        schema_fail(schema, RUNNEL_EUNSUPPORTED, "%s: expected at most %d", rule_keyword(rule), MAX_COUNT);
        return 0;
    }
    return (uint32_t)count;
}
