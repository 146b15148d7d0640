/* quantize.c: see quantize.h. Owns nothing; any thread. */
#include "kernels/quantize.h"

#include <float.h>
#include <math.h>
#include <string.h>

bool quantize_is_possible(enum tensor_type type)
{
    switch (type) {
    case TENSOR_F32:
    case TENSOR_F16:
    case TENSOR_BF16:
    case TENSOR_Q8_0:
        return true;
    default:
        return false;
    }
}

size_t quantize_find_misfit(enum tensor_type type, const float *values, size_t n)
{
    float largest = type == TENSOR_F32 ? FLT_MAX : type == TENSOR_BF16 ? 0x1.fep127f : 65504.0f;
    size_t i = 0;
    while (i < n && fabsf(values[i]) <= largest) /* false for a NaN */
        i++;
    return i;
}

/* Types of single values ---------------------------------------------------------------------------------- */

static void encode_f16(const float *values, size_t n, uint8_t *out)
{
    for (size_t i = 0; i < n; i++) {
        uint16_t half = f32_to_f16(values[i]);
        memcpy(out + 2 * i, &half, sizeof half);
    }
}

static void encode_bf16(const float *values, size_t n, uint8_t *out)
{
    for (size_t i = 0; i < n; i++) {
        uint32_t bits;
        memcpy(&bits, &values[i], sizeof bits);
        uint16_t upper = (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
        memcpy(out + 2 * i, &upper, sizeof upper);
    }
}

/* Blocks of 32 -------------------------------------------------------------------------------------------- */

/* d f16, 32 int8: q d */
static void encode_q8_0(const float *values, uint8_t *block)
{
    float largest = 0;
    for (int i = 0; i < 32; i++)
        largest = fmaxf(largest, fabsf(values[i]));
    uint16_t half = f32_to_f16(largest / 127);
    float d = f16_to_f32(half);
    memcpy(block, &half, sizeof half);
    for (int i = 0; i < 32; i++) {
        float q = d > 0 ? rintf(values[i] / d) : 0;
        block[2 + i] = (uint8_t)(int8_t)fmaxf(-127, fminf(127, q));
    }
}

/* All types ----------------------------------------------------------------------------------------------- */

void quantize_encode(enum tensor_type type, const float *values, size_t n, const float *importance, void *out)
{
    (void)importance;
    switch (type) {
    case TENSOR_F32:
        memcpy(out, values, n * sizeof *values);
        break;
    case TENSOR_F16:
        encode_f16(values, n, out);
        break;
    case TENSOR_BF16:
        encode_bf16(values, n, out);
        break;
    case TENSOR_Q8_0:
        for (size_t i = 0; i < n / 32; i++)
            encode_q8_0(values + 32 * i, (uint8_t *)out + 34 * i);
        break;
    default:
        break;
    }
}
