/* scanner.c: see scanner.h. */
#include "constrain/scanner.h"

#include "constrain/table.h"

#include <stdlib.h>
#include <string.h>

enum {
    MANY_REMAINDERS = 1000, /* of a multiple: digits are tried before all of them are searched */
    MULTIPLE_DEPTH = 8,
    DIGITS_TRIED = 12,
};

enum {
    LIFE_UNKNOWN,
    LIFE_ALIVE,
    LIFE_DEAD,
};

/* Two bytes are in one class if every set has both or neither: each set splits the classes that there are. */
static void find_classes(struct scanner *scanner)
{
    const struct exprs *exprs = scanner->exprs;
    uint32_t n = 1;
    for (uint32_t s = 0; s < exprs->n_sets && n < 256; s++) {
        int16_t split[256]; /* class to the class of those of it that are in the set; -1: none yet */
        uint32_t n_in[256] = {0}, n_of[256] = {0};
        for (unsigned byte = 0; byte < 256; byte++) {
            n_of[scanner->class_of[byte]]++;
            n_in[scanner->class_of[byte]] += byte_set_has(&exprs->sets[s], byte);
        }
        memset(split, 0xff, sizeof split);
        for (unsigned byte = 0; byte < 256; byte++) {
            unsigned column = scanner->class_of[byte];
            if (!byte_set_has(&exprs->sets[s], byte) || n_in[column] == n_of[column])
                continue;
            if (split[column] < 0)
                split[column] = (int16_t)n++;
            scanner->class_of[byte] = (uint8_t)split[column];
        }
    }
    scanner->n_classes = n;
    for (unsigned byte = 0; byte < 256; byte++)
        scanner->byte_of[scanner->class_of[byte]] = (uint8_t)byte;
}

void scanner_free(struct scanner *scanner)
{
    if (!scanner)
        return;
    table_free(scanner->states);
    table_free(scanner->rows);
    table_free(scanner->state_of);
    table_free(scanner->life);
    table_free(scanner->queue);
    table_free(scanner->parents);
    table_free(scanner->seen);
    table_free(scanner->kept);
    free(scanner);
}

struct scanner *scanner_create(struct exprs *exprs, uint32_t max_states)
{
    struct scanner *scanner = calloc(1, sizeof *scanner);
    if (!scanner)
        return NULL;
    scanner->exprs = exprs;
    find_classes(scanner);
    scanner->max = max_states < 16 ? 16 : max_states;
    scanner->n = SCAN_DEAD + 1;
    scanner->states = table_create(scanner->max, sizeof *scanner->states);
    scanner->rows = table_create((size_t)scanner->max * scanner->n_classes, sizeof *scanner->rows);
    scanner->state_of = table_create(exprs->max, sizeof *scanner->state_of);
    scanner->life = table_create(exprs->max, sizeof *scanner->life);
    scanner->queue = table_create(exprs->max, sizeof *scanner->queue);
    scanner->parents = table_create(exprs->max, sizeof *scanner->parents);
    scanner->seen = table_create(exprs->max, sizeof *scanner->seen);
    scanner->kept = table_create(scanner->max, sizeof *scanner->kept);
    if (!scanner->kept || !scanner->states || !scanner->rows || !scanner->state_of || !scanner->life ||
        !scanner->queue || !scanner->parents || !scanner->seen) {
        scanner_free(scanner);
        return NULL;
    }
    return scanner;
}

/* expr has a word: it, and those through which it was found. */
static bool found_alive(struct scanner *scanner, uint32_t expr)
{
    for (;;) {
        scanner->life[expr] = LIFE_ALIVE;
        if (scanner->parents[expr] == expr)
            return true;
        expr = scanner->parents[expr];
    }
}

/* The first multiple that a word of this would be, if its step is so large that a search would take long; NULL: there is none. */
static const struct expr *find_multiple(const struct exprs *exprs, uint32_t number, unsigned depth)
{
    const struct expr *expr = &exprs->exprs[number], *found = NULL;
    if (expr->kind == EXPR_IS_MULTIPLE)
        return expr->a > MANY_REMAINDERS ? expr : NULL;
    if (expr->kind == EXPR_IS_CAT && depth)
        found = find_multiple(exprs, expr->a, depth - 1);
    if (expr->kind == EXPR_IS_CAT && depth && !found && exprs->exprs[expr->a].is_nullable)
        found = find_multiple(exprs, expr->b, depth - 1);
    if ((expr->kind == EXPR_IS_AND || expr->kind == EXPR_IS_OR) && depth)
        for (uint32_t k = 0; k < expr->n && !found; k++)
            found = find_multiple(exprs, exprs->kids[expr->a + k], depth - 1);
    return found;
}

