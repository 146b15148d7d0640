/* answer_start.h: the constraint that lets no answer end before it has begun: behind a thought, end tokens are not drawn until
 * something but white space has come, nor, from ANSWER_BLANKS_FREE tokens on, or where no more than so many are left of the n_answer that
 * thought and answer may have, more of that, nor tokens without text, unless it may call tools, which some models do with those. After
 * ANSWER_BLANKS_MAX tokens that show nothing all may come. What binds more, such as a grammar that allows nothing else, goes before. */
#ifndef RUNNEL_ENGINE_ANSWER_START_H
#define RUNNEL_ENGINE_ANSWER_START_H

#include "engine/constraint.h"
#include "model/tokenizer.h"

enum {
    ANSWER_BLANKS_FREE = 2, /* models have a line between thought and answer */
    ANSWER_BLANKS_MAX = 8,
};

int answer_start_create(const struct tokenizer *tokenizer, uint32_t n_answer, bool may_call,
                        struct constraint **constraint, runnel_error *error);

#endif
