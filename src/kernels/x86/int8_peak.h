/* int8_peak.h: how fast a unit multiplies bytes, for probe.c: the body of avx2_peak.c, avxvnni_peak.c and avx512_peak.c, which
 * define before including it
 *     peak_vector                a vector, and
 *     peak_step(sum, a, b)       sum + the products of a's unsigned and b's signed bytes, by the instructions of the unit.
 * Owns nothing; any thread. */
#include <stdint.h>
#include <string.h>

enum {
    CHAINS = 12, /* independent sums: enough to hide any latency */
    REPEATS = 150000,
};

/* Written out, because sums in an indexed array would live in memory. */
#define FOR_EACH_CHAIN(DO) DO(0) DO(1) DO(2) DO(3) DO(4) DO(5) DO(6) DO(7) DO(8) DO(9) DO(10) DO(11)

static uint64_t int8_peak(void)
{
    peak_vector sums[CHAINS], ones;
    memset(&ones, 1, sizeof ones);
#define START(j) sums[j] = ones;
    FOR_EACH_CHAIN(START)
#undef START
    for (int i = 0; i < REPEATS; i++) {
        /* The empty assembly keeps the compiler from leaving a step out. */
#define STEP(j)                                                                                              \
    sums[j] = peak_step(sums[j], ones, ones);                                                                \
    __asm__ volatile("" : "+x"(sums[j]));
        FOR_EACH_CHAIN(STEP)
#undef STEP
    }
    return (uint64_t)REPEATS * CHAINS * sizeof ones;
}
