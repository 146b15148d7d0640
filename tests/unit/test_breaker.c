/* test_breaker.c: the breaker opens, refuses, probes and closes, step by step with a made-up clock. */
#include "server/limits/breaker.h"

#include "server/limits/shared.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

static const struct breaker_limits limits = {.memory_percent = 90, .n_timeouts = 3, .probe_ms = 10000};

static struct shared_counters counters;

static struct breaker make(double ready_percent)
{
    struct breaker breaker;
    counters = (struct shared_counters){0};
    breaker_init(&breaker, &limits, &counters);
    breaker_ready(&breaker, BREAKER_MAIN_MEMORY, ready_percent);
    return breaker;
}

/* A request from its coming to its end, at once. */
static enum breaker_level ask(struct breaker *breaker, enum breaker_outcome outcome, double now_ms)
{
    struct breaker_verdict verdict = breaker_admit(breaker, now_ms);
    if (verdict.level != BREAKER_REFUSING)
        breaker_end(breaker, &verdict, outcome, now_ms);
    return verdict.level;
}

static enum breaker_level see(struct breaker *breaker, double percent)
{
    breaker_see_memory(breaker, BREAKER_MAIN_MEMORY, percent, 0);
    return breaker_level(breaker);
}

static void test_timeouts_in_a_row_degrade(void **state)
{
    (void)state;
    struct breaker breaker = make(50);
    for (int i = 0; i < 10; i++) { /* not in a row */
        ask(&breaker, BREAKER_TIMED_OUT, 0);
        ask(&breaker, BREAKER_UNDECIDED, 0);
        ask(&breaker, BREAKER_TIMED_OUT, 0);
        ask(&breaker, BREAKER_ANSWERED, 0);
    }
    assert_int_equal(breaker_level(&breaker), BREAKER_CLOSED);
    assert_string_equal(breaker_reason(&breaker), "");
    for (int i = 0; i < 3; i++)
        assert_int_equal(ask(&breaker, BREAKER_TIMED_OUT, 0), BREAKER_CLOSED);
    assert_int_equal(breaker_level(&breaker), BREAKER_DEGRADED);
    assert_string_equal(breaker_reason(&breaker), "timeouts");
    assert_int_equal(shared_get(&counters.n_opened_by_timeouts), 1);
    assert_int_equal(ask(&breaker, BREAKER_ANSWERED, 9999), BREAKER_DEGRADED);
    assert_int_equal(breaker_level(&breaker), BREAKER_DEGRADED); /* that small ones succeed is no proof */
    assert_int_equal(shared_get(&counters.n_degraded), 1);
}

static void test_a_probe_closes(void **state)
{
    (void)state;
    struct breaker breaker = make(50);
    for (int i = 0; i < 3; i++)
        ask(&breaker, BREAKER_TIMED_OUT, 0);
    struct breaker_verdict probe = breaker_admit(&breaker, 10000);
    assert_true(probe.is_probe && probe.level == BREAKER_CLOSED);
    assert_int_equal(ask(&breaker, BREAKER_ANSWERED, 10001), BREAKER_DEGRADED); /* one at a time */
    breaker_end(&breaker, &probe, BREAKER_UNDECIDED, 10002);
    assert_int_equal(breaker_level(&breaker), BREAKER_DEGRADED);
    probe = breaker_admit(&breaker, 10003);
    assert_true(probe.is_probe);
    breaker_end(&breaker, &probe, BREAKER_TIMED_OUT, 20000); /* the next after twice as long */
    assert_int_equal(breaker_level(&breaker), BREAKER_DEGRADED);
    assert_int_equal(ask(&breaker, BREAKER_ANSWERED, 39999), BREAKER_DEGRADED);
    assert_int_equal(ask(&breaker, BREAKER_ANSWERED, 40000), BREAKER_CLOSED);
    assert_int_equal(breaker_level(&breaker), BREAKER_CLOSED);
    ask(&breaker, BREAKER_TIMED_OUT, 50000);
    ask(&breaker, BREAKER_TIMED_OUT, 50000);
    assert_int_equal(breaker_level(&breaker), BREAKER_CLOSED); /* it counts from nothing again */
}

static void test_the_wait_is_bounded(void **state)
{
    (void)state;
    struct breaker breaker = make(50);
    for (int i = 0; i < 3; i++)
        ask(&breaker, BREAKER_TIMED_OUT, 0);
    double now_ms = 0;
    for (int i = 0; i < 10; i++) {
        now_ms += 1e6;
        assert_int_equal(ask(&breaker, BREAKER_TIMED_OUT, now_ms), BREAKER_CLOSED);
    }
    assert_int_equal(ask(&breaker, BREAKER_ANSWERED, now_ms + 79999), BREAKER_DEGRADED);
    assert_int_equal(ask(&breaker, BREAKER_ANSWERED, now_ms + 80000), BREAKER_CLOSED);
}

