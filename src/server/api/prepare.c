/* prepare.c: long bodies, and what takes long, read beside the loop. See prepare.h.
 *
 * A preparation belongs to whoever holds it: the queue, then the thread, then the mailbox of the loop, and after its
 * start the queue once more, since taking a large JSON tree apart takes milliseconds, too. There it goes first: a tree
 * is twenty times its body, and those of all that wait would be a gigabyte. The loop keeps a list of those not
 * started, to refuse them; it takes one out of the queue itself, and waits for one that is being read, as the thread
 * then uses the body of its exchange.
 */
#include "server/api/prepare.h"

#include "base/clock.h"
#include "base/thread.h"
#include "server/api/reply.h"
#include "server/core/job.h"
#include "server/core/record.h"

#include <event2/event.h>
#include <event2/event_struct.h>
#include <pthread.h>
#include <stdalign.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

struct preparation {
    const struct server *server; /* what `read` may see of it */
    const struct prepare_steps *steps;
    struct prepare_input input;
    bool is_read; /* by the loop's thread: only the rest is left */
    int failure;  /* of read and read_rest */
    struct refusal refusal;

    struct preparation *next_queued; /* with is_queued and is_started: guarded by the preparer's lock */
    bool is_queued, is_started;      /* started: only to be freed */

    struct preparer *preparer; /* the loop's from here on */
    struct exchange *exchange;
    struct preparation *previous, *next; /* of those not started */
    struct event timer;                  /* --request-timeout-s */
    bool timed_out;
    struct loop_message done;
    alignas(max_align_t) char state[];
};

struct preparer {
    struct server *server;
    pthread_t thread;
    struct preparation *held; /* not started; the loop's */
    bool is_ending;           /* the loop's */

    pthread_mutex_t lock; /* guards the rest */
    pthread_cond_t changed;
    struct preparation *first, **end; /* the queue */
    bool stops;
};

static void free_preparation(struct preparation *preparation)
{
    if (preparation->steps->free_state)
        preparation->steps->free_state(preparation->state);
    free(preparation);
}

/* Reading ------------------------------------------------------------------------------------------------- */

static void read_input(struct preparation *preparation)
{
    preparation->failure = preparation->steps->read(preparation->server, &preparation->input,
                                                    preparation->state, &preparation->refusal);
    preparation->is_read = true;
}

static bool has_rest(struct preparation *preparation)
{
    const struct prepare_steps *steps = preparation->steps;
    return !preparation->failure && steps->takes_long &&
           steps->takes_long(preparation->server, preparation->state);
}

static void read_all(struct preparation *preparation)
{
    if (!preparation->is_read)
        read_input(preparation);
    if (has_rest(preparation))
        preparation->failure =
            preparation->steps->read_rest(preparation->server, preparation->state, &preparation->refusal);
}

/* The preparer's thread ----------------------------------------------------------------------------------- */

/* Waits for one. NULL: the end. */
static struct preparation *next_in_queue(struct preparer *preparer)
{
    pthread_mutex_lock(&preparer->lock);
    while (!preparer->first && !preparer->stops)
        pthread_cond_wait(&preparer->changed, &preparer->lock);
    struct preparation *preparation = preparer->stops ? NULL : preparer->first;
    if (preparation) {
        preparer->first = preparation->next_queued;
        if (!preparer->first)
            preparer->end = &preparer->first;
        preparation->is_queued = false;
    }
    pthread_mutex_unlock(&preparer->lock);
    return preparation;
}

static void *work(void *user)
{
    struct preparer *preparer = user;
    struct loop *loop = preparer->server->loop;
    struct preparation *preparation;
    thread_begin("runnel-preparer");
    while ((preparation = next_in_queue(preparer))) {
        if (preparation->is_started) {
            free_preparation(preparation);
            continue;
        }
        read_all(preparation);
        loop_post(loop, &preparation->done);
    }
    return NULL;
}

