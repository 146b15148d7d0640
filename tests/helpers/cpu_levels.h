/* cpu_levels.h: the instruction sets of the kernels, and which of them the CPU lacks. */
#ifndef TESTS_HELPERS_CPU_LEVELS_H
#define TESTS_HELPERS_CPU_LEVELS_H

#include "kernels/ops.h"

#include <string.h>

static const char *const cpu_levels[] = {"ref", "avx2", "avxvnni", "avx512", "amx"};
enum { N_CPU_LEVELS = sizeof cpu_levels / sizeof *cpu_levels };

/* By the compiler's own functions as far as they know it: a level that our detection loses is a failure then, not a skip. */
static inline bool cpu_lacks_level(const char *name)
{
#if defined(__x86_64__)
    if (!strcmp(name, "avx2"))
        return !__builtin_cpu_supports("avx2");
    if (!strcmp(name, "avx512"))
        return !__builtin_cpu_supports("avx512vnni");
#endif
    const struct kernels *all;
    size_t n = kernels_possible(&all);
    for (size_t i = 0; i < n; i++)
        if (!strcmp(all[i].name, name))
            return false;
    return true;
}

#endif
