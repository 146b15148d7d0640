/* shared.h: the block of memory that all processes of a server share.
 *
 * Made by whoever starts the server (shared_create), inherited by every process that is forked after that, under the same
 * address. Its size is fixed, for SHARED_WORKERS_MAX workers; what nobody uses is never touched. It holds numbers alone: no
 * pointer, no lock, nothing that anybody wrote, and of API keys their digests.
 *
 * A process may be killed at any instruction. So each number is an atomic, and a struct whose fields belong together is
 * kept in copies, of which one is valid (see "Copies" in shared.c): a reader gets the last one that was written whole, and
 * waits for nobody, alive or dead. Who writes what:
 *
 *     counters           everybody; they only grow, and belong to nobody
 *     a worker's record  that worker, between shared_join and its death; then whoever reaps it (shared_reap), once
 *     rules, service     the supervisor (a server that runs alone: itself)
 *     messages           a ring for each pair of sender and receiver
 *
 * Every function may be called by any process; within one process, what writes the same thing is for one thread (in a
 * worker the loop's). Adding to counters is for any thread. */
#ifndef RUNNEL_SERVER_LIMITS_SHARED_H
#define RUNNEL_SERVER_LIMITS_SHARED_H

#include "base/error.h"
#include "runnel.h"
#include "server/limits/keys.h"
#include "server/limits/monitor.h"
#include "server/net/loop.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

enum {
    SHARED_WORKERS_MAX = 32,                /* their numbers are 0 and up */
    SHARED_SUPERVISOR = SHARED_WORKERS_MAX, /* as sender and receiver of messages */
    SHARED_SLOTS_MAX = 256,                 /* of a worker: places in which its engine computes requests */
    SHARED_OUTCOMES = 8,                    /* of orders, that are kept */

    /* Room for what metrics.h counts. */
    SHARED_ROUTES = 16,
    SHARED_STATUSES = 32,
    SHARED_HISTOGRAMS = 16,
    SHARED_BUCKETS = 32,
};

struct shared;

/* A block of zeros. RUNNEL_ENOMEM. */
int shared_create(struct shared **shared, runnel_error *error);
/* Unmaps it in this process alone. NULL is fine. */
void shared_free(struct shared *shared);

/* When the server was started, in seconds since 1970: the time of shared_create. */
int64_t shared_created_s(const struct shared *shared);

/* Counters ------------------------------------------------------------------------------------------------ */

/* Numbers that a part of a worker counts by itself and for itself (its engine, its loop, its pool ...): the worker tells
 * them as they are now (shared_tell_totals), and what was new since it told them last is added here. */
enum shared_total {
    SHARED_PREFIX_QUERIES, /* runnel_stats */
    SHARED_PREFIX_HITS,
    SHARED_PROMPT_TOKENS,
    SHARED_GENERATED_TOKENS,
    SHARED_STEPS,
    SHARED_PREEMPTIONS,
    SHARED_DRAFTS,
    SHARED_DRAFT_TOKENS,
    SHARED_DRAFT_ACCEPTED,
    SHARED_CONNECTIONS_ACCEPTED, /* loop_stats */
    SHARED_CLIENTS_LEFT,
    SHARED_SLOW_READERS,
    SHARED_POOL_ALLOCATIONS, /* pool_get_stats */
    SHARED_POOL_REUSES,
    SHARED_POOL_REFUSALS,
    SHARED_LOG_LINES_LOST,
    SHARED_USER_US, /* processor time in microseconds */
    SHARED_SYSTEM_US,
    SHARED_TOTALS
};

/* How a worker ended: counted by whoever reaped it. */
enum shared_exit {
    SHARED_EXIT_CRASHED,  /* by a signal, or with a status that is not 0 */
    SHARED_EXIT_HUNG,     /* killed by the watchdog */
    SHARED_EXIT_RECYCLED, /* had its share of requests */
    SHARED_EXIT_STOPPED,  /* was asked to end: fewer workers, another model, the end of all */
    SHARED_EXITS
};

struct shared_histogram {
    _Atomic uint64_t counts[SHARED_BUCKETS]; /* each bucket by itself */
    _Atomic double sum;                      /* seconds */
};

/* All of them since shared_create. Fields are read and added to with shared_get, shared_add and shared_add_seconds. */
struct shared_counters {
    _Atomic uint64_t n_requests; /* metrics.c; with indices of metrics.h: */
    _Atomic uint64_t n_answers[SHARED_ROUTES][SHARED_STATUSES];
    _Atomic uint64_t n_slow_readers;
    _Atomic uint64_t n_finished[RUNNEL_FINISH_ERROR + 1];
    _Atomic uint64_t n_reasoning_tokens;
    _Atomic uint64_t n_thoughts[RUNNEL_THOUGHT_ASKED + 1]; /* by what ended them */
    struct shared_histogram histograms[SHARED_HISTOGRAMS];

    _Atomic uint64_t n_timeouts, n_full, n_over_share, n_slow; /* admit.h */
    _Atomic uint64_t n_opened_by_memory, n_opened_by_timeouts; /* breaker.h */
    _Atomic uint64_t n_refused, n_degraded;

