/* avxvnni_attention.c: attention_body.h for AVX-VNNI. Owns nothing; any thread. */
#include "kernels/x86/avxvnni.h"
#include "kernels/x86/avxvnni_dots.h"

#define GROUP_ROWS    6
#define SCORE_VECTORS 1
#include "kernels/x86/attention_body.h"

void avxvnni_fill_attention(struct kernels *kernels)
{
    fill_attention(kernels);
}
