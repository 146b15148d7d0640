/* quantize.c: see quantize.h. Owns nothing; any thread. */
#include "kernels/quantize.h"

#include <float.h>
#include <math.h>
#include <string.h>

#include "kernels/ops.h"

/* Those of this machine; of a RUNNEL_CPU that it cannot do, whatever there is: the bits are the same. */
static const struct kernels *find_kernels(void)
{
    const struct kernels *asked = kernels_get(NULL, 0), *all;
    return asked ? asked : (kernels_possible(&all), all);
}

bool quantize_is_possible(enum tensor_type type)
{
    return type != TENSOR_MXFP4 && quant_find((uint32_t)type);
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

/* All types ----------------------------------------------------------------------------------------------- */

void quantize_encode(enum tensor_type type, const float *values, size_t n, const float *importance, void *out)
{
    if (type == TENSOR_F32)
        memcpy(out, values, n * sizeof *values);
    else if (type == TENSOR_F16)
        encode_f16(values, n, out);
    else if (type == TENSOR_BF16)
        encode_bf16(values, n, out);
    else
        find_kernels()->encode(type, values, n, importance, out);
}
