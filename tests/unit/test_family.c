/* test_family.c: what the model is called that is served. No process is started here. */
#include "service/family.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

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

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_its_keeper_may_be_dead)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
