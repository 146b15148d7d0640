/* exprs.c: see exprs.h. */
#include "constrain/exprs.h"

#include "constrain/table.h"

#include <stdlib.h>
#include <string.h>

enum {
    MEMO_SIZE = 1 << 12,
    MAX_DEPTH = 4000, /* of expr_derive's calls: less than a megabyte of stack */
    WIDE_BYTES = 64,
    LONG_REPEAT = 16,
};

static uint64_t hash_words(uint64_t hash, const uint32_t *words, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        hash = (hash ^ words[i]) * 0x9e3779b97f4a7c15u;
        hash ^= hash >> 29;
    }
    return hash;
}

static uint32_t fail(struct exprs *exprs)
{
    exprs->failed = true;
    return EXPR_NONE;
}

static uint32_t intern_set(struct exprs *exprs, const struct byte_set *set)
{
    uint32_t at = (uint32_t)hash_words(1, (const uint32_t *)set->bits, 8) & exprs->set_index_mask;
    for (; exprs->set_index[at]; at = (at + 1) & exprs->set_index_mask)
        if (!memcmp(&exprs->sets[exprs->set_index[at] - 1], set, sizeof *set))
            return exprs->set_index[at] - 1;
    if (exprs->n_sets == exprs->max_sets) {
        exprs->failed = true;
        return 0;
    }
    exprs->sets[exprs->n_sets] = *set;
    exprs->set_index[at] = ++exprs->n_sets;
    return exprs->n_sets - 1;
}

static unsigned set_size(const struct byte_set *set)
{
    unsigned n = 0;
    for (int i = 0; i < 4; i++)
        n += (unsigned)__builtin_popcountll(set->bits[i]);
    return n;
}

static bool same_expr(const struct exprs *exprs, const struct expr *one, const struct expr *other,
                      const uint32_t *kids)
{
    if (one->kind != other->kind || one->n != other->n)
        return false;
    if (one->kind == EXPR_IS_OR || one->kind == EXPR_IS_AND)
        return !memcmp(exprs->kids + one->a, kids, one->n * sizeof *kids);
    return one->a == other->a && one->b == other->b;
}

static uint32_t first_of_kids(struct exprs *exprs, enum expr_kind kind, const uint32_t *kids, uint32_t n)
{
    struct byte_set first = exprs->sets[exprs->exprs[kids[0]].first];
    for (uint32_t k = 1; k < n; k++)
        for (int i = 0; i < 4; i++) {
            uint64_t bits = exprs->sets[exprs->exprs[kids[k]].first].bits[i];
            first.bits[i] = kind == EXPR_IS_OR ? first.bits[i] | bits : first.bits[i] & bits;
        }
    return intern_set(exprs, &first);
}

static uint32_t digits_and_point(struct exprs *exprs)
{
    struct byte_set set = {0};
    byte_set_add(&set, '0', '9');
    byte_set_add(&set, '.', '.');
    return intern_set(exprs, &set);
}

