/* matmul_float.h: products of TILE_FLOAT, written with vector16. Included once by each instruction
 * set, after its vectors (avx512_vectors.h, matmul_256.h). Each output is one chain of fused multiply-adds over ascending inputs, as ref.c
 * has it. */
#include "kernels/x86/matmul_body.h"

/* TILE_FLOAT: one input's 16 weights are a vector. */
INLINE vector16 load_weights(const uint8_t *p, const enum tensor_type type)
{
    float values[TILE_ROWS];
    if (type == TENSOR_F16)
        return v_load_f16((const uint16_t *)p);
    if (type == TENSOR_BF16)
        return v_load_bf16((const uint16_t *)p);
    memcpy(values, p, sizeof values);
    return v_load(values);
}

INLINE void input_rows(const struct product *p, uint32_t tile, uint32_t row, const int m,
                       const enum tensor_type type)
{
    const uint8_t *weights = product_tile(p, tile), *acts[ROWS_AT_ONCE];
    const size_t n_bytes = type == TENSOR_F32 ? 64 : 32;
    vector16 sums[ROWS_AT_ONCE];
    UNROLL
    for (int i = 0; i < m; i++) {
        sums[i] = v_set(0.0f);
        acts[i] = p->acts + (row + (uint32_t)i) * p->act_stride;
        KEEP_IN_REGISTER(acts[i]);
    }
    for (size_t k = 0; k < p->n_blocks; k++) {
        vector16 w = load_weights(weights + k * n_bytes, type);
        if (type == TENSOR_F32 || k % 2 == 0)
            fetch_ahead(weights + k * n_bytes);
        UNROLL
        for (int i = 0; i < m; i++)
            sums[i] = v_fma(w, v_set(((const float *)acts[i])[k]), sums[i]);
    }
    UNROLL
    for (int i = 0; i < m; i++)
        store_sum(p, tile, row + (uint32_t)i, sums[i]);
}

ROWS_FUNCTIONS(f32, input_rows, TENSOR_F32)
ROWS_FUNCTIONS(f16, input_rows, TENSOR_F16)
ROWS_FUNCTIONS(bf16, input_rows, TENSOR_BF16)

static rows_function *const *float_functions(enum tensor_type type)
{
    return type == TENSOR_F32 ? f32 : type == TENSOR_F16 ? f16 : bf16;
}

MATMUL_ENTRY(matmul_float, 1, float_functions(args->w->type))

static void fill_matmul_float(struct kernels *kernels)
{
    kernels->matmul[TILE_FLOAT] = matmul_float;
}
