/* avx2_peak.c: how fast AVX2 multiplies bytes, for probe.c. Owns nothing; any thread. */
#include "kernels/x86/avx2.h"
#include "kernels/x86/int8_peak.h"

#include <immintrin.h>

enum { REPEATS = 150000 };

static uint64_t int8_peak(void)
{
    __m256i sums[INT8_CHAINS], a = _mm256_set1_epi8(1), b = _mm256_set1_epi8(1), ones = _mm256_set1_epi16(1);
#define START(j) sums[j] = _mm256_setzero_si256();
    FOR_EACH_CHAIN(START)
#undef START
    for (int i = 0; i < REPEATS; i++) {
        /* The empty assembly keeps the compiler from leaving a step out. */
#define STEP(j)                                                                                              \
    {                                                                                                        \
        __m256i pairs = _mm256_maddubs_epi16(a, b);                                                          \
        __asm__ volatile("" : "+x"(pairs));                                                                  \
        sums[j] = _mm256_add_epi32(sums[j], _mm256_madd_epi16(pairs, ones));                                 \
        __asm__ volatile("" : "+x"(sums[j]));                                                                \
    }
        FOR_EACH_CHAIN(STEP)
#undef STEP
    }
    return (uint64_t)REPEATS * INT8_CHAINS * sizeof a;
}

void avx2_fill_peak(struct kernels *kernels)
{
    kernels->int8_unit = "AVX2";
    kernels->int8_peak = int8_peak;
}
