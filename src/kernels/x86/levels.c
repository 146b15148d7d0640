/* levels.c: the instruction sets of x86 that have kernels here. Constant; any thread. */
#include "kernels/levels.h"
#include "kernels/x86/amx.h"
#include "kernels/x86/amx_permission.h"
#include "kernels/x86/avx2.h"
#include "kernels/x86/avx512.h"
#include "kernels/x86/avxvnni.h"
#include "kernels/x86/cpu.h"

const struct kernels_level kernels_machine_levels[KERNELS_LEVELS_MAX] = {
    {"avx2", cpu_has_avx2, avx2_fill, NULL},
    {"avxvnni", cpu_has_avxvnni, avxvnni_fill, NULL},
    {"avx512", cpu_has_avx512, avx512_fill, NULL},
    {"amx", amx_is_possible, amx_fill, amx_why_refused},
};
