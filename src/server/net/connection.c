/* connection.c: one connection: requests in, one after the other, and its end. See connection.h.
 *
 * Nothing is read while an exchange runs, so that pipelined requests wait in the socket; that the client has left is
 * learnt from epoll's notice of a FIN or a reset, which comes whatever is unread here (only a FIN that waits at the
 * client behind more than the socket's window of unread requests is not seen before something is written). A client that shuts down its half
 * after a request counts as gone unless the answer is there at once: from here both look the same, and
 * computing for nobody is the worse mistake. */
#include "server/net/connection.h"

#include "base/clock.h"

#include <errno.h>
#include <event2/buffer.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

static void set_state(struct connection *connection, enum connection_state state)
{
    const struct loop_limits *limits = &connection->loop->limits;
    connection->state = state;
    connection->since_ms = clock_ms();
    event_del(&connection->timer);
    if (state == CONNECTION_HEAD) {
        http_head_start(&connection->head);
        connection->head_began = false;
        loop_arm(&connection->timer,
                 connection->loop->retiring ? limits->retire_idle_ms : limits->keep_alive_ms);
    } else if (state == CONNECTION_BODY) {
        loop_arm(&connection->timer, limits->body_ms);
    } else if (state == CONNECTION_LINGER) {
        loop_arm(&connection->timer, limits->linger_ms);
    }
}

/* --- the end --- */

static struct exchange *take_oldest_unwritten(struct connection *connection)
{
    struct exchange *exchange = connection->unwritten;
    connection->unwritten = exchange->next;
    connection->n_unwritten--;
    exchange->next = NULL;
    return exchange;
}

/* What waits to be written is given up, with its exchanges. */
static void give_up_output(struct connection *connection)
{
    while (connection->unwritten) {
        struct exchange *exchange = take_oldest_unwritten(connection);
        if (connection->too_slow && !exchange->cut) {
            exchange->cut = true;
            connection->loop->stats.n_slow_readers++;
        }
        exchange->connection = NULL;
        exchange_finish(exchange);
    }
}

static void set_newcomer(struct connection *connection, bool is_newcomer)
{
    struct loop *loop = connection->loop;
    if (connection->is_newcomer == is_newcomer)
        return;
    connection->is_newcomer = is_newcomer;
    loop->stats.n_newcomers += is_newcomer ? 1 : -1;
    if (loop->handlers.on_newcomers)
        loop->handlers.on_newcomers(loop->stats.n_newcomers, loop->handlers.user);
}

void connection_drop(struct connection *connection)
{
    struct loop *loop = connection->loop;
    struct exchange *exchange = connection->exchange;
    connection->exchange = NULL;
    connection->dead = true;
    if (connection->next)
        connection->next->previous = connection->previous;
    if (connection->previous)
        connection->previous->next = connection->next;
    else
        loop->connections = connection->next;
    loop->stats.n_connections--;
    set_newcomer(connection, false);
    event_del(&connection->io);
    event_del(&connection->timer);
    event_del(&connection->stall_timer);
    event_del(&connection->again);
    if ((connection->broken && !connection->overloaded && !connection->left_to_system) ||
        evbuffer_get_length(connection->output)) {
        /* Reset: the kernel need not keep for a client what it will not read. */
        struct linger none = {.l_onoff = 1, .l_linger = 0};
        setsockopt(connection->descriptor, SOL_SOCKET, SO_LINGER, &none, sizeof none);
    }
    close(connection->descriptor);
    evbuffer_free(connection->output);
    give_up_output(connection);
    text_free(&connection->input);
    if (!connection->working)
        free(connection);
    if (exchange)
        exchange_lost(exchange);
    loop_check_drained(loop);
}

/* Sent as it is: no length is needed where the end of the connection is the end of the answer. */
static const char OVERLOADED[] = "HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\n"
                                 "Retry-After: 1\r\nConnection: close\r\n\r\n"
                                 "{\"error\":{\"message\":\"the server has no room for another connection\","
                                 "\"type\":\"unavailable_error\",\"param\":null,\"code\":503}}";

static void count_refusal(struct loop *loop, const struct exchange *exchange, int status)
{
    loop->stats.n_refusals++;
    if (loop->handlers.on_refusal)
        loop->handlers.on_refusal(exchange, status, loop->handlers.user);
}

