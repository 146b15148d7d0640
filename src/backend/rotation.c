/* rotation.c: from what a model's file says of rotation to angles (see rotation.h). */
#include "backend/rotation.h"

#include <math.h>

struct rotation rotation_create(const struct weights *weights, double *frequencies)
{
    const struct model_config *config = &weights->config;
    uint32_t n_pairs = config->n_rot / 2;
    for (uint32_t i = 0; i < n_pairs; i++)
        frequencies[i] = pow((double)config->rope_base, -2.0 * i / config->n_rot);
    return (struct rotation){.n_pairs = n_pairs, .frequencies = frequencies};
}

void rotation_compute(const struct rotation *rotation, uint32_t position, float *cosine, float *sine)
{
    for (uint32_t i = 0; i < rotation->n_pairs; i++) {
        double angle = position * rotation->frequencies[i];
        cosine[i] = (float)cos(angle);
        sine[i] = (float)sin(angle);
    }
}