static void test_timeouts_that_go_on_refuse(void **state)
{
    (void)state;
    struct breaker breaker = make(50);
    struct breaker_verdict early[8];
    for (int i = 0; i < 8; i++)
        early[i] = breaker_admit(&breaker, 0);
    for (int i = 0; i < 8; i++) /* those that were taken before do not count twice */
        breaker_end(&breaker, &early[i], BREAKER_TIMED_OUT, 0);
    assert_int_equal(breaker_level(&breaker), BREAKER_DEGRADED);
    for (int i = 0; i < 3; i++)
        assert_int_equal(ask(&breaker, BREAKER_TIMED_OUT, 1000), BREAKER_DEGRADED);
    assert_int_equal(breaker_level(&breaker), BREAKER_REFUSING);
    assert_true(breaker_would_refuse(&breaker, 1000));
    assert_int_equal(breaker_retry_after_s(&breaker, 1000), 10);
    assert_int_equal(breaker_retry_after_s(&breaker, 10500), 1);
    assert_int_equal(breaker_retry_after_s(&breaker, 1e6), 1);
    assert_int_equal(ask(&breaker, BREAKER_ANSWERED, 5000), BREAKER_REFUSING);
    assert_int_equal(shared_get(&counters.n_refused), 1);
    assert_false(breaker_would_refuse(&breaker, 11000));
    struct breaker_verdict probe = breaker_admit(&breaker, 11000);
    assert_true(probe.is_probe && probe.level == BREAKER_DEGRADED);
    assert_true(breaker_would_refuse(&breaker, 11000)); /* the others */
    breaker_end(&breaker, &probe, BREAKER_ANSWERED, 12000);
    assert_int_equal(breaker_level(&breaker), BREAKER_DEGRADED);
    assert_int_equal(ask(&breaker, BREAKER_ANSWERED, 21999), BREAKER_DEGRADED);
    assert_int_equal(ask(&breaker, BREAKER_ANSWERED, 22000), BREAKER_CLOSED);
    assert_int_equal(breaker_level(&breaker), BREAKER_CLOSED);
    assert_int_equal(shared_get(&counters.n_opened_by_timeouts), 1);
}

static void test_no_timeouts_open_it_if_told_so(void **state)
{
    (void)state;
    struct breaker breaker;
    const struct breaker_limits never = {.memory_percent = 100, .n_timeouts = 0, .probe_ms = 10000};
    breaker_init(&breaker, &never, &counters);
    breaker_ready(&breaker, BREAKER_MAIN_MEMORY, 50);
    for (int i = 0; i < 1000; i++)
        ask(&breaker, BREAKER_TIMED_OUT, i);
    assert_int_equal(see(&breaker, 100), BREAKER_CLOSED);
}

static void test_memory_has_two_marks_with_room_between(void **state)
{
    (void)state;
    struct breaker breaker;
    counters = (struct shared_counters){0};
    breaker_init(&breaker, &limits, &counters);
    assert_int_equal(see(&breaker, 100), BREAKER_CLOSED); /* not before it is ready */
    breaker_ready(&breaker, BREAKER_MAIN_MEMORY, 50);
    assert_int_equal(see(&breaker, 90), BREAKER_CLOSED);
    assert_int_equal(see(&breaker, 90.1), BREAKER_DEGRADED);
    assert_string_equal(breaker_reason(&breaker), "memory");
    assert_int_equal(see(&breaker, 85), BREAKER_DEGRADED);
    assert_int_equal(see(&breaker, 95), BREAKER_DEGRADED);
    assert_int_equal(see(&breaker, 95.1), BREAKER_REFUSING);
    assert_int_equal(see(&breaker, 92.6), BREAKER_REFUSING);
    assert_int_equal(see(&breaker, 92.4), BREAKER_DEGRADED);
    assert_int_equal(see(&breaker, 84.9), BREAKER_CLOSED);
    assert_int_equal(see(&breaker, 99), BREAKER_REFUSING); /* in one step */
    assert_int_equal(see(&breaker, 10), BREAKER_CLOSED);
    assert_int_equal(shared_get(&counters.n_opened_by_memory), 2);
}

/* What is used when the server is ready does not go away: it must be able to close again. */
static void test_what_is_used_from_the_start(void **state)
{
    (void)state;
    for (double base = 0; base <= 110; base += 0.5) {
        struct breaker breaker = make(base);
        assert_int_equal(see(&breaker, base), BREAKER_CLOSED);
        if (base >= 100)
            continue;
        enum breaker_level level = see(&breaker, base < 99.5 ? 99.9 : 100);
        assert_true(level != BREAKER_CLOSED);
        assert_int_equal(see(&breaker, base), BREAKER_CLOSED);
        assert_true(breaker.memories[BREAKER_MAIN_MEMORY].mark >= 90 &&
                    breaker.memories[BREAKER_MAIN_MEMORY].mark > base);
    }
    struct breaker breaker = make(94);
    assert_int_equal(see(&breaker, 97), BREAKER_CLOSED);
    assert_int_equal(see(&breaker, 97.1), BREAKER_DEGRADED);
    assert_int_equal(see(&breaker, 98.6), BREAKER_REFUSING);
}

