/* loop.h: the event loop: one thread that owns all sockets of a server.
 *
 * It accepts connections from a listening descriptor, reads requests (http.h), hands them to two callbacks as
 * exchanges (exchange.h) and writes the answers. It knows no routes and no engine. Slow, silent, greedy and vanished
 * clients cost what the limits say and nobody else's time.
 *
 * Every function here belongs to the loop's thread, except loop_post. Callbacks are never called from inside a
 * function of loop.h or exchange.h, except from loop_run and loop_free. */
#ifndef RUNNEL_SERVER_NET_LOOP_H
#define RUNNEL_SERVER_NET_LOOP_H

#include "base/error.h"
#include "server/net/http.h"

struct event_base;
struct exchange;
struct loop;

struct loop_limits {
    struct http_limits http;
    uint32_t n_connections; /* past it the longest idle one is closed; if none is idle, 503 */
    uint64_t
        all_body_bytes;    /* of the bodies that exchanges hold: all of them together; what is past it: 503 */
    uint32_t output_bytes; /* a stream whose client lets more than this pile up is ended */
    double head_ms;        /* from a head's first byte to its last: 408 */
    double body_ms;        /* the same for a body, which gets more time for every byte that came: */
    uint32_t body_bytes_per_s; /*     a body that comes at least this fast is never too slow */
    double keep_alive_ms;      /* a connection without a request is closed silently */
    double write_stall_ms;     /* the client reads nothing for so long: closed */
    /* From a whole answer it has to read so much, after write_stall_ms: what comes this fast is never too slow. */
    uint32_t answer_bytes_per_s;
    double linger_ms;      /* after a refusal, what is still being sent is read so that the answer arrives */
    double comment_ms;     /* a comment line in an event stream in which nothing came for so long */
    double retire_idle_ms; /* for loop_retire: how long a connection waits for one more request */
    bool accepts_while_drained; /* new requests are taken, for the routes to answer 503; else they stay in the
                                 * listening queue, for another process */
};

/* Those of reliability: 8 KiB target, 32 KiB and 100 headers, 2 MiB body, 64 MiB of bodies, 256 KiB output; 10 s for a head, 30 s and
 * 16 KiB/s for a body, 60 s idle, 30 s without reading, 16 KiB/s for a whole answer that is read, 1 s of lingering,
 * a comment after 15 s; 4096 connections; 2 s for one more request. */
extern const struct loop_limits loop_default_limits;

struct loop_handlers {
    /* Of several processes that accept from the same listener: how many connections this one may accept before it does
     * anything else; 0: another one has less to do, and gets a moment. NULL: as many as come. */
    unsigned (*n_to_accept)(void *user);
    /* So many connections are open whose first request has not been handed over. May be NULL. */
    void (*on_newcomers)(uint32_t n, void *user);
    /* A head has come, its body perhaps not. May answer with exchange_respond, and the body is not read; must keep
     * nothing otherwise. May be NULL. */
    void (*on_head)(struct exchange *exchange, void *user);
    /* All has come. From now on the exchange belongs to the callee, until it is answered. */
    void (*on_request)(struct exchange *exchange, void *user);
    /* A request was refused by the loop itself with this status, for the counters; exchange is NULL if its head had
     * not come, or not whole. May be NULL. */
    void (*on_refusal)(const struct exchange *exchange, int status, void *user);
    /* An exchange ends: the system has all of its answer, or its client has left or does not read, with or without having
     * been handed over. Called from inside the functions that end it, so it may only look. May be NULL. */
    void (*on_end)(const struct exchange *exchange, void *user);
    size_t note_bytes; /* see exchange_note */
    void *user;
};

/* Makes a loop without a listener. From now on the process ignores SIGPIPE. */
int loop_create(const struct loop_limits *limits, const struct loop_handlers *handlers, struct loop **loop,
                runnel_error *error);

/* Other limits from now on; those of heads, and whether it accepts while it drains, stay as they were. */
void loop_set_limits(struct loop *loop, const struct loop_limits *limits);

/* Closes all connections (on_gone is called for exchanges that are not answered) and frees the loop. Exchanges that
 * were not ended in on_gone are freed with it. No message may be posted any more; those not delivered are dropped. */
void loop_free(struct loop *loop);

/* Accepts from this listening socket, which becomes non-blocking and stays the caller's. Once for each loop. */
int loop_listen(struct loop *loop, int descriptor, runnel_error *error);

/* For signals and timers of the caller. */
struct event_base *loop_base(struct loop *loop);

/* Runs until loop_stop, or until drained. */
int loop_run(struct loop *loop, runnel_error *error);
void loop_stop(struct loop *loop);

/* Instead of loop_run, once nothing is to be answered any more: writes what clients have not taken yet, for ms at most. */
void loop_write_rest(struct loop *loop, double ms);

/* No new connections (see accepts_while_drained); idle ones are closed, half-read requests refused with 503, running
 * exchanges finish. When none is left, or after deadline_ms, loop_run returns. */
void loop_drain(struct loop *loop, double deadline_ms);
bool loop_is_draining(const struct loop *loop);

/* Another process accepts from the listener: nothing more is accepted here, even with accepts_while_drained. Connections that are
 * open are served on, and each is closed with its next answer, or after retire_idle_ms without a request: no client that
 * was told that it may send another one finds its connection closed. When none is left, or after deadline_ms (HUGE_VAL: never), loop_run
 * returns.
 * loop_drain may follow, after which new requests are taken as it says. */
void loop_retire(struct loop *loop, double deadline_ms);

struct loop_stats {
    uint64_t n_accepted, n_requests, n_refusals; /* since the start, as all of: */
    uint64_t n_gone;                             /* on_gone was due: gone before they were answered */
    uint64_t n_left, n_slow_readers; /* answers that did not reach their client: it left, it did not read */
    uint32_t n_connections, n_exchanges; /* now; n_exchanges counts those handed over */
    uint32_t n_newcomers;                /* now: connections of which no request was handed over yet */
};
struct loop_stats loop_stats(const struct loop *loop);

/* A message to the loop's thread. It lies in the sender's own struct, so that posting allocates nothing and cannot
 * fail; it belongs to the loop from loop_post until run is called. */
struct loop_message {
    void (*run)(void *user);
    void *user;
    struct loop_message *next; /* the loop's */
};

/* Any thread. Messages of one thread run in the order in which they were posted. */
void loop_post(struct loop *loop, struct loop_message *message);

#endif
