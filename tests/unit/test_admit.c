/* test_admit.c: who is let in: the limit, the shares of keys, and what is counted. */
#include "server/limits/admit.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

static void test_limit(void **state)
{
    struct admit admit;
    (void)state;
    admit_init(&admit, 3, 0);
    assert_int_equal(admit_take(&admit, 0, 2), ADMIT_TAKEN);
    assert_int_equal(admit_take(&admit, 0, 2), ADMIT_FULL);
    assert_int_equal(admit_take(&admit, 0, 1), ADMIT_TAKEN);
    assert_int_equal(admit_take(&admit, 0, 1), ADMIT_FULL);
    assert_int_equal(admit_take(&admit, 0, UINT32_MAX), ADMIT_FULL);
    assert_int_equal(admit.n_requests, 3);
    assert_int_equal(admit.n_full, 3);
    admit_give(&admit, 0, 1);
    assert_int_equal(admit_take(&admit, 0, 1), ADMIT_TAKEN);
}

/* A single key has all places. */
static void test_one_key(void **state)
{
    struct admit admit;
    (void)state;
    admit_init(&admit, 10, 1);
    assert_int_equal(admit_share(&admit), 10);
    assert_int_equal(admit_take(&admit, 1, 10), ADMIT_TAKEN);
    assert_int_equal(admit_take(&admit, 1, 1), ADMIT_FULL);
}

static uint32_t flood(struct admit *admit, uint32_t key)
{
    uint32_t n = 0;
    while (admit_take(admit, key, 1) == ADMIT_TAKEN)
        n++;
    return n;
}

/* Whoever floods first leaves places for those who come later. */
static void test_shares(void **state)
{
    struct admit admit;
    (void)state;
    admit_init(&admit, 100, 3);
    assert_int_equal(admit_share(&admit), 75);
    assert_int_equal(admit_take(&admit, 1, 76), ADMIT_OVER_SHARE);
    assert_int_equal(flood(&admit, 1), 75);
    assert_int_equal(admit.n_over_share, 2);
    assert_int_equal(flood(&admit, 2), 18);
    assert_int_equal(flood(&admit, 3), 5);
    admit_give(&admit, 1, 75); /* the others may have more then */
    assert_true(flood(&admit, 2) > 18);
    assert_true(admit.n_requests < 100);
}

static void test_few_places(void **state)
{
    struct admit admit;
    (void)state;
    admit_init(&admit, 1, 2);
    assert_int_equal(admit_share(&admit), 1);
    assert_int_equal(admit_take(&admit, 1, 1), ADMIT_TAKEN);
    assert_int_equal(admit_take(&admit, 2, 1), ADMIT_FULL);
    admit_give(&admit, 1, 1);
    assert_int_equal(admit_take(&admit, 2, 1), ADMIT_TAKEN);
}

static void test_timeouts(void **state)
{
    struct admit admit;
    (void)state;
    admit_init(&admit, 1, 0);
    admit_timed_out(&admit);
    admit_timed_out(&admit);
    assert_int_equal(admit.n_timeouts_in_a_row, 2);
    admit_answered(&admit);
    assert_int_equal(admit.n_timeouts_in_a_row, 0);
    admit_timed_out(&admit);
    assert_int_equal(admit.n_timeouts_in_a_row, 1);
    assert_int_equal(admit.n_timeouts, 3);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_limit),      cmocka_unit_test(test_one_key),  cmocka_unit_test(test_shares),
        cmocka_unit_test(test_few_places), cmocka_unit_test(test_timeouts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
