/* test_family.c: what a supervisor knows of its processes, and whom it believes. No process is started here. */
#include "service/family.h"

#include <setjmp.h>
#include <signal.h>
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

/* One of two has said why it cannot start, and the other is killed for it: that end is no reason. */
static void test_whoever_says_why_is_heard(void **state)
{
    const struct policy_options policy = {.n_workers = 2, .n_early_deaths = 3};
    struct service_options options = {0};
    struct notice gone = {
        .what = NOTICE_GONE, .status = 1 << 8, .error = {.code = RUNNEL_EINVAL, .message = "too small"}};
    int ends[2];
    (void)state;
    assert_int_equal(shared_create(&options.shared, NULL), RUNNEL_OK);
    family_init(&family, &options, &policy);
    assert_int_equal(channel_pipe(ends, NULL), RUNNEL_OK);
    family.keepers[0].channel = ends[0];
    for (unsigned i = 0; i < 2; i++) {
        family.workers[i] = (struct family_worker){.lives = true, .keeper = 0, .pipe = -1};
        family.policy.workers[i] = (struct policy_worker){.state = POLICY_STARTING, .keeper = 0};
    }
    assert_true(channel_send(ends[1], &gone, sizeof gone, -1));
    family_listen(&family);
    family.policy.workers[1].state = POLICY_DYING;
    gone = (struct notice){.what = NOTICE_GONE, .slot = 1, .status = SIGKILL};
    assert_true(channel_send(ends[1], &gone, sizeof gone, -1));
    family_listen(&family);
    assert_false(family.workers[1].lives);
    assert_string_equal(family.error.message, "too small");
    family.workers[1].lives = true;
    family.policy.workers[1].state = POLICY_STARTING; /* this time nobody has killed it here */
    assert_true(channel_send(ends[1], &gone, sizeof gone, -1));
    family_listen(&family);
    assert_string_equal(family.error.message, "worker 1 was killed by signal 9 (Killed) before it was ready");
    family.keepers[0].channel = -1;
    close(ends[0]);
    close(ends[1]);
    shared_free(options.shared);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_its_keeper_may_be_dead),
                                       cmocka_unit_test(test_a_worker_has_one_number),
                                       cmocka_unit_test(test_whoever_says_why_is_heard)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
