/* test_shared.c: the block that all processes of a server share: processes that add to the same counters, processes that are
 * killed while they write, and what is left of them. */
#include "server/limits/shared.h"

#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

enum { CHILDREN = 4, ADDS = 20000, KILLS = 12 };

static struct shared *shared;

static int setup(void **state)
{
    (void)state;
    return shared_create(&shared, NULL);
}

static int teardown(void **state)
{
    (void)state;
    shared_free(shared);
    return 0;
}

/* Runs work in a child, which then ends. */
static pid_t start_child(void (*work)(unsigned number), unsigned number)
{
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        work(number);
        _exit(0);
    }
    return pid;
}

static void await(pid_t pid)
{
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

static void kill_child(pid_t pid)
{
    int status;
    assert_int_equal(kill(pid, SIGKILL), 0);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFSIGNALED(status));
}

static void rest_us(long us)
{
    nanosleep(&(struct timespec){.tv_nsec = us * 1000}, NULL);
}

/* Counters ------------------------------------------------------------------------------------------------ */

static void add_many(unsigned number)
{
    struct shared_counters *counters = shared_counters(shared);
    struct shared_histogram *histogram = &counters->histograms[1];
    for (int i = 0; i < ADDS; i++) {
        shared_add(&counters->n_answers[0][1], 1);
        shared_add(&histogram->counts[number], 1);
        shared_add_seconds(&histogram->sum, 0.25); /* sums of it are exact */
    }
}

static void test_counters_of_many(void **state)
{
    struct shared_counters *counters = shared_counters(shared);
    pid_t pids[CHILDREN];
    (void)state;
    for (unsigned i = 0; i < CHILDREN; i++)
        pids[i] = start_child(add_many, i);
    for (unsigned i = 0; i < CHILDREN; i++)
        await(pids[i]);
    assert_int_equal(shared_get(&counters->n_answers[0][1]), CHILDREN * ADDS);
    assert_int_equal(shared_get(&counters->n_answers[0][0]), 0);
    for (unsigned i = 0; i < CHILDREN; i++)
        assert_int_equal(shared_get(&counters->histograms[1].counts[i]), ADDS);
    assert_true(shared_get_seconds(&counters->histograms[1].sum) == 0.25 * CHILDREN * ADDS);
}

/* Only what is new is added, and another worker begins anew. */
static void test_totals(void **state)
{
    struct shared_worker worker;
    const struct shared_counters *counters = shared_counters(shared);
    uint64_t totals[SHARED_TOTALS] = {[SHARED_STEPS] = 5, [SHARED_SYSTEM_US] = 1};
    (void)state;
    shared_join(&worker, shared, 0);
    shared_tell_totals(&worker, totals);
    shared_tell_totals(&worker, totals);
    assert_int_equal(shared_get(&counters->totals[SHARED_STEPS]), 5);
    totals[SHARED_STEPS] = 7;
    shared_tell_totals(&worker, totals);
    assert_int_equal(shared_get(&counters->totals[SHARED_STEPS]), 7);
    totals[SHARED_STEPS] = 6; /* what goes back is not believed */
    shared_tell_totals(&worker, totals);
    assert_int_equal(shared_get(&counters->totals[SHARED_STEPS]), 7);
    shared_reap(shared, 0);
    shared_join(&worker, shared, 0);
    totals[SHARED_STEPS] = 2;
    shared_tell_totals(&worker, totals);
    assert_int_equal(shared_get(&counters->totals[SHARED_STEPS]), 9);
    assert_int_equal(shared_get(&counters->totals[SHARED_SYSTEM_US]), 2);
    assert_int_equal(shared_get(&counters->totals[SHARED_USER_US]), 0);
}

/* Records ------------------------------------------------------------------------------------------------- */

/* Gauges and slots that all say n. */
static void tell(struct shared_worker *worker, uint64_t n)
{
    struct shared_gauges gauges = {.n_steps = n, .beat_ms = (double)n, .n_taken = n, .n_descriptors = n};
    struct shared_slot slots[SHARED_SLOTS_MAX];
    size_t n_slots = n % (SHARED_SLOTS_MAX + 1);
    for (size_t i = 0; i < n_slots; i++)
        slots[i] = (struct shared_slot){.n_prompt_tokens = (uint32_t)n, .max_tokens = (uint32_t)n};
    shared_tell_gauges(worker, &gauges);
    shared_tell_slots(worker, slots, n_slots);
}

