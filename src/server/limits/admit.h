/* admit.h: who is let in: how many requests run or wait, whose they are, and how many ran out of their time.
 *
 * Counts requests, not connections: each choice of `n` and each prompt of a batch is one. Routes that compute nothing
 * are not asked. The limit and the shares are of all workers together: what a worker holds stands in its record of the
 * shared block. No clock; the loop's thread only.
 *
 * With more than one API key no key may hold more than ADMIT_SHARE times the places that are still free: alone it gets
 * most of them, and whoever comes next always finds some. */
#ifndef RUNNEL_SERVER_LIMITS_ADMIT_H
#define RUNNEL_SERVER_LIMITS_ADMIT_H

#include <stdbool.h>
#include <stdint.h>

enum { ADMIT_SHARE = 3 };

struct shared_worker;

struct admit {
    struct shared_worker *worker; /* what is counted since the start is told to its block */
    uint32_t n_max;               /* --limit-concurrency */
    uint32_t n_keys;              /* API keys there are */
    uint64_t n_taken;             /* places taken by this worker so far */
    uint32_t n_timeouts_in_a_row; /* of this worker, since its latest request that ended as it should */
};

/* worker lives as long. */
void admit_init(struct admit *admit, struct shared_worker *worker, uint32_t n_max, uint32_t n_keys);

/* From now on other limits: who holds more than them keeps it. */
void admit_set_limits(struct admit *admit, uint32_t n_max, uint32_t n_keys);

/* Requests that run or wait now, in all workers; those of a key. */
uint32_t admit_n_requests(const struct admit *admit);
uint32_t admit_n_of_key(const struct admit *admit, uint32_t key);

enum admit_answer { ADMIT_TAKEN = 0, ADMIT_FULL, ADMIT_OVER_SHARE };

/* Takes places for n requests of a key (its id; 0: none), all or none. Of workers that ask for the last place at the same
 * moment one gets it; never do they have more than there are. */
enum admit_answer admit_take(struct admit *admit, uint32_t key, uint32_t n);

/* Gives back places that admit_take gave. */
void admit_give(struct admit *admit, uint32_t key, uint32_t n);

/* How many connections may be accepted before anything else is done: UINT_MAX where this worker is alone; else so many that
 * it holds an eighth and one more than the worker with the fewest requests of those that are ready, or none if it does.
 * Connections whose first request has not come count, too: see shared_expect. */
unsigned admit_n_connections(const struct admit *admit);

/* A request is refused because it would wait too long. */
void admit_too_slow(struct admit *admit);

/* The most that a key may hold when nobody else has any. */
uint32_t admit_share(const struct admit *admit);

/* How a request ended, if it was computed. Neither is told of one that was refused or whose client left. */
void admit_timed_out(struct admit *admit);
void admit_answered(struct admit *admit);

#endif
