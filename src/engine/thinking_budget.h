/* thinking_budget.h: the constraint that ends a thought: it writes what closes it, as if the model had drawn that, and the answer
 * follows. What it writes is not counted.
 *
 * It does so after so many tokens of the thought, where the answer's part of its tokens would begin, at the end of a sentence beyond a
 * soft budget, where the thought goes in circles, where the model drew an end token, or when somebody asks. Before it closes it
 * writes the request's message, if it has one; where few tokens are left it leaves out the message, or all but the tag itself. */
#ifndef RUNNEL_ENGINE_THINKING_BUDGET_H
#define RUNNEL_ENGINE_THINKING_BUDGET_H

#include "engine/constraint.h"
#include "engine/model.h"

/* From the soft budget on, where a sentence has ended, the closing token is the likelier the further the thought is past it; after so
 * many tokens nothing else comes there. */
enum { THINKING_SOFT_TOKENS = 32 };

struct thinking_budget_options {
    uint32_t n_max, n_soft; /* tokens of the thought; UINT32_MAX: no such budget */
    uint32_t n_answer;      /* tokens of the answer, thoughts included */
    uint32_t n_reserved;    /* of these, not for the thought; 0: all are */
    bool is_default;        /* nobody asked for that reserve: a budget that leaves an answer goes before it */
    const char *message;    /* NULL: none */
    bool starts_in_thought;
};

struct thinking_budget;

/* The budget is its constraint, and freed as such. */
int thinking_budget_create(const struct runnel_model *model, const struct thinking_budget_options *options,
                           struct thinking_budget **budget, runnel_error *error);
struct constraint *thinking_budget_constraint(struct thinking_budget *budget);

/* Closes the thought that is open, or the one to come. Between two draws, when all draws have been told. */
void thinking_budget_ask(struct thinking_budget *budget);
/* What is taken instead of an end token that was drawn in a thought: with it the thought's end begins. -1: nothing. */
int32_t thinking_budget_instead(const struct thinking_budget *budget);
/* What ends the thought, or has ended it, as of the latest token. */
enum runnel_thought_end thinking_budget_end(const struct thinking_budget *budget);

#endif
