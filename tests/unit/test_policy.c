/* test_policy.c: which processes of a server live: started, replaced, backed off, drained, changed, ended. No process is started here. */
#include "helpers/chance.h"
#include "service/policy.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

static const struct policy_options options = {
    .n_workers = 1,
    .first_delay_ms = 100,
    .longest_delay_ms = 1500,
    .n_early_deaths = 3,
    .start_ms = 60000,
    .drain_ms = 15000,
    .retire_ms = 90000,
    .hurry_ms = 2000,
    .hang_ms = 20000,
};

static struct policy policy;
static double now;
static char did[4096]; /* the actions since the last look, as words */

static void note(const struct policy_action *action)
{
    size_t len = strlen(did);
    char *at = did + len;
    size_t room = sizeof did - len;
    const char *space = len ? " " : "";
    switch (action->what) {
    case POLICY_START_KEEPER:
        snprintf(at, room, "%skeeper+%u", space, action->keeper);
        break;
    case POLICY_END_KEEPER:
        snprintf(at, room, "%skeeper-%u", space, action->keeper);
        break;
    case POLICY_START_WORKER:
        snprintf(at, room, "%sworker+%u:%u/%u@%u", space, action->slot, action->rank, action->n_workers,
                 action->keeper);
        break;
    case POLICY_RETIRE_WORKER:
        snprintf(at, room, "%sretire%u", space, action->slot);
        break;
    case POLICY_END_WORKER:
        snprintf(at, room, "%send%u", space, action->slot);
        break;
    case POLICY_HURRY_WORKER:
        snprintf(at, room, "%shurry%u", space, action->slot);
        break;
    case POLICY_KILL_WORKER:
        snprintf(at, room, "%skill%u", space, action->slot);
        break;
    case POLICY_START_GREETER:
        snprintf(at, room, "%sgreeter+", space);
        break;
    case POLICY_END_GREETER:
        snprintf(at, room, "%sgreeter-", space);
        break;
    case POLICY_TELL_READY:
        snprintf(at, room, "%sready", space);
        break;
    case POLICY_TELL_CHANGED:
        snprintf(at, room, "%schanged=%u", space, action->n_workers);
        break;
    case POLICY_TELL_GIVEN_UP:
        snprintf(at, room, "%sgiven-up=%u", space, action->n_workers);
        break;
    case POLICY_TELL_DELAY:
        snprintf(at, room, "%sdelay=%g", space, action->delay_ms);
        break;
    case POLICY_EXIT_DONE:
        snprintf(at, room, "%sexit", space);
        break;
    case POLICY_EXIT_FAILED:
        snprintf(at, room, "%sfailed", space);
        break;
    }
}

/* All that is to be done now. */
static const char *next(void)
{
    struct policy_action action;
    unsigned n = 0;
    did[0] = 0;
    while (policy_next(&policy, now, &action)) {
        note(&action);
        assert_true(++n < 1000);
    }
    return did;
}

static void begin(uint32_t n_workers)
{
    struct policy_options of = options;
    of.n_workers = n_workers;
    policy_init(&policy, &of);
    now = 1000;
}

/* A server with n workers in slots 0 to n - 1 of keeper 0, ready. */
static void begin_ready(uint32_t n_workers)
{
    begin(n_workers);
    next();
    policy_keeper_opened(&policy, 0);
    next();
    for (uint32_t i = 0; i < n_workers; i++)
        policy_worker_ready(&policy, i, now);
    next();
    policy_greeter_ended(&policy, now);
    next();
}

static void test_start(void **state)
{
    (void)state;
    begin(2);
    assert_string_equal(next(), "greeter+ keeper+0");
    assert_string_equal(next(), "");
    policy_keeper_opened(&policy, 0);
    assert_string_equal(next(), "worker+0:0/2@0 worker+1:1/2@0");
    policy_worker_ready(&policy, 1, now);
    assert_string_equal(next(), "greeter-");
    policy_greeter_ended(&policy, now);
    assert_string_equal(next(), "ready");
    policy_worker_ready(&policy, 0, now);
    assert_string_equal(next(), "");
    assert_int_equal(policy_count(&policy, POLICY_READY), 2);
}

