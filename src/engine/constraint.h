/* constraint.h: what limits the tokens of an answer besides its sampling: a budget of thoughts, a schema.
 *
 * A constraint is a few functions with state behind them: a struct of its own whose first member is a struct constraint.
 * The file that knows it makes it; the answer (answer.h) owns it, asks it before each draw and tells it each token. It goes
 * on at the draw, before anybody has heard of the token, and back where draws are undone. Calls come one at a time, in a step
 * from any member of the team; none of them allocates. */
#ifndef RUNNEL_ENGINE_CONSTRAINT_H
#define RUNNEL_ENGINE_CONSTRAINT_H

#include "base/error.h"

#include <stdbool.h>
#include <stdint.h>

enum {
    CONSTRAINT_UNDO_MAX = 32, /* tokens that can be taken back */
    CONSTRAINT_RAISED_MAX = 8,
};

/* What the constraints of an answer leave of one draw. */
struct constraint_mask {
    uint32_t n_vocab;
    uint32_t *allowed; /* [n_vocab / 32, rounded up] bit i % 32 of word i / 32: token i may be drawn */
    bool is_limited;   /* false: all tokens may be drawn, and nobody has written allowed */
    runnel_logit_bias raised[CONSTRAINT_RAISED_MAX];
    uint32_t n_raised;
    int32_t before; /* the latest token; -1: none */
};

/* Nothing is limited. */
void constraint_mask_begin(struct constraint_mask *mask, int32_t before);
/* The token may not be drawn. */
void constraint_mask_forbid(struct constraint_mask *mask, int32_t token);
/* None of these n may be. */
void constraint_mask_forbid_all(struct constraint_mask *mask, const int32_t *tokens, size_t n);
/* Only these may be drawn, of those that may be drawn so far; allowed as in the struct. */
void constraint_mask_keep(struct constraint_mask *mask, const uint32_t *allowed);
/* The same, but where none of them is left, all of these may be drawn: what binds more than what came before. */
void constraint_mask_insist(struct constraint_mask *mask, const uint32_t *allowed);
/* The token's logit shall be higher by this, or lower. What comes after CONSTRAINT_RAISED_MAX others is lost. */
void constraint_mask_raise(struct constraint_mask *mask, int32_t token, float by);

/* A token of the answer. */
struct constraint_token {
    int32_t id;
    const char *bytes; /* its text; a control token has none */
    size_t len;
    bool is_thought;      /* its text begins within a thought */
    bool next_is_thought; /* and so does that of the token after it */
    bool is_instead;      /* the model drew an end token, and this one was taken instead */
    size_t answer_at; /* where a thought ends with it: so many of its bytes are the thought's, or the tag's */
};

struct constraint {
    /* Limits the next draw, or fails, and with it the answer. NULL: it never does. */
    int (*mask)(struct constraint *constraint, struct constraint_mask *mask, runnel_error *error);
    /* Whether mask may limit the next draw, raise a token in it, or fail: told without making one. NULL: it always may. */
    bool (*limits)(const struct constraint *constraint);
    /* The token that comes next whatever may or would be drawn; -1: none. NULL: there never is one. */
    int32_t (*forced)(const struct constraint *constraint);
    /* This token comes next: forced, or drawn under its mask, unless another constraint forced it. */
    void (*accept)(struct constraint *constraint, const struct constraint_token *token);
    /* The latest n tokens, CONSTRAINT_UNDO_MAX at most, are taken back. */
    void (*undo)(struct constraint *constraint, uint32_t n);
    /* The answer is complete with the latest token, and ends. NULL: it never is. */
    bool (*is_over)(const struct constraint *constraint);
    void (*free)(struct constraint *constraint);
    struct constraint *next; /* of the same answer; the first that forces a token is heard */
};

#endif
