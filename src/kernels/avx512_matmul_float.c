/* avx512_matmul_float.c: matmul_float.h for AVX-512. Owns nothing; any thread. */
#include "kernels/avx512_vectors.h"

#include "kernels/matmul_float.h"

void avx512_fill_matmul_float(struct kernels *kernels)
{
    fill_matmul_float(kernels);
}
