/* test_team.c: every item of a shared loop is done once, barriers order what members write, teams come and
 * go. */
#include "kernels/team.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

enum { N_ITEMS_MAX = 1000 };

struct loops {
    struct team *team;
    uint32_t n, grain;
    unsigned n_rounds;
    atomic_uint done[N_ITEMS_MAX];
    unsigned values[64]; /* plain memory: only the barrier orders it */
    atomic_uint wrong;
};

static void count_items(void *arg, unsigned member)
{
    struct loops *loops = arg;
    for (unsigned round = 0; round < loops->n_rounds; round++) {
        struct team_loop loop = {.n = loops->n, .grain = loops->grain};
        while (team_next(loops->team, member, &loop))
            for (uint32_t i = loop.begin; i < loop.end; i++)
                atomic_fetch_add(&loops->done[i], 1);
        team_barrier(loops->team);
    }
}

static void each_item_is_done_once_a_round(void **state)
{
    (void)state;
    static const uint32_t sizes[] = {0, 1, 2, 3, 7, 8, 16, 33, 100, 999};
    for (unsigned threads = 1; threads <= 5; threads++) {
        struct loops loops = {.n_rounds = 50};
        assert_int_equal(team_create(threads, &loops.team, NULL), RUNNEL_OK);
        assert_int_equal(team_size(loops.team), threads);
        for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
            for (loops.grain = 1; loops.grain <= 5; loops.grain += 2) {
                loops.n = sizes[i];
                for (uint32_t j = 0; j < N_ITEMS_MAX; j++)
                    atomic_store(&loops.done[j], 0);
                team_run(loops.team, count_items, &loops);
                for (uint32_t j = 0; j < N_ITEMS_MAX; j++)
                    assert_int_equal(atomic_load(&loops.done[j]), j < loops.n ? loops.n_rounds : 0);
            }
        team_free(loops.team);
    }
}

static void write_and_look(void *arg, unsigned member)
{
    struct loops *loops = arg;
    unsigned n = team_size(loops->team);
    for (unsigned round = 1; round <= loops->n_rounds; round++) {
        loops->values[member] = round;
        team_barrier(loops->team);
        for (unsigned i = 0; i < n; i++)
            if (loops->values[i] != round)
                atomic_fetch_add(&loops->wrong, 1);
        team_barrier(loops->team);
    }
}

static void a_barrier_makes_writes_visible(void **state)
{
    (void)state;
    struct loops loops = {.n_rounds = 2000};
    assert_int_equal(team_create(4, &loops.team, NULL), RUNNEL_OK);
    team_run(loops.team, write_and_look, &loops);
    usleep(2000); /* members go to sleep, and must wake again */
    team_run(loops.team, write_and_look, &loops);
    team_free(loops.team);
    assert_int_equal(atomic_load(&loops.wrong), 0);
    assert_int_equal(loops.values[3], 2000);
}

static void impossible_sizes_are_refused(void **state)
{
    (void)state;
    struct team *team = NULL;
    runnel_error error;
    assert_int_equal(team_create(0, &team, &error), RUNNEL_EINVAL);
    assert_non_null(strstr(error.message, "threads"));
    assert_null(team);
    team_free(NULL);
}

/* The mask of blocked signals of a thread of this process. */
static void read_blocked_signals(void *arg, unsigned member)
{
    unsigned long long *blocked = arg;
    char line[128];
    FILE *status = fopen("/proc/thread-self/status", "r");
    while (status && fgets(line, sizeof line, status))
        if (sscanf(line, "SigBlk: %llx", &blocked[member]) == 1)
            break;
    if (status)
        fclose(status);
}

/* A line editor or an event loop waits in the thread that made the team. */
static void signals_are_for_the_caller(void **state)
{
    (void)state;
    struct team *team;
    unsigned long long blocked[3] = {0};
    assert_int_equal(team_create(3, &team, NULL), RUNNEL_OK);
    team_run(team, read_blocked_signals, blocked);
    team_free(team);
    assert_int_equal(blocked[0] >> (SIGINT - 1) & 1, 0);
    for (unsigned i = 1; i < 3; i++) {
        assert_int_equal(blocked[i] >> (SIGINT - 1) & 1, 1);
        assert_int_equal(blocked[i] >> (SIGTERM - 1) & 1, 1);
        assert_int_equal(blocked[i] >> (SIGSEGV - 1) & 1, 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_item_is_done_once_a_round),
        cmocka_unit_test(a_barrier_makes_writes_visible),
        cmocka_unit_test(impossible_sizes_are_refused),
        cmocka_unit_test(signals_are_for_the_caller),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
