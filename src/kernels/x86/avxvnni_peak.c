/* avxvnni_peak.c: how fast AVX-VNNI multiplies bytes, for probe.c. Owns nothing; any thread. */
#include "kernels/x86/avxvnni.h"
#include "kernels/x86/int8_peak.h"
#include "kernels/x86/vnni_instructions.h"

enum { REPEATS = 300000 };

static uint64_t int8_peak(void)
{
    __m256i sums[INT8_CHAINS], a = _mm256_set1_epi8(1), b = _mm256_set1_epi8(1);
#define START(j) sums[j] = _mm256_setzero_si256();
    FOR_EACH_CHAIN(START)
#undef START
    for (int i = 0; i < REPEATS; i++) {
        /* The empty assembly keeps the compiler from leaving a step out. */
#define STEP(j)                                                                                              \
    sums[j] = vnni_dot_bytes(sums[j], a, b);                                                                 \
    __asm__ volatile("" : "+x"(sums[j]));
        FOR_EACH_CHAIN(STEP)
#undef STEP
    }
    return (uint64_t)REPEATS * INT8_CHAINS * sizeof a;
}

void avxvnni_fill_peak(struct kernels *kernels)
{
    kernels->int8_unit = "AVX-VNNI";
    kernels->int8_peak = int8_peak;
}