void connection_refuse_socket(struct loop *loop, int descriptor)
{
    /* What has come is taken off first: closing with unread bytes would reset and could lose the answer. */
    ssize_t ignored = recv(descriptor, loop->scratch, loop->input_bytes, MSG_DONTWAIT);
    ignored = send(descriptor, OVERLOADED, sizeof OVERLOADED - 1, MSG_DONTWAIT | MSG_NOSIGNAL);
    (void)ignored;
    close(descriptor);
    count_refusal(loop, NULL, 503);
}

/* The loop's own answer, and the last one on this connection. */
static bool refuse(struct connection *connection, int status, const char *message)
{
    count_refusal(connection->loop, connection->exchange, status);
    exchange_refuse(connection, status, message);
    set_state(connection, CONNECTION_CLOSE);
    return true;
}

void connection_say_overloaded(struct connection *connection)
{
    ssize_t ignored =
        send(connection->descriptor, OVERLOADED, sizeof OVERLOADED - 1, MSG_DONTWAIT | MSG_NOSIGNAL);
    (void)ignored;
    shutdown(connection->descriptor, SHUT_WR);
    connection->overloaded = true;
    count_refusal(connection->loop, connection->exchange, 503);
}

/* No memory, not even for a refusal. */
static bool refuse_without_memory(struct connection *connection)
{
    if (!evbuffer_get_length(connection->output))
        connection_say_overloaded(connection);
    connection_drop(connection);
    return false;
}

/* --- output --- */

/* Ends the exchanges of which the system has taken all. */
static void finish_written(struct connection *connection)
{
    while (connection->unwritten && connection->unwritten->end_at <= connection->n_written) {
        struct exchange *exchange = take_oldest_unwritten(connection);
        exchange->written = true;
        exchange_finish(exchange);
    }
}

void connection_flush(struct connection *connection)
{
    bool progress = false;
    while (evbuffer_get_length(connection->output)) {
        int n = evbuffer_write(connection->output, connection->descriptor);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno != EAGAIN)
            connection->broken = true;
        if (n <= 0)
            break;
        connection->n_written += (uint64_t)n;
        progress = true;
    }
    finish_written(connection);
    if (!evbuffer_get_length(connection->output))
        event_del(&connection->stall_timer);
    else if (progress || !event_pending(&connection->stall_timer, EV_TIMEOUT, NULL))
        reading_begin(connection);
}

/* Has the loop call connection_work in its next turn. */
static void schedule(struct connection *connection)
{
    struct timeval now = {0};
    if (event_add(&connection->again, &now)) /* no memory: in this turn, then */
        event_active(&connection->again, EV_TIMEOUT, 0);
}

void connection_wake(struct connection *connection)
{
    if (connection->working)
        return;
    if (!connection->broken)
        connection_flush(connection);
    bool is_cut = connection->exchange && exchange_is_cut(connection->exchange);
    if (connection->broken || connection->state != CONNECTION_ANSWER || is_cut)
        schedule(connection);
}

void connection_answered(struct connection *connection, struct exchange *exchange, bool may_keep)
{
    exchange->end_at = connection->n_written + evbuffer_get_length(connection->output);
    exchange->next = NULL;
    if (!connection->unwritten)
        reading_begin_whole(connection);
    *(connection->unwritten ? connection->unwritten_end : &connection->unwritten) = exchange;
    connection->unwritten_end = &exchange->next;
    connection->n_unwritten++;
    set_state(connection, may_keep ? CONNECTION_HEAD : CONNECTION_CLOSE);
}

/* --- input --- */

/* Others first; the loop comes back. */
static bool yield_turn(struct connection *connection)
{
    schedule(connection);
    return false;
}

/* Nothing more will come. */
static bool end_input(struct connection *connection)
{
    if (connection->state == CONNECTION_HEAD && !connection->head_began)
        set_state(connection, CONNECTION_CLOSE);
    else
        connection->broken = true; /* in the middle of a request: there is nobody to answer */
    return true;
}