/* A GPU's memory has marks of its own, which what is full at the start moves for it alone. */
static void test_two_memories(void **state)
{
    (void)state;
    struct breaker breaker = make(40);
    breaker_see_memory(&breaker, BREAKER_GPU_MEMORY, 99, 0);
    assert_int_equal(breaker_level(&breaker), BREAKER_CLOSED); /* not before it is ready */
    breaker_ready(&breaker, BREAKER_GPU_MEMORY, 96);
    breaker_see_memory(&breaker, BREAKER_GPU_MEMORY, 97, 0);
    assert_int_equal(see(&breaker, 80), BREAKER_CLOSED);
    assert_int_equal(see(&breaker, 91), BREAKER_DEGRADED);
    breaker_see_memory(&breaker, BREAKER_GPU_MEMORY, 99.5, 0);
    assert_int_equal(breaker_level(&breaker), BREAKER_REFUSING);
    assert_int_equal(see(&breaker, 20), BREAKER_REFUSING);
    breaker_see_memory(&breaker, BREAKER_GPU_MEMORY, 96, 0);
    assert_int_equal(breaker_level(&breaker), BREAKER_CLOSED);
    assert_int_equal(shared_get(&counters.n_opened_by_memory), 1);
}

static void test_a_probe_when_memory_refuses(void **state)
{
    (void)state;
    struct breaker breaker = make(50);
    breaker_see_memory(&breaker, BREAKER_MAIN_MEMORY, 99, 0);
    assert_int_equal(ask(&breaker, BREAKER_ANSWERED, 9999), BREAKER_REFUSING);
    assert_int_equal(ask(&breaker, BREAKER_ANSWERED, 10000), BREAKER_DEGRADED);
    assert_int_equal(breaker_level(&breaker), BREAKER_REFUSING);
    assert_int_equal(ask(&breaker, BREAKER_ANSWERED, 10001), BREAKER_REFUSING);
    breaker_see_memory(&breaker, BREAKER_MAIN_MEMORY, 91, 10002);
    assert_int_equal(ask(&breaker, BREAKER_ANSWERED, 99999), BREAKER_DEGRADED); /* no probe at full size */
}

static void test_both_at_once(void **state)
{
    (void)state;
    struct breaker breaker = make(50);
    for (int i = 0; i < 3; i++)
        ask(&breaker, BREAKER_TIMED_OUT, 0);
    breaker_see_memory(&breaker, BREAKER_MAIN_MEMORY, 91, 0);
    assert_string_equal(breaker_reason(&breaker), "memory and timeouts");
    assert_int_equal(ask(&breaker, BREAKER_ANSWERED, 20000), BREAKER_DEGRADED);
    breaker_see_memory(&breaker, BREAKER_MAIN_MEMORY, 50, 20000);
    assert_string_equal(breaker_reason(&breaker), "timeouts");
    assert_int_equal(ask(&breaker, BREAKER_ANSWERED, 30000), BREAKER_CLOSED);
    assert_int_equal(breaker_level(&breaker), BREAKER_CLOSED);
}

/* A probe that was overtaken by a step of the breaker leaves no trace. */
static void test_a_late_probe(void **state)
{
    (void)state;
    struct breaker breaker = make(50);
    for (int i = 0; i < 3; i++)
        ask(&breaker, BREAKER_TIMED_OUT, 0);
    struct breaker_verdict probe = breaker_admit(&breaker, 10000);
    assert_true(probe.is_probe);
    for (int i = 0; i < 3; i++)
        ask(&breaker, BREAKER_TIMED_OUT, 10001);
    assert_int_equal(breaker_level(&breaker), BREAKER_REFUSING);
    breaker_end(&breaker, &probe, BREAKER_ANSWERED, 10002);
    assert_int_equal(breaker_level(&breaker), BREAKER_REFUSING);
    assert_int_equal(ask(&breaker, BREAKER_ANSWERED, 20001), BREAKER_DEGRADED);
    assert_int_equal(breaker_level(&breaker), BREAKER_DEGRADED);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_timeouts_in_a_row_degrade),
        cmocka_unit_test(test_a_probe_closes),
        cmocka_unit_test(test_the_wait_is_bounded),
        cmocka_unit_test(test_timeouts_that_go_on_refuse),
        cmocka_unit_test(test_no_timeouts_open_it_if_told_so),
        cmocka_unit_test(test_memory_has_two_marks_with_room_between),
        cmocka_unit_test(test_what_is_used_from_the_start),
        cmocka_unit_test(test_two_memories),
        cmocka_unit_test(test_a_probe_when_memory_refuses),
        cmocka_unit_test(test_both_at_once),
        cmocka_unit_test(test_a_late_probe),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
