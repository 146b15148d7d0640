/* test_scheduler.c: what the scheduler promises, on a machine that is made up, in virtual time. Its predictions and
 * refusals: test_scheduler_forecasts.c. */
#include "engine/turns.h"
#include "helpers/chance.h"
#include "helpers/scheduler_world.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

/* What the scheduler promises ----------------------------------------------------------------------------- */

static void long_prompt_beside_streams(const struct machine *machine, double budget_ms, double gap_most_ms,
                                       double first_most_ms)
{
    struct world world;
    world_open(&world, &(struct scheduler_options){.step_budget_ms = budget_ms});
    world.machine = *machine;
    for (int i = 0; i < 4; i++)
        world_add(&world, 0, 0, 50, 700);
    struct request *prompt = world_add(&world, 100 * machine->floor_ms, 0, 3000, 20);
    world_run(&world);
    world_check_done(&world);
    for (int i = 0; i < 4; i++) {
        const struct request *stream = &world.requests[i];
        assert_true(stream->done_ms > prompt->first_ms); /* they did run beside it all the time */
        if (stream->gap_ms > gap_most_ms)
            fail_msg("a stream stalled for %.0f ms, at most %.0f expected", stream->gap_ms, gap_most_ms);
    }
    double first_ms = prompt->first_ms - prompt->entry.arrival_ms;
    if (first_ms > first_most_ms)
        fail_msg("first token of the prompt after %.0f ms, at most %.0f expected", first_ms, first_most_ms);
    world_close(&world);
}

static void test_streams_do_not_stall(void **state)
{
    (void)state;
    /* 16 rows at least, beside 4: 20 * 3.4 ms and attention up to 3,000 tokens. */
    double least_ms = 20 * 3.4 + 20 * 3000 * 0.5 / 1000;
    long_prompt_beside_streams(&usual_machine, 60, 1.15 * least_ms, 3000 / 16.0 * least_ms);
    /* A budget that allows more is used, and kept. */
    long_prompt_beside_streams(&usual_machine, 200, 1.15 * 200, 3000 / 16.0 * least_ms * 0.85);
    /* A fast machine keeps the budget from the start, though the model of its cost begins with another one. */
    long_prompt_beside_streams(&(struct machine){6, 0.5, 0.05, 0.05}, 60, 1.3 * 60, 2600);
    /* A slow one takes 25 % for prompts although decoding is over the budget already, and up to half as long again
     * for 16 rows: late in the prompt, 13 are what fits. */
    long_prompt_beside_streams(&(struct machine){200, 5, 0.5, 0.05}, 60, 1.4 * 250, 3000 / 13.0 * 250);
    /* Where 16 rows would take two budgets, fewer are computed: streams go before prompts. */
    long_prompt_beside_streams(&(struct machine){20, 5, 0.5, 0.05}, 60, 1.2 * 1.6 * 60, 3000 / 6.0 * 96);
}

static void test_short_prompts_overtake(void **state)
{
    (void)state;
    struct world world;
    world_open(&world, &(struct scheduler_options){.n_parallel = 8});
    struct request *prompt = world_add(&world, 0, 0, 3000, 10);
    struct request *question = world_add(&world, 1000, 0, 70, 10);
    world_run(&world);
    world_check_done(&world);
    assert_true(question->first_ms < prompt->first_ms);
    /* The step in flight, and its own 70 rows. */
    assert_true(question->first_ms - 1000 < 4 * 60 * 1.1 + 70 * 3.4 * 1.1 + 60);
    world_close(&world);
}

