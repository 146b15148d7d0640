/* dense_model.h: the model written down a second time, as plainly as can be: all weights decoded, all sums in
 * double, the whole context at once. What the engine computes is compared with it. */
#ifndef RUNNEL_TESTS_DENSE_MODEL_H
#define RUNNEL_TESTS_DENSE_MODEL_H

#include <stddef.h>
#include <stdint.h>

/* The logits after each of n ids: double [n][n_vocab], to be freed with free(); NULL and a message on stderr
 * if the file cannot be read. */
double *dense_model_logits(const char *path, const int32_t *ids, size_t n, size_t *n_vocab);

#endif