/* Whole, whoever wrote it. Returns what they say. */
static uint64_t expect_whole_gauges(unsigned number)
{
    struct shared_gauges gauges;
    shared_read_gauges(shared, number, &gauges);
    assert_int_equal(gauges.n_taken, gauges.n_steps);
    assert_int_equal(gauges.n_descriptors, gauges.n_steps);
    assert_true(gauges.beat_ms == (double)gauges.n_steps);
    return gauges.n_steps;
}

static void expect_whole_slots(unsigned number)
{
    static struct shared_slot slots[SHARED_SLOTS_MAX];
    size_t n = shared_read_slots(shared, number, slots);
    assert_true(n <= SHARED_SLOTS_MAX);
    for (size_t i = 0; i < n; i++) {
        assert_int_equal(slots[i].n_prompt_tokens % (SHARED_SLOTS_MAX + 1), n);
        assert_int_equal(slots[i].max_tokens, slots[0].max_tokens);
        assert_int_equal(slots[i].n_prompt_tokens, slots[0].max_tokens);
    }
}

/* Writes all that a worker writes, until it is killed. */
static void write_for_ever(unsigned number)
{
    struct shared_worker worker;
    struct shared_message message = {.kind = SHARED_ORDER_WORKERS};
    uint64_t totals[SHARED_TOTALS] = {0};
    shared_join(&worker, shared, number);
    shared_set_state(&worker, SHARED_READY);
    for (uint64_t n = 1;; n++) {
        tell(&worker, n);
        totals[SHARED_STEPS] = n;
        shared_tell_totals(&worker, totals);
        shared_add_seconds(&shared_counters(shared)->histograms[0].sum, 1);
        shared_hold(&worker, n % 3, 2);
        shared_release(&worker, n % 3, 1);
        message.id = message.value = (uint32_t)n;
        shared_send(shared, number, SHARED_SUPERVISOR, &message);
    }
}

static void expect_whole_messages(uint64_t *latest)
{
    struct shared_message message;
    unsigned from;
    while (shared_receive(shared, SHARED_SUPERVISOR, &message, &from)) {
        assert_int_equal(message.id, message.value);
        assert_int_equal(message.kind, SHARED_ORDER_WORKERS);
        assert_true(message.id > *latest);
        *latest = message.id;
    }
}

static void expect_nothing_left(unsigned number)
{
    static const struct shared_gauges none;
    struct shared_gauges gauges;
    struct shared_slot slots[SHARED_SLOTS_MAX];
    shared_read_gauges(shared, number, &gauges);
    assert_memory_equal(&gauges, &none, sizeof none);
    assert_int_equal(shared_read_slots(shared, number, slots), 0);
    assert_int_equal(shared_state(shared, number), SHARED_NOBODY);
    assert_int_equal(shared_pid(shared, number), 0);
    assert_int_equal(shared_n_workers(shared), 0);
    assert_int_equal(shared_held(shared), 0);
    for (uint32_t seat = 0; seat < 3; seat++)
        assert_int_equal(shared_held_by_seat(shared, seat), 0);
}

