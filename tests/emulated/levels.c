/* levels.c: the instruction sets of x86, for tests: those that the machine may lack are always there, compiled against headers
 * that do without their instructions (kernels/x86/ beside this file). Each is possible where the CPU has what the rest of its
 * files is compiled for. It takes the place of src/kernels/x86/levels.c in programs that are linked with it. */
#include "emulated/levels.h"
#include "kernels/levels.h"
#include "kernels/x86/amx.h"
#include "kernels/x86/avx2.h"
#include "kernels/x86/avx512.h"
#include "kernels/x86/avxvnni.h"
#include "kernels/x86/cpu.h"

#include <stdlib.h>

static const char *why_amx_is_refused(void)
{
    return cpu_has_avx512() ? getenv(EMULATED_AMX_REFUSAL) : NULL;
}

static bool amx_is_permitted(void)
{
    return cpu_has_avx512() && !why_amx_is_refused();
}

const struct kernels_level kernels_machine_levels[KERNELS_LEVELS_MAX] = {
    {"avx2", cpu_has_avx2, avx2_fill, NULL},
    {"avxvnni", cpu_has_avx2, avxvnni_fill, NULL},
    {"avx512", cpu_has_avx512, avx512_fill, NULL},
    {"amx", amx_is_permitted, amx_fill, why_amx_is_refused},
};
