/* act.c: sizes of activation rows and KV blocks. Owns nothing; any thread. */
#include "kernels/ops.h"

static size_t round_up(size_t n, size_t to)
{
    return (n + to - 1) / to * to;
}

size_t act_row_bytes(enum act_kind kind, uint32_t n)
{
    size_t n_padded = round_up(n, ACT_BLOCK);
    if (kind == ACT_F32)
        return n_padded * sizeof(float);
    return n_padded / ACT_BLOCK * (kind == ACT_Q8_256 ? sizeof(struct act_q8_256) : sizeof(struct act_q8_32));
}

enum act_kind act_kind_of(enum tile_kind kind)
{
    switch (kind) {
    case TILE_Q4_K:
    case TILE_Q5_K:
    case TILE_Q6_K:
        return ACT_Q8_256;
    case TILE_32:
        return ACT_Q8_32;
    default:
        return ACT_F32;
    }
}

size_t kv_k_bytes(const struct kv_shape *shape)
{
    size_t n_values = (size_t)shape->head_dim * KV_PAGE;
    return shape->k_f32 ? n_values * sizeof(float) : n_values * sizeof(int16_t) + KV_PAGE * sizeof(float);
}

size_t kv_block_bytes(const struct kv_shape *shape)
{
    return kv_k_bytes(shape) + round_up(shape->head_dim, 16) * KV_PAGE * sizeof(int16_t) +
           KV_PAGE * sizeof(float);
}
