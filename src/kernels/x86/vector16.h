/* vector16.h: 16 floats as one AVX-512 register or two AVX2 registers, whichever the including file is
 * compiled for. So one body serves both, with the same operations in the same order. Private to the avx2*.c
 * and avx512*.c files. */
#ifndef RUNNEL_KERNELS_X86_VECTOR16_H
#define RUNNEL_KERNELS_X86_VECTOR16_H

#include "kernels/shared.h"

#include <immintrin.h>

/* A loop over accumulators must vanish, or they are no registers. */
#if defined(__clang__)
#define UNROLL _Pragma("clang loop unroll(full)")
#else
#define UNROLL _Pragma("GCC unroll 16")
#endif
#define INLINE static inline __attribute__((always_inline))

enum { TO_NEAREST = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC };

#if defined(__AVX512F__)

typedef __m512 vector16;

INLINE __mmask16 first_lanes(uint32_t n)
{
    return (__mmask16)(n >= 16 ? 0xffff : (1u << n) - 1);
}

INLINE vector16 v_set(float x)
{
    return _mm512_set1_ps(x);
}

INLINE vector16 v_load(const float *p)
{
    return _mm512_loadu_ps(p);
}

/* The first n lanes (n may be more than 16), the others 0. */
INLINE vector16 v_load_n(const float *p, uint32_t n)
{
    return _mm512_maskz_loadu_ps(first_lanes(n), p);
}

INLINE vector16 v_load_bf16(const uint16_t *p)
{
    __m512i values = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)p));
    return _mm512_castsi512_ps(_mm512_slli_epi32(values, 16));
}

INLINE vector16 v_load_f16(const uint16_t *p)
{
    return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)p));
}

INLINE void v_store(float *p, vector16 v)
{
    _mm512_storeu_ps(p, v);
}

INLINE void v_store_n(float *p, vector16 v, uint32_t n)
{
    _mm512_mask_storeu_ps(p, first_lanes(n), v);
}

INLINE void v_store_f16(uint16_t *p, vector16 v)
{
    _mm256_storeu_si256((__m256i *)p, _mm512_cvtps_ph(v, TO_NEAREST));
}

INLINE vector16 v_add(vector16 a, vector16 b)
{
    return _mm512_add_ps(a, b);
}

INLINE vector16 v_sub(vector16 a, vector16 b)
{
    return _mm512_sub_ps(a, b);
}

INLINE vector16 v_mul(vector16 a, vector16 b)
{
    return _mm512_mul_ps(a, b);
}

INLINE vector16 v_div(vector16 a, vector16 b)
{
    return _mm512_div_ps(a, b);
}

/* a * b + c */
INLINE vector16 v_fma(vector16 a, vector16 b, vector16 c)
{
    return _mm512_fmadd_ps(a, b, c);
}

/* a > b ? a : b, and a < b ? a : b: b where one is NaN. */
INLINE vector16 v_max(vector16 a, vector16 b)
{
    return _mm512_max_ps(a, b);
}

INLINE vector16 v_min(vector16 a, vector16 b)
{
    return _mm512_min_ps(a, b);
}

INLINE vector16 v_negative(vector16 a)
{
    return _mm512_xor_ps(a, _mm512_set1_ps(-0.0f));
}

/* The first n lanes of a, the others of b. */
INLINE vector16 v_first(vector16 a, vector16 b, uint32_t n)
{
    return _mm512_mask_blend_ps(first_lanes(n), b, a);
}

/* Float t = EXP_ROUND + n to 2^n. */
INLINE vector16 v_power(vector16 t)
{
    return _mm512_castsi512_ps(
        _mm512_add_epi32(_mm512_slli_epi32(_mm512_castps_si512(t), 23), _mm512_set1_epi32(0x3f800000)));
}

INLINE __m256 v_halves_added(vector16 v)
{
    return _mm256_add_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps(v, 1));
}

INLINE float v_largest(vector16 v)
{
    return _mm512_reduce_max_ps(v);
}

/* Bits of the absolute values: the larger ones as whole numbers. */
INLINE vector16 v_max_bits(vector16 a, vector16 b)
{
    __m512i bits = _mm512_and_si512(_mm512_castps_si512(a), _mm512_set1_epi32(0x7fffffff));
    return _mm512_castsi512_ps(_mm512_max_epu32(bits, _mm512_castps_si512(b)));
}

