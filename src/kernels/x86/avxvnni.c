/* avxvnni.c: the table for CPUs with AVX-VNNI, the dot products of AVX-512 in 256 bits. What has no dot product of whole
 * numbers stays as AVX2 has it. Owns nothing; any thread. */
#include "kernels/x86/avxvnni.h"

void avxvnni_fill(struct kernels *kernels)
{
    avxvnni_fill_matmul(kernels);
    avxvnni_fill_matmul_q5k(kernels);
    avxvnni_fill_matmul_32(kernels);
    avxvnni_fill_attention(kernels);
    avxvnni_fill_peak(kernels);
}
