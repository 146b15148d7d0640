/* avx2_matmul_32.c: matmul_32_256.h for AVX2 without VNNI. Owns nothing; any thread. */
#include "kernels/x86/avx2.h"
#include "kernels/x86/avx2_dots.h"

#include "kernels/x86/matmul_32_256.h"

void avx2_fill_matmul_32(struct kernels *kernels)
{
    kernels->matmul[TILE_32] = matmul_32;
}
