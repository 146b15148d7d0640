/* test_http.c: every way to be right or wrong as an HTTP request. Each text is read whole, byte by byte and
 * in every two pieces: the outcome must be the same. */
#include "server/net/http.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define HOST "Host: localhost\r\n"

static const struct http_limits small = {
    .target_bytes = 64, .header_bytes = 256, .n_headers = 5, .body_bytes = 100};

static enum http_outcome read_in_pieces(struct http_head *head, const struct http_limits *limits,
                                        const char *bytes, size_t len, size_t piece, size_t first)
{
    enum http_outcome outcome = HTTP_MORE;
    http_head_start(head);
    for (size_t end = first; outcome == HTTP_MORE; end += piece) {
        /* a copy that ends where the piece ends: the address sanitizer sees a byte too far */
        size_t n = end < len ? end : len;
        char *copy = malloc(n ? n : 1);
        assert_non_null(copy);
        memcpy(copy, bytes, n);
        outcome = http_head_read(head, limits, copy, n);
        free(copy);
        if (n == len)
            break;
    }
    return outcome;
}

static enum http_outcome read_head(struct http_head *head, const struct http_limits *limits,
                                   const char *bytes, size_t len)
{
    enum http_outcome outcome = read_in_pieces(head, limits, bytes, len, len, len);
    for (size_t split = 0; split <= len; split++) {
        struct http_head other;
        size_t piece = split ? len : 1; /* 0: byte by byte */
        enum http_outcome again = read_in_pieces(&other, limits, bytes, len, piece, split);
        if (again != outcome || memcmp(head, &other, sizeof other))
            fail_msg("split at %zu: outcome %d, not %d: %s", split, again, outcome, bytes);
    }
    return outcome;
}

static enum http_outcome read_string(struct http_head *head, const char *request)
{
    return read_head(head, &small, request, strlen(request));
}

static void expect_span(const char *bytes, struct http_span span, const char *expected)
{
    char found[128];
    assert_true(span.len < sizeof found);
    memcpy(found, bytes + span.at, span.len);
    found[span.len] = 0;
    assert_string_equal(found, expected);
}

static void test_whole_head(void **state)
{
    (void)state;
    const char *request = "POST /generate?a=1&b= HTTP/1.1\r\nhOsT: localhost:8080\r\nX-Empty:\r\n"
                          "X-Blanks: \t two words \t \r\nContent-Length: 007\r\n\r\n{\"a\":1}";
    struct http_head head;
    assert_int_equal(read_string(&head, request), HTTP_DONE);
    expect_span(request, head.method, "POST");
    expect_span(request, head.path, "/generate");
    expect_span(request, head.query, "a=1&b=");
    expect_span(request, head.host, "localhost:8080");
    assert_int_equal(head.n_headers, 4);
    expect_span(request, *http_find_header(&head, request, "x-empty", NULL), "");
    expect_span(request, *http_find_header(&head, request, "X-BLANKS", NULL), "two words");
    assert_null(http_find_header(&head, request, "X-Blank", NULL));
    assert_int_equal(head.framing, HTTP_BODY_LENGTH);
    assert_int_equal(head.content_length, 7);
    assert_int_equal(head.head_bytes, strlen(request) - 7);
    assert_true(head.keep_alive && head.has_query && !head.expects_continue);
    assert_int_equal(head.minor_version, 1);
}

/* A head that stays incomplete asks for more at every length. */
static void test_incomplete(void **state)
{
    (void)state;
    const char *request = "\r\nGET / HTTP/1.1\r\n" HOST "\r\n";
    struct http_head head;
    for (size_t len = 0; len < strlen(request); len++)
        assert_int_equal(read_head(&head, &small, request, len), HTTP_MORE);
    assert_int_equal(read_string(&head, request), HTTP_DONE);
    expect_span(request, head.path, "/");
    assert_false(head.has_query);
}

