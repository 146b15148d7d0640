/* masks.h: which tokens may follow a state of a text.
 *
 * See constrain.h, "How a mask is made". Masks are kept by the number of their state, and those of wide terminals by that of
 * the scanner's state, each in slots of which the one that was asked for longest ago gives way. A mask is trie_mask_words
 * words; bit i % 32 of word i / 32 is token i. One thread at a time. */
#ifndef RUNNEL_CONSTRAIN_MASKS_H
#define RUNNEL_CONSTRAIN_MASKS_H

#include "constrain/stacks.h"
#include "constrain/trie.h"

enum {
    MAX_EXITS = 1 << 14, /* of a wide terminal; with more, its inside is not kept */
};

#define EXIT_OF_OTHERS 0x80000000u /* the node is one of TRIE_OTHERS */

/* Slots, found by a number. */
struct mask_slots {
    uint32_t *words;   /* [n, n_words] */
    uint32_t *number;  /* [n] whose each is; 0: nobody's */
    uint64_t *used;    /* [n] when it was asked for */
    uint16_t *slot_of; /* [max_number] plus one; 0: none */
    uint32_t n, n_words, max_number;
    uint64_t now;
};

struct masks {
    const struct trie *trie;
    struct stacks *stacks;
    uint32_t any_char;         /* expression; 0: none */
    struct mask_slots whole;   /* by state */
    struct mask_slots insides; /* by scanner's state */
    uint32_t *exits;   /* [insides.n, MAX_EXITS] nodes at which the terminal may end; with EXIT_OF_OTHERS */
    uint32_t *n_exits; /* [insides.n] more than MAX_EXITS: too many */
    uint16_t *freedom; /* [scanner->max] of a scanner's state, see masks.c */
    struct member *narrow; /* [stacks->max_found] members that are walked together */
};

/* any_char: of the grammar. */
int masks_create(const struct trie *trie, struct stacks *stacks, uint32_t any_char,
                 const struct constrain_limits *limits, struct masks *masks, runnel_error *error);
void masks_free(struct masks *masks);
/* The mask of a state, valid until the next call; NULL: stacks->failed says why. */
const uint32_t *masks_get(struct masks *masks, uint32_t state);
/* As exprs_bytes, of what is here. */
size_t masks_bytes(const struct masks *masks, bool all);
/* States were forgotten, so their numbers mean others. */
void masks_forget(struct masks *masks);
/* ... and those of the scanner. */
void masks_forget_insides(struct masks *masks);

#endif
