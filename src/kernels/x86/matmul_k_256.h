/* matmul_k_256.h: what products of Q4_K and Q6_K with 256-bit vectors share before their inner loops (avx2_matmul.c,
 * avxvnni_matmul.c); matmul_k_256_body.h is what comes after. A group (16 rows x 4 inputs) is two ymm of unsigned bytes, each
 * multiplied with 4 activations broadcast to all lanes: lanes of 32 bits are rows, and nothing is shuffled.
 *
 * The loops, from the outside: up to TILES_AT_ONCE tiles; up to ROWS_OF_PASS rows of activations; blocks
 * of 256 inputs; those tiles, whose block is unpacked once to L1; groups of up to ROWS_OF_GROUP rows,
 * whose dot products with the 16 rows of the tile are registers. Float sums are in L1. */
#ifndef RUNNEL_KERNELS_X86_MATMUL_K_256_H
#define RUNNEL_KERNELS_X86_MATMUL_K_256_H

#include "kernels/x86/matmul_256.h"

enum {
    ROWS_OF_GROUP = 6,
    GROUPS_OF_PASS = 4,
    ROWS_OF_PASS = ROWS_OF_GROUP * GROUPS_OF_PASS,
    Q6K_SUBS = 16,
};

/* Lines of weights that will be wanted later are fetched into L2 a few at each step of a group: all at once
 * they would fill the buffers for what is missing in L1, and everything would wait. */
struct fetch {
    const uint8_t *next;
    uint32_t lines_of_step;
};

INLINE void fetch_step(struct fetch *fetch)
{
    for (uint32_t i = 0; i < fetch->lines_of_step; i++, fetch->next += 64)
        _mm_prefetch((const char *)fetch->next, _MM_HINT_T1);
}

INLINE const struct act_q8_256 *act_of_row(const uint8_t *act, size_t stride, int i)
{
    return (const struct act_q8_256 *)(act + (size_t)i * stride);
}

/* A block of a tile of Q6_K but for its scales, which each file keeps as it applies them. */
struct q6k_weights {
    __m256i w[Q6K_SUBS][4][2]; /* 0 .. 63; [sub-block][group][half] */
    __m256 d[2];
};

/* What a row's block of activations starts the dot products of each sub-block of Q6_K from: minus what weights that are 32 too
 * high add. */
typedef int32_t starts_of_row[Q6K_SUBS];

/* Of half a tile. */
INLINE void q6k_unpack_weights(const uint8_t *d, const uint8_t *block, int half, struct q6k_weights *weights)
{
    const __m256i bits0_3 = _mm256_set1_epi8(0x0f), bits2_5 = _mm256_set1_epi8(0x3c),
                  bits4_5 = _mm256_set1_epi8(0x30), bits0_1 = _mm256_set1_epi8(0x03);
    for (int c = 0; c < 4; c++) {
        const uint8_t *chunk = block + Q6K_CHUNKS + Q6K_CHUNK_BYTES * c + 32 * half;
        __m256i(*w)[4][2] = weights->w + 4 * c;
        UNROLL
        for (int j = 0; j < 4; j++) {
            __m256i nibbles0 = load(chunk + 64 * j), nibbles1 = load(chunk + 64 * (4 + j));
            __m256i two = load(chunk + 64 * (8 + j)), lower = _mm256_srli_epi16(two, 2);
            w[0][j][half] =
                _mm256_or_si256(_mm256_and_si256(nibbles0, bits0_3), _mm256_and_si256(two, bits4_5));
            w[1][j][half] = _mm256_or_si256(_mm256_and_si256(_mm256_srli_epi16(nibbles0, 2), bits2_5),
                                            _mm256_and_si256(lower, bits0_1));
            w[2][j][half] =
                _mm256_or_si256(_mm256_and_si256(nibbles1, bits0_3), _mm256_and_si256(lower, bits4_5));
            w[3][j][half] = _mm256_or_si256(_mm256_and_si256(_mm256_srli_epi16(nibbles1, 2), bits2_5),
                                            _mm256_and_si256(two, bits0_1));
        }
    }
    weights->d[half] = load_8_f16(d + 16 * half);
}

/* sum + the scaled sum of half a tile's block and a row of activations, in whole numbers; d_act: of that row, in all lanes. */
INLINE __m256 q6k_add_block(__m256 sum, __m256i whole, __m256 d, __m256 d_act)
{
    return _mm256_fmadd_ps(_mm256_mul_ps(d, d_act), _mm256_cvtepi32_ps(whole), sum);
}

/* The scales of sub-blocks 4c and 4c+1, and of 4c+2 and 4c+3, of half a tile as 16-bit pairs. */
INLINE void q6k_unpack_scales(const uint8_t *block, int half, int c, __m256i pairs[2])
{
    signed_pairs(load(block + 64 * c + 32 * half), pairs);
}

#endif