    _Atomic uint64_t totals[SHARED_TOTALS]; /* of all workers there ever were */

    _Atomic uint64_t n_exits[SHARED_EXITS]; /* the supervisor's */
    _Atomic uint64_t n_reloads;             /* of keys and limits */
    _Atomic uint64_t n_swaps;               /* of the model */
};

struct shared_counters *shared_counters(struct shared *shared);

void shared_add(_Atomic uint64_t *counter, uint64_t n);
uint64_t shared_get(const _Atomic uint64_t *counter);
void shared_add_seconds(_Atomic double *sum, double seconds);
double shared_get_seconds(const _Atomic double *sum);

/* A worker's record --------------------------------------------------------------------------------------- */

enum shared_state {
    SHARED_NOBODY = 0, /* the record is free */
    SHARED_STARTING,   /* joined; its engine is not started yet */
    SHARED_READY,      /* answers */
    SHARED_DRAINING,   /* accepts nothing more */
};

/* What a worker is doing now. Numbers that grow are those of this worker since its start. */
struct shared_gauges {
    /* For the watchdog. All times are monotonic (clock_ms): the same clock in all processes. */
    double beat_ms; /* when this was told: once a second, if its loop gets on */
    double step_ms; /* since when its engine has done no step though requests wait; beat_ms or a moment before
                       it, while it gets on or has nothing to do */
    uint64_t n_steps;
    uint32_t n_running; /* requests let in that have not ended: it has work if this is not 0 */
    uint32_t is_wedged; /* no step for --wedged-s */
    uint64_t n_taken;   /* requests let in so far, for --limit-max-requests */

    uint32_t n_slots, n_preparing;               /* --parallel; long bodies being read */
    uint32_t n_engine_running, n_engine_waiting; /* runnel_stats */
    uint32_t n_kv_pages, n_kv_used, n_kv_cached, has_engine;
    uint64_t n_kv_bytes;
    uint32_t n_connections, n_exchanges; /* loop_stats */
    uint64_t pool_held_bytes, pool_peak_held_bytes, pool_limit_bytes, pool_in_use_bytes, n_pool_blocks;
    uint32_t breaker_by_memory, breaker_by_timeouts; /* enum breaker_level */
    double memory_percent;                           /* memory_read, as of the latest second */
    uint64_t memory_used_bytes, memory_limit_bytes;
    uint64_t virtual_bytes, resident_bytes;
    uint64_t ready_bytes; /* resident when it was ready; 0: it is not */
    uint64_t n_descriptors;
    uint32_t has_gpu;          /* 1: a GPU computes layers, and its memory is known */
    double gpu_memory_percent; /* of that what is in use, 0 to 100 */
};

/* One place in which a request is computed: runnel_slot. */
struct shared_slot {
    uint32_t is_processing, n_prompt_tokens, n_cached_tokens, n_computed, n_tokens, max_tokens;
};

/* A worker's own end of the block, in memory of its own. */
struct shared_worker {
    struct shared *shared;
    unsigned number;
    uint64_t told[SHARED_TOTALS];
};

/* This process is worker `number` from now on; its record must be free. It is in the state SHARED_STARTING. */
void shared_join(struct shared_worker *worker, struct shared *shared, unsigned number);
void shared_set_state(struct shared_worker *worker, enum shared_state state);
void shared_tell_gauges(struct shared_worker *worker, const struct shared_gauges *gauges);
void shared_tell_slots(struct shared_worker *worker, const struct shared_slot *slots, size_t n);
/* Adds what is new to the counters. Told by one thread of a process. */
void shared_tell_totals(struct shared_worker *worker, const uint64_t totals[SHARED_TOTALS]);

/* Of any worker. A record that is free has the state SHARED_NOBODY, pid 0, gauges of zeros and no slots. */
enum shared_state shared_state(const struct shared *shared, unsigned number);
pid_t shared_pid(const struct shared *shared, unsigned number);
void shared_read_gauges(const struct shared *shared, unsigned number, struct shared_gauges *gauges);
size_t shared_read_slots(const struct shared *shared, unsigned number,
                         struct shared_slot slots[SHARED_SLOTS_MAX]);
unsigned shared_n_workers(const struct shared *shared); /* records that are not free */

/* The worker is dead (waitpid has said so): its gauges and slots become zero, the places it held are free, messages to it are
 * dropped, its record is free. Counters stay, and so do messages from it: whoever gave an order was told its number, and waits for
 * what comes of it. Also of a record that is free already. */
void shared_reap(struct shared *shared, unsigned number);

/* Places of API keys -------------------------------------------------------------------------------------- */

/* A worker holds places for its requests, each for a key's seat (keys.h; 0: no key). What all workers hold is the sum of
 * what each one's record says, so that nothing is left of one that died. */
void shared_hold(struct shared_worker *worker, uint32_t seat, uint32_t n);
void shared_release(struct shared_worker *worker, uint32_t seat, uint32_t n);
uint64_t shared_held(const struct shared *shared);
uint64_t shared_held_by_seat(const struct shared *shared, uint32_t seat);

