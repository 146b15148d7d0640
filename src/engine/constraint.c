/* constraint.c: what constraints leave of a draw. */
#include "engine/constraint.h"

#include <string.h>

static size_t n_words(const struct constraint_mask *mask)
{
    return ((size_t)mask->n_vocab + 31) / 32;
}

/* The words count from now on. */
static void limit(struct constraint_mask *mask)
{
    if (!mask->is_limited)
        memset(mask->allowed, 0xff, n_words(mask) * sizeof *mask->allowed);
    mask->is_limited = true;
}

void constraint_mask_begin(struct constraint_mask *mask, int32_t before)
{
    mask->before = before;
    mask->is_limited = false;
    mask->n_raised = 0;
}

void constraint_mask_forbid(struct constraint_mask *mask, int32_t token)
{
    limit(mask);
    mask->allowed[token / 32] &= ~(1u << (token % 32));
}

void constraint_mask_forbid_all(struct constraint_mask *mask, const int32_t *tokens, size_t n)
{
    for (size_t i = 0; i < n; i++)
        constraint_mask_forbid(mask, tokens[i]);
}

void constraint_mask_keep(struct constraint_mask *mask, const uint32_t *allowed)
{
    limit(mask);
    for (size_t i = 0; i < n_words(mask); i++)
        mask->allowed[i] &= allowed[i];
}

void constraint_mask_insist(struct constraint_mask *mask, const uint32_t *allowed)
{
    uint32_t left = 0;
    limit(mask);
    for (size_t i = 0; i < n_words(mask); i++)
        left |= mask->allowed[i] & allowed[i];
    if (left)
        constraint_mask_keep(mask, allowed);
    else
        memcpy(mask->allowed, allowed, n_words(mask) * sizeof *allowed);
}

void constraint_mask_raise(struct constraint_mask *mask, int32_t token, float by)
{
    if (mask->n_raised < CONSTRAINT_RAISED_MAX)
        mask->raised[mask->n_raised++] = (runnel_logit_bias){.token = token, .bias = by};
}
