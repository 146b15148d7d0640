/* fuzz_connection.c: any order of what a client, the routes and the loop may do. Each byte of the input is a step; some
 * steps take the bytes after them. At the end nothing may be left. */
#include "server/net/connection.h"

#include <event2/event.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { N_CLIENTS = 2, N_HELD = 8 };

/* Requests that a random byte would not find. */
static const char *const REQUESTS[] = {
    "GET /a HTTP/1.1\r\nHost: a\r\n\r\n",
    "GET /b HTTP/1.0\r\n\r\n",
    "POST /c HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc",
    "POST /d HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n",
    "POST /e HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n",
    "HEAD /f HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
    "POST /refuse HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\n",
    "GET /refuse HTTP/1.1\r\nHost: a\r\n\r\n",
};

struct holding {
    struct exchange *exchange;
    bool streaming;
};

static struct loop *loop;
static struct holding held[N_HELD];
static int clients[N_CLIENTS];
static bool answers_at_once, ends_when_gone;

static void check(bool holds)
{
    if (!holds)
        abort();
}

static void release(struct holding *holding, unsigned how)
{
    struct exchange *exchange = holding->exchange;
    bool streaming = holding->streaming;
    if (!exchange)
        return;
    *holding = (struct holding){0};
    if (how % 2)
        exchange_abort(exchange);
    else if (streaming)
        exchange_stream_end(exchange);
    else
        exchange_respond(exchange, 200, "text/plain", NULL, "answer", 6);
}

static void on_gone(struct exchange *exchange, void *user)
{
    struct holding *holding = user;
    check(holding->exchange == exchange && exchange_is_gone(exchange));
    if (ends_when_gone)
        release(holding, exchange_path(exchange).len % 2);
}

static void on_head(struct exchange *exchange, void *user)
{
    (void)user;
    if (exchange_text_is(exchange_path(exchange), "/refuse"))
        exchange_respond_error(exchange, 401, NULL, "no");
}

static void on_request(struct exchange *exchange, void *user)
{
    (void)user;
    for (size_t i = 0; i < N_HELD && !answers_at_once; i++) {
        if (held[i].exchange)
            continue;
        held[i].exchange = exchange;
        exchange_set_gone(exchange, on_gone, &held[i]);
        return;
    }
    exchange_respond(exchange, 200, "text/plain", NULL, exchange_body(exchange).bytes,
                     exchange_body(exchange).len);
}

static void write_stream(struct holding *holding, size_t len)
{
    static char piece[65536];
    if (!holding->exchange)
        return;
    if (!holding->streaming)
        exchange_stream_begin(holding->exchange, 200, len % 2 ? "text/event-stream" : "text/plain", NULL);
    holding->streaming = true;
    exchange_stream_write(holding->exchange, piece, len);
}

static void turn(void)
{
    event_base_loop(loop_base(loop), EVLOOP_NONBLOCK);
}

static void start(void)
{
    struct loop_limits limits = loop_default_limits;
    struct loop_handlers handlers = {.on_head = on_head, .on_request = on_request};
    limits.output_bytes = 100000;
    limits.comment_ms = 0; /* a comment in every turn */
    check(!loop_create(&limits, &handlers, &loop, NULL));
    for (int i = 0; i < N_CLIENTS; i++) {
        int pair[2];
        check(!socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, pair));
        clients[i] = pair[0];
        connection_open(loop, pair[1]);
    }
}

static void do_step(uint8_t step, const uint8_t *next, size_t left, size_t *used)
{
    static char sink[65536];
    int *client = &clients[step >> 4 & 1];
    struct holding *holding = &held[step >> 5];
    ssize_t ignored = 0;
    size_t n = left ? next[0] : 0;
    switch (step & 15) {
    case 0:
    case 1:
        ignored = send(*client, REQUESTS[n % 8], strlen(REQUESTS[n % 8]), MSG_NOSIGNAL);
        *used = left ? 1 : 0;
        break;
    case 2:
        n = left && n % 32 < left ? n % 32 : 0;
        ignored = send(*client, next + (n ? 1 : 0), n, MSG_NOSIGNAL);
        *used = n ? n + 1 : 0;
        break;
    case 3:
        ignored = read(*client, sink, sizeof sink);
        break;
    case 4:
        shutdown(*client, SHUT_WR);
        break;
    case 5:
        close(*client);
        *client = -1;
        break;
    case 6:
    case 7:
        release(holding, step & 1);
        break;
    case 8:
        write_stream(holding, n);
        break;
    case 9:
        write_stream(holding, 60000);
        break;
    case 10:
        answers_at_once = !answers_at_once;
        break;
    case 11:
        ends_when_gone = !ends_when_gone;
        break;
    case 12:
        connection_close_longest_idle(loop);
        break;
    case 13:
        if (step == 0xfd)
            loop_drain(loop, 1000);
        else if (holding->exchange)
            exchange_close_after(holding->exchange);
        break;
    default:
        turn();
    }
    (void)ignored;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    answers_at_once = ends_when_gone = false;
    start();
    for (size_t i = 0; i < size;) {
        size_t used = 0;
        uint8_t step = data[i++];
        do_step(step, data + i, size - i, &used);
        i += used;
    }
    if (size % 2) /* everything ends by itself; or loop_free ends it */
        for (int i = 0; i < N_CLIENTS; i++) {
            close(clients[i]);
            clients[i] = -1;
        }
    ends_when_gone = true;
    for (int i = 0; i < 8; i++)
        turn();
    for (size_t i = 0; i < N_HELD; i++)
        release(&held[i], (unsigned)i);
    for (int i = 0; i < 100 && loop_stats(loop).n_connections; i++)
        turn();
    check(loop_stats(loop).n_exchanges == 0 || !(size % 2));
    check(loop_stats(loop).n_connections == 0 || !(size % 2));
    loop_free(loop);
    for (size_t i = 0; i < N_HELD; i++)
        check(!held[i].exchange);
    for (int i = 0; i < N_CLIENTS; i++)
        if (clients[i] >= 0)
            close(clients[i]);
    return 0;
}
