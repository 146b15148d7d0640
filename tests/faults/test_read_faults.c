/* test_read_faults.c: every read of a model file in turn is short, interrupted, fails, or finds the end. What
 * can be repeated is repeated; all else is an error that says where, and nothing is half loaded. */
#include "faults/faults.h"
#include "helpers/split_model.h"
#include "helpers/tiny_model.h"
#include "runnel.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

enum { N_THREADS = 2, N_PARTS = 3, MORE_THAN_ENOUGH = 10000 };

static char whole[] = "/tmp/runnel-reads-XXXXXX"; /* also the beginning of the names of its parts */
static char parts[N_PARTS][64];
static const char *path = whole; /* of what is opened: the model in one file, or in parts */
static float expected[TINY_MODEL_TOKENS];

static int open_model(runnel_model **model, runnel_error *error)
{
    runnel_model_options options;
    runnel_model_options_init(&options);
    options.n_threads = N_THREADS;
    return runnel_model_open(path, &options, model, error);
}

/* The logits of a text pass through every weight but the rows of unused tokens. */
static void get_logits(const runnel_model *model, float logits[TINY_MODEL_TOKENS])
{
    runnel_error error;
    runnel_engine *engine;
    if (runnel_engine_start(model, NULL, &engine, &error) ||
        runnel_get_logits(engine, "all the weights, please", logits, TINY_MODEL_TOKENS, &error))
        fail_msg("%s", error.message);
    runnel_engine_stop(engine);
}

static void assert_loaded(const runnel_model *model, unsigned n)
{
    float logits[TINY_MODEL_TOKENS];
    get_logits(model, logits);
    if (memcmp(logits, expected, sizeof logits) != 0)
        fail_msg("read %u: another model", n);
}

/* Opens with the reads from number n on faulty. Returns the result of opening; *n_faults: how many there
 * were. */
static int open_with_fault(enum fault_kind kind, unsigned n, unsigned n_failing, unsigned *n_faults,
                           runnel_error *error)
{
    runnel_model *model = NULL;
    size_t n_pieces = faults_live_pieces(), n_mapped = faults_mapped_bytes();
    faults_arm(kind, n, n_failing);
    int failure = open_model(&model, error);
    *n_faults = faults_disarm();
    if (failure) {
        assert_null(model);
    } else {
        assert_loaded(model, n);
        runnel_model_close(model);
    }
    assert_int_equal(faults_live_pieces(), n_pieces);
    assert_int_equal(faults_mapped_bytes(), n_mapped);
    return failure;
}

/* Faults after which reading goes on. */
static void passing_faults(enum fault_kind kind)
{
    runnel_error error;
    unsigned n = 0, n_faults;
    do {
        assert_true(++n < MORE_THAN_ENOUGH);
        if (open_with_fault(kind, n, 1, &n_faults, &error))
            fail_msg("read %u: %s", n, error.message);
    } while (n_faults);
    assert_true(n > 10);
}

static void short_reads_go_on(void **state)
{
    (void)state;
    runnel_error error;
    unsigned n_faults;
    passing_faults(FAULT_READ_SHORT);
    if (open_with_fault(FAULT_READ_SHORT, 1, 0, &n_faults, &error))
        fail_msg("all reads short: %s", error.message);
    assert_true(n_faults > 100);
}

static void interrupted_reads_are_repeated(void **state)
{
    (void)state;
    runnel_error error;
    unsigned n_faults;
    passing_faults(FAULT_READ_SIGNAL);
    if (open_with_fault(FAULT_READ_SIGNAL, 3, 50, &n_faults, &error))
        fail_msg("50 interruptions: %s", error.message);
    assert_int_equal(n_faults, 50);
}

/* Faults that end it. Once is enough, and so is from then on. */
static void final_faults(enum fault_kind kind, const char *words)
{
    unsigned n_heads =
        path == whole ? 1 : N_PARTS; /* the first read of each file; all others are of tensors */
    for (unsigned n_failing = 0; n_failing <= 1; n_failing++) {
        unsigned n = 0, n_faults;
        for (;;) {
            runnel_error error = {.code = 1};
            assert_true(++n < MORE_THAN_ENOUGH);
            int failure = open_with_fault(kind, n, n_failing, &n_faults, &error);
            if (!n_faults) {
                assert_int_equal(failure, RUNNEL_OK);
                break;
            }
            if (failure != RUNNEL_EIO || error.code != failure)
                fail_msg("read %u: code %d, error.code %d, expected %d: %s", n, failure, error.code,
                         RUNNEL_EIO, error.message);
            if (!strstr(error.message, whole) || !strstr(error.message, " at offset ") ||
                !strstr(error.message, words))
                fail_msg("read %u: expected the path, the offset and '%s', found: %s", n, words,
                         error.message);
            if (n > n_heads && !strstr(error.message, ": tensor "))
                fail_msg("read %u: expected the tensor, found: %s", n, error.message);
        }
        assert_true(n > 10);
    }
}

static void a_failing_disk_is_an_error(void **state)
{
    (void)state;
    final_faults(FAULT_READ_DISK, "Input/output error");
}

static void a_shrunk_file_is_an_error(void **state)
{
    (void)state;
    final_faults(FAULT_READ_END, "the file shrank");
}

static int set_up(void **state)
{
    (void)state;
    runnel_error error;
    runnel_model *model;
    struct tiny_model_options options;
    struct split_model_options split;
    int fd = mkstemp(whole);
    if (fd < 0)
        return -1;
    close(fd);
    tiny_model_defaults(&options);
    split_model_defaults(&split, N_PARTS);
    for (unsigned part = 0; part < N_PARTS; part++)
        split_model_path(whole, part + 1, N_PARTS, parts[part], sizeof parts[part]);
    if (tiny_model_write(&options, whole, &error) || split_model_write(&split, whole, whole, &error) ||
        open_model(&model, &error)) {
        print_error("%s\n", error.message);
        return -1;
    }
    get_logits(model, expected);
    runnel_model_close(model);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    for (unsigned part = 0; part < N_PARTS; part++)
        unlink(parts[part]);
    return unlink(whole);
}

static int use_whole(void **state)
{
    (void)state;
    path = whole;
    return 0;
}

static int use_parts(void **state)
{
    (void)state;
    path = parts[0];
    return 0;
}

#define OF_BOTH(name) cmocka_unit_test_setup(name, use_whole), cmocka_unit_test_setup(name, use_parts)

int main(void)
{
    const struct CMUnitTest tests[] = {
        OF_BOTH(short_reads_go_on),
        OF_BOTH(interrupted_reads_are_repeated),
        OF_BOTH(a_failing_disk_is_an_error),
        OF_BOTH(a_shrunk_file_is_an_error),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
