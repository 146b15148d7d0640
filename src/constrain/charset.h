/* charset.h: sets of characters (Unicode scalar values), and the expressions for one character of a set.
 *
 * A set starts zeroed and owns its ranges; charset_free. What cannot be added for lack of memory sets `failed`. */
#ifndef RUNNEL_CONSTRAIN_CHARSET_H
#define RUNNEL_CONSTRAIN_CHARSET_H

#include "constrain/exprs.h"

enum { CHARSET_LAST = 0x10ffff };

struct char_range {
    uint32_t from, to;
};

struct charset {
    struct char_range *ranges;
    size_t n, cap;
    bool failed, no_memory; /* it has too many ranges, or there was no memory for them */
};

void charset_add(struct charset *set, uint32_t from, uint32_t to);
void charset_add_all(struct charset *set, const struct charset *other);
/* In order, and apart. */
void charset_sort(struct charset *set);
/* All characters but these. */
void charset_negate(struct charset *set);
void charset_free(struct charset *set);

/* How a text writes its characters. */
enum char_form {
    CHAR_UTF8,
    CHAR_JSON, /* as within a JSON string: UTF-8, but escaped where that is needed, and in any way where it is allowed */
};

/* One character of the set. Surrogates are none: they are left out. */
uint32_t charset_expr(struct exprs *exprs, const struct charset *set, enum char_form form);
/* One character of from to to. */
uint32_t char_range_expr(struct exprs *exprs, uint32_t from, uint32_t to, enum char_form form);

#endif
