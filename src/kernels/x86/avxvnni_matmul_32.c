/* avxvnni_matmul_32.c: matmul_32_256.h for AVX-VNNI. Owns nothing; any thread. */
#include "kernels/x86/avxvnni.h"
#include "kernels/x86/avxvnni_dots.h"

#include "kernels/x86/matmul_32_256.h"

void avxvnni_fill_matmul_32(struct kernels *kernels)
{
    kernels->matmul[TILE_32] = matmul_32;
}
