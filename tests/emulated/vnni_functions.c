/* vnni_functions.c: see vnni_functions.h. Compiled twice, each time with another vnni_instructions.h, and as VNNI_FUNCTIONS. */
#include "emulated/vnni_functions.h"

#include "kernels/x86/vnni_instructions.h"

static __m256i load(const void *p)
{
    return _mm256_loadu_si256(p);
}

static void dot_bytes(int32_t sums[8], const uint8_t w[32], const int8_t a[32])
{
    _mm256_storeu_si256((__m256i *)sums, vnni_dot_bytes(load(sums), load(w), load(a)));
}

static void dot_both(int32_t sums0[8], int32_t sums1[8], const uint8_t w[64], const int8_t a[4])
{
    __m256i sum0 = load(sums0), sum1 = load(sums1);
    vnni_dot_both(&sum0, &sum1, load(w), load(w + 32), a);
    _mm256_storeu_si256((__m256i *)sums0, sum0);
    _mm256_storeu_si256((__m256i *)sums1, sum1);
}

static void dot_pairs(int32_t sums[8], const int16_t a[16], const int16_t b[16])
{
    _mm256_storeu_si256((__m256i *)sums, vnni_dot_pairs(load(sums), load(a), load(b)));
}

const struct vnni_functions VNNI_FUNCTIONS = {dot_bytes, dot_both, dot_pairs};
