/* step_cost.c: three small least-squares fits, solved exactly. */
#include "engine/step_cost.h"

#include <math.h>
#include <stdbool.h>
#include <string.h>

static const double few_before[STEP_COST_TERMS] = {40, 0.5, 0.2}, few_spread[STEP_COST_TERMS] = {40, 10, 0.4};
static const double many_before[STEP_COST_TERMS] = {5, 3.4, 0.2},
                    many_spread[STEP_COST_TERMS] = {27, 3.4, 0.4};

/* A sample's weight falls by this factor with each later one of its line: half of it after 34. */
static const double FADING = 0.98;
/* What the prior values count for, each in samples that are off by their own size if it is off by its spread. They are those of one
 * machine and model, and are taken times what another one is slower: else a small model, whose steps are all much shorter, would
 * have a second row as dear as the first. */
static const double PRIOR_WEIGHT = 0.02;
static const double OUTLIER = 2; /* times the expected time */
/* Of by_rows; for how many steps it counts that a number of rows is expected to be on its line. */
static const double RATIO_FADING = 0.9, RATIO_WEIGHT = 4;
/* So many outliers one after the other, and it is the machine that has changed: what was learned before counts for little. */
enum { OUTLIERS_IN_A_ROW = 3 };
static const double FORGETTING = 0.02;

static void init_fit(struct step_fit *fit, const double *prior, const double *spread)
{
    memset(fit, 0, sizeof *fit);
    memcpy(fit->prior, prior, sizeof fit->prior);
    memcpy(fit->spread, spread, sizeof fit->spread);
    memcpy(fit->ms, prior, sizeof fit->ms);
}

void step_cost_init(struct step_cost *cost)
{
    *cost = (struct step_cost){.n_samples = 0};
    init_fit(&cost->few, few_before, few_spread);
    init_fit(&cost->some, many_before, many_spread);
    init_fit(&cost->many, many_before, many_spread);
}

/* Solves n equations, their right sides in column n, by Gauss with pivots. False: there is no one solution. */
static bool eliminate(double matrix[STEP_COST_TERMS][STEP_COST_TERMS + 1], int n, double *solution)
{
    for (int i = 0; i < n; i++) {
        int pivot = i;
        for (int j = i + 1; j < n; j++)
            pivot = fabs(matrix[j][i]) > fabs(matrix[pivot][i]) ? j : pivot;
        if (fabs(matrix[pivot][i]) < 1e-12)
            return false;
        for (int k = i; k <= n; k++) {
            double held = matrix[i][k];
            matrix[i][k] = matrix[pivot][k];
            matrix[pivot][k] = held;
        }
        for (int j = i + 1; j < n; j++)
            for (int k = n; k >= i; k--)
                matrix[j][k] -= matrix[i][k] * matrix[j][i] / matrix[i][i];
    }
    for (int i = n - 1; i >= 0; i--) {
        solution[i] = matrix[i][n];
        for (int k = i + 1; k < n; k++)
            solution[i] -= matrix[i][k] * solution[k];
        solution[i] /= matrix[i][i];
    }
    return true;
}

/* The equations of a fit, in multiples of the spreads. */
struct system {
    double matrix[STEP_COST_TERMS][STEP_COST_TERMS], right[STEP_COST_TERMS];
};

/* The best multiples if only the terms of a set are more than 0; false: some would be less. *loss: what is minimised. */
static bool solve_for(const struct system *system, unsigned set, double multiples[STEP_COST_TERMS],
                      double *loss)
{
    double matrix[STEP_COST_TERMS][STEP_COST_TERMS + 1], solution[STEP_COST_TERMS];
    int terms[STEP_COST_TERMS] = {0}, n = 0;
    for (int i = 0; i < STEP_COST_TERMS; i++)
        if (set >> i & 1)
            terms[n++] = i;
    for (int i = 0; i < n; i++) {
        for (int j = 0; j < n; j++)
            matrix[i][j] = system->matrix[terms[i]][terms[j]];
        matrix[i][n] = system->right[terms[i]];
    }
    if (!eliminate(matrix, n, solution))
        return false;
    *loss = 0;
    memset(multiples, 0, STEP_COST_TERMS * sizeof *multiples);
    for (int i = 0; i < n; i++) {
        if (solution[i] < 0)
            return false;
        multiples[terms[i]] = solution[i];
        *loss -= system->right[terms[i]] * solution[i];
    }
    return true;
}

/* Minimises the faded sum of (x . ms - measured)^2 / measured^2 + PRIOR_WEIGHT * sum(((ms - prior) / spread)^2) over ms >= 0, where
 * priors and spreads are taken times scale. */
static void solve(struct step_fit *fit, double scale)
{
    struct system system;
    double best = INFINITY, loss, multiples[STEP_COST_TERMS];
    for (int i = 0; i < STEP_COST_TERMS; i++) {
        for (int j = 0; j < STEP_COST_TERMS; j++)
            system.matrix[i][j] = fit->matrix[i][j] * fit->spread[i] * fit->spread[j] * scale * scale +
                                  (i == j ? PRIOR_WEIGHT : 0);
        system.right[i] =
            fit->right[i] * fit->spread[i] * scale + PRIOR_WEIGHT * fit->prior[i] / fit->spread[i];
    }
    for (unsigned set = (1u << STEP_COST_TERMS) - 1; set; set--) {
        if (!solve_for(&system, set, multiples, &loss) || loss >= best)
            continue;
        best = loss;
        for (int i = 0; i < STEP_COST_TERMS; i++)
            fit->ms[i] = multiples[i] * fit->spread[i] * scale;
        if (set == (1u << STEP_COST_TERMS) - 1)
            return;
    }
}

