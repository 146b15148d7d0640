/* avx2_vectors.h: what the products for AVX2 share: loads, sums of a tile, and functions for 1 to 4 rows of
 * activations. Private to avx2_*.c. Owns nothing; any thread. */
#ifndef RUNNEL_KERNELS_X86_AVX2_VECTORS_H
#define RUNNEL_KERNELS_X86_AVX2_VECTORS_H

#include "kernels/x86/avx2.h"
#include "kernels/x86/matmul_product.h"

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

/* The byte of sub-block s (of 4 in a word, pack.h's order) as a 16-bit pair of itself in each lane. */
INLINE __m256i twice(__m256i bytes, int s)
{
    const uint32_t place = (uint32_t)(s == 1 ? 2 : s == 2 ? 1 : s), none = 0x80;
    const int lane = (int)(place | none << 8 | place << 16 | none << 24);
    const __m256i lanes =
        _mm256_setr_epi32(0x0000, 0x40004, 0x80008, 0xc000c, 0x0000, 0x40004, 0x80008, 0xc000c);
    return _mm256_shuffle_epi8(bytes, _mm256_add_epi32(lanes, _mm256_set1_epi32(lane)));
}

/* Of Q4_K and Q5_K, 8 rows: scales as pairs of themselves, mins as pairs of sub-blocks 2p and 2p+1. */
struct q4k_scales {
    __m256i scale[8], min_pairs[4];
};

INLINE void q4k_unpack_scales(const uint8_t *words, struct q4k_scales *s)
{
    const __m256i six = _mm256_set1_epi8(0x3f), four = _mm256_set1_epi8(0x0f), high = _mm256_set1_epi8(0x30);
    __m256i word0 = load(words), word1 = load(words + 64), word2 = load(words + 128), scales[2], mins[2];
    scales[0] = _mm256_and_si256(word0, six);
    mins[0] = _mm256_and_si256(word1, six);
    scales[1] =
        _mm256_or_si256(_mm256_and_si256(word2, four), _mm256_and_si256(_mm256_srli_epi16(word0, 2), high));
    mins[1] = _mm256_or_si256(_mm256_and_si256(_mm256_srli_epi16(word2, 4), four),
                              _mm256_and_si256(_mm256_srli_epi16(word1, 2), high));
    UNROLL
    for (int i = 0; i < 2; i++) {
        UNROLL
        for (int j = 0; j < 4; j++)
            s->scale[4 * i + j] = twice(scales[i], j);
        s->min_pairs[2 * i] = _mm256_and_si256(mins[i], _mm256_set1_epi16(0x00ff));
        s->min_pairs[2 * i + 1] = _mm256_srli_epi16(mins[i], 8);
    }
}

#define ROWS_FUNCTIONS(name, body, ...) ROWS_FUNCTIONS_4(name, body, ##__VA_ARGS__)

#endif
