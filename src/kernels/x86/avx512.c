/* avx512.c: the table for CPUs with AVX-512 VNNI; rows_body.h for them. Owns nothing; any thread. */
#include "kernels/x86/avx512.h"

#include "kernels/x86/rows_body.h"

void avx512_fill(struct kernels *kernels)
{
    fill_rows(kernels);
    avx512_fill_matmul(kernels);
    avx512_fill_matmul_q5k(kernels);
    avx512_fill_matmul_q23k(kernels);
    avx512_fill_matmul_iq4xs(kernels);
    avx512_fill_matmul_32(kernels);
    avx512_fill_matmul_float(kernels);
    avx512_fill_attention(kernels);
    avx512_fill_encode(kernels);
    avx512_fill_peak(kernels);
}
