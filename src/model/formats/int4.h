/* int4.h: weights of four bits from AWQ and GPTQ checkpoints, to the blocks of Q4_0 and Q4_1.
 *
 * A weight is (q - zero) scale; groups of input columns share zero and scale, for each output. In both formats one int32 holds
 * eight q, of bits 4i to 4i + 3 each:
 *
 *     AWQ (gemm)  qweight [n_columns, n_rows / 8]: outputs in the order 0 2 4 6 1 3 5 7
 *     GPTQ        qweight [n_columns / 8, n_rows]: inputs in ascending order
 *     both        qzeros [n_groups, n_rows / 8], packed as the outputs of AWQ; GPTQ's in ascending order, and one lower in old files
 *                 scales [n_groups, n_rows]
 *
 * where a row is an output and a column an input, as everywhere else here. A Q4_1 block has q, d = scale and m = -zero scale, a
 * Q4_0 block the same where all zeros are 8: nothing is lost but what d and m lose in f16.
 *
 * One thread. */
#ifndef RUNNEL_MODEL_FORMATS_INT4_H
#define RUNNEL_MODEL_FORMATS_INT4_H

#include "kernels/quants.h"
#include "model/formats/checkpoint.h"
#include "model/formats/hf_config.h"

struct int4_tensor {
    struct checkpoint_tensor *qweight, *qzeros, *scales; /* NULL: the tensor is not quantised */
    struct checkpoint_tensor *g_idx;                     /* GPTQ: the group of each column; NULL: in order */
    enum hf_quant_method method;
    uint32_t zero_excess; /* what is added to a stored zero */
    uint32_t n_rows, n_columns, group;
    enum tensor_type type; /* Q4_0 or Q4_1 */
};

/* The parts of the tensor called BASE.weight, if the checkpoint has it quantised: *is_there, and the parts are marked as
 * taken. Checked: that they fit each other, that the groups are in order, that the scales fit f16. */
int int4_find(const struct checkpoint *checkpoint, const struct hf_config *config, const char *base,
              uint32_t n_rows, uint32_t n_columns, struct int4_tensor *tensor, bool *is_there,
              runnel_error *error);

/* Its values in memory, until they are freed. */
struct int4_values {
    struct int4_tensor tensor;
    uint32_t *codes; /* qweight */
    float *scales;   /* [n_groups, n_rows] */
    uint8_t *zeros;  /* [n_groups, n_rows] */
};
int int4_load(const struct int4_tensor *tensor, struct int4_values *values, runnel_error *error);
void int4_free(struct int4_values *values);

/* Writes the blocks of one row. */
void int4_encode_row(const struct int4_values *values, uint32_t row, void *out);

#endif
