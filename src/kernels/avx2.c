/* avx2.c: the table for CPUs with AVX2, FMA and F16C; rows_body.h for them. Owns nothing; any thread. */
#include "kernels/avx2.h"

#include "kernels/rows_body.h"

bool kernels_fill_avx2(struct kernels *kernels)
{
    if (!cpu_has_avx2())
        return false;
    kernels->name = "avx2";
    fill_rows(kernels);
    avx2_fill_matmul(kernels);
    avx2_fill_matmul_q5k(kernels);
    avx2_fill_matmul_32(kernels);
    avx2_fill_matmul_float(kernels);
    avx2_fill_attention(kernels);
    return true;
}
