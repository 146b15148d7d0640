/* dispatch.c: which kernels this machine can run, and which it shall.
 *
 * Owns the tables, filled once and then only read; any thread. An instruction set counts only if the
 * operating system saves its registers too (XCR0). */
#include "kernels/shared.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

enum { LEVELS = 3 };

static struct kernels tables[LEVELS];
static bool possible[LEVELS];
static pthread_once_t once = PTHREAD_ONCE_INIT;

static const char *const level_names[LEVELS] = {"ref", "avx2", "avx512"};

#if defined(__x86_64__)
#include <cpuid.h>

struct cpu_features {
    uint32_t leaf1_ecx, leaf7_ebx, leaf7_ecx, saved; /* saved: XCR0 */
};

static struct cpu_features cpu_features(void)
{
    struct cpu_features features = {0};
    uint32_t eax, ebx, ecx, edx;
    if (__get_cpuid(1, &eax, &ebx, &ecx, &edx))
        features.leaf1_ecx = ecx;
    if (__get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx)) {
        features.leaf7_ebx = ebx;
        features.leaf7_ecx = ecx;
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

bool cpu_has_avx512(void)
{
    const uint32_t leaf7 = 1u << 16 | 1u << 17 | 1u << 30 | 1u << 31; /* F, DQ, BW, VL */
    struct cpu_features features = cpu_features();
    return cpu_has_avx2() && (features.leaf7_ebx & leaf7) == leaf7 &&
           (features.leaf7_ecx & 1u << 11) /* VNNI */ && (features.saved & 0xe6) == 0xe6;
}
#else
bool cpu_has_avx2(void)
{
    return false;
}

bool cpu_has_avx512(void)
{
    return false;
}
#endif

static void fill_tables(void)
{
    static bool (*const fill[LEVELS])(struct kernels *) = {kernels_fill_ref, kernels_fill_avx2,
                                                           kernels_fill_avx512};
    for (int level = 0; level < LEVELS; level++) {
        if (level > 0)
            tables[level] = tables[level - 1];
        possible[level] = fill[level](&tables[level]);
        if (!possible[level])
            return;
    }
}

const struct kernels *kernels_get(char *message, size_t size)
{
    const char *asked = getenv("RUNNEL_CPU");
    int best = 0, found = -1;
    pthread_once(&once, fill_tables);
    while (best + 1 < LEVELS && possible[best + 1])
        best++;
    if (!asked || !*asked)
        return &tables[best];
    for (int level = 0; level <= best; level++)
        if (strcmp(asked, level_names[level]) == 0)
            found = level;
    if (found >= 0)
        return &tables[found];
    char names[64] = "";
    for (int level = 0, length = 0; level <= best; level++)
        length += snprintf(names + length, sizeof names - (size_t)length, "%s%s", level > 0 ? ", " : "",
                           level_names[level]);
    if (size > 0)
        snprintf(message, size, "RUNNEL_CPU is \"%.32s\", but this machine can do: %s", asked, names);
    return NULL;
}
