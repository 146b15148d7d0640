/* avx512.c: the table for CPUs with AVX-512 VNNI, and its smaller functions. Owns nothing; any thread. */
#include "kernels/avx512.h"

bool kernels_fill_avx512(struct kernels *kernels)
{
    if (!cpu_has_avx512())
        return false;
    kernels->name = "avx512";
    avx512_fill_matmul(kernels);
    return true;
}