/* What is known of an expression from what it consists of. */
static void describe(struct exprs *exprs, struct expr *expr, const uint32_t *kids)
{
    const struct expr *a = &exprs->exprs[expr->a], *b = &exprs->exprs[expr->b];
    switch ((enum expr_kind)expr->kind) {
    case EXPR_IS_NONE:
    case EXPR_IS_EMPTY:
        expr->is_nullable = expr->kind == EXPR_IS_EMPTY;
        expr->first = 0;
        break;
    case EXPR_IS_BYTES:
        expr->first = expr->a;
        break;
    case EXPR_IS_CAT:
        expr->is_nullable = a->is_nullable && b->is_nullable;
        expr->has_logic = a->has_logic || b->has_logic;
        expr->is_long = a->is_long || b->is_long;
        expr->depth = 1 + (a->is_nullable && b->depth > a->depth ? b->depth : a->depth);
        expr->first = a->first;
        if (a->is_nullable)
            expr->first = first_of_kids(exprs, EXPR_IS_OR, (uint32_t[]){expr->a, expr->b}, 2);
        break;
    case EXPR_IS_OR:
    case EXPR_IS_AND:
        expr->is_nullable = expr->kind == EXPR_IS_AND;
        expr->has_logic = expr->kind == EXPR_IS_AND;
        for (uint32_t k = 0; k < expr->n; k++) {
            const struct expr *kid = &exprs->exprs[kids[k]];
            expr->is_nullable = expr->kind == EXPR_IS_OR ? expr->is_nullable || kid->is_nullable
                                                         : expr->is_nullable && kid->is_nullable;
            expr->has_logic |= kid->has_logic;
            expr->is_long |= kid->is_long;
            expr->depth = kid->depth + 1 > expr->depth ? kid->depth + 1 : expr->depth;
        }
        expr->first = first_of_kids(exprs, (enum expr_kind)expr->kind, kids, expr->n);
        break;
    case EXPR_IS_NOT:
        expr->is_nullable = !a->is_nullable;
        expr->has_logic = true;
        expr->is_long = true;
        expr->depth = a->depth + 1;
        expr->first = 1;
        break;
    case EXPR_IS_REPEAT:
        expr->is_nullable = !expr->b || a->is_nullable;
        expr->has_logic = a->has_logic;
        expr->is_long =
            a->is_long || (expr->n > LONG_REPEAT && set_size(&exprs->sets[a->first]) >= WIDE_BYTES);
        expr->depth = a->depth + 1;
        expr->first = a->first;
        break;
    case EXPR_IS_MULTIPLE:
        expr->is_nullable = !expr->b;
        expr->first = digits_and_point(exprs);
        break;
    }
}

static bool has_kids(const struct expr *expr)
{
    return expr->kind == EXPR_IS_OR || expr->kind == EXPR_IS_AND;
}

/* Where an expression of these parts stands in the index, unless others were there before. */
static uint32_t place_of(const struct exprs *exprs, const struct expr *expr, const uint32_t *kids)
{
    uint64_t hash = has_kids(expr) ? hash_words(expr->kind, kids, expr->n)
                                   : hash_words(expr->kind, (uint32_t[]){expr->a, expr->b, expr->n}, 3);
    return (uint32_t)(hash >> 8) & exprs->index_mask;
}

/* The number of an expression of this kind and these parts; the others are filled in here. */
static uint32_t intern(struct exprs *exprs, struct expr expr, const uint32_t *kids)
{
    uint32_t at = place_of(exprs, &expr, kids);
    for (; exprs->index[at]; at = (at + 1) & exprs->index_mask)
        if (same_expr(exprs, &exprs->exprs[exprs->index[at]], &expr, kids))
            return exprs->index[at];
    if (exprs->n == exprs->max || (has_kids(&expr) && expr.n > exprs->max_kids - exprs->n_kids))
        return fail(exprs);
    describe(exprs, &expr, kids);
    if (exprs->failed || expr.depth > MAX_DEPTH)
        return fail(exprs);
    if (has_kids(&expr)) {
        expr.a = exprs->n_kids;
        memcpy(exprs->kids + exprs->n_kids, kids, expr.n * sizeof *kids);
        exprs->n_kids += expr.n;
    }
    exprs->exprs[exprs->n] = expr;
    exprs->index[at] = exprs->n;
    return exprs->n++;
}

void exprs_free(struct exprs *exprs)
{
    if (!exprs)
        return;
    table_free(exprs->exprs);
    table_free(exprs->index);
    table_free(exprs->kids);
    table_free(exprs->sets);
    table_free(exprs->set_index);
    table_free(exprs->memo);
    table_free(exprs->scratch);
    free(exprs);
}

static uint32_t power_of_two(uint32_t n)
{
    uint32_t power = 16;
    while (power < n)
        power *= 2;
    return power;
}