static void test_a_start_that_cannot_be(void **state)
{
    (void)state;
    begin(1); /* the model cannot be opened */
    next();
    policy_keeper_died(&policy, 0, true, now);
    assert_string_equal(next(), "greeter-");
    policy_greeter_ended(&policy, now);
    assert_string_equal(next(), "failed");
    assert_string_equal(next(), "");

    begin(1); /* the engine cannot be started, and it is said why */
    next();
    policy_keeper_opened(&policy, 0);
    next();
    policy_worker_died(&policy, 0, true, now);
    assert_string_equal(next(), "greeter- keeper-0");
    policy_keeper_died(&policy, 0, true, now);
    policy_greeter_ended(&policy, now);
    assert_string_equal(next(), "failed");

    begin(1); /* it crashes again and again */
    next();
    policy_keeper_opened(&policy, 0);
    assert_string_equal(next(), "worker+0:0/1@0");
    policy_worker_died(&policy, 0, false, now);
    assert_string_equal(next(), "delay=100");
    now += 100;
    assert_string_equal(next(), "worker+0:0/1@0");
    policy_worker_died(&policy, 0, false, now);
    assert_string_equal(next(), "delay=200");
    now += 199;
    assert_string_equal(next(), "");
    assert_true(policy_wake_ms(&policy, now) == now + 1);
    now += 1;
    assert_string_equal(next(), "worker+0:0/1@0");
    policy_worker_died(&policy, 0, false, now);
    assert_string_equal(next(), "greeter- keeper-0");
}

static void test_a_dead_worker_is_replaced_at_once(void **state)
{
    (void)state;
    begin_ready(2);
    for (int i = 0; i < 20; i++) {
        policy_worker_died(&policy, 1, false, now);
        assert_string_equal(next(), "worker+1:1/2@0");
        policy_worker_ready(&policy, 1, now);
        assert_string_equal(next(), "");
    }
    policy_worker_drains(&policy, 1, now); /* somebody told it to end */
    assert_string_equal(next(), "worker+2:1/2@0");
    policy_worker_ready(&policy, 2, now);
    policy_worker_died(&policy, 1, false, now);
    assert_string_equal(next(), "");
    policy_worker_died(&policy, 0, false, now);
    policy_worker_died(&policy, 2, false, now);
    assert_string_equal(next(), "worker+0:0/2@0 worker+1:1/2@0"); /* no greeter: they are there in a moment */
}

static void test_deaths_before_ready_back_off(void **state)
{
    static const char *const delays[] = {"delay=100 greeter+", "delay=200",  "delay=400",
                                         "delay=800",          "delay=1500", "delay=1500"};
    (void)state;
    begin_ready(1);
    policy_worker_died(&policy, 0, false, now);
    assert_string_equal(next(), "worker+0:0/1@0");
    for (unsigned i = 0; i < 6; i++) { /* it was ready once: it is tried for ever */
        policy_worker_died(&policy, 0, i % 2, now);
        const char *what = next();
        assert_non_null(strstr(what, i ? delays[i] : "greeter+"));
        assert_null(strstr(what, "worker+"));
        now = policy_wake_ms(&policy, now);
        assert_string_equal(next(), "worker+0:0/1@0");
    }
    policy_worker_ready(&policy, 0, now);
    assert_string_equal(next(), "greeter-");
    policy_greeter_ended(&policy, now);
    assert_string_equal(next(), "");
    policy_worker_died(&policy, 0, false, now);
    assert_string_equal(next(), "worker+0:0/1@0"); /* all is as before */
}

