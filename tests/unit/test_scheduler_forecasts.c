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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_predicted_waits),
        cmocka_unit_test(test_refusals_are_right),
        cmocka_unit_test(test_an_idle_engine_refuses_nobody),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