/* Workers that are killed while they write, one after the other. */
static void test_kills(void **state)
{
    const struct shared_counters *counters = shared_counters(shared);
    uint64_t n_steps = 0;
    double sum = 0;
    (void)state;
    for (int round = 0; round < KILLS; round++) {
        unsigned number = (unsigned)round % 2;
        uint64_t message = 0, n_seen = 0, n_before = n_steps;
        pid_t pid = start_child(write_for_ever, number);
        for (int looks = 0; looks < 300 + 7 * round || n_steps < n_before + 50; looks++) {
            uint64_t now = expect_whole_gauges(number), steps = shared_get(&counters->totals[SHARED_STEPS]);
            double seconds = shared_get_seconds(&counters->histograms[0].sum);
            expect_whole_slots(number);
            expect_whole_messages(&message);
            assert_true(now >= n_seen && steps >= n_steps && seconds >= sum);
            n_seen = now;
            n_steps = steps;
            sum = seconds;
        }
        assert_int_equal(shared_n_workers(shared), 1);
        assert_int_equal(shared_pid(shared, number), pid);
        assert_int_equal(shared_state(shared, number), SHARED_READY);
        rest_us(rand() % 500);
        kill_child(pid);
        assert_true(expect_whole_gauges(number) >= n_seen);
        expect_whole_slots(number);
        expect_whole_messages(&message);
        n_steps = shared_get(&counters->totals[SHARED_STEPS]);
        sum = shared_get_seconds(&counters->histograms[0].sum);
        shared_reap(shared, number);
        expect_nothing_left(number);
        assert_int_equal(shared_get(&counters->totals[SHARED_STEPS]), n_steps);
        assert_true(shared_get_seconds(&counters->histograms[0].sum) == sum);
    }
}

static void test_free_record(void **state)
{
    (void)state;
    expect_nothing_left(0);
    shared_reap(shared, 0);
    expect_nothing_left(SHARED_WORKERS_MAX - 1);
}

/* One thread writes, this one reads: for the thread sanitizer, which does not see other processes. */
static atomic_bool enough;

static void *write_on_a_thread(void *user)
{
    for (uint64_t n = 1; !atomic_load(&enough); n++)
        tell(user, n);
    return NULL;
}

static void test_threads(void **state)
{
    struct shared_worker worker;
    pthread_t thread;
    (void)state;
    shared_join(&worker, shared, 3);
    assert_int_equal(pthread_create(&thread, NULL, write_on_a_thread, &worker), 0);
    for (int i = 0; i < 5000; i++) {
        expect_whole_gauges(3);
        expect_whole_slots(3);
    }
    atomic_store(&enough, true);
    pthread_join(thread, NULL);
}

/* Rules --------------------------------------------------------------------------------------------------- */

static struct keys *read_keys(const char *list)
{
    struct keys *keys;
    assert_int_equal(keys_create(&list, 1, NULL, &keys, NULL), RUNNEL_OK);
    return keys;
}

static void write_keys(const char *list)
{
    struct keys *keys = read_keys(list);
    struct shared_rules rules = {.keys = *keys, .limits = {.n_requests = (uint32_t)strlen(list)}};
    shared_write_rules(shared, &rules);
    keys_free(keys);
}

static uint32_t find(const struct shared_rules *rules, const char *key)
{
    return keys_find(&rules->keys, key, strlen(key));
}

/* A key keeps its id as long as it is there; no other key ever has it. */
static void test_generations(void **state)
{
    struct shared_rules rules = {0};
    (void)state;
    assert_int_equal(shared_generation(shared), 0);
    assert_int_equal(shared_read_rules(shared, &rules), 0);
    write_keys("one,two,three");
    assert_int_equal(shared_generation(shared), 1);
    assert_int_equal(shared_read_rules(shared, &rules), 1);
    assert_int_equal(rules.limits.n_requests, 13);
    assert_int_equal(find(&rules, "one"), 1);
    assert_int_equal(find(&rules, "two"), 2);
    assert_int_equal(find(&rules, "three"), 3);

    write_keys("four,three,one");
    assert_int_equal(shared_read_rules(shared, &rules), 2);
    assert_int_equal(keys_count(&rules.keys), 3);
    assert_int_equal(find(&rules, "one"), 1);
    assert_int_equal(find(&rules, "two"), 0);
    assert_int_equal(find(&rules, "three"), 3);
    assert_int_equal(find(&rules, "four"),
                     KEYS_STRIDE + 4); /* not the seat of "two", whose requests may still run */
    assert_int_equal(keys_seat(find(&rules, "four")), 4);

    write_keys("two,four");
    assert_int_equal(shared_read_rules(shared, &rules), 3);
    assert_int_equal(find(&rules, "two"), 2 * KEYS_STRIDE + 2); /* its seat is free, its old id is not */
    assert_int_equal(find(&rules, "four"), KEYS_STRIDE + 4);
    assert_int_equal(find(&rules, "one"), 0);
    assert_int_equal(find(&rules, ""), 0);
}

