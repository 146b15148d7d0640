/* constrain_walk.h: what the fuzzers of constraints have in common: an arbitrary constraint, within small bounds, and a text that keeps to it. */
#ifndef TESTS_HELPERS_CONSTRAIN_WALK_H
#define TESTS_HELPERS_CONSTRAIN_WALK_H

#include "constrain/matcher.h"

typedef int constrain_read(const struct constrain_limits *limits, const char *text, size_t len,
                           struct grammar **grammar, runnel_error *error);

/* A whole text that the constraint what[0, len) took. */
typedef void constrain_finished(const char *what, size_t len, const char *text, size_t text_len);

/* Up to the first zero byte of data stands the constraint, behind it a byte for each token of a text. Aborts unless it is refused with an
 * error that says why, or: each mask says of each token what trying it says; undone and read again, in tokens or byte by byte, the text
 * leads to the same masks; a copy stands where its original does; where the text cannot go on it can end. finished may be NULL. */
void constrain_walk(constrain_read *read, const uint8_t *data, size_t size, constrain_finished *finished);

#endif