/* Whether these digits are a word of start, with a point before the last n_fraction if that is not 0; then it, and what it leads
 * through, is alive. */
static bool try_digits(struct scanner *scanner, uint32_t start, uint64_t number, unsigned n_digits,
                       unsigned n_fraction)
{
    uint32_t path[2 * DIGITS_TRIED + 2], n = 0;
    uint64_t power = 1;
    for (unsigned i = 1; i < n_digits; i++)
        power *= 10;
    path[n++] = start;
    for (unsigned left = n_digits; left > 0 && path[n - 1] != EXPR_NONE; left--, power /= 10) {
        if (left == n_fraction) {
            path[n] = expr_derive(scanner->exprs, path[n - 1], '.');
            n++;
        }
        path[n] = expr_derive(scanner->exprs, path[n - 1], (unsigned)('0' + number / power % 10));
        n++;
    }
    if (!expr_is_nullable(scanner->exprs, path[n - 1]))
        return false;
    for (uint32_t i = 0; i < n; i++)
        scanner->life[path[i]] = LIFE_ALIVE;
    return true;
}

/* With enough digits behind what was read any number becomes a multiple: the lowest and the highest of so many digits. A search would go
 * through as many remainders as the step has. */
static bool try_multiples(struct scanner *scanner, uint32_t start)
{
    const struct expr *found = find_multiple(scanner->exprs, start, MULTIPLE_DEPTH);
    if (!found)
        return false;
    uint64_t step = found->a, remainder = found->b, power = 1;
    for (unsigned n = 1; n <= DIGITS_TRIED; n++) {
        power *= 10;
        uint64_t low = (step - remainder * (power % step) % step) % step;
        for (unsigned n_fraction = 0; low < power && n_fraction <= n; n_fraction++)
            if (try_digits(scanner, start, low, n, n_fraction) ||
                try_digits(scanner, start, low + (power - 1 - low) / step * step, n, n_fraction))
                return true;
    }
    return false;
}

/* Breadth first, so that the shortest word is found; what is passed without finding any has none. */
static bool search(struct scanner *scanner, uint32_t start)
{
    struct exprs *exprs = scanner->exprs;
    uint32_t n = 1;
    if (try_multiples(scanner, start))
        return true;
    scanner->search++;
    scanner->queue[0] = start;
    scanner->parents[start] = start;
    scanner->seen[start] = scanner->search;
    for (uint32_t i = 0; i < n; i++) {
        uint32_t expr = scanner->queue[i];
        if (expr_is_nullable(exprs, expr))
            return found_alive(scanner, expr);
        for (unsigned column = 0; column < scanner->n_classes; column++) {
            uint32_t next = expr_derive(exprs, expr, scanner->byte_of[column]);
            if (exprs->failed)
                return false;
            if (next == EXPR_NONE || scanner->life[next] == LIFE_DEAD ||
                scanner->seen[next] == scanner->search)
                continue;
            scanner->seen[next] = scanner->search;
            scanner->parents[next] = expr;
            if (!exprs->exprs[next].has_logic || scanner->life[next] == LIFE_ALIVE)
                return found_alive(scanner, next);
            scanner->queue[n++] = next;
        }
    }
    for (uint32_t i = 0; i < n; i++)
        scanner->life[scanner->queue[i]] = LIFE_DEAD;
    return false;
}

bool scanner_has_words(struct scanner *scanner, uint32_t expr)
{
    if (expr == EXPR_NONE || scanner->life[expr] == LIFE_DEAD)
        return false;
    return !scanner->exprs->exprs[expr].has_logic || scanner->life[expr] == LIFE_ALIVE ||
           search(scanner, expr);
}