static void test_a_worker_had_its_share(void **state)
{
    (void)state;
    begin_ready(2);
    policy_worker_spent(&policy, 0);
    policy_worker_spent(&policy, 1);
    assert_string_equal(next(), "worker+2:0/2@0"); /* one after the other */
    assert_string_equal(next(), "");
    policy_worker_ready(&policy, 2, now);
    assert_string_equal(next(), "retire0 worker+3:1/2@0"); /* the first drains, and now the second */
    policy_worker_died(&policy, 0, false, now);
    policy_worker_ready(&policy, 3, now);
    assert_string_equal(next(), "retire1");
    policy_worker_died(&policy, 1, false, now);
    assert_string_equal(next(), "");
    assert_int_equal(policy_count(&policy, POLICY_READY), 2);

    policy_worker_spent(&policy, 2); /* it dies while its successor starts, which stays */
    assert_string_equal(next(), "worker+0:0/2@0");
    policy_worker_died(&policy, 2, false, now);
    assert_string_equal(next(), "");
    policy_worker_ready(&policy, 0, now);
    assert_string_equal(next(), "");

    begin_ready(1); /* the last one drains: no more memory is taken before it has gone */
    policy_worker_spent(&policy, 0);
    next();
    policy_worker_ready(&policy, 1, now);
    assert_string_equal(next(), "retire0");
    policy_worker_spent(&policy, 1);
    assert_string_equal(next(), "");
    policy_worker_died(&policy, 0, false, now);
    assert_string_equal(next(), "worker+0:0/1@0");
}

/* There was no room for its successor beside it; there is now. */
static void test_a_spent_worker_dies_while_others_cannot_start(void **state)
{
    (void)state;
    begin_ready(1);
    policy_worker_spent(&policy, 0);
    assert_string_equal(next(), "worker+1:0/1@0");
    for (int i = 0; i < 6; i++) {
        policy_worker_died(&policy, 1, true, now);
        assert_non_null(strstr(next(), "delay="));
        now = policy_wake_ms(&policy, now);
        assert_string_equal(next(), "worker+1:0/1@0");
    }
    policy_worker_died(&policy, 1, true, now);
    policy_worker_died(&policy, 0, false, now);
    assert_string_equal(next(), "worker+0:0/1@0"); /* nobody is told of a delay */
}

static void test_more_and_fewer_workers(void **state)
{
    (void)state;
    begin_ready(1);
    assert_null(policy_scale(&policy, 3));
    assert_string_equal(next(), "worker+1:0/3@0 worker+2:1/3@0 worker+3:2/3@0");
    assert_string_equal(policy_scale(&policy, 2), "another change is under way");
    assert_string_equal(policy_swap(&policy), "another change is under way");
    policy_worker_ready(&policy, 1, now);
    policy_worker_ready(&policy, 3, now);
    assert_string_equal(next(), "");
    policy_worker_ready(&policy, 2, now);
    assert_string_equal(next(), "retire0 changed=3");
    policy_worker_died(&policy, 0, false, now);
    assert_string_equal(next(), "");
    assert_null(policy_scale(&policy, 1));
    assert_string_equal(next(), "worker+0:0/1@0");
    policy_worker_ready(&policy, 0, now);
    assert_string_equal(next(), "retire1 retire2 retire3 changed=1");
    assert_null(policy_scale(&policy, 1));
    assert_string_equal(next(), "changed=1");
}

static void test_a_change_that_cannot_be(void **state)
{
    (void)state;
    begin_ready(1);
    assert_null(policy_scale(&policy, 2));
    assert_string_equal(next(), "worker+1:0/2@0 worker+2:1/2@0");
    policy_worker_ready(&policy, 1, now);
    policy_worker_died(&policy, 2, true, now); /* no memory for it */
    assert_string_equal(next(), "retire1 given-up=1");
    policy_worker_died(&policy, 1, false, now);
    assert_string_equal(next(), "");
    assert_int_equal(policy_count(&policy, POLICY_READY), 1);
    assert_null(policy_scale(&policy, 2)); /* it may be tried again */
}

