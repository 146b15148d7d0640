/* test_scheduler_forecasts.c: what the scheduler says a request will wait, and whom it refuses for that, on a machine that
 * is made up, in virtual time. */
#include "helpers/chance.h"
#include "helpers/scheduler_world.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

/* Requests of many kinds; the machine can do 1.3 of them a second. */
static void add_mixed_load(struct world *world, uint32_t n_keys, double until_ms, double per_second)
{
    for (double t = 0; (t -= 1000 / per_second * log(chance_uniform())) < until_ms;) {
        struct request *request = world_add(
            world, t, chance_below(n_keys),
            chance_below(8) ? 20 + chance_below(200) : 500 + chance_below(1500), 10 + chance_below(120));
        if (chance_below(2)) /* the answer ends before its limit */
            request->entry.max_tokens = 300;
    }
}

static void test_predicted_waits(void **state)
{
    (void)state;
    struct world world;
    world_open(&world, &(struct scheduler_options){.n_requests = 1000});
    add_mixed_load(&world, 3, 600e3, 1.2);
    world_run(&world);
    world_check_done(&world);
    static double errors[REQUESTS_MAX];
    uint32_t n = 0, n_long = 0;
    double bias = 0, sum = 0;
    for (uint32_t i = 50; i < world.n_requests; i++) {
        const struct request *request = &world.requests[i];
        double wait_ms = request->entry.begun_ms - request->entry.arrival_ms;
        double predicted_ms = request->forecast.wait_ms;
        assert_true(request->forecast.first_token_ms >= predicted_ms);
        n_long += wait_ms > 5000;
        errors[n++] = fabs(predicted_ms - wait_ms) / (wait_ms + 1000);
        bias += predicted_ms - wait_ms;
        sum += wait_ms;
    }
    qsort(errors, n, sizeof *errors, compare);
    assert_true(n_long > n / 5); /* there was something to predict */
    if (errors[n / 2] > 0.35 || errors[n * 9 / 10] > 1 || fabs(bias) > 0.3 * sum)
        fail_msg("errors: median %.2f, 90 %% %.2f, bias %.2f of the mean wait", errors[n / 2],
                 errors[n * 9 / 10], bias / sum);
    world_close(&world);
}

/* 40 % more than can be done. right_least: of the refusals; late_most: of those taken, how many expired. */
static void overload(uint32_t n_keys, double right_least, double late_most)
{
    struct world world;
    world_open(&world, &(struct scheduler_options){.max_wait_ms = 10e3, .n_requests = 1000});
    add_mixed_load(&world, n_keys, 900e3, 1.8);
    world_run(&world);
    struct scheduler_stats stats;
    scheduler_get_stats(world.scheduler, &stats);
    uint32_t n_refused = 0, n_late = 0, n_accepted = 0;
    for (uint32_t i = 0; i < world.n_requests; i++) {
        const struct request *request = &world.requests[i];
        if (request->answer == SCHEDULER_SLOW) {
            n_refused++;
            assert_true(request->forecast.wait_ms > 10e3);
            continue;
        }
        n_accepted++;
        n_late += request->done_ms < 0;
    }
    assert_int_equal(n_refused, stats.n_refused);
    assert_int_equal(n_late, stats.n_expired);
    assert_true(n_refused > 100 && n_accepted > 300);
    double n_followed = (double)(stats.n_refusals_right + stats.n_refusals_wrong);
    assert_true(n_followed > 0.8 * n_refused);
    if ((double)stats.n_refusals_right < right_least * n_followed || n_late > late_most * n_accepted)
        fail_msg("%u keys: %u refused, %.0f followed up, %u of them right; %u of %u accepted ones expired",
                 n_keys, n_refused, n_followed, (unsigned)stats.n_refusals_right, n_late, n_accepted);
    world_close(&world);
}

static void test_refusals_are_right(void **state)
{
    (void)state;
    overload(1, 0.75, 0.06);
    overload(3, 0.6, 0.2); /* who waits how long depends on what the other keys are going to send */
}

static void test_an_idle_engine_refuses_nobody(void **state)
{
    (void)state;
    struct world world;
    world_open(&world, &(struct scheduler_options){.max_wait_ms = 1});
    world_add(&world, 0, 0, 3000, 10); /* it learns what attention costs */
    struct request *request = world_add(&world, 60e3, 0, 8000, 100);
    world_run(&world);
    assert_int_equal(request->answer, SCHEDULER_ACCEPTED);
    assert_true(request->done_ms > 0 && request->forecast.first_token_ms > 20e3);
    double first_ms = request->first_ms - 60e3;
    if (fabs(request->forecast.first_token_ms - first_ms) > 0.15 * first_ms)
        fail_msg("first token after %.0f ms, predicted %.0f", first_ms, request->forecast.first_token_ms);
    world_close(&world);
}

