/* guessing.h: what a step computes in advance: which tokens may come next in its answers, and what became of that. The engine's
 * thread alone calls these. */
#ifndef RUNNEL_ENGINE_GUESSING_H
#define RUNNEL_ENGINE_GUESSING_H

#include "engine/engine_state.h"

/* Before each plan: has the scheduler give rows to the guesses that are worth them (n_draft of the entries). Without drafts it does
 * nothing, as do the others. */
void engine_guess(struct runnel_engine *engine);
/* A request has got a sequence. */
void engine_guess_begin(struct runnel_engine *engine, const struct runnel_future *future);
/* What was drawn for a request, whether its guesses were computed or not. */
void engine_guess_learn(struct runnel_engine *engine, const struct drawing *drawing);
/* An answer ends, and its sequence is still there. */
void engine_guess_end(struct runnel_engine *engine, const struct runnel_future *future);
/* The guessed token of a row of the item, counted from the first guess. */
int32_t engine_guessed_token(const struct runnel_engine *engine, const struct runnel_future *future,
                             uint32_t i);

#endif
