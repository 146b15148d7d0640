/* avx512_matmul_float.c: matmul_float.h for AVX-512. Owns nothing; any thread. */
#include "kernels/x86/avx512_vectors.h"

#include "kernels/x86/matmul_float.h"

void avx512_fill_matmul_float(struct kernels *kernels)
{
    fill_matmul_float(kernels);
}
