/* quantize.h: the way from f32 to the tensor types of GGUF files: quant_decode (quants.h) backwards.
 *
 * Rounding to F16, BF16 is to nearest, halves to even. Of the types with scales, each block gets those scales and codes for
 * which the sum of importance * (value - decoded value)^2 is smallest, as far as a search finds them. The result does not
 * depend on the thread, on the CPU's instruction set or on what is encoded beside it. Nothing is allocated; any thread. */
#ifndef RUNNEL_KERNELS_QUANTIZE_H
#define RUNNEL_KERNELS_QUANTIZE_H

#include "kernels/quants.h"

#include <stdbool.h>

/* Whether quantize_encode makes this type. */
bool quantize_is_possible(enum tensor_type type);

/* The first value that the type cannot hold: one that is not finite, or that is past the largest bf16, and
 * in all other types but F32 past the largest f16, 65504; n: all of them fit. */
size_t quantize_find_misfit(enum tensor_type type, const float *values, size_t n);

/* Encodes n values of a row (whole blocks; all fit, see quantize_find_misfit) into n / block_values * block_bytes bytes at
 * out. importance: for each of the n columns how much its error weighs, finite and not negative; NULL, or zero for a whole
 * block: not known. */
void quantize_encode(enum tensor_type type, const float *values, size_t n, const float *importance,
                     void *out);

#endif
