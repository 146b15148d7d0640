/* avx2_vectors.h: what the products for AVX2 share: loads, sums of a tile, and functions for 1 to 4 rows of
 * activations. Private to avx2_*.c. Owns nothing; any thread. */
#ifndef RUNNEL_KERNELS_AVX2_VECTORS_H
#define RUNNEL_KERNELS_AVX2_VECTORS_H

#include "kernels/avx2.h"
#include "kernels/matmul_product.h"

enum {
    TILES_AT_ONCE = 4,
    ROWS_AT_ONCE = 4,
};

/* The two halves of a tile: 8 rows each. */
typedef __m256 tile_sums[2][ROWS_AT_ONCE];

INLINE __m256i load(const void *p)
{
    return _mm256_loadu_si256(p);
}

INLINE __m256 load_8_f16(const uint8_t *p)
{
    return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)p));
}

/* 4 bytes in every lane. */
INLINE __m256i broadcast(const void *p)
{
    int32_t value;
    memcpy(&value, p, sizeof value);
    return _mm256_set1_epi32(value);
}

INLINE void store_sums(const struct product *p, uint32_t tile, uint32_t row, int m, tile_sums sums)
{
    for (int i = 0; i < m; i++)
        store_sum(p, tile, row + (uint32_t)i, v_pair(sums[0][i], sums[1][i]));
}

INLINE void clear_sums(tile_sums sums)
{
    for (int half = 0; half < 2; half++)
        for (int i = 0; i < ROWS_AT_ONCE; i++)
            sums[half][i] = _mm256_setzero_ps();
}

/* One function for each number of rows, so that sums are registers. */
#define ROWS_FUNCTION(name, body, m, ...)                                                                    \
    static void name##_##m(const struct product *p, uint32_t tile, uint32_t row)                             \
    {                                                                                                        \
        body(p, tile, row, m, ##__VA_ARGS__);                                                                \
    }
#define ROWS_FUNCTIONS(name, body, ...)                                                                      \
    ROWS_FUNCTION(name, body, 1, ##__VA_ARGS__)                                                              \
    ROWS_FUNCTION(name, body, 2, ##__VA_ARGS__)                                                              \
    ROWS_FUNCTION(name, body, 3, ##__VA_ARGS__)                                                              \
    ROWS_FUNCTION(name, body, 4, ##__VA_ARGS__)                                                              \
    static rows_function *const name[ROWS_AT_ONCE] = {name##_1, name##_2, name##_3, name##_4};

#endif