/* A question's first token does not wait for a long step that somebody else's prompt could fill. */
static void test_first_token_is_not_delayed_by_a_full_step(void **state)
{
    (void)state;
    struct world world;
    world_open(&world, &(struct scheduler_options){.n_parallel = 2});
    struct scheduler *s = world.scheduler;
    struct scheduler_entry prompt = {.n_prompt = 3000, .max_tokens = 5}, question = {.n_prompt = 12};
    assert_int_equal(scheduler_add(s, &prompt, 0, NULL), SCHEDULER_ACCEPTED);
    assert_ptr_equal(scheduler_admit(s, 0, UINT64_MAX), &prompt);
    assert_true(scheduler_plan(s, 0)->expected_ms > 200); /* alone it gets the long budget */
    scheduler_done(s, 240);
    assert_int_equal(scheduler_add(s, &question, 240, NULL), SCHEDULER_ACCEPTED);
    assert_ptr_equal(scheduler_admit(s, 240, UINT64_MAX), &question);
    const struct scheduler_plan *plan = scheduler_plan(s, 240);
    assert_ptr_equal(plan->items[0].entry, &question);
    assert_int_equal(plan->items[0].n_rows, 12);
    assert_int_equal(plan->n_items, 2); /* what is left of the short budget is the prompt's */
    assert_true(plan->expected_ms <= 60);
    world_close(&world);
}

/* Short requests come faster than they can be answered, for 200 s: the long prompt is answered meanwhile. */
static void test_long_prompt_is_not_starved(void **state)
{
    (void)state;
    struct world world;
    world_open(&world, &(struct scheduler_options){.n_requests = 4000});
    world_add_arrivals(&world, 0, 200e3, 6, 70, 4); /* 1.4 times what the machine can do */
    struct request *prompt = world_add(&world, 10e3, 0, 3000, 4);
    world_run(&world);
    world_check_done(&world);
    for (uint32_t i = 0; i < world.n_requests; i++)
        if (world.requests[i].entry.n_prompt == 3000)
            prompt = &world.requests[i];
    const struct request *last = &world.requests[world.n_requests - 1];
    assert_true(last->first_ms - last->entry.arrival_ms > 30e3); /* overload it was */
    /* 10 s of its own, OVERTAKEN times as long of arrivals that overtake, with 1.4 s of work in each, and the backlog of 10 s. */
    if (prompt->first_ms - prompt->entry.arrival_ms > 1.2 * (11e3 + OVERTAKEN * 14e3 + 4e3))
        fail_msg("the long prompt waited %.0f ms", prompt->first_ms - prompt->entry.arrival_ms);
    world_close(&world);
}

/* Several long prompts, which take their time one after the other. A short one waits for the end of one that is old already, no longer. */
static void test_short_prompts_wait_for_no_queue_of_long_ones(void **state)
{
    (void)state;
    struct world world;
    double worst_ms = 0;
    world_open(&world, &(struct scheduler_options){.n_requests = 400});
    for (int i = 0; i < 3; i++)
        world_add(&world, 0, 0, 3000, 4);
    world_add_arrivals(&world, 1e3, 40e3, 1, 20, 1);
    world_run(&world);
    world_check_done(&world);
    for (uint32_t i = 0; i < world.n_requests; i++)
        if (world.requests[i].entry.n_prompt == 20)
            worst_ms = fmax(worst_ms, world.requests[i].first_ms - world.requests[i].entry.arrival_ms);
    if (worst_ms > 1e3 + 35e3 / OVERTAKEN) /* in 35 s they are done */
        fail_msg("a short prompt waited %.0f ms", worst_ms);
    world_close(&world);
}

/* Against the yardstick of the issue: prompts and answers computed apart, each at full speed. */
static void test_throughput(void **state)
{
    (void)state;
    static const uint32_t clients[] = {1, 3, 5, 8, 12};
    for (size_t i = 0; i < sizeof clients / sizeof *clients; i++) {
        struct world world;
        world_open(&world, &(struct scheduler_options){.n_parallel = 8});
        world.until_ms = 120e3;
        world_add_clients(&world, clients[i], 0, 70, 48);
        world_run(&world);
        world_check_done(&world);
        double n = clients[i] < 8 ? clients[i] : 8;
        double yardstick = n * 48 / (n * 70 * usual_machine.row_ms + 48 * usual_machine.floor_ms);
        double found = (double)world.n_tokens / world.busy_ms;
        if (found < 0.9 * yardstick)
            fail_msg("%u clients: %.1f tok/s, yardstick %.1f", clients[i], 1e3 * found, 1e3 * yardstick);
        assert_true(found < 8 / usual_machine.floor_ms); /* nobody gets more than the machine can do */
        world_close(&world);
    }
}

