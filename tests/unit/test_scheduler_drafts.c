/* test_scheduler_drafts.c: rows of guessed tokens: computed and paid for, and committed only where they came true. */
#include "helpers/scheduler_world.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

/* Two entries of two keys that decode. */
static void begin_streams(struct scheduler *s, struct scheduler_entry entries[2])
{
    for (int i = 0; i < 2; i++) {
        entries[i] = (struct scheduler_entry){.key = (uint64_t)i, .n_prompt = 10, .max_tokens = 50};
        assert_int_equal(scheduler_add(s, &entries[i], 0, NULL), SCHEDULER_ACCEPTED);
        assert_ptr_equal(scheduler_admit(s, 0, UINT64_MAX), &entries[i]);
        entries[i].n_committed = 9;
    }
    const struct scheduler_plan *plan = scheduler_plan(s, 0);
    assert_int_equal(plan->n_rows, 2);
    assert_int_equal(plan->items[0].phase, SCHEDULER_PROMPT); /* its last row is a prompt's row, too */
    scheduler_done(s, 60);
    for (int i = 0; i < 2; i++)
        scheduler_drew(s, &entries[i]);
}

/* Guesses are rows of the step: computed and paid for, and committed only where they came true. */
static void test_guesses_that_come_true_stand(void **state)
{
    (void)state;
    struct world world;
    world_open(&world, &(struct scheduler_options){.n_parallel = 2, .step_budget_ms = 200});
    struct scheduler *s = world.scheduler;
    struct scheduler_entry entries[2];
    begin_streams(s, entries);
    entries[0].n_draft = 4;
    const struct scheduler_plan *plan = scheduler_plan(s, 100);
    struct scheduler_item *item = &plan->items[0];
    assert_ptr_equal(item->entry, &entries[0]);
    assert_int_equal(item->phase, SCHEDULER_DECODE);
    assert_int_equal(item->n_rows, 5);
    assert_int_equal(item->n_draft, 4);
    assert_int_equal(plan->items[1].n_rows, 1);
    world_check(&world);
    scheduler_done(s, 60);
    world_check(&world);
    assert_int_equal(entries[0].n_committed, entries[0].n_tokens); /* what was certain, so far */
    scheduler_accepted(s, item);
    scheduler_accepted(s, item);
    scheduler_drew(s, &entries[0]); /* the third guess was wrong */
    scheduler_drew(s, &entries[1]);
    world_check(&world);
    assert_int_equal(item->n_accepted, 2);
    assert_int_equal(entries[0].n_drawn, 4);
    assert_int_equal(entries[0].n_tokens, 14);
    assert_int_equal(entries[0].n_committed, 13);
    assert_int_equal(entries[1].n_committed, 11);
    entries[0].n_draft = 0;
    plan = scheduler_plan(s, 160); /* the wrong guesses are forgotten */
    assert_int_equal(plan->n_rows, 2);
    assert_int_equal(plan->items[0].n_draft + plan->items[1].n_draft, 0);
    world_close(&world);
}

/* Whose guesses fail pays for their rows all the same: the other key's prompt goes first. */
static void test_keys_pay_for_wrong_guesses(void **state)
{
    (void)state;
    struct world world;
    world_open(&world, &(struct scheduler_options){.n_parallel = 3, .step_budget_ms = 200});
    struct scheduler *s = world.scheduler;
    struct scheduler_entry entries[2], early = {.key = 0, .n_prompt = 40, .arrival_ms = 1000},
                                       late = {.key = 1, .n_prompt = 40, .arrival_ms = 2000};
    begin_streams(s, entries);
    for (int i = 0; i < 20; i++) {
        entries[0].n_draft = 7;
        scheduler_plan(s, 100 + 60 * i);
        scheduler_done(s, 60);
        scheduler_drew(s, &entries[0]);
        scheduler_drew(s, &entries[1]);
    }
    assert_int_equal(entries[0].n_drawn, entries[1].n_drawn); /* none came true */
    scheduler_add(s, &early, 2000, NULL);
    scheduler_add(s, &late, 2000, NULL);
    assert_ptr_equal(scheduler_admit(s, 2000, UINT64_MAX), &late);
    world_close(&world);
}