/* How much slower or faster the machine is than the one of the prior, as far as its steps show; 0: not known. */
static double scale_of(const struct step_fit *fit)
{
    double measured = 0, expected = 0;
    for (int i = 0; i < STEP_COST_TERMS; i++) {
        measured += fit->prior[i] * fit->right[i];
        for (int j = 0; j < STEP_COST_TERMS; j++)
            expected += fit->prior[i] * fit->matrix[i][j] * fit->prior[j];
    }
    return expected > 0 ? measured / expected : 0;
}

/* Of a line that nothing is known of, what its neighbour says. */
static void solve_all(struct step_cost *cost)
{
    double few = scale_of(&cost->few), some = scale_of(&cost->some), many = scale_of(&cost->many);
    double known = some > 0 ? some : many > 0 ? many : few;
    solve(&cost->few, few > 0 ? few : known);
    solve(&cost->some, known);
    solve(&cost->many, many > 0 ? many : known);
}

static struct step_fit *line_of(struct step_cost *cost, uint32_t n_rows)
{
    return n_rows <= STEP_COST_FEW ? &cost->few : n_rows <= STEP_COST_SOME ? &cost->some : &cost->many;
}

static double fit_ms(const struct step_fit *fit, double n_rows, double n_pairs)
{
    return fit->ms[0] + fit->ms[1] * n_rows + fit->ms[2] * n_pairs / 1000;
}

/* What the lines say. */
static double line_ms(const struct step_cost *cost, uint32_t n_rows, double n_pairs)
{
    double ms = fit_ms(&cost->few, n_rows < STEP_COST_FEW ? n_rows : STEP_COST_FEW, n_pairs);
    if (n_rows > STEP_COST_FEW)
        ms = fmax(ms, fit_ms(&cost->some, n_rows < STEP_COST_SOME ? n_rows : STEP_COST_SOME, n_pairs));
    if (n_rows > STEP_COST_SOME)
        ms = fmax(ms, fit_ms(&cost->many, n_rows, n_pairs));
    return ms;
}

/* How far a number of rows is off its line. */
static double ratio_of(const struct step_cost *cost, uint32_t n_rows)
{
    return (cost->by_rows[n_rows].ratio + RATIO_WEIGHT) / (cost->by_rows[n_rows].n + RATIO_WEIGHT);
}

/* Rows that are left out would only take time off: it is no less with more of them. */
double step_cost_ms(const struct step_cost *cost, uint32_t n_rows, double n_pairs)
{
    double ms = n_rows > STEP_COST_SOME ? line_ms(cost, n_rows, n_pairs) : 0;
    for (uint32_t i = 1; i <= n_rows && i <= STEP_COST_SOME; i++)
        ms = fmax(ms, line_ms(cost, i, n_pairs) * ratio_of(cost, i));
    return ms;
}

static void learn_ratio(struct step_cost *cost, uint32_t n_rows, double n_pairs, double ms, double weight)
{
    if (n_rows > STEP_COST_SOME)
        return;
    double *n = &cost->by_rows[n_rows].n, *ratio = &cost->by_rows[n_rows].ratio;
    *n = RATIO_FADING * *n + weight;
    *ratio = RATIO_FADING * *ratio + weight * fmin(ms / line_ms(cost, n_rows, n_pairs), OUTLIER);
}

static void fade(struct step_fit *fit, double by)
{
    for (int i = 0; i < STEP_COST_TERMS; i++) {
        for (int j = 0; j < STEP_COST_TERMS; j++)
            fit->matrix[i][j] *= by;
        fit->right[i] *= by;
    }
}

/* How much a step counts that took ms where another time was expected. */
static double weigh(struct step_cost *cost, double ms, double expected)
{
    bool is_outlier = cost->n_samples++ >= 8 && ms > OUTLIER * expected;
    cost->n_in_a_row = is_outlier ? cost->n_in_a_row + 1 : 0;
    if (!is_outlier)
        return 1;
    cost->n_outliers++;
    if (cost->n_in_a_row < OUTLIERS_IN_A_ROW)
        return expected / ms;
    fade(&cost->few, FORGETTING);
    fade(&cost->some, FORGETTING);
    fade(&cost->many, FORGETTING);
    cost->n_in_a_row = 0;
    return 1;
}

void step_cost_learn(struct step_cost *cost, uint32_t n_rows, double n_pairs, double ms)
{
    if (n_rows == 0 || !isfinite(ms) || ms <= 0 || !isfinite(n_pairs) || n_pairs < 0)
        return;
    double weight = weigh(cost, ms, step_cost_ms(cost, n_rows, n_pairs));
    struct step_fit *fit = line_of(cost, n_rows);
    const double terms[STEP_COST_TERMS] = {1, n_rows, n_pairs / 1000};
    fade(fit, FADING);
    for (int i = 0; i < STEP_COST_TERMS; i++) {
        for (int j = 0; j < STEP_COST_TERMS; j++)
            fit->matrix[i][j] += weight * terms[i] * terms[j] / (ms * ms);
        fit->right[i] += weight * terms[i] / ms;
    }
    solve_all(cost);
    learn_ratio(cost, n_rows, n_pairs, ms, weight);
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