struct exprs *exprs_create(uint32_t max_exprs, uint64_t max_work)
{
    struct exprs *exprs = calloc(1, sizeof *exprs);
    if (!exprs)
        return NULL;
    exprs->max = max_exprs < 64 ? 64 : max_exprs;
    exprs->max_kids = exprs->max * 4;
    exprs->max_sets = exprs->max / 8 < 256 ? 256 : exprs->max / 8;
    exprs->max_scratch = exprs->max;
    exprs->index_mask = power_of_two(exprs->max * 2) - 1;
    exprs->set_index_mask = power_of_two(exprs->max_sets * 2) - 1;
    exprs->max_work = max_work;
    exprs->exprs = table_create(exprs->max, sizeof *exprs->exprs);
    exprs->index = table_create((size_t)exprs->index_mask + 1, sizeof *exprs->index);
    exprs->kids = table_create(exprs->max_kids, sizeof *exprs->kids);
    exprs->sets = table_create(exprs->max_sets, sizeof *exprs->sets);
    exprs->set_index = table_create((size_t)exprs->set_index_mask + 1, sizeof *exprs->set_index);
    exprs->memo = table_create(MEMO_SIZE, sizeof *exprs->memo);
    exprs->scratch = table_create(exprs->max_scratch, sizeof *exprs->scratch);
    if (!exprs->exprs || !exprs->index || !exprs->kids || !exprs->sets || !exprs->set_index || !exprs->memo ||
        !exprs->scratch) {
        exprs_free(exprs);
        return NULL;
    }
    struct byte_set set = {0};
    intern_set(exprs, &set); /* 0: no byte */
    byte_set_add(&set, 0, 255);
    uint32_t any_byte = intern_set(exprs, &set); /* 1: all */
    exprs->n = 1; /* EXPR_NONE: in no index, as 0 is "none" there, and made by nobody else */
    intern(exprs, (struct expr){.kind = EXPR_IS_EMPTY}, NULL);
    exprs->n = EXPR_ALL;
    exprs->n = EXPR_ANY;
    intern(exprs, (struct expr){.kind = EXPR_IS_BYTES, .a = any_byte}, NULL);
    exprs->n = EXPR_ALL;
    intern(exprs, (struct expr){.kind = EXPR_IS_REPEAT, .a = EXPR_ANY, .n = EXPR_FOREVER}, NULL);
    exprs->n = EXPR_ANY + 1;
    return exprs;
}

uint32_t expr_bytes(struct exprs *exprs, const struct byte_set *set)
{
    uint32_t number = intern_set(exprs, set);
    return number ? intern(exprs, (struct expr){.kind = EXPR_IS_BYTES, .a = number}, NULL) : EXPR_NONE;
}

uint32_t expr_range(struct exprs *exprs, unsigned from, unsigned to)
{
    struct byte_set set = {0};
    byte_set_add(&set, from, to);
    return expr_bytes(exprs, &set);
}

uint32_t expr_cat(struct exprs *exprs, uint32_t a, uint32_t b)
{
    if (a == EXPR_NONE || b == EXPR_NONE)
        return EXPR_NONE;
    if (a == EXPR_EMPTY || b == EXPR_EMPTY)
        return a == EXPR_EMPTY ? b : a;
    uint32_t first_scratch = exprs->n_scratch;
    while (exprs->exprs[a].kind == EXPR_IS_CAT) { /* the parts of a, to be set before b from the last on */
        if (exprs->n_scratch == exprs->max_scratch)
            return fail(exprs);
        exprs->scratch[exprs->n_scratch++] = exprs->exprs[a].a;
        a = exprs->exprs[a].b;
    }
    exprs->work += exprs->n_scratch - first_scratch;
    if (exprs->work > exprs->max_work) {
        exprs->n_scratch = first_scratch;
        return fail(exprs);
    }
    b = intern(exprs, (struct expr){.kind = EXPR_IS_CAT, .a = a, .b = b}, NULL);
    while (exprs->n_scratch > first_scratch && b)
        b = intern(exprs, (struct expr){.kind = EXPR_IS_CAT, .a = exprs->scratch[--exprs->n_scratch], .b = b},
                   NULL);
    exprs->n_scratch = first_scratch;
    return b;
}

