/* mailbox.h: the events of a request that wait to be taken, by runnel_next.
 *
 * The engine's thread puts in copies, one other thread at a time takes them out, in order. A copy lives in the request's
 * pool; the latest one taken stays valid until the next is taken. The end needs no memory: it is always told. */
#ifndef RUNNEL_ENGINE_MAILBOX_H
#define RUNNEL_ENGINE_MAILBOX_H

#include "base/pool.h"
#include "runnel.h"

#include <pthread.h>

struct mail; /* a copy of an event */

struct mailbox {
    struct pool *pool;
    void (*on_ready)(void *user); /* on the putting thread, from empty to not empty; may be NULL */
    void *user;

    pthread_mutex_t lock; /* guards what follows */
    pthread_cond_t changed;
    struct mail *first, **end;
    struct mail *taken; /* the latest one */
    bool has_end, end_is_taken;
    runnel_event end_event;
    int descriptor; /* readable while something waits; -1: nobody has asked for it */
};

void mailbox_open(struct mailbox *mailbox, struct pool *pool, void (*on_ready)(void *user), void *user);
void mailbox_close(struct mailbox *mailbox);

/* Copies an event and all that it points to, but the texts of its counts. False: there was no memory for it. */
bool mailbox_put(struct mailbox *mailbox, const runnel_event *event);
/* The last event: what it points to outlives the mailbox. */
void mailbox_put_end(struct mailbox *mailbox, const runnel_event *event);

/* The next event, or NULL if there is none within timeout_ms (negative: waits as long as it takes), and at once once the
 * last one was taken. It lives until the next call. */
const runnel_event *mailbox_take(struct mailbox *mailbox, int timeout_ms);

/* A descriptor that is readable while an event waits, made when it is first asked for and closed with the mailbox. -1 and
 * errno if there can be none. */
int mailbox_descriptor(struct mailbox *mailbox);

#endif
