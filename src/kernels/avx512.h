/* avx512.h: what avx512_matmul.c and avx512_attention.c give to avx512.c, and what all three use. Private to
 * them. */
#ifndef RUNNEL_KERNELS_AVX512_H
#define RUNNEL_KERNELS_AVX512_H

#include "kernels/shared.h"

#include <immintrin.h>

/* A loop over accumulators must vanish, or they are no registers. */
#if defined(__clang__)
#define UNROLL _Pragma("clang loop unroll(full)")
#else
#define UNROLL _Pragma("GCC unroll 16")
#endif
#define INLINE static inline __attribute__((always_inline))

void avx512_fill_matmul(struct kernels *kernels);
void avx512_fill_attention(struct kernels *kernels);

/* Lanes below n. */
INLINE __mmask16 first_lanes(uint32_t n)
{
    return (__mmask16)(n >= 16 ? 0xffff : (1u << n) - 1);
}

/* exp_f32 of shared.h, the same operations. The order of operands of min and max lets NaN through. */
INLINE __m512 exp_vector(__m512 x)
{
    const __m512 round = _mm512_set1_ps(EXP_ROUND);
    x = _mm512_max_ps(_mm512_set1_ps(EXP_LOW), x);
    x = _mm512_min_ps(_mm512_set1_ps(EXP_HIGH), x);
    __m512 t = _mm512_fmadd_ps(x, _mm512_set1_ps(EXP_LOG2E), round);
    __m512 n = _mm512_sub_ps(t, round);
    __m512 r = _mm512_fmadd_ps(n, _mm512_set1_ps(-EXP_LN2_A), x);
    r = _mm512_fmadd_ps(n, _mm512_set1_ps(-EXP_LN2_B), r);
    __m512 p = _mm512_fmadd_ps(_mm512_set1_ps(EXP_P0), r, _mm512_set1_ps(EXP_P1));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(EXP_P2));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(EXP_P3));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(EXP_P4));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(EXP_P5));
    p = _mm512_add_ps(_mm512_fmadd_ps(p, _mm512_mul_ps(r, r), r), _mm512_set1_ps(1.0f));
    __m512i power =
        _mm512_add_epi32(_mm512_slli_epi32(_mm512_castps_si512(t), 23), _mm512_set1_epi32(0x3f800000));
    return _mm512_mul_ps(p, _mm512_castsi512_ps(power));
}

/* sum_lanes of shared.h: halves onto halves. */
INLINE float sum_vector(__m512 v)
{
    __m256 eight = _mm256_add_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps(v, 1));
    __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
    __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_add_ss(two, _mm_shuffle_ps(two, two, 1)));
}

#endif
