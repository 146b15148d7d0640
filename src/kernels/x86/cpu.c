/* cpu.c: asks the CPU what it can do (see cpu.h). */
#include "kernels/x86/cpu.h"

#include <cpuid.h>

struct cpu_features cpu_features(void)
{
    struct cpu_features features = {0};
    uint32_t eax, ebx, ecx, edx;
    if (__get_cpuid(1, &eax, &ebx, &ecx, &edx))
        features.leaf1_ecx = ecx;
    if (__get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx)) {
        features.leaf7_ebx = ebx;
        features.leaf7_ecx = ecx;
        features.leaf7_edx = edx;
        if (eax >= 1 && __get_cpuid_count(7, 1, &eax, &ebx, &ecx, &edx)) /* the last page of leaf 7 */
            features.leaf7_1_eax = eax;
    }
    if (features.leaf1_ecx & 1u << 27) { /* OSXSAVE: xgetbv may be used */
        uint32_t low, high;
        __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
        features.saved = low;
    }
    return features;
}

bool cpu_has_avx2(void)
{
    const uint32_t leaf1 = 1u << 12 | 1u << 28 | 1u << 29; /* FMA, AVX, F16C */
    const uint32_t leaf7 = 1u << 3 | 1u << 5 | 1u << 8;    /* BMI1, AVX2, BMI2 */
    struct cpu_features features = cpu_features();
    return (features.leaf1_ecx & leaf1) == leaf1 && (features.leaf7_ebx & leaf7) == leaf7 &&
           (features.saved & 0x06) == 0x06;
}

bool cpu_has_avxvnni(void)
{
    return cpu_has_avx2() && cpu_features().leaf7_1_eax & 1u << 4;
}

bool cpu_has_avx512(void)
{
    const uint32_t leaf7 = 1u << 16 | 1u << 17 | 1u << 30 | 1u << 31; /* F, DQ, BW, VL */
    struct cpu_features features = cpu_features();
    return cpu_has_avx2() && (features.leaf7_ebx & leaf7) == leaf7 &&
           (features.leaf7_ecx & 1u << 11) /* VNNI */ && (features.saved & 0xe6) == 0xe6;
}
