/* awq.h: scales that make a model's weights easier to quantise (AWQ: activation-aware weight quantization, arXiv 2306.00978).
 *
 * A column of a matrix is multiplied with one input. Where that input is large, the column's rounding errors weigh much. So
 * such columns are multiplied by a scale s > 1 before rounding, which makes their errors smaller in comparison, and the input is divided
 * by s where it is made: in the weights of the norm before, or in the rows of the matrix before. What the model computes is the
 * same, up to the rounding of f32, and no reader of the file needs to know.
 *
 *     inputs of                     are divided in
 *     attn_q, attn_k, attn_v        attn_norm
 *     attn_output                   the rows of attn_v and its bias; heads that share a KV head share scales
 *     ffn_gate, ffn_up              ffn_norm
 *     ffn_down                      the rows of ffn_up and its bias, which the activation multiplies without a bend
 *
 * s = m ^ alpha or (m / w) ^ alpha, m the root of the mean square of the input, w that of the weights of its column, divided by the
 * geometric mean of all s. The first is the paper's. The second has a reason, too: with the step of a block in proportion to the root
 * of the sum of its (s w)^2, the sum of (m / s)^2 times that step squared is least where s = (m / w)^0.5.
 * Of the alphas 0, 0.1 .. 1, then also 0.05 beside the best one, that is taken with which rounded weights are nearest: the sum over a sample
 * of rows of importance * (w - rounded w)^2. Where none makes that at least 2 % smaller, all stays as it is, bit for bit.
 *
 * A struct awq does not change once it is made; any thread. */
#ifndef RUNNEL_MODEL_AWQ_H
#define RUNNEL_MODEL_AWQ_H

#include "model/gguf.h"

struct awq;

struct awq_options {
    const struct gguf *from;
    /* For each tensor of the file: [dims[0]], the mean square of each input; NULL: not known, and what depends on it stays as
     * it is. */
    const float *const *importance;
    /* Makes of the values of a row what is left of them once they are encoded as that tensor will be, and decoded again.
     * importance: of its columns, as scaled. scratch: room for the row as f32. Called by all threads. */
    void (*round_row)(void *user, size_t tensor, const float *importance, float *values, void *scratch);
    /* So many of all places that may be scaled are done; false: stop (RUNNEL_ECANCELLED). The caller's thread. NULL: nobody
     * asks. */
    bool (*on_progress)(void *user, uint64_t done, uint64_t total);
    void *user;
    unsigned n_threads; /* 1 or more, the caller's one of them */
};

/* RUNNEL_EUNSUPPORTED for an architecture that is not known. Free with awq_free. */
int awq_search(const struct awq_options *options, struct awq **awq, runnel_error *error);
void awq_free(struct awq *awq); /* NULL is fine */

/* Whether anything of a tensor changes. */
bool awq_changes(const struct awq *awq, size_t tensor);
/* Folds the scales into a row (counted over all dimensions but the first) of a tensor. */
void awq_change_row(const struct awq *awq, size_t tensor, uint64_t row, float *values);
/* The mean squares of a tensor's inputs, as they are once the scales are folded in. */
void awq_change_importance(const struct awq *awq, size_t tensor, float *importance);

/* For people. */
struct awq_summary {
    size_t n_places, n_scaled; /* that may be scaled, and are */
    double error; /* of the samples of rows: the mean over the places of error with scales / error without */
};
void awq_get_summary(const struct awq *awq, struct awq_summary *summary);

#endif
