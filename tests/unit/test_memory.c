/* test_memory.c: how full the memory is, and will be. */
#include "server/limits/memory.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

static void this_process_uses_some_of_its_limit(void **state)
{
    (void)state;
    struct memory_files files;
    memory_open(&files);
    struct memory_reading reading = memory_read(&files, UINT64_C(1) << 40);
    memory_close(&files);
    assert_in_range(reading.resident_bytes, 1 << 16, UINT64_C(1) << 36);
    assert_int_equal(reading.used_bytes, reading.resident_bytes);
    assert_int_equal(reading.limit_bytes, UINT64_C(1) << 40);
    assert_true(reading.percent > 0 && reading.percent < 10);
}

static void what_is_set_aside_counts(void **state)
{
    (void)state;
    struct memory_reading reading = {
        .resident_bytes = 10, .used_bytes = 200, .limit_bytes = 1000, .percent = 20};
    memory_expect(&reading, 0);
    assert_true(reading.resident_bytes == 10 && reading.used_bytes == 200 && reading.percent == 20);
    memory_expect(&reading, 300);
    assert_true(reading.resident_bytes == 310 && reading.used_bytes == 500 && reading.percent == 50);
    memory_expect(&reading, 600);
    assert_true(reading.used_bytes == 1100 && reading.percent == 100);
    reading = (struct memory_reading){.used_bytes = 5}; /* nobody knows the limit */
    memory_expect(&reading, 5);
    assert_true(reading.percent == 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(this_process_uses_some_of_its_limit),
        cmocka_unit_test(what_is_set_aside_counts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
