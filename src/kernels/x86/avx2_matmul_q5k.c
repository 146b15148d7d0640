/* avx2_matmul_q5k.c: matmul_q5k_256.h for AVX2 without VNNI. Owns nothing; any thread. */
#include "kernels/x86/avx2.h"
#include "kernels/x86/avx2_dots.h"

#include "kernels/x86/matmul_q5k_256.h"

void avx2_fill_matmul_q5k(struct kernels *kernels)
{
    kernels->matmul[TILE_Q5_K] = matmul_q5_k;
}
