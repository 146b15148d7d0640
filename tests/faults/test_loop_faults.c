/* test_loop_faults.c: the n-th allocation fails, once and from then on, for every n, while a server starts and while it
 * answers: the client gets its answer, a 503 or an end, nothing is lost, and the next request is served. Libevent's
 * allocations fail, too. */
#include "faults/faults.h"
#include "server/net/exchange.h"

#include <arpa/inet.h>
#include <event2/event.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

enum { MORE_THAN_ENOUGH = 300 };

static struct sockaddr_in address;
static int listener;
static unsigned n_complete, n_overloaded, n_ended;

static void on_gone(struct exchange *exchange, void *user)
{
    (void)user;
    exchange_abort(exchange);
}

static void on_request(struct exchange *exchange, void *user)
{
    struct exchange_text body = exchange_body(exchange);
    (void)user;
    exchange_set_gone(exchange, on_gone, NULL);
    if (exchange_text_is(exchange_path(exchange), "/echo")) {
        exchange_respond(exchange, 200, "text/plain", NULL, body.bytes, body.len);
    } else if (exchange_text_is(exchange_path(exchange), "/stream")) {
        exchange_stream_begin(exchange, 200, "text/event-stream", NULL);
        for (int i = 0; i < 3; i++)
            exchange_stream_write(exchange, "data: x\n\n", 9);
        exchange_stream_end(exchange);
    } else {
        exchange_respond_error(exchange, 404, NULL, "no such route");
    }
}

static const struct loop_handlers handlers = {.on_request = on_request};

static const char *const REQUESTS[] = {
    "POST /echo HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 5\r\n\r\nhello",
    ("POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhell\r\n1\r\no\r\n0\r\n\r\n"
     "GET /stream HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"),
    "GET /stream HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
    "GET /nope HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
    "GET /bad\r\n",
};
static const char *const ENDS[] = {"hello", "0\r\n\r\n", "0\r\n\r\n", "404}}", "400}}"};
enum { N_REQUESTS = sizeof REQUESTS / sizeof REQUESTS[0] };

/* Sends the request and lets the loop work until it has closed the connection. The answer ends in a zero. */
static void ask(struct loop *loop, const char *request, char answer[4096])
{
    int client = socket(AF_INET, SOCK_STREAM, 0);
    size_t len = 0;
    assert_int_equal(connect(client, (struct sockaddr *)&address, sizeof address), 0);
    assert_int_equal(write(client, request, strlen(request)), strlen(request));
    for (int turns = 0;; turns++) {
        struct pollfd socket = {.fd = client, .events = POLLIN};
        if (turns > 2000)
            fail_msg("no answer to %s", request);
        event_base_loop(loop_base(loop), EVLOOP_NONBLOCK);
        if (poll(&socket, 1, 1) < 1)
            continue;
        ssize_t n = read(client, answer + len, 4095 - len);
        if (n <= 0)
            break;
        len += (size_t)n;
    }
    answer[len] = 0;
    close(client);
    for (int turns = 0; loop_stats(loop).n_connections; turns++) {
        assert_true(turns < 2000);
        event_base_loop(loop_base(loop), EVLOOP_NONBLOCK);
    }
    assert_int_equal(loop_stats(loop).n_exchanges, 0);
}

static bool ends_in(const char *answer, const char *end)
{
    size_t len = strlen(answer), end_len = strlen(end);
    return len >= end_len && !strcmp(answer + len - end_len, end);
}

static struct loop *start(void)
{
    struct loop *loop = NULL;
    runnel_error error = {0};
    if (loop_create(&loop_default_limits, &handlers, &loop, &error)) {
        assert_true(error.code < 0 && error.message[0]);
        assert_null(loop);
    } else if (loop_listen(loop, listener, &error)) {
        assert_true(error.code < 0 && error.message[0]);
        loop_free(loop);
        loop = NULL;
    }
    return loop;
}

static void test_start(void **state)
{
    (void)state;
    loop_free(start()); /* what libevent keeps for good */
    size_t live = faults_live_pieces();
    for (unsigned how_many = 0; how_many < 2; how_many++) {
        unsigned n_faults = 1;
        for (unsigned n = 1; n_faults; n++) {
            assert_true(n < MORE_THAN_ENOUGH);
            faults_arm(FAULT_MEMORY, n, how_many);
            struct loop *loop = start();
            n_faults = faults_disarm();
            assert_true(loop || n_faults);
            loop_free(loop);
            assert_int_equal(faults_live_pieces(), live);
        }
    }
}

/* A fault costs one answer at most. */
static unsigned try_request(unsigned request, unsigned n, unsigned how_many)
{
    char answer[4096];
    struct loop *loop = start();
    assert_non_null(loop);
    faults_arm(FAULT_MEMORY, n, how_many);
    ask(loop, REQUESTS[request], answer);
    unsigned n_faults = faults_disarm();
    if (ends_in(answer, ENDS[request]))
        n_complete++;
    else if (ends_in(answer, "503}}"))
        n_overloaded++;
    else
        n_ended++;
    assert_true(n_faults || ends_in(answer, ENDS[request]));
    ask(loop, REQUESTS[request], answer);
    assert_true(ends_in(answer, ENDS[request]));
    loop_free(loop);
    return n_faults;
}

static void test_requests(void **state)
{
    (void)state;
    size_t live = faults_live_pieces();
    for (unsigned request = 0; request < N_REQUESTS; request++)
        for (unsigned how_many = 0; how_many < 2; how_many++)
            for (unsigned n = 1; try_request(request, n, how_many); n++)
                assert_true(n < MORE_THAN_ENOUGH);
    assert_int_equal(faults_live_pieces(), live);
    print_message("%u answered, %u told 503, %u cut off\n", n_complete, n_overloaded, n_ended);
    assert_true(n_overloaded > n_ended);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_start),
        cmocka_unit_test(test_requests),
    };
    socklen_t len = sizeof address;
    event_set_mem_functions(malloc, realloc, free);
    address = (struct sockaddr_in){.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    listener = socket(AF_INET, SOCK_STREAM, 0);
    if (bind(listener, (struct sockaddr *)&address, sizeof address) || listen(listener, 8) ||
        getsockname(listener, (struct sockaddr *)&address, &len))
        return 1;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