static void test_swap(void **state)
{
    (void)state;
    begin_ready(2);
    assert_null(policy_swap(&policy));
    assert_string_equal(next(), "keeper+1");
    policy_worker_died(&policy, 0, false,
                       now); /* until the other model is there, the one that is there counts */
    assert_string_equal(next(), "worker+0:0/2@0");
    policy_worker_ready(&policy, 0, now);
    policy_keeper_opened(&policy, 1);
    assert_string_equal(next(), "worker+2:0/2@1 worker+3:1/2@1");
    policy_worker_ready(&policy, 2, now);
    assert_string_equal(next(), "");
    policy_worker_ready(&policy, 3, now);
    assert_string_equal(next(), "retire0 retire1 changed=2");
    policy_worker_died(&policy, 0, false, now);
    assert_string_equal(next(), "");
    policy_worker_died(&policy, 1, false, now);
    assert_string_equal(next(), "keeper-0");
    policy_keeper_died(&policy, 0, true, now);
    assert_string_equal(next(), "");
    assert_null(policy_swap(&policy));
    assert_string_equal(next(), "keeper+0");
    policy_keeper_died(&policy, 0, true, now); /* the file was damaged */
    assert_string_equal(next(), "given-up=2");
    assert_int_equal(policy_count(&policy, POLICY_READY), 2);
    assert_null(policy_swap(&policy));
    assert_string_equal(next(), "keeper+0");
    policy_keeper_opened(&policy, 0);
    assert_string_equal(next(), "worker+0:0/2@0 worker+1:1/2@0");
    policy_worker_died(&policy, 0, true, now); /* opened, but no engine starts with it */
    assert_string_equal(next(), "kill1 given-up=2");
    policy_worker_died(&policy, 1, false, now);
    assert_string_equal(next(), "keeper-0");
    policy_keeper_died(&policy, 0, true, now);
    assert_string_equal(next(), "");
}

/* Another model is wanted while one loads, which may hang: that is ended. */
static void test_a_swap_instead_of_another(void **state)
{
    (void)state;
    begin(1);
    next();
    assert_string_equal(policy_swap(&policy), "no model is open yet");
    assert_false(policy_can_swap(&policy));

    begin_ready(1);
    assert_null(policy_swap(&policy));
    assert_string_equal(next(), "keeper+1");
    assert_false(policy_is_settled(&policy));
    assert_true(policy_can_swap(&policy) && policy_is_loading(&policy));
    assert_null(policy_swap(&policy));
    assert_string_equal(next(), "keeper-1");
    assert_string_equal(next(), "");
    policy_keeper_died(&policy, 1, true, now);
    assert_string_equal(next(), "keeper+1");
    policy_keeper_opened(&policy, 1);
    assert_string_equal(next(), "worker+1:0/1@1");
    assert_false(policy_can_swap(&policy)); /* that comes to an end */
    assert_string_equal(policy_swap(&policy), "another change is under way");
    policy_worker_ready(&policy, 1, now);
    assert_string_equal(next(), "retire0 changed=1");
    assert_true(policy_can_swap(&policy));
}

/* The keeper is dead, and the next one cannot open the model, or hangs: another one may be tried at any time, and at once. */
static void test_a_swap_where_no_model_opens(void **state)
{
    (void)state;
    begin_ready(1);
    policy_keeper_died(&policy, 0, true, now);
    assert_string_equal(next(), "keeper+0");
    policy_keeper_died(&policy, 0, true, now);
    assert_string_equal(next(), "delay=100");
    now += 100;
    assert_string_equal(next(), "keeper+0");
    policy_keeper_died(&policy, 0, true, now);
    assert_string_equal(next(), "delay=200");
    assert_false(policy_is_settled(&policy) || policy_has_model(&policy) || policy_is_loading(&policy));
    assert_null(policy_swap(&policy));
    assert_string_equal(next(), "keeper+0"); /* without a delay */
    policy_keeper_died(&policy, 0, true, now);
    assert_string_equal(next(), "delay=100"); /* from the beginning */
    now += 100;
    assert_string_equal(next(), "keeper+0");
    assert_null(policy_swap(&policy)); /* it hangs */
    assert_string_equal(next(), "keeper-0 keeper+1");
    policy_keeper_died(&policy, 0, true, now);
    policy_keeper_opened(&policy, 1);
    assert_string_equal(next(), "worker+1:0/1@1");
    policy_worker_ready(&policy, 1, now);
    assert_string_equal(next(), "retire0 changed=1");
    assert_true(policy_is_settled(&policy));
}

