/* step.h: one step of an engine, and the end of a request. The engine's thread alone calls these. */
#ifndef RUNNEL_ENGINE_STEP_H
#define RUNNEL_ENGINE_STEP_H

#include "engine/engine_state.h"

struct runnel_future *engine_future_of(struct scheduler_entry *entry);

/* Gives sequences to those whose turn it is, with what the cache has of their prompts. Each step begins with it. */
void engine_admit(struct runnel_engine *engine, double now_ms);
/* Plans and computes one step of those that were admitted, and counts what they drew. Returns false if there was nothing to compute. */
bool engine_step(struct runnel_engine *engine, double start_ms);
/* Each of them hears of what it drew in that step, or of its end. */
void engine_tell(struct runnel_engine *engine);
/* The request has ended, and this is how: tells it, gives back its pages and its place, wakes who waits. Nobody else ends
 * one. */
void engine_retire(struct runnel_engine *engine, struct runnel_future *future,
                   const struct answer_outcome *outcome);
/* The same for a request that could not go on. */
void engine_fail(struct runnel_engine *engine, struct runnel_future *future, const runnel_error *error);
/* The same for one that nobody wants any more. */
void engine_cancel(struct runnel_engine *engine, struct runnel_future *future);

#endif