/* The loop's thread --------------------------------------------------------------------------------------- */

static void enqueue(struct preparation *preparation)
{
    struct preparer *preparer = preparation->preparer;
    pthread_mutex_lock(&preparer->lock);
    struct preparation **place = preparation->is_started ? &preparer->first : preparer->end;
    preparation->next_queued = *place;
    preparation->is_queued = true;
    *place = preparation;
    if (!preparation->next_queued)
        preparer->end = &preparation->next_queued;
    pthread_cond_signal(&preparer->changed);
    pthread_mutex_unlock(&preparer->lock);
}

/* False: it is being read, or has been. */
static bool take_from_queue(struct preparation *preparation)
{
    struct preparer *preparer = preparation->preparer;
    pthread_mutex_lock(&preparer->lock);
    bool was_queued = preparation->is_queued;
    if (was_queued) {
        struct preparation **place = &preparer->first;
        while (*place != preparation)
            place = &(*place)->next_queued;
        *place = preparation->next_queued;
        if (!*place)
            preparer->end = place;
        preparation->is_queued = false;
    }
    pthread_mutex_unlock(&preparer->lock);
    return was_queued;
}

static void hold(struct preparation *preparation)
{
    struct preparer *preparer = preparation->preparer;
    preparation->next = preparer->held;
    if (preparation->next)
        preparation->next->previous = preparation;
    preparer->held = preparation;
    preparer->server->n_preparing++;
}

static void let_go(struct preparation *preparation)
{
    struct preparer *preparer = preparation->preparer;
    if (preparation->previous)
        preparation->previous->next = preparation->next;
    else
        preparer->held = preparation->next;
    if (preparation->next)
        preparation->next->previous = preparation->previous;
    preparer->server->n_preparing--;
}

/* Why it is not to be started; false if it is. */
static bool is_refused(struct preparation *preparation)
{
    struct server *server = preparation->preparer->server;
    struct refusal *refusal = &preparation->refusal;
    runnel_error error;
    if (exchange_is_gone(preparation->exchange)) {
        *refusal = (struct refusal){.status = 499, .message = "the client has left"};
    } else if (preparation->preparer->is_ending) {
        *refusal = (struct refusal){.status = 503, .message = "the server shuts down"};
    } else if (preparation->timed_out) {
        job_set_timeout_error(server, &error);
        reply_refuse_error(&error, refusal);
        admit_timed_out(&server->admit);
    } else {
        return preparation->failure != 0;
    }
    return true;
}

/* An answer may take minutes: meanwhile others need the room of its body. */
static void pass_on(struct server *server, struct preparation *preparation, const struct refusal *refusal)
{
    exchange_drop_body(preparation->exchange);
    preparation->steps->start(server, preparation->exchange, preparation->state, refusal);
}

/* The thread does not have it any more, or never had. */
static void start(struct preparation *preparation)
{
    struct preparer *preparer = preparation->preparer;
    struct server *server = preparer->server;
    struct exchange *exchange = preparation->exchange;
    bool refused = is_refused(preparation);
    let_go(preparation);
    event_del(&preparation->timer);
    exchange_set_gone(exchange, NULL, NULL);
    admit_give(&server->admit, exchange_key(exchange), 1); /* a job takes as many as it needs */
    pass_on(server, preparation, refused ? &preparation->refusal : NULL);
    preparation->is_started = true; /* nobody else has it: no lock */
    if (preparer->is_ending)
        free_preparation(preparation);
    else
        enqueue(preparation);
}

static void on_done(void *user)
{
    start(user);
}

static void start_if_queued(struct preparation *preparation)
{
    if (take_from_queue(preparation))
        start(preparation);
}

static void on_gone(struct exchange *exchange, void *user)
{
    (void)exchange;
    start_if_queued(user);
}

