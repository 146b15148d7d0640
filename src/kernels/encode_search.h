/* encode_search.h: the search for scales and codes that encode_body.h puts together for each type.
 *
 * A group is 16 sub-blocks of the same size, one a lane. A code q stands for step * q + base, where q is a whole number
 * between two bounds, or one of the values of a codebook. What is minimised is the sum of weight * (x - decoded x)^2.
 * Compiled for each instruction set; private to src/kernels. */
#ifndef RUNNEL_KERNELS_ENCODE_SEARCH_H
#define RUNNEL_KERNELS_ENCODE_SEARCH_H

#include "kernels/encode_lanes.h"

#include <math.h>
#include <stdbool.h>

enum { GROUP_MAX = 32 }; /* values a sub-block */

struct group {
    lanes x[GROUP_MAX], w[GROUP_MAX];
};

/* A codebook of 16 ascending values, for looking up: between -128 and 128 in buckets so narrow that at most one border between
 * two values, where the other one becomes the nearer, lies in each. */
enum { BUCKETS = 32, BUCKET_WIDTH = 8 };
struct codebook {
    float border[BUCKETS];      /* that lies in the bucket, or infinity */
    float below[BUCKETS];       /* the value that is nearest before it */
    float step[BUCKETS];        /* ... and what is added to it from the border on */
    float index_below[BUCKETS]; /* the number of the value before it */
};

static void codebook_fill(const int8_t values[16], struct codebook *book)
{
    int k = 0; /* the value that is nearest where the bucket begins */
    for (int bucket = 0; bucket < BUCKETS; bucket++) {
        float end = (float)((bucket + 1) * BUCKET_WIDTH - 128);
        float border = k < 15 ? (float)(values[k] + values[k + 1]) * 0.5f : INFINITY;
        bool has = border < end;
        book->border[bucket] = has ? border : INFINITY;
        book->below[bucket] = values[k];
        book->step[bucket] = has ? (float)(values[k + 1] - values[k]) : 0;
        book->index_below[bucket] = (float)k;
        k += has;
    }
}

/* What codes there are. Given as a constant to inlined functions, so that each type gets a search of its own. */
struct code_range {
    float low, high;             /* whole numbers from low to high; of a codebook its ends */
    const struct codebook *book; /* NULL: all whole numbers */
};

LANES_INLINE lanes_mask find_bucket(const struct code_range range, lanes t)
{
    lanes inside = lanes_between(lanes_of(range.low), t, lanes_of(range.high));
    return __builtin_convertvector((inside + 128) * (1.0f / BUCKET_WIDTH), lanes_mask);
}

/* The code nearest to a value that is divided by the step already. */
LANES_INLINE lanes code_nearest(const struct code_range range, lanes t)
{
    if (!range.book)
        return lanes_between(lanes_of(range.low), lanes_nearest(t), lanes_of(range.high));
    lanes_mask bucket = find_bucket(range, t);
    lanes_mask past = t >= lanes_look_up(range.book->border, bucket);
    return lanes_look_up(range.book->below, bucket) +
           (lanes)((lanes_mask)lanes_look_up(range.book->step, bucket) & past);
}

/* Which of the codes that is: 0 for the lowest. */
SEARCH lanes code_index(const struct code_range range, lanes t)
{
    if (!range.book)
        return code_nearest(range, t) - range.low;
    lanes_mask bucket = find_bucket(range, t);
    lanes_mask past = t >= lanes_look_up(range.book->border, bucket);
    return lanes_look_up(range.book->index_below, bucket) + (lanes)((lanes_mask)lanes_of(1) & past);
}

/* The error of the nearest codes for this step and base; where the step is 0, infinite. */
SEARCH lanes group_error(const struct group *group, int n, const struct code_range range, lanes step,
                         lanes base)
{
    lanes inverse = lanes_inverse(step), shift = base * inverse, sum = lanes_of(0);
    for (int j = 0; j < n; j++) {
        lanes t = group->x[j] * inverse - shift;
        lanes rest = t - code_nearest(range, t);
        sum += group->w[j] * (rest * rest);
    }
    return lanes_select(step == 0, lanes_of(INFINITY), sum * (step * step));
}

struct lanes_3 {
    lanes a, b, c;
};

/* The same for three bases at once: values are read, and divided by the step, once. */
SEARCH struct lanes_3 group_errors(const struct group *group, int n, const struct code_range range,
                                   lanes step, struct lanes_3 base)
{
    lanes inverse = lanes_inverse(step), square = step * step;
    struct lanes_3 shift = {base.a * inverse, base.b * inverse, base.c * inverse};
    struct lanes_3 sum = {lanes_of(0), lanes_of(0), lanes_of(0)};
    for (int j = 0; j < n; j++) {
        lanes x = group->x[j] * inverse, w = group->w[j];
        lanes a = x - shift.a, b = x - shift.b, c = x - shift.c;
        a -= code_nearest(range, a);
        b -= code_nearest(range, b);
        c -= code_nearest(range, c);
        sum.a += w * (a * a);
        sum.b += w * (b * b);
        sum.c += w * (c * c);
    }
    lanes_mask none = step == 0;
    return (struct lanes_3){lanes_select(none, lanes_of(INFINITY), sum.a * square),
                            lanes_select(none, lanes_of(INFINITY), sum.b * square),
                            lanes_select(none, lanes_of(INFINITY), sum.c * square)};
}

