/* avx2_encode.c: the encoders of weights, compiled for AVX2. Owns nothing; any thread. */
#include "kernels/encode_body.h"

#include "kernels/x86/avx2.h"

void avx2_fill_encode(struct kernels *kernels)
{
    kernels->encode = encode;
}
