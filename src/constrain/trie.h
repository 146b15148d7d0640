/* trie.h: the tokens of a vocabulary as tries, in the order in which they are walked.
 *
 * Made once for a model, and never changed: any number of threads read it. Nodes lie in depth-first order, so a walk goes
 * through the array, and a subtree is left out by one jump. The tokens lie in the same order, so those of a subtree are a
 * piece of an array. Tokens of whole characters that a JSON string holds as they are (no quote, no backslash, no control
 * character) are a trie of their own: where any such text may come, all of them may, and none is looked at. */
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
    uint32_t after;   /* the first node that is not below this one */
    uint32_t n_own;   /* tokens that end here: of the same bytes */
    uint32_t first;   /* in order: of the tokens that end here or below */
    uint16_t n_below; /* in a trie of whole characters: how many more the longest token below has */
    uint8_t byte;
    uint8_t depth;    /* of its byte, from 0 on */
    bool ends_a_char; /* the last byte of a character, if all of the trie are whole ones */
};

enum {
    TRIE_CHARS,  /* whole characters that a JSON string holds as they are */
    TRIE_OTHERS, /* all other tokens */
    TRIE_PARTS,
};

struct trie_part {
    struct trie_node *nodes; /* [n_nodes + 1] the last one is behind all, for its `first` */
    uint32_t n_nodes;
    int32_t *order; /* [n_order] its tokens */
    uint32_t n_order;
    uint32_t n_chars; /* of the longest one, if all are whole characters */
};

struct trie {
    struct trie_part parts[TRIE_PARTS];
    uint32_t *all_chars;       /* [trie_mask_words] the tokens of TRIE_CHARS */
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
