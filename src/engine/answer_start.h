/* answer_start.h: the constraint that lets no answer end before it has begun: behind a thought, end tokens are not drawn until
 * something but white space has come, or ANSWER_BLANKS_MAX tokens of that. What binds more, such as a grammar that allows nothing
 * else, goes before. */
#ifndef RUNNEL_ENGINE_ANSWER_START_H
#define RUNNEL_ENGINE_ANSWER_START_H

#include "engine/constraint.h"
#include "model/tokenizer.h"

enum { ANSWER_BLANKS_MAX = 8 };

int answer_start_create(const struct tokenizer *tokenizer, struct constraint **constraint,
                        runnel_error *error);

#endif