static bool read_more(struct connection *connection)
{
    struct text *input = &connection->input;
    struct loop *loop = connection->loop;
    input->len -= connection->input_at;
    if (input->len)
        memmove(input->bytes, input->bytes + connection->input_at, input->len);
    connection->input_at = 0;
    if (connection->end_of_input)
        return end_input(connection);
    if (!connection->readable) {
        if (!input->len)
            text_free(input); /* idle connections hold no buffers */
        return false;
    }
    if (connection->turn_bytes >= CONNECTION_TURN_BYTES)
        return yield_turn(connection);
    ssize_t n = recv(connection->descriptor, loop->scratch, loop->input_bytes - input->len, 0);
    if (n > 0) {
        connection->turn_bytes += (size_t)n;
        text_add(input, loop->scratch, (size_t)n);
        return input->failed ? refuse_without_memory(connection) : true;
    }
    if (!n)
        connection->end_of_input = true;
    else if (errno == EAGAIN)
        connection->readable = false;
    else if (errno != EINTR)
        connection->broken = true;
    return true;
}

static bool hand_over(struct connection *connection)
{
    set_state(connection, CONNECTION_ANSWER);
    connection->look_for_departure = true;
    exchange_hand_over(connection->exchange);
    connection->loop->handlers.on_request(connection->exchange, connection->loop->handlers.user);
    set_newcomer(connection, false); /* now, as what the request counts for has been counted */
    return true;
}

/* The head is done. */
static bool begin_exchange(struct connection *connection)
{
    struct loop *loop = connection->loop;
    struct exchange *exchange = exchange_create(connection);
    if (!exchange)
        return refuse_without_memory(connection);
    connection->exchange = exchange;
    connection->input_at += connection->head.head_bytes;
    connection->turn_requests++;
    set_state(connection, CONNECTION_BODY);
    if (loop->handlers.on_head)
        loop->handlers.on_head(exchange, loop->handlers.user);
    if (!connection->exchange || connection->broken)
        return true; /* answered there, the body will not be read */
    enum http_outcome outcome = http_body_start(&exchange->body_reader, &exchange->head, &loop->limits.http);
    if (outcome == HTTP_REFUSED)
        return refuse(connection, exchange->body_reader.status, exchange->body_reader.message);
    if (outcome == HTTP_DONE)
        return hand_over(connection);
    if (exchange->head.expects_continue && connection->input_at == connection->input.len)
        evbuffer_add(connection->output, "HTTP/1.1 100 Continue\r\n\r\n", 25);
    return true;
}

static bool read_head(struct connection *connection)
{
    struct loop *loop = connection->loop;
    if (evbuffer_get_length(connection->output) > loop->limits.output_bytes ||
        connection->n_unwritten > CONNECTION_UNWRITTEN)
        return false; /* it does not read its answers: no more questions until it does */
    size_t len = connection->input.len - connection->input_at;
    if (!len)
        return read_more(connection);
    if (connection->turn_requests >= CONNECTION_TURN_REQUESTS)
        return yield_turn(connection);
    if (!connection->head_began) {
        connection->head_began = true;
        loop_arm(&connection->timer, loop->limits.head_ms);
    }
    enum http_outcome outcome = http_head_read(&connection->head, &loop->limits.http,
                                               connection->input.bytes + connection->input_at, len);
    if (outcome == HTTP_REFUSED)
        return refuse(connection, connection->head.status, connection->head.message);
    return outcome == HTTP_DONE ? begin_exchange(connection) : read_more(connection);
}

static bool read_body(struct connection *connection)
{
    struct loop *loop = connection->loop;
    struct exchange *exchange = connection->exchange;
    struct http_body *reader = &exchange->body_reader;
    while (connection->input_at < connection->input.len) {
        const char *data;
        size_t n_used, data_len;
        enum http_outcome outcome =
            http_body_next(reader, connection->input.bytes + connection->input_at,
                           connection->input.len - connection->input_at, &n_used, &data, &data_len);
        connection->input_at += n_used;
        size_t before = exchange->body.len;
        if (data_len)
            text_add(&exchange->body, data, data_len);
        if (exchange->body.failed)
            return refuse_without_memory(connection);
        loop->body_bytes += exchange->body.len - before;
        if (loop->body_bytes > loop->limits.all_body_bytes)
            return refuse(connection, 503,
                          "the bodies of all requests together are past their limit (--max-bodies-bytes): "
                          "try again soon");
        if (outcome == HTTP_REFUSED)
            return refuse(connection, reader->status, reader->message);
        if (outcome == HTTP_DONE)
            return hand_over(connection);
    }
    return read_more(connection);
}

/* Asked after every sign of life while an exchange runs. */
static bool look_for_departure(struct connection *connection)
{
    if (!connection->look_for_departure)
        return false;
    connection->look_for_departure = false;
    struct pollfd socket = {.fd = connection->descriptor, .events = POLLRDHUP};
    if (connection->end_of_input ||
        (poll(&socket, 1, 0) > 0 && (socket.revents & (POLLRDHUP | POLLHUP | POLLERR))))
        connection->broken = true;
    return connection->broken;
}

