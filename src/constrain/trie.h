/* trie.h: the tokens of a vocabulary as a trie, in the order in which it is walked.
 *
 * Made once for a model, and never changed: any number of threads read it. Nodes lie in depth-first order, so a walk goes
 * through the array, and a subtree is left out by one jump. */
#ifndef RUNNEL_CONSTRAIN_TRIE_H
#define RUNNEL_CONSTRAIN_TRIE_H

#include "base/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    TRIE_DEPTH = 256, /* longer tokens are in no mask: they are left out */
};

struct trie_token {
    const char *bytes; /* len 0: no text, so it is in no mask unless it is an end */
    size_t len;
};

struct trie_node {
    uint32_t after; /* the first node that is not below this one */
    int32_t token;  /* that ends here; -1: none */
    uint8_t byte;
    uint8_t depth; /* of its byte, from 0 on */
};

struct trie {
    struct trie_node *nodes;
    uint32_t n_nodes;
    int32_t *same;             /* [n_tokens] another token with the same bytes; -1: none */
    struct trie_token *tokens; /* [n_tokens]; their bytes lie in bytes */
    char *bytes;
    uint32_t n_tokens;
    int32_t *ends; /* tokens that end an answer */
    size_t n_ends;
};

/* All is copied. */
int trie_create(const struct trie_token *tokens, uint32_t n_tokens, const int32_t *ends, size_t n_ends,
                struct trie **trie, runnel_error *error);
void trie_free(struct trie *trie);
bool trie_is_end(const struct trie *trie, int32_t token);

/* Words of a mask of all tokens. */
static inline uint32_t trie_mask_words(const struct trie *trie)
{
    return (trie->n_tokens + 31) / 32;
}

#endif
