/* engine.h: requests become steps, steps become answers.
 *
 * A runnel_engine owns a thread, which alone touches the scheduler, the KV cache, the scratch of steps and
 * the requests that run. Other threads reach it through the inbox: requests to add, and calls to make between two steps. */
#ifndef RUNNEL_ENGINE_ENGINE_H
#define RUNNEL_ENGINE_ENGINE_H

#include "engine/forward.h"
#include "engine/request.h"
#include "engine/scheduler.h"

/* Something to be done on the engine thread while the caller waits. */
struct engine_call {
    void (*run)(struct runnel_engine *engine, void *arg);
    void *arg;
    bool done; /* guarded by the engine's lock, as is next */
    struct engine_call *next;
};

/* What a step draws for a request. */
struct drawing {
    struct runnel_future *future;
    float *logits; /* [n_vocab] */
    struct answer_draw draw;
};

struct runnel_engine {
    /* Set at the start, and not changed after. */
    const struct runnel_model *model;
    struct request_limits limits;
    struct request_memory *memory;
    uint32_t n_batch, n_parallel, n_requests_max, keep_first, keep_last;
    double max_wait_ms; /* 0: none */
    pthread_t thread;
    bool has_thread;

    pthread_mutex_t lock; /* guards the fields up to the next comment */
    pthread_cond_t
        wake; /* for the engine thread: the inbox or `stopping` changed, or something was cancelled */
    pthread_cond_t called;       /* a call is done */
    struct runnel_future *inbox; /* the latest first */
    struct engine_call *calls;   /* likewise */
    uint32_t n_requests;         /* submitted and not ended */
    bool poked, stopping;
    runnel_stats_values stats; /* a picture of the fields below */
    runnel_slot *slots;        /* [n_parallel] another */

    /* The engine thread's. */
    struct team *team;
    struct kvcache *cache;
    struct forward *forward;
    struct answer_scratch **scratches; /* one for each member of the team */
    struct scheduler *scheduler;
    struct runnel_future *live; /* in the scheduler */
    struct forward_row *rows;   /* [n_batch] */
    uint32_t n_logits;          /* rows of logits at a time: n_parallel or more */
    struct drawing *drawings;   /* [n_parallel] of this step; n_drawings of them in use */
    uint32_t n_drawings;
    uint64_t n_prompt_tokens, n_generated_tokens;
    uint64_t n_prefix_groups; /* numbered so far, see scheduler.h */
    double last_step_ms;
};

/* Runs call->run(engine, call->arg) on the engine thread, between two steps, and waits for it. */
void engine_call(struct runnel_engine *engine, void (*run)(struct runnel_engine *engine, void *arg),
                 void *arg);
/* The calling thread is the engine's own: on_event, on_taken or on_logits runs. */
bool engine_is_this_thread(const struct runnel_engine *engine);
/* RUNNEL_EINVAL there, for a function of that name that waits for the engine. */
int engine_check_thread(const struct runnel_engine *engine, const char *function, runnel_error *error);
#define ENGINE_WOULD_HANG                                                                                    \
    "called on the engine's own thread (from on_event, on_taken or on_logits): it would wait for itself"
/* Has the engine thread look at what was cancelled. Any thread. */
void engine_poke(struct runnel_engine *engine);

/* step.c; the engine thread's. */

struct runnel_future *engine_future_of(struct scheduler_entry *entry);

/* Admits, plans and computes one step. Returns false if there was nothing to compute. */
bool engine_step(struct runnel_engine *engine);
/* The request has ended, and this is how: tells it, gives back its pages and its place, wakes who waits. Nobody else ends
 * one. */
void engine_retire(struct runnel_engine *engine, struct runnel_future *future,
                   const struct answer_outcome *outcome);
/* The same for a request that could not go on. */
void engine_fail(struct runnel_engine *engine, struct runnel_future *future, const runnel_error *error);
/* The same for one that nobody wants any more. */
void engine_cancel(struct runnel_engine *engine, struct runnel_future *future);

/* sharing.c; the engine thread's. */

/* Of a prompt that has just come: tells the scheduler what the cache has, and with whose it begins alike. */
void engine_compare_prompt(struct runnel_engine *engine, struct runnel_future *future);
/* Before a step is planned: prompts take what others have computed of them, and the scheduler is told which ones
 * go on alike. */
void engine_share_pages(struct runnel_engine *engine);

#endif
