/* amx.h: what amx*.c give to each other and to levels.c. Private to src/kernels/x86. */
#ifndef RUNNEL_KERNELS_X86_AMX_H
#define RUNNEL_KERNELS_X86_AMX_H

#include "kernels/ops.h"

void amx_fill(struct kernels *kernels); /* all of the following, in a table of AVX-512's */

void amx_fill_matmul(struct kernels *kernels);    /* Q4_K, Q5_K, Q6_K */
void amx_fill_matmul_32(struct kernels *kernels); /* blocks of 32 values */

#endif