INLINE uint32_t v_largest_bits(vector16 v)
{
    return _mm512_reduce_max_epu32(_mm512_castps_si512(v));
}

/* Rounds to whole numbers of 8 bits (they fit), stores them and returns their sum. */
INLINE int v_store_i8(int8_t *p, vector16 v)
{
    __m512i whole = _mm512_cvtps_epi32(v);
    _mm_storeu_si128((__m128i *)p, _mm512_cvtepi32_epi8(whole));
    return _mm512_reduce_add_epi32(whole);
}

/* 16 sums of 32 bits, and 16 pairs of whole numbers of 16 bits. */
typedef __m512i whole16;

INLINE whole16 w_zero(void)
{
    return _mm512_setzero_si512();
}

INLINE whole16 w_load(const int16_t *p)
{
    return _mm512_loadu_si512(p);
}

/* One pair 16 times. */
INLINE whole16 w_pair(const int16_t *p)
{
    int32_t pair;
    memcpy(&pair, p, sizeof pair);
    return _mm512_set1_epi32(pair);
}

/* sums + a * b, both of each pair. In assembly, as GCC 12 copies sums twice around the intrinsic. */
INLINE whole16 w_dot(whole16 sums, whole16 a, whole16 b)
{
    __asm__("vpdpwssd %2, %1, %0" : "+v"(sums) : "v"(a), "v"(b));
    return sums;
}

/* The same with one pair 16 times. */
INLINE whole16 w_dot_pair(whole16 sums, whole16 a, const int16_t *b)
{
    const struct __attribute__((packed, may_alias)) {
        int32_t both;
    } *pair = (const void *)b;
    __asm__("vpdpwssd %2%{1to16%}, %1, %0" : "+v"(sums) : "v"(a), "m"(*pair));
    return sums;
}

INLINE vector16 v_whole(whole16 sums)
{
    return _mm512_cvtepi32_ps(sums);
}

/* Rounds to whole numbers of 16 bits (they fit) and stores them. */
INLINE void v_store_i16(int16_t *p, vector16 v)
{
    _mm256_storeu_si256((__m256i *)p, _mm512_cvtepi32_epi16(_mm512_cvtps_epi32(v)));
}

#else

typedef struct vector16 {
    __m256 low, high;
} vector16;

INLINE vector16 v_pair(__m256 low, __m256 high)
{
    return (vector16){low, high};
}

/* All ones in the lanes below n. */
INLINE __m256i first_lanes(uint32_t n)
{
    return _mm256_cmpgt_epi32(_mm256_set1_epi32((int)(n < 8 ? n : 8)),
                              _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}

INLINE uint32_t past_first_eight(uint32_t n)
{
    return n > 8 ? n - 8 : 0;
}

INLINE vector16 v_set(float x)
{
    return v_pair(_mm256_set1_ps(x), _mm256_set1_ps(x));
}

INLINE vector16 v_load(const float *p)
{
    return v_pair(_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8));
}

INLINE vector16 v_load_n(const float *p, uint32_t n)
{
    return v_pair(_mm256_maskload_ps(p, first_lanes(n)),
                  _mm256_maskload_ps(p + 8, first_lanes(past_first_eight(n))));
}

INLINE vector16 v_load_bf16(const uint16_t *p)
{
    __m256i low = _mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)p));
    __m256i high = _mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)(p + 8)));
    return v_pair(_mm256_castsi256_ps(_mm256_slli_epi32(low, 16)),
                  _mm256_castsi256_ps(_mm256_slli_epi32(high, 16)));
}

INLINE vector16 v_load_f16(const uint16_t *p)
{
    return v_pair(_mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)p)),
                  _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(p + 8))));
}

INLINE void v_store(float *p, vector16 v)
{
    _mm256_storeu_ps(p, v.low);
    _mm256_storeu_ps(p + 8, v.high);
}

/* Whole where it can be: AMD's CPUs take dozens of cycles for a masked store. */
INLINE void v_store_n(float *p, vector16 v, uint32_t n)
{
    if (n >= 16) {
        v_store(p, v);
        return;
    }
    _mm256_maskstore_ps(p, first_lanes(n), v.low);
    _mm256_maskstore_ps(p + 8, first_lanes(past_first_eight(n)), v.high);
}

