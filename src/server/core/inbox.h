/* inbox.h: what workers ask each other about their requests: messages of the block that they share (shared.h).
 *
 * A request's id says which worker has it. Whichever worker is asked to do something to it sends that one a message, and waits
 * for its answer without holding up its loop. A worker looks at its inbox with each of its gauges, which is every 100 ms while
 * it has requests and company, and every 10 ms while it waits for an answer. The loop's thread only. */
#ifndef RUNNEL_SERVER_CORE_INBOX_H
#define RUNNEL_SERVER_CORE_INBOX_H

#include "base/error.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct event;
struct inbox_question;
struct record_id;
struct server;

struct inbox {
    struct event *timer;            /* while questions wait */
    struct inbox_question *waiting; /* for their answers */
};

/* A question on its way: memory of whoever asks, until its answer has come or it was dropped. */
struct inbox_question {
    /* The answer: an enum job_control; or, with is_late, there was none in time, and nobody knows what came of it. */
    void (*on_answer)(struct inbox_question *question, uint32_t answer, bool is_late);

    /* The inbox's own. */
    struct server *server;
    struct inbox_question *previous, *next;
    uint64_t id; /* of its answer */
    unsigned worker;
    pid_t pid; /* of it: another process may take its number */
    double until_ms;
};

int inbox_start(struct server *server, runnel_error *error); /* uses the loop's base */
void inbox_stop(struct server *server); /* also if it was not started; questions that wait get no answer */

/* Asks the worker that has the request `id` to end its thoughts if it is that key's; asker is the id of the request that
 * wants it, of this worker. False: that worker's inbox is full, or there is no such worker; on_answer is not called then. */
bool inbox_ask_to_end_thoughts(struct server *server, struct inbox_question *question,
                               const struct record_id *id, uint32_t key, const struct record_id *asker);
/* Nobody wants its answer any more. */
void inbox_drop(struct inbox_question *question);

/* Takes the messages that have come: does what is asked, and hands out answers. */
void inbox_look(struct server *server);

#endif
