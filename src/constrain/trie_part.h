/* trie_part.h: some tokens of a vocabulary as a trie, in the order in which it is walked.
 *
 * Nodes lie in depth-first order, so a walk goes through the array, and a subtree is left out by one jump. The tokens lie in the
 * same order, so those of a subtree are a piece of an array. Never changed once it is made; owned by whoever made it. */
#ifndef RUNNEL_CONSTRAIN_TRIE_PART_H
#define RUNNEL_CONSTRAIN_TRIE_PART_H

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

struct trie_part {
    struct trie_node *nodes; /* [n_nodes + 1] the last one is behind all, for its `first` */
    uint32_t n_nodes;
    int32_t *order; /* [n_order] its tokens */
    uint32_t n_order;
    uint32_t n_chars; /* of the longest one, if all are whole characters */
};

/* Of the tokens that part->order lists, none of which is empty or longer than TRIE_DEPTH; the rest of part is made. False: no
 * memory, and part is to be freed as well. */
bool trie_part_build(struct trie_part *part, const struct trie_token *tokens);
void trie_part_free(struct trie_part *part);

#endif
