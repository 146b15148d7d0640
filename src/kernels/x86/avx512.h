/* avx512.h: what avx512*.c give to each other, to amx*.c and to levels.c. Private to src/kernels/x86. */
#ifndef RUNNEL_KERNELS_X86_AVX512_H
#define RUNNEL_KERNELS_X86_AVX512_H

#include "kernels/ops.h"

void avx512_fill(struct kernels *kernels); /* all of the following, and rows_body.h */

void avx512_fill_matmul(struct kernels *kernels); /* Q4_K, Q6_K */
void avx512_fill_matmul_q5k(struct kernels *kernels);
void avx512_fill_matmul_q23k(struct kernels *kernels); /* Q2_K, Q3_K */
void avx512_fill_matmul_iq4xs(struct kernels *kernels);
void avx512_fill_matmul_32(struct kernels *kernels);    /* blocks of 32 values */
void avx512_fill_matmul_float(struct kernels *kernels); /* F32, F16, BF16 */
void avx512_fill_attention(struct kernels *kernels);
void avx512_fill_encode(struct kernels *kernels);
void avx512_fill_peak(struct kernels *kernels); /* int8_unit, int8_peak */

/* Products of these, for the level above where it has few rows. */
void avx512_matmul_q4_k(const struct matmul_args *args, uint32_t tile_begin, uint32_t tile_end);
void avx512_matmul_q6_k(const struct matmul_args *args, uint32_t tile_begin, uint32_t tile_end);
void avx512_matmul_q5_k(const struct matmul_args *args, uint32_t tile_begin, uint32_t tile_end);
void avx512_matmul_32(const struct matmul_args *args, uint32_t tile_begin, uint32_t tile_end);

#endif