/* A long queue is not played one by one, and yet foretold: of equal requests that come at once, each one's wait. */
static void burst(uint32_t n_parallel, uint32_t n_keys)
{
    enum { N = 500 };
    struct world world;
    world_open(&world, &(struct scheduler_options){.n_parallel = n_parallel, .n_requests = N});
    for (uint32_t i = 0; i < N; i++)
        world_add(&world, 0.01 * i, i % n_keys, 70, 48);
    world_run(&world);
    world_check_done(&world);
    for (uint32_t i = 0; i < N; i++) {
        const struct request *request = &world.requests[i];
        double wait_ms = request->entry.begun_ms - request->entry.arrival_ms;
        if (fabs(request->forecast.wait_ms - wait_ms) > 0.15 * wait_ms + 1000)
            fail_msg("%u in parallel, %u keys: request %u began after %.0f ms, predicted %.0f", n_parallel,
                     n_keys, i, wait_ms, request->forecast.wait_ms);
    }
    world_close(&world);
}

static void test_a_burst_is_foretold(void **state)
{
    (void)state;
    burst(8, 1);
    burst(8, 4);
    burst(64, 1);
    burst(1, 1);
}

/* A short prompt of a key that has had much waits for the long ones of another key, though its score is better. */
static void test_forecasts_know_the_keys(void **state)
{
    (void)state;
    struct world world;
    world_open(&world, &(struct scheduler_options){.n_parallel = 8});
    world_add(&world, 0, 0, 10, 2000); /* keeps its key where it is */
    world_add(&world, 1, 1, 3000, 4);
    for (int i = 0; i < 3; i++)
        world_add(&world, 14e3, 0, 150, 4);
    struct request *question = world_add(&world, 14e3, 1, 20, 4);
    world_run(&world);
    world_check_done(&world);
    double wait_ms = question->entry.begun_ms - question->entry.arrival_ms;
    assert_true(wait_ms > 900); /* about a second, the time of the others */
    if (fabs(question->forecast.wait_ms - wait_ms) > 0.4 * wait_ms)
        fail_msg("the question waited %.0f ms, predicted %.0f", wait_ms, question->forecast.wait_ms);
    world_close(&world);
}

/* Entries that predictions look at while n requests of n_keys keys come at once; a third of them in groups of a common
 * beginning. */
static uint64_t count_visits(uint32_t n, uint32_t n_parallel, uint32_t n_keys)
{
    struct scheduler_stats stats;
    struct world world;
    world_open(&world, &(struct scheduler_options){.n_parallel = n_parallel, .n_requests = 4000});
    for (uint32_t i = 0; i < n; i++) {
        struct request *request = world_add(&world, 0, chance_below(n_keys), 20 + chance_below(400), 50);
        request->entry.max_tokens = 1 + chance_below(500);
        request->entry.prefix_group = 1 + (i % 3 ? i : chance_below(3));
        request->entry.n_common = request->entry.n_prompt / 2;
    }
    world_arrive(&world);
    for (uint32_t i = 0; i < n; i++)
        assert_int_equal(world.requests[i].answer, SCHEDULER_ACCEPTED);
    scheduler_get_stats(world.scheduler, &stats);
    world_close(&world);
    return stats.n_forecast_visits;
}

/* A prediction looks at everybody a few times, and plays the course of a number that does not depend on how many wait: of
 * 1,000 requests that come at once each costs at most four times what it costs among 250. */
static void test_predictions_take_linear_time(void **state)
{
    (void)state;
    static const struct {
        uint32_t n_parallel, n_keys;
    } cases[] = {{8, 1}, {8, 3}, {8, 1000}, {64, 3}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        uint64_t few = count_visits(250, cases[i].n_parallel, cases[i].n_keys),
                 many = count_visits(1000, cases[i].n_parallel, cases[i].n_keys);
        uint64_t most = 1000 * (3 * 1000 + 16 * cases[i].n_parallel * cases[i].n_parallel);
        if (many > 16 * few || many > most)
            fail_msg(
                "%u in parallel, %u keys: %llu visits of 1,000 requests, %llu of 250; %llu expected at most",
                cases[i].n_parallel, cases[i].n_keys, (unsigned long long)many, (unsigned long long)few,
                (unsigned long long)most);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_predicted_waits),
        cmocka_unit_test(test_refusals_are_right),
        cmocka_unit_test(test_an_idle_engine_refuses_nobody),
        cmocka_unit_test(test_a_burst_is_foretold),
        cmocka_unit_test(test_forecasts_know_the_keys),
        cmocka_unit_test(test_predictions_take_linear_time),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