/* The model is open, and no worker comes to be ready with it: there is no team to return to. */
static void test_a_swap_where_no_worker_starts(void **state)
{
    (void)state;
    begin_ready(1);
    policy_keeper_died(&policy, 0, true, now);
    next();
    policy_keeper_opened(&policy, 0);
    assert_string_equal(next(), "worker+1:0/1@0");
    assert_false(policy_can_swap(&policy)); /* it may be ready in a moment */
    policy_worker_died(&policy, 1, true, now);
    assert_string_equal(next(), "delay=100");
    assert_false(policy_is_settled(&policy));
    assert_true(policy_can_swap(&policy));
    assert_null(policy_swap(&policy));
    assert_string_equal(next(), "keeper+1");
    policy_keeper_opened(&policy, 1);
    assert_string_equal(next(), "worker+1:0/1@1");
    policy_worker_ready(&policy, 1, now);
    assert_string_equal(next(), "retire0 keeper-0 changed=1");
    assert_true(policy_is_settled(&policy));
}

static void test_a_keeper_dies(void **state)
{
    (void)state;
    begin_ready(2);
    policy_keeper_died(&policy, 0, true, now); /* its workers go on */
    assert_string_equal(next(), "keeper+0");
    policy_keeper_opened(&policy, 0);
    assert_string_equal(next(), "worker+2:0/2@0 worker+3:1/2@0");
    policy_worker_ready(&policy, 2, now);
    policy_worker_ready(&policy, 3, now);
    assert_string_equal(next(), "retire0 retire1 changed=2");

    begin_ready(1);
    policy_keeper_died(&policy, 0, false, now); /* there is no room for a second model */
    assert_string_equal(next(), "retire0 greeter+");
    policy_worker_died(&policy, 0, false, now);
    assert_string_equal(next(), "keeper+0");
    policy_keeper_died(&policy, 0, true, now);
    assert_string_equal(next(), "delay=100");
    now += 100;
    assert_string_equal(next(), "keeper+0");
    policy_keeper_opened(&policy, 0);
    assert_string_equal(next(), "worker+0:0/1@0");
    policy_worker_ready(&policy, 0, now);
    assert_string_equal(next(), "greeter- changed=1");
}

static void test_a_new_models_keeper_dies(void **state)
{
    (void)state;
    begin_ready(1);
    policy_swap(&policy);
    next();
    policy_keeper_opened(&policy, 1);
    assert_string_equal(next(), "worker+1:0/1@1");
    policy_keeper_died(&policy, 1, true, now);
    policy_worker_died(&policy, 1, false, now);
    assert_string_equal(next(), "given-up=1");
    policy_swap(&policy);
    next();
    policy_keeper_died(&policy, 0, true, now); /* the old one, while the new one loads */
    assert_string_equal(next(), "");
    policy_keeper_opened(&policy, 1);
    assert_string_equal(next(), "worker+1:0/1@1");
    policy_worker_ready(&policy, 1, now);
    assert_string_equal(next(), "retire0 changed=1");
}

/* Seconds pass, and the worker shows these figures. */
static void show(uint32_t slot, unsigned seconds, uint64_t n_steps, uint64_t n_beats, bool has_work)
{
    while (seconds--) {
        now += 1000;
        policy_worker_progress(&policy, slot, n_steps, n_beats, has_work, now);
    }
}

static void test_a_worker_that_stands_still(void **state)
{
    (void)state;
    uint64_t n_beats = 1;
    begin_ready(1);
    for (int i = 0; i < 60; i++)
        show(0, 1, 7, n_beats++, false); /* no work */
    assert_string_equal(next(), "");
    for (uint64_t i = 0; i < 60; i++)
        show(0, 1, 8 + i / 10, n_beats++, true); /* slow steps */
    assert_string_equal(next(), "");
    for (int i = 0; i < 10; i++)
        show(0, 1, 13, n_beats++, true);
    assert_string_equal(next(), "");
    for (int i = 0; i < 6; i++)
        show(0, 1, 13, n_beats++, true);
    assert_string_equal(next(), "kill0 worker+1:0/1@0"); /* at once: it was ready */
    policy_worker_died(&policy, 0, false, now);
    policy_worker_ready(&policy, 1, now);
    show(1, 20, 0, 1, false);
    assert_string_equal(next(), "");
    show(1, 2, 0, 1, false); /* the loop does not turn */
    assert_string_equal(next(), "kill1 worker+0:0/1@0");
    policy_worker_died(&policy, 1, false, now);
    policy_worker_ready(&policy, 0, now);
    show(0, 10, 0, 1, true);
    now += 3600e3; /* all stood still, as after Ctrl-Z */
    show(0, 10, 0, 1, true);
    assert_string_equal(next(), "");
}

