/* avxvnni_peak.c: how fast AVX-VNNI multiplies bytes, for probe.c. Owns nothing; any thread. */
#include "kernels/x86/avxvnni.h"
#include "kernels/x86/vnni_instructions.h"

typedef __m256i peak_vector;

static inline __attribute__((always_inline)) peak_vector peak_step(peak_vector sum, peak_vector a,
                                                                   peak_vector b)
{
    return vnni_dot_bytes(sum, a, b);
}

#include "kernels/x86/int8_peak.h"

void avxvnni_fill_peak(struct kernels *kernels)
{
    kernels->int8_unit = "AVX-VNNI";
    kernels->int8_peak = int8_peak;
}
