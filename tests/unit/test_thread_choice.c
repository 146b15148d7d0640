/* test_thread_choice.c: with how many threads a model computes, from made-up measurements; and that the measurement itself works on a
 * tiny model, whatever it finds. */
#include "engine/thread_choice.h"
#include "engine/thread_trial.h"
#include "helpers/tiny_model.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static void only_a_broken_quota_is_measured(void **state)
{
    (void)state;
    assert_int_equal(thread_choice_cause(2, 0, NULL), THREADS_PLAIN);
    assert_int_equal(thread_choice_cause(2, 2, NULL), THREADS_PLAIN);
    assert_int_equal(thread_choice_cause(2, 1.5, NULL), THREADS_QUOTA);
    assert_int_equal(thread_choice_cause(4, 3.2, NULL), THREADS_QUOTA);
    assert_int_equal(thread_choice_cause(2, 1.99, NULL), THREADS_PLAIN); /* as good as whole */
    assert_int_equal(thread_choice_cause(2, 3.5, NULL), THREADS_PLAIN);  /* the affinity is narrower */
    assert_int_equal(thread_choice_cause(1, 0.5, NULL), THREADS_PLAIN);  /* fewer than one there are not */
}

/* Milliseconds that pass, that a thread ran; and what it did. */
static void a_thread_that_is_held_up_is_seen(void **state)
{
    (void)state;
    const struct thread_share idle[] = {{20, 20, 100}, {20, 19.5, 98}};
    const struct thread_share shares_its_cpu[] = {{20, 20, 100}, {22, 11, 55}};
    const struct thread_share host_is_busy[] = {{20, 20, 100},
                                                {21, 21, 50}}; /* not for the system that we see */
    const struct thread_share noise[] = {{20, 17, 85}, {20, 19, 100}};
    const struct thread_share all_share[] = {{20, 10, 50}, {20, 10, 50}};
    const struct thread_share one_of_three[] = {{20, 20, 100}, {20, 9, 50}, {20, 20, 100}};
    const struct thread_share late[] = {{20, 20, 100},
                                        {40, 39, 199}}; /* stayed longer, and did as much in it */
    assert_int_equal(thread_choice_cause(2, 0, idle), THREADS_PLAIN);
    assert_int_equal(thread_choice_cause(2, 0, shares_its_cpu), THREADS_BUSY_CPU);
    assert_int_equal(thread_choice_cause(2, 2, host_is_busy), THREADS_BUSY_CPU);
    assert_int_equal(thread_choice_cause(2, 0, noise), THREADS_PLAIN);
    assert_int_equal(thread_choice_cause(2, 0, all_share), THREADS_BUSY_CPU);
    assert_int_equal(thread_choice_cause(3, 0, one_of_three), THREADS_BUSY_CPU);
    assert_int_equal(thread_choice_cause(2, 0, late), THREADS_PLAIN);
    assert_int_equal(thread_choice_cause(2, 1.5, idle), THREADS_QUOTA);
    assert_int_equal(thread_choice_cause(1, 0, shares_its_cpu), THREADS_PLAIN);
}

static void expect(struct thread_choice choice, unsigned n_threads, const char *line)
{
    char found[128];
    thread_choice_describe(&choice, found, sizeof found);
    assert_int_equal(choice.n_threads, n_threads);
    assert_string_equal(found, line);
}

static void what_is_faster_is_taken(void **state)
{
    (void)state;
    expect(thread_choice_take(THREADS_QUOTA, 1.5, 2, 0.72, 1), 1,
           "1 thread, not 2: 1.39 times as fast under a quota of 1.5 CPUs");
    expect(thread_choice_take(THREADS_QUOTA, 3.8, 4, 3.3, 3), 4,
           "4 threads, not 3: 1.10 times as fast under a quota of 3.8 CPUs");
    expect(thread_choice_take(THREADS_BUSY_CPU, 0, 2, 0.5, 1), 1,
           "1 thread, not 2: 2.00 times as fast while a CPU is busy or slow");
    expect(thread_choice_take(THREADS_BUSY_CPU, 0, 3, 1.5, 1), 3,
           "3 threads, not 2: 1.50 times as fast while a CPU is busy or slow");
}

/* Nearly as fast: under a quota the threads that are never stopped; else all, as who is busy now may soon be gone. */
static void where_there_is_hardly_a_difference(void **state)
{
    (void)state;
    expect(thread_choice_take(THREADS_QUOTA, 1.5, 2, 1.03, 1), 1,
           "1 thread, not 2: hardly a difference, 0.97 times as fast under a quota of 1.5 CPUs");
    expect(thread_choice_take(THREADS_QUOTA, 1.5, 2, 1.06, 1), 2,
           "2 threads, not 1: 1.06 times as fast under a quota of 1.5 CPUs");
    expect(thread_choice_take(THREADS_BUSY_CPU, 0, 2, 1, 1.1), 2,
           "2 threads, not 1: hardly a difference, 0.91 times as fast while a CPU is busy or slow");
}

static void nothing_to_say_where_nothing_was_measured(void **state)
{
    (void)state;
    expect((struct thread_choice){.cause = THREADS_PLAIN, .n_threads = 2}, 2, "");
}

/* The measurement -------------------------------------------------------------------------------------------- */

static struct weights *load_weights(struct team *team, enum tensor_type type)
{
    char path[] = "/tmp/runnel-test-XXXXXX";
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    close(fd);
    struct tiny_model_options options;
    tiny_model_defaults(&options);
    options.n_ffn = 544; /* not whole blocks of activations */
    tiny_model_set_types(&options, type);
    runnel_error error;
    struct gguf *gguf = NULL;
    struct weights *weights = NULL;
    if (tiny_model_write(&options, path, &error) || gguf_open(path, &gguf, &error) ||
        weights_load(gguf, team, NULL, NULL, &weights, &error))
        fail_msg("%s", error.message);
    gguf_close(gguf);
    unlink(path);
    return weights;
}

static void the_trial_runs_with_every_kind_of_product(void **state)
{
    (void)state;
    static const enum tensor_type types[] = {TENSOR_Q8_0, TENSOR_F32};
    char message[256];
    const struct kernels *kernels = kernels_get(message, sizeof message);
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        struct team *team;
        struct thread_choice choice;
        runnel_error error;
        assert_int_equal(team_create(3, &team, &error), RUNNEL_OK);
        struct weights *weights = load_weights(team, types[i]);
        for (enum thread_cause cause = THREADS_QUOTA; cause <= THREADS_BUSY_CPU; cause++) {
            assert_int_equal(thread_trial_measure(kernels, weights, team, cause, 2.5, &choice, &error),
                             RUNNEL_OK);
            assert_int_equal(choice.cause, cause);
            assert_int_equal(choice.n_threads + choice.n_other, 3 + 2);
            assert_true(choice.times_as_fast > 0);
        }
        /* It is so small that no measurement is worth it. */
        assert_int_equal(thread_trial_choose(kernels, weights, team, 2.5, &choice, &error), RUNNEL_OK);
        assert_int_equal(choice.cause, THREADS_PLAIN);
        assert_int_equal(choice.n_threads, 3);
        weights_free(weights);
        team_free(team);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(only_a_broken_quota_is_measured),
        cmocka_unit_test(a_thread_that_is_held_up_is_seen),
        cmocka_unit_test(what_is_faster_is_taken),
        cmocka_unit_test(where_there_is_hardly_a_difference),
        cmocka_unit_test(nothing_to_say_where_nothing_was_measured),
        cmocka_unit_test(the_trial_runs_with_every_kind_of_product),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
