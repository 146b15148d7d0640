/* test_crash.c: processes that crash in each way, their reports, and how they end. */
#include "service/crash.h"

#include "base/thread.h"
#include "helpers/child.h"

#include <fcntl.h>
#include <jansson.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

/* What must be in no report: it stands on the stack, in the heap and in a register's reach when the process crashes. */
#define PROMPT "violet elephants keep secrets"

/* Volatile, so that no compiler sees what comes. */
static int *volatile nowhere;
static volatile int zero, depth;

static void write_to_nowhere(void)
{
    *nowhere = 1;
}

static void divide_by_zero(void)
{
#ifdef __x86_64__
    zero = depth / zero; /* of 1 a compiler would make a comparison */
#else
    raise(SIGFPE); /* ARM divides by zero */
#endif
}

static void meet_an_illegal_instruction(void)
{
#ifdef __x86_64__
    __asm__ volatile("ud2");
#else
    __asm__ volatile(".inst 0");
#endif
}

static void call_abort(void)
{
    abort();
}

/* A page of a file that has none. */
static void read_past_a_file(void)
{
    int file = memfd_create("empty", MFD_CLOEXEC);
    const volatile char *page = mmap(NULL, 4096, PROT_READ, MAP_SHARED, file, 0);
    zero = page[0];
}

static void fill_the_stack(void)
{
    volatile char frame[1 << 12];
    frame[depth % 4096] = 1;
    if (depth++ >= 0)
        fill_the_stack();
    depth += frame[0]; /* no tail call */
}

static void jump_to_nowhere(void)
{
    void (*volatile function)(void) = (void (*)(void))(uintptr_t)nowhere;
    function();
}

struct crasher {
    void (*crash)(void);
    const char *thread; /* it crashes on a thread of this name; NULL: on the first one */
    bool is_json;
};

static void *crash_on_thread(void *user)
{
    const struct crasher *crasher = user;
    thread_begin(crasher->thread);
    crasher->crash();
    return NULL;
}

static void run_crasher(int descriptor, void *user)
{
    const struct crasher *crasher = user;
    char on_stack[64] = PROMPT, *in_heap = strdup(PROMPT);
    pthread_t thread;
    if (crash_watch(descriptor, crasher->is_json, NULL))
        _exit(3);
    if (crasher->thread && !thread_start(&thread, crash_on_thread, user))
        pthread_join(thread, NULL);
    else
        crasher->crash();
    if (write(descriptor, in_heap, strlen(on_stack)) < 0) /* it has not crashed */
        _exit(4);
}

static void expect_report(struct crasher *crasher, int number, const char *first)
{
    static struct child child;
    if (RUNNEL_SANITIZED)
        skip(); /* they report, and end, as they see fit */
    child_run(run_crasher, crasher, &child);
    assert_true(WIFSIGNALED(child.status));
    assert_int_equal(WTERMSIG(child.status), number);
    if (!strstr(child.text, first) || !strstr(child.text, ", build ") || !strstr(child.text, "#0 ") ||
        !strstr(child.text, "end of the report") || strstr(child.text, "elephants"))
        fail_msg("expected '%s', build, frames, an end and nothing else, found:\n%s", first, child.text);
    assert_null(strstr(child.text, "build unknown"));
}

static void expect_frames(struct crasher *crasher, int number, const char *first)
{
    static struct child child;
    expect_report(crasher, number, first);
    child_run(run_crasher, crasher, &child);
    assert_non_null(strstr(child.text, "#0 test_crash+0x"));
    assert_non_null(strstr(child.text, "#1 test_crash+0x"));
    assert_non_null(strstr(child.text, " libc.so.6+0x")); /* what starts programs and threads */
}

static void test_segv(void **state)
{
    (void)state;
    struct crasher crasher = {.crash = write_to_nowhere};
    expect_frames(&crasher, SIGSEGV, "crash: SIGSEGV at address 0x0, thread test_crash (");
}

static void test_other_signals(void **state)
{
    (void)state;
    struct crasher bus = {.crash = read_past_a_file}, ill = {.crash = meet_an_illegal_instruction};
    struct crasher fpe = {.crash = divide_by_zero}, abrt = {.crash = call_abort};
    expect_frames(&bus, SIGBUS, "crash: SIGBUS at address 0x");
    expect_frames(&ill, SIGILL, "crash: SIGILL at address 0x");
    expect_report(&fpe, SIGFPE, "crash: SIGFPE");
    expect_report(&abrt, SIGABRT, "crash: SIGABRT, thread ");
}

static void test_thread(void **state)
{
    (void)state;
    struct crasher crasher = {.crash = write_to_nowhere, .thread = "runnel-engine"};
    expect_frames(&crasher, SIGSEGV, "crash: SIGSEGV at address 0x0, thread runnel-engine (");
}

/* The handler has a stack of its own, on each thread. */
static void test_full_stack(void **state)
{
    (void)state;
    struct crasher first = {.crash = fill_the_stack};
    struct crasher other = {.crash = fill_the_stack, .thread = "runnel-team 3"};
    expect_report(&first, SIGSEGV, "crash: SIGSEGV at address 0x");
    expect_report(&other, SIGSEGV, "thread runnel-team 3 (");
}

static void test_nothing_known_of_the_place(void **state)
{
    (void)state;
    struct crasher crasher = {.crash = jump_to_nowhere};
    expect_report(&crasher, SIGSEGV, "#0 outside of all programs and libraries");
}

/* Names of threads are cut and cleaned: they are all that others may choose. */
static void test_json(void **state)
{
    (void)state;
    static struct child child;
    struct crasher crasher = {.crash = write_to_nowhere, .is_json = true, .thread = "a\"b\\c\nd"};
    expect_report(&crasher, SIGSEGV, "thread a?b?c?d (");
    child_run(run_crasher, &crasher, &child);
    for (char *line = strtok(child.text, "\n"); line; line = strtok(NULL, "\n")) {
        json_t *object = json_loads(line, JSON_REJECT_DUPLICATES, NULL);
        assert_non_null(object);
        assert_string_equal(json_string_value(json_object_get(object, "event")), "crash");
        assert_non_null(json_string_value(json_object_get(object, "message")));
        assert_int_equal(strlen(json_string_value(json_object_get(object, "time"))), 24);
        json_decref(object);
    }
}

static void run_crasher_without_a_reader(int descriptor, void *user)
{
    int ends[2];
    char bytes[4096] = "";
    (void)descriptor;
    if (pipe2(ends, O_NONBLOCK))
        _exit(3);
    while (write(ends[1], bytes, sizeof bytes) > 0)
        ;
    fcntl(ends[1], F_SETFL, 0); /* from now on it would wait */
    run_crasher(ends[1], user);
}

/* A process that crashes ends, whoever does not read its report. */
static void test_no_room_for_the_report(void **state)
{
    (void)state;
    static struct child child;
    struct crasher crasher = {.crash = write_to_nowhere};
    if (RUNNEL_SANITIZED)
        skip();
    child_run(run_crasher_without_a_reader, &crasher, &child);
    assert_true(WIFSIGNALED(child.status));
    assert_int_equal(WTERMSIG(child.status), SIGSEGV);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_segv),
        cmocka_unit_test(test_other_signals),
        cmocka_unit_test(test_thread),
        cmocka_unit_test(test_full_stack),
        cmocka_unit_test(test_nothing_known_of_the_place),
        cmocka_unit_test(test_json),
        cmocka_unit_test(test_no_room_for_the_report),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
