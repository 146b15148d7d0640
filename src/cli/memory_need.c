/* memory_need.c: see memory_need.h. The command knows no back end: what these formulas say of the one for CPUs, a test compares
 * with what that takes (tests/unit/test_memory_need.c). */
#include "cli/memory_need.h"

/* The program itself, its tokenizer, and what requests hold. */
static const uint64_t OTHER_BYTES = 64 << 20;

uint64_t memory_need_cache(const struct memory_shape *shape, uint32_t n_tokens)
{
    /* A key and a value of 16 bits a dimension, and what a one of each is worth as a float. */
    uint64_t head_bytes = 2 * (2 * (uint64_t)shape->head_size + 4);
    return n_tokens * head_bytes * shape->n_kv_heads * shape->n_layers;
}

uint64_t memory_need_scratch(const struct memory_shape *shape, uint32_t n_rows, uint32_t n_logits)
{
    uint64_t n_q = (uint64_t)shape->n_heads * shape->head_size,
             n_kv = (uint64_t)shape->n_kv_heads * shape->head_size, n_hidden = shape->n_hidden,
             n_ffn = shape->n_ffn, n_input = n_hidden > n_q ? n_hidden : n_q;
    /* Floats: hidden state twice, q and what it attended to, k and v, gate and up, cosines and sines. */
    uint64_t n_floats = 2 * n_hidden + 2 * n_q + 2 * n_kv + 2 * n_ffn + shape->head_size;
    /* Inputs of products: 8 bits a value and a scale for each block, for two kinds of blocks. */
    uint64_t input_bytes = (n_input + n_ffn) * 5 / 2;
    return n_rows * (n_floats * sizeof(float) + input_bytes) +
           (uint64_t)n_logits * shape->n_vocab * sizeof(float);
}

uint64_t memory_need(const struct memory_shape *shape, uint64_t weight_bytes)
{
    return weight_bytes + memory_need_cache(shape, MEMORY_NEED_CONTEXT) +
           memory_need_scratch(shape, MEMORY_NEED_BATCH, MEMORY_NEED_PARALLEL) + OTHER_BYTES;
}