static void test_pipelined(void **state)
{
    (void)state;
    const char *request = "GET /a HTTP/1.1\r\n" HOST "\r\nGET /b HTTP/1.1\r\n" HOST "\r\n";
    struct http_head head;
    assert_int_equal(read_string(&head, request), HTTP_DONE);
    assert_int_equal(head.head_bytes, strlen(request) / 2);
    request += head.head_bytes;
    assert_int_equal(read_string(&head, request), HTTP_DONE);
    expect_span(request, head.path, "/b");
}

struct refusal {
    const char *request;
    int status;
};

static const struct refusal REFUSALS[] = {
    /* the request line */
    {" GET / HTTP/1.1\r\n" HOST "\r\n", 400},
    {"\r\n\r\nGET / HTTP/1.1\r\n" HOST "\r\n", 400},
    {"\nGET / HTTP/1.1\r\n" HOST "\r\n", 400},
    {"\rGET / HTTP/1.1\r\n" HOST "\r\n", 400},
    {"GET  / HTTP/1.1\r\n" HOST "\r\n", 400},
    {"GET /  HTTP/1.1\r\n" HOST "\r\n", 400},
    {"GET / HTTP/1.1 \r\n" HOST "\r\n", 400},
    {"GET\t/ HTTP/1.1\r\n" HOST "\r\n", 400},
    {"GET /\tHTTP/1.1\r\n" HOST "\r\n", 400},
    {"GET /\r\n", 400},
    {"GET\r\n", 400},
    {"GET / HTTP/1.1\n" HOST "\r\n", 400},
    {"GET / HTTP/1.1\r" HOST "\r\n", 400},
    {"GET / HTTP/1.1\r\r\n" HOST "\r\n", 400},
    {"GET / http/1.1\r\n" HOST "\r\n", 400},
    {"GET / HTTP/1.\r\n" HOST "\r\n", 400},
    {"GET / HTTP/1.10\r\n" HOST "\r\n", 400},
    {"GET / HTTP/11\r\n" HOST "\r\n", 400},
    {"GET / HTTP/0.9\r\n" HOST "\r\n", 505},
    {"GET / HTTP/1.2\r\n" HOST "\r\n", 505},
    {"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400},
    {"GET / HTTP/2.0\r\n\r\n", 505},
    {"G(T / HTTP/1.1\r\n" HOST "\r\n", 400},
    {"AMETHODOF17LETTER / HTTP/1.1\r\n" HOST "\r\n", 400},
    {"\x16\x03\x01\x02", 400}, /* TLS */
    /* the target */
    {"GET path HTTP/1.1\r\n" HOST "\r\n", 400},
    {"GET * HTTP/1.1\r\n" HOST "\r\n", 400},
    {"GET ?a=1 HTTP/1.1\r\n" HOST "\r\n", 400},
    {"GET /#part HTTP/1.1\r\n" HOST "\r\n", 400},
    {"GET /\x01 HTTP/1.1\r\n" HOST "\r\n", 400},
    {"GET /\x7f HTTP/1.1\r\n" HOST "\r\n", 400},
    {"GET /\xc3\xa9 HTTP/1.1\r\n" HOST "\r\n", 400},
    {"GET /?\xff HTTP/1.1\r\n" HOST "\r\n", 400},
    {"CONNECT localhost:80 HTTP/1.1\r\n" HOST "\r\n", 400},
    {"GET https://localhost/ HTTP/1.1\r\n" HOST "\r\n", 400},
    {"GET http:///path HTTP/1.1\r\n" HOST "\r\n", 400},
    {"GET http://localhost HTTP/1.1\r\n" HOST "\r\n", 400},
    {"GET http://other/ HTTP/1.1\r\n" HOST "\r\n", 400},
    {"GET http://me@localhost/ HTTP/1.1\r\n" HOST "\r\n", 400},
    {"GET /........................................................5......... HTTP/1.1\r\n" HOST "\r\n", 414},
    /* header lines */
    {"GET / HTTP/1.1\r\n\r\n", 400}, /* no Host */
    {"GET / HTTP/1.1\r\n" HOST HOST "\r\n", 400},
    {"GET / HTTP/1.1\r\nHost: a b\r\n\r\n", 400},
    {"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", 400},
    {"GET / HTTP/1.1\r\nHost: me@b\r\n\r\n", 400},
    {"GET / HTTP/1.1\r\nHost: a, b\r\n\r\n", 400},
    {"GET / HTTP/1.1\r\nHost: a:b\r\n\r\n", 400},
    {"GET / HTTP/1.1\r\nHost: a:65536\r\n\r\n", 400},
    {"GET / HTTP/1.1\r\nHost: a:18446744073709551617\r\n\r\n", 400},
    {"GET / HTTP/1.1\r\nHost: a:1:1\r\n\r\n", 400},
    {"GET / HTTP/1.1\r\nHost: ::1\r\n\r\n", 400},
    {"GET / HTTP/1.1\r\nHost: [::1\r\n\r\n", 400},
    {"GET / HTTP/1.1\r\nHost: [::1]1\r\n\r\n", 400},
    {"GET / HTTP/1.1\r\nHost: a]\r\n\r\n", 400},
    {"GET / HTTP/1.1\r\n Host: localhost\r\n\r\n", 400},
    {"GET / HTTP/1.1\r\n" HOST "X: a\r\n b\r\n\r\n", 400},
    {"GET / HTTP/1.1\r\n" HOST "X: a\r\n\tb\r\n\r\n", 400},
    {"GET / HTTP/1.1\r\n" HOST "X : a\r\n\r\n", 400},
    {"GET / HTTP/1.1\r\n" HOST "X\t: a\r\n\r\n", 400},
    {"GET / HTTP/1.1\r\n" HOST ": a\r\n\r\n", 400},
    {"GET / HTTP/1.1\r\n" HOST "no colon\r\n\r\n", 400},
    {"GET / HTTP/1.1\r\n" HOST "none\r\n\r\n", 400},
    {"GET / HTTP/1.1\r\n" HOST "X\xc3: a\r\n\r\n", 400},
    {"GET / HTTP/1.1\r\n" HOST "X: a\nY: b\r\n\r\n", 400},
    {"GET / HTTP/1.1\r\n" HOST "X: a\rY: b\r\n\r\n", 400},
    {"GET / HTTP/1.1\r\n" HOST "X: a\r\r\n\r\n", 400},
    {"GET / HTTP/1.1\r\n" HOST "X: \x01\r\n\r\n", 400},
    {"GET / HTTP/1.1\r\n" HOST "X: \x7f\r\n\r\n", 400},
    {"GET / HTTP/1.1\r\n" HOST "\n", 400},
    {"GET / HTTP/1.1\r\n" HOST "\rX", 400},
    {"GET / HTTP/1.1\r\n" HOST "A: 1\r\nA: 2\r\nA: 3\r\nA: 4\r\nA: 5\r\n\r\n", 431},
    /* framing */
    {"POST / HTTP/1.1\r\n" HOST "Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", 400},
    {"POST / HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked\r\nContent-Length: 0\r\n\r\n", 400},
    {"POST / HTTP/1.1\r\n" HOST "Content-Length: 1\r\nContent-Length: 2\r\n\r\n", 400},
    {"POST / HTTP/1.1\r\n" HOST "Content-Length: 1\r\ncontent-length: 1\r\n\r\n", 400},
    {"POST / HTTP/1.1\r\n" HOST "Content-Length: 1, 1\r\n\r\n", 400},
    {"POST / HTTP/1.1\r\n" HOST "Content-Length:\r\n\r\n", 400},
    {"POST / HTTP/1.1\r\n" HOST "Content-Length: -1\r\n\r\n", 400},
    {"POST / HTTP/1.1\r\n" HOST "Content-Length: +1\r\n\r\n", 400},
    {"POST / HTTP/1.1\r\n" HOST "Content-Length: 0x1\r\n\r\n", 400},
    {"POST / HTTP/1.1\r\n" HOST "Content-Length: 1 2\r\n\r\n", 400},
    {"POST / HTTP/1.1\r\n" HOST "Content-Length: 18446744073709551616\r\n\r\n", 400},
    {"POST / HTTP/1.1\r\n" HOST "Content-Length: 99999999999999999999999999\r\n\r\n", 400},
    {"POST / HTTP/1.1\r\n" HOST "Transfer-Encoding: gzip\r\n\r\n", 501},
    {"POST / HTTP/1.1\r\n" HOST "Transfer-Encoding: gzip, chunked\r\n\r\n", 501},
    {"POST / HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked, chunked\r\n\r\n", 501},
    {"POST / HTTP/1.1\r\n" HOST "Transfer-Encoding: xchunked\r\n\r\n", 501},
    {"POST / HTTP/1.1\r\n" HOST "Transfer-Encoding: identity\r\n\r\n", 501},
    {"POST / HTTP/1.1\r\n" HOST "Transfer-Encoding:\r\n\r\n", 501},
    {"POST / HTTP/1.1\r\n" HOST "Transfer-Encoding: \vchunked\r\n\r\n", 400},
    {"POST / HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n", 400},
    {"POST / HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n", 400},
    {"POST / HTTP/1.0\r\n" HOST "Transfer-Encoding: chunked\r\n\r\n", 400},
    {"POST / HTTP/1.1\r\n" HOST "Expect: a miracle\r\nContent-Length: 1\r\n\r\n", 417},
};

static void test_refusals(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof REFUSALS / sizeof REFUSALS[0]; i++) {
        const struct refusal *row = &REFUSALS[i];
        struct http_head head;
        enum http_outcome outcome = read_string(&head, row->request);
        if (outcome != HTTP_REFUSED || head.status != row->status)
            fail_msg("expected %d, found outcome %d, status %d (%s): %s", row->status, outcome, head.status,
                     head.message ? head.message : "", row->request);
        assert_non_null(head.message);
        assert_int_equal(http_head_read(&head, &small, row->request, strlen(row->request)), HTTP_REFUSED);
        assert_string_not_equal(http_status_words(head.status), "Unknown");
    }
}