uint32_t expr_literal(struct exprs *exprs, const char *bytes, size_t len)
{
    uint32_t expr = EXPR_EMPTY;
    for (size_t i = len; i-- > 0;)
        expr = expr_cat(exprs, expr_range(exprs, (unsigned char)bytes[i], (unsigned char)bytes[i]), expr);
    return expr;
}

static int compare(const void *one, const void *other)
{
    uint32_t a = *(const uint32_t *)one, b = *(const uint32_t *)other;
    return (a > b) - (a < b);
}

/* Shell's: qsort would allocate. */
static void sort(uint32_t *kids, size_t n)
{
    for (size_t gap = n / 2; gap; gap = gap == 2 ? 1 : gap * 5 / 11)
        for (size_t i = gap; i < n; i++) {
            uint32_t kid = kids[i];
            size_t at = i;
            for (; at >= gap && kids[at - gap] > kid; at -= gap)
                kids[at] = kids[at - gap];
            kids[at] = kid;
        }
}

/* Flattened, in order, each once, sets of bytes joined, without the neutral one. n: how many are left; *absorbed: one of them
 * decides all. */
static uint32_t normalise(struct exprs *exprs, enum expr_kind kind, uint32_t *kids, uint32_t n,
                          bool *absorbed)
{
    uint32_t neutral = kind == EXPR_IS_OR ? EXPR_NONE : EXPR_ALL;
    uint32_t absorbing = kind == EXPR_IS_OR ? EXPR_ALL : EXPR_NONE;
    struct byte_set bytes = exprs->sets[kind == EXPR_IS_OR ? 0 : 1];
    uint32_t n_kept = 0, n_bytes = 0, last_bytes = 0;
    for (uint32_t k = 0; k < n; k++) {
        *absorbed |= kids[k] == absorbing;
        if (kids[k] == neutral)
            continue;
        if (exprs->exprs[kids[k]].kind == EXPR_IS_BYTES) {
            const struct byte_set *set = &exprs->sets[exprs->exprs[kids[k]].a];
            for (int i = 0; i < 4; i++)
                bytes.bits[i] =
                    kind == EXPR_IS_OR ? bytes.bits[i] | set->bits[i] : bytes.bits[i] & set->bits[i];
            n_bytes++;
            last_bytes = kids[k];
            continue;
        }
        kids[n_kept++] = kids[k];
    }
    if (n_bytes) {
        kids[n_kept] = n_bytes > 1 ? expr_bytes(exprs, &bytes) : last_bytes;
        *absorbed |= kids[n_kept] == absorbing;
        n_kept++;
    }
    sort(kids, n_kept);
    uint32_t n_unique = 0;
    bool other_nullable = false;
    for (uint32_t k = 0; k < n_kept; k++)
        if (!k || kids[k] != kids[k - 1]) {
            kids[n_unique++] = kids[k];
            other_nullable |= kids[k] != EXPR_EMPTY && exprs->exprs[kids[k]].is_nullable;
        }
    if (kind == EXPR_IS_OR && other_nullable && n_unique && kids[0] == EXPR_EMPTY) {
        n_unique--;
        memmove(kids, kids + 1, n_unique * sizeof *kids);
    }
    return n_unique;
}

static bool has(const uint32_t *kids, uint32_t n, uint32_t kid)
{
    return bsearch(&kid, kids, n, sizeof *kids, compare);
}

/* x and not x among them: all, or nothing. */
static bool is_contradiction(const struct exprs *exprs, const uint32_t *kids, uint32_t n)
{
    for (uint32_t k = 0; k < n; k++)
        if (exprs->exprs[kids[k]].kind == EXPR_IS_NOT && has(kids, n, exprs->exprs[kids[k]].a))
            return true;
    return false;
}

