/* random_matrix.h: packed matrices of random blocks, with extreme ones among them, for the tests of whoever multiplies. */
#ifndef TESTS_HELPERS_RANDOM_MATRIX_H
#define TESTS_HELPERS_RANDOM_MATRIX_H

#include "helpers/kernel_check.h"

static const enum tensor_type all_types[] = {
    TENSOR_F32,  TENSOR_F16,    TENSOR_Q4_0,   TENSOR_Q4_1,  TENSOR_Q5_0, TENSOR_Q5_1,
    TENSOR_Q8_0, TENSOR_Q2_K,   TENSOR_Q3_K,   TENSOR_Q4_K,  TENSOR_Q5_K, TENSOR_Q6_K,
    TENSOR_BF16, TENSOR_IQ4_NL, TENSOR_IQ4_XS, TENSOR_MXFP4,
};
enum { N_TYPES = sizeof all_types / sizeof *all_types };

enum fill {
    FILL_RANDOM,
    FILL_ONES,
    FILL_LOWEST,
    FILL_ZERO_SCALES,
    FILL_TINY_SCALES,
    FILL_HUGE_SCALES,
    FILLS
};

struct matrix {
    struct packed_matrix packed;
    uint8_t *file; /* rows as in a file */
    size_t row_bytes;
};

struct matrix make_matrix(enum tensor_type type, uint32_t n_rows, uint32_t n_columns, enum fill fill);
void free_matrix(struct matrix *m);

#endif