/* A batch has room for the row of everybody before it has any for guesses; a window's cut counts, too. */
static void test_guesses_take_what_room_is_left(void **state)
{
    (void)state;
    struct world world;
    world_open(&world, &(struct scheduler_options){.n_parallel = 2, .n_batch = 20, .step_budget_ms = 1000});
    struct scheduler *s = world.scheduler;
    struct scheduler_entry entries[2];
    begin_streams(s, entries);
    entries[0].n_draft = 30;
    entries[1].n_draft = 30;
    const struct scheduler_plan *plan = scheduler_plan(s, 100);
    assert_int_equal(plan->n_rows, 20);
    assert_int_equal(plan->items[0].n_rows, 19);
    assert_int_equal(plan->items[1].n_rows, 1);
    scheduler_done(s, 0);
    scheduler_drew(s, &entries[0]);
    scheduler_drew(s, &entries[1]);
    entries[0].n_rows_max = 1;
    entries[1].n_rows_max = 5;
    plan = scheduler_plan(s, 200);
    assert_int_equal(plan->items[0].n_rows, 1);
    assert_int_equal(plan->items[1].n_rows, 5);
    world_close(&world);
}

/* Where there is a prompt, its rows are what a step has time for: it gets as many as if nobody guessed. */
static void test_prompts_lose_no_row_to_guesses(void **state)
{
    (void)state;
    uint32_t n_rows[2];
    for (int guesses = 0; guesses < 2; guesses++) {
        struct world world;
        world_open(&world, &(struct scheduler_options){.n_parallel = 3});
        struct scheduler *s = world.scheduler;
        struct scheduler_entry entries[2], prompt = {.key = 3, .n_prompt = 500, .max_tokens = 10};
        begin_streams(s, entries);
        assert_int_equal(scheduler_add(s, &prompt, 100, NULL), SCHEDULER_ACCEPTED);
        assert_ptr_equal(scheduler_admit(s, 100, UINT64_MAX), &prompt);
        entries[0].n_draft = entries[1].n_draft = guesses ? 7 : 0;
        const struct scheduler_plan *plan = scheduler_plan(s, 100);
        assert_int_equal(plan->n_items, 3);
        assert_int_equal(plan->items[0].n_rows + plan->items[1].n_rows, 2);
        assert_ptr_equal(plan->items[2].entry, &prompt);
        n_rows[guesses] = plan->items[2].n_rows;
        world_close(&world);
    }
    assert_true(n_rows[0] > 3);
    assert_int_equal(n_rows[0], n_rows[1]);
}

/* A step of decoding rows alone takes as many guesses as its budget has time for. */
static void test_guesses_keep_the_budget(void **state)
{
    (void)state;
    static const double budgets_ms[] = {1, 55, 80};
    uint32_t n_before = 0;
    for (int i = 0; i < 3; i++) {
        struct world world;
        world_open(&world, &(struct scheduler_options){.n_parallel = 2, .step_budget_ms = budgets_ms[i]});
        struct scheduler *s = world.scheduler;
        struct scheduler_entry entries[2];
        begin_streams(s, entries);
        for (int j = 0; j < 50; j++) {
            scheduler_learn(s, 2, 0, 36);
            scheduler_learn(s, 6, 0, 40);
            scheduler_learn(s, 24, 0, 24 * 3.4);
        }
        entries[0].n_draft = 30;
        const struct scheduler_plan *plan = scheduler_plan(s, 100);
        assert_true(plan->expected_ms <=
                    (budgets_ms[i] > 46 ? budgets_ms[i] : 46)); /* 1.25 x what it takes anyhow */
        assert_true(plan->n_rows > n_before);
        n_before = plan->n_rows;
        world_close(&world);
    }
    assert_true(n_before > 15);
}

