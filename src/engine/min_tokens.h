/* min_tokens.h: the constraint that lets no end token be drawn before an answer has so many others. */
#ifndef RUNNEL_ENGINE_MIN_TOKENS_H
#define RUNNEL_ENGINE_MIN_TOKENS_H

#include "engine/constraint.h"
#include "model/tokenizer.h"

/* The tokenizer lives longer than the constraint. */
int min_tokens_create(const struct tokenizer *tokenizer, uint32_t n_tokens, struct constraint **constraint,
                      runnel_error *error);

#endif
