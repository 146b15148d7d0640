/* matmul_32_body.h: which functions multiply which type of TILE_32. Included by matmul_32_256.h and avx512_matmul_32.c after
 * their ROWS_FUNCTIONS q8_0, q4_0, q4_1, q5_0, q5_1, iq4_nl and mxfp4. */
#include "kernels/x86/matmul_body.h"

static rows_function *const *functions_of(enum tensor_type type)
{
    switch (type) {
    case TENSOR_Q4_0:
        return q4_0;
    case TENSOR_Q4_1:
        return q4_1;
    case TENSOR_Q5_0:
        return q5_0;
    case TENSOR_Q5_1:
        return q5_1;
    case TENSOR_IQ4_NL:
        return iq4_nl;
    case TENSOR_MXFP4:
        return mxfp4;
    default:
        return q8_0;
    }
}

MATMUL_ENTRY(matmul_32, PAIR_VALUES, functions_of(args->w->type))