/* All keys are others, as many as there may be. */
static void test_all_keys_change(void **state)
{
    static char lists[2][4096];
    struct shared_rules rules;
    size_t len[2] = {0};
    (void)state;
    for (size_t i = 0; i < KEYS_MAX; i++)
        for (size_t k = 0; k < 2; k++)
            len[k] +=
                (size_t)snprintf(lists[k] + len[k], sizeof lists[k] - len[k], "%c%zu,", k ? 'b' : 'a', i);
    write_keys(lists[0]);
    write_keys(lists[1]);
    assert_int_equal(shared_read_rules(shared, &rules), 2);
    assert_int_equal(keys_count(&rules.keys), KEYS_MAX);
    assert_int_equal(find(&rules, "a0"), 0);
    assert_int_equal(find(&rules, "b0"), KEYS_STRIDE + 1);
    assert_int_equal(find(&rules, "b255"), KEYS_STRIDE + KEYS_MAX);
}

static void write_rules_for_ever(unsigned number)
{
    struct shared_rules rules = {0};
    (void)number;
    for (uint32_t n = 1;; n++) {
        rules.limits.n_requests = n;
        rules.limits.drain_ms = rules.limits.monitor.wedged_ms = rules.limits.loop.linger_ms = n;
        shared_write_rules(shared, &rules);
    }
}

/* A writer waits for no reader, a reader for no writer, dead or alive, and none sees half of a generation. */
static void test_rules_of_a_killed_writer(void **state)
{
    (void)state;
    uint64_t latest = 0;
    for (int round = 0; round < KILLS; round++) {
        pid_t pid = start_child(write_rules_for_ever, 0);
        for (int looks = 0; looks < 200 || !latest; looks++) {
            struct shared_rules rules;
            uint64_t generation = shared_read_rules(shared, &rules);
            assert_true(generation >= latest);
            if (!generation)
                continue;
            latest = generation;
            assert_true(rules.limits.drain_ms == rules.limits.n_requests);
            assert_true(rules.limits.monitor.wedged_ms == rules.limits.n_requests);
            assert_true(rules.limits.loop.linger_ms == rules.limits.n_requests);
        }
        kill_child(pid);
    }
}

/* The supervisor, messages -------------------------------------------------------------------------------- */

static void test_service(void **state)
{
    struct shared_service service;
    (void)state;
    shared_read_service(shared, &service);
    assert_int_equal(service.pid, 0);
    assert_int_equal(shared_next_order(shared), 1);
    assert_int_equal(shared_next_order(shared), 2);
    struct shared_service told = {.pid = 7, .n_workers_wanted = 3};
    shared_add_outcome(&told, &(struct shared_outcome){2, RUNNEL_ENOMEM, "there is no memory for 3 workers"});
    shared_tell_service(shared, &told);
    shared_read_service(shared, &service);
    assert_memory_equal(&service, &told, sizeof told);
}

/* Each order has its own, whichever came later; of many the latest are known. */
static void test_outcomes(void **state)
{
    struct shared_service service = {0};
    struct shared_outcome outcome;
    (void)state;
    assert_int_equal(shared_latest_outcome(&service).order, 0);
    assert_string_equal(shared_latest_outcome(&service).message, "");
    assert_false(shared_find_outcome(&service, 0, &outcome));
    shared_add_outcome(&service, &(struct shared_outcome){2, RUNNEL_OK, "read"});
    assert_false(shared_find_outcome(&service, 1, &outcome)); /* a later one is known: that is not its own */
    shared_add_outcome(&service, &(struct shared_outcome){1, RUNNEL_EBUSY, "refused"});
    shared_add_outcome(&service, &(struct shared_outcome){0, RUNNEL_EIO, "by a signal"});
    assert_true(shared_find_outcome(&service, 1, &outcome));
    assert_int_equal(outcome.code, RUNNEL_EBUSY);
    assert_true(shared_find_outcome(&service, 2, &outcome));
    assert_string_equal(outcome.message, "read");
    assert_false(shared_find_outcome(&service, 0, &outcome));
    assert_int_equal(service.answered, 1);
    assert_string_equal(shared_latest_outcome(&service).message, "by a signal");
    for (uint64_t order = 3; order < 3 + SHARED_OUTCOMES; order++) {
        shared_add_outcome(&service, &(struct shared_outcome){order, 0, "another"});
        assert_true(shared_find_outcome(&service, order, &outcome));
    }
    assert_true(shared_find_outcome(&service, 3, &outcome));
    assert_false(shared_find_outcome(&service, 1, &outcome)); /* long ago */
}

