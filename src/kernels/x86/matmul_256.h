/* matmul_256.h: what products with 256-bit vectors share: loads, sums of a tile, scales, and functions for 1 to 4 rows of
 * activations. Included after the dot products of an instruction set (avx2_dots.h or avxvnni_dots.h), once by each
 * file of products. Owns nothing; any thread. */
#ifndef RUNNEL_KERNELS_X86_MATMUL_256_H
#define RUNNEL_KERNELS_X86_MATMUL_256_H

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

/* Bytes of four sub-blocks of a row in each lane, in pack.h's order 0 2 1 3, as 16-bit pairs of sub-blocks 0 and 1, and 2 and 3. */
INLINE void unsigned_pairs(__m256i bytes, __m256i pairs[2])
{
    pairs[0] = _mm256_and_si256(bytes, _mm256_set1_epi16(0x00ff));
    pairs[1] = _mm256_srli_epi16(bytes, 8);
}

INLINE void signed_pairs(__m256i bytes, __m256i pairs[2])
{
    pairs[0] = _mm256_srai_epi16(_mm256_slli_epi16(bytes, 8), 8);
    pairs[1] = _mm256_srai_epi16(bytes, 8);
}

/* The 16 weights that nibbles of a type look up, in each 128 bits. */
INLINE __m256i listed_weights(enum tensor_type type)
{
    return _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)quant_codebook(type)));
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

/* The byte of sub-block s (of 4 in a word, pack.h's order) in each lane: in byte 0 and, if `twice`, in byte 2. */
INLINE __m256i byte_of_lanes(__m256i bytes, int s, bool twice)
{
    const uint32_t place = (uint32_t)(s == 1 ? 2 : s == 2 ? 1 : s), none = 0x80;
    const int lane = (int)(place | none << 8 | (twice ? place : none) << 16 | none << 24);
    const int of_lane = twice ? 0x40004 : 4;
    const __m256i lanes =
        _mm256_setr_epi32(0, of_lane, 2 * of_lane, 3 * of_lane, 0, of_lane, 2 * of_lane, 3 * of_lane);
    return _mm256_shuffle_epi8(bytes, _mm256_add_epi32(lanes, _mm256_set1_epi32(lane)));
}

/* The 6-bit scales and mins of Q4_K and Q5_K of 8 rows: bytes of sub-blocks 0 to 3, and 4 to 7, in pack.h's order. */
struct six_bits {
    __m256i scales[2], mins[2];
};

INLINE struct six_bits unpack_six_bits(const uint8_t *words)
{
    const __m256i six = _mm256_set1_epi8(0x3f), four = _mm256_set1_epi8(0x0f), high = _mm256_set1_epi8(0x30);
    __m256i word0 = load(words), word1 = load(words + 64), word2 = load(words + 128);
    struct six_bits bits;
    bits.scales[0] = _mm256_and_si256(word0, six);
    bits.mins[0] = _mm256_and_si256(word1, six);
    bits.scales[1] =
        _mm256_or_si256(_mm256_and_si256(word2, four), _mm256_and_si256(_mm256_srli_epi16(word0, 2), high));
    bits.mins[1] = _mm256_or_si256(_mm256_and_si256(_mm256_srli_epi16(word2, 4), four),
                                   _mm256_and_si256(_mm256_srli_epi16(word1, 2), high));
    return bits;
}

/* Of such bytes those of sub-blocks 2p and 2p+1 as 16-bit pairs. */
INLINE void pairs_of_bytes(const __m256i bytes[2], __m256i pairs[4])
{
    UNROLL
    for (int i = 0; i < 2; i++)
        unsigned_pairs(bytes[i], pairs + 2 * i);
}

/* What a block of Q4_K or Q5_K adds to a sum of 8 rows: its scaled whole numbers, and minus its mins. */
INLINE __m256 add_block(__m256 sum, __m256i isum, __m256 d, __m256 dmin, const __m256i min_pairs[4],
                        const struct act_q8_256 *a)
{
    __m256i msum = _mm256_setzero_si256();
    UNROLL
    for (int j = 0; j < 4; j++)
        msum = DOT_PAIRS(msum, min_pairs[j], broadcast(&a->sum32[2 * j]));
    __m256 d_act = _mm256_set1_ps(a->d);
    sum = _mm256_fmadd_ps(_mm256_mul_ps(d, d_act), _mm256_cvtepi32_ps(isum), sum);
    return _mm256_fnmadd_ps(_mm256_mul_ps(dmin, d_act), _mm256_cvtepi32_ps(msum), sum);
}

#define ROWS_FUNCTIONS(name, body, ...) ROWS_FUNCTIONS_4(name, body, ##__VA_ARGS__)

#endif
