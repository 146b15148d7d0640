/* charset.c: see charset.h. */
#include "constrain/charset.h"

#include <stdlib.h>
#include <string.h>

enum {
    MAX_RANGES = 1 << 14,
    SURROGATE_FIRST = 0xd800,
    SURROGATE_LAST = 0xdfff,
    ASTRAL = 0x10000,
};

void charset_add(struct charset *set, uint32_t from, uint32_t to)
{
    if (from > to || set->failed)
        return;
    if (set->n == set->cap) {
        size_t cap = set->cap ? set->cap * 2 : 8;
        struct char_range *ranges = cap > MAX_RANGES ? NULL : realloc(set->ranges, cap * sizeof *ranges);
        if (!ranges) {
            set->failed = true;
            set->no_memory = cap <= MAX_RANGES;
            return;
        }
        set->ranges = ranges;
        set->cap = cap;
    }
    set->ranges[set->n++] = (struct char_range){from, to};
}

void charset_add_all(struct charset *set, const struct charset *other)
{
    for (size_t i = 0; i < other->n; i++)
        charset_add(set, other->ranges[i].from, other->ranges[i].to);
    set->failed |= other->failed;
    set->no_memory |= other->no_memory;
}

static int by_begin(const void *one, const void *other)
{
    const struct char_range *a = one, *b = other;
    return (a->from > b->from) - (a->from < b->from);
}

void charset_sort(struct charset *set)
{
    size_t n = 0;
    if (set->n)
        qsort(set->ranges, set->n, sizeof *set->ranges, by_begin);
    for (size_t i = 0; i < set->n; i++) {
        struct char_range range = set->ranges[i];
        if (n && range.from <= set->ranges[n - 1].to + 1) {
            if (range.to > set->ranges[n - 1].to)
                set->ranges[n - 1].to = range.to;
        } else {
            set->ranges[n++] = range;
        }
    }
    set->n = n;
}

void charset_negate(struct charset *set)
{
    struct charset others = {.failed = set->failed, .no_memory = set->no_memory};
    uint32_t next = 0;
    charset_sort(set);
    for (size_t i = 0; i < set->n; i++) {
        if (set->ranges[i].from > next)
            charset_add(&others, next, set->ranges[i].from - 1);
        next = set->ranges[i].to + 1;
    }
    charset_add(&others, next, CHARSET_LAST);
    charset_free(set);
    *set = others;
}

void charset_free(struct charset *set)
{
    free(set->ranges);
    *set = (struct charset){0};
}

/* What an expression may be, collected: there are few at a time. */
struct choices {
    struct exprs *exprs;
    uint32_t kids[64];
    size_t n;
};

static void choose(struct choices *choices, uint32_t expr)
{
    if (choices->n == sizeof choices->kids / sizeof *choices->kids) {
        choices->kids[0] = expr_or(choices->exprs, choices->kids, choices->n);
        choices->n = 1;
    }
    choices->kids[choices->n++] = expr;
}

static uint32_t chosen(struct choices *choices)
{
    return expr_or(choices->exprs, choices->kids, choices->n);
}

/* The numbers from to to in n digits of a positional form: digit(exprs, first, last) is one digit of that range. */
static uint32_t digits(struct exprs *exprs, uint32_t from, uint32_t to, unsigned n, unsigned bits,
                       uint32_t (*digit)(struct exprs *exprs, unsigned n, uint32_t first, uint32_t last))
{
    uint32_t rest = n > 1 ? (1u << (bits * (n - 1))) - 1 : 0, first = from >> (bits * (n - 1)),
             last = to >> (bits * (n - 1));
    struct choices choices = {.exprs = exprs};
    if (n == 1)
        return digit(exprs, n, first, last);
    if (first == last)
        return expr_cat(exprs, digit(exprs, n, first, first),
                        digits(exprs, from & rest, to & rest, n - 1, bits, digit));
    if (from & rest) {
        choose(&choices, expr_cat(exprs, digit(exprs, n, first, first),
                                  digits(exprs, from & rest, rest, n - 1, bits, digit)));
        first++;
    }
    if ((to & rest) != rest) {
        choose(&choices,
               expr_cat(exprs, digit(exprs, n, last, last), digits(exprs, 0, to & rest, n - 1, bits, digit)));
        last--;
    }
    if (first <= last && last != UINT32_MAX)
        choose(&choices,
               expr_cat(exprs, digit(exprs, n, first, last), digits(exprs, 0, rest, n - 1, bits, digit)));
    return chosen(&choices);
}

static uint32_t continuation(struct exprs *exprs, unsigned n, uint32_t first, uint32_t last)
{
    (void)n;
    return expr_range(exprs, 0x80 + first, 0x80 + last);
}

static uint32_t lead_of_2(struct exprs *exprs, unsigned n, uint32_t first, uint32_t last)
{
    return n == 2 ? expr_range(exprs, 0xc0 + first, 0xc0 + last) : continuation(exprs, n, first, last);
}

static uint32_t lead_of_3(struct exprs *exprs, unsigned n, uint32_t first, uint32_t last)
{
    return n == 3 ? expr_range(exprs, 0xe0 + first, 0xe0 + last) : continuation(exprs, n, first, last);
}

static uint32_t lead_of_4(struct exprs *exprs, unsigned n, uint32_t first, uint32_t last)
{
    return n == 4 ? expr_range(exprs, 0xf0 + first, 0xf0 + last) : continuation(exprs, n, first, last);
}

