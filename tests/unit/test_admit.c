/* test_admit.c: who is let in: the limit, the shares of keys, over all workers, and what is counted. */
#include "server/limits/admit.h"

#include "server/limits/shared.h"

#include <limits.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>

#include <cmocka.h>

static struct shared *shared;
static struct shared_worker workers[2];

static int setup(void **state)
{
    (void)state;
    if (shared_create(&shared, NULL))
        return -1;
    for (unsigned i = 0; i < 2; i++)
        shared_join(&workers[i], shared, i);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    shared_free(shared);
    return 0;
}

static uint64_t counted(const _Atomic uint64_t *counter)
{
    return shared_get(counter);
}

static void test_limit(void **state)
{
    struct admit admit;
    (void)state;
    admit_init(&admit, &workers[0], 3, 0);
    assert_int_equal(admit_take(&admit, 0, 2), ADMIT_TAKEN);
    assert_int_equal(admit_take(&admit, 0, 2), ADMIT_FULL);
    assert_int_equal(admit_take(&admit, 0, 1), ADMIT_TAKEN);
    assert_int_equal(admit_take(&admit, 0, 1), ADMIT_FULL);
    assert_int_equal(admit_take(&admit, 0, UINT32_MAX), ADMIT_FULL);
    assert_int_equal(admit_n_requests(&admit), 3);
    assert_int_equal(counted(&shared_counters(shared)->n_full), 3);
    admit_give(&admit, 0, 1);
    assert_int_equal(admit_take(&admit, 0, 1), ADMIT_TAKEN);
}

/* A single key has all places. */
static void test_one_key(void **state)
{
    struct admit admit;
    (void)state;
    admit_init(&admit, &workers[0], 10, 1);
    assert_int_equal(admit_share(&admit), 10);
    assert_int_equal(admit_take(&admit, 1, 10), ADMIT_TAKEN);
    assert_int_equal(admit_take(&admit, 1, 1), ADMIT_FULL);
}

static uint32_t flood(struct admit *admit, uint32_t key)
{
    uint32_t n = 0;
    while (admit_take(admit, key, 1) == ADMIT_TAKEN)
        n++;
    return n;
}

/* Whoever floods first leaves places for those who come later. */
static void test_shares(void **state)
{
    struct admit admit;
    (void)state;
    admit_init(&admit, &workers[0], 100, 3);
    assert_int_equal(admit_share(&admit), 75);
    assert_int_equal(admit_take(&admit, 1, 76), ADMIT_OVER_SHARE);
    assert_int_equal(flood(&admit, 1), 75);
    assert_int_equal(counted(&shared_counters(shared)->n_over_share), 2);
    assert_int_equal(flood(&admit, 2), 18);
    assert_int_equal(flood(&admit, 3), 5);
    admit_give(&admit, 1, 75); /* the others may have more then */
    assert_true(flood(&admit, 2) > 18);
    assert_true(admit_n_requests(&admit) < 100);
}

static void test_few_places(void **state)
{
    struct admit admit;
    (void)state;
    admit_init(&admit, &workers[0], 1, 2);
    assert_int_equal(admit_share(&admit), 1);
    assert_int_equal(admit_take(&admit, 1, 1), ADMIT_TAKEN);
    assert_int_equal(admit_take(&admit, 2, 1), ADMIT_FULL);
    admit_give(&admit, 1, 1);
    assert_int_equal(admit_take(&admit, 2, 1), ADMIT_TAKEN);
}

static void test_timeouts(void **state)
{
    struct admit admit;
    (void)state;
    admit_init(&admit, &workers[0], 1, 0);
    admit_timed_out(&admit);
    admit_timed_out(&admit);
    assert_int_equal(admit.n_timeouts_in_a_row, 2);
    admit_answered(&admit);
    assert_int_equal(admit.n_timeouts_in_a_row, 0);
    admit_timed_out(&admit);
    assert_int_equal(admit.n_timeouts_in_a_row, 1);
    assert_int_equal(counted(&shared_counters(shared)->n_timeouts), 3);
}

/* The limit is of all workers together, and so is what a key has. */
static void test_workers(void **state)
{
    struct admit here, there;
    (void)state;
    admit_init(&here, &workers[0], 12, 2);
    admit_init(&there, &workers[1], 12, 2);
    assert_int_equal(flood(&here, 1), 9);
    assert_int_equal(admit_take(&there, 1, 1), ADMIT_OVER_SHARE);
    assert_int_equal(admit_n_of_key(&there, 1), 9);
    assert_int_equal(flood(&there, 2), 2);
    assert_int_equal(admit_n_requests(&here), 11);
    assert_int_equal(admit_take(&there, 0, 2), ADMIT_FULL);
    admit_give(&here, 1, 9);
    assert_int_equal(admit_take(&there, 0, 2), ADMIT_TAKEN);
    assert_int_equal(here.n_taken, 9);
    assert_int_equal(there.n_taken, 4);
    assert_int_equal(counted(&shared_counters(shared)->n_full), 1);
    assert_int_equal(counted(&shared_counters(shared)->n_over_share), 3);
}

/* Two workers, each on a thread of its own, which ask for the only place at the same moment, again and again. */
struct race {
    struct admit admit;
    atomic_uint *arrived, *n_taken;
    unsigned *n_none, *n_both; /* of all rounds: written by worker 0 */
};