/* Connections whose first request this worker waits for: they count as requests in what shared_load says that a worker has
 * to do. */
void shared_expect(struct shared_worker *worker, uint32_t n);
uint64_t shared_load(const struct shared *shared, unsigned number);

/* Rules by generation ------------------------------------------------------------------------------------- */

/* What may be told anew to a server that runs. */
struct shared_limits {
    uint32_t n_requests; /* --limit-concurrency, of all workers together */
    double request_ms;   /* a request that takes longer in all is ended; 0: never */
    double drain_ms;     /* what runs may take so long once the server is to end */
    double retire_ms;    /* likewise of a worker that others replace; HUGE_VAL: as long as it takes */
    struct monitor_options monitor; /* memory_limit_bytes: of one worker */
    struct loop_limits loop;        /* of one worker */
};

/* API keys, the admin's keys and limits, which change together: a generation. */
struct shared_rules {
    struct keys keys;
    struct keys admin_keys; /* whoever shows one of these may give orders (admin.h); none: nobody may */
    struct shared_limits limits;
};

/* 0 before the first shared_write_rules, then one more each time. Costs one load: asked between two events of a loop, which
 * reads the rules into memory of its own when it has changed. */
uint64_t shared_generation(const struct shared *shared);
/* The latest ones that were written whole. Returns their generation; 0: there are none, and *rules is untouched. */
uint64_t shared_read_rules(const struct shared *shared, struct shared_rules *rules);
/* The next generation. Waits for no reader. A key that was in the generation before keeps its id, another gets one that no
 * key ever had: keys->ids are settled here (keys_carry_over), whatever the caller has put there. */
void shared_write_rules(struct shared *shared, const struct shared_rules *rules);

/* The supervisor ------------------------------------------------------------------------------------------ */

/* What came of an order. */
struct shared_outcome {
    uint64_t order;    /* its number (shared_message.id); 0: it has none, as that of a signal */
    int64_t code;      /* 0: it was carried out; else why not: RUNNEL_E... */
    char message[360]; /* in words; ends in a zero */
};

/* What the supervisor says of itself; all zeros where there is none. */
struct shared_service {
    int32_t pid;
    uint32_t n_workers_wanted;
    uint64_t model_generation; /* one more after each swap of the model */
    uint64_t answered;         /* the latest order with a number that was carried out or refused */
    uint64_t n_outcomes;       /* since the start */
    struct shared_outcome outcomes[SHARED_OUTCOMES]; /* the latest of them; see the next three functions */
};

void shared_add_outcome(struct shared_service *service, const struct shared_outcome *outcome);
/* Zeros: there was none yet. */
struct shared_outcome shared_latest_outcome(const struct shared_service *service);
/* Of one order; false: nothing came of it yet, or it is forgotten for SHARED_OUTCOMES later ones. */
bool shared_find_outcome(const struct shared_service *service, uint64_t order,
                         struct shared_outcome *outcome);

void shared_tell_service(struct shared *shared, const struct shared_service *service);
void shared_read_service(const struct shared *shared, struct shared_service *service);

/* A number for an order that no other order has, 1 and up. */
uint64_t shared_next_order(struct shared *shared);

/* Messages ------------------------------------------------------------------------------------------------ */

enum shared_kind {
    SHARED_ORDER_WORKERS = 1, /* to the supervisor: so many workers (value); id: shared_next_order */
    SHARED_ORDER_RELOAD, /* to the supervisor: read keys and limits again, and swap the model if it changed */
    /* To a worker (inbox.h): end the thoughts of its request; and to whoever asked that: value is what came of it. */
    SHARED_END_THOUGHTS,
    SHARED_ANSWER,
};

/* To a worker: id is the first 16 digits of a request's id (record.h), whose last two are the worker's number. What is not
 * known there any more is passed over. */
struct shared_message {
    uint64_t id;
    uint32_t kind; /* enum shared_kind */
    uint32_t value;
    uint32_t rest;      /* SHARED_END_THOUGHTS: the other 8 digits of the request's id, */
    uint32_t key;       /* whose request it must be, */
    uint64_t answer_id; /* and the id of the answer: the first 16 digits of that of the request that asks */
};

/* Puts it into the ring from one process to another: numbers of workers, or SHARED_SUPERVISOR. False: the ring is full (8
 * messages wait), or no such worker lives. Wakes nobody: a worker looks at its rings (inbox.h) while it has work, at least
 * every 100 ms; the supervisor wants a byte in its pipe. */
bool shared_send(struct shared *shared, unsigned from, unsigned to, const struct shared_message *message);
/* The next one for a receiver, from whomever. False: there is none. */
bool shared_receive(struct shared *shared, unsigned to, struct shared_message *message, unsigned *from);
/* For the supervisor: the order with the lowest number of those that wait, whoever sent it. */
bool shared_receive_order(struct shared *shared, struct shared_message *order);

#endif
