/* constrain_check.h: texts against a grammar, byte by byte and token by token, with each mask compared to what each token by itself gives. */
#ifndef TESTS_HELPERS_CONSTRAIN_CHECK_H
#define TESTS_HELPERS_CONSTRAIN_CHECK_H

#include "constrain/matcher.h"

struct constrain_case {
    const char *what; /* as a front end reads it */
    const char *good[12], *bad[12];
};

/* A vocabulary: every byte, the pieces of these texts, a token without text, and an end, which is the last one. */
struct trie *constrain_vocabulary(const char *const *texts, size_t n);

/* Whether an automaton takes a text: read byte by byte, and then in tokens cut in several ways, which must say the same.
 * Each mask on the way is compared with trying every token, and undoing changes nothing. */
bool constrain_takes(struct automaton *automaton, const struct trie *trie, const char *text);

/* All texts of a case, with a vocabulary of their pieces. */
void constrain_check(const struct constrain_case *one,
                     int (*read)(const char *what, struct grammar **grammar, runnel_error *error));

/* The message with which it is refused, when read or when compiled; NULL: it is not. Valid until the next call. */
const char *constrain_refusal(const char *what,
                              int (*read)(const char *what, struct grammar **grammar, runnel_error *error));

#endif
