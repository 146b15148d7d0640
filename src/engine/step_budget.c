/* step_budget.c: the rule of the budget (see step_budget.h). */
#include "engine/step_budget.h"

#include <math.h>

enum {
    PROMPT_ROWS_MIN = 16,  /* even if they take the step past its budget, */
    PROMPT_ROWS_FLOOR = 4, /* unless they take it much further; then so many */
};

static const double PROMPT_SHARE = 0.25; /* of the decode time, at least */
static const double STALL_BUDGETS =
    1.6; /* what a step may take for the sake of those 16 rows, or of those that are liked, */
static const double STALL_SHARE = 0.5; /* or so much more than decoding alone */

/* Rows of the prompt that the step has time for, n_max at most. */
static uint32_t fit_rows(const struct step_budget *budget, const struct step_fill *step, uint32_t position,
                         uint32_t n_max, double limit_ms)
{
    return step_cost_fit_rows(budget->cost, step->n_decode + step->n_prompt, step->n_pairs, position, n_max,
                              limit_ms);
}

/* The same where nobody gets a token from it. */
static uint32_t fit_prompt(const struct step_budget *budget, const struct step_fill *step, uint32_t position,
                           uint32_t n_max)
{
    uint32_t n = fit_rows(budget, step, position, n_max, budget->prompt_ms), n_there = step->n_prompt;
    uint32_t n_liked = budget->n_rows_prompt > n_there ? budget->n_rows_prompt - n_there : 0;
    if (n >= n_liked)
        return n;
    return fit_rows(budget, step, position, n_liked < n_max ? n_liked : n_max,
                    STALL_BUDGETS * budget->prompt_ms);
}

/* What a step in which somebody decodes may take. */
static double limit_of(const struct step_budget *budget, const struct step_fill *step)
{
    return fmax(budget->step_ms, (1 + PROMPT_SHARE) * step->decode_ms);
}

uint32_t step_budget_guesses(const struct step_budget *budget, const struct step_fill *step, uint32_t n_max)
{
    if (!step->n_decode)
        return 0;
    uint32_t position = (uint32_t)(step->n_pairs / step->n_decode);
    return fit_rows(budget, step, position, n_max, limit_of(budget, step));
}

uint32_t step_budget_share(const struct step_budget *budget, const struct step_fill *step, uint32_t position,
                           uint32_t n_max)
{
    double limit_ms = limit_of(budget, step);
    uint32_t n = step->draws ? fit_rows(budget, step, position, n_max, limit_ms)
                             : fit_prompt(budget, step, position, n_max);
    if (n + step->n_prompt < PROMPT_ROWS_MIN) {
        uint32_t n_wanted = PROMPT_ROWS_MIN - step->n_prompt;
        double bearable_ms = fmax(STALL_BUDGETS * budget->step_ms, (1 + STALL_SHARE) * step->decode_ms);
        uint32_t n_bearable = n_wanted;
        if (step->draws)
            n_bearable = fit_rows(budget, step, position, n_wanted, bearable_ms);
        n = n > n_bearable ? n : n_bearable;
        if (n + step->n_prompt < PROMPT_ROWS_FLOOR)
            n = PROMPT_ROWS_FLOOR - step->n_prompt;
    }
    if (n >= n_max)
        return n_max;
    uint32_t n_over = (step->n_decode + step->n_prompt + n) % budget->n_rows_together;
    return n >= PROMPT_ROWS_MIN + n_over ? n - n_over : n;
}