INLINE void v_store_f16(uint16_t *p, vector16 v)
{
    _mm_storeu_si128((__m128i *)p, _mm256_cvtps_ph(v.low, TO_NEAREST));
    _mm_storeu_si128((__m128i *)(p + 8), _mm256_cvtps_ph(v.high, TO_NEAREST));
}

INLINE vector16 v_add(vector16 a, vector16 b)
{
    return v_pair(_mm256_add_ps(a.low, b.low), _mm256_add_ps(a.high, b.high));
}

INLINE vector16 v_sub(vector16 a, vector16 b)
{
    return v_pair(_mm256_sub_ps(a.low, b.low), _mm256_sub_ps(a.high, b.high));
}

INLINE vector16 v_mul(vector16 a, vector16 b)
{
    return v_pair(_mm256_mul_ps(a.low, b.low), _mm256_mul_ps(a.high, b.high));
}

INLINE vector16 v_div(vector16 a, vector16 b)
{
    return v_pair(_mm256_div_ps(a.low, b.low), _mm256_div_ps(a.high, b.high));
}

INLINE vector16 v_fma(vector16 a, vector16 b, vector16 c)
{
    return v_pair(_mm256_fmadd_ps(a.low, b.low, c.low), _mm256_fmadd_ps(a.high, b.high, c.high));
}

INLINE vector16 v_max(vector16 a, vector16 b)
{
    return v_pair(_mm256_max_ps(a.low, b.low), _mm256_max_ps(a.high, b.high));
}

INLINE vector16 v_min(vector16 a, vector16 b)
{
    return v_pair(_mm256_min_ps(a.low, b.low), _mm256_min_ps(a.high, b.high));
}

INLINE vector16 v_negative(vector16 a)
{
    const __m256 sign = _mm256_set1_ps(-0.0f);
    return v_pair(_mm256_xor_ps(a.low, sign), _mm256_xor_ps(a.high, sign));
}

INLINE vector16 v_first(vector16 a, vector16 b, uint32_t n)
{
    __m256 low = _mm256_castsi256_ps(first_lanes(n)),
           high = _mm256_castsi256_ps(first_lanes(past_first_eight(n)));
    return v_pair(_mm256_blendv_ps(b.low, a.low, low), _mm256_blendv_ps(b.high, a.high, high));
}

INLINE vector16 v_power(vector16 t)
{
    const __m256i one = _mm256_set1_epi32(0x3f800000);
    __m256i low = _mm256_add_epi32(_mm256_slli_epi32(_mm256_castps_si256(t.low), 23), one);
    __m256i high = _mm256_add_epi32(_mm256_slli_epi32(_mm256_castps_si256(t.high), 23), one);
    return v_pair(_mm256_castsi256_ps(low), _mm256_castsi256_ps(high));
}

INLINE __m256 v_halves_added(vector16 v)
{
    return _mm256_add_ps(v.low, v.high);
}

INLINE float v_largest(vector16 v)
{
    __m256 eight = _mm256_max_ps(v.low, v.high);
    __m128 four = _mm_max_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
    __m128 two = _mm_max_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_max_ss(two, _mm_shuffle_ps(two, two, 1)));
}

INLINE vector16 v_max_bits(vector16 a, vector16 b)
{
    const __m256i absolute = _mm256_set1_epi32(0x7fffffff);
    __m256i low = _mm256_and_si256(_mm256_castps_si256(a.low), absolute);
    __m256i high = _mm256_and_si256(_mm256_castps_si256(a.high), absolute);
    return v_pair(_mm256_castsi256_ps(_mm256_max_epu32(low, _mm256_castps_si256(b.low))),
                  _mm256_castsi256_ps(_mm256_max_epu32(high, _mm256_castps_si256(b.high))));
}

INLINE uint32_t v_largest_bits(vector16 v)
{
    __m256i eight = _mm256_max_epu32(_mm256_castps_si256(v.low), _mm256_castps_si256(v.high));
    __m128i four = _mm_max_epu32(_mm256_castsi256_si128(eight), _mm256_extracti128_si256(eight, 1));
    __m128i two = _mm_max_epu32(four, _mm_unpackhi_epi64(four, four));
    return (uint32_t)_mm_cvtsi128_si32(_mm_max_epu32(two, _mm_shuffle_epi32(two, 1)));
}

