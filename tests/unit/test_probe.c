/* test_probe.c: what the levels' measurements of their units say of themselves, and the probe over them. How fast a machine is
 * is nobody's business here. */
#include "kernels/probe.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

/* Whoever adds a level names the unit that its measurement is of: a name that the level below has, too, is of the same one. */
static void each_unit_has_its_name(void **state)
{
    (void)state;
    const struct kernels *all;
    size_t n = kernels_possible(&all);
    for (size_t i = 0; i < n; i++) {
        assert_non_null(all[i].int8_unit);
        assert_true(all[i].int8_peak() > 0);
        if (i > 0)
            assert_int_equal(strcmp(all[i].int8_unit, all[i - 1].int8_unit) == 0,
                             all[i].int8_peak == all[i - 1].int8_peak);
    }
}

static uint64_t n_calls; /* of counting_peak, in one thread */

static uint64_t counting_peak(void)
{
    n_calls++;
    return 1000000;
}

/* It is the table's own measurement that the probe takes, whatever the table is called. */
static void the_probe_asks_the_table(void **state)
{
    (void)state;
    const struct kernels kernels = {.name = "avx512", .int8_unit = "made up", .int8_peak = counting_peak};
    struct team *team;
    assert_int_equal(team_create(1, &team, NULL), RUNNEL_OK);
    struct neighbour_round rounds[PROBE_ROUNDS] = {{0}};
    assert_true(probe_int8_gmac_s(team, &kernels, rounds) > 0);
    assert_true(n_calls > 0);
    for (int i = 0; i < PROBE_ROUNDS; i++)
        assert_true(rounds[i].alone > 0 && rounds[i].together > 0 && rounds[i].width >= 0);
    team_free(team);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_unit_has_its_name),
        cmocka_unit_test(the_probe_asks_the_table),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
