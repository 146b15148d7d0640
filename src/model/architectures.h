/* architectures.h: what differs between the architectures that are known. An architecture is a row of the table in
 * architectures.c: its name in files and its traits. Which tensors a trait brings is said in tensors.c, what it changes of
 * the computation in the back end. Immutable; any thread. */
#ifndef RUNNEL_MODEL_ARCHITECTURES_H
#define RUNNEL_MODEL_ARCHITECTURES_H

#include <stddef.h>

enum architecture_trait {
    TRAIT_INTERLEAVED_ROPE = 1u << 0, /* rotated pairs are (2i, 2i + 1); without it (i, i + n_rot / 2) */
    TRAIT_QKV_BIASES = 1u << 1,       /* queries, keys and values may have biases */
    TRAIT_ROPE_FACTORS = 1u << 2,     /* each rotated pair may have a factor (Llama 3) */
    TRAIT_HEAD_NORMS = 1u << 3,       /* each head of queries and of keys is normalised before its rotation */
};

struct architecture {
    const char *name; /* the value of general.architecture */
    unsigned traits;
};

/* NULL if it is not known. */
const struct architecture *architecture_find(const char *name, size_t len);

/* All names for a message, as in "qwen2 or llama". */
void architecture_write_names(char *text, size_t size);

#endif
