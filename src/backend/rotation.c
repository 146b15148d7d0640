/* rotation.c: from what a model's file says of rotation to angles (see rotation.h).
 *
 * Pair i of n_rot / 2 turns by base^(-2i / n_rot) radians a position, divided by its factor where the file has a tensor of them.
 * A context that is stretched by a factor f divides that by f: linear scaling for all pairs, YaRN (arXiv 2309.00071, 3.2 and
 * 3.4) for those that turn slowly, and by parts of it for those in between; it also multiplies what it rotates with
 * 1 + ln(f) / 10. */
#include "backend/rotation.h"

#include <math.h>

/* The pair, as a number that need not be whole, that turns so many times over the original context. */
static double pair_of_turns(const struct model_config *config, const struct rope_config *rope, double n_turns)
{
    return config->n_rot * log(rope->n_context_original / (n_turns * 2 * M_PI)) /
           (2 * log((double)rope->base));
}

/* How much of its own frequency pair i keeps with YaRN: 1 all of it, 0 none, and it is stretched. */
static double kept_share(const struct model_config *config, const struct rope_config *rope, uint32_t i)
{
    double first = fmax(floor(pair_of_turns(config, rope, rope->beta_fast)), 0);
    double last = fmin(ceil(pair_of_turns(config, rope, rope->beta_slow)), config->n_rot - 1);
    double way = (i - first) / fmax(last - first, 0.001);
    return 1 - fmin(fmax(way, 0), 1);
}

struct rotation rotation_create(const struct weights *weights, const struct rope_config *rope,
                                double *frequencies)
{
    const struct model_config *config = &weights->config;
    uint32_t n_pairs = config->n_rot / 2;
    double factor = (double)rope->factor, magnitude = (double)rope->attention_factor;
    for (uint32_t i = 0; i < n_pairs; i++) {
        double kept = rope->scaling == ROPE_SCALING_YARN ? kept_share(config, rope, i) : 0;
        frequencies[i] = pow((double)rope->base, -2.0 * i / config->n_rot);
        if (weights->rope_factors)
            frequencies[i] /= (double)weights->rope_factors[i];
        frequencies[i] = frequencies[i] * kept + frequencies[i] / factor * (1 - kept);
    }
    if (rope->scaling == ROPE_SCALING_YARN && factor > 1)
        magnitude *= 1 + 0.1 * log(factor);
    return (struct rotation){.n_pairs = n_pairs, .frequencies = frequencies, .magnitude = magnitude};
}

void rotation_compute(const struct rotation *rotation, uint32_t position, float *cosine, float *sine)
{
    for (uint32_t i = 0; i < rotation->n_pairs; i++) {
        double angle = position * rotation->frequencies[i];
        cosine[i] = (float)(cos(angle) * rotation->magnitude);
        sine[i] = (float)(sin(angle) * rotation->magnitude);
    }
}
