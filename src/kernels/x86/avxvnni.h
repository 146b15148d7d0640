/* avxvnni.h: what avxvnni*.c give to each other and to levels.c. Private to src/kernels/x86. */
#ifndef RUNNEL_KERNELS_X86_AVXVNNI_H
#define RUNNEL_KERNELS_X86_AVXVNNI_H

#include "kernels/ops.h"

void avxvnni_fill(struct kernels *kernels); /* all of the following; the rest is AVX2's */

void avxvnni_fill_matmul(struct kernels *kernels); /* Q4_K, Q6_K */
void avxvnni_fill_matmul_q5k(struct kernels *kernels);
void avxvnni_fill_matmul_32(struct kernels *kernels); /* blocks of 32 values */
void avxvnni_fill_attention(struct kernels *kernels);
void avxvnni_fill_peak(struct kernels *kernels); /* int8_unit, int8_peak */

#endif
