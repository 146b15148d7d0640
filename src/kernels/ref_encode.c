/* ref_encode.c: the encoders of weights, compiled for every CPU. Owns nothing; any thread. */
#include "kernels/encode_body.h"

#include "kernels/levels.h"

void kernels_fill_ref_encode(struct kernels *kernels)
{
    kernels->encode = encode;
}
