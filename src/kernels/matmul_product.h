/* matmul_product.h: what the products of avx2_matmul.c and avx512_matmul.c have in common before their inner
 * loops; matmul_body.h is what comes after. */
#ifndef RUNNEL_KERNELS_MATMUL_PRODUCT_H
#define RUNNEL_KERNELS_MATMUL_PRODUCT_H

#include "kernels/pack.h"
#include "kernels/vector16.h"

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

INLINE const uint8_t *product_tile(const struct product *p, uint32_t tile)
{
    return p->w->data + tile * p->w->tile_bytes;
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

#endif
