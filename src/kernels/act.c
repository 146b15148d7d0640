/* act.c: how activation rows lie, and sizes of KV blocks. Owns nothing; any thread. */
#include "kernels/act.h"

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
    case TILE_Q2_K:
    case TILE_Q3_K:
    case TILE_Q4_K:
    case TILE_Q5_K:
    case TILE_Q6_K:
    case TILE_IQ4_XS:
        return ACT_Q8_256;
    case TILE_32:
        return ACT_Q8_32;
    default:
        return ACT_F32;
    }
}

size_t act_bytes(enum act_kind kind, uint32_t n_rows, uint32_t n_columns)
{
    return n_rows * act_row_bytes(kind, n_columns);
}

void act_quantize(const struct kernels *kernels, enum act_kind kind, void *acts, uint32_t n_columns,
                  uint32_t row, uint32_t begin, const float *x, uint32_t n)
{
    uint8_t *place = (uint8_t *)acts + row * act_row_bytes(kind, n_columns) + act_row_bytes(kind, begin);
    kernels->quantize[kind](x, n, place);
}

struct matmul_args act_product(const struct packed_matrix *matrix, const void *acts, uint32_t n_rows,
                               float *out)
{
    return (struct matmul_args){
        .w = matrix,
        .acts = acts,
        .act_stride = act_row_bytes(act_kind_of(matrix->kind), matrix->n_columns),
        .n_acts = n_rows,
        .out = out,
        .out_stride = matrix->n_rows,
    };
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