static uint32_t hex_digit(struct exprs *exprs, unsigned n, uint32_t first, uint32_t last)
{
    struct byte_set set = {0};
    (void)n;
    for (uint32_t digit = first; digit <= last; digit++) {
        unsigned lower = (unsigned char)"0123456789abcdef"[digit],
                 upper = (unsigned char)"0123456789ABCDEF"[digit];
        byte_set_add(&set, lower, lower);
        byte_set_add(&set, upper, upper);
    }
    return expr_bytes(exprs, &set);
}

static uint32_t max_of(uint32_t a, uint32_t b)
{
    return a > b ? a : b;
}

static uint32_t min_of(uint32_t a, uint32_t b)
{
    return a < b ? a : b;
}

static void add_utf8(struct choices *choices, uint32_t from, uint32_t to)
{
    struct exprs *exprs = choices->exprs;
    if (from <= 0x7f)
        choose(choices, expr_range(exprs, from, min_of(to, 0x7f)));
    if (from <= 0x7ff && to >= 0x80)
        choose(choices, digits(exprs, max_of(from, 0x80), min_of(to, 0x7ff), 2, 6, lead_of_2));
    if (from < SURROGATE_FIRST && to >= 0x800)
        choose(choices, digits(exprs, max_of(from, 0x800), min_of(to, SURROGATE_FIRST - 1), 3, 6, lead_of_3));
    if (from < ASTRAL && to > SURROGATE_LAST)
        choose(choices,
               digits(exprs, max_of(from, SURROGATE_LAST + 1), min_of(to, ASTRAL - 1), 3, 6, lead_of_3));
    if (to >= ASTRAL)
        choose(choices, digits(exprs, max_of(from, ASTRAL), min_of(to, CHARSET_LAST), 4, 6, lead_of_4));
}

static uint32_t hex(struct exprs *exprs, uint32_t from, uint32_t to)
{
    return expr_cat(exprs, expr_literal(exprs, "\\u", 2), digits(exprs, from, to, 4, 4, hex_digit));
}

/* \uD800\uDC00 and so on: a pair of surrogates. */
static void add_pairs(struct choices *choices, uint32_t from, uint32_t to)
{
    struct exprs *exprs = choices->exprs;
    uint32_t first = (from - ASTRAL) >> 10, last = (to - ASTRAL) >> 10;
    uint32_t first_low = from & 0x3ff, last_low = to & 0x3ff;
    if (first == last) {
        choose(choices, expr_cat(exprs, hex(exprs, 0xd800 + first, 0xd800 + first),
                                 hex(exprs, 0xdc00 + first_low, 0xdc00 + last_low)));
        return;
    }
    choose(choices, expr_cat(exprs, hex(exprs, 0xd800 + first, 0xd800 + first),
                             hex(exprs, 0xdc00 + first_low, 0xdfff)));
    choose(choices,
           expr_cat(exprs, hex(exprs, 0xd800 + last, 0xd800 + last), hex(exprs, 0xdc00, 0xdc00 + last_low)));
    if (first + 1 < last)
        choose(choices, expr_cat(exprs, hex(exprs, 0xd800 + first + 1, 0xd800 + last - 1),
                                 hex(exprs, 0xdc00, 0xdfff)));
}

static void add_json(struct choices *choices, uint32_t from, uint32_t to)
{
    static const char escaped[] = "\"\\/\b\f\n\r\t", names[] = "\"\\/bfnrt";
    static const struct char_range plain[] = {{0x20, '"' - 1}, {'"' + 1, '\\' - 1}, {'\\' + 1, CHARSET_LAST}};
    struct exprs *exprs = choices->exprs;
    for (size_t i = 0; i < sizeof plain / sizeof *plain; i++)
        if (from <= plain[i].to && to >= plain[i].from)
            add_utf8(choices, max_of(from, plain[i].from), min_of(to, plain[i].to));
    for (size_t i = 0; escaped[i]; i++)
        if ((unsigned char)escaped[i] >= from && (unsigned char)escaped[i] <= to)
            choose(choices, expr_literal(exprs, (char[]){'\\', names[i]}, 2));
    if (from < SURROGATE_FIRST)
        choose(choices, hex(exprs, from, min_of(to, SURROGATE_FIRST - 1)));
    if (from < ASTRAL && to > SURROGATE_LAST)
        choose(choices, hex(exprs, max_of(from, SURROGATE_LAST + 1), min_of(to, ASTRAL - 1)));
    if (to >= ASTRAL)
        add_pairs(choices, max_of(from, ASTRAL), min_of(to, CHARSET_LAST));
}

uint32_t charset_expr(struct exprs *exprs, const struct charset *set, enum char_form form)
{
    struct choices choices = {.exprs = exprs};
    exprs->failed |= set->failed;
    exprs->no_memory |= set->no_memory;
    for (size_t i = 0; i < set->n && set->ranges[i].from <= CHARSET_LAST; i++)
        (form == CHAR_UTF8 ? add_utf8 : add_json)(&choices, set->ranges[i].from,
                                                  min_of(set->ranges[i].to, CHARSET_LAST));
    return chosen(&choices);
}

uint32_t char_range_expr(struct exprs *exprs, uint32_t from, uint32_t to, enum char_form form)
{
    struct char_range range = {from, to};
    return charset_expr(exprs, &(struct charset){.ranges = &range, .n = 1}, form);
}