/* Whether it has a word of a byte or more. */
static bool goes_on(struct scanner *scanner, uint32_t expr)
{
    struct exprs *exprs = scanner->exprs;
    if (!exprs->exprs[expr].has_logic)
        return expr != EXPR_EMPTY;
    for (unsigned column = 0; column < scanner->n_classes; column++)
        if (scanner_has_words(scanner, expr_derive(exprs, expr, scanner->byte_of[column])))
            return true;
    return false;
}

uint32_t scanner_state(struct scanner *scanner, uint32_t expr)
{
    const struct exprs *exprs = scanner->exprs;
    if (scanner->state_of[expr])
        return scanner->state_of[expr];
    if (!scanner_has_words(scanner, expr)) {
        if (!exprs->failed)
            scanner->state_of[expr] = SCAN_DEAD;
        return SCAN_DEAD;
    }
    bool accepts = expr_is_nullable(exprs, expr), is_longer = !accepts || goes_on(scanner, expr);
    if (scanner->n == scanner->max)
        scanner->failed = true;
    if (scanner->failed || exprs->failed)
        return SCAN_DEAD;
    scanner->states[scanner->n] = (struct scan_state){
        .expr = expr,
        .accepts = accepts,
        .goes_on = is_longer,
        .is_wide = expr_is_wide(exprs, expr),
    };
    scanner->state_of[expr] = scanner->n;
    return scanner->n++;
}

uint32_t scanner_find_next(struct scanner *scanner, uint32_t state, unsigned column)
{
    uint32_t expr = expr_derive(scanner->exprs, scanner->states[state].expr, scanner->byte_of[column]);
    uint32_t next = scanner_state(scanner, expr);
    if (!scanner->exprs->failed && !scanner->failed)
        scanner->rows[(size_t)state * scanner->n_classes + column] = next;
    return next;
}

bool scanner_is_full(const struct scanner *scanner)
{
    return scanner->n - scanner->least > (scanner->max - scanner->least) / 4 * 3 ||
           exprs_are_full(scanner->exprs);
}

void scanner_forget(struct scanner *scanner, uint32_t **terminals, size_t n)
{
    struct exprs *exprs = scanner->exprs;
    uint32_t *kept_exprs = scanner->queue, n_exprs = exprs->n, n_states = scanner->n;
    memset(kept_exprs, 0, n_exprs * sizeof *kept_exprs);
    for (size_t i = 0; i < n; i++)
        kept_exprs[*terminals[i]] = 1;
    for (uint32_t state = SCAN_DEAD + 1; state < n_states; state++)
        if (scanner->kept[state])
            kept_exprs[scanner->states[state].expr] = 1;
    exprs_forget(exprs, kept_exprs);
    for (size_t i = 0; i < n; i++)
        *terminals[i] = kept_exprs[*terminals[i]];
    memset(scanner->rows, 0, (size_t)n_states * scanner->n_classes * sizeof *scanner->rows);
    memset(scanner->state_of, 0, n_exprs * sizeof *scanner->state_of);
    memset(scanner->seen, 0, n_exprs * sizeof *scanner->seen);
    scanner->n = SCAN_DEAD + 1;
    for (uint32_t state = SCAN_DEAD + 1; state < n_states; state++)
        if (scanner->kept[state]) {
            scanner->kept[state] = scanner->n++;
            struct scan_state *moved = &scanner->states[scanner->kept[state]];
            *moved = scanner->states[state];
            moved->expr = kept_exprs[moved->expr];
            scanner->state_of[moved->expr] = scanner->kept[state];
        }
    scanner->least = scanner->n;
    for (uint32_t e = 0; e < n_exprs; e++) /* down, so that none is overwritten before it was read */
        if (kept_exprs[e])
            scanner->life[kept_exprs[e]] = scanner->life[e];
    memset(scanner->life + exprs->n, LIFE_UNKNOWN, n_exprs - exprs->n);
}

size_t scanner_bytes(const struct scanner *scanner, bool all)
{
    size_t n = all ? scanner->max : scanner->n, n_exprs = all ? scanner->exprs->max : scanner->exprs->n;
    return n * (sizeof *scanner->states + scanner->n_classes * sizeof *scanner->rows +
                sizeof *scanner->kept) +
           n_exprs * (sizeof *scanner->state_of + sizeof *scanner->life + sizeof *scanner->queue +
                      sizeof *scanner->parents + sizeof *scanner->seen);
}
