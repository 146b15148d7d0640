/* pattern_text.h: reading a pattern or a grammar, character after character; what regex.c and gbnf.c have in common. */
#ifndef RUNNEL_CONSTRAIN_PATTERN_TEXT_H
#define RUNNEL_CONSTRAIN_PATTERN_TEXT_H

#include "base/error.h"
#include "constrain/charset.h"

#define TEXT_OVER UINT32_MAX

struct pattern_text {
    const char *text;
    size_t len, at;
    bool failed; /* error is filled in */
    runnel_error *error;
};

/* The first error counts. Returns false. */
bool pattern_fail(struct pattern_text *text, int code, const char *what);
/* The character that comes next, or TEXT_OVER; what is no UTF-8 is an error. pattern_take goes on behind it. */
uint32_t pattern_peek(struct pattern_text *text);
uint32_t pattern_take(struct pattern_text *text);
/* Whether these characters (ASCII) come next; if so, goes on behind them. */
bool pattern_skip(struct pattern_text *text, const char *expected);
/* A number of decimal digits; false: none comes next. Larger ones than a million are an error. */
bool pattern_number(struct pattern_text *text, uint32_t *number);
/* n hexadecimal digits; false: they do not come next, and nothing was taken. */
bool pattern_hex(struct pattern_text *text, unsigned n, uint32_t *number);
/* Behind a '{': "m}", "m,}", "m,n}", ",n}" (m is 0). False: it is none of these, and nothing was taken. */
bool pattern_times(struct pattern_text *text, uint32_t *min, uint32_t *max);

#endif
