/* engine_state.h: the struct of an engine, and who of engine.c, step.c and sharing.c owns what of it. */
#ifndef RUNNEL_ENGINE_ENGINE_STATE_H
#define RUNNEL_ENGINE_ENGINE_STATE_H

#include "engine/draft.h"
#include "engine/forward.h"
#include "engine/request.h"
#include "engine/scheduler.h"

#include <stdatomic.h>

/* Something to be done on the engine thread while the caller waits. */
struct engine_call {
    void (*run)(struct runnel_engine *engine, void *arg);
    void *arg;
    bool done; /* guarded by the engine's lock, as is next */
    struct engine_call *next;
};

/* What a step draws for a request: a token, and behind each that was guessed one more. */
struct drawing {
    struct scheduler_item *item; /* of the plan; its entry is NULL once the request has ended */
    struct runnel_future *future;
    uint32_t
        first_logits; /* of the step's rows of logits, from 0: so many as its item has guesses, and one */
    struct answer_draw
        *draws; /* as many; n_draws of them were made. Each but the last one is what was guessed */
    uint32_t n_draws;
};

struct runnel_engine {
    /* Set at the start, and not changed after. */
    const struct runnel_model *model;
    struct request_limits limits;
    struct request_memory *memory;
    uint32_t n_batch, n_parallel, n_requests_max, keep_first, keep_last;
    double max_wait_ms;                         /* 0: none */
    double warm_up_prompt_ms, warm_up_token_ms; /* what was measured at the start, or told; 0: neither */
    pthread_t thread;
    bool has_thread;

    atomic_uint n_inside; /* calls of runnel.h that may look at this struct: see engine_enter */
    pthread_mutex_t lock; /* guards the fields up to the next comment */
    pthread_cond_t
        wake; /* for the engine thread: the inbox or `stopping` changed, or something was cancelled */
    pthread_cond_t called;       /* a call is done, or while stopping a thread has left */
    struct runnel_future *inbox; /* the latest first */
    struct engine_call *calls;   /* likewise */
    uint32_t n_requests;         /* submitted and not ended */
    bool poked, stopping;
    runnel_stats_values stats; /* a picture of the fields below */
    runnel_slot *slots;        /* [n_parallel] another */

    /* The engine thread's. */
    struct team *team;
    struct backend_device
        *device; /* that computes layers; NULL: none does. Opened before the thread starts */
    uint32_t n_device_layers;
    char why_no_device[sizeof((runnel_error *)NULL)
                           ->message]; /* that there is, for want of which all went on; "" */
    struct kvcache *cache;
    struct forward *forward;
    struct answer_scratch **scratches; /* one for each member of the team */
    struct scheduler *scheduler;
    struct drafts *drafts;      /* NULL: nothing is guessed */
    struct runnel_future *live; /* in the scheduler */
    struct forward_row *rows;   /* [n_batch] */
    uint32_t n_logits;          /* rows of logits at a time: n_parallel or more, and those of guesses */
    struct answer_draw *draws;  /* [n_logits] of this step, by row of logits */
    struct drawing *drawings;   /* [n_parallel] of this step; n_drawings of them in use */
    uint32_t n_drawings;
    float *logits;        /* of the step: the back end's */
    bool *best_is_enough; /* [n_logits] of this step, by row of logits: there are none, but the best token */
    int32_t *best;        /* [n_logits] */
    struct runnel_future **wanting; /* [n_parallel]: those that want a page of a prompt next, see sharing.c */
    uint64_t n_prompt_tokens, n_generated_tokens;
    uint64_t n_drafts, n_draft_tokens, n_draft_accepted;
    uint64_t n_prefix_groups; /* numbered so far, see scheduler.h */
    double last_step_ms;
};

#endif
