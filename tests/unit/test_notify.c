/* test_notify.c: what systemd is told, through a socket in its place. */
#include "service/notify.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static char said[512];

static int listen_as_systemd(const char *name)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    size_t len = strlen(name);
    int made = socket(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK, 0);
    memcpy(address.sun_path, name, len);
    if (*name == '@')
        address.sun_path[0] = 0;
    assert_false(
        bind(made, (struct sockaddr *)&address, (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len)));
    setenv("NOTIFY_SOCKET", name, 1);
    return made;
}

static const char *hear(int made)
{
    ssize_t n = recv(made, said, sizeof said - 1, 0);
    said[n > 0 ? n : 0] = 0;
    return said;
}

static void check(const char *name)
{
    struct notify notify;
    char microseconds[32];
    int systemd = listen_as_systemd(name);
    setenv("WATCHDOG_USEC", "4000000", 1);
    snprintf(microseconds, sizeof microseconds, "%d", (int)getpid());
    setenv("WATCHDOG_PID", microseconds, 1);
    notify_open(&notify);
    assert_null(getenv("NOTIFY_SOCKET"));
    assert_null(getenv("WATCHDOG_USEC"));
    notify_ready(&notify, "2 workers");
    assert_string_equal(hear(systemd), "READY=1\nSTATUS=2 workers");
    notify_status(&notify, "1 worker");
    assert_string_equal(hear(systemd), "STATUS=1 worker");
    notify_reloading(&notify);
    assert_memory_equal(hear(systemd), "RELOADING=1\nMONOTONIC_USEC=", 27);
    assert_true(atoll(said + 27) > 0);
    notify_alive(&notify, 5000);
    assert_string_equal(hear(systemd), "WATCHDOG=1");
    notify_alive(&notify, 6999);
    assert_string_equal(hear(systemd), "");
    notify_alive(&notify, 7000);
    assert_string_equal(hear(systemd), "WATCHDOG=1");
    notify_stopping(&notify);
    assert_string_equal(hear(systemd), "STOPPING=1");
    notify_close(&notify);
    close(systemd);
}

static void test_what_is_said(void **state)
{
    char path[] = "/tmp/runnel-notify-XXXXXX", name[64];
    (void)state;
    assert_non_null(mkdtemp(path));
    snprintf(name, sizeof name, "%s/socket", path);
    check(name);
    unlink(name);
    rmdir(path);
    snprintf(name, sizeof name, "@runnel-test-%d", (int)getpid());
    check(name);
}

static void test_nobody_listens(void **state)
{
    static const char *const names[] = {NULL, "", "@", "relative", "/nowhere/at/all"};
    (void)state;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        struct notify notify;
        if (names[i])
            setenv("NOTIFY_SOCKET", names[i], 1);
        notify_open(&notify);
        notify_ready(&notify, "");
        notify_alive(&notify, 1e12);
        notify_close(&notify);
    }
    struct notify notify;
    int systemd = listen_as_systemd("@runnel-test-other");
    setenv("WATCHDOG_USEC", "4000000", 1);
    setenv("WATCHDOG_PID", "1", 1); /* another process is to give the signs of life */
    notify_open(&notify);
    assert_true(isinf(notify.every_ms));
    notify_close(&notify);
    close(systemd);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_is_said),
        cmocka_unit_test(test_nobody_listens),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
