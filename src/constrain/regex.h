/* regex.h: regular expressions as ECMA-262 writes them: JSON Schema's "pattern", and vLLM's "regex".
 *
 * Known: alternatives, groups (named ones, too), classes, \d \w \s and their opposites, \t \n \v \f \r \0 \cX \xHH \uHHHH
 * \u{H}, counted and lazy repetition, ^ and $ wherever they stand (but not within what is repeated), lookahead outside of groups. Refused by
 * name: references back, lookbehind, \b and \B, \p, flags. */
#ifndef RUNNEL_CONSTRAIN_REGEX_H
#define RUNNEL_CONSTRAIN_REGEX_H

#include "constrain/charset.h"
#include "constrain/grammar.h"

struct regex_options {
    enum char_form form;
    bool is_whole; /* the text is what it matches; else it only has to occur in it, as in JSON Schema */
};

/* The expression of all texts, in that form, that match. */
int regex_expr(struct exprs *exprs, const char *pattern, size_t len, const struct regex_options *options,
               uint32_t *expr, runnel_error *error);
/* Of the whole text. */
int regex_grammar(const struct constrain_limits *limits, const char *pattern, size_t len,
                  struct grammar **grammar, runnel_error *error);

#endif
