/* avx512_attention.c: attention_body.h for AVX-512 VNNI. Owns nothing; any thread. */
#include "kernels/x86/avx512.h"

#define GROUP_ROWS    12
#define SCORE_VECTORS 2
#include "kernels/x86/attention_body.h"

void avx512_fill_attention(struct kernels *kernels)
{
    fill_attention(kernels);
}
