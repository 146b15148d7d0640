/* admit.c: who is let in. See admit.h. */
#include "server/limits/admit.h"

#include "server/limits/shared.h"

#include <limits.h>

enum {
    TRIES = 16,      /* to take what is free */
    LOOKS_APART = 8, /* of two workers, in which one has taken and looked */
};

static struct shared_counters *counters(struct admit *admit)
{
    return shared_counters(admit->worker->shared);
}

void admit_init(struct admit *admit, struct shared_worker *worker, uint32_t n_max, uint32_t n_keys)
{
    *admit = (struct admit){.worker = worker, .n_max = n_max, .n_keys = n_keys};
}

void admit_set_limits(struct admit *admit, uint32_t n_max, uint32_t n_keys)
{
    admit->n_max = n_max;
    admit->n_keys = n_keys;
}

uint32_t admit_n_requests(const struct admit *admit)
{
    return (uint32_t)shared_held(admit->worker->shared);
}

uint32_t admit_n_of_key(const struct admit *admit, uint32_t key)
{
    return (uint32_t)shared_held_by_seat(admit->worker->shared, keys_seat(key));
}

uint32_t admit_share(const struct admit *admit)
{
    uint64_t share = (uint64_t)admit->n_max * ADMIT_SHARE / (ADMIT_SHARE + 1);
    return admit->n_keys < 2 ? admit->n_max : share ? (uint32_t)share : 1;
}

/* Would so many in all, and so many of one key, be too many? A key that holds nothing may always take one place, if there
 * is one. */
static enum admit_answer judge(const struct admit *admit, uint64_t n_requests, uint64_t n_of_key)
{
    if (n_requests > admit->n_max)
        return ADMIT_FULL;
    if (admit->n_keys > 1 && n_of_key > 1 && n_of_key > ADMIT_SHARE * (admit->n_max - n_requests))
        return ADMIT_OVER_SHARE;
    return ADMIT_TAKEN;
}

/* With n more than now. */
static enum admit_answer look(const struct admit *admit, uint32_t key, uint32_t n)
{
    return judge(admit, (uint64_t)admit_n_requests(admit) + n, (uint64_t)admit_n_of_key(admit, key) + n);
}

/* Takes what was free a moment ago, and looks again: another worker may have done the same. */
static enum admit_answer take_and_look(struct admit *admit, uint32_t key, uint32_t n)
{
    shared_hold(admit->worker, keys_seat(key), n);
    enum admit_answer answer = look(admit, key, 0);
    if (answer)
        admit_give(admit, key, n);
    return answer;
}

/* Workers that took the last place at the same moment have all given it back: whoever is refused has seen it held by another, and the
 * last one of them finds it free. They look again after different times, so that they do not meet for ever. */
static enum admit_answer try_to_take(struct admit *admit, uint32_t key, uint32_t n)
{
    enum admit_answer answer = look(admit, key, n);
    for (unsigned tries = 0; !answer && tries < TRIES; tries++) {
        if (!take_and_look(admit, key, n))
            return ADMIT_TAKEN;
        for (unsigned i = 0; i < LOOKS_APART * admit->worker->number; i++)
            look(admit, key, n);
        answer = look(admit, key, n);
    }
    return answer ? answer : ADMIT_FULL;
}

enum admit_answer admit_take(struct admit *admit, uint32_t key, uint32_t n)
{
    enum admit_answer answer = try_to_take(admit, key, n);
    if (answer == ADMIT_FULL)
        shared_add(&counters(admit)->n_full, 1);
    else if (answer == ADMIT_OVER_SHARE)
        shared_add(&counters(admit)->n_over_share, 1);
    else
        admit->n_taken += n;
    return answer;
}

void admit_give(struct admit *admit, uint32_t key, uint32_t n)
{
    shared_release(admit->worker, keys_seat(key), n);
}

unsigned admit_n_connections(const struct admit *admit)
{
    const struct shared *shared = admit->worker->shared;
    uint64_t n_own = shared_load(shared, admit->worker->number), n_least = n_own;
    if (shared_n_workers(shared) < 2)
        return UINT_MAX;
    for (unsigned i = 0; i < SHARED_WORKERS_MAX; i++)
        if (shared_state(shared, i) == SHARED_READY && shared_load(shared, i) < n_least)
            n_least = shared_load(shared, i);
    uint64_t n_allowed = n_least + n_least / 8 + 1; /* about as many as the others */
    return n_own < n_allowed ? (unsigned)(n_allowed - n_own) : 0;
}

void admit_timed_out(struct admit *admit)
{
    shared_add(&counters(admit)->n_timeouts, 1);
    admit->n_timeouts_in_a_row++;
}

void admit_answered(struct admit *admit)
{
    admit->n_timeouts_in_a_row = 0;
}

void admit_too_slow(struct admit *admit)
{
    shared_add(&counters(admit)->n_slow, 1);
}