INLINE int v_store_i8(int8_t *p, vector16 v)
{
    __m256i low = _mm256_cvtps_epi32(v.low), high = _mm256_cvtps_epi32(v.high);
    __m256i words = _mm256_permute4x64_epi64(_mm256_packs_epi32(low, high), 0xd8);
    _mm_storeu_si128((__m128i *)p,
                     _mm_packs_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1)));
    __m256i eight = _mm256_add_epi32(low, high);
    __m128i four = _mm_add_epi32(_mm256_castsi256_si128(eight), _mm256_extracti128_si256(eight, 1));
    __m128i two = _mm_add_epi32(four, _mm_unpackhi_epi64(four, four));
    return _mm_cvtsi128_si32(_mm_add_epi32(two, _mm_shuffle_epi32(two, 1)));
}

typedef struct whole16 {
    __m256i low, high;
} whole16;

/* sum + both products of each lane's 16-bit pairs. A file whose CPUs have one instruction for it says so before it includes
 * this. */
#if !defined(DOT_PAIRS)
#define DOT_PAIRS dot_pairs
INLINE __m256i dot_pairs(__m256i sum, __m256i a, __m256i b)
{
    return _mm256_add_epi32(sum, _mm256_madd_epi16(a, b));
}
#endif

INLINE whole16 w_zero(void)
{
    return (whole16){_mm256_setzero_si256(), _mm256_setzero_si256()};
}

INLINE whole16 w_load(const int16_t *p)
{
    return (whole16){_mm256_loadu_si256((const __m256i *)p), _mm256_loadu_si256((const __m256i *)(p + 16))};
}

INLINE whole16 w_pair(const int16_t *p)
{
    int32_t pair;
    memcpy(&pair, p, sizeof pair);
    return (whole16){_mm256_set1_epi32(pair), _mm256_set1_epi32(pair)};
}

INLINE whole16 w_dot(whole16 sums, whole16 a, whole16 b)
{
    return (whole16){DOT_PAIRS(sums.low, a.low, b.low), DOT_PAIRS(sums.high, a.high, b.high)};
}

INLINE whole16 w_dot_pair(whole16 sums, whole16 a, const int16_t *b)
{
    return w_dot(sums, a, w_pair(b));
}

INLINE vector16 v_whole(whole16 sums)
{
    return v_pair(_mm256_cvtepi32_ps(sums.low), _mm256_cvtepi32_ps(sums.high));
}

INLINE void v_store_i16(int16_t *p, vector16 v)
{
    __m256i words = _mm256_packs_epi32(_mm256_cvtps_epi32(v.low), _mm256_cvtps_epi32(v.high));
    _mm256_storeu_si256((__m256i *)p, _mm256_permute4x64_epi64(words, 0xd8));
}

#endif

/* sum_lanes of shared.h for 16 lanes: halves onto halves. */
INLINE float v_sum(vector16 v)
{
    __m256 eight = v_halves_added(v);
    __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
    __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_add_ss(two, _mm_shuffle_ps(two, two, 1)));
}

/* exp_f32 of shared.h, operation by operation. */
INLINE vector16 v_exp(vector16 x)
{
    x = v_min(v_set(EXP_HIGH), v_max(v_set(EXP_LOW), x));
    vector16 t = v_fma(x, v_set(EXP_LOG2E), v_set(EXP_ROUND));
    vector16 n = v_sub(t, v_set(EXP_ROUND));
    vector16 r = v_fma(n, v_set(-EXP_LN2_A), x);
    r = v_fma(n, v_set(-EXP_LN2_B), r);
    vector16 p = v_fma(v_set(EXP_P0), r, v_set(EXP_P1));
    p = v_fma(p, r, v_set(EXP_P2));
    p = v_fma(p, r, v_set(EXP_P3));
    p = v_fma(p, r, v_set(EXP_P4));
    p = v_fma(p, r, v_set(EXP_P5));
    p = v_add(v_fma(p, v_mul(r, r), r), v_set(1.0f));
    return v_mul(p, v_power(t));
}

#endif