static bool send_order(unsigned from, uint64_t number)
{
    const struct shared_message order = {.id = number, .kind = SHARED_ORDER_RELOAD};
    return shared_send(shared, from, SHARED_SUPERVISOR, &order);
}

/* In the order of their numbers, and those of a worker that is dead, too: its client was told the number. */
static void test_orders(void **state)
{
    struct shared_worker workers[3];
    struct shared_message order = {0};
    (void)state;
    for (unsigned i = 0; i < 3; i++)
        shared_join(&workers[i], shared, i);
    assert_false(shared_receive_order(shared, &order));
    assert_true(send_order(2, 1) && send_order(0, 2) && send_order(1, 3) && send_order(2, 4));
    shared_reap(shared, 2);
    for (uint64_t number = 1; number <= 4; number++) {
        assert_true(shared_receive_order(shared, &order));
        assert_int_equal(order.id, number);
    }
    assert_false(shared_receive_order(shared, &order));
}

static void send_many(unsigned number)
{
    for (uint32_t n = 1; n <= ADDS; n++) {
        struct shared_message message = {.id = n, .kind = number, .value = n};
        while (!shared_send(shared, number, 1, &message))
            rest_us(10);
    }
}

/* Two senders, one receiver: all arrive, each sender's in order. */
static void test_messages(void **state)
{
    struct shared_worker workers[2];
    struct shared_message message = {0};
    uint64_t latest[3] = {0};
    unsigned from;
    (void)state;
    assert_false(shared_send(shared, 0, 1, &message)); /* nobody is there */
    for (unsigned i = 0; i < 2; i++)
        shared_join(&workers[i], shared, i);
    shared_join(&workers[0], shared, 2);
    assert_false(shared_receive(shared, 1, &message, &from));
    pid_t first = start_child(send_many, 0), second = start_child(send_many, 2);
    while (latest[0] < ADDS || latest[2] < ADDS) {
        if (!shared_receive(shared, 1, &message, &from))
            continue;
        assert_int_equal(message.kind, from);
        assert_int_equal(message.id, message.value);
        assert_int_equal(message.id, ++latest[from]);
    }
    await(first);
    await(second);
    assert_false(shared_receive(shared, 1, &message, &from));
}

/* A ring is bounded; what waits for a worker that dies is dropped, and the next one finds its rings empty. */
static void test_full_ring(void **state)
{
    struct shared_worker worker;
    struct shared_message message = {.id = 1};
    unsigned from, n = 0;
    (void)state;
    shared_join(&worker, shared, 5);
    while (n < 100 && shared_send(shared, SHARED_SUPERVISOR, 5, &message))
        n++;
    assert_int_equal(n, 8);
    shared_reap(shared, 5);
    assert_false(shared_send(shared, SHARED_SUPERVISOR, 5, &message));
    shared_join(&worker, shared, 5);
    assert_false(shared_receive(shared, 5, &message, &from));
    assert_true(shared_send(shared, SHARED_SUPERVISOR, 5, &message));
    assert_true(shared_receive(shared, 5, &message, &from));
    assert_int_equal(from, SHARED_SUPERVISOR);
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_counters_of_many),
        TEST(test_totals),
        TEST(test_kills),
        TEST(test_free_record),
        TEST(test_threads),
        TEST(test_generations),
        TEST(test_all_keys_change),
        TEST(test_rules_of_a_killed_writer),
        TEST(test_service),
        TEST(test_outcomes),
        TEST(test_orders),
        TEST(test_messages),
        TEST(test_full_ring),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