static void test_one_that_does_not_start_or_end(void **state)
{
    (void)state;
    begin_ready(1);
    policy_worker_died(&policy, 0, false, now);
    next();
    now += options.start_ms;
    assert_string_equal(next(), "kill0 greeter+ delay=100");
    policy_worker_died(&policy, 0, false, now);
    now += 100;
    assert_string_equal(next(), "worker+0:0/1@0");
    policy_worker_ready(&policy, 0, now);
    policy_scale(&policy, 2);
    next();
    policy_worker_ready(&policy, 1, now);
    policy_worker_ready(&policy, 2, now);
    assert_non_null(strstr(next(), "retire0"));
    assert_true(policy_wake_ms(&policy, now) == now + options.retire_ms);
    now += options.retire_ms;
    assert_string_equal(next(), "kill0");
}

/* Others have taken its place: it has the time of its requests, until the server ends or room is needed. */
static void test_how_long_one_drains(void **state)
{
    (void)state;
    begin_ready(1);
    policy_set_limits(&policy, options.drain_ms, HUGE_VAL, options.hang_ms);
    policy_scale(&policy, 2);
    next();
    policy_worker_ready(&policy, 1, now);
    policy_worker_ready(&policy, 2, now);
    assert_non_null(strstr(next(), "retire0"));
    assert_true(policy_wake_ms(&policy, now) == HUGE_VAL);
    show(0, 10, 7, 1, true); /* and yet not to stand still */
    show(1, 1, 1, 1, false);
    show(2, 1, 1, 1, false);
    assert_string_equal(next(), "");
    now += 1e9;
    assert_string_equal(next(), "");
    policy_end(&policy, now);
    assert_string_equal(next(), "end0 end1 end2");
    now += options.drain_ms - 1;
    assert_string_equal(next(), "");
    now++;
    assert_string_equal(next(), "kill0 kill1 kill2");

    begin_ready(1); /* it stands still */
    policy_worker_drains(&policy, 0, now);
    next();
    show(0, 21, 7, 1, true);
    assert_string_equal(next(), "");
    show(0, 1, 7, 1, true);
    assert_string_equal(next(), "kill0");

    begin_ready(2); /* there is no room for another model: one drains already */
    policy_worker_drains(&policy, 0, now);
    next();
    now += 1000;
    policy_keeper_died(&policy, 0, false, now);
    assert_non_null(strstr(next(), "retire1"));
    now += options.drain_ms;
    assert_non_null(strstr(next(), "kill0 kill1"));
}

/* Other limits hold for whoever drains from then on. */
static void test_other_limits(void **state)
{
    (void)state;
    begin_ready(1);
    policy_scale(&policy, 2);
    next();
    policy_worker_ready(&policy, 1, now);
    policy_worker_ready(&policy, 2, now);
    assert_non_null(strstr(next(), "retire0"));
    policy_set_limits(&policy, 1, 4 * options.retire_ms, 2 * options.hang_ms);
    policy_worker_drains(&policy, 1, now);
    assert_string_equal(next(), "worker+3:0/2@0");
    policy_worker_ready(&policy, 3, now);
    now += options.retire_ms;
    assert_string_equal(next(), "kill0"); /* it has told its clients when it will end */
    policy_worker_died(&policy, 0, false, now);
    assert_true(policy_wake_ms(&policy, now) == now + 3 * options.retire_ms);
    policy_set_limits(&policy, 1, 1, 2 * options.hang_ms);
    now += 3 * options.retire_ms - 1;
    assert_string_equal(next(), "");
    now++;
    assert_string_equal(next(), "kill1");
    show(2, 30, 0, 1, false);
    assert_string_equal(next(), "");
    show(2, 12, 0, 1, false);
    assert_non_null(strstr(next(), "kill2"));
}

