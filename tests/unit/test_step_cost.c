/* test_step_cost.c: the cost model against machines that are known. */
#include "engine/step_cost.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

static uint64_t seed;

static double uniform(void)
{
    seed = seed * 6364136223846793005u + 1442695040888963407u;
    return (double)(seed >> 11) / 9007199254740992.0;
}

/* A machine: a floor, a price of rows above it, a price of attention. */
struct machine {
    double floor_ms, row_ms, pair_us;
};

static double machine_ms(const struct machine *machine, uint32_t n_rows, double n_pairs)
{
    return fmax(machine->floor_ms, machine->row_ms * n_rows) + machine->pair_us * n_pairs / 1000;
}

static void learn(struct step_cost *cost, const struct machine *machine, int n, double noise)
{
    for (int i = 0; i < n; i++) {
        uint32_t n_rows = uniform() < 0.7 ? 1 + (uint32_t)(uniform() * 8) : 9 + (uint32_t)(uniform() * 120);
        double n_pairs = n_rows * uniform() * 3000;
        step_cost_learn(cost, n_rows, n_pairs,
                        machine_ms(machine, n_rows, n_pairs) * (1 + noise * (2 * uniform() - 1)));
    }
}

static void assert_close(const struct step_cost *cost, const struct machine *machine, uint32_t n_rows,
                         double context, double tolerance)
{
    double found = step_cost_ms(cost, n_rows, n_rows * context);
    double expected = machine_ms(machine, n_rows, n_rows * context);
    if (fabs(found - expected) > tolerance * expected)
        fail_msg("%u rows of context %.0f: %.1f ms, expected %.1f", n_rows, context, found, expected);
}

static void test_learns_a_machine(void **state)
{
    (void)state;
    static const struct machine machines[] = {{36, 3.4, 0.5}, {8, 0.9, 0.05}, {300, 30, 4}, {20, 0.3, 0.2}};
    for (size_t i = 0; i < sizeof machines / sizeof *machines; i++) {
        struct step_cost cost;
        step_cost_init(&cost);
        learn(&cost, &machines[i], 300, 0.1);
        for (uint32_t n_rows = 1; n_rows <= 128; n_rows += n_rows < 8 ? 1 : 20) {
            assert_close(&cost, &machines[i], n_rows, 100, 0.2);
            assert_close(&cost, &machines[i], n_rows, 2500, 0.2);
        }
    }
}

static void test_few_samples_suffice(void **state)
{
    (void)state;
    const struct machine machine = {9, 0.8, 0.05};
    struct step_cost cost;
    step_cost_init(&cost);
    for (int i = 0; i < 3; i++) { /* one client: a prompt, then one row a step */
        step_cost_learn(&cost, 64, step_cost_pairs(0, 64), machine_ms(&machine, 64, step_cost_pairs(0, 64)));
        step_cost_learn(&cost, 1, 64, machine_ms(&machine, 1, 64));
    }
    assert_close(&cost, &machine, 1, 100, 0.2);
    assert_close(&cost, &machine, 4, 100, 0.35);
    assert_close(&cost, &machine, 64, 30, 0.2);
}

/* One client: a prompt, then one row a step. What a second row costs is not known yet: on a machine and with a model that are twenty
 * times as fast as those that were measured once, as on any other, it is taken to be little. */
static void test_a_second_row_is_tried_on_any_machine(void **state)
{
    (void)state;
    static const double scales[] = {0.01, 0.05, 1, 20};
    for (size_t i = 0; i < sizeof scales / sizeof *scales; i++) {
        struct machine machine = {36 * scales[i], 3.4 * scales[i], 0.1 * scales[i]};
        struct step_cost cost;
        step_cost_init(&cost);
        for (int n = 0; n < 100; n++) {
            if (n % 50 == 0)
                step_cost_learn(&cost, 64, 2000, machine_ms(&machine, 64, 2000));
            step_cost_learn(&cost, 1, 64 + n, machine_ms(&machine, 1, 64 + n));
        }
        assert_true(step_cost_ms(&cost, 2, 200) < 1.1 * step_cost_ms(&cost, 1, 100));
        assert_true(step_cost_ms(&cost, 8, 800) < 1.5 * step_cost_ms(&cost, 1, 100));
        assert_close(&cost, &machine, 1, 100, 0.05);
    }
}

/* What rows cost is learned from a few steps that had some, whether they are nearly free or all that a step costs, and kept to within
 * a few percent: drafts are chosen by it. */
static void test_learns_what_a_row_costs(void **state)
{
    (void)state;
    static const double rows[] = {0, 0.02, 0.1, 0.4, 0.9};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct step_cost cost;
        step_cost_init(&cost);
        for (uint32_t n = 0; n < 60; n++) {
            uint32_t n_rows = n % 3 ? 1 : 1 + n % 5;
            step_cost_learn(&cost, n_rows, 0, 5 * (1 - rows[i] + rows[i] * n_rows));
        }
        for (uint32_t n = 1; n <= 6; n++) {
            double expected = 5 * (1 - rows[i] + rows[i] * n), found = step_cost_ms(&cost, n, 0);
            if (fabs(found - expected) > 0.08 * expected)
                fail_msg("%u rows of %g: %.2f ms, expected %.2f", n, rows[i], found, expected);
        }
    }
}

