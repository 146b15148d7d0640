/* avx2.c: the table for CPUs with AVX2, FMA and F16C; rows_body.h for them. Owns nothing; any thread. */
#include "kernels/x86/avx2.h"

#include "kernels/x86/rows_body.h"

void avx2_fill(struct kernels *kernels)
{
    fill_rows(kernels);
    avx2_fill_matmul(kernels);
    avx2_fill_matmul_q5k(kernels);
    avx2_fill_matmul_q23k(kernels);
    avx2_fill_matmul_iq4xs(kernels);
    avx2_fill_matmul_32(kernels);
    avx2_fill_matmul_float(kernels);
    avx2_fill_attention(kernels);
    avx2_fill_encode(kernels);
    avx2_fill_peak(kernels);
}