static double jain(const double *shares, uint32_t n)
{
    double sum = 0, squares = 0;
    for (uint32_t i = 0; i < n; i++) {
        sum += shares[i];
        squares += shares[i] * shares[i];
    }
    return sum * sum / (n * squares);
}

/* Tokens that each of the keys got until a time: prompts and answers. */
static void count_shares(const struct world *world, double until_ms, double *shares, uint32_t n_keys)
{
    memset(shares, 0, n_keys * sizeof *shares);
    for (uint32_t i = 0; i < world->n_requests; i++)
        if (world->requests[i].done_ms >= 0 && world->requests[i].done_ms < until_ms)
            shares[world->requests[i].entry.key] +=
                world->requests[i].entry.n_prompt + world->requests[i].n_answer;
}

static void test_keys_share(void **state)
{
    (void)state;
    struct world world;
    double shares[3];
    world_open(&world, &(struct scheduler_options){.n_parallel = 8});
    world.until_ms = 300e3;
    world_add_clients(&world, 50, 0, 100, 60); /* one key with many clients, two with a few */
    world_add_clients(&world, 5, 1, 100, 60);
    world_add_clients(&world, 5, 2, 100, 60);
    world_run(&world);
    count_shares(&world, world.until_ms, shares, 3);
    if (jain(shares, 3) < 0.97)
        fail_msg("shares %.0f %.0f %.0f", shares[0], shares[1], shares[2]);
    world_close(&world);
}

/* A key that sends long prompts all the time, and one that asks a short question now and then. */
static void test_a_busy_key_does_not_delay_others(void **state)
{
    (void)state;
    struct world world;
    world_open(&world, &(struct scheduler_options){.n_parallel = 8});
    world.until_ms = 200e3;
    world_add_clients(&world, 6, 0, 2000, 50);
    for (int i = 1; i < 50; i++)
        world_add(&world, 4e3 * i, 1, 70, 10);
    world_run(&world);
    double sum = 0, most = 0;
    for (uint32_t i = 0; i < world.n_requests; i++) {
        const struct request *request = &world.requests[i];
        if (request->entry.key != 1)
            continue;
        sum += request->first_ms - request->entry.arrival_ms;
        most = fmax(most, request->first_ms - request->entry.arrival_ms);
    }
    /* Two keys share, so its 240 ms take 500; the step in flight, and the slack of the keys. */
    if (sum / 49 > 1000 || most > 1500)
        fail_msg("first tokens after %.0f ms, at most %.0f", sum / 49, most);
    world_close(&world);
}

static void test_window(void **state)
{
    (void)state;
    struct world world;
    world_open(&world, &(struct scheduler_options){.n_parallel = 3, .window_ms = 100});
    struct scheduler *s = world.scheduler;
    struct scheduler_entry a = {.n_prompt = 10, .max_tokens = 5, .arrival_ms = 1000}, b = a, c = a;
    assert_true(isinf(scheduler_wakeup_ms(s, 1000)));
    assert_int_equal(scheduler_add(s, &a, 1000, NULL), SCHEDULER_ACCEPTED);
    assert_null(scheduler_admit(s, 1000, UINT64_MAX));
    assert_int_equal(scheduler_plan(s, 1000)->n_items, 0);
    assert_true(scheduler_wakeup_ms(s, 1000) == 1100);
    assert_int_equal(scheduler_add(s, &b, 1060, NULL), SCHEDULER_ACCEPTED);
    assert_null(scheduler_admit(s, 1099, UINT64_MAX)); /* the second one does not prolong it */
    assert_ptr_equal(scheduler_admit(s, 1100, UINT64_MAX), &a);
    assert_ptr_equal(scheduler_admit(s, 1100, UINT64_MAX), &b);
    assert_int_equal(scheduler_plan(s, 1100)->n_items, 2);
    scheduler_done(s, 70);
    assert_int_equal(scheduler_add(s, &c, 1171, NULL), SCHEDULER_ACCEPTED);
    assert_ptr_equal(scheduler_admit(s, 1171, UINT64_MAX),
                     &c); /* who joins a running batch waits for nobody */
    scheduler_remove(s, &a);
    scheduler_remove(s, &b);
    scheduler_remove(s, &c);

    /* A window whose only request is cancelled closes; the next one opens its own. */
    assert_int_equal(scheduler_add(s, &a, 2000, NULL), SCHEDULER_ACCEPTED);
    scheduler_remove(s, &a);
    assert_true(isinf(scheduler_wakeup_ms(s, 2010)));
    assert_int_equal(scheduler_add(s, &a, 2050, NULL), SCHEDULER_ACCEPTED);
    assert_true(scheduler_wakeup_ms(s, 2050) == 2150);
    /* All sequences have their request: no reason to wait. */
    assert_int_equal(scheduler_add(s, &b, 2060, NULL), SCHEDULER_ACCEPTED);
    assert_int_equal(scheduler_add(s, &c, 2060, NULL), SCHEDULER_ACCEPTED);
    assert_true(scheduler_wakeup_ms(s, 2060) == 2060);
    assert_non_null(scheduler_admit(s, 2060, UINT64_MAX));
    world_check(&world);
    world_close(&world);
}

