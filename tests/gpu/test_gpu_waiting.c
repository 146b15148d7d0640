/* test_gpu_waiting.c: what gpu.c does about a driver that answers no more, fails, or has not the memory, with a driver that is made up here:
 * no wait lasts longer than it may, after a loss everything fails at once in the same words, and the driver is not called any
 * more. Runs anywhere. */
#include "base/clock.h"
#include "gpu/driver.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { LARGEST = 1 << 20, PATIENCE_MS = 30 };

/* The driver, and what it is to do. */
struct made_up {
    struct gpu gpu;
    bool never_ends;  /* what is queued */
    int failure;      /* of whatever is called; RUNNEL_OK: none */
    unsigned n_calls; /* but for close and free */
    unsigned n_closed, n_host_freed;
};

static struct made_up *of(struct gpu *gpu)
{
    return (struct made_up *)gpu;
}

static int answer(struct gpu *gpu, runnel_error *error)
{
    of(gpu)->n_calls++;
    return of(gpu)->failure ? error_set(error, of(gpu)->failure, "the bus is gone") : RUNNEL_OK;
}

static int made_up_get_memory(struct gpu *gpu, uint64_t *free_bytes, uint64_t *total_bytes,
                              runnel_error *error)
{
    *free_bytes = *total_bytes = LARGEST;
    return answer(gpu, error);
}

static int made_up_alloc(struct gpu *gpu, size_t n_bytes, struct gpu_buffer *buffer, runnel_error *error)
{
    *buffer = (struct gpu_buffer){.handle = 0};
    int failure = answer(gpu, error);
    if (!failure)
        *buffer = (struct gpu_buffer){4096, n_bytes};
    return failure;
}

static void made_up_free(struct gpu *gpu, struct gpu_buffer *buffer)
{
    (void)gpu, (void)buffer;
}

static void *made_up_alloc_host(struct gpu *gpu, size_t n_bytes)
{
    (void)gpu;
    return malloc(n_bytes);
}

static void made_up_free_host(struct gpu *gpu, void *memory)
{
    of(gpu)->n_host_freed++;
    free(memory);
}

static int made_up_write(struct gpu *gpu, struct gpu_place to, const void *data, size_t n_bytes,
                         runnel_error *error)
{
    (void)to, (void)data, (void)n_bytes;
    return answer(gpu, error);
}

static int made_up_read(struct gpu *gpu, struct gpu_place from, void *data, size_t n_bytes,
                        runnel_error *error)
{
    (void)from, (void)data, (void)n_bytes;
    return answer(gpu, error);
}

static int made_up_launch(struct gpu *gpu, enum gpu_function function, const uint32_t n_groups[3],
                          const struct gpu_argument *arguments, uint32_t n_arguments, runnel_error *error)
{
    (void)function, (void)n_groups, (void)arguments, (void)n_arguments;
    return answer(gpu, error);
}

static int made_up_mark(struct gpu *gpu, runnel_error *error)
{
    return answer(gpu, error);
}

static int made_up_is_done(struct gpu *gpu, bool *done, runnel_error *error)
{
    *done = !of(gpu)->never_ends;
    return answer(gpu, error);
}

static void made_up_close(struct gpu *gpu)
{
    of(gpu)->n_closed++;
}

static const struct gpu_driver driver = {
    .name = "made up",
    .close = made_up_close,
    .get_memory = made_up_get_memory,
    .alloc = made_up_alloc,
    .free = made_up_free,
    .alloc_host = made_up_alloc_host,
    .free_host = made_up_free_host,
    .write = made_up_write,
    .read = made_up_read,
    .launch = made_up_launch,
    .mark = made_up_mark,
    .is_done = made_up_is_done,
};

static struct made_up open_made_up(void)
{
    return (struct made_up){
        .gpu = {.driver = &driver, .info = {.name = "Card 9000", .allocation_max_bytes = LARGEST}}};
}

/* Everything fails, in these words, and nothing of it reaches the driver; only closing does. */
static void check_lost(struct made_up *made_up, const char *message)
{
    static const uint32_t one_group[3] = {1, 1, 1};
    struct gpu *gpu = &made_up->gpu;
    struct gpu_buffer buffer = {4096, 64};
    unsigned n_calls = made_up->n_calls;
    char data[16] = {0};
    runnel_error errors[5];
    assert_true(gpu_is_lost(gpu));
    const int failures[] = {
        gpu_alloc(gpu, 64, &buffer, &errors[0]),
        gpu_write(gpu, gpu_at(buffer, 0), data, sizeof data, &errors[1]),
        gpu_read(gpu, gpu_at(buffer, 0), data, sizeof data, &errors[2]),
        gpu_launch(gpu, (enum gpu_function)0, one_group, NULL, 0, &errors[3]),
        gpu_finish(gpu, 60e3, &errors[4]),
    };
    for (size_t i = 0; i < sizeof failures / sizeof *failures; i++) {
        assert_int_equal(failures[i], gpu->failure.code);
        assert_string_equal(errors[i].message, message);
    }
    assert_null(gpu_alloc_host(gpu, 64));
    gpu_close(gpu);
    assert_int_equal(made_up->n_calls, n_calls);
    assert_int_equal(made_up->n_closed, 1);
}

