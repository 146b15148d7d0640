/* gauges.h: what a worker is doing now, told to the block that all workers share, and what all of them do together.
 *
 * A worker that is alone tells it once a second, for whoever watches it. Where there are others, also while requests run,
 * every 100 ms, and whenever one begins or ends, so that it does not matter which worker is asked: counters are told
 * before the answer that they count has reached its client. What a worker says of itself is looked up when it is asked.
 * The loop's thread only. */
#ifndef RUNNEL_SERVER_CORE_GAUGES_H
#define RUNNEL_SERVER_CORE_GAUGES_H

#include "server/limits/shared.h"

struct event;
struct server;

struct gauges {
    struct event *timer;
    bool hurries;           /* the timer is set to 100 ms */
    uint64_t n_descriptors; /* when they were counted last */
};

/* Tells from now on, until gauges_stop, which tells for the last time. Uses the loop's base. */
int gauges_start(struct server *server, runnel_error *error);
void gauges_stop(struct server *server); /* also if it was not started */

/* All of it is told now. */
void gauges_tell(struct server *server);
/* A request has begun, or is about to end: told now if there are other workers. Nothing after gauges_stop. */
void gauges_changed(struct server *server);

/* Reads what costs files of /proc once more: memory, descriptors. Before an answer that shows them. */
void gauges_refresh(struct server *server);

/* Sums over all workers; of memory's share and limit, levels of the breaker and the watchdog's times the worst. This worker's
 * part is as it is now. */
void gauges_sum(struct server *server, struct shared_gauges *sum);

/* The slots of all workers, in the order of their numbers; this worker's as they are now. Returns how many; 0: no memory.
 * *slots is to be freed. */
size_t gauges_slots(struct server *server, struct shared_slot **slots);

/* The place of this worker's first slot among those of all. */
size_t gauges_first_slot(const struct server *server);

#endif
