/* avx512_peak.c: how fast AVX-512 VNNI multiplies bytes, for probe.c. Owns nothing; any thread. */
#include "kernels/x86/avx512.h"

#include <immintrin.h>

typedef __m512i peak_vector;

static inline __attribute__((always_inline)) peak_vector peak_step(peak_vector sum, peak_vector a,
                                                                   peak_vector b)
{
    return _mm512_dpbusd_epi32(sum, a, b);
}

#include "kernels/x86/int8_peak.h"

void avx512_fill_peak(struct kernels *kernels)
{
    kernels->int8_unit = "AVX-512 VNNI";
    kernels->int8_peak = int8_peak;
}