static uint32_t join(struct exprs *exprs, enum expr_kind kind, const uint32_t *operands, size_t n)
{
    uint32_t begin = exprs->n_scratch, absorbing = kind == EXPR_IS_OR ? EXPR_ALL : EXPR_NONE;
    uint32_t *kids = exprs->scratch + begin;
    for (size_t i = 0; i < n; i++) {
        const struct expr *operand = &exprs->exprs[operands[i]];
        bool same = operand->kind == kind;
        uint32_t n_added = same ? operand->n : 1;
        exprs->work += n_added;
        if (n_added > exprs->max_scratch - exprs->n_scratch || exprs->work > exprs->max_work) {
            exprs->n_scratch = begin;
            return fail(exprs);
        }
        memcpy(exprs->scratch + exprs->n_scratch, same ? exprs->kids + operand->a : operands + i,
               n_added * sizeof *kids);
        exprs->n_scratch += n_added;
    }
    uint32_t n_kids = exprs->n_scratch - begin, result;
    bool absorbed = false;
    n_kids = normalise(exprs, kind, kids, n_kids, &absorbed);
    if (absorbed || is_contradiction(exprs, kids, n_kids))
        result = absorbing;
    else if (n_kids < 2)
        result = n_kids ? kids[0] : kind == EXPR_IS_OR ? EXPR_NONE : EXPR_ALL;
    else if (kind == EXPR_IS_AND && has(kids, n_kids, EXPR_EMPTY)) { /* the empty word or nothing */
        result = EXPR_EMPTY;
        for (uint32_t k = 0; k < n_kids; k++)
            if (!exprs->exprs[kids[k]].is_nullable)
                result = EXPR_NONE;
    } else {
        result = intern(exprs, (struct expr){.kind = (uint8_t)kind, .n = n_kids}, kids);
    }
    exprs->n_scratch = begin;
    return result;
}

uint32_t expr_or(struct exprs *exprs, const uint32_t *kids, size_t n)
{
    return join(exprs, EXPR_IS_OR, kids, n);
}

uint32_t expr_and(struct exprs *exprs, const uint32_t *kids, size_t n)
{
    return join(exprs, EXPR_IS_AND, kids, n);
}

uint32_t expr_either(struct exprs *exprs, uint32_t a, uint32_t b)
{
    return join(exprs, EXPR_IS_OR, (uint32_t[]){a, b}, 2);
}

uint32_t expr_both(struct exprs *exprs, uint32_t a, uint32_t b)
{
    return join(exprs, EXPR_IS_AND, (uint32_t[]){a, b}, 2);
}

void expr_union_add(struct exprs *exprs, struct expr_union *all, uint32_t expr)
{
    unsigned i = 0;
    for (; all->n >> i & 1; i++)
        expr = expr_either(exprs, all->parts[i], expr);
    all->parts[i] = expr;
    all->n++;
}

uint32_t expr_union_end(struct exprs *exprs, const struct expr_union *all)
{
    uint32_t expr = EXPR_NONE;
    for (unsigned i = 0; i < 32; i++)
        if (all->n >> i & 1)
            expr = expr_either(exprs, all->parts[i], expr);
    return expr;
}

uint32_t expr_optional(struct exprs *exprs, uint32_t a)
{
    return expr_either(exprs, EXPR_EMPTY, a);
}

uint32_t expr_not(struct exprs *exprs, uint32_t a)
{
    if (a == EXPR_NONE || a == EXPR_ALL)
        return a == EXPR_NONE ? EXPR_ALL : EXPR_NONE;
    if (exprs->exprs[a].kind == EXPR_IS_NOT)
        return exprs->exprs[a].a;
    return intern(exprs, (struct expr){.kind = EXPR_IS_NOT, .a = a}, NULL);
}

uint32_t expr_repeat(struct exprs *exprs, uint32_t a, uint32_t min, uint32_t max)
{
    const struct expr *expr = &exprs->exprs[a];
    if (max < min)
        return EXPR_NONE;
    if (!max || a == EXPR_EMPTY)
        return EXPR_EMPTY;
    if (a == EXPR_NONE)
        return min ? EXPR_NONE : EXPR_EMPTY;
    if (min == 1 && max == 1)
        return a;
    if (expr->kind == EXPR_IS_REPEAT && !expr->b && expr->n == EXPR_FOREVER)
        return a; /* (x*)* and the like */
    if (expr->is_nullable)
        min = 0;
    if (!min && max == 1)
        return expr_optional(exprs, a);
    return intern(exprs, (struct expr){.kind = EXPR_IS_REPEAT, .a = a, .b = min, .n = max}, NULL);
}

