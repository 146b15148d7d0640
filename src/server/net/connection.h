/* connection.h: what loop.c, listener.c, connection.c and exchange.c share; of no interest above them.
 *
 * A connection is in one state, and one function, connection_work, does all that can be done in it: it is entered from
 * the loop only, so that callbacks never run inside a call of the routes. What the routes change outside of it
 * (exchange.c) is written at once, and the rest left to the loop by connection_wake. The loop's thread only. */
#ifndef RUNNEL_SERVER_NET_CONNECTION_H
#define RUNNEL_SERVER_NET_CONNECTION_H

#include "base/text.h"
#include "server/net/exchange.h"
#include "server/net/loop.h"

#include <event2/event.h>
#include <event2/event_struct.h>
#include <pthread.h>
#include <stddef.h>

enum {
    CONNECTION_INPUT_BYTES = 65536, /* read at once, and kept unread at most (more if a head may be longer) */
    CONNECTION_TURN_REQUESTS = 16,  /* answered before others get their turn */
    CONNECTION_TURN_BYTES = 262144, /* read before others get their turn */
    CONNECTION_UNWRITTEN =
        16, /* answers that may wait for the client to read; then it is asked for no more requests */
    CONNECTION_IDLE_MS = 100,          /* after which a connection may have to make room for another */
    CONNECTION_LINGER_BYTES = 8388608, /* thrown away at most */
};

enum connection_state {
    CONNECTION_HEAD,   /* idle if no byte of a head is there */
    CONNECTION_BODY,   /* the head has been seen by on_head */
    CONNECTION_ANSWER, /* the exchange is handed over; nothing is read */
    CONNECTION_CLOSE,  /* the last answer is being written */
    CONNECTION_LINGER, /* all is written; what still comes is thrown away, as closing at once would reset the
                        * connection, and the answer could be lost */
};

struct connection {
    struct loop *loop;
    struct connection *previous, *next; /* of the loop */
    int descriptor;
    enum connection_state state;
    struct event
        io; /* edge-triggered: reading, writing, and the other side's FIN, for the connection's whole life */
    struct event timer;       /* of the state */
    struct event stall_timer; /* runs while output waits */
    struct event again; /* a timer of 0: connection_work in the loop's next turn, after others had theirs.
                                  * event_active would call it in this one */
    struct text input;  /* read; the first input_at bytes are used up */
    size_t input_at;
    struct evbuffer *output;
    uint64_t n_written; /* bytes of the output that the system has taken, in all */
    struct {
        uint64_t n_taken; /* of n_written, what the client's side has taken from the system, as last seen */
        double since_ms;  /* when that was seen to grow, or output began to wait */
        uint64_t whole_from; /* n_taken when the oldest of the whole answers that wait had come, */
        double whole_ms;     /* and when that was */
    } reading;
    struct exchange *unwritten,
        **unwritten_end; /* ended, their answers not all taken by the system; oldest first */
    uint32_t n_unwritten;
    struct http_head head;
    struct exchange *exchange; /* in BODY and ANSWER */
    double since_ms;           /* when the state began; idle since */
    bool readable;             /* there may be something to read */
    bool look_for_departure;
    bool end_of_input; /* the other side has shut down its half */
    bool head_began;
    bool is_newcomer; /* its first request has not been handed over */
    bool working;     /* connection_work is on the stack */
    bool broken;      /* to be dropped by connection_work */
    bool too_slow;    /* the connection ends because its client did not read in time */
    bool overloaded;  /* the client has been told so; a reset could take that back */
    bool
        left_to_system; /* all is written: closed without a reset, which would take back what was not read yet */
    bool dead;          /* to be freed by connection_work */
    unsigned turn_requests;
    size_t turn_bytes, linger_bytes;
};

