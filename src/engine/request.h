/* request.h: one request on its way: prompt in, tokens drawn, text and events out.
 *
 * A runnel_future is the request itself. Its answer, from logits to text, is answer.h's. It has two holders, whoever submitted it and, until it is done, the engine; the
 * last one to let go frees it. Until it is submitted it belongs to the submitting thread, from then on to the engine thread, except for the
 * fields that say otherwise. */
#ifndef RUNNEL_ENGINE_REQUEST_H
#define RUNNEL_ENGINE_REQUEST_H

#include "base/pool.h"
#include "engine/answer.h"
#include "engine/mailbox.h"
#include "engine/model.h"
#include "engine/scheduler.h"

#include <pthread.h>
#include <stdatomic.h>

/* The memory pool of an engine's requests. It outlives the engine if futures do: whoever lets go last frees it. */
struct request_memory {
    struct pool *pool;
    atomic_uint n_holders; /* the engine, and every request */
};

int request_memory_create(size_t limit_bytes, struct request_memory **memory, runnel_error *error);
/* For the engine at its end. Returns how many requests are still held by whoever submitted them. */
unsigned request_memory_let_go(struct request_memory *memory); /* NULL is fine */

struct runnel_future {
    struct runnel_engine *engine;
    struct request_memory *memory; /* the request itself lies there, and the answer's tokens */

    /* Set when the request is made, and not changed after. */
    bool tells_counts, tells_progress;
    bool wants_events; /* they go to the mailbox, if not to on_event */
    bool (*on_event)(void *user, const runnel_event *event);
    void (*on_taken)(void *user);
    void *user;

    /* What the scheduler knows of the request, and the only place where it stands: whose it is, the lengths of prompt and
     * answer, when it came. The caller's part is set when the request is made; then it is the engine thread's. */
    struct scheduler_entry entry;

    /* The engine thread's. */
    struct answer answer; /* with the prompt's tokens */
    int sequence;         /* of the KV cache; -1: none */
    int slot;             /* the latest sequence */
    uint32_t n_cached;    /* tokens of the prompt that were not computed, before the first token */
    int64_t n_told;       /* positions that the latest PROMPT event told; -1: there was none */
    enum runnel_finish_reason finish_reason;
    runnel_error error;    /* for RUNNEL_FINISH_ERROR */
    runnel_response final; /* what FINISH tells; its texts are the answer's */
    bool lost_event;       /* there was no memory for one: the request fails */
    double stall_ms;
    uint32_t n_draft_tokens, n_draft_accepted; /* guesses that were computed, and that came true */
    struct runnel_future *next; /* in the inbox: guarded by the engine's lock; then in the engine's list */

    /* Any thread's. */
    struct mailbox mailbox;
    atomic_bool cancelled, thought_end_wished;
    pthread_mutex_t events; /* held while on_event runs; guards muted */
    bool muted;             /* no more events: the submitter has let go */
    pthread_mutex_t lock;
    pthread_cond_t done_changed;
    bool done;      /* these three are guarded by lock; nothing else changes once done is true */
    bool in_engine; /* submitted, and not done */
    bool let_go;    /* by whoever submitted it */
};

struct request_limits {
    uint32_t n_context;   /* a prompt must leave room for a token */
    uint32_t n_positions; /* prompt and answer together: n_context, or more with a window */
    int answer_reserve;   /* as runnel_engine_options has it */
};

/* Checks the request, renders and encodes its prompt, makes room for its answer. Any thread. Free with
 * request_let_go. */
int request_create(const struct runnel_model *model, const struct request_limits *limits,
                   struct request_memory *memory, const runnel_request *request,
                   struct runnel_future **future, runnel_error *error);
/* The tokens of the request's prompt, appended to tokens. */
int request_encode(const struct runnel_model *model, const runnel_request *request, struct token_list *tokens,
                   runnel_error *error);
/* The same as text; *text to be freed. */
int request_render(const struct runnel_model *model, const runnel_request *request, char **text, size_t *len,
                   runnel_error *error);
/* No more events: waits for the one that may be running, but within it for nothing. */
void request_mute(struct runnel_future *future);
/* For whoever submitted it, or wanted to. */
void request_let_go(struct runnel_future *future);

/* The engine has it in its queue. */
void request_tell_taken(struct runnel_future *future);
/* Emits the prompt event if it is wanted and more is computed than the latest one told. False to end the request. */
bool request_tell_progress(struct runnel_future *future);
/* Keeps how it ended and emits the finish event. It is not done before request_set_done. */
void request_end(struct runnel_future *future, const struct answer_outcome *outcome);
/* Wakes who waits: the engine lets go, and does not touch the request again. */
void request_set_done(struct runnel_future *future);

/* The response so far; its texts stay the request's. */
void request_describe(const struct runnel_future *future, runnel_response *response);

#endif
