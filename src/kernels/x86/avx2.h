/* avx2.h: what avx2*.c give to each other and to levels.c. Private to src/kernels/x86. */
#ifndef RUNNEL_KERNELS_X86_AVX2_H
#define RUNNEL_KERNELS_X86_AVX2_H

#include "kernels/ops.h"

void avx2_fill(struct kernels *kernels); /* all of the following, and rows_body.h */

void avx2_fill_matmul(struct kernels *kernels); /* Q4_K, Q6_K */
void avx2_fill_matmul_q5k(struct kernels *kernels);
void avx2_fill_matmul_q23k(struct kernels *kernels); /* Q2_K, Q3_K */
void avx2_fill_matmul_iq4xs(struct kernels *kernels);
void avx2_fill_matmul_32(struct kernels *kernels);    /* blocks of 32 values */
void avx2_fill_matmul_float(struct kernels *kernels); /* F32, F16, BF16 */
void avx2_fill_attention(struct kernels *kernels);
void avx2_fill_encode(struct kernels *kernels);
void avx2_fill_peak(struct kernels *kernels); /* int8_unit, int8_peak */

#endif
