/* exprs.h: regular expressions over bytes, and their derivatives.
 *
 * An expression is a number in its pool. Equal ones have the same number: they are simplified as they are made (orders of
 * "or" and "and", sets of bytes joined), so that there are few different derivatives. The derivative of e by byte b is the
 * expression of all words w for which b w is in e.
 *
 * A pool owns its expressions; it has room for a given number and never grows. A call for which there is no room, or no
 * work left, gives EXPR_NONE and sets `failed`, which is asked at the end. One thread at a time. */
#ifndef RUNNEL_CONSTRAIN_EXPRS_H
#define RUNNEL_CONSTRAIN_EXPRS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    EXPR_NONE = 0,  /* no word */
    EXPR_EMPTY = 1, /* the empty word alone */
    EXPR_ALL = 2,   /* all words */
    EXPR_ANY = 3,   /* one byte, whichever it is */
};
#define EXPR_FOREVER UINT32_MAX /* no upper bound of a repetition */

enum expr_kind {
    EXPR_IS_NONE,
    EXPR_IS_EMPTY,
    EXPR_IS_BYTES,    /* one byte of set a */
    EXPR_IS_CAT,      /* a, then b; a is no CAT */
    EXPR_IS_OR,       /* any of kids[a .. a + n), in ascending order */
    EXPR_IS_AND,      /* all of them */
    EXPR_IS_NOT,      /* every word but those of a */
    EXPR_IS_REPEAT,   /* a, b to n times */
    EXPR_IS_MULTIPLE, /* digits and points; with the digits of b before them, the digits make a multiple of a */
};

struct expr {
    uint8_t kind;
    bool is_nullable; /* the empty word is one of it */
    bool has_logic;   /* and, not: it may be empty though it is not EXPR_NONE */
    bool is_long;     /* it has words of many bytes of wide sets: see expr_is_wide */
    uint32_t depth;   /* of calls in expr_derive */
    uint32_t a, b, n;
    uint32_t first; /* set of the bytes with which a word can begin; with logic, it may hold more */
};

struct byte_set {
    uint64_t bits[4];
};

static inline bool byte_set_has(const struct byte_set *set, unsigned byte)
{
    return set->bits[byte / 64] >> (byte % 64) & 1;
}

static inline void byte_set_add(struct byte_set *set, unsigned from, unsigned to)
{
    for (unsigned byte = from; byte <= to; byte++)
        set->bits[byte / 64] |= (uint64_t)1 << (byte % 64);
}

struct expr_memo {
    uint32_t expr, byte, derivative;
};

struct exprs {
    struct expr *exprs; /* [max] */
    uint32_t n, max;
    uint32_t *index; /* [index_mask + 1] hash to number; 0: none */
    uint32_t index_mask;
    uint32_t *kids; /* [max_kids] */
    uint32_t n_kids, max_kids;
    uint32_t least, least_kids; /* what was left when others were forgotten */
    struct byte_set *sets;      /* [max_sets] */
    uint32_t n_sets, max_sets;
    uint32_t *set_index;
    uint32_t set_index_mask;
    struct expr_memo *memo; /* derivatives that were asked for of late */
    uint32_t *scratch;      /* [max_scratch] a stack of operands */
    uint32_t n_scratch, max_scratch;
    uint64_t work, max_work; /* done, and allowed, since the caller set work to 0 */
    bool failed;
    bool no_memory; /* ... as whoever makes an expression had none; nothing here allocates */
};

/* NULL: no memory. */
struct exprs *exprs_create(uint32_t max_exprs, uint64_t max_work);
void exprs_free(struct exprs *exprs);

uint32_t expr_bytes(struct exprs *exprs, const struct byte_set *set);
uint32_t expr_range(struct exprs *exprs, unsigned from, unsigned to);
uint32_t expr_literal(struct exprs *exprs, const char *bytes, size_t len);
uint32_t expr_cat(struct exprs *exprs, uint32_t a, uint32_t b);
uint32_t expr_or(struct exprs *exprs, const uint32_t *kids, size_t n);
uint32_t expr_and(struct exprs *exprs, const uint32_t *kids, size_t n);
uint32_t expr_either(struct exprs *exprs, uint32_t a, uint32_t b);
uint32_t expr_both(struct exprs *exprs, uint32_t a, uint32_t b);

/* "or" of many that are made one after the other: with expr_either each one would have all before it as parts once more, n * n / 2
 * of them; here there are n * log n. parts[i]: of 2^i of those that were added, where n has this bit. {0}: none yet. */
struct expr_union {
    uint32_t n, parts[32];
};
void expr_union_add(struct exprs *exprs, struct expr_union *all, uint32_t expr);
uint32_t expr_union_end(struct exprs *exprs, const struct expr_union *all);

uint32_t expr_not(struct exprs *exprs, uint32_t a);
uint32_t expr_repeat(struct exprs *exprs, uint32_t a, uint32_t min, uint32_t max);
/* Of the words of digits and points those whose digits make a multiple of step (1 to 1,000,000), wherever a point stands, and the
 * empty one; of step 1 all words. */
uint32_t expr_multiple(struct exprs *exprs, uint32_t step);
uint32_t expr_optional(struct exprs *exprs, uint32_t a);

uint32_t expr_derive(struct exprs *exprs, uint32_t expr, unsigned byte);

/* Whether there may soon be no room for derivatives. */
bool exprs_are_full(const struct exprs *exprs);
/* Forgets all expressions but those for which kept [max] is not 0, and what they consist of. kept[old] becomes the new number; their
 * order stays. */
void exprs_forget(struct exprs *exprs, uint32_t *kept);

static inline bool expr_is_nullable(const struct exprs *exprs, uint32_t expr)
{
    return exprs->exprs[expr].is_nullable;
}

/* How much memory the pool has touched at most, if it never forgot anything; all: how much it could. */
size_t exprs_bytes(const struct exprs *exprs, bool all);

/* The bytes that can come first are many: a walk over a vocabulary from here visits much of it. */
bool expr_is_wide(const struct exprs *exprs, uint32_t expr);

#endif
