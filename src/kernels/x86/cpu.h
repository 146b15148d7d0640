/* cpu.h: what this CPU can do. An instruction set counts only if the operating system saves its registers, too (XCR0).
 * Owns nothing; any thread. */
#ifndef RUNNEL_KERNELS_X86_CPU_H
#define RUNNEL_KERNELS_X86_CPU_H

#include <stdbool.h>

bool cpu_has_avx2(void);    /* with FMA, F16C, BMI1 and BMI2 */
bool cpu_has_avxvnni(void); /* with all of cpu_has_avx2 */
bool cpu_has_avx512(void);  /* F, DQ, BW, VL and VNNI, with all of cpu_has_avx2 */

#endif
