/* avx512.c: the table for CPUs with AVX-512 VNNI; rows_body.h for them. Owns nothing; any thread. */
#include "kernels/avx512.h"

#include "kernels/rows_body.h"

bool kernels_fill_avx512(struct kernels *kernels)
{
    if (!cpu_has_avx512())
        return false;
    kernels->name = "avx512";
    fill_rows(kernels);
    avx512_fill_matmul(kernels);
    avx512_fill_matmul_q5k(kernels);
    avx512_fill_matmul_32(kernels);
    avx512_fill_matmul_float(kernels);
    avx512_fill_attention(kernels);
    return true;
}
