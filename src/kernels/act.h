/* act.h: activation rows as everyone above the kernels uses them: written by column, given to a product, never looked into.
 * How rows lie and what their blocks hold is for act.c and the kernels alone. Owns nothing; any thread. */
#ifndef RUNNEL_KERNELS_ACT_H
#define RUNNEL_KERNELS_ACT_H

#include "kernels/ops.h"

/* Bytes of n_rows activation rows of n_columns inputs. */
size_t act_bytes(enum act_kind kind, uint32_t n_rows, uint32_t n_columns);

/* Quantises x f32[n] into columns [begin, begin + n) of a row; begin is a multiple of ACT_BLOCK, and n too unless the row ends
 * there. */
void act_quantize(const struct kernels *kernels, enum act_kind kind, void *acts, uint32_t n_columns,
                  uint32_t row, uint32_t begin, const float *x, uint32_t n);

/* A product of a matrix with the first n_rows rows, each n_columns of the matrix wide, out [n_rows, its n_rows]; without bias and
 * not added. */
struct matmul_args act_product(const struct packed_matrix *matrix, const void *acts, uint32_t n_rows,
                               float *out);

#endif
