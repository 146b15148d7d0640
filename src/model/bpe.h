/* bpe.h: merges the bytes or characters of one word into tokens, in the order of a model's merge list.
 *
 * A struct bpe owns its rules; immutable once built, any number of threads may use it, each with a scratch of its own.
 * A word of n bytes takes time n log n, however its merges lie: pairs wait in a queue ordered by rank, then by place. */
#ifndef RUNNEL_MODEL_BPE_H
#define RUNNEL_MODEL_BPE_H

#include "model/token_list.h"
#include "model/vocabulary.h"

struct bpe_rule { /* left and right, side by side, become merged; the rule's index is its rank */
    int32_t left, right, merged;
};

struct bpe_slot { /* of the hash table from a pair to its rank */
    int32_t left, right;
    uint32_t rank_plus_1; /* 0: empty */
};

struct bpe {
    struct bpe_rule *rules;
    struct bpe_slot *slots;
    size_t slot_mask;
    uint64_t seed;
    int32_t byte_tokens[256];            /* -1: the vocabulary has no token for this byte */
    const struct vocabulary *characters; /* of what is merged; NULL: bytes are */
};

/* Reads the merge list ("left right" each, spelled as the tokens are, which also says what is merged: bytes of the byte-level
 * alphabet, or characters, of which one that is no token is taken as its bytes' tokens). Keeps vocabulary. Free with
 * bpe_free, also after a failure. */
int bpe_build(struct bpe *bpe, const struct vocabulary *vocabulary, enum token_spelling spelling,
              const struct gguf_string *merges, size_t n_merges, runnel_error *error);
void bpe_free(struct bpe *bpe);

struct bpe_symbol {
    int32_t token; /* -1: became part of the symbol before it */
    uint32_t previous, next;
};

struct bpe_scratch { /* starts zeroed; free with bpe_scratch_free */
    struct bpe_symbol *symbols;
    uint64_t *queue; /* a binary heap of rank << 32 | place */
    size_t cap;      /* symbols; the queue has room for twice as many */
};
void bpe_scratch_free(struct bpe_scratch *scratch);

/* Appends the tokens of one word of less than 2^31 bytes, valid UTF-8 where characters are merged. Bytes that the vocabulary has no
 * token for are left out. */
int bpe_encode(const struct bpe *bpe, const char *word, size_t len, struct bpe_scratch *scratch,
               struct token_list *out, runnel_error *error);

#endif
