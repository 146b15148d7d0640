/* test_sandbox.c: what a process and its threads can do before and after the sandbox has closed. What somebody in a server cannot
 * do is in tests/server/test_sandbox.py. */
#include "service/sandbox.h"

#include "base/limits.h"
#include "helpers/child.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

/* A thread that is there before the sandbox closes, and tries afterwards. */
struct other {
    pthread_t thread;
    int begin[2]; /* a byte: now */
    int failure;
};

static int try_to_open(void)
{
    int file = open("/proc/self/status", O_RDONLY);
    int failure = file < 0 ? errno : 0;
    if (file >= 0)
        close(file);
    return failure;
}

static void *run_other(void *user)
{
    struct other *other = user;
    char byte;
    other->failure = read(other->begin[0], &byte, 1) == 1 ? try_to_open() : -1;
    return NULL;
}

static void format_now(char *out, size_t size)
{
    const time_t moment = 1700000000;
    struct tm parts;
    strftime(out, size, "%H:%M %Z", localtime_r(&moment, &parts));
}

/* Memory of all sizes is taken and given back. */
static bool use_memory(void)
{
    for (size_t size = 1; size < (size_t)1 << 26; size *= 3) {
        volatile char *block = malloc(size);
        if (!block)
            return false;
        block[size - 1] = 1;
        free((void *)block);
    }
    return true;
}

static void run_sandboxed(int descriptor, void *user)
{
    const bool *closes = user;
    struct other other;
    struct limits_memory_files files;
    char before[64], after[64];
    runnel_error error;
    limits_memory_open(&files);
    if (sandbox_begin(&error))
        dprintf(descriptor, "begin: %s\n", error.message);
    if (pipe(other.begin) || pthread_create(&other.thread, NULL, run_other, &other))
        _exit(3);
    format_now(before, sizeof before);
    if (*closes && sandbox_close(false, &error))
        dprintf(descriptor, "close: %s\n", error.message);
    if (write(other.begin[1], "", 1) != 1)
        _exit(4);
    pthread_join(other.thread, NULL);
    format_now(after, sizeof after);
    dprintf(descriptor, "own %d other %d memory %d heap %d zone %d\n", try_to_open(), other.failure,
            limits_memory_read(&files).limit_bytes > 0, use_memory(), !strcmp(before, after));
}

static void expect(bool closes, const char *text)
{
    static struct child child;
    child_run(run_sandboxed, &closes, &child);
    assert_true(WIFEXITED(child.status));
    assert_int_equal(WEXITSTATUS(child.status), 0);
    assert_string_equal(child.text, text);
}

static void test_before(void **state)
{
    (void)state;
    expect(false, "own 0 other 0 memory 1 heap 1 zone 1\n");
}

/* valgrind knows no such system call, and answers ENOSYS in the system's place. */
static bool has_filters(void)
{
    uint32_t action = SECCOMP_RET_ALLOW;
    return !syscall(SYS_seccomp, SECCOMP_GET_ACTION_AVAIL, 0, &action);
}

static void test_after(void **state)
{
    (void)state;
    if (RUNNEL_SANITIZED || !has_filters())
        skip();                                             /* there is none */
    expect(true, "own 1 other 1 memory 1 heap 1 zone 1\n"); /* 1: EPERM */
}

/* What is asked of an open device, by the letter of whose request it is, with data that goes there or comes back; without data they are the
 * console's: 0x4b49 gives a key another text. 0x5412 is a terminal's, as if somebody had typed. */
static void ask_devices(int descriptor, void *user)
{
    static const unsigned long requests[] = {0xc0104600 /* NVIDIA, both ways */,
                                             0x17 /* ... for memory */,
                                             0x40086409 /* graphics, there */,
                                             0x80104b01 /* AMD, back */,
                                             0x4600 /* a screen's */,
                                             0x6400,
                                             0x4b00,
                                             0x4b49,
                                             0x5412,
                                             0x8913};
    const bool *has_gpu = user;
    runnel_error error;
    int null = open("/dev/null", O_RDWR);
    if (null < 0 || sandbox_begin(&error) || sandbox_close(*has_gpu, &error))
        _exit(3);
    for (size_t i = 0; i < sizeof requests / sizeof *requests; i++)
        dprintf(descriptor, "%s ",
                ioctl(null, requests[i], NULL) == 0 ? "done"
                : errno == EPERM                    ? "EPERM"
                                                    : "asked");
}

static void test_devices(void **state)
{
    (void)state;
    static struct child child;
    bool has_gpu = false;
    if (RUNNEL_SANITIZED || !has_filters())
        skip();
    child_run(ask_devices, &has_gpu, &child);
    assert_string_equal(child.text, "EPERM EPERM EPERM EPERM EPERM EPERM EPERM EPERM EPERM EPERM ");
    has_gpu = true;
    child_run(ask_devices, &has_gpu, &child);
    assert_string_equal(child.text, "asked asked asked asked EPERM EPERM EPERM EPERM EPERM EPERM ");
}

static void test_sanitizers(void **state)
{
    (void)state;
    runnel_error error;
    if (!RUNNEL_SANITIZED)
        skip();
    assert_int_equal(sandbox_close(false, &error), RUNNEL_EUNSUPPORTED);
    assert_non_null(strstr(error.message, "sanitizers"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_before),
        cmocka_unit_test(test_after),
        cmocka_unit_test(test_devices),
        cmocka_unit_test(test_sanitizers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
