/* quants.h: the tensor types of GGUF files: their names, block shapes, and exact decoding to f32.
 *
 * The numbers are those of the file format (ggml). Decoding is the reference that packing and kernels are
 * tested against. Owns nothing; any thread. Source of the block formats: the GGUF specification and ggml's
 * public type list. */
#ifndef RUNNEL_KERNELS_QUANTS_H
#define RUNNEL_KERNELS_QUANTS_H

#include <stddef.h>
#include <stdint.h>

enum tensor_type {
    TENSOR_F32 = 0,
    TENSOR_F16 = 1,
    TENSOR_Q4_0 = 2,
    TENSOR_Q4_1 = 3,
    TENSOR_Q5_0 = 6,
    TENSOR_Q5_1 = 7,
    TENSOR_Q8_0 = 8,
    TENSOR_Q2_K = 10,
    TENSOR_Q3_K = 11,
    TENSOR_Q4_K = 12,
    TENSOR_Q5_K = 13,
    TENSOR_Q6_K = 14,
    TENSOR_IQ4_NL = 20,
    TENSOR_IQ4_XS = 23,
    TENSOR_BF16 = 30,
    TENSOR_MXFP4 = 39,
};

struct quant_info {
    enum tensor_type type;
    const char *name;      /* "Q4_K" */
    uint32_t block_values; /* values a block: 1, 32 or 256 */
    uint32_t block_bytes;
};

/* NULL if type is not one of the above. */
const struct quant_info *quant_find(uint32_t type);

/* "F32, F16, ...": all known names, for error messages. Static text. */
const char *quant_known_names(void);

/* Decodes n values (a multiple of block_values) that start at data to f32. */
void quant_decode(enum tensor_type type, const void *data, size_t n, float *out);

/* What the 16 nibbles of IQ4_NL, IQ4_XS and MXFP4 stand for; of MXFP4 twice that, as its scales are half as large. NULL:
 * another type. Constant. */
const int8_t *quant_codebook(enum tensor_type type);

/* A scale of MXFP4, a byte that is the exponent: 2^(exponent - 128), half of what the format says, see quant_codebook. */
float e8m0_half_to_f32(uint8_t exponent);

float f16_to_f32(uint16_t half);
uint16_t f32_to_f16(float value); /* round to nearest even; overflow to infinity */
float bf16_to_f32(uint16_t value);

#endif
