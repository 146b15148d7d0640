/* min_tokens.c: see min_tokens.h. */
#include "engine/min_tokens.h"

#include <stdlib.h>

struct min_tokens {
    struct constraint constraint;
    const struct tokenizer *tokenizer;
    uint32_t n_min, n_accepted;
};

static bool limits_next(const struct constraint *constraint)
{
    const struct min_tokens *min_tokens = (const struct min_tokens *)constraint;
    return min_tokens->n_accepted < min_tokens->n_min;
}

static int mask(struct constraint *constraint, struct constraint_mask *limits, runnel_error *error)
{
    (void)error;
    const struct min_tokens *min_tokens = (const struct min_tokens *)constraint;
    size_t n_ends;
    const int32_t *ends = tokenizer_ends(min_tokens->tokenizer, &n_ends);
    if (limits_next(constraint))
        constraint_mask_forbid_all(limits, ends, n_ends);
    return RUNNEL_OK;
}

static void accept(struct constraint *constraint, const struct constraint_token *token)
{
    (void)token;
    ((struct min_tokens *)constraint)->n_accepted++;
}

static void undo(struct constraint *constraint, uint32_t n)
{
    ((struct min_tokens *)constraint)->n_accepted -= n;
}

static void free_min_tokens(struct constraint *constraint)
{
    free(constraint);
}

int min_tokens_create(const struct tokenizer *tokenizer, uint32_t n_tokens, struct constraint **out,
                      runnel_error *error)
{
    struct min_tokens *min_tokens = calloc(1, sizeof *min_tokens);
    if (!min_tokens)
        return error_set(error, RUNNEL_ENOMEM, "no memory for min_tokens");
    min_tokens->constraint = (struct constraint){
        .mask = mask,
        .limits = limits_next,
        .accept = accept,
        .undo = undo,
        .free = free_min_tokens,
    };
    min_tokens->tokenizer = tokenizer;
    min_tokens->n_min = n_tokens;
    *out = &min_tokens->constraint;
    return RUNNEL_OK;
}
