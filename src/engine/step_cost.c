/* step_cost.c: two small least-squares fits, solved by projected coordinate descent. */
#include "engine/step_cost.h"

#include <math.h>
#include <string.h>

static const double few_before[STEP_COST_TERMS] = {40, 0.5, 0.2};
static const double many_before[STEP_COST_TERMS] = {5, 3.4, 0.2};

/* A sample's weight falls by this factor with each later one of its half: half of it after 34. */
static const double FADING = 0.98;
/* What the prior values count for, in samples that are off by their own size. */
static const double PRIOR_WEIGHT = 0.02;
static const double OUTLIER = 2; /* times the expected time */

static void init_fit(struct step_fit *fit, const double *prior)
{
    memset(fit, 0, sizeof *fit);
    memcpy(fit->prior, prior, sizeof fit->prior);
    memcpy(fit->ms, prior, sizeof fit->ms);
}

void step_cost_init(struct step_cost *cost)
{
    *cost = (struct step_cost){.n_samples = 0};
    init_fit(&cost->few, few_before);
    init_fit(&cost->many, many_before);
}

/* Minimises the faded sum of (x . ms - measured)^2 / measured^2 + PRIOR_WEIGHT * sum((ms / prior - 1)^2) over
 * ms >= 0. */
static void solve(struct step_fit *fit)
{
    for (int sweep = 0; sweep < 40; sweep++)
        for (int i = 0; i < STEP_COST_TERMS; i++) {
            double hold = PRIOR_WEIGHT / (fit->prior[i] * fit->prior[i]);
            double right = fit->right[i] + hold * fit->prior[i];
            for (int j = 0; j < STEP_COST_TERMS; j++)
                right -= j == i ? 0 : fit->matrix[i][j] * fit->ms[j];
            fit->ms[i] = fmax(0, right / (fit->matrix[i][i] + hold));
        }
}

static double fit_ms(const struct step_fit *fit, double n_rows, double n_pairs)
{
    return fit->ms[0] + fit->ms[1] * n_rows + fit->ms[2] * n_pairs / 1000;
}

double step_cost_ms(const struct step_cost *cost, uint32_t n_rows, double n_pairs)
{
    if (n_rows == 0)
        return 0;
    if (n_rows <= STEP_COST_FEW)
        return fit_ms(&cost->few, n_rows, n_pairs);
    double few = fit_ms(&cost->few, STEP_COST_FEW, n_pairs), many = fit_ms(&cost->many, n_rows, n_pairs);
    return fmax(few, many);
}

void step_cost_learn(struct step_cost *cost, uint32_t n_rows, double n_pairs, double ms)
{
    if (n_rows == 0 || !isfinite(ms) || ms <= 0 || !isfinite(n_pairs) || n_pairs < 0)
        return;
    double expected = step_cost_ms(cost, n_rows, n_pairs), weight = 1;
    if (cost->n_samples++ >= 8 && ms > OUTLIER * expected) {
        cost->n_outliers++;
        weight = expected / ms;
    }
    struct step_fit *fit = n_rows <= STEP_COST_FEW ? &cost->few : &cost->many;
    const double terms[STEP_COST_TERMS] = {1, n_rows, n_pairs / 1000};
    for (int i = 0; i < STEP_COST_TERMS; i++) {
        for (int j = 0; j < STEP_COST_TERMS; j++)
            fit->matrix[i][j] = FADING * fit->matrix[i][j] + weight * terms[i] * terms[j] / (ms * ms);
        fit->right[i] = FADING * fit->right[i] + weight * terms[i] / ms;
    }
    solve(fit);
}

uint32_t step_cost_fit_rows(const struct step_cost *cost, uint32_t n_rows, double n_pairs, uint32_t position,
                            uint32_t n_max, double limit_ms)
{
    uint32_t low = 0, high = n_max; /* low rows fit; more than high do not, or are not wanted */
    while (low < high) {
        uint32_t middle = high - (high - low) / 2;
        if (step_cost_ms(cost, n_rows + middle, n_pairs + step_cost_pairs(position, middle)) <= limit_ms)
            low = middle;
        else
            high = middle - 1;
    }
    return low;
}