static void test_all_stood_still(void **state)
{
    (void)state;
    begin_ready(2);
    policy_worker_drains(&policy, 0, now);
    assert_string_equal(next(), "worker+2:0/2@0");
    policy_time_passes(&policy, now);
    now += 1000;
    policy_time_passes(&policy, now);
    now += 3600e3; /* Ctrl-Z, a machine that sleeps */
    policy_time_passes(&policy, now);
    assert_string_equal(next(), "");
    assert_true(policy_wake_ms(&policy, now) == now + options.start_ms - 1000);
    for (double left_ms = options.start_ms - 1000; left_ms > 1000; left_ms -= 1000) {
        now += 1000;
        policy_time_passes(&policy, now);
        assert_string_equal(next(), "");
    }
    now += 1000;
    assert_non_null(strstr(next(), "kill2"));
    now += options.retire_ms - options.start_ms;
    assert_non_null(strstr(next(), "kill0"));
}

static void test_the_end(void **state)
{
    (void)state;
    begin_ready(2);
    policy_end(&policy, now);
    assert_string_equal(policy_scale(&policy, 3), "the server is about to end");
    assert_string_equal(next(), "end0 end1");
    policy_worker_died(&policy, 1, false, now);
    assert_string_equal(next(), "");
    policy_worker_died(&policy, 0, false, now);
    assert_string_equal(next(), "keeper-0");
    policy_keeper_died(&policy, 0, true, now);
    assert_string_equal(next(), "exit");

    begin_ready(2); /* while one retires: it is told as well, and once */
    policy_worker_drains(&policy, 0, now);
    assert_string_equal(next(), "worker+2:0/2@0");
    policy_end(&policy, now + 1000);
    now += 1000;
    assert_string_equal(next(), "end0 end1 kill2");
    policy_worker_drains(&policy, 1, now);
    assert_string_equal(next(), "");
    policy_end(&policy, now);
    assert_string_equal(next(), "hurry0 hurry1");

    begin_ready(1); /* somebody is in a hurry */
    policy_end(&policy, now);
    assert_string_equal(next(), "end0");
    policy_end(&policy, now);
    assert_string_equal(next(), "hurry0");
    now += options.hurry_ms;
    assert_string_equal(next(), "kill0");

    begin(1); /* while it loads */
    next();
    policy_end(&policy, now);
    assert_string_equal(next(), "greeter- keeper-0");
    policy_greeter_ended(&policy, now);
    policy_keeper_died(&policy, 0, true, now);
    assert_string_equal(next(), "exit");

    begin_ready(1); /* while a worker starts, and the keeper dies of it */
    policy_worker_died(&policy, 0, false, now);
    next();
    policy_end(&policy, now);
    assert_string_equal(next(), "kill0");
    policy_keeper_died(&policy, 0, true, now);
    policy_worker_died(&policy, 0, false, now);
    assert_string_equal(next(), "exit");
}

static void test_a_greeter_that_dies(void **state)
{
    (void)state;
    begin(1);
    assert_string_equal(next(), "greeter+ keeper+0");
    policy_greeter_ended(&policy, now);
    assert_string_equal(next(), "");
    now = policy_wake_ms(&policy, now);
    assert_string_equal(next(), "greeter+");
}

/* Anything may happen at any time. ----------------------------------------------------------------------------
 *
 * A world that does what it is told, late, and in which everybody may die. */
static bool greeter_is_told, keeper_is_told[POLICY_KEEPERS];

static void obey(void)
{
    struct policy_action action;
    unsigned n = 0;
    while (policy_next(&policy, now, &action)) {
        assert_true(++n < 1000);
        greeter_is_told |= action.what == POLICY_END_GREETER;
        if (action.what == POLICY_END_KEEPER)
            keeper_is_told[action.keeper] = true;
        assert_int_not_equal(action.what, POLICY_EXIT_FAILED);
    }
}

static uint32_t count_accepting(void)
{
    uint32_t n = 0;
    for (unsigned i = 0; i < POLICY_SLOTS; i++)
        n += policy.workers[i].state == POLICY_READY;
    return n;
}

