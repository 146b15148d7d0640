/* softmax.h: weights of tokens by their logits, exp((logit - max) / temperature), and their sums.
 *
 * Sums have one order, which a device can keep that has the logits, too. The vocabulary is cut into blocks of LOGIT_BLOCK
 * tokens. In a block, lane id % 16 = lane + weight in ascending id, from lanes of 0 (what a set lacks adds 0); then halves
 * onto halves: lane l += lane l + 8, then + 4, 2, 1. All that in floats, each product and sum rounded by itself. The sums of
 * blocks are added in ascending order, as doubles. So whoever gives the host the largest logit and the sum of each block
 * leaves it only the blocks to fetch that matter to a draw.
 *
 * Pure functions; any thread. */
#ifndef RUNNEL_ENGINE_SOFTMAX_H
#define RUNNEL_ENGINE_SOFTMAX_H

#include "kernels/ops.h"

struct softmax_scale {
    float max, inverse_temperature;
};

/* max: the largest logit, so that its weight is 1; temperature: above 0. */
struct softmax_scale softmax_scale_of(float max, float temperature);

/* The weights of n logits. A logit of -infinity has the weight 0, as has one so far below max that all of a vocabulary
 * together could not be drawn. */
void softmax_weigh(const float *logits, uint32_t n, struct softmax_scale scale, float *weights);

/* The sum of a block: weights[i] is that of its i-th token, 0 of one that does not count. */
float softmax_sum_block(const float weights[LOGIT_BLOCK]);

/* The sum of all weights of a vocabulary. */
double softmax_sum(const float *logits, uint32_t n_vocab, struct softmax_scale scale);

#endif
