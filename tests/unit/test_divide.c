/* test_divide.c: what one of several workers gets. */
#include "service/divide.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

static void test_parts_add_up(void **state)
{
    (void)state;
    for (uint32_t n_workers = 1; n_workers <= 31; n_workers++) {
        const struct divide_amounts whole = {.n_threads = 37, .n_parallel = 64, .n_kv_bytes = 512 << 20};
        uint32_t n_threads = 0, n_parallel = 0;
        uint64_t n_kv_bytes = 0;
        for (uint32_t rank = 0; rank < n_workers; rank++) {
            struct divide_amounts part = divide_among(&whole, rank, n_workers);
            n_threads += part.n_threads;
            n_parallel += part.n_parallel;
            n_kv_bytes += part.n_kv_bytes;
        }
        assert_int_equal(n_threads, whole.n_threads);
        assert_int_equal(n_parallel, whole.n_parallel);
        assert_in_range(n_kv_bytes, whole.n_kv_bytes - n_workers, whole.n_kv_bytes);
    }
}

static void test_each_gets_something(void **state)
{
    (void)state;
    const struct divide_amounts whole = {.n_threads = 2, .n_parallel = 1, .n_kv_bytes = 300};
    for (uint32_t rank = 0; rank < 3; rank++) {
        struct divide_amounts part = divide_among(&whole, rank, 3);
        assert_int_equal(part.n_threads, 1);
        assert_int_equal(part.n_parallel, 1);
        assert_int_equal(part.n_kv_bytes, 100);
    }
}

/* Where nobody said how large the cache is, a context fits each part. */
static void test_a_part_of_the_cache_has_its_least(void **state)
{
    (void)state;
    const struct divide_amounts whole = {
        .n_threads = 2, .n_parallel = 8, .n_kv_bytes = 512, .n_kv_bytes_least = 200};
    for (uint32_t n_workers = 1; n_workers <= 15; n_workers++)
        for (uint32_t rank = 0; rank < n_workers; rank++)
            assert_int_equal(divide_among(&whole, rank, n_workers).n_kv_bytes,
                             n_workers <= 2 ? 512 / n_workers : 200);
    const struct divide_amounts small = {
        .n_threads = 1, .n_parallel = 1, .n_kv_bytes = 512, .n_kv_bytes_least = 700};
    assert_int_equal(divide_among(&small, 0, 1).n_kv_bytes, 700);
}

static void test_step_budget(void **state)
{
    (void)state;
    assert_true(divide_step_budget_ms(0, 1) == 60);
    assert_true(divide_step_budget_ms(0, 3) == 180);
    assert_true(divide_step_budget_ms(25, 3) == 25);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_parts_add_up),
        cmocka_unit_test(test_each_gets_something),
        cmocka_unit_test(test_a_part_of_the_cache_has_its_least),
        cmocka_unit_test(test_step_budget),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
