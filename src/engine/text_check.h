/* text_check.h: how a text fares with a constraint, token by token. Any thread. */
#ifndef RUNNEL_ENGINE_TEXT_CHECK_H
#define RUNNEL_ENGINE_TEXT_CHECK_H

#include "constrain/matcher.h"
#include "model/tokenizer.h"

/* Fills check, but for its size; n_vocab: the tokens that a mask has. A failure leaves in it how far the text came. */
int text_check(const struct tokenizer *tokenizer, struct automaton *automaton, uint32_t n_vocab,
               const char *text, size_t len, runnel_text_check *check, runnel_error *error);

#endif
