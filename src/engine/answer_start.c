/* answer_start.c: see answer_start.h. */
#include "engine/answer_start.h"

#include <stdlib.h>
#include <string.h>

struct state {
    bool is_due; /* a thought has ended, and the answer has not begun */
    uint8_t n_blanks;
};

struct answer_start {
    struct constraint constraint;
    const struct tokenizer *tokenizer;
    uint32_t n_answer; /* tokens of the answer, thoughts included */
    bool may_call;
    struct state now,
        before[CONSTRAINT_UNDO_MAX]; /* before token i of the answer: at i % CONSTRAINT_UNDO_MAX */
    uint32_t n_accepted;
};

static bool limits_next(const struct constraint *constraint)
{
    return ((const struct answer_start *)constraint)->now.is_due;
}

/* Of the last tokens none is wasted. */
static bool may_be_blank(const struct answer_start *start)
{
    return start->now.n_blanks < ANSWER_BLANKS_FREE &&
           start->n_answer - start->n_accepted > ANSWER_BLANKS_FREE;
}

static int mask(struct constraint *constraint, struct constraint_mask *limits, runnel_error *error)
{
    const struct answer_start *start = (const struct answer_start *)constraint;
    size_t n_ends, n_blanks, n_silent;
    const int32_t *ends = tokenizer_ends(start->tokenizer, &n_ends);
    const int32_t *blanks = tokenizer_blanks(start->tokenizer, &n_blanks);
    const int32_t *silent = tokenizer_silent(start->tokenizer, &n_silent);
    (void)error;
    if (!start->now.is_due)
        return RUNNEL_OK;
    constraint_mask_forbid_all(limits, ends, n_ends);
    if (may_be_blank(start))
        return RUNNEL_OK;
    constraint_mask_forbid_all(limits, blanks, n_blanks);
    if (!start->may_call)
        constraint_mask_forbid_all(limits, silent, n_silent);
    return RUNNEL_OK;
}

static bool is_blank(const char *text, size_t len)
{
    for (size_t i = 0; i < len; i++)
        if (text[i] == 0 || !strchr(" \t\r\n", text[i]))
            return false;
    return true;
}

static void accept(struct constraint *constraint, const struct constraint_token *token)
{
    struct answer_start *start = (struct answer_start *)constraint;
    struct state *now = &start->now;
    start->before[start->n_accepted++ % CONSTRAINT_UNDO_MAX] = *now;
    bool ends_thought = token->is_thought && !token->next_is_thought;
    size_t n_thought = ends_thought ? token->answer_at : 0;
    if (ends_thought)
        *now = (struct state){.is_due = true};
    else if (now->is_due)
        now->n_blanks++;
    if (!is_blank(token->bytes + n_thought, token->len - n_thought) || now->n_blanks == ANSWER_BLANKS_MAX)
        now->is_due = false;
}

static void undo(struct constraint *constraint, uint32_t n)
{
    struct answer_start *start = (struct answer_start *)constraint;
    start->n_accepted -= n;
    if (n)
        start->now = start->before[start->n_accepted % CONSTRAINT_UNDO_MAX];
}

static void free_start(struct constraint *constraint)
{
    free(constraint);
}

int answer_start_create(const struct tokenizer *tokenizer, uint32_t n_answer, bool may_call,
                        struct constraint **out, runnel_error *error)
{
    struct answer_start *start = calloc(1, sizeof *start);
    if (!start)
        return error_set(error, RUNNEL_ENOMEM, "no memory for the beginning of an answer");
    start->constraint = (struct constraint){
        .mask = mask, .limits = limits_next, .accept = accept, .undo = undo, .free = free_start};
    start->tokenizer = tokenizer;
    start->n_answer = n_answer;
    start->may_call = may_call;
    *out = &start->constraint;
    return RUNNEL_OK;
}
