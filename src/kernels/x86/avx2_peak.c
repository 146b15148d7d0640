/* avx2_peak.c: how fast AVX2 multiplies bytes, for probe.c. Owns nothing; any thread. */
#include "kernels/x86/avx2.h"

#include <immintrin.h>

typedef __m256i peak_vector;

static inline __attribute__((always_inline)) peak_vector peak_step(peak_vector sum, peak_vector a,
                                                                   peak_vector b)
{
    __m256i pairs = _mm256_maddubs_epi16(a, b);
    __asm__ volatile("" : "+x"(pairs));
    return _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
}

#include "kernels/x86/int8_peak.h"

void avx2_fill_peak(struct kernels *kernels)
{
    kernels->int8_unit = "AVX2";
    kernels->int8_peak = int8_peak;
}
