/* avxvnni_matmul_q5k.c: matmul_q5k_256.h for AVX-VNNI. Owns nothing; any thread. */
#include "kernels/x86/avxvnni.h"
#include "kernels/x86/avxvnni_dots.h"

#include "kernels/x86/matmul_q5k_256.h"

void avxvnni_fill_matmul_q5k(struct kernels *kernels)
{
    kernels->matmul[TILE_Q5_K] = matmul_q5_k;
}
