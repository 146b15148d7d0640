/* avx2.h: what avx2_matmul.c and avx2_attention.c give to avx2.c. Private to them. */
#ifndef RUNNEL_KERNELS_AVX2_H
#define RUNNEL_KERNELS_AVX2_H

#include "kernels/ops.h"

void avx2_fill_matmul(struct kernels *kernels);
void avx2_fill_attention(struct kernels *kernels);

#endif