static void on_timeout(evutil_socket_t descriptor, short what, void *user)
{
    (void)descriptor;
    (void)what;
    struct preparation *preparation = user;
    preparation->timed_out = true;
    start_if_queued(preparation);
}

static void prepare_beside(struct preparation *preparation)
{
    struct server *server = preparation->preparer->server;
    struct exchange *exchange = preparation->exchange;
    runnel_error error;
    if (job_take_places(server, exchange_key(exchange), 1, &error)) {
        reply_refuse_error(&error, &preparation->refusal);
        preparation->steps->start(server, exchange, preparation->state, &preparation->refusal);
        free_preparation(preparation);
        return;
    }
    hold(preparation);
    preparation->done = (struct loop_message){.run = on_done, .user = preparation};
    evtimer_assign(&preparation->timer, loop_base(server->loop), on_timeout, preparation);
    job_start_timer(server, exchange, &preparation->timer);
    exchange_set_gone(exchange, on_gone, preparation);
    enqueue(preparation);
}

void prepare_request(struct server *server, struct exchange *exchange, const struct prepare_steps *steps,
                     void *state)
{
    static const struct refusal no_memory = {.status = 503, .message = "no memory for the request"};
    struct preparation *preparation = calloc(1, sizeof *preparation + steps->state_bytes);
    record_of(exchange)->began_ms = clock_ms();
    if (!preparation) {
        steps->start(server, exchange, state, &no_memory);
        return;
    }
    preparation->server = server;
    preparation->preparer = server->preparer;
    preparation->exchange = exchange;
    preparation->steps = steps;
    preparation->input = (struct prepare_input){exchange_body(exchange), exchange_query(exchange)};
    memcpy(preparation->state, state, steps->state_bytes);
    bool is_long = preparation->input.body.len > PREPARE_SHORT_BYTES;
    bool may_wait = server->preparer && !server->preparer->is_ending;
    if (!is_long || !may_wait)
        read_input(preparation);
    if (may_wait && (is_long || has_rest(preparation))) {
        prepare_beside(preparation);
        return;
    }
    read_all(preparation);
    pass_on(server, preparation, preparation->failure ? &preparation->refusal : NULL);
    free_preparation(preparation);
}

int prepare_begin(struct server *server, runnel_error *error)
{
    struct preparer *preparer = calloc(1, sizeof *preparer);
    if (!preparer)
        return error_set(error, RUNNEL_ENOMEM, "no memory for the thread that reads long bodies");
    preparer->server = server;
    preparer->end = &preparer->first;
    pthread_mutex_init(&preparer->lock, NULL);
    pthread_cond_init(&preparer->changed, NULL);
    if (thread_start(&preparer->thread, work, preparer)) {
        pthread_mutex_destroy(&preparer->lock);
        pthread_cond_destroy(&preparer->changed);
        free(preparer);
        return error_set(error, RUNNEL_ENOMEM, "no thread to read long bodies on");
    }
    server->preparer = preparer;
    return RUNNEL_OK;
}

void prepare_end(struct server *server)
{
    struct preparer *preparer = server->preparer;
    if (!preparer)
        return;
    preparer->is_ending = true;
    for (struct preparation *preparation = preparer->held, *next; preparation; preparation = next) {
        next = preparation->next;
        start_if_queued(preparation);
    }
    pthread_mutex_lock(&preparer->lock);
    preparer->stops = true;
    pthread_cond_signal(&preparer->changed);
    pthread_mutex_unlock(&preparer->lock);
    pthread_join(preparer->thread, NULL);
    while (preparer->held) /* what the thread was reading is in the mailbox */
        event_base_loop(loop_base(server->loop), EVLOOP_ONCE);
    while (preparer->first) {
        struct preparation *preparation = preparer->first;
        preparer->first = preparation->next_queued;
        free_preparation(preparation);
    }
    pthread_mutex_destroy(&preparer->lock);
    pthread_cond_destroy(&preparer->changed);
    free(preparer);
    server->preparer = NULL;
}
