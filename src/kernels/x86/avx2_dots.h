/* avx2_dots.h: dot products of bytes for AVX2 without VNNI, as the 256-bit bodies (matmul_*_256.h) want them.
 * Owns nothing; any thread.
 *
 * `vpmaddubsw` multiplies unsigned weights with 4 activations of each lane and adds pairs to 16 bits. So a dot product that
 * is not done yet is two sums of 16 bits in each lane; how many groups they hold depends on the bits of a weight. */
#ifndef RUNNEL_KERNELS_X86_AVX2_DOTS_H
#define RUNNEL_KERNELS_X86_AVX2_DOTS_H

#include "kernels/x86/vector16.h"

enum {
    /* 4 groups fit: 4 * 2 * 31 * 128 = 31744; of 4 bits all 8 of a sub-block: 8 * 2 * 15 * 128 = 30720 */
    DOT_GROUPS_OF_5_BITS = 4,
    DOT_8_BITS_TOO_HIGH = 0,  /* by how much dot_8_bits takes weights too high */
    DOT_SCALES_ARE_TWICE = 1, /* a scale is in both 16-bit halves of a lane */
};

/* dots + w * the same 4 activations in every lane, for both halves of a tile. In assembly, as GCC 12 would put the products of all
 * groups on the stack and add them in another order. */
INLINE void dot_both(__m256i *dot0, __m256i *dot1, __m256i w0, __m256i w1, const void *q)
{
    const struct __attribute__((packed, may_alias)) {
        int32_t four;
    } *act = q;
    __m256i a, b;
    __asm__("vpbroadcastd %[q], %[a]\n\t"
            "vpmaddubsw %[a], %[w0], %[b]\n\t"
            "vpmaddubsw %[a], %[w1], %[a]\n\t"
            "vpaddw %[b], %[dot0], %[dot0]\n\t"
            "vpaddw %[a], %[dot1], %[dot1]"
            : [dot0] "+x"(*dot0), [dot1] "+x"(*dot1), [a] "=&x"(a), [b] "=&x"(b)
            : [w0] "x"(w0), [w1] "x"(w1), [q] "m"(*act));
}

/* sum + a dot product, which is done then, and the same with a scale. */
INLINE __m256i dot_add(__m256i sum, __m256i dot)
{
    return _mm256_add_epi32(sum, _mm256_madd_epi16(dot, _mm256_set1_epi16(1)));
}

INLINE __m256i dot_add_scaled(__m256i sum, __m256i dot, __m256i scale)
{
    return _mm256_add_epi32(sum, _mm256_madd_epi16(dot, scale));
}

/* sum + a group of 8-bit weights that are 128 too high: |w| * (a with w's sign), 2 * 128 * 127 fits 16 bits. */
INLINE __m256i dot_8_bits(__m256i sum, __m256i w, __m256i a)
{
    w = _mm256_xor_si256(w, _mm256_set1_epi8((char)0x80));
    return dot_add(sum, _mm256_maddubs_epi16(_mm256_abs_epi8(w), _mm256_sign_epi8(a, w)));
}

#endif
