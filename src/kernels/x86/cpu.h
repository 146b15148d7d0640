/* cpu.h: what this CPU can do. An instruction set counts only if the operating system saves its registers, too (XCR0).
 * Owns nothing; any thread. */
#ifndef RUNNEL_KERNELS_X86_CPU_H
#define RUNNEL_KERNELS_X86_CPU_H

#include <stdbool.h>
#include <stdint.h>

/* What CPUID says, and XCR0: the registers that the system saves. All 0 where the CPU has no such leaf. */
struct cpu_features {
    uint32_t leaf1_ecx, leaf7_ebx, leaf7_ecx, leaf7_edx, leaf7_1_eax, saved; /* leaf7_1: its page 1 */
};
struct cpu_features cpu_features(void);

bool cpu_has_avx2(void);    /* with FMA, F16C, BMI1 and BMI2 */
bool cpu_has_avxvnni(void); /* with all of cpu_has_avx2 */
bool cpu_has_avx512(void);  /* F, DQ, BW, VL and VNNI, with all of cpu_has_avx2 */

#endif
