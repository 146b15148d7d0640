/* matmul_float.h: products of TILE_FLOAT and TILE_FILE, written with vector16. Included once by each instruction
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

/* TILE_FILE: a piece of the 16 rows is decoded to f32 and turned so that lanes are rows. */
enum {
    PIECE = 256,     /* inputs */
    PIECE_ROWS = 64, /* rows of activations for which a piece is decoded once */
    PIECE_GROUP = 4, /* rows whose sums are registers */
};

/* weights: [n, 16]; x: m rows; sums [m, 16] continue. */
INLINE void decoded_rows(const float *weights, uint32_t n, const uint8_t *x, size_t stride, const int m,
                         float *sums)
{
    vector16 acc[PIECE_GROUP];
    UNROLL
    for (int i = 0; i < m; i++)
        acc[i] = v_load(sums + TILE_ROWS * i);
    for (uint32_t k = 0; k < n; k++) {
        vector16 w = v_load(weights + TILE_ROWS * (size_t)k);
        UNROLL
        for (int i = 0; i < m; i++)
            acc[i] = v_fma(w, v_set(((const float *)(x + (size_t)i * stride))[k]), acc[i]);
    }
    UNROLL
    for (int i = 0; i < m; i++)
        v_store(sums + TILE_ROWS * i, acc[i]);
}

/* Rows [first, first + n_rows) with one tile; n_rows at most PIECE_ROWS. */
static void decoded_tile(const struct product *p, uint32_t tile, uint32_t first, uint32_t n_rows)
{
    const struct quant_info *info = quant_find(p->w->type);
    size_t row_bytes = (size_t)(p->w->n_columns / info->block_values) * info->block_bytes;
    float decoded[PIECE], turned[PIECE][TILE_ROWS], sums[PIECE_ROWS][TILE_ROWS];
    memset(sums, 0, sizeof sums);
    for (uint32_t begin = 0; begin < p->w->n_columns; begin += PIECE) {
        uint32_t n = p->w->n_columns - begin < PIECE ? p->w->n_columns - begin : PIECE, row = 0;
        const uint8_t *data =
            product_tile(p, tile) + (size_t)(begin / info->block_values) * info->block_bytes;
        for (uint32_t i = 0; i < TILE_ROWS; i++) {
            quant_decode(p->w->type, data + i * row_bytes, n, decoded);
            for (uint32_t k = 0; k < n; k++)
                turned[k][i] = decoded[k];
        }
        const uint8_t *x = p->acts + first * p->act_stride + begin * sizeof(float);
        for (; row + PIECE_GROUP <= n_rows; row += PIECE_GROUP)
            decoded_rows(turned[0], n, x + row * p->act_stride, p->act_stride, PIECE_GROUP, sums[row]);
        for (; row < n_rows; row++)
            decoded_rows(turned[0], n, x + row * p->act_stride, p->act_stride, 1, sums[row]);
    }
    for (uint32_t row = 0; row < n_rows; row++)
        store_sum(p, tile, first + row, v_load(sums[row]));
}

static void matmul_decoded(const struct matmul_args *args, uint32_t tile_begin, uint32_t tile_end)
{
    const struct product p = product_of(args, 1);
    for (uint32_t tile = tile_begin; tile < tile_end; tile++)
        for (uint32_t first = 0; first < args->n_acts; first += PIECE_ROWS)
            decoded_tile(&p, tile, first,
                         args->n_acts - first < PIECE_ROWS ? args->n_acts - first : PIECE_ROWS);
}

static void fill_matmul_float(struct kernels *kernels)
{
    kernels->matmul[TILE_FLOAT] = matmul_float;
    kernels->matmul[TILE_FILE] = matmul_decoded;
}
