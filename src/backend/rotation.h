/* rotation.h: by which angles queries and keys are rotated at a position, for all back ends. A struct rotation owns nothing and
 * does not change once it is made; any thread. */
#ifndef RUNNEL_BACKEND_ROTATION_H
#define RUNNEL_BACKEND_ROTATION_H

#include "model/weights.h"

struct rotation {
    uint32_t n_pairs;          /* rotated pairs of values of a head */
    const double *frequencies; /* [n_pairs]: radians a position */
    double magnitude;          /* rotated values are multiplied with it */
};

/* Computes the frequencies of a model's layers that have this rope_config into the caller's table, double [n_rot / 2], which lives
 * longer than the rotation. */
struct rotation rotation_create(const struct weights *weights, const struct rope_config *rope,
                                double *frequencies);

/* The cosines and sines of a position, times the magnitude; f32 [n_pairs] each. */
void rotation_compute(const struct rotation *rotation, uint32_t position, float *cosine, float *sine);

#endif