uint32_t expr_multiple(struct exprs *exprs, uint32_t step)
{
    for (unsigned byte = '0'; byte <= '9';
         byte++) /* whoever puts bytes into classes by their sets tells digits apart */
        expr_range(exprs, byte, byte);
    return step == 1 ? EXPR_ALL : intern(exprs, (struct expr){.kind = EXPR_IS_MULTIPLE, .a = step}, NULL);
}

static uint32_t derive_kids(struct exprs *exprs, const struct expr *expr, unsigned byte)
{
    uint32_t begin = exprs->n_scratch, n = 0, result;
    for (uint32_t k = 0; k < expr->n; k++) {
        uint32_t kid = expr_derive(exprs, exprs->kids[expr->a + k], byte);
        if (expr->kind == EXPR_IS_OR && kid == EXPR_NONE)
            continue;
        if (expr->kind == EXPR_IS_AND && kid == EXPR_NONE) {
            exprs->n_scratch = begin;
            return EXPR_NONE;
        }
        if (exprs->n_scratch == exprs->max_scratch)
            return fail(exprs);
        exprs->scratch[exprs->n_scratch++] = kid;
        n++;
    }
    result = join(exprs, (enum expr_kind)expr->kind, exprs->scratch + begin, n);
    exprs->n_scratch = begin;
    return result;
}

static uint32_t derive(struct exprs *exprs, struct expr expr, unsigned byte)
{
    uint32_t a;
    switch ((enum expr_kind)expr.kind) {
    case EXPR_IS_NONE:
    case EXPR_IS_EMPTY:
        return EXPR_NONE;
    case EXPR_IS_BYTES:
        return EXPR_EMPTY; /* its set has the byte: looked up by whoever called */
    case EXPR_IS_CAT:
        a = expr_cat(exprs, expr_derive(exprs, expr.a, byte), expr.b);
        if (exprs->exprs[expr.a].is_nullable)
            a = expr_either(exprs, a, expr_derive(exprs, expr.b, byte));
        return a;
    case EXPR_IS_OR:
    case EXPR_IS_AND:
        return derive_kids(exprs, &expr, byte);
    case EXPR_IS_NOT:
        return expr_not(exprs, expr_derive(exprs, expr.a, byte));
    case EXPR_IS_MULTIPLE:
        if (byte != '.')
            expr.b = (expr.b * 10 + byte - '0') % expr.a;
        return intern(exprs, (struct expr){.kind = EXPR_IS_MULTIPLE, .a = expr.a, .b = expr.b}, NULL);
    case EXPR_IS_REPEAT:
        a = expr_derive(exprs, expr.a, byte);
        return expr_cat(exprs, a,
                        expr_repeat(exprs, expr.a, expr.b ? expr.b - 1 : 0,
                                    expr.n == EXPR_FOREVER ? EXPR_FOREVER : expr.n - 1));
    }
    return EXPR_NONE;
}

uint32_t expr_derive(struct exprs *exprs, uint32_t expr, unsigned byte)
{
    if (exprs->failed || !byte_set_has(&exprs->sets[exprs->exprs[expr].first], byte))
        return EXPR_NONE;
    if (++exprs->work > exprs->max_work)
        return fail(exprs);
    struct expr_memo *memo = &exprs->memo[(expr * 0x9e3779b1u ^ byte * 0x85ebca6bu) >> 20 & (MEMO_SIZE - 1)];
    if (memo->expr == expr && memo->byte == byte)
        return memo->derivative;
    uint32_t derivative = derive(exprs, exprs->exprs[expr], byte);
    if (!exprs->failed && exprs->exprs[expr].kind != EXPR_IS_BYTES)
        *memo = (struct expr_memo){expr, byte, derivative};
    return derivative;
}

