/* step_budget.h: how many rows of a prompt fit into a step, by its budget and the measured cost of steps.
 *
 * Prompts get what fits into max(step_ms - decode time, 25 % of the decode time), 16 rows at least. Only where these would
 * take the step past 1.6 budgets, and half as long again as decoding alone, they are what fits into that, 4 at least. Where
 * nobody gets a token, nobody stalls, and the budget is the longer prompt_ms; up to 1.6 of it for the sake of as many rows as the
 * back end likes. Pure arithmetic. */
#ifndef RUNNEL_ENGINE_STEP_BUDGET_H
#define RUNNEL_ENGINE_STEP_BUDGET_H

#include "engine/step_cost.h"

#include <stdbool.h>

struct step_budget {
    const struct step_cost *cost;
    uint32_t n_batch;         /* rows of a step */
    uint32_t n_rows_together; /* what the back end likes, see backend.h */
    uint32_t n_rows_prompt;
    double step_ms;   /* of a step that gives somebody a token */
    double prompt_ms; /* of one that does not */
};

/* A step while it is filled. */
struct step_fill {
    uint32_t n_decode, n_prompt; /* rows */
    double n_pairs;              /* of all of them */
    double decode_ms;            /* what the decoding rows alone would take */
    bool draws;                  /* somebody gets a token from it */
};

/* Rows of one prompt at a position, n_max at most, that the step takes besides. */
uint32_t step_budget_share(const struct step_budget *budget, const struct step_fill *step, uint32_t position,
                           uint32_t n_max);

/* Rows of guesses, n_max at most, that a step of decoding rows alone takes besides: what it would take of a prompt by its budget. */
uint32_t step_budget_guesses(const struct step_budget *budget, const struct step_fill *step, uint32_t n_max);

#endif
