/* levels.c: the instruction sets of x86, for tests: those that the machine may lack are always there, compiled against headers
 * that do without their instructions (kernels/x86/ beside this file). It takes the place of src/kernels/x86/levels.c in
 * programs that are linked with it. */
#include "kernels/levels.h"
#include "kernels/x86/avx2.h"
#include "kernels/x86/avx512.h"
#include "kernels/x86/avxvnni.h"
#include "kernels/x86/cpu.h"

const struct kernels_level kernels_machine_levels[KERNELS_LEVELS_MAX] = {
    {"avx2", cpu_has_avx2, avx2_fill, NULL},
    {"avxvnni", cpu_has_avx2, avxvnni_fill, NULL}, /* emulated with AVX2 */
    {"avx512", cpu_has_avx512, avx512_fill, NULL},
};
