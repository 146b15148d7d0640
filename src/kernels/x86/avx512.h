/* avx512.h: what avx512*.c give to each other and to levels.c. Private to src/kernels/x86. */
#ifndef RUNNEL_KERNELS_X86_AVX512_H
#define RUNNEL_KERNELS_X86_AVX512_H

#include "kernels/ops.h"

void avx512_fill(struct kernels *kernels); /* all of the following, and rows_body.h */

void avx512_fill_matmul(struct kernels *kernels); /* Q4_K, Q6_K */
void avx512_fill_matmul_q5k(struct kernels *kernels);
void avx512_fill_matmul_32(struct kernels *kernels);    /* blocks of 32 values */
void avx512_fill_matmul_float(struct kernels *kernels); /* all other types */
void avx512_fill_attention(struct kernels *kernels);
void avx512_fill_peak(struct kernels *kernels); /* int8_unit, int8_peak */

#endif