static void what_never_ends_is_waited_for_as_long_as_it_may(void **state)
{
    (void)state;
    struct made_up made_up = open_made_up();
    runnel_error error;
    assert_int_equal(gpu_finish(&made_up.gpu, PATIENCE_MS, &error), RUNNEL_OK);
    assert_false(gpu_is_lost(&made_up.gpu));
    made_up.never_ends = true;
    double begin_ms = clock_ms();
    assert_int_equal(gpu_finish(&made_up.gpu, PATIENCE_MS, &error), RUNNEL_ETIMEOUT);
    assert_true(clock_ms() - begin_ms >= PATIENCE_MS);
    check_lost(&made_up, "Card 9000 has not answered for 30 ms");
}

/* What is queued may still read and write there: memory of this machine that a lost device was given stays. */
static void a_lost_device_keeps_what_it_may_write_to(void **state)
{
    (void)state;
    struct made_up made_up = open_made_up();
    char *memory[2];
    for (int i = 0; i < 2; i++)
        assert_non_null(memory[i] = gpu_alloc_host(&made_up.gpu, 64));
    gpu_free_host(&made_up.gpu, memory[0]);
    assert_int_equal(made_up.n_host_freed, 1);
    made_up.never_ends = true;
    assert_int_equal(gpu_finish(&made_up.gpu, PATIENCE_MS, NULL), RUNNEL_ETIMEOUT);
    gpu_free_host(&made_up.gpu, memory[1]);
    gpu_close(&made_up.gpu);
    assert_int_equal(made_up.n_host_freed, 1);
    memset(memory[1], 7, 64); /* as a late answer does */
    free(memory[1]);
}

/* Closing a device that is busy for ever returns, too: it is lost after a second. */
static void closing_does_not_wait_for_ever(void **state)
{
    (void)state;
    struct made_up made_up = open_made_up();
    made_up.never_ends = true;
    gpu_close(&made_up.gpu);
    assert_true(gpu_is_lost(&made_up.gpu));
    assert_int_equal(made_up.n_closed, 1);
}

static void a_failure_of_the_driver_is_a_loss(void **state)
{
    (void)state;
    struct made_up made_up = open_made_up();
    struct gpu_buffer buffer = {4096, 64};
    runnel_error error;
    char data[16] = {0};
    made_up.failure = RUNNEL_EIO;
    assert_int_equal(gpu_write(&made_up.gpu, gpu_at(buffer, 0), data, sizeof data, &error), RUNNEL_EIO);
    assert_string_equal(error.message, "the bus is gone");
    made_up.failure = RUNNEL_OK;
    check_lost(&made_up, "the bus is gone");
}

/* Too little memory, and places that are not there, are told; the device goes on. */
static void what_is_refused_is_no_loss(void **state)
{
    (void)state;
    struct made_up made_up = open_made_up();
    struct gpu *gpu = &made_up.gpu;
    struct gpu_buffer buffer;
    runnel_error error;
    char data[65] = {0};
    made_up.failure = RUNNEL_ENOMEM;
    assert_int_equal(gpu_alloc(gpu, 64, &buffer, &error), RUNNEL_ENOMEM);
    assert_int_equal(buffer.handle, 0);
    made_up.failure = RUNNEL_OK;
    made_up.n_calls = 0;
    assert_int_equal(gpu_alloc(gpu, 3 * LARGEST, &buffer, &error), RUNNEL_ENOMEM);
    assert_string_equal(error.message, "Card 9000 gives at most 1 MiB at a time, and 3 MiB are needed");
    assert_int_equal(made_up.n_calls, 0);
    assert_int_equal(gpu_alloc(gpu, 64, &buffer, &error), RUNNEL_OK);
    assert_int_equal(gpu_write(gpu, gpu_at(buffer, 0), data, 65, &error), RUNNEL_EINVAL);
    assert_int_equal(gpu_read(gpu, gpu_at(buffer, 60), data, 5, &error), RUNNEL_EINVAL);
    assert_int_equal(gpu_read(gpu, gpu_at(buffer, UINT64_MAX), data, 2, &error), RUNNEL_EINVAL);
    assert_int_equal(made_up.n_calls, 1);
    assert_int_equal(gpu_read(gpu, gpu_at(buffer, 60), data, 4, &error), RUNNEL_OK);
    assert_false(gpu_is_lost(gpu));
    gpu_close(gpu);
    assert_int_equal(made_up.n_closed, 1);
}

/* It is asked for once a second, in a sandbox that may not let the driver ask the system. */
static void memory_that_is_not_told_is_no_loss(void **state)
{
    (void)state;
    struct made_up made_up = open_made_up();
    uint64_t free_bytes, total_bytes;
    runnel_error error;
    made_up.failure = RUNNEL_EIO;
    assert_int_equal(gpu_get_memory(&made_up.gpu, &free_bytes, &total_bytes, &error), RUNNEL_EIO);
    assert_string_equal(error.message, "the bus is gone");
    assert_false(gpu_is_lost(&made_up.gpu));
    made_up.failure = RUNNEL_OK;
    assert_int_equal(gpu_finish(&made_up.gpu, PATIENCE_MS, &error), RUNNEL_OK);
    gpu_close(&made_up.gpu);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_never_ends_is_waited_for_as_long_as_it_may),
        cmocka_unit_test(a_lost_device_keeps_what_it_may_write_to),
        cmocka_unit_test(closing_does_not_wait_for_ever),
        cmocka_unit_test(a_failure_of_the_driver_is_a_loss),
        cmocka_unit_test(what_is_refused_is_no_loss),
        cmocka_unit_test(memory_that_is_not_told_is_no_loss),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