/* A zero byte is refused wherever it stands. */
static void test_zero_byte(void **state)
{
    (void)state;
    const char request[] = "GET /path HTTP/1.1\r\n" HOST "X: a\r\n\r\n";
    for (size_t at = 0; at < sizeof request - 1; at++) {
        char copy[sizeof request];
        struct http_head head;
        memcpy(copy, request, sizeof copy);
        copy[at] = 0;
        assert_int_equal(read_head(&head, &small, copy, sizeof copy - 1), HTTP_REFUSED);
        assert_int_equal(head.status, 400);
    }
}

static void test_accepted_targets(void **state)
{
    (void)state;
    static const struct {
        const char *target, *path, *query;
    } rows[] = {
        {"/", "/", NULL},
        {"/?", "/", ""},
        {"/a?b?c", "/a", "b?c"},
        {"//a/../b", "//a/../b", NULL}, /* no route is called so: 404 */
        {"/%2e%2e/a", "/%2e%2e/a", NULL},
        {"http://localhost/a?b", "/a", "b"},
        {"HTTP://LocalHost/", "/", NULL},
        {"/a?{\"x\":[1]}", "/a", "{\"x\":[1]}"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        char request[200];
        struct http_head head;
        snprintf(request, sizeof request, "GET %s HTTP/1.1\r\n" HOST "\r\n", rows[i].target);
        assert_int_equal(read_string(&head, request), HTTP_DONE);
        expect_span(request, head.path, rows[i].path);
        assert_int_equal(head.has_query, rows[i].query != NULL);
        expect_span(request, head.query, rows[i].query ? rows[i].query : "");
        expect_span(request, head.host, "localhost");
    }
    struct http_head head;
    const char *star = "OPTIONS * HTTP/1.1\r\n" HOST "\r\n";
    assert_int_equal(read_string(&head, star), HTTP_DONE);
    expect_span(star, head.path, "*");
}

static void test_keep_alive(void **state)
{
    (void)state;
    static const struct {
        const char *request;
        bool keep_alive;
    } rows[] = {
        {"GET / HTTP/1.1\r\n" HOST "\r\n", true},
        {"GET / HTTP/1.1\r\n" HOST "Connection: close\r\n\r\n", false},
        {"GET / HTTP/1.1\r\n" HOST "Connection: upgrade , CLOSE\r\n\r\n", false},
        {"GET / HTTP/1.1\r\n" HOST "Connection: keep-alive\r\nConnection: close\r\n\r\n", false},
        {"GET / HTTP/1.1\r\n" HOST "Connection: closed\r\n\r\n", true},
        {"GET / HTTP/1.0\r\n\r\n", false},
        {"GET / HTTP/1.0\r\n" HOST "Connection: Keep-Alive\r\n\r\n", true},
        {"GET / HTTP/1.0\r\nConnection: keep-alive, close\r\n\r\n", false},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct http_head head;
        assert_int_equal(read_string(&head, rows[i].request), HTTP_DONE);
        if (head.keep_alive != rows[i].keep_alive)
            fail_msg("expected keep_alive %d: %s", rows[i].keep_alive, rows[i].request);
    }
}

static void test_expect(void **state)
{
    (void)state;
    struct http_head head;
    assert_int_equal(
        read_string(&head, "POST / HTTP/1.1\r\n" HOST "Expect: 100-Continue\r\nContent-Length: 1\r\n\r\n"),
        HTTP_DONE);
    assert_true(head.expects_continue);
    assert_int_equal(read_string(&head, "POST / HTTP/1.1\r\n" HOST "Expect: 100-continue\r\n\r\n"),
                     HTTP_DONE);
    assert_false(head.expects_continue);
    assert_int_equal(
        read_string(&head, "POST / HTTP/1.0\r\n" HOST "Expect: 100-continue\r\nContent-Length: 1\r\n\r\n"),
        HTTP_DONE);
    assert_false(head.expects_continue);
}

/* Each limit, at it and one past it. */
static void test_limits(void **state)
{
    (void)state;
    struct http_head head;
    char request[1024];
    for (int over = 0; over < 2; over++) {
        char path[128];
        memset(path, 'a', sizeof path);
        path[0] = '/';
        path[small.target_bytes + (unsigned)over] = 0;
        snprintf(request, sizeof request, "GET %s HTTP/1.1\r\n" HOST "\r\n", path);
        assert_int_equal(read_string(&head, request), over ? HTTP_REFUSED : HTTP_DONE);
        assert_int_equal(head.status, over ? 414 : 0);

        char value[512];
        size_t rest = strlen(HOST "X: \r\n\r\n");
        memset(value, 'v', sizeof value);
        value[small.header_bytes - rest + (size_t)over] = 0;
        snprintf(request, sizeof request, "GET / HTTP/1.1\r\n" HOST "X: %s\r\n\r\n", value);
        assert_int_equal(read_string(&head, request), over ? HTTP_REFUSED : HTTP_DONE);
        assert_int_equal(head.status, over ? 431 : 0);

        snprintf(request, sizeof request, "GET / HTTP/1.1\r\n" HOST "A:1\r\nB:2\r\nC:3\r\nD:4\r\n%s\r\n",
                 over ? "E:5\r\n" : "");
        assert_int_equal(read_string(&head, request), over ? HTTP_REFUSED : HTTP_DONE);
        assert_int_equal(head.status, over ? 431 : 0);

        struct http_body body;
        snprintf(request, sizeof request, "POST / HTTP/1.1\r\n" HOST "Content-Length: %d\r\n\r\n",
                 (int)small.body_bytes + over);
        assert_int_equal(read_string(&head, request), HTTP_DONE);
        assert_int_equal(http_body_start(&body, &head, &small), over ? HTTP_REFUSED : HTTP_MORE);
        assert_int_equal(body.status, over ? 413 : 0);
    }
    /* no accepted head is longer than said: all parts at their limits */
    memset(request, 'a', sizeof request);
    size_t n = 2 + HTTP_MAX_METHOD_BYTES + 1;
    memcpy(request, "\r\n", 2);
    memset(request + 2, 'M', HTTP_MAX_METHOD_BYTES);
    memcpy(request + n - 1, " /", 2);
    n += small.target_bytes;
    memcpy(request + n, " HTTP/1.1\r\n" HOST "X:", strlen(" HTTP/1.1\r\n" HOST "X:"));
    n += strlen(" HTTP/1.1\r\n") + small.header_bytes;
    memcpy(request + n - 4, "\r\n\r\n", 4);
    assert_int_equal(read_head(&head, &small, request, n), HTTP_DONE);
    assert_int_equal(http_max_head_bytes(&small), n);
    assert_true(http_default_limits.n_headers <= HTTP_MAX_HEADERS);
}

static void test_json_body(void **state)
{
    (void)state;
    static const struct {
        const char *headers;
        int status;
    } rows[] = {
        {"Content-Length: 2\r\nContent-Type: application/json\r\n", 0},
        {"Content-Length: 2\r\nContent-Type: Application/JSON ; Charset=UTF-8\r\n", 0},
        {"Transfer-Encoding: chunked\r\nContent-Type: application/json;charset=\"utf-8\"\r\n", 0},
        {"Content-Length: 2\r\nContent-Encoding: identity\r\nContent-Type: application/json\r\n", 0},
        {"Content-Type: application/json\r\n", 411},
        {"Content-Length: 2\r\n", 415},
        {"Content-Length: 2\r\nContent-Type:\r\n", 415},
        {"Content-Length: 2\r\nContent-Type: text/plain\r\n", 415},
        {"Content-Length: 2\r\nContent-Type: application/jsonp\r\n", 415},
        {"Content-Length: 2\r\nContent-Type: text/plain; application/json\r\n", 415},
        {"Content-Length: 2\r\nContent-Type: application/json; charset=latin1\r\n", 415},
        {"Content-Length: 2\r\nContent-Type: application/json\r\nContent-Type: text/plain\r\n", 415},
        {"Content-Length: 2\r\nContent-Encoding: gzip\r\nContent-Type: application/json\r\n", 415},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        char request[300];
        struct http_head head;
        const char *message = NULL;
        snprintf(request, sizeof request, "POST / HTTP/1.1\r\n" HOST "%s\r\n", rows[i].headers);
        assert_int_equal(read_string(&head, request), HTTP_DONE);
        int status = http_check_json_body(&head, request, &message);
        if (status != rows[i].status || !status != !message)
            fail_msg("expected %d, found %d: %s", rows[i].status, status, request);
    }
}

/* --- bodies --- */

struct body_result {
    enum http_outcome outcome;
    int status;
    size_t n_used, n_data;
    char data[256];
};

static struct body_result read_body_in_pieces(const char *headers, const char *bytes, size_t len,
                                              size_t first, size_t piece)
{
    struct body_result result = {0};
    struct http_head head;
    struct http_body body;
    char request[200];
    snprintf(request, sizeof request, "POST / HTTP/1.1\r\n" HOST "%s\r\n", headers);
    http_head_start(&head);
    assert_int_equal(http_head_read(&head, &small, request, strlen(request)), HTTP_DONE);
    result.outcome = http_body_start(&body, &head, &small);
    size_t end = first;
    while (result.outcome == HTTP_MORE) {
        const char *data;
        size_t n_used, n_data, limit = end < len ? end : len;
        result.outcome =
            http_body_next(&body, bytes + result.n_used, limit - result.n_used, &n_used, &data, &n_data);
        assert_true(n_used <= limit - result.n_used && n_data <= n_used);
        assert_true(result.n_data + n_data <= small.body_bytes);
        memcpy(result.data + result.n_data, data, n_data);
        result.n_data += n_data;
        result.n_used += n_used;
        if (result.outcome != HTTP_MORE || (result.n_used == limit && limit == len))
            break;
        if (result.n_used == limit)
            end += piece;
    }
    result.status = body.status;
    return result;
}

static struct body_result read_body(const char *headers, const char *bytes, size_t len)
{
    struct body_result result = read_body_in_pieces(headers, bytes, len, len, len);
    for (size_t split = 0; split <= len; split++) {
        struct body_result other = read_body_in_pieces(headers, bytes, len, split, split ? len : 1);
        if (memcmp(&other, &result, sizeof other))
            fail_msg("split at %zu: outcome %d, status %d, not %d, %d: %s", split, other.outcome,
                     other.status, result.outcome, result.status, bytes);
    }
    return result;
}

#define CHUNKED "Transfer-Encoding: Chunked\r\n"

static void test_good_bodies(void **state)
{
    (void)state;
    static const struct {
        const char *headers, *bytes, *data;
        size_t n_left; /* of the next request */
    } rows[] = {
        {"", "GET", "", 3},
        {"Content-Length: 0\r\n", "GET", "", 3},
        {"Content-Length: 5\r\n", "helloGET", "hello", 3},
        {CHUNKED, "0\r\n\r\nGET", "", 3},
        {CHUNKED, "5\r\nhello\r\n0\r\n\r\nGET", "hello", 3},
        {CHUNKED, "05\r\nhello\r\n00000A\r\n, my world\r\n000\r\n\r\n", "hello, my world", 0},
        {CHUNKED, "2;name=value;\"quoted\"\r\n\r\n\r\n0;x\r\n\r\n", "\r\n", 0},
        {CHUNKED, "1\r\na\r\n0\r\nX-Sum: 12\r\nY:\r\n\r\n", "a", 0},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct body_result result = read_body(rows[i].headers, rows[i].bytes, strlen(rows[i].bytes));
        assert_int_equal(result.outcome, HTTP_DONE);
        assert_int_equal(result.n_data, strlen(rows[i].data));
        assert_memory_equal(result.data, rows[i].data, result.n_data);
        assert_int_equal(result.n_used, strlen(rows[i].bytes) - rows[i].n_left);
    }
}

static void test_bad_bodies(void **state)
{
    (void)state;
    static const struct refusal rows[] = {
        {"\r\n", 400},
        {"x\r\n", 400},
        {"-1\r\n", 400},
        {"+1\r\n", 400},
        {"0x1\r\na\r\n", 400},
        {" 1\r\na\r\n", 400},
        {"1 \r\na\r\n", 400},
        {"1\na\r\n", 400},
        {"1\ra", 400},
        {"1\r\nab", 400},
        {"1\r\na\n", 400},
        {"1\r\na\rb", 400},
        {"1;a\nb\r\n", 400},
        {"1;a\rb", 400},
        {"1;\x01\r\n", 400},
        {"00000000000000001\r\n", 400},
        {"0\r\n\n", 400},
        {"0\r\n\ra", 400},
        {"0\r\n: no name\r\n\r\n", 400},
        {"0\r\n folded\r\n\r\n", 400},
        {"0\r\nno colon\r\n\r\n", 400},
        {"0\r\nnone\r\n\r\n", 400},
        {"0\r\nX: a\nY: b\r\n\r\n", 400},
        {"65\r\n", 413},
        {"10000000000\r\n", 413}, /* 2^40 */
        {"ffffffffffffffff\r\n", 413},
        {"1\r\na\r\n64\r\n", 413}, /* 1 + 100 */
        {"1\r\na\r\nffffffffffffffff\r\n", 413},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct body_result result = read_body(CHUNKED, rows[i].request, strlen(rows[i].request));
        if (result.outcome != HTTP_REFUSED || result.status != rows[i].status)
            fail_msg("expected %d, found outcome %d, status %d: %s", rows[i].status, result.outcome,
                     result.status, rows[i].request);
    }
    struct body_result zero = read_body(CHUNKED, "1;\0\r\n", 5);
    assert_int_equal(zero.status, 400);
    assert_int_equal(read_body("Content-Length: 1099511627776\r\n", "a", 1).status, 413);
    assert_int_equal(read_body("Content-Length: 5\r\n", "hell", 4).outcome, HTTP_MORE);
}

/* Extensions and trailers are free to send, so they have an end: at the limit and one past it. */
static void test_chunk_extras(void **state)
{
    (void)state;
    struct http_head head;
    const char *request = "POST / HTTP/1.1\r\n" HOST CHUNKED "\r\n";
    http_head_start(&head);
    assert_int_equal(http_head_read(&head, &small, request, strlen(request)), HTTP_DONE);
    for (size_t over = 0; over < 2; over++) {
        struct http_body body;
        char *bytes = malloc(HTTP_MAX_CHUNK_EXTRA + 100);
        const char *data;
        size_t len = 0, n_used, n_data;
        assert_non_null(bytes);
        bytes[len++] = '0';
        bytes[len++] = ';';
        memset(bytes + len, 'e', HTTP_MAX_CHUNK_EXTRA);
        len += HTTP_MAX_CHUNK_EXTRA - 1 + over; /* the line's CR counts */
        memcpy(bytes + len, "\r\n\r\n", 4);
        assert_int_equal(http_body_start(&body, &head, &small), HTTP_MORE);
        assert_int_equal(http_body_next(&body, bytes, len + 4, &n_used, &data, &n_data),
                         over ? HTTP_REFUSED : HTTP_DONE);
        free(bytes);
    }
}

/* --- queries --- */

static void test_query(void **state)
{
    (void)state;
    const char *query = "&prompt=Hello%2c+World%21&&raw&n=&a=b=c&";
    static const char *const names[] = {"prompt", "raw", "n", "a"};
    static const char *const values[] = {"Hello, World!", "", "", "b=c"};
    struct http_span name, value;
    size_t at = 0;
    for (size_t i = 0; i < 4; i++) {
        char decoded[64];
        assert_true(http_query_next(query, strlen(query), &at, &name, &value));
        expect_span(query, name, names[i]);
        long len = http_query_decode(query + value.at, value.len, decoded);
        assert_int_equal(len, strlen(values[i]));
        assert_memory_equal(decoded, values[i], (size_t)len);
    }
    assert_false(http_query_next(query, strlen(query), &at, &name, &value));
    static const char *const bad[] = {"%", "%4", "%4g", "%g4", "a%", "%%41"};
    char out[8];
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        assert_int_equal(http_query_decode(bad[i], strlen(bad[i]), out), -1);
    assert_int_equal(http_query_decode("%00%fF", 6, out), 2);
    assert_memory_equal(out, "\0\xff", 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_whole_head),   cmocka_unit_test(test_incomplete),
        cmocka_unit_test(test_pipelined),    cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_zero_byte),    cmocka_unit_test(test_accepted_targets),
        cmocka_unit_test(test_keep_alive),   cmocka_unit_test(test_expect),
        cmocka_unit_test(test_limits),       cmocka_unit_test(test_json_body),
        cmocka_unit_test(test_good_bodies),  cmocka_unit_test(test_bad_bodies),
        cmocka_unit_test(test_chunk_extras), cmocka_unit_test(test_query),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
