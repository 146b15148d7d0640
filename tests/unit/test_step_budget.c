/* test_step_budget.c: how many rows of a prompt a step takes: what its time allows, and what the back end likes. */
#include "engine/step_budget.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

enum { N_MAX = 500, N_BATCH = 512 };

/* A machine whose rows take row_ms each. */
static void learn(struct step_cost *cost, double row_ms)
{
    step_cost_init(cost);
    for (uint32_t i = 0; i < 200; i++) {
        step_cost_learn(cost, 1 + i % 8, 0, 8 * row_ms);
        step_cost_learn(cost, 9 + i % 200, 0, (9 + i % 200) * row_ms);
    }
}

static uint32_t share(double row_ms, uint32_t n_rows_together, uint32_t n_rows_prompt, uint32_t n_max,
                      const struct step_fill *step)
{
    struct step_cost cost;
    learn(&cost, row_ms);
    const struct step_budget budget = {
        .cost = &cost,
        .n_batch = N_BATCH,
        .n_rows_together = n_rows_together,
        .n_rows_prompt = n_rows_prompt,
        .step_ms = 60,
        .prompt_ms = 240,
    };
    return step_budget_share(&budget, step, 0, n_max);
}

static const struct step_fill nobody = {.n_decode = 0};

/* 240 ms have time for 59 rows of 4 ms, and 1.6 times as many for 95. */
static void prompts_alone_take_what_is_liked(void **state)
{
    (void)state;
    assert_in_range(share(4, 1, 1, N_MAX, &nobody), 57, 60);
    assert_in_range(share(4, 1, 32, N_MAX, &nobody), 57, 60); /* more than it likes is no harm */
    assert_int_equal(share(4, 1, 64, N_MAX, &nobody), 64);
    assert_int_equal(share(4, 1, 90, N_MAX, &nobody), 90);
    assert_in_range(share(4, 1, 128, N_MAX, &nobody), 92, 97); /* what is bearable */
    assert_int_equal(share(2, 1, 128, N_MAX, &nobody), 128);
    assert_int_equal(share(2, 1, 128, 70, &nobody), 70);        /* all there is */
    assert_in_range(share(40, 1, 128, N_MAX, &nobody), 16, 16); /* a slow machine: the least */
}

static void what_is_there_already_counts(void **state)
{
    (void)state;
    const struct step_fill step = {.n_prompt = 40};
    assert_int_equal(share(4, 1, 64, N_MAX, &step), 24);
    assert_in_range(share(4, 1, 32, N_MAX, &step), 17, 20);
}

static void cut_prompts_leave_no_rows_over(void **state)
{
    (void)state;
    assert_int_equal(share(4, 8, 1, N_MAX, &nobody), 56);
    assert_int_equal(share(4, 16, 1, N_MAX, &nobody), 48);
    assert_int_equal(share(4, 16, 90, N_MAX, &nobody), 80);
    const struct step_fill step = {.n_decode = 5, .decode_ms = 32, .draws = true};
    for (uint32_t together = 8; together <= 16; together += 8)
        assert_int_equal((5 + share(1, together, 64, N_MAX, &step)) % together, 0);
}

/* Whatever the back end likes. */
static void streams_do_not_stall_for_it(void **state)
{
    (void)state;
    const struct step_fill step = {.n_decode = 4, .decode_ms = 32, .draws = true};
    assert_int_equal(share(4, 1, 128, N_MAX, &step), share(4, 1, 1, N_MAX, &step));
    assert_int_equal(share(1, 1, 128, N_MAX, &step), share(1, 1, 1, N_MAX, &step));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(prompts_alone_take_what_is_liked),
        cmocka_unit_test(what_is_there_already_counts),
        cmocka_unit_test(cut_prompts_leave_no_rows_over),
        cmocka_unit_test(streams_do_not_stall_for_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
