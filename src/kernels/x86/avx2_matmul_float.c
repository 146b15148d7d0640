/* avx2_matmul_float.c: matmul_float.h for AVX2. Owns nothing; any thread. */
#include "kernels/x86/avx2.h"
#include "kernels/x86/avx2_dots.h"
#include "kernels/x86/matmul_256.h"

#include "kernels/x86/matmul_float.h"

void avx2_fill_matmul_float(struct kernels *kernels)
{
    fill_matmul_float(kernels);
}
