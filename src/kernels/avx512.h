/* avx512.h: what avx512_matmul.c and avx512_attention.c give to avx512.c. Private to them. */
#ifndef RUNNEL_KERNELS_AVX512_H
#define RUNNEL_KERNELS_AVX512_H

#include "kernels/ops.h"

void avx512_fill_matmul(struct kernels *kernels);
void avx512_fill_attention(struct kernels *kernels);

#endif
