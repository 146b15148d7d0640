/* vnni_instructions.h: AVX-VNNI by AVX2, in place of src/kernels/x86/vnni_instructions.h, which says what each function does.
 * So all that is written for AVX-VNNI is tested on machines without it. */
#ifndef RUNNEL_KERNELS_X86_VNNI_INSTRUCTIONS_H
#define RUNNEL_KERNELS_X86_VNNI_INSTRUCTIONS_H

#include <immintrin.h>
#include <string.h>

/* Even and odd bytes each become 16-bit numbers, of which `vpmaddwd` adds the products of two to 32 bits. */
static inline __m256i vnni_dot_bytes(__m256i sum, __m256i w, __m256i a)
{
    __m256i even = _mm256_madd_epi16(_mm256_and_si256(w, _mm256_set1_epi16(0xff)),
                                     _mm256_srai_epi16(_mm256_slli_epi16(a, 8), 8));
    __m256i odd = _mm256_madd_epi16(_mm256_srli_epi16(w, 8), _mm256_srai_epi16(a, 8));
    return _mm256_add_epi32(sum, _mm256_add_epi32(even, odd));
}

static inline void vnni_dot_both(__m256i *sum0, __m256i *sum1, __m256i w0, __m256i w1, const void *q)
{
    int four;
    memcpy(&four, q, sizeof four);
    *sum0 = vnni_dot_bytes(*sum0, w0, _mm256_set1_epi32(four));
    *sum1 = vnni_dot_bytes(*sum1, w1, _mm256_set1_epi32(four));
}

static inline __m256i vnni_dot_pairs(__m256i sum, __m256i a, __m256i b)
{
    return _mm256_add_epi32(sum, _mm256_madd_epi16(a, b));
}

#endif
