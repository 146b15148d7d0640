/* test_loop.c: messages to the loop from several threads, and what an exchange may do when. */
#include "server/net/exchange.h"

#include <arpa/inet.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

enum { N_SENDERS = 4, N_MESSAGES = 20000 };

struct note {
    struct loop_message message;
    unsigned sender, number;
};

static struct loop *loop;
static unsigned next_number[N_SENDERS], n_received;
static bool in_order;

static void receive(void *user)
{
    struct note *note = user;
    in_order &= note->number == next_number[note->sender]++;
    free(note);
    if (++n_received == N_SENDERS * N_MESSAGES)
        loop_stop(loop);
}

static void *send_notes(void *user)
{
    for (unsigned i = 0; i < N_MESSAGES; i++) {
        struct note *note = malloc(sizeof *note);
        if (!note)
            abort();
        *note = (struct note){
            .message = {.run = receive, .user = note}, .sender = *(unsigned *)user, .number = i};
        loop_post(loop, &note->message);
    }
    return NULL;
}

static void test_messages(void **state)
{
    (void)state;
    struct loop_handlers handlers = {0};
    pthread_t threads[N_SENDERS];
    unsigned senders[N_SENDERS];
    in_order = true;
    assert_int_equal(loop_create(&loop_default_limits, &handlers, &loop, NULL), 0);
    for (unsigned i = 0; i < N_SENDERS; i++) {
        senders[i] = i;
        assert_int_equal(pthread_create(&threads[i], NULL, send_notes, &senders[i]), 0);
    }
    assert_int_equal(loop_run(loop, NULL), 0);
    for (unsigned i = 0; i < N_SENDERS; i++)
        pthread_join(threads[i], NULL);
    assert_true(in_order);
    assert_int_equal(n_received, N_SENDERS * N_MESSAGES);
    loop_free(loop);
}

/* A message posted by a message runs in a later turn: the loop does not hang in its mailbox. */
static unsigned n_again;
static struct loop_message again;

static void post_again(void *user)
{
    (void)user;
    if (++n_again == 1000)
        loop_stop(loop);
    else
        loop_post(loop, &again);
}

static void test_message_that_posts(void **state)
{
    (void)state;
    struct loop_handlers handlers = {0};
    again.run = post_again;
    assert_int_equal(loop_create(&loop_default_limits, &handlers, &loop, NULL), 0);
    loop_post(loop, &again);
    assert_int_equal(loop_run(loop, NULL), 0);
    assert_int_equal(n_again, 1000);
    loop_free(loop);
}

static void test_listening_socket_is_needed(void **state)
{
    (void)state;
    struct loop_handlers handlers = {0};
    runnel_error error = {0};
    int descriptor = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(loop_create(&loop_default_limits, &handlers, &loop, NULL), 0);
    assert_int_equal(loop_listen(loop, descriptor, &error), RUNNEL_EINVAL);
    assert_non_null(strstr(error.message, "listening"));
    close(descriptor);
    assert_int_equal(loop_listen(loop, descriptor, &error), RUNNEL_EINVAL);
    loop_free(loop);
}

/* --- on_gone comes from the loop alone --- */

static struct exchange *held;
static bool inside, gone_inside;
static unsigned n_gone;
static int client;

static void on_gone(struct exchange *exchange, void *user)
{
    (void)user;
    n_gone++;
    gone_inside = inside;
    assert_true(exchange_is_gone(exchange) && exchange_is_cut(exchange));
    assert_false(exchange_stream_write(exchange, "x", 1));
    exchange_stream_end(exchange);
    loop_stop(loop);
}

/* Writes more than anybody would read. */
static void on_request(struct exchange *exchange, void *user)
{
    (void)user;
    static char piece[100000];
    memset(piece, 'x', sizeof piece);
    held = exchange;
    exchange_set_user(exchange, &held);
    assert_ptr_equal(exchange_user(exchange), &held);
    assert_ptr_equal(exchange_loop(exchange), loop);
    exchange_set_gone(exchange, on_gone, NULL);
    inside = true;
    exchange_stream_begin(exchange, 200, "text/plain", NULL);
    int n = 0;
    while (exchange_stream_write(exchange, piece, sizeof piece))
        assert_true(++n < 1000);
    assert_true(exchange_is_gone(exchange));
    inside = false;
}

static void test_gone_comes_from_the_loop(void **state)
{
    (void)state;
    struct loop_handlers handlers = {.on_request = on_request};
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof address;
    int listener = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(bind(listener, (struct sockaddr *)&address, sizeof address), 0);
    assert_int_equal(listen(listener, 8), 0);
    assert_int_equal(getsockname(listener, (struct sockaddr *)&address, &len), 0);
    assert_int_equal(loop_create(&loop_default_limits, &handlers, &loop, NULL), 0);
    assert_int_equal(loop_listen(loop, listener, NULL), 0);
    client = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(connect(client, (struct sockaddr *)&address, sizeof address), 0);
    const char *request = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    assert_int_equal(write(client, request, strlen(request)), strlen(request));
    assert_int_equal(loop_run(loop, NULL), 0);
    assert_int_equal(n_gone, 1);
    assert_false(gone_inside);
    assert_int_equal(loop_stats(loop).n_exchanges, 0);
    assert_int_equal(loop_stats(loop).n_connections, 1); /* the end of the stream waits to be read */
    loop_free(loop);
    close(client);
    close(listener);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_messages),
        cmocka_unit_test(test_message_that_posts),
        cmocka_unit_test(test_listening_socket_is_needed),
        cmocka_unit_test(test_gone_comes_from_the_loop),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