static void test_limit_of_requests(void **state)
{
    (void)state;
    struct world world;
    world_open(&world, &(struct scheduler_options){.n_parallel = 2, .n_requests = 3});
    struct scheduler *s = world.scheduler;
    struct scheduler_entry entries[4];
    for (int i = 0; i < 4; i++) {
        entries[i] = (struct scheduler_entry){.n_prompt = 10, .max_tokens = 5, .key = (uint64_t)i};
        assert_int_equal(scheduler_add(s, &entries[i], 0, NULL), i < 3 ? SCHEDULER_ACCEPTED : SCHEDULER_FULL);
    }
    assert_non_null(scheduler_admit(s, 0, UINT64_MAX));
    assert_non_null(scheduler_admit(s, 0, UINT64_MAX));
    assert_null(scheduler_admit(s, 0, UINT64_MAX));
    scheduler_remove(s, &entries[0]);
    scheduler_remove(s, &entries[0]); /* does nothing */
    assert_int_equal(scheduler_add(s, &entries[3], 0, NULL), SCHEDULER_ACCEPTED);
    world_check(&world);
    world_close(&world);

    struct scheduler *none = NULL;
    assert_int_equal(scheduler_create(&(struct scheduler_options){.n_batch = 4}, &none, NULL), RUNNEL_EINVAL);
    assert_int_equal(scheduler_create(&(struct scheduler_options){.n_requests = 7}, &none, NULL),
                     RUNNEL_EINVAL);
    assert_int_equal(scheduler_create(&(struct scheduler_options){.window_ms = NAN}, &none, NULL),
                     RUNNEL_EINVAL);
    assert_null(none);
}

/* Pages and preemption ------------------------------------------------------------------------------------ */

