/* avx512_encode.c: the encoders of weights, compiled for AVX-512. Owns nothing; any thread. */
#include "kernels/encode_body.h"

#include "kernels/x86/avx512.h"

void avx512_fill_encode(struct kernels *kernels)
{
    kernels->encode = encode;
}
