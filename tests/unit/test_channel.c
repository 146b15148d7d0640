/* test_channel.c: messages between processes: whole or not at all, with a descriptor or without, and what a closed end says. */
#include "service/channel.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

static bool is_open(int descriptor)
{
    return fcntl(descriptor, F_GETFD) >= 0;
}

static void test_pair(void **state)
{
    int ends[2], pipe[2], came;
    struct order order = {.what = ORDER_START, .share = {.slot = 7}}, heard;
    char byte = 'a';
    (void)state;
    assert_false(channel_pair(ends, NULL));
    assert_false(channel_pipe(pipe, NULL));
    assert_int_equal(channel_receive(ends[1], &heard, sizeof heard, &came), CHANNEL_EMPTY);
    assert_true(channel_send(ends[0], &order, sizeof order, pipe[1]));
    order.share.slot = 8;
    assert_true(channel_send(ends[0], &order, sizeof order, -1));
    close(pipe[1]);
    assert_int_equal(channel_receive(ends[1], &heard, sizeof heard, &came), CHANNEL_MESSAGE);
    assert_int_equal(heard.share.slot, 7);
    assert_true(is_open(came));
    assert_int_equal(fcntl(came, F_GETFD), FD_CLOEXEC);
    assert_int_equal(write(came, &byte, 1), 1);
    close(came);
    assert_int_equal(read(pipe[0], &byte, 1), 1);
    assert_int_equal(read(pipe[0], &byte, 1), 0); /* nobody else had that end */
    assert_int_equal(channel_receive(ends[1], &heard, sizeof heard, &came), CHANNEL_MESSAGE);
    assert_int_equal(heard.share.slot, 8);
    assert_int_equal(came, -1);
    close(pipe[0]);
    close(ends[0]);
    assert_int_equal(channel_receive(ends[1], &heard, sizeof heard, &came), CHANNEL_CLOSED);
    assert_false(channel_send(ends[1], &order, sizeof order, -1));
    close(ends[1]);
}

/* Whether the other side takes what it is sent. */
static void test_unread(void **state)
{
    int ends[2], pipe[2], came;
    struct order order = {.what = ORDER_SIGNAL}, heard;
    (void)state;
    assert_false(channel_pair(ends, NULL));
    assert_false(channel_pipe(pipe, NULL));
    assert_false(channel_is_unread(ends[0]));
    assert_true(channel_send(ends[0], &order, sizeof order, -1));
    assert_true(channel_send(ends[0], &order, sizeof order, pipe[1]));
    assert_true(channel_is_unread(ends[0]));
    assert_false(channel_is_unread(ends[1]));
    assert_int_equal(channel_receive(ends[1], &heard, sizeof heard, &came), CHANNEL_MESSAGE);
    assert_true(channel_is_unread(ends[0]));
    assert_int_equal(channel_receive(ends[1], &heard, sizeof heard, &came), CHANNEL_MESSAGE);
    assert_false(channel_is_unread(ends[0]));
    close(came);
    close(pipe[0]);
    close(pipe[1]);
    close(ends[0]);
    close(ends[1]);
}

/* What was said before an end was closed is heard, though that end had not heard all. */
static void test_last_words(void **state)
{
    int ends[2];
    struct notice notice = {.what = NOTICE_GONE, .slot = 3}, heard;
    struct order order = {.what = ORDER_END};
    (void)state;
    assert_false(channel_pair(ends, NULL));
    assert_true(channel_send(ends[0], &order, sizeof order, -1));
    assert_true(channel_send(ends[1], &notice, sizeof notice, -1));
    close(ends[1]);
    assert_int_equal(channel_receive(ends[0], &heard, sizeof heard, NULL), CHANNEL_MESSAGE);
    assert_int_equal(heard.slot, 3);
    assert_int_equal(channel_receive(ends[0], &heard, sizeof heard, NULL), CHANNEL_CLOSED);
    close(ends[0]);
}

static void test_pipe(void **state)
{
    int ends[2];
    unsigned n = 0;
    struct report report = {.what = REPORT_READY, .pid = 5}, heard;
    (void)state;
    assert_false(channel_pipe(ends, NULL));
    assert_int_equal(channel_receive(ends[0], &heard, sizeof heard, NULL), CHANNEL_EMPTY);
    while (channel_send(ends[1], &report, sizeof report, -1)) /* until it is full: nobody waits */
        n++;
    assert_true(n > 50);
    close(ends[1]);
    for (unsigned i = 0; i < n; i++) {
        assert_int_equal(channel_receive(ends[0], &heard, sizeof heard, NULL), CHANNEL_MESSAGE);
        assert_int_equal(heard.pid, 5);
    }
    assert_int_equal(channel_receive(ends[0], &heard, sizeof heard, NULL), CHANNEL_CLOSED);
    close(ends[0]);
}

/* In a child, whose descriptors nobody needs. */
static void close_others_in_child(void)
{
    int keep[] = {40, -1, 10, 40};
    for (int i = 3; i <= 50; i++)
        dup2(STDERR_FILENO, i);
    channel_close_others(keep, 4);
    for (int i = 0; i <= 50; i++)
        if (is_open(i) != (i < 3 || i == 10 || i == 40))
            _exit(1);
    _exit(0);
}

static void test_close_others(void **state)
{
    int status;
    (void)state;
    pid_t pid = fork();
    if (pid == 0)
        close_others_in_child();
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_pair), cmocka_unit_test(test_unread),       cmocka_unit_test(test_last_words),
        cmocka_unit_test(test_pipe), cmocka_unit_test(test_close_others),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
