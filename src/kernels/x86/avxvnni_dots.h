/* avxvnni_dots.h: dot products of bytes for AVX-VNNI, as the 256-bit bodies (matmul_*_256.h) want them. One instruction
 * multiplies unsigned weights with 4 activations of each lane and adds all to its 32 bits, so that nothing can get too wide.
 * Owns nothing; any thread. */
#ifndef RUNNEL_KERNELS_X86_AVXVNNI_DOTS_H
#define RUNNEL_KERNELS_X86_AVXVNNI_DOTS_H

#include "kernels/x86/vnni_instructions.h"

#define DOT_PAIRS vnni_dot_pairs
#include "kernels/x86/vector16.h"

enum {
    DOT_GROUPS_OF_5_BITS = 8,
    DOT_8_BITS_TOO_HIGH = 128, /* by how much dot_8_bits takes weights too high */
    DOT_SCALES_ARE_TWICE = 0,  /* a scale is 32 bits */
};

/* dots + w * the same 4 activations in every lane, for both halves of a tile. */
INLINE void dot_both(__m256i *dot0, __m256i *dot1, __m256i w0, __m256i w1, const void *q)
{
    vnni_dot_both(dot0, dot1, w0, w1, q);
}

/* sum + a dot product, which is done then, and the same with a scale. */
INLINE __m256i dot_add(__m256i sum, __m256i dot)
{
    return _mm256_add_epi32(sum, dot);
}

INLINE __m256i dot_add_scaled(__m256i sum, __m256i dot, __m256i scale)
{
    return _mm256_add_epi32(sum, _mm256_mullo_epi32(dot, scale));
}

/* sum + a group of 8-bit weights that are 128 too high, taken as they are. */
INLINE __m256i dot_8_bits(__m256i sum, __m256i w, __m256i a)
{
    return vnni_dot_bytes(sum, w, a);
}

#endif
