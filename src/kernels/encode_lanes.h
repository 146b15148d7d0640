/* encode_lanes.h: 16 floats side by side for the search of encode_search.h: each lane works on a sub-block of its own, so
 * that no sum goes across lanes. Every operation is rounded by itself and none is fused: all instruction sets give the same
 * bits. Compiled for each of them; private to src/kernels. */
#ifndef RUNNEL_KERNELS_ENCODE_LANES_H
#define RUNNEL_KERNELS_ENCODE_LANES_H

#include <stdint.h>

#if defined(__AVX2__)
#include <immintrin.h>
#endif

#define LANES_INLINE static inline __attribute__((always_inline))

/* Functions of the search are inlined for each type, whose codes are constants then; without wide vectors, where nothing is
 * fast, they stand once. */
#if defined(__AVX2__)
#define SEARCH LANES_INLINE
#else
#define SEARCH static __attribute__((noinline))
#endif

enum { LANES = 16 };
typedef float lanes __attribute__((vector_size(64)));
typedef int32_t lanes_mask __attribute__((vector_size(64))); /* of comparisons: -1 or 0 */

LANES_INLINE lanes lanes_of(float value)
{
    return (lanes){value, value, value, value, value, value, value, value,
                   value, value, value, value, value, value, value, value};
}

/* a where the mask is set, else b. */
LANES_INLINE lanes lanes_select(lanes_mask mask, lanes a, lanes b)
{
    return (lanes)(((lanes_mask)a & mask) | ((lanes_mask)b & ~mask));
}

#if defined(__AVX512F__)

LANES_INLINE lanes lanes_lower(lanes a, lanes b)
{
    return (lanes)_mm512_min_ps((__m512)a, (__m512)b);
}

LANES_INLINE lanes lanes_higher(lanes a, lanes b)
{
    return (lanes)_mm512_max_ps((__m512)a, (__m512)b);
}

#elif defined(__AVX2__)

union lanes_halves {
    lanes whole;
    __m256 half[2];
};

LANES_INLINE lanes lanes_lower(lanes a, lanes b)
{
    union lanes_halves x = {.whole = a}, y = {.whole = b};
    x.half[0] = _mm256_min_ps(x.half[0], y.half[0]);
    x.half[1] = _mm256_min_ps(x.half[1], y.half[1]);
    return x.whole;
}

LANES_INLINE lanes lanes_higher(lanes a, lanes b)
{
    union lanes_halves x = {.whole = a}, y = {.whole = b};
    x.half[0] = _mm256_max_ps(x.half[0], y.half[0]);
    x.half[1] = _mm256_max_ps(x.half[1], y.half[1]);
    return x.whole;
}

#else

LANES_INLINE lanes lanes_lower(lanes a, lanes b)
{
    return lanes_select(a < b, a, b);
}

LANES_INLINE lanes lanes_higher(lanes a, lanes b)
{
    return lanes_select(a > b, a, b);
}

#endif

/* table[index] for each lane; indices from 0 to 31. */
LANES_INLINE lanes lanes_look_up(const float table[32], lanes_mask index)
{
#if defined(__AVX512F__)
    return (lanes)_mm512_permutex2var_ps(_mm512_loadu_ps(table), (__m512i)index, _mm512_loadu_ps(table + 16));
#elif defined(__AVX2__)
    union {
        lanes_mask whole;
        __m256i half[2];
    } from = {.whole = index};
    union lanes_halves found = {
        .half = {_mm256_i32gather_ps(table, from.half[0], 4), _mm256_i32gather_ps(table, from.half[1], 4)}};
    return found.whole;
#else
    lanes found = {0};
    for (int l = 0; l < LANES; l++)
        found[l] = table[index[l]];
    return found;
#endif
}

/* The nearest whole number, halves to even, of values below 2^22. */
LANES_INLINE lanes lanes_nearest(lanes value)
{
    lanes shift = lanes_of(0x1.8p23f); /* floats of this size are whole numbers */
    return (value + shift) - shift;
}

LANES_INLINE lanes lanes_between(lanes low, lanes value, lanes high)
{
    return lanes_higher(low, lanes_lower(value, high));
}

LANES_INLINE lanes lanes_abs(lanes value)
{
    return (lanes)((lanes_mask)value & 0x7fffffff);
}

/* 1 / value; 0 where value is 0. */
LANES_INLINE lanes lanes_inverse(lanes value)
{
    lanes_mask zero = value == 0;
    return (lanes)((lanes_mask)(1 / lanes_select(zero, lanes_of(1), value)) & ~zero);
}

#endif