/* What was told to end does, what starts gets ready; the rest dies one time in so many. 0: never. */
static void pass_time(unsigned one_in)
{
    now += (double)chance_below(400);
    if (greeter_is_told && chance_below(2)) {
        greeter_is_told = false;
        policy_greeter_ended(&policy, now);
    }
    for (uint32_t i = 0; i < POLICY_KEEPERS; i++) {
        bool dies = one_in && !chance_below(one_in * 4);
        if (policy.keepers[i] != POLICY_KEEPER_NONE && (dies || keeper_is_told[i])) {
            keeper_is_told[i] = false;
            policy_keeper_died(&policy, i, chance_below(2), now);
        } else if (policy.keepers[i] == POLICY_KEEPER_LOADING && !chance_below(4)) {
            policy_keeper_opened(&policy, i);
        }
    }
    for (uint32_t i = 0; i < POLICY_SLOTS; i++) {
        enum policy_worker_state is = policy.workers[i].state;
        bool dies = one_in && !chance_below(one_in);
        bool goes = (is == POLICY_DRAINING || is == POLICY_DYING) && !chance_below(3);
        if (is != POLICY_FREE && (dies || goes))
            policy_worker_died(&policy, i, dies && !chance_below(5), now);
        else if (is == POLICY_STARTING && !chance_below(3))
            policy_worker_ready(&policy, i, now);
        else if (is == POLICY_READY && !chance_below(50))
            policy_worker_spent(&policy, i);
    }
}

static void test_whatever_happens(void **state)
{
    (void)state;
    for (int round = 0; round < 200; round++) {
        begin_ready(1 + (uint32_t)chance_below(4));
        greeter_is_told = false;
        memset(keeper_is_told, 0, sizeof keeper_is_told);
        unsigned one_in = round % 2 ? 20 : 0;
        for (int i = 0; i < 300; i++) {
            uint32_t n_before = count_accepting();
            pass_time(one_in);
            if (!chance_below(10))
                policy_scale(&policy, 1 + (uint32_t)chance_below(5));
            if (!chance_below(10))
                policy_swap(&policy);
            obey();
            if (!one_in) /* whatever is changed or replaced, somebody accepts */
                assert_true(n_before && count_accepting());
        }
        for (int i = 0; i < 200; i++) { /* quiet again: all is as wanted, and nothing else lives */
            pass_time(0);
            obey();
        }
        assert_false(policy.is_changing || policy.is_swapping || policy.has_greeter);
        assert_in_range(policy_count(&policy, POLICY_READY) + policy_count(&policy, POLICY_STARTING),
                        policy.team.n_workers, policy.team.n_workers + 1); /* one may be replaced */
        assert_true(policy_count(&policy, POLICY_READY));
        policy_end(&policy, now);
        for (int i = 0; i < 200 && !policy.has_exited; i++) {
            obey();
            pass_time(0);
        }
        assert_true(policy.has_exited);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_start),
        cmocka_unit_test(test_a_start_that_cannot_be),
        cmocka_unit_test(test_a_dead_worker_is_replaced_at_once),
        cmocka_unit_test(test_deaths_before_ready_back_off),
        cmocka_unit_test(test_a_worker_had_its_share),
        cmocka_unit_test(test_a_spent_worker_dies_while_others_cannot_start),
        cmocka_unit_test(test_more_and_fewer_workers),
        cmocka_unit_test(test_a_change_that_cannot_be),
        cmocka_unit_test(test_swap),
        cmocka_unit_test(test_a_swap_instead_of_another),
        cmocka_unit_test(test_a_swap_where_no_model_opens),
        cmocka_unit_test(test_a_swap_where_no_worker_starts),
        cmocka_unit_test(test_a_keeper_dies),
        cmocka_unit_test(test_a_new_models_keeper_dies),
        cmocka_unit_test(test_a_worker_that_stands_still),
        cmocka_unit_test(test_one_that_does_not_start_or_end),
        cmocka_unit_test(test_how_long_one_drains),
        cmocka_unit_test(test_other_limits),
        cmocka_unit_test(test_all_stood_still),
        cmocka_unit_test(test_the_end),
        cmocka_unit_test(test_a_greeter_that_dies),
        cmocka_unit_test(test_whatever_happens),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
