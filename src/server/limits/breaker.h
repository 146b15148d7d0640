/* breaker.h: how much a server takes on when it does not cope: less for each request, then none.
 *
 * A pure state machine: what happens comes in with its time, verdicts come out. Two things open it, each by itself:
 *
 * - Memory, this machine's or a GPU's, past a mark degrades, past a second mark, halfway from there to all of it, refuses. It closes by itself once
 *   memory has fallen some way below the mark. Most of a server's memory is touched when it starts, and does not
 *   go away: where that is already near the mark, the mark moves to halfway between it and all there is, so that a
 *   large model in a small container is not degraded for ever. What counts is growth.
 * - So many timeouts in a row degrade; as many among the requests that were degraded refuse. It closes by probing: after
 *   a while one request is treated as if the breaker were a step further closed. If it is answered, the breaker takes that step;
 *   if not, the next probe waits twice as long.
 *
 * While memory makes it refuse, a probe goes through now and then as well, since what holds the memory may be idle.
 * Requests that were taken before the latest step do not count: they tell of the past. One thread. */
#ifndef RUNNEL_SERVER_LIMITS_BREAKER_H
#define RUNNEL_SERVER_LIMITS_BREAKER_H

#include <stdbool.h>
#include <stdint.h>

struct shared_counters;

enum breaker_level { BREAKER_CLOSED = 0, BREAKER_DEGRADED = 1, BREAKER_REFUSING = 2 };

enum breaker_outcome {
    BREAKER_ANSWERED,
    BREAKER_TIMED_OUT,
    BREAKER_UNDECIDED, /* the client left, or it failed for a reason of its own */
};

struct breaker_limits {
    double memory_percent; /* the mark; 100: memory never opens it */
    unsigned n_timeouts;   /* in a row; 0: timeouts never open it */
    double probe_ms;       /* before the first probe; doubled for each that fails, up to 8 times */
};

enum breaker_memory_kind { BREAKER_MAIN_MEMORY, BREAKER_GPU_MEMORY, BREAKER_MEMORIES };

struct breaker_memory {
    double mark, margin;  /* percent; it closes below mark - margin */
    double ready_percent; /* used when the server was ready; negative: it is not */
    enum breaker_level level;
};

struct breaker {
    struct breaker_limits limits;
    struct breaker_memory memories[BREAKER_MEMORIES];
    enum breaker_level by_memory, by_timeouts; /* by_memory: of the memory that is fuller */
    unsigned n_timeouts;                       /* in a row, of this epoch */
    uint64_t epoch;                            /* steps so far */
    bool probing;                              /* a probe is on its way */
    double probe_at_ms, probe_wait_ms;
    struct shared_counters
        *counters; /* how often it opened, refused, degraded: of all workers, since the start */
};

/* counters live as long. */
void breaker_init(struct breaker *breaker, const struct breaker_limits *limits,
                  struct shared_counters *counters);

/* Other limits from now on; it stays as open as it is. */
void breaker_set_limits(struct breaker *breaker, const struct breaker_limits *limits);

/* The server is ready, with so much of a memory used: from now on that counts. */
void breaker_ready(struct breaker *breaker, enum breaker_memory_kind kind, double percent);

/* A memory as it is now, about once a second. */
void breaker_see_memory(struct breaker *breaker, enum breaker_memory_kind kind, double percent,
                        double now_ms);

enum breaker_level breaker_level(const struct breaker *breaker);
const char *breaker_reason(const struct breaker *breaker); /* "memory", ...; "" while closed. Static */

struct breaker_verdict {
    enum breaker_level level; /* how this request is to be treated */
    bool is_probe;
    uint64_t epoch;
};

/* A request has come. One that is not refused is to be followed by breaker_end. */
struct breaker_verdict breaker_admit(struct breaker *breaker, double now_ms);
void breaker_end(struct breaker *breaker, const struct breaker_verdict *verdict, enum breaker_outcome outcome,
                 double now_ms);

/* Would a request be refused? Changes nothing. */
bool breaker_would_refuse(const struct breaker *breaker, double now_ms);
/* Whole seconds until the next probe, at least 1. */
unsigned breaker_retry_after_s(const struct breaker *breaker, double now_ms);

#endif
