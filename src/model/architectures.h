/* architectures.h: what differs between the architectures that are known. An architecture is a row of the table in
 * architectures.c: its name in files and its traits. Which tensors a trait brings is said in tensors.c, what it changes of
 * the computation in the back end. Immutable; any thread. */
#ifndef RUNNEL_MODEL_ARCHITECTURES_H
#define RUNNEL_MODEL_ARCHITECTURES_H

#include "base/error.h"

#include <stddef.h>
#include <stdint.h>

enum architecture_trait {
    TRAIT_INTERLEAVED_ROPE = 1u << 0, /* rotated pairs are (2i, 2i + 1); without it (i, i + n_rot / 2) */
    TRAIT_QKV_BIASES = 1u << 1,       /* queries, keys and values may have biases */
    TRAIT_ROPE_FACTORS = 1u << 2,     /* each rotated pair may have a factor (Llama 3) */
    TRAIT_HEAD_NORMS = 1u << 3,       /* each head of queries and of keys is normalised before its rotation */
    TRAIT_OUTPUT_NORMS = 1u << 4, /* what attention and the feed-forward network add is normalised before */
    TRAIT_GELU = 1u << 5,         /* gates go through GELU in its tanh form; without it SiLU */
    TRAIT_SCALED_EMBEDDING = 1u << 6, /* embeddings are multiplied with the square root of their width */
};

struct architecture {
    const char *name; /* the value of general.architecture */
    unsigned traits;
    /* Of so many layers the last one sees all positions, the others a window; 0: no layer has one. */
    uint32_t window_period;
    /* In a model of so many layers scores are divided by the root of the width over the heads, not of the head size. No key
     * says so: llama.cpp knows Gemma 3 27B by its layers, too. 0: none. */
    uint32_t n_layers_scaled_by_width;
};

/* NULL if it is not known. */
const struct architecture *architecture_find(const char *name, size_t len);

/* RUNNEL_EUNSUPPORTED, with a message that has the name and those that are known. */
int architecture_unknown(const char *name, size_t len, runnel_error *error);

#endif