/* The stream's end is in the output: it is written as a last answer is, and the exchange goes without its client. */
static bool let_go_of_stream(struct connection *connection)
{
    struct exchange *exchange = connection->exchange;
    connection->exchange = NULL;
    set_state(connection, CONNECTION_CLOSE);
    loop_arm(&connection->timer, connection->loop->limits.write_stall_ms); /* in all, however it is read */
    exchange_lost(exchange);
    return true;
}

static bool close_when_written(struct connection *connection)
{
    if (evbuffer_get_length(connection->output))
        return false;
    shutdown(connection->descriptor, SHUT_WR);
    connection->readable = true;
    set_state(connection, CONNECTION_LINGER);
    loop_check_drained(connection->loop);
    return true;
}

static bool discard_input(struct connection *connection)
{
    struct loop *loop = connection->loop;
    if (!connection->readable)
        return false;
    if (connection->turn_bytes >= CONNECTION_TURN_BYTES)
        return yield_turn(connection);
    ssize_t n =
        connection->end_of_input ? 0 : recv(connection->descriptor, loop->scratch, loop->input_bytes, 0);
    if (n < 0 && errno == EAGAIN)
        connection->readable = false;
    if (n < 0)
        return errno == EINTR || (errno != EAGAIN && (connection->broken = true));
    connection->turn_bytes += (size_t)n;
    connection->linger_bytes += (size_t)n;
    if (n && connection->linger_bytes < CONNECTION_LINGER_BYTES)
        return true;
    connection_drop(connection);
    return false;
}

/* --- the work --- */

/* Does one thing; true if there may be another. */
static bool step(struct connection *connection)
{
    if (!connection->broken)
        connection_flush(connection);
    if (connection->broken) {
        connection_drop(connection);
        return false;
    }
    switch (connection->state) {
    case CONNECTION_HEAD:
        return read_head(connection);
    case CONNECTION_BODY:
        return read_body(connection);
    case CONNECTION_ANSWER:
        if (connection->exchange && exchange_is_cut(connection->exchange))
            return let_go_of_stream(connection);
        return look_for_departure(connection);
    case CONNECTION_CLOSE:
        return close_when_written(connection);
    case CONNECTION_LINGER:
        return discard_input(connection);
    }
    return false;
}

static void connection_work(struct connection *connection)
{
    connection->working = true;
    connection->turn_requests = 0;
    connection->turn_bytes = 0;
    while (step(connection))
        ;
    connection->working = false;
    if (connection->dead)
        free(connection);
}

static void on_io(evutil_socket_t descriptor, short what, void *user)
{
    struct connection *connection = user;
    (void)descriptor;
    if (what & (EV_READ | EV_CLOSED))
        connection->readable = connection->look_for_departure = true;
    connection_work(connection);
}

/* All is written, but the client may not have read it: the system goes on sending it, and that has an end, too. */
static void leave_to_system(struct connection *connection)
{
    unsigned ms = (unsigned)connection->loop->limits.write_stall_ms;
    setsockopt(connection->descriptor, IPPROTO_TCP, TCP_USER_TIMEOUT, &ms, sizeof ms);
    connection->left_to_system = connection->broken = true;
}

/* The time that a body may take grows with what has come. */
static double body_time_left(const struct connection *connection)
{
    const struct loop_limits *limits = &connection->loop->limits;
    double earned = (double)connection->exchange->body.len * 1e3 / limits->body_bytes_per_s;
    return connection->since_ms + limits->body_ms + earned - clock_ms();
}

static void on_timer(evutil_socket_t descriptor, short what, void *user)
{
    struct connection *connection = user;
    (void)descriptor;
    (void)what;
    double left = 0;
    switch (connection->state) {
    case CONNECTION_HEAD:
        if (connection->head_began)
            refuse(connection, 408, "the request's head came too slowly");
        else if (evbuffer_get_length(connection->output))
            loop_arm(&connection->timer,
                     connection->loop->limits.keep_alive_ms); /* not idle: still being read */
        else
            set_state(connection, CONNECTION_CLOSE);
        break;
    case CONNECTION_BODY:
        left = body_time_left(connection);
        if (left > 1)
            loop_arm(&connection->timer, left);
        else
            refuse(connection, 408, "the request's body came too slowly");
        break;
    case CONNECTION_ANSWER:
        if (connection->exchange) /* else it was aborted in this turn */
            exchange_comment(connection->exchange);
        break;
    case CONNECTION_LINGER:
        leave_to_system(connection);
        break;
    default:
        connection->broken = connection->too_slow = true;
    }
    connection_work(connection);
}

