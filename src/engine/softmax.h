/* softmax.h: weights of tokens by their logits, exp((logit - max) / temperature), and their sums.
 *
 * Pure functions; any thread. */
#ifndef RUNNEL_ENGINE_SOFTMAX_H
#define RUNNEL_ENGINE_SOFTMAX_H

#include <stdint.h>

struct softmax_scale {
    float max, inverse_temperature;
};

/* max: the largest logit, so that its weight is 1; temperature: above 0. */
struct softmax_scale softmax_scale_of(float max, float temperature);

/* The weights of n logits. A logit of -infinity has the weight 0, as has one so far below max that all of a vocabulary
 * together could not be drawn. */
void softmax_weigh(const float *logits, uint32_t n, struct softmax_scale scale, float *weights);

/* The sum of all weights of a vocabulary. */
double softmax_sum(const float *logits, uint32_t n_vocab, struct softmax_scale scale);

#endif