static void test_preemption(void **state)
{
    (void)state;
    struct world world;
    world_open(&world, &(struct scheduler_options){.n_parallel = 3});
    struct scheduler *s = world.scheduler;
    struct scheduler_entry old = {.n_prompt = 10, .max_tokens = 50, .arrival_ms = 0}, middle = old,
                           young = old, later = old;
    middle.arrival_ms = 500;
    young.arrival_ms = 900;
    later.arrival_ms = 2000;
    assert_null(scheduler_preempt(s));
    scheduler_add(s, &young, 1000, NULL);
    scheduler_add(s, &middle, 1000, NULL);
    scheduler_add(s, &old, 1000, NULL);
    assert_non_null(scheduler_admit(s, 1000, UINT64_MAX));
    assert_null(scheduler_preempt(s)); /* never the only one */
    assert_non_null(scheduler_admit(s, 1000, UINT64_MAX));
    assert_non_null(scheduler_admit(s, 1000, UINT64_MAX));
    for (int i = 0; i < 20; i++) {
        const struct scheduler_plan *plan = scheduler_plan(s, 1100);
        scheduler_done(s, 50);
        for (uint32_t j = 0; j < plan->n_items; j++)
            if (plan->items[j].entry->n_committed == plan->items[j].entry->n_tokens)
                scheduler_drew(s, plan->items[j].entry);
    }
    assert_true(young.n_drawn > 5);
    const struct scheduler_plan *plan = scheduler_plan(s, 1200);
    assert_int_equal(plan->n_items, 3);
    scheduler_add(s, &later, 2000, NULL);
    assert_ptr_equal(scheduler_preempt(s), &young);
    uint32_t n_left = 0;
    for (uint32_t i = 0; i < plan->n_items; i++) {
        assert_ptr_not_equal(plan->items[i].entry, &young);
        n_left += plan->items[i].n_rows;
    }
    assert_int_equal(n_left, 2);
    world_check(&world);
    scheduler_done(s, 50);
    assert_int_equal(young.state, SCHEDULER_WAITING);
    assert_int_equal(young.n_tokens, 10 + young.n_drawn); /* all to be computed anew, nothing forgotten */
    assert_int_equal(young.n_committed, 0);
    assert_ptr_equal(scheduler_preempt(s), &middle);
    assert_null(scheduler_preempt(s));
    world_check(&world);
    /* They come back in the order of their arrival, before the one that came later, and when there is room. */
    assert_null(scheduler_admit(s, 2100, 60));
    assert_ptr_equal(scheduler_next(s, 2100), &middle);
    assert_ptr_equal(scheduler_admit(s, 2100, 10000), &middle);
    assert_ptr_equal(scheduler_admit(s, 2100, 10000), &young);
    assert_int_equal(young.n_preempted, 1);
    plan = scheduler_plan(s, 2100); /* what is computed again is no answer's row */
    for (uint32_t i = 0; i < plan->n_items; i++)
        assert_int_equal(plan->items[i].phase,
                         plan->items[i].entry == &old ? SCHEDULER_DECODE : SCHEDULER_PROMPT);
    world_close(&world);
}

/* A pool of pages of which all requests together want more than there is: each comes to its end. */
static void test_small_pool(void **state)
{
    (void)state;
    enum { N = 30, POOL = 900 };
    struct world world;
    world_open(&world, &(struct scheduler_options){.n_parallel = 8});
    struct scheduler *s = world.scheduler;
    for (int i = 0; i < N; i++)
        world_add(&world, 10 * i, (uint64_t)i % 3, 20 + chance_below(100), 50 + chance_below(500));
    uint32_t n_done = 0, n_preempted = 0;
    for (int steps = 0; n_done < N; steps++) {
        assert_true(steps < 40000);
        world_arrive(&world);
        uint32_t used = 0;
        for (int i = 0; i < N; i++)
            used +=
                world.requests[i].entry.state == SCHEDULER_RUNNING ? world.requests[i].entry.n_committed : 0;
        while (scheduler_admit(s, world.now_ms, POOL - used))
            ;
        const struct scheduler_plan *plan = scheduler_plan(s, world.now_ms);
        for (;;) { /* the rows of the plan must fit */
            uint32_t n_rows = 0;
            used = 0;
            for (int i = 0; i < N; i++)
                used += world.requests[i].entry.state == SCHEDULER_RUNNING
                            ? world.requests[i].entry.n_committed
                            : 0;
            for (uint32_t i = 0; i < plan->n_items; i++)
                n_rows += plan->items[i].n_rows;
            if (used + n_rows <= POOL)
                break;
            assert_non_null(scheduler_preempt(s)); /* one alone always fits */
            n_preempted++;
            world_check(&world);
        }
        scheduler_done(s, 40);
        world.now_ms += 40;
        for (uint32_t i = 0; i < plan->n_items; i++) {
            struct scheduler_entry *entry = plan->items[i].entry;
            if (entry && entry->n_committed == entry->n_tokens) {
                world_draw(&world, (struct request *)entry);
                n_done += entry->state == SCHEDULER_OUT;
            }
        }
        world_check(&world);
    }
    assert_true(n_preempted > 5); /* it did run out */
    world_close(&world);
}

