/* thinking_budget.h: the constraint that ends a thought: after so many of its tokens it writes what closes it, as if the model
 * had drawn that, and the answer follows. What it writes is not counted. */
#ifndef RUNNEL_ENGINE_THINKING_BUDGET_H
#define RUNNEL_ENGINE_THINKING_BUDGET_H

#include "engine/constraint.h"
#include "engine/model.h"

int thinking_budget_create(const struct runnel_model *model, uint32_t n_tokens,
                           struct constraint **constraint, runnel_error *error);

#endif
