/* echo_server.c: the socket half of the server with made-up routes, for tests/server. Prints its port, serves until
 * SIGTERM (which drains), or SIGUSR1 (which retires), and prints what was left.
 *
 *     echo_server [NAME=NUMBER ...]      a limit: head_ms, body_ms, keep_alive_ms, write_stall_ms, comment_ms,
 *                                        n_connections, answer_bytes_per_s, drain_ms, retire_idle_ms,
 *                                        accepts_while_drained
 */
#include "server/net/exchange.h"

#include <arpa/inet.h>
#include <event2/event.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* An answer on its way. */
struct job {
    struct exchange *exchange;
    struct event *timer;
    struct loop_message message;
    long n_left, ms, bytes;
};

static struct loop *loop;
static double drain_ms = 30000;
static unsigned n_gone_calls, n_heads;

static long parameter(const struct exchange *exchange, const char *name, long otherwise)
{
    struct exchange_text query = exchange_query(exchange);
    struct http_span key, value;
    size_t at = 0;
    while (http_query_next(query.bytes, query.len, &at, &key, &value)) {
        char number[24] = {0};
        if (key.len != strlen(name) || memcmp(query.bytes + key.at, name, key.len) ||
            value.len >= sizeof number)
            continue;
        long len = http_query_decode(query.bytes + value.at, value.len, number);
        return len > 0 ? atol(number) : otherwise;
    }
    return otherwise;
}

static void arm(struct job *job)
{
    struct timeval time = {job->ms / 1000, job->ms % 1000 * 1000};
    evtimer_add(job->timer, &time);
}

static void free_job(struct job *job)
{
    if (job->timer)
        event_free(job->timer);
    free(job);
}

static void on_gone(struct exchange *exchange, void *user)
{
    struct job *job = user;
    n_gone_calls++;
    if (!job->timer)
        return; /* a thread works on it: ended when its message comes */
    free_job(job);
    exchange_abort(exchange);
}

static void answer_later(evutil_socket_t descriptor, short what, void *user)
{
    struct job *job = user;
    (void)descriptor;
    (void)what;
    exchange_respond(job->exchange, 200, "text/plain", NULL, "later\n", 6);
    free_job(job);
}

static void stream_more(evutil_socket_t descriptor, short what, void *user)
{
    struct job *job = user;
    char *piece = malloc((size_t)job->bytes + 16);
    (void)descriptor;
    (void)what;
    if (!piece)
        abort();
    if (job->n_left-- > 0) {
        size_t len = (size_t)sprintf(piece, "data: ");
        memset(piece + len, 'x', (size_t)job->bytes);
        len += (size_t)job->bytes;
        memcpy(piece + len, "\n\n", 2);
        exchange_stream_write(job->exchange, piece, len + 2); /* false: on_gone comes */
        arm(job);
    } else {
        exchange_stream_end(job->exchange);
        free_job(job);
    }
    free(piece);
}

static void answer_from_thread(void *user)
{
    struct job *job = user;
    exchange_respond(job->exchange, 200, "text/plain", NULL, "thread\n", 7);
    free_job(job);
}

static void *work(void *user)
{
    struct job *job = user;
    usleep((unsigned)job->ms * 1000);
    loop_post(loop, &job->message);
    return NULL;
}

static void start_job(struct exchange *exchange, event_callback_fn callback)
{
    struct job *job = calloc(1, sizeof *job);
    if (!job)
        abort();
    job->exchange = exchange;
    job->ms = parameter(exchange, "ms", 10);
    job->n_left = parameter(exchange, "n", 3);
    job->bytes = parameter(exchange, "bytes", 1);
    exchange_set_user(exchange, job);
    exchange_set_gone(exchange, on_gone, job);
    if (callback) {
        job->timer = evtimer_new(loop_base(loop), callback, job);
        arm(job);
        return;
    }
    pthread_t thread;
    job->message = (struct loop_message){.run = answer_from_thread, .user = job};
    if (pthread_create(&thread, NULL, work, job))
        abort();
    pthread_detach(thread);
}

static void answer_stats(struct exchange *exchange)
{
    struct loop_stats stats = loop_stats(loop);
    char body[256];
    int len =
        snprintf(body, sizeof body,
                 "{\"connections\":%u,\"exchanges\":%u,\"accepted\":%lu,\"requests\":%lu,\"refusals\":%lu,"
                 "\"gone\":%lu,\"gone_calls\":%u,\"heads\":%u}",
                 stats.n_connections, stats.n_exchanges, (unsigned long)stats.n_accepted,
                 (unsigned long)stats.n_requests, (unsigned long)stats.n_refusals,
                 (unsigned long)stats.n_gone, n_gone_calls, n_heads);
    exchange_respond(exchange, 200, "application/json", NULL, body, (size_t)len);
}

static void answer_big(struct exchange *exchange)
{
    size_t len = (size_t)parameter(exchange, "bytes", 1000);
    char *body = malloc(len + 1);
    if (!body)
        abort();
    memset(body, 'b', len);
    exchange_respond(exchange, 200, "text/plain", NULL, body, len);
    free(body);
}

static bool path_is(const struct exchange *exchange, const char *path)
{
    return exchange_text_is(exchange_path(exchange), path);
}