/* One stream alone, with nobody who waits: its guesses take what draft.c found them worth, however long the step. */
static void test_guesses_of_one_alone_have_no_budget(void **state)
{
    (void)state;
    struct world world;
    struct scheduler_entry entries[2], next = {.key = 3, .n_prompt = 20, .max_tokens = 10};
    world_open(&world, &(struct scheduler_options){.n_parallel = 2, .step_budget_ms = 1});
    struct scheduler *s = world.scheduler;
    begin_streams(s, entries);
    for (int j = 0; j < 50; j++) {
        scheduler_learn(s, 1, 0, 30);
        scheduler_learn(s, 6, 0, 60);
        scheduler_learn(s, 24, 0, 24 * 10);
    }
    entries[0].n_draft = 15;
    assert_true(scheduler_plan(s, 100)->n_rows < 6); /* two run */
    scheduler_done(s, 40);
    scheduler_drew(s, &entries[0]);
    scheduler_drew(s, &entries[1]);
    scheduler_remove(s, &entries[1]);
    assert_int_equal(scheduler_plan(s, 200)->n_rows, 16);
    scheduler_done(s, 160);
    scheduler_drew(s, &entries[0]);
    entries[0].n_rows_max = 4; /* a window's cut counts all the same */
    assert_int_equal(scheduler_plan(s, 300)->n_rows, 4);
    scheduler_done(s, 50);
    scheduler_drew(s, &entries[0]);
    entries[0].n_rows_max = 0;
    scheduler_add(s, &next, 400, NULL);
    assert_true(scheduler_plan(s, 400)->n_rows < 6); /* one waits */
    world_close(&world);
}

/* The forecast knows that answers come to their end sooner. */
static void test_waits_are_shorter_with_guesses(void **state)
{
    (void)state;
    double wait_ms[2];
    for (int guesses = 0; guesses < 2; guesses++) {
        struct world world;
        struct scheduler_forecast forecast;
        world_open(&world, &(struct scheduler_options){.n_parallel = 2, .step_budget_ms = 200});
        struct scheduler *s = world.scheduler;
        struct scheduler_entry entries[2], next = {.key = 3, .n_prompt = 20, .max_tokens = 10};
        begin_streams(s, entries);
        entries[0].max_tokens = entries[1].max_tokens = 2000;
        for (int i = 0; i < 100; i++) {
            entries[0].n_draft = entries[1].n_draft = guesses ? 2 : 0;
            const struct scheduler_plan *plan = scheduler_plan(s, 100);
            uint32_t n_rows = plan->n_rows;
            scheduler_done(s, n_rows > 2 ? 40 : 36);
            for (uint32_t j = 0; j < 2; j++) {
                for (uint32_t k = 0; k < plan->items[j].n_draft; k++)
                    scheduler_accepted(s, &plan->items[j]);
                scheduler_drew(s, plan->items[j].entry);
            }
            world_check(&world);
        }
        next.n_tokens = 0;
        scheduler_add(s, &next, 5000, &forecast);
        wait_ms[guesses] = forecast.wait_ms;
        world_close(&world);
    }
    assert_true(wait_ms[1] < 0.55 * wait_ms[0]);
    assert_true(wait_ms[1] > 0.2 * wait_ms[0]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_guesses_that_come_true_stand),
        cmocka_unit_test(test_keys_pay_for_wrong_guesses),
        cmocka_unit_test(test_guesses_take_what_room_is_left),
        cmocka_unit_test(test_prompts_lose_no_row_to_guesses),
        cmocka_unit_test(test_guesses_keep_the_budget),
        cmocka_unit_test(test_guesses_of_one_alone_have_no_budget),
        cmocka_unit_test(test_waits_are_shorter_with_guesses),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
