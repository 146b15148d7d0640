/* test_family.c: what a supervisor knows of its processes, and whom it believes. No process is started here. */
#include "service/family.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static struct family family;

static void begin_worker(uint32_t slot, const char *name)
{
    family.workers[slot].lives = true;
    family.policy.workers[slot].team = family.policy.team.number;
    snprintf(family.workers[slot].name, sizeof family.workers[slot].name, "%s", name);
}

/* It is told of at any time: when the server is ready, when a change has come to its end. */
static void test_its_keeper_may_be_dead(void **state)
{
    const struct service_options options = {0};
    const struct policy_options policy = {.n_workers = 1};
    (void)state;
    family_init(&family, &options, &policy);
    assert_int_equal(family.policy.team.keeper, POLICY_NONE);
    assert_string_equal(family_model_name(&family), "no model");
    begin_worker(3, "first");
    assert_string_equal(family_model_name(&family), "first");
    family.policy.team.keeper = 1;
    snprintf(family.keepers[1].name, sizeof family.keepers[1].name, "second");
    assert_string_equal(family_model_name(&family), "second");
    family.policy.team = (struct policy_team){.number = 2, .keeper = POLICY_NONE};
    assert_string_equal(family_model_name(&family), "no model"); /* that worker goes */
    begin_worker(5, "third");
    assert_string_equal(family_model_name(&family), "third");
}

/* What is signalled is the process that the keeper has named, whatever that says of itself. */
static void test_a_worker_has_one_number(void **state)
{
    const struct service_options options = {0};
    const struct policy_options policy = {.n_workers = 1};
    const struct report report = {.what = REPORT_ORDER, .pid = 1};
    int named[2], unnamed[2];
    (void)state;
    family_init(&family, &options, &policy);
    assert_int_equal(channel_pipe(named, NULL), RUNNEL_OK);
    assert_int_equal(channel_pipe(unnamed, NULL), RUNNEL_OK);
    family.workers[0] = (struct family_worker){.lives = true, .pid = 77, .pipe = named[0]};
    family.workers[1] = (struct family_worker){.lives = true, .pipe = unnamed[0]};
    assert_true(channel_send(named[1], &report, sizeof report, -1));
    assert_true(channel_send(unnamed[1], &report, sizeof report, -1));
    family_listen(&family);
    assert_true(family.has_orders);
    assert_int_equal(family.workers[0].pid, 77);
    assert_int_equal(family.workers[1].pid, 1); /* its keeper has not told yet */
    for (unsigned i = 0; i < 2; i++) {
        close(named[i]);
        close(unnamed[i]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_its_keeper_may_be_dead),
                                       cmocka_unit_test(test_a_worker_has_one_number)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