/* Sums over a group, for least squares. */
struct sums {
    lanes w, wx, wxx;   /* of the values */
    lanes wq, wqq, wxq; /* with the nearest codes */
};

SEARCH void sum_values(const struct group *group, int n, struct sums *sums)
{
    sums->w = sums->wx = sums->wxx = lanes_of(0);
    for (int j = 0; j < n; j++) {
        lanes wx = group->w[j] * group->x[j];
        sums->w += group->w[j];
        sums->wx += wx;
        sums->wxx += wx * group->x[j];
    }
}

SEARCH void sum_codes(const struct group *group, int n, const struct code_range range, lanes inverse,
                      lanes shift, struct sums *sums)
{
    sums->wq = sums->wqq = sums->wxq = lanes_of(0);
    for (int j = 0; j < n; j++) {
        lanes q = code_nearest(range, group->x[j] * inverse - shift);
        lanes wq = group->w[j] * q;
        sums->wq += wq;
        sums->wqq += wq * q;
        sums->wxq += wq * group->x[j];
    }
}

/* Steps without a base ------------------------------------------------------------------------------------ */

/* The value that lies furthest from 0, by lane. */
SEARCH lanes group_extreme(const struct group *group, int n)
{
    lanes extreme = group->x[0];
    for (int j = 1; j < n; j++)
        extreme = lanes_select(lanes_abs(group->x[j]) > lanes_abs(extreme), group->x[j], extreme);
    return extreme;
}

/* The step, of either sign, that leaves the least error of those that were tried: for each share the step that brings the
 * extreme value to this share of the codes' end, and what least squares makes of it. 0 for a group of zeros. */
SEARCH lanes find_step(const struct group *group, int n, const struct code_range range, const float *shares,
                       int n_shares)
{
    lanes per_extreme = lanes_inverse(group_extreme(group, n));
    lanes best_error = lanes_of(INFINITY), best_step = lanes_of(0);
    struct sums sums;
    for (int k = 0; k < 2 * n_shares; k++) {
        float end = k < n_shares ? range.low : range.high;
        sum_codes(group, n, range, per_extreme * (end * shares[k % n_shares]), lanes_of(0), &sums);
        lanes step = sums.wxq * lanes_inverse(sums.wqq);
        lanes error = group_error(group, n, range, step, lanes_of(0));
        lanes_mask better = error < best_error;
        best_error = lanes_select(better, error, best_error);
        best_step = lanes_select(better, step, best_step);
    }
    return best_step;
}

/* Steps with a base --------------------------------------------------------------------------------------- */

struct affine {
    lanes step, base;
};

/* The step and base of least squares for the codes that were summed. at_most_0: the base may not be above. */
SEARCH struct affine solve_affine(const struct sums *sums, bool at_most_0)
{
    lanes determinant = sums->w * sums->wqq - sums->wq * sums->wq;
    lanes_mask flat = determinant <= sums->w * sums->wqq * 1e-6f; /* all codes the same: the step is free */
    lanes inverse = lanes_inverse(lanes_select(flat, lanes_of(0), determinant));
    struct affine found = {.step = (sums->w * sums->wxq - sums->wx * sums->wq) * inverse,
                           .base = (sums->wqq * sums->wx - sums->wq * sums->wxq) * inverse};
    found.base = lanes_select(flat, sums->wx * lanes_inverse(sums->w), found.base);
    if (at_most_0) {
        lanes_mask above = found.base > 0;
        found.step = lanes_select(above, sums->wxq * lanes_inverse(sums->wqq), found.step);
        found.base = lanes_select(above, lanes_of(0), found.base);
    }
    return found;
}

/* The step and base for which least squares leaves the least error; codes are 0 to range.high. */
SEARCH struct affine find_affine(const struct group *group, int n, const struct code_range range,
                                 bool at_most_0, const float *shares, int n_shares)
{
    lanes low = group->x[0], high = group->x[0];
    for (int j = 1; j < n; j++) {
        low = lanes_lower(low, group->x[j]);
        high = lanes_higher(high, group->x[j]);
    }
    if (at_most_0)
        low = lanes_lower(low, lanes_of(0));
    struct sums sums;
    sum_values(group, n, &sums);
    lanes per_width = lanes_inverse(high - low);
    struct affine best = {.step = (high - low) * (1 / range.high), .base = low};
    lanes best_error = group_error(group, n, range, best.step, best.base);
    for (int k = 0; k < n_shares; k++) {
        lanes inverse = per_width * (range.high * shares[k]);
        struct affine tried = {.step = lanes_inverse(inverse), .base = low};
        for (int i = 0; i < 2; i++) {
            inverse = lanes_inverse(tried.step);
            sum_codes(group, n, range, inverse, tried.base * inverse, &sums);
            tried = solve_affine(&sums, at_most_0);
        }
        lanes error = group_error(group, n, range, tried.step, tried.base);
        lanes_mask better = error < best_error;
        best_error = lanes_select(better, error, best_error);
        best.step = lanes_select(better, tried.step, best.step);
        best.base = lanes_select(better, tried.base, best.base);
    }
    return best;
}

#endif
