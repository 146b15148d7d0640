/* matcher.h: what a grammar was compiled to, and a text's way through it. What the engine sees of this floor.
 *
 *     automaton_create(grammar, trie, &automaton, &error);      compiled, on any thread; takes the grammar
 *     matcher_create(automaton, &matcher, &error);              for each answer
 *     matcher_mask(matcher, words, &error);                     before each draw
 *     matcher_accept(matcher, token, &error);                   after it
 *     matcher_undo(matcher, 2);                                 two draws were taken back
 *     matcher_free(matcher); automaton_release(automaton);
 *
 * An automaton is shared by any number of matchers on any threads: it is counted, and has a lock that each call of a
 * matcher takes for as long as it lasts. A matcher is one thread's at a time. Nothing but the two creates and matcher_copy
 * allocates. */
#ifndef RUNNEL_CONSTRAIN_MATCHER_H
#define RUNNEL_CONSTRAIN_MATCHER_H

#include "constrain/grammar.h"
#include "constrain/trie.h"

enum {
    MATCHER_UNDO_MAX = 32, /* tokens that can be taken back */
};

struct automaton;
struct matcher;

/* The grammar was checked; it is the automaton's from now on, and freed if this fails. trie outlives it. */
int automaton_create(struct grammar *grammar, const struct trie *trie, struct automaton **automaton,
                     runnel_error *error);
struct automaton *automaton_acquire(struct automaton *automaton);
/* The last one frees it. */
void automaton_release(struct automaton *automaton);

/* How much memory it takes at most, by what it has touched so far of the room that is set aside for it. */
size_t automaton_bytes(struct automaton *automaton);

/* At the beginning of a text. Acquires the automaton. */
int matcher_create(struct automaton *automaton, struct matcher **matcher, runnel_error *error);
/* Where the other one stands, with what it can undo. */
int matcher_copy(struct matcher *matcher, struct matcher **copy, runnel_error *error);
void matcher_free(struct matcher *matcher);

/* The tokens that may come next, trie_mask_words words; at least one bit is set, but after an end, and where no token of the
 * vocabulary fits. RUNNEL_EUNSUPPORTED: it would take too much memory or work. */
int matcher_mask(struct matcher *matcher, uint32_t *words, runnel_error *error);
/* RUNNEL_EINVAL, and nothing is changed: it may not come. */
int matcher_accept(struct matcher *matcher, int32_t token, runnel_error *error);
/* The same for some bytes, which count as one token: for whoever checks a text. */
int matcher_accept_bytes(struct matcher *matcher, const char *bytes, size_t len, runnel_error *error);
/* Whether it would be accepted; also false where it would be too much work. */
bool matcher_would_accept_bytes(struct matcher *matcher, const char *bytes, size_t len);
/* The latest n tokens, MATCHER_UNDO_MAX at most and no more than there were, are taken back. */
void matcher_undo(struct matcher *matcher, uint32_t n);

/* The text may end here, or an end was accepted. */
bool matcher_is_complete(struct matcher *matcher);
/* ... and it may not go on: only an end may come. */
bool matcher_is_over(struct matcher *matcher);

#endif