/* Anything at any time; scheduler_check after each. */
static void test_random_operations(void **state)
{
    (void)state;
    enum { N = 40 };
    for (int round = 0; round < 20; round++) {
        struct world world;
        world_open(&world, &(struct scheduler_options){.n_parallel = 1 + chance_below(6),
                                                       .n_batch = 8 + chance_below(100),
                                                       .n_requests = 10 + chance_below(20),
                                                       .window_ms = chance_below(2) * 50.0,
                                                       .max_wait_ms = chance_below(2) * 3000.0});
        struct scheduler *s = world.scheduler;
        struct scheduler_entry entries[N] = {{.n_prompt = 0}}, *entry;
        double now_ms = 0;
        uint64_t n_removed = 0, n_finished = 0;
        for (int i = 0; i < 20000; i++, now_ms += chance_below(20)) {
            struct scheduler_entry *any = &entries[chance_below(N)];
            const struct scheduler_plan *plan;
            switch (chance_below(8)) {
            case 0:
                if (any->state != SCHEDULER_OUT)
                    break;
                *any = (struct scheduler_entry){.key = chance_below(5) ? chance_below(4) : chance_below(1000),
                                                .n_prompt = 1 + chance_below(300),
                                                .n_cached_likely = chance_below(400),
                                                .max_tokens = 1 + chance_below(100),
                                                .n_rows_max = chance_below(3) ? 0 : 1 + chance_below(20),
                                                .arrival_ms = now_ms - chance_below(50)};
                scheduler_add(s, any, now_ms, NULL);
                break;
            case 1:
                if (chance_below(4) == 0) {
                    scheduler_remove(s, any);
                    n_removed++;
                }
                break;
            case 2:
                if (chance_below(6) == 0)
                    scheduler_preempt(s);
                break;
            case 3:
                while ((entry = scheduler_expired(s, now_ms)))
                    scheduler_remove(s, entry);
                break;
            case 4:
                scheduler_wakeup_ms(s, now_ms);
                break;
            default:
                any->n_draft = chance_below(3) ? 0 : chance_below(12);
                if ((entry = scheduler_admit(s, now_ms, chance_below(2000))))
                    entry->n_committed = chance_below(entry->n_tokens);
                plan = scheduler_plan(s, now_ms);
                world_check(&world);
                if (chance_below(10) == 0)
                    scheduler_remove(s, any);
                if (chance_below(10) == 0)
                    scheduler_preempt(s);
                if (plan->n_items && plan->items[0].entry && chance_below(10) == 0) {
                    struct scheduler_item *item = &plan->items[0];
                    item->n_rows -= chance_below(item->n_rows + 1);
                    item->n_draft = item->n_draft < item->n_rows ? item->n_draft : item->n_rows;
                }
                world_check(&world);
                scheduler_done(s, chance_below(20) ? 100 * chance_uniform() : 0);
                for (uint32_t j = 0; j < plan->n_items; j++) {
                    entry = plan->items[j].entry;
                    if (!entry || entry->n_committed < entry->n_tokens)
                        continue;
                    for (uint32_t k = 0; k < plan->items[j].n_draft && chance_below(2); k++)
                        scheduler_accepted(s, &plan->items[j]);
                    scheduler_drew(s, entry);
                    if (entry->n_drawn >= entry->max_tokens || chance_below(50) == 0) {
                        scheduler_remove(s, entry);
                        n_finished++;
                    }
                }
            }
            world_check(&world);
        }
        assert_true(n_finished > 100 && n_removed > 100);
        for (int i = 0; i < N; i++)
            scheduler_remove(s, &entries[i]);
        struct scheduler_stats stats;
        scheduler_get_stats(s, &stats);
        assert_int_equal(stats.n_waiting + stats.n_running, 0);
        world_check(&world);
        world_close(&world);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_streams_do_not_stall),
        cmocka_unit_test(test_short_prompts_overtake),
        cmocka_unit_test(test_first_token_is_not_delayed_by_a_full_step),
        cmocka_unit_test(test_long_prompt_is_not_starved),
        cmocka_unit_test(test_short_prompts_wait_for_no_queue_of_long_ones),
        cmocka_unit_test(test_throughput),
        cmocka_unit_test(test_keys_share),
        cmocka_unit_test(test_a_busy_key_does_not_delay_others),
        cmocka_unit_test(test_window),
        cmocka_unit_test(test_limit_of_requests),
        cmocka_unit_test(test_preemption),
        cmocka_unit_test(test_small_pool),
        cmocka_unit_test(test_random_operations),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