bool exprs_are_full(const struct exprs *exprs)
{
    return exprs->n - exprs->least > (exprs->max - exprs->least) / 4 * 3 ||
           exprs->n_kids - exprs->least_kids > (exprs->max_kids - exprs->least_kids) / 4 * 3;
}

/* What an expression consists of was made before it, so its numbers are lower. */
static void mark_parts(const struct exprs *exprs, const struct expr *expr, uint32_t *kept)
{
    if (has_kids(expr)) {
        for (uint32_t k = 0; k < expr->n; k++)
            kept[exprs->kids[expr->a + k]] = 1;
        return;
    }
    if (expr->kind == EXPR_IS_CAT || expr->kind == EXPR_IS_NOT || expr->kind == EXPR_IS_REPEAT)
        kept[expr->a] = 1;
    if (expr->kind == EXPR_IS_CAT)
        kept[expr->b] = 1;
}

/* Moves an expression down, and its kids; the numbers of its parts are new already. */
static void move(struct exprs *exprs, uint32_t from, uint32_t to, const uint32_t *kept)
{
    struct expr expr = exprs->exprs[from];
    if (has_kids(&expr)) {
        uint32_t *kids = exprs->kids + exprs->n_kids;
        for (uint32_t k = 0; k < expr.n; k++)
            kids[k] = kept[exprs->kids[expr.a + k]];
        expr.a = exprs->n_kids;
        exprs->n_kids += expr.n;
    } else if (expr.kind != EXPR_IS_BYTES && expr.kind != EXPR_IS_MULTIPLE) {
        expr.a = kept[expr.a];
        if (expr.kind == EXPR_IS_CAT)
            expr.b = kept[expr.b];
    }
    exprs->exprs[to] = expr;
    uint32_t at = place_of(exprs, &expr, has_kids(&expr) ? exprs->kids + expr.a : NULL);
    while (exprs->index[at])
        at = (at + 1) & exprs->index_mask;
    exprs->index[at] = to;
}

void exprs_forget(struct exprs *exprs, uint32_t *kept)
{
    uint32_t n = exprs->n;
    for (uint32_t e = n; e-- > EXPR_ANY + 1;)
        if (kept[e])
            mark_parts(exprs, &exprs->exprs[e], kept);
    for (uint32_t e = EXPR_NONE; e <= EXPR_ANY; e++)
        kept[e] = e;
    memset(exprs->index, 0, ((size_t)exprs->index_mask + 1) * sizeof *exprs->index);
    memset(exprs->memo, 0, MEMO_SIZE * sizeof *exprs->memo);
    exprs->n_kids = 0;
    exprs->n = EXPR_ANY + 1;
    for (uint32_t e = EXPR_EMPTY; e < n; e++)
        if (kept[e]) {
            kept[e] = e <= EXPR_ANY ? e : exprs->n++;
            move(exprs, e, kept[e], kept);
        }
    exprs->least = exprs->n;
    exprs->least_kids = exprs->n_kids;
}

size_t exprs_bytes(const struct exprs *exprs, bool all)
{
    size_t n = all ? exprs->max : exprs->n, n_kids = all ? exprs->max_kids : exprs->n_kids,
           n_sets = all ? exprs->max_sets : exprs->n_sets,
           n_scratch = n_kids < exprs->max_scratch ? n_kids : exprs->max_scratch;
    return n * sizeof *exprs->exprs + n_kids * sizeof *exprs->kids + n_sets * sizeof *exprs->sets +
           n_scratch * sizeof *exprs->scratch + MEMO_SIZE * sizeof *exprs->memo +
           table_scattered_bytes(n, (size_t)exprs->index_mask + 1, sizeof *exprs->index) +
           table_scattered_bytes(n_sets, (size_t)exprs->set_index_mask + 1, sizeof *exprs->set_index);
}

bool expr_is_wide(const struct exprs *exprs, uint32_t expr)
{
    return set_size(&exprs->sets[exprs->exprs[expr].first]) >= WIDE_BYTES;
}
