/* avx512_vectors.h: what the products for AVX-512 VNNI share: loads, and functions for 1 to 8 rows of
 * activations. Private to avx512_*.c and amx_*.c. Owns nothing; any thread. */
#ifndef RUNNEL_KERNELS_X86_AVX512_VECTORS_H
#define RUNNEL_KERNELS_X86_AVX512_VECTORS_H

#include "kernels/x86/avx512.h"
#include "kernels/x86/matmul_product.h"

enum {
    TILES_AT_ONCE = 4,
    ROWS_AT_ONCE = 8,
};

INLINE __m512i load(const void *p)
{
    return _mm512_loadu_si512(p);
}

/* 16 upper halves of floats. */
INLINE __m512 load_bf16(const uint8_t *p)
{
    __m512i wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)p));
    return _mm512_castsi512_ps(_mm512_slli_epi32(wide, 16));
}

INLINE __m512 load_f16(const uint8_t *p)
{
    return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)p));
}

/* 4 bytes in every lane. */
INLINE __m512i broadcast(const void *p)
{
    int32_t value;
    memcpy(&value, p, sizeof value);
    return _mm512_set1_epi32(value);
}

/* Bytes of four sub-blocks of a row in each lane, in pack.h's order 0 2 1 3, as 16-bit pairs of sub-blocks 0 and 1, and 2 and 3. */
INLINE void unsigned_pairs(__m512i bytes, __m512i pairs[2])
{
    pairs[0] = _mm512_and_si512(bytes, _mm512_set1_epi16(0x00ff));
    pairs[1] = _mm512_srli_epi16(bytes, 8);
}

INLINE void signed_pairs(__m512i bytes, __m512i pairs[2])
{
    pairs[0] = _mm512_srai_epi16(_mm512_slli_epi16(bytes, 8), 8);
    pairs[1] = _mm512_srai_epi16(bytes, 8);
}

/* The 16 weights that nibbles of a type look up, in each 128 bits. */
INLINE __m512i listed_weights(enum tensor_type type)
{
    return _mm512_broadcast_i32x4(_mm_loadu_si128((const __m128i *)quant_codebook(type)));
}

/* sum + weights * the same 4 activations in every lane. Written out because gcc 12 loads the 4 activations by
 * an instruction of their own; in this order, so that prefetches stay between the products. */
INLINE __m512i dot4(__m512i sum, __m512i weights, const uint8_t *q)
{
    __asm__ volatile("vpdpbusd %2%{1to16%}, %1, %0" : "+v"(sum) : "v"(weights), "m"(*(const uint8_t(*)[4])q));
    return sum;
}

INLINE void store_sums(const struct product *p, uint32_t tile, uint32_t row, int m, const __m512 *sums)
{
    UNROLL
    for (int i = 0; i < m; i++)
        store_sum(p, tile, row + (uint32_t)i, sums[i]);
}

/* The 6-bit scales and mins of a block of Q4_K or Q5_K as 16-bit pairs of sub-blocks 2p and 2p+1. */
struct q4k_scales {
    __m512i scale_pairs[4], min_pairs[4];
};

INLINE void q4k_unpack_scales(const uint8_t *block, struct q4k_scales *s)
{
    const __m512i six = _mm512_set1_epi8(0x3f), four = _mm512_set1_epi8(0x0f), high = _mm512_set1_epi8(0x30);
    __m512i word0 = load(block + Q4K_SCALES), word1 = load(block + Q4K_SCALES + 64);
    __m512i word2 = load(block + Q4K_SCALES + 128);
    __m512i scales[2], mins[2];
    scales[0] = _mm512_and_si512(word0, six);
    mins[0] = _mm512_and_si512(word1, six);
    scales[1] =
        _mm512_or_si512(_mm512_and_si512(word2, four), _mm512_and_si512(_mm512_srli_epi16(word0, 2), high));
    mins[1] = _mm512_or_si512(_mm512_and_si512(_mm512_srli_epi16(word2, 4), four),
                              _mm512_and_si512(_mm512_srli_epi16(word1, 2), high));
    UNROLL
    for (int i = 0; i < 2; i++) {
        unsigned_pairs(scales[i], s->scale_pairs + 2 * i);
        unsigned_pairs(mins[i], s->min_pairs + 2 * i);
    }
}

/* Group j of sub-block k of a chunk of Q6_K; odd k: 4 times as large. */
INLINE __m512i q6k_group(const uint8_t *chunk, int k, int j)
{
    __m512i nibbles = load(chunk + 64 * (k / 2 * 4 + j)), pairs = load(chunk + 64 * (8 + j));
    if (k == 2)
        pairs = _mm512_srli_epi16(pairs, 2);
    if (k == 3)
        pairs = _mm512_slli_epi16(pairs, 2);
    nibbles = _mm512_and_si512(nibbles, _mm512_set1_epi8(k % 2 ? (char)0xf0 : 0x0f));
    /* nibbles | (pairs & mask) */
    return _mm512_ternarylogic_epi32(nibbles, pairs, _mm512_set1_epi8(k % 2 ? 0x0c : 0x30), 0xf8);
}

/* Group g of an even or odd sub-block of Q5_K; odd ones 8 times too large. */
INLINE __m512i q5k_group(const uint8_t *nibbles, __m512i bits, int odd, int g)
{
    const int place = odd ? 3 : 4; /* where bit g of a byte has to go */
    __m512i w = _mm512_and_si512(load(nibbles + 64 * g), _mm512_set1_epi8((char)(odd ? 0xf0 : 0x0f)));
    if (g > place)
        bits = _mm512_srli_epi16(bits, (unsigned)(g - place));
    if (g < place)
        bits = _mm512_slli_epi16(bits, (unsigned)(place - g));
    /* w | (bits & mask) */
    return _mm512_ternarylogic_epi32(w, bits, _mm512_set1_epi8((char)(1 << place)), 0xf8);
}

#define ROWS_FUNCTIONS(name, body, ...) ROWS_FUNCTIONS_8(name, body, ##__VA_ARGS__)

#endif
