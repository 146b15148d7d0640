/* matmul_product.h: what the products of all instruction sets (*_matmul*.c) have in common before their inner
 * loops; matmul_body.h is what comes after. */
#ifndef RUNNEL_KERNELS_X86_MATMUL_PRODUCT_H
#define RUNNEL_KERNELS_X86_MATMUL_PRODUCT_H

#include "kernels/pack.h"
#include "kernels/x86/vector16.h"

struct product {
    const struct packed_matrix *w;
    const uint8_t *acts;
    size_t act_stride;
    float *out;
    size_t out_stride;
    const float *bias;
    bool add;
    uint32_t n_blocks;
    size_t header_bytes; /* of a tile, see pack.h */
};

/* Multiplies one tile with some rows of activations, the first of which is `row`. */
typedef void rows_function(const struct product *p, uint32_t tile, uint32_t row);

INLINE struct product product_of(const struct matmul_args *args, uint32_t block_values)
{
    return (struct product){
        .w = args->w,
        .acts = args->acts,
        .act_stride = args->act_stride,
        .out = args->out,
        .out_stride = args->out_stride,
        .bias = args->bias,
        .add = args->add,
        .n_blocks = (args->w->n_columns + block_values - 1) / block_values,
        .header_bytes = pack_header_bytes(args->w->type, args->w->n_columns),
    };
}

INLINE const uint8_t *product_tile(const struct product *p, uint32_t tile)
{
    return p->w->data + tile * p->w->tile_bytes;
}

/* The compiler is not to compute it again from what it came from: with 8 rows it would do so for every load. */
#define KEEP_IN_REGISTER(pointer) __asm__("" : "+r"(pointer))

/* Brings weights that will be wanted some blocks later into L2. When rows of activations keep the ports busy,
 * the out-of-order window is shorter than a block, and what the hardware fetches on its own comes too late.
 * Measured on Zen 4, one core, Q4_K, 8 rows: 98 GMAC/s without, 148 into L1, 167 into L2. Past the end of the
 * matrix a prefetch does nothing. */
INLINE void fetch_ahead(const uint8_t *p)
{
    _mm_prefetch((const char *)p + 8 * Q4K_BLOCK_BYTES, _MM_HINT_T1);
}

/* The same for a single row, whose weights come as fast as memory gives them: lines into L1 in the order in which they lie, a few
 * ahead, where fetch_ahead would ask for more at a time than a core can. The hardware's prefetchers see one stream, also of
 * blocks that are not read from front to back, and run ahead of it. With more rows the products leave no time for so short a
 * notice. Measured: SPEED.md, "One stream". */
INLINE void fetch_in_order(const uint8_t *p, const int n_lines)
{
    __asm__ volatile("prefetcht0 %0" ::"m"(p[64 * n_lines]));
}

/* store_output of shared.h for the rows of a tile. */
INLINE void store_sum(const struct product *p, uint32_t tile, uint32_t row, vector16 sum)
{
    uint32_t column = tile * TILE_ROWS, n = p->w->n_rows - column;
    float *out = p->out + row * p->out_stride + column;
    if (p->bias)
        sum = v_add(sum, v_load_n(p->bias + column, n));
    if (p->add)
        sum = v_add(sum, v_load_n(out, n));
    v_store_n(out, sum, n);
}

/* body for exactly m rows as a function of its own, and a list `name` of those for 1 to 4 or 1 to 8 rows: with m a constant,
 * the sums of all rows are registers. What follows body is passed on to it. */
#define ROWS_FUNCTION(name, body, m, ...)                                                                    \
    static void name##_##m(const struct product *p, uint32_t tile, uint32_t row)                             \
    {                                                                                                        \
        body(p, tile, row, m, ##__VA_ARGS__);                                                                \
    }
#define ROWS_FUNCTIONS_TO_4(name, body, ...)                                                                 \
    ROWS_FUNCTION(name, body, 1, ##__VA_ARGS__)                                                              \
    ROWS_FUNCTION(name, body, 2, ##__VA_ARGS__)                                                              \
    ROWS_FUNCTION(name, body, 3, ##__VA_ARGS__)                                                              \
    ROWS_FUNCTION(name, body, 4, ##__VA_ARGS__)
#define ROWS_FUNCTIONS_4(name, body, ...)                                                                    \
    ROWS_FUNCTIONS_TO_4(name, body, ##__VA_ARGS__)                                                           \
    static rows_function *const name[4] = {name##_1, name##_2, name##_3, name##_4};
#define ROWS_FUNCTIONS_8(name, body, ...)                                                                    \
    ROWS_FUNCTIONS_TO_4(name, body, ##__VA_ARGS__)                                                           \
    ROWS_FUNCTION(name, body, 5, ##__VA_ARGS__)                                                              \
    ROWS_FUNCTION(name, body, 6, ##__VA_ARGS__)                                                              \
    ROWS_FUNCTION(name, body, 7, ##__VA_ARGS__)                                                              \
    ROWS_FUNCTION(name, body, 8, ##__VA_ARGS__)                                                              \
    static rows_function *const name[8] = {name##_1, name##_2, name##_3, name##_4,                           \
                                           name##_5, name##_6, name##_7, name##_8};

#endif