static void on_head(struct exchange *exchange, void *user)
{
    static const char *const paths[] = {"/echo",   "/json", "/later", "/thread",  "/stream",
                                        "/health", "/big",  "/stats", "/private", "/close"};
    const char *message;
    bool known = false;
    (void)user;
    n_heads++;
    for (size_t i = 0; i < sizeof paths / sizeof paths[0]; i++)
        known |= path_is(exchange, paths[i]);
    if (loop_is_draining(loop)) {
        exchange_respond_error(exchange, 503, "Retry-After: 1\r\n", "draining");
    } else if (!known) {
        exchange_respond_error(exchange, 404, NULL, "no such route");
    } else if (path_is(exchange, "/private") && !exchange_header(exchange, "authorization", NULL).bytes) {
        exchange_respond_error(exchange, 401, NULL, "a key is needed");
    } else if (path_is(exchange, "/echo") && !exchange_text_is(exchange_method(exchange), "POST")) {
        exchange_respond_error(exchange, 405, "Allow: POST\r\n", "only POST");
    } else if (path_is(exchange, "/json")) {
        int status = http_check_json_body(exchange_head(exchange), exchange_head_bytes(exchange), &message);
        if (status)
            exchange_respond_error(exchange, status, NULL, message);
    }
}

static void on_request(struct exchange *exchange, void *user)
{
    struct exchange_text body = exchange_body(exchange);
    (void)user;
    if (path_is(exchange, "/later")) {
        start_job(exchange, answer_later);
    } else if (path_is(exchange, "/thread")) {
        start_job(exchange, NULL);
    } else if (path_is(exchange, "/stream")) {
        exchange_stream_begin(exchange, 200, "text/event-stream", "Cache-Control: no-store\r\n");
        start_job(exchange, stream_more);
    } else if (path_is(exchange, "/stats")) {
        answer_stats(exchange);
    } else if (path_is(exchange, "/big")) {
        answer_big(exchange);
    } else {
        if (path_is(exchange, "/close"))
            exchange_close_after(exchange);
        exchange_respond(exchange, 200, "text/plain", NULL, body.bytes, body.len);
    }
}

static void on_signal(evutil_socket_t number, short what, void *user)
{
    (void)number;
    (void)what;
    (void)user;
    loop_drain(loop, drain_ms);
}

static void set_limit(struct loop_limits *limits, const char *argument)
{
    const char *equals = strchr(argument, '=');
    struct {
        const char *name;
        double *value;
    } times[] = {{"head_ms", &limits->head_ms},
                 {"body_ms", &limits->body_ms},
                 {"keep_alive_ms", &limits->keep_alive_ms},
                 {"write_stall_ms", &limits->write_stall_ms},
                 {"comment_ms", &limits->comment_ms},
                 {"retire_idle_ms", &limits->retire_idle_ms},
                 {"drain_ms", &drain_ms}};
    for (size_t i = 0; equals && i < sizeof times / sizeof times[0]; i++)
        if (!strncmp(argument, times[i].name, (size_t)(equals - argument)))
            *times[i].value = atof(equals + 1);
    if (!strncmp(argument, "n_connections=", 14))
        limits->n_connections = (uint32_t)atoi(argument + 14);
    if (!strncmp(argument, "answer_bytes_per_s=", 19))
        limits->answer_bytes_per_s = (uint32_t)atoi(argument + 19);
    if (!strncmp(argument, "accepts_while_drained=", 22))
        limits->accepts_while_drained = atoi(argument + 22) != 0;
}

static void on_retire(evutil_socket_t number, short what, void *user)
{
    (void)number;
    (void)what;
    (void)user;
    loop_retire(loop, drain_ms);
}

int main(int argc, char **argv)
{
    struct loop_limits limits = loop_default_limits;
    struct loop_handlers handlers = {.on_head = on_head, .on_request = on_request};
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof address;
    runnel_error error = {0};
    for (int i = 1; i < argc; i++)
        set_limit(&limits, argv[i]);
    int listener = socket(AF_INET, SOCK_STREAM, 0);
    if (listener < 0 || bind(listener, (struct sockaddr *)&address, sizeof address) ||
        listen(listener, 1024) || getsockname(listener, (struct sockaddr *)&address, &len)) {
        perror("echo_server");
        return 1;
    }
    if (loop_create(&limits, &handlers, &loop, &error) || loop_listen(loop, listener, &error)) {
        fprintf(stderr, "%s\n", error.message);
        return 1;
    }
    struct event *term = evsignal_new(loop_base(loop), SIGTERM, on_signal, NULL);
    evsignal_add(term, NULL);
    struct event *usr1 = evsignal_new(loop_base(loop), SIGUSR1, on_retire, NULL);
    evsignal_add(usr1, NULL);
    printf("%d\n", ntohs(address.sin_port));
    fflush(stdout);
    int code = loop_run(loop, &error);
    struct loop_stats stats = loop_stats(loop);
    printf("connections %u exchanges %u\n", stats.n_connections, stats.n_exchanges);
    event_free(term);
    event_free(usr1);
    loop_free(loop);
    close(listener);
    return code ? 1 : 0;
}