enum { ROUNDS = 20000 };

static void meet(atomic_uint *arrived, unsigned n)
{
    atomic_fetch_add(arrived, 1);
    while (atomic_load(arrived) < n)
        sched_yield();
}

static void *run_race(void *user)
{
    struct race *race = user;
    for (unsigned round = 0; round < ROUNDS; round++) {
        meet(race->arrived, 6 * round + 2);
        bool taken = admit_take(&race->admit, 0, 1) == ADMIT_TAKEN;
        atomic_fetch_add(race->n_taken, taken);
        meet(race->arrived, 6 * round + 4);
        if (race->admit.worker->number == 0) {
            unsigned n_taken = atomic_exchange(race->n_taken, 0);
            *race->n_none += n_taken == 0;
            *race->n_both += n_taken == 2;
        }
        if (taken)
            admit_give(&race->admit, 0, 1);
        meet(race->arrived, 6 * round + 6);
    }
    return NULL;
}

static void test_last_place(void **state)
{
    atomic_uint arrived = 0, n_taken = 0;
    unsigned n_none = 0, n_both = 0;
    struct race races[2];
    pthread_t threads[2];
    (void)state;
    for (unsigned i = 0; i < 2; i++) {
        races[i] =
            (struct race){.arrived = &arrived, .n_taken = &n_taken, .n_none = &n_none, .n_both = &n_both};
        admit_init(&races[i].admit, &workers[i], 1, 0);
        assert_int_equal(pthread_create(&threads[i], NULL, run_race, &races[i]), 0);
    }
    for (unsigned i = 0; i < 2; i++)
        pthread_join(threads[i], NULL);
    assert_int_equal(n_none, 0);
    assert_int_equal(n_both, 0);
    assert_int_equal(shared_held(shared), 0);
}

/* What a worker held when it died is free. */
static void test_death(void **state)
{
    struct admit here, there;
    (void)state;
    admit_init(&here, &workers[0], 4, 0);
    admit_init(&there, &workers[1], 4, 0);
    assert_int_equal(admit_take(&here, 0, 3), ADMIT_TAKEN);
    assert_int_equal(admit_take(&there, 0, 1), ADMIT_TAKEN);
    assert_int_equal(admit_take(&there, 0, 1), ADMIT_FULL);
    shared_reap(shared, 0);
    assert_int_equal(admit_take(&there, 0, 3), ADMIT_TAKEN);
    assert_int_equal(admit_take(&there, 0, 1), ADMIT_FULL);
}

/* Who is alone accepts all that come; else few at a time, and none while a ready worker holds clearly fewer requests. */
static void test_connections(void **state)
{
    struct admit here, there;
    (void)state;
    admit_init(&here, &workers[0], 9, 0);
    admit_init(&there, &workers[1], 9, 0);
    assert_int_equal(admit_take(&here, 0, 1), ADMIT_TAKEN);
    assert_int_equal(admit_n_connections(&here), 1); /* the other one is not ready */
    shared_set_state(&workers[1], SHARED_READY);
    assert_int_equal(admit_n_connections(&here), 0);
    assert_int_equal(admit_n_connections(&there), 1);
    assert_int_equal(admit_take(&there, 0, 1), ADMIT_TAKEN);
    assert_int_equal(admit_n_connections(&here), 1);
    shared_expect(&workers[0], 1);
    assert_int_equal(admit_n_connections(&here), 0);
    shared_expect(&workers[0], 0);
    assert_int_equal(admit_n_connections(&here), 1);
    shared_expect(&workers[1], 15);
    shared_expect(&workers[0], 16); /* 17 and 16, of which an eighth is 2 */
    assert_int_equal(admit_n_connections(&here), 2);
    assert_int_equal(admit_n_connections(&there), 3);
    shared_expect(&workers[0], 18);
    assert_int_equal(admit_n_connections(&here), 0);
    shared_reap(shared, 1);
    assert_int_equal(admit_n_connections(&here), UINT_MAX);
}

/* Limits become smaller than what is held. */
static void test_other_limits(void **state)
{
    struct admit admit;
    (void)state;
    admit_init(&admit, &workers[0], 4, 0);
    assert_int_equal(admit_take(&admit, 0, 4), ADMIT_TAKEN);
    admit_set_limits(&admit, 2, 2);
    assert_int_equal(admit_take(&admit, 1, 1), ADMIT_FULL);
    admit_give(&admit, 0, 3);
    assert_int_equal(admit_take(&admit, 1, 1), ADMIT_TAKEN);
    assert_int_equal(admit_take(&admit, 1, 1), ADMIT_FULL);
}

/* A key that came with a later generation has an id past its seat. */
static void test_later_key(void **state)
{
    struct admit admit;
    const uint32_t late = 3 * KEYS_STRIDE + KEYS_MAX;
    (void)state;
    admit_init(&admit, &workers[0], 8, 2);
    assert_int_equal(flood(&admit, late), 6);
    assert_int_equal(admit_n_of_key(&admit, late), 6);
    assert_int_equal(admit_n_of_key(&admit, 1), 0);
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_limit),        TEST(test_one_key),   TEST(test_shares),     TEST(test_few_places),
        TEST(test_timeouts),     TEST(test_workers),   TEST(test_death),      TEST(test_connections),
        TEST(test_other_limits), TEST(test_later_key), TEST(test_last_place),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
