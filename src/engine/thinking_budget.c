/* thinking_budget.c: see thinking_budget.h. */
#include "engine/thinking_budget.h"

#include <stdlib.h>
#include <string.h>

enum { CLOSING_MAX = 16 };

struct state {
    uint32_t n_thought; /* tokens of the thought, without those of closing */
    uint32_t n_written; /* tokens of closing */
    bool closes;        /* the budget is used up: closing is what comes next */
};

struct thinking_budget {
    struct constraint constraint;
    uint32_t n_max;
    int32_t closing[CLOSING_MAX]; /* what ends a thought */
    uint32_t n_closing;
    struct state now,
        before[CONSTRAINT_UNDO_MAX]; /* before token i of the answer: at i % CONSTRAINT_UNDO_MAX */
    uint32_t n_accepted;
};

static int32_t forced(const struct constraint *constraint)
{
    const struct thinking_budget *budget = (const struct thinking_budget *)constraint;
    const struct state *now = &budget->now;
    return now->closes && now->n_written < budget->n_closing ? budget->closing[now->n_written] : -1;
}

static void accept(struct constraint *constraint, const struct constraint_token *token)
{
    struct thinking_budget *budget = (struct thinking_budget *)constraint;
    struct state *now = &budget->now;
    budget->before[budget->n_accepted++ % CONSTRAINT_UNDO_MAX] = *now;
    if (token->id == forced(constraint))
        now->n_written++;
    else if (token->is_thought)
        now->n_thought++;
    if (token->next_is_thought && now->n_thought >= budget->n_max)
        now->closes = true;
}

static void undo(struct constraint *constraint, uint32_t n)
{
    struct thinking_budget *budget = (struct thinking_budget *)constraint;
    budget->n_accepted -= n;
    if (n)
        budget->now = budget->before[budget->n_accepted % CONSTRAINT_UNDO_MAX];
}

static void free_budget(struct constraint *constraint)
{
    free(constraint);
}

static int find_closing(struct thinking_budget *budget, const struct runnel_model *model, runnel_error *error)
{
    struct token_list tokens = {0};
    int failure = model_encode_thought_end(model, &tokens, error);
    if (!failure && tokens.n > CLOSING_MAX)
        failure = error_set(error, RUNNEL_EUNSUPPORTED,
                            "thinking_budget: %zu tokens close a thought, at most %d expected", tokens.n,
                            CLOSING_MAX);
    if (!failure) {
        memcpy(budget->closing, tokens.ids, tokens.n * sizeof *tokens.ids);
        budget->n_closing = (uint32_t)tokens.n;
    }
    free(tokens.ids);
    return failure;
}

int thinking_budget_create(const struct runnel_model *model, uint32_t n_tokens, struct constraint **out,
                           runnel_error *error)
{
    struct thinking_budget *budget = calloc(1, sizeof *budget);
    if (!budget)
        return error_set(error, RUNNEL_ENOMEM, "no memory for a budget of thoughts");
    budget->constraint = (struct constraint){
        .forced = forced,
        .accept = accept,
        .undo = undo,
        .free = free_budget,
    };
    budget->n_max = n_tokens;
    int failure = find_closing(budget, model, error);
    if (failure) {
        free(budget);
        return failure;
    }
    *out = &budget->constraint;
    return RUNNEL_OK;
}
