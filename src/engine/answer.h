/* answer.h: from logits to text: the tokens of one answer, what may come next, and what is told of it.
 *
 * A token goes through in two halves, so that a step can draw several for one answer before any of them is told:
 *
 *     answer_draw    draws the next token, or takes the one that is forced, and goes on from there; nobody hears of it.
 *                    On any member of the team.
 *     answer_take    the same, where the token with the largest logit is known, and nothing else matters.
 *     answer_tell    events, text, limits, in the order of the draws; says whether the answer has ended. On the engine's
 *                    thread.
 *     answer_undo    takes back the latest draws, if they have not been told.
 *
 * What is drawn may be limited by constraints (constraint.h), which belong to the answer: the budget of thoughts is one. An end
 * token that is drawn in a thought is not taken: what closes the thought comes instead. An answer belongs to one thread at a
 * time; it knows no engine, and nothing of who else computes. No allocation after answer_create. */
#ifndef RUNNEL_ENGINE_ANSWER_H
#define RUNNEL_ENGINE_ANSWER_H

#include "base/pool.h"
#include "base/text.h"
#include "engine/calls.h"
#include "engine/constraint.h"
#include "engine/model.h"
#include "engine/output.h"
#include "engine/sampler.h"
#include "engine/thinking_budget.h"
#include "engine/thought_tags.h"

/* What a draw changes besides the tokens and the constraints. */
struct answer_place {
    struct thought_tags tags; /* after the latest token drawn; output is at the latest one told */
    uint64_t logits_hash;     /* of what was drawn from */
};

struct answer {
    /* Set when it is made, and not changed after. */
    const struct tokenizer *tokenizer;
    struct pool *pool; /* tokens and biases lie there */
    uint32_t n_vocab, n_prompt;
    runnel_sampling sampling; /* logit_bias is a copy of our own */
    int n_logprobs;
    bool ignore_eos, hashes_logits, tells_tokens;
    bool wants_best;    /* the likeliest token and nothing else, where no constraint limits it */
    bool tells_sampled; /* with n_logprobs: probabilities after sampling */
    bool (*on_event)(void *user, const runnel_event *event);
    void *user;
    struct constraint *constraints; /* a list */
    struct thinking_budget *budget; /* one of them; NULL: there are no thoughts */
    struct constraint *calls_bound; /* one of them, where calls may stand within text; NULL: they may not */
    const struct tool_form *tool_form; /* in which it may call tools; NULL: it may not */
    struct tool_names tool_names;

    /* What was drawn. */
    struct token_list tokens; /* prompt and answer; cap is all that there may be */
    struct answer_place place, before[CONSTRAINT_UNDO_MAX]; /* before token i: at i % CONSTRAINT_UNDO_MAX */

    /* What of it was told. */
    uint32_t n_drawn, n_thought; /* tokens */
    double first_ms, last_ms, thought_ms /* last one of a thought */;
    enum runnel_thought_end thought_end;
    struct output *output;
    struct text text, reasoning; /* whoever takes them, or the calls, zeroes them */
    struct calls calls;
    runnel_error error; /* of an outcome with RUNNEL_FINISH_ERROR */
};

struct answer_options {
    struct pool *pool;
    const struct token_list *prompt;
    uint32_t max_tokens;               /* of the answer */
    uint32_t n_reserved;               /* of these, not for thoughts; 0: none */
    bool splits_thoughts;              /* between <think> and </think> */
    bool starts_in_thought;            /* the prompt has opened one */
    const struct tool_form *tool_form; /* of the model; for requests with tools */
    /* Is given TOKEN, THOUGHT and ANSWER events, and those of calls. Returns false to end the answer. */
    bool (*on_event)(void *user, const runnel_event *event);
    void *user;
};

/* Takes from the request its sampling, its limits, its stop texts and what it wants to be told. *answer is to be freed with
 * answer_free, also after a failure. */
int answer_create(struct answer *answer, const struct runnel_model *model, const runnel_request *request,
                  const struct answer_options *options, runnel_error *error);
void answer_free(struct answer *answer);

/* One more limit; the answer owns it from then on. */
void answer_add_constraint(struct answer *answer, struct constraint *constraint);

/* What drawing needs besides: one for each member of the team. */
struct answer_scratch;

int answer_scratch_create(uint32_t n_vocab, struct answer_scratch **scratch, runnel_error *error);
void answer_scratch_free(struct answer_scratch *scratch); /* NULL is fine */

/* A token that was drawn, or forced, and not yet told. */
struct answer_draw {
    int failure; /* of the draw: error says which, and there is no token */
    runnel_error error;
    int32_t token;
    int32_t before;                      /* the token before it; -1: none */
    bool is_forced;                      /* it comes whatever the model would have drawn, or drew */
    bool is_instead;                     /* the latter: of an end token in a thought */
    bool is_thought;                     /* its text begins within a thought */
    bool is_last;                        /* the answer is complete with it, and ends */
    enum runnel_thought_end thought_end; /* what ended the thought, which ends with it */
    /* Only if it is to be told: the token, then the likeliest ones. */
    struct sampler_choice choices[RUNNEL_LOGPROBS_MAX + 1];
    size_t n_choices;
};

/* logits [n_vocab] after the latest token; those of rows without a token become -infinity. There must be room for one more
 * token. */
void answer_draw(struct answer *answer, struct answer_scratch *scratch, float *logits,
                 struct answer_draw *draw);
/* Whether the next draw needs no more than the token with the largest logit. */
bool answer_takes_best(const struct answer *answer);
/* Such a draw; best: that token, whose logit and the others are numbers below +infinity. */
void answer_take(struct answer *answer, int32_t best, struct answer_draw *draw);
/* Takes back the latest n draws, CONSTRAINT_UNDO_MAX at most; none of them has failed or been told. */
void answer_undo(struct answer *answer, uint32_t n);
/* Closes the thought that is open, or the one to come. All draws have been told. */
void answer_end_thought(struct answer *answer);
/* The token that comes next whatever the model would draw; -1: the model draws. */
int32_t answer_forced_token(const struct answer *answer);
/* Whether another token may be drawn after that one, the latest. */
bool answer_goes_on(const struct answer *answer, const struct answer_draw *draw);
/* What the constraints will have come next, n_max tokens (CONSTRAINT_UNDO_MAX at most, for which there must be room): the first *n_certain
 * of them whatever the model would draw; the others, too, but that the same text can be cut into tokens in another way. Returns
 * how many; the answer is as it was. */
uint32_t answer_foresee(struct answer *answer, struct answer_scratch *scratch, int32_t *tokens,
                        uint32_t n_max, uint32_t *n_certain);

/* What has become of the answer. */
struct answer_outcome {
    bool ended;
    enum runnel_finish_reason reason; /* once it has ended */
    const runnel_error *error;        /* with RUNNEL_FINISH_ERROR; the draw's or the answer's */
};

/* Tells the next of the draws. */
struct answer_outcome answer_tell(struct answer *answer, const struct answer_draw *draw);
/* Ends it for a reason from outside: tells what was held back, unless it is cancelled. What is told then can make it another
 * reason. */
struct answer_outcome answer_finish(struct answer *answer, enum runnel_finish_reason reason);

/* Fills in the fields of the response that are the answer's: its texts (they stay the answer's), counts and hash. */
void answer_describe(const struct answer *answer, runnel_response *response);

#endif
