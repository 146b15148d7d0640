/* memory_need.h: about how much memory a model needs, from its shape: weights, a KV cache for one context, and the scratch of
 * steps. docs/model-files.md says the formula. Owns nothing; any thread. */
#ifndef RUNNEL_CLI_MEMORY_NEED_H
#define RUNNEL_CLI_MEMORY_NEED_H

#include <stdint.h>

enum {
    MEMORY_NEED_CONTEXT = 8192, /* what --ctx is unless it is given */
    MEMORY_NEED_BATCH = 512,    /* --batch, likewise */
    MEMORY_NEED_PARALLEL = 8,   /* --parallel, likewise: rows of logits */
};

struct memory_shape {
    uint32_t n_layers, n_hidden, n_ffn, n_heads, n_kv_heads, head_size, n_vocab;
};

/* Of n_tokens in the cache. */
uint64_t memory_need_cache(const struct memory_shape *shape, uint32_t n_tokens);

/* Of steps of n_rows rows, with n_logits rows of logits. */
uint64_t memory_need_scratch(const struct memory_shape *shape, uint32_t n_rows, uint32_t n_logits);

/* Of weights of so many bytes and all else, as `serve` is by default. */
uint64_t memory_need(const struct memory_shape *shape, uint64_t weight_bytes);

#endif
