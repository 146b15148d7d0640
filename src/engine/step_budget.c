/* step_budget.c: the rule of the budget (see step_budget.h). */
#include "engine/step_budget.h"

#include <math.h>

enum {
    PROMPT_ROWS_MIN = 16,  /* even if they take the step past its budget, */
    PROMPT_ROWS_FLOOR = 4, /* unless they take it much further; then so many */
    ROWS_MULTIPLE = 8,     /* rows that products take together: a cut prompt leaves no fewer over */
};

static const double PROMPT_SHARE = 0.25; /* of the decode time, at least */
static const double STALL_BUDGETS = 1.6; /* what a step may take for the sake of those 16 rows, */
static const double STALL_SHARE = 0.5;   /* or so much more than decoding alone */

uint32_t step_budget_share(const struct step_budget *budget, const struct step_fill *step, uint32_t position,
                           uint32_t n_max)
{
    double limit_ms = budget->prompt_ms;
    if (step->draws)
        limit_ms = fmax(budget->step_ms, (1 + PROMPT_SHARE) * step->decode_ms);
    uint32_t n = step_cost_fit_rows(budget->cost, step->n_decode + step->n_prompt, step->n_pairs, position,
                                    n_max, limit_ms);
    if (n + step->n_prompt < PROMPT_ROWS_MIN) {
        uint32_t n_wanted = PROMPT_ROWS_MIN - step->n_prompt;
        double bearable_ms = fmax(STALL_BUDGETS * budget->step_ms, (1 + STALL_SHARE) * step->decode_ms);
        uint32_t n_bearable = n_wanted;
        if (step->draws)
            n_bearable = step_cost_fit_rows(budget->cost, step->n_decode + step->n_prompt, step->n_pairs,
                                            position, n_wanted, bearable_ms);
        n = n > n_bearable ? n : n_bearable;
        if (n + step->n_prompt < PROMPT_ROWS_FLOOR)
            n = PROMPT_ROWS_FLOOR - step->n_prompt;
    }
    if (n >= n_max)
        return n_max;
    uint32_t n_over = (step->n_decode + step->n_prompt + n) % ROWS_MULTIPLE;
    return n >= PROMPT_ROWS_MIN + n_over ? n - n_over : n;
}
