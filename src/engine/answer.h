/* answer.h: from logits to text: the tokens of one answer, what may come next, and what is told of it.
 *
 * answer_draw chooses the next token, on any member of the team; answer_tell takes it, on the engine's thread: events, text,
 * limits. Its outcome says whether the answer has ended.
 *
 * An answer belongs to one thread at a time; it knows no engine, and nothing of who else computes. It allocates nothing
 * after answer_create. */
#ifndef RUNNEL_ENGINE_ANSWER_H
#define RUNNEL_ENGINE_ANSWER_H

#include "base/pool.h"
#include "base/text.h"
#include "engine/model.h"
#include "engine/output.h"
#include "engine/sampler.h"

enum {
    ANSWER_CLOSING_MAX = 16,
    ANSWER_LOGPROBS_MAX = SAMPLER_TOLD_MAX, /* alternatives of a token */
};

struct answer {
    /* Set when it is made, and not changed after. */
    const struct tokenizer *tokenizer;
    struct pool *pool; /* tokens and biases lie there */
    uint32_t n_vocab;
    runnel_sampling
        sampling;      /* logit_bias is a copy of our own; behind it, with min_tokens, are the end tokens' */
    size_t n_end_bias; /* entries that count while fewer than min_tokens are drawn */
    uint32_t min_tokens;
    int n_logprobs, thinking_budget;
    bool ignore_eos, hashes_logits, tells_tokens;
    bool tells_sampled;                  /* with n_logprobs: probabilities after sampling */
    int32_t closing[ANSWER_CLOSING_MAX]; /* what ends a thought that used its budget up */
    uint32_t n_closing;
    bool (*on_event)(void *user, const runnel_event *event);
    void *user;

    struct token_list tokens; /* prompt and answer; cap is all that there may be */
    uint64_t logits_hash;

    uint32_t n_drawn, n_thought; /* tokens */
    uint32_t n_closed;           /* tokens of closing that were taken */
    bool closes;                 /* the budget is used up: closing is what comes next */
    double first_ms, last_ms, thought_ms /* last one of a thought */;
    struct output *output;
    struct text text, reasoning; /* whoever takes them zeroes them */
    runnel_error error;          /* of an outcome with RUNNEL_FINISH_ERROR */
};

struct answer_options {
    struct pool *pool;
    const struct token_list *prompt;
    uint32_t max_tokens;    /* of the answer */
    bool splits_thoughts;   /* between <think> and </think> */
    bool starts_in_thought; /* the prompt has opened one */
    /* Is given TOKEN, THOUGHT and ANSWER events. Returns false to end the answer. */
    bool (*on_event)(void *user, const runnel_event *event);
    void *user;
};

/* Takes from the request its sampling, its limits, its stop texts and what it wants to be told. *answer is to be freed with
 * answer_free, also after a failure. */
int answer_create(struct answer *answer, const struct runnel_model *model, const runnel_request *request,
                  const struct answer_options *options, runnel_error *error);
void answer_free(struct answer *answer);

/* A token that was drawn, or forced, and not yet told. */
struct answer_draw {
    int failure; /* of the draw: error says which, and there is no token */
    runnel_error error;
    int32_t token;
    /* Only if it is to be told: the token, then the likeliest ones. */
    struct sampler_choice choices[ANSWER_LOGPROBS_MAX + 1];
    size_t n_choices;
};

/* logits [n_vocab] after the latest token; those of rows without a token become -infinity. */
void answer_draw(struct answer *answer, struct sampler *sampler, float *logits, struct answer_draw *draw);

/* What has become of the answer. */
struct answer_outcome {
    bool ended;
    enum runnel_finish_reason reason; /* once it has ended */
    const runnel_error *error;        /* with RUNNEL_FINISH_ERROR; the draw's or the answer's */
};

struct answer_outcome answer_tell(struct answer *answer, const struct answer_draw *draw);
/* Ends it for a reason from outside: tells what was held back, unless it is cancelled. What is told then can make it another
 * reason. */
struct answer_outcome answer_finish(struct answer *answer, enum runnel_finish_reason reason);

/* Fills in the fields of the response that are the answer's: its texts (they stay the answer's), counts and hash. */
void answer_describe(const struct answer *answer, runnel_response *response);

#endif
