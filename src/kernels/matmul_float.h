/* matmul_float.h: products of TILE_FLOAT, written with vector16. Included once by each instruction set. */
#include "kernels/matmul_product.h"

/* TILE_FLOAT, any type: a piece of the 16 rows is decoded to f32 and turned so that lanes are rows; then one
 * chain of fused multiply-adds for each output over ascending inputs, as ref.c has it. */
enum {
    PIECE = 256,     /* inputs */
    FLOAT_ROWS = 64, /* rows of activations for which a piece is decoded once */
    FLOAT_GROUP = 4, /* rows whose sums are registers */
};

static void decode(enum tensor_type type, const uint8_t *data, uint32_t n, float *out)
{
    uint32_t i = 0;
    if (type == TENSOR_F16)
        for (; i + 16 <= n; i += 16) {
            uint16_t halves[16];
            memcpy(halves, data + 2 * i, sizeof halves);
            v_store(out + i, v_load_f16(halves));
        }
    const struct quant_info *info = quant_find(type);
    if (i < n)
        quant_decode(type, data + (size_t)(i / info->block_values) * info->block_bytes, n - i, out + i);
}

/* weights: [n, 16]; x: m rows; sums [m, 16] continue. */
INLINE void float_rows(const float *weights, uint32_t n, const uint8_t *x, size_t stride, const int m,
                       float *sums)
{
    vector16 acc[FLOAT_GROUP];
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

/* Rows [first, first + n_rows) with one tile; n_rows at most FLOAT_ROWS. */
static void float_tile(const struct product *p, uint32_t tile, uint32_t first, uint32_t n_rows)
{
    const struct quant_info *info = quant_find(p->w->type);
    size_t row_bytes = (size_t)(p->w->n_columns / info->block_values) * info->block_bytes;
    float decoded[PIECE], turned[PIECE][TILE_ROWS], sums[FLOAT_ROWS][TILE_ROWS];
    memset(sums, 0, sizeof sums);
    for (uint32_t begin = 0; begin < p->w->n_columns; begin += PIECE) {
        uint32_t n = p->w->n_columns - begin < PIECE ? p->w->n_columns - begin : PIECE, row = 0;
        const uint8_t *data =
            product_tile(p, tile) + (size_t)(begin / info->block_values) * info->block_bytes;
        for (uint32_t i = 0; i < TILE_ROWS; i++) {
            decode(p->w->type, data + i * row_bytes, n, decoded);
            for (uint32_t k = 0; k < n; k++)
                turned[k][i] = decoded[k];
        }
        const uint8_t *x = p->acts + first * p->act_stride + begin * sizeof(float);
        for (; row + FLOAT_GROUP <= n_rows; row += FLOAT_GROUP)
            float_rows(turned[0], n, x + row * p->act_stride, p->act_stride, FLOAT_GROUP, sums[row]);
        for (; row < n_rows; row++)
            float_rows(turned[0], n, x + row * p->act_stride, p->act_stride, 1, sums[row]);
    }
    for (uint32_t row = 0; row < n_rows; row++)
        store_sum(p, tile, first + row, v_load(sums[row]));
}

static void matmul_float(const struct packed_matrix *w, uint32_t tile_begin, uint32_t tile_end,
                         const void *acts, size_t act_stride, uint32_t n_acts, float *out, size_t out_stride,
                         const float *bias, bool add)
{
    const struct product p = product_of(w, 1, acts, act_stride, out, out_stride, bias, add);
    for (uint32_t tile = tile_begin; tile < tile_end; tile++)
        for (uint32_t first = 0; first < n_acts; first += FLOAT_ROWS)
            float_tile(&p, tile, first, n_acts - first < FLOAT_ROWS ? n_acts - first : FLOAT_ROWS);
}

static void fill_matmul_float(struct kernels *kernels)
{
    kernels->matmul[TILE_FLOAT] = matmul_float;
}
