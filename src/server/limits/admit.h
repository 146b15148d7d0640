/* admit.h: who is let in: how many requests run or wait, whose they are, and how many ran out of their time.
 *
 * Counts requests, not connections: each choice of `n` and each prompt of a batch is one. Routes that compute nothing
 * are not asked. Plain numbers, no clock; the loop's thread only.
 *
 * With more than one API key no key may hold more than ADMIT_SHARE times the places that are still free: alone it gets
 * most of them, and whoever comes next always finds some. */
#ifndef RUNNEL_SERVER_LIMITS_ADMIT_H
#define RUNNEL_SERVER_LIMITS_ADMIT_H

#include <stdbool.h>
#include <stdint.h>

enum {
    ADMIT_KEYS_MAX = 256, /* API keys; their ids are 1 and up, 0 is a request without a key */
    ADMIT_SHARE = 3,
};

struct admit {
    uint32_t n_max;      /* --limit-concurrency */
    uint32_t n_keys;     /* API keys there are */
    uint32_t n_requests; /* running or waiting now */
    uint32_t n_by_key[ADMIT_KEYS_MAX + 1];

    /* For the breaker and the metrics, since the start. */
    uint32_t n_timeouts_in_a_row; /* since the latest request that ended as it should */
    uint64_t n_timeouts;          /* --max-wait-s passed in the queue, or --request-timeout-s in all */
    uint64_t n_full;              /* refused: too many requests */
    uint64_t n_over_share;        /* refused: too many of this key */
    uint64_t n_slow;              /* refused: the predicted wait is past --max-wait-s */
};

void admit_init(struct admit *admit, uint32_t n_max, uint32_t n_keys);

enum admit_answer { ADMIT_TAKEN = 0, ADMIT_FULL, ADMIT_OVER_SHARE };

/* Takes places for n requests of a key, all or none. */
enum admit_answer admit_take(struct admit *admit, uint32_t key, uint32_t n);

/* Gives back places that admit_take gave. */
void admit_give(struct admit *admit, uint32_t key, uint32_t n);

/* The most that a key may hold when nobody else has any. */
uint32_t admit_share(const struct admit *admit);

/* How a request ended, if it was computed. Neither is told of one that was refused or whose client left. */
void admit_timed_out(struct admit *admit);
void admit_answered(struct admit *admit);

#endif
