/* avx512_peak.c: how fast AVX-512 VNNI multiplies bytes, for probe.c. Owns nothing; any thread. */
#include "kernels/x86/avx512.h"
#include "kernels/x86/int8_peak.h"

#include <immintrin.h>

enum { REPEATS = 300000 };

static uint64_t int8_peak(void)
{
    __m512i sums[INT8_CHAINS], a = _mm512_set1_epi8(1), b = _mm512_set1_epi8(1);
#define START(j) sums[j] = _mm512_setzero_si512();
    FOR_EACH_CHAIN(START)
#undef START
    for (int i = 0; i < REPEATS; i++) {
        /* The empty assembly keeps the compiler from leaving a step out. */
#define STEP(j)                                                                                              \
    sums[j] = _mm512_dpbusd_epi32(sums[j], a, b);                                                            \
    __asm__ volatile("" : "+v"(sums[j]));
        FOR_EACH_CHAIN(STEP)
#undef STEP
    }
    return (uint64_t)REPEATS * INT8_CHAINS * sizeof a;
}

void avx512_fill_peak(struct kernels *kernels)
{
    kernels->int8_unit = "AVX-512 VNNI";
    kernels->int8_peak = int8_peak;
}
