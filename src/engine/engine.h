/* engine.h: requests become steps, steps become answers.
 *
 * A runnel_engine (engine_state.h) owns a thread, which alone touches the scheduler, the KV cache, the scratch of steps and
 * the requests that run. Other threads reach it through the inbox: requests to add, and calls to make between two steps. */
#ifndef RUNNEL_ENGINE_ENGINE_H
#define RUNNEL_ENGINE_ENGINE_H

#include "engine/engine_state.h"

/* What a function of runnel.h does with its engine stands between these two: runnel_engine_stop frees the engine once all that
 * have entered it have left. They nest. Any thread. */
void engine_enter(struct runnel_engine *engine);
void engine_leave(struct runnel_engine *engine);

/* Runs run(engine, arg) on the engine thread, between two steps, and waits for it. RUNNEL_ECANCELLED once the engine is
 * being stopped. */
int engine_call(struct runnel_engine *engine, void (*run)(struct runnel_engine *engine, void *arg), void *arg,
                runnel_error *error);
#define ENGINE_IS_STOPPING "the engine is being stopped"
/* The calling thread is the engine's own: on_event, on_taken, on_ready, on_logits or on_inputs runs. */
bool engine_is_this_thread(const struct runnel_engine *engine);
/* RUNNEL_EINVAL there, for a function of that name that waits for the engine. */
int engine_check_thread(const struct runnel_engine *engine, const char *function, runnel_error *error);
#define ENGINE_WOULD_HANG                                                                                    \
    "called on the engine's own thread (from on_event, on_taken, on_ready, on_logits or on_inputs): it "     \
    "would wait for itself"
/* Has the engine thread look at what was cancelled. Any thread. */
void engine_poke(struct runnel_engine *engine);

#endif