static void on_stall(evutil_socket_t descriptor, short what, void *user)
{
    struct connection *connection = user;
    struct exchange *exchange = connection->exchange;
    (void)descriptor;
    (void)what;
    if (reading_goes_on(connection))
        return;
    if (connection->state == CONNECTION_ANSWER && exchange && exchange->streaming)
        exchange_cut(exchange);
    else
        connection->broken = connection->too_slow = true;
    connection_work(connection);
}

/* --- what the loop does with connections --- */

void connection_open(struct loop *loop, int descriptor)
{
    struct connection *connection = calloc(1, sizeof *connection);
    struct evbuffer *output = connection ? evbuffer_new() : NULL;
    if (!output)
        goto fail;
    int yes = 1;
    setsockopt(descriptor, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
    connection->loop = loop;
    connection->descriptor = descriptor;
    connection->output = output;
    event_assign(&connection->io, loop->base, descriptor, EV_READ | EV_WRITE | EV_CLOSED | EV_ET | EV_PERSIST,
                 on_io, connection);
    evtimer_assign(&connection->timer, loop->base, on_timer, connection);
    evtimer_assign(&connection->stall_timer, loop->base, on_stall, connection);
    evtimer_assign(&connection->again, loop->base, on_io, connection);
    if (event_add(&connection->io, NULL))
        goto fail;
    connection->next = loop->connections;
    if (connection->next)
        connection->next->previous = connection;
    loop->connections = connection;
    loop->stats.n_connections++;
    set_newcomer(connection, true);
    set_state(connection, CONNECTION_HEAD);
    return;

fail:
    if (output)
        evbuffer_free(output);
    free(connection);
    connection_refuse_socket(loop, descriptor);
}

static bool is_idle(const struct connection *connection)
{
    return connection->state == CONNECTION_HEAD && !connection->head_began && !connection->working &&
           !evbuffer_get_length(connection->output);
}

/* A client that has only just come, or whose request has come but was not read yet, is not idle. */
bool connection_close_longest_idle(struct loop *loop)
{
    for (;;) {
        struct connection *longest = NULL;
        double now_ms = clock_ms();
        int n_unread = 0;
        for (struct connection *connection = loop->connections; connection; connection = connection->next)
            if (is_idle(connection) && (!longest || connection->since_ms < longest->since_ms))
                longest = connection;
        if (!longest || now_ms - longest->since_ms < CONNECTION_IDLE_MS)
            return false;
        if (ioctl(longest->descriptor, FIONREAD, &n_unread) || !n_unread) {
            connection_drop(longest);
            return true;
        }
        longest->since_ms = now_ms;
    }
}

/* Has something come that was not looked at yet? */
static bool has_unread(const struct connection *connection)
{
    int n_unread = 0;
    return connection->input.len > connection->input_at ||
           (!ioctl(connection->descriptor, FIONREAD, &n_unread) && n_unread > 0);
}

/* A request that has come, or begun to, gets an answer; a connection that sent nothing gets none. */
void connection_drain(struct connection *connection)
{
    bool half_read = connection->state == CONNECTION_BODY ||
                     (connection->state == CONNECTION_HEAD && connection->head_began);
    if (connection->working || (connection->state != CONNECTION_HEAD && !half_read))
        return; /* may_keep in exchange.c does the rest */
    if (half_read) {
        refuse(connection, 503, "the server is shutting down");
    } else if (has_unread(connection)) {
        connection->head_began = connection->readable = true;
        loop_arm(&connection->timer, connection->loop->limits.head_ms);
    } else {
        set_state(connection, CONNECTION_CLOSE);
    }
    connection_work(connection);
}

void connection_retire(struct connection *connection)
{
    const struct loop_limits *limits = &connection->loop->limits;
    if (connection->state == CONNECTION_HEAD && !connection->head_began &&
        limits->retire_idle_ms < limits->keep_alive_ms)
        loop_arm(&connection->timer, limits->retire_idle_ms);
}
