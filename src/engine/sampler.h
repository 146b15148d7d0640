/* sampler.h: from logits to a token.
 *
 * A draw depends on the seed, the position and the logits alone (counter-based random numbers), never on what runs
 * beside it. A struct sampler owns its scratch; one thread at a time. No allocation after sampler_create. */
#ifndef RUNNEL_ENGINE_SAMPLER_H
#define RUNNEL_ENGINE_SAMPLER_H

#include "base/error.h"

#include <stdbool.h>

struct sampler;

int sampler_create(uint32_t n_vocab, struct sampler **sampler, runnel_error *error);
void sampler_free(struct sampler *sampler);

/* RUNNEL_EINVAL, naming the field, for values that make no sense (NaN, negative temperature, top_p outside (0, 1], ...;
 * a logit_bias token outside the vocabulary). */
int sampler_check(const runnel_sampling *sampling, uint32_t n_vocab, runnel_error *error);

/* What a draw may look at besides the logits. */
struct sampler_context {
    const int32_t *tokens; /* prompt and answer so far */
    size_t n_tokens;
    uint64_t position;             /* of the token to be drawn: the counter of the random number */
    const uint32_t *allowed;       /* bit i % 32 of word i / 32: token i is allowed; NULL: all are */
    const runnel_logit_bias *bias; /* [n_bias] besides the sampling's own */
    size_t n_bias;
};

/* Draws a token. logits [n_vocab] are not changed. RUNNEL_ENUMERIC if the logits hold a NaN or +infinity, or if nothing
 * is allowed; RUNNEL_EINVAL if the latter and the request's own logit_bias forbids some. logprob (may be NULL): natural log of the token's probability under the model itself (softmax of the
 * unchanged logits). */
int sampler_draw(struct sampler *sampler, const runnel_sampling *sampling,
                 const struct sampler_context *context, const float *logits, int32_t *token, float *logprob,
                 runnel_error *error);

/* Whether a draw without a mask and a bias in its context takes the token with the largest logit, of equals the first, whatever the
 * other logits are. */
bool sampler_takes_best(const runnel_sampling *sampling);

struct sampler_choice {
    int32_t token;
    float logprob; /* natural log of its probability in a draw; -infinity: it could not be drawn */
};

/* Of the latest draw, which must have succeeded: choices[0] is token, which need not be the drawn one; then the likeliest
 * of the tokens that the draw chose from, n (at most RUNNEL_LOGPROBS_MAX) or as many as there were, the likeliest first, ties
 * in the order of ids. Probabilities are those after bias, penalties, mask, temperature and filters. Returns how many
 * choices were written: 1 to n + 1. */
size_t sampler_tell(const struct sampler *sampler, int32_t token, size_t n, struct sampler_choice *choices);

/* The counter-based generator itself: 64 random bits that depend on (seed, counter) alone. */
uint64_t sampler_random(uint64_t seed, uint64_t counter);

#endif