struct exchange {
    struct loop *loop;
    struct connection *connection; /* NULL: gone */
    struct exchange *previous,
        *next; /* of the loop, if handed over; once it has ended, next of the connection's unwritten */
    struct http_head head;
    char *head_bytes;
    struct http_body body_reader;
    struct text body;
    void *user;
    uint32_t key;
    unsigned retry_s;
    double since_ms;
    int status; /* of the answer; 0: none yet */
    struct text headers;
    void (*on_gone)(struct exchange *exchange, void *user);
    void *gone_user;
    bool handed_over, streaming, chunked, comments, close_after;
    bool told_to_keep; /* its client was told that the connection stays open */
    bool cut;          /* its client reads too slowly: its stream ended early, or its answer was given up */
    bool written;      /* the system has taken all of its answer */
    uint64_t
        end_at; /* once it has ended: the connection's n_written when all of its answer will be with the system */
    max_align_t note[]; /* the routes' */
};

struct loop {
    struct loop_limits limits;
    struct loop_handlers handlers;
    struct event_base *base;
    struct event listener, listener_pause, mailbox_event, drain_timer;
    bool listening, draining, retiring;
    double yields_since_ms; /* a client is left to others from then on; 0: none is */
    int reserve; /* a descriptor to give up when there are no others, so that a client can be told */
    struct connection *connections;
    struct exchange *exchanges;
    struct loop_stats stats;
    uint64_t body_bytes; /* of the bodies that exchanges hold */
    size_t input_bytes;  /* CONNECTION_INPUT_BYTES, or more */
    char *scratch;       /* [input_bytes] */

    pthread_mutex_t mailbox_lock;
    struct loop_message *mailbox_first, **mailbox_end; /* mailbox_lock */
    int mailbox_descriptor;
};

/* loop.c */
void loop_arm(struct event *timer, double ms);
void loop_check_drained(struct loop *loop);

/* listener.c */
void listener_start(struct loop *loop);
void listener_stop(struct loop *loop);
void listener_event(evutil_socket_t descriptor, short what, void *loop);
void listener_pause_event(evutil_socket_t descriptor, short what, void *loop);

/* connection.c */
void connection_open(struct loop *loop, int descriptor);          /* owns the descriptor, also on failure */
void connection_refuse_socket(struct loop *loop, int descriptor); /* says 503 without allocating, closes */
void connection_say_overloaded(
    struct connection *connection);                    /* the same on a connection; to be dropped then */
bool connection_close_longest_idle(struct loop *loop); /* false: none is idle */
void connection_drain(struct connection *connection);  /* not from callbacks */
void connection_retire(struct connection *connection); /* waits for one more request, and not long */
void connection_drop(struct connection *connection);   /* at once; not from exchange.c */
void connection_flush(struct connection *connection);  /* writes what can be written */
void connection_wake(struct connection *connection);   /* flushes, and has the loop do the rest */
/* All of the answer is in the output; the exchange has left the loop, and ends once the system has taken all of it. */
void connection_answered(struct connection *connection, struct exchange *exchange, bool may_keep);

/* reading.c */
void reading_begin(struct connection *connection);       /* output waits that the system does not take */
void reading_begin_whole(struct connection *connection); /* an answer waits to which nothing will be added */
/* Lets the stall timer look again after a while. False: the client has been too slow, and it fires at once. */
bool reading_goes_on(struct connection *connection);

/* exchange.c */
struct exchange *exchange_create(struct connection *connection); /* NULL: no memory */
void exchange_free(struct exchange *exchange);
void exchange_hand_over(struct exchange *exchange);
void exchange_lost(struct exchange *exchange); /* the connection is gone: tells the routes, or frees */
void exchange_finish(
    struct exchange *exchange); /* its answer is written, or is given up: reports and frees */
void exchange_comment(struct exchange *exchange);
/* Ends a stream whose client reads too slowly after what is in the output; the loop tells the routes in its next turn. */
void exchange_cut(struct exchange *exchange);
/* The loop's own answer, the last one, also if there is no exchange; frees it. */
void exchange_refuse(struct connection *connection, int status, const char *message);

#endif