/* Kernels do rows in groups: what a number of rows costs is known of each that was tried, where no line could say it. */
static void test_learns_steps_between_rows(void **state)
{
    (void)state;
    static const double ms[] = {0, 40, 41, 52, 53, 53, 54, 60, 61};
    struct step_cost cost;
    step_cost_init(&cost);
    for (uint32_t i = 0; i < 400; i++)
        step_cost_learn(&cost, 1 + i % 8, 0, ms[1 + i % 8] * (0.95 + 0.1 * uniform()));
    for (uint32_t n = 1; n <= 8; n++)
        if (fabs(step_cost_ms(&cost, n, 0) - ms[n]) > 0.04 * ms[n])
            fail_msg("%u rows: %.1f ms, expected %.1f", n, step_cost_ms(&cost, n, 0), ms[n]);
    for (uint32_t n = 1; n < 64; n++)
        assert_true(step_cost_ms(&cost, n, 0) <= step_cost_ms(&cost, n + 1, 0));
}

/* Streams and guesses make many steps of a few more rows than eight, which may all cost the same. What a prompt's rows cost does not follow
 * from these: a step with all of them would hold everybody up. */
static void test_steps_of_guesses_say_little_of_prompts(void **state)
{
    (void)state;
    const struct machine machine = {36, 3.4, 0.1};
    struct step_cost cost;
    step_cost_init(&cost);
    learn(&cost, &machine, 200, 0.05);
    for (uint32_t i = 0; i < 2000; i++)
        step_cost_learn(&cost, 8 + i % 8, 100, 44);
    assert_true(step_cost_ms(&cost, 12, 100) < 48);
    assert_close(&cost, &machine, 128, 100, 0.25);
    assert_close(&cost, &machine, 256, 100, 0.25);
}

static void test_follows_a_change(void **state)
{
    (void)state;
    struct machine machine = {36, 3.4, 0.5};
    struct step_cost cost;
    step_cost_init(&cost);
    learn(&cost, &machine, 500, 0.05);
    machine.floor_ms *= 3; /* somebody took a core */
    machine.row_ms *= 3;
    learn(&cost, &machine, 600, 0.05);
    assert_close(&cost, &machine, 4, 100, 0.25);
    assert_close(&cost, &machine, 60, 100, 0.25);
}

static void test_outliers_and_nonsense(void **state)
{
    (void)state;
    const struct machine machine = {36, 3.4, 0.5};
    struct step_cost cost;
    step_cost_init(&cost);
    for (int i = 0; i < 40; i++) {
        learn(&cost, &machine, 25, 0.05);
        step_cost_learn(&cost, 4, 400, 5000); /* one in 26: the machine was suspended */
    }
    assert_true(cost.n_outliers >= 35);
    assert_close(&cost, &machine, 4, 100, 0.3);
    assert_close(&cost, &machine, 40, 100, 0.2);
    struct step_cost before = cost;
    step_cost_learn(&cost, 4, 400, NAN);
    step_cost_learn(&cost, 4, 400, 0);
    step_cost_learn(&cost, 4, -1, 40);
    step_cost_learn(&cost, 0, 400, 40);
    assert_int_equal(cost.n_samples, before.n_samples);
    assert_true(step_cost_ms(&cost, 4, 400) == step_cost_ms(&before, 4, 400));
}

static void test_fit_rows(void **state)
{
    (void)state;
    for (int round = 0; round < 50; round++) {
        struct step_cost cost;
        step_cost_init(&cost);
        const struct machine machine = {5 + 50 * uniform(), 5 * uniform(), uniform()};
        learn(&cost, &machine, 100, 0.5);
        for (uint32_t n_rows = 0; n_rows < 300; n_rows++)
            assert_true(step_cost_ms(&cost, n_rows, 1e4) <= step_cost_ms(&cost, n_rows + 1, 1e4) + 1e-9);
        uint32_t position = (uint32_t)(uniform() * 3000), n_decode = (uint32_t)(uniform() * 8);
        double limit_ms = 150 * uniform();
        uint32_t n = step_cost_fit_rows(&cost, n_decode, 500, position, 200, limit_ms);
        assert_true(n <= 200);
        if (n > 0)
            assert_true(step_cost_ms(&cost, n_decode + n, 500 + step_cost_pairs(position, n)) <= limit_ms);
        if (n < 200)
            assert_true(step_cost_ms(&cost, n_decode + n + 1, 500 + step_cost_pairs(position, n + 1)) >
                        limit_ms);
    }
    struct step_cost cost;
    step_cost_init(&cost);
    assert_true(step_cost_ms(&cost, 0, 0) == 0);
    assert_int_equal(step_cost_fit_rows(&cost, 0, 0, 0, 512, 1e9), 512);
    assert_int_equal(step_cost_fit_rows(&cost, 0, 0, 0, 512, 0), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_learns_a_machine),
        cmocka_unit_test(test_few_samples_suffice),
        cmocka_unit_test(test_follows_a_change),
        cmocka_unit_test(test_outliers_and_nonsense),
        cmocka_unit_test(test_fit_rows),
        cmocka_unit_test(test_a_second_row_is_tried_on_any_machine),
        cmocka_unit_test(test_learns_what_a_row_costs),
        cmocka_unit_test(test_steps_of_guesses_say_little_of_prompts),
        cmocka_unit_test(test_learns_steps_between_rows),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
