/* avx2_attention.c: attention_body.h for AVX2, FMA and F16C. Owns nothing; any thread. */
#include "kernels/x86/avx2.h"

#define GROUP_ROWS    6
#define SCORE_VECTORS 1
#include "kernels/x86/attention_body.h"

void avx2_fill_attention(struct kernels *kernels)
{
    fill_attention(kernels);
}
