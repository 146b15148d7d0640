/* loop.c: the loop's life, messages from other threads, and draining. See loop.h.
 *
 * A message signals only when the mailbox was empty; the list is detached before the first message runs, so that
 * messages posted meanwhile wait for the next turn and sockets get theirs. */
#include "server/net/loop.h"

#include "base/clock.h"
#include "server/net/connection.h"

#include <errno.h>
#include <event2/buffer.h>
#include <event2/event.h>
#include <fcntl.h>
#include <math.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

const struct loop_limits loop_default_limits = {
    .http = {.target_bytes = 8192, .header_bytes = 32768, .n_headers = 100, .body_bytes = 2097152},
    .n_connections = 4096,
    .all_body_bytes = 67108864,
    .output_bytes = 262144,
    .head_ms = 10000,
    .body_ms = 30000,
    .body_bytes_per_s = 16384,
    .keep_alive_ms = 60000,
    .write_stall_ms = 30000,
    .answer_bytes_per_s = 16384,
    .linger_ms = 1000,
    .comment_ms = 15000,
    .retire_idle_ms = 2000,
};

/* Starts the timer anew. */
void loop_arm(struct event *timer, double ms)
{
    long whole = (long)(ms > 0 ? ms : 0);
    struct timeval time = {whole / 1000, whole % 1000 * 1000};
    event_add(timer, &time);
}

static void read_mailbox(evutil_socket_t descriptor, short what, void *user)
{
    struct loop *loop = user;
    uint64_t n;
    (void)what;
    while (read(descriptor, &n, sizeof n) < 0 && errno == EINTR)
        ;
    pthread_mutex_lock(&loop->mailbox_lock);
    struct loop_message *message = loop->mailbox_first;
    loop->mailbox_first = NULL;
    loop->mailbox_end = &loop->mailbox_first;
    pthread_mutex_unlock(&loop->mailbox_lock);
    while (message) {
        struct loop_message *next = message->next; /* run may post or free it */
        message->run(message->user);
        message = next;
    }
}

void loop_post(struct loop *loop, struct loop_message *message)
{
    message->next = NULL;
    pthread_mutex_lock(&loop->mailbox_lock);
    bool was_empty = !loop->mailbox_first;
    *loop->mailbox_end = message;
    loop->mailbox_end = &message->next;
    /* Under the lock: once the loop has taken the last message, loop_free may follow. */
    while (was_empty && eventfd_write(loop->mailbox_descriptor, 1) < 0 && errno == EINTR)
        ;
    pthread_mutex_unlock(&loop->mailbox_lock);
}

static void end_drain(evutil_socket_t descriptor, short what, void *user)
{
    (void)descriptor;
    (void)what;
    loop_stop(user);
}

/* Epoll, as edge-triggered events and the notice of a FIN while nothing is read need it. */
static struct event_base *create_base(runnel_error *error)
{
    struct event_config *config = event_config_new();
    struct event_base *base = NULL;
    if (config && !event_config_require_features(config, EV_FEATURE_ET | EV_FEATURE_EARLY_CLOSE) &&
        !event_config_set_flag(config, EVENT_BASE_FLAG_NOLOCK))
        base = event_base_new_with_config(config);
    if (config)
        event_config_free(config);
    if (!base)
        error_set(error, RUNNEL_EIO, "event loop: expected libevent with epoll, could not be made");
    return base;
}

int loop_create(const struct loop_limits *limits, const struct loop_handlers *handlers, struct loop **loop,
                runnel_error *error)
{
    struct loop *made = calloc(1, sizeof *made);
    if (!made)
        return error_set(error, RUNNEL_ENOMEM, "event loop: out of memory");
    int code = RUNNEL_ENOMEM;
    made->limits = *limits;
    made->handlers = *handlers;
    made->mailbox_end = &made->mailbox_first;
    made->mailbox_descriptor = made->reserve = -1;
    made->input_bytes = http_max_head_bytes(&limits->http);
    if (made->input_bytes < CONNECTION_INPUT_BYTES)
        made->input_bytes = CONNECTION_INPUT_BYTES;
    pthread_mutex_init(&made->mailbox_lock, NULL);
    made->scratch = malloc(made->input_bytes);
    if (!made->scratch) {
        error_set(error, code, "event loop: out of memory");
        goto fail;
    }
    code = RUNNEL_EIO;
    made->base = create_base(error);
    if (!made->base)
        goto fail;
    made->mailbox_descriptor = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (made->mailbox_descriptor >= 0)
        made->reserve = fcntl(made->mailbox_descriptor, F_DUPFD_CLOEXEC, 0);
    event_assign(&made->mailbox_event, made->base, made->mailbox_descriptor, EV_READ | EV_PERSIST,
                 read_mailbox, made);
    evtimer_assign(&made->drain_timer, made->base, end_drain, made);
    if (made->reserve < 0 || event_add(&made->mailbox_event, NULL)) {
        error_set(error, code, "event loop: no descriptor for its mailbox: %s", strerror(errno));
        goto fail;
    }
    signal(SIGPIPE, SIG_IGN);
    *loop = made;
    return RUNNEL_OK;

fail:
    loop_free(made);
    return code;
}

void loop_free(struct loop *loop)
{
    if (!loop)
        return;
    while (loop->connections) {
        loop->connections->too_slow = true; /* what it was answered, and did not take in the time there was */
        connection_drop(loop->connections);
    }
    while (loop->exchanges)
        exchange_free(loop->exchanges);
    if (loop->listening) {
        listener_stop(loop);
        loop->listening = false;
    }
    if (loop->mailbox_descriptor >= 0 && loop->base) {
        event_del(&loop->mailbox_event);
        event_del(&loop->drain_timer);
    }
    if (loop->base)
        event_base_free(loop->base);
    if (loop->mailbox_descriptor >= 0)
        close(loop->mailbox_descriptor);
    if (loop->reserve >= 0)
        close(loop->reserve);
    pthread_mutex_destroy(&loop->mailbox_lock);
    free(loop->scratch);
    free(loop);
}

int loop_listen(struct loop *loop, int descriptor, runnel_error *error)
{
    int listens = 0;
    socklen_t len = sizeof listens;
    if (getsockopt(descriptor, SOL_SOCKET, SO_ACCEPTCONN, &listens, &len) || !listens)
        return error_set(error, RUNNEL_EINVAL, "descriptor %d: expected a listening socket", descriptor);
    int flags = fcntl(descriptor, F_GETFL);
    if (flags < 0 || fcntl(descriptor, F_SETFL, flags | O_NONBLOCK) < 0)
        return error_set(error, RUNNEL_EIO, "listening socket: %s", strerror(errno));
    event_assign(&loop->listener, loop->base, descriptor, EV_READ | EV_PERSIST, listener_event, loop);
    evtimer_assign(&loop->listener_pause, loop->base, listener_pause_event, loop);
    if (event_add(&loop->listener, NULL))
        return error_set(error, RUNNEL_EIO, "listening socket: cannot be watched");
    loop->listening = true;
    return RUNNEL_OK;
}

struct event_base *loop_base(struct loop *loop)
{
    return loop->base;
}

int loop_run(struct loop *loop, runnel_error *error)
{
    if (event_base_loop(loop->base, EVLOOP_NO_EXIT_ON_EMPTY) < 0)
        return error_set(error, RUNNEL_EIO, "event loop: epoll failed: %s", strerror(errno));
    return RUNNEL_OK;
}

static bool has_output(const struct loop *loop)
{
    for (const struct connection *connection = loop->connections; connection; connection = connection->next)
        if (evbuffer_get_length(connection->output))
            return true;
    return false;
}

void loop_write_rest(struct loop *loop, double ms)
{
    double end_ms = clock_ms() + ms;
    loop_arm(&loop->drain_timer, ms); /* so that the loop turns once more at the end */
    while (has_output(loop) && clock_ms() < end_ms)
        event_base_loop(loop->base, EVLOOP_ONCE);
}

void loop_stop(struct loop *loop)
{
    event_base_loopbreak(loop->base);
}

bool loop_is_draining(const struct loop *loop)
{
    return loop->draining;
}

/* Does it keep a drained loop from ending? Not if it only waits, but for its last request, or if all is written. */
static bool is_busy(const struct connection *connection)
{
    if (connection->state == CONNECTION_HEAD)
        return connection->head_began || !connection->loop->draining;
    return connection->state != CONNECTION_LINGER;
}

/* Called whenever something has ended. */
void loop_check_drained(struct loop *loop)
{
    if (!(loop->draining || loop->retiring) || loop->stats.n_exchanges)
        return;
    for (const struct connection *connection = loop->connections; connection; connection = connection->next)
        if (is_busy(connection))
            return;
    loop_stop(loop);
}

void loop_set_limits(struct loop *loop, const struct loop_limits *limits)
{
    struct loop_limits now = *limits;
    now.http = loop->limits.http; /* buffers were made for the longest head */
    now.http.body_bytes = limits->http.body_bytes;
    now.accepts_while_drained = loop->limits.accepts_while_drained;
    loop->limits = now;
}

void loop_drain(struct loop *loop, double deadline_ms)
{
    bool accepts = loop->limits.accepts_while_drained;
    if (loop->listening && !accepts)
        listener_stop(loop);
    else if (loop->listening && loop->retiring)
        listener_start(loop);
    loop->draining = true;
    loop->retiring = false;
    for (struct connection *connection = loop->connections, *next; connection; connection = next) {
        next = connection->next;
        connection_drain(connection);
    }
    loop_arm(&loop->drain_timer, deadline_ms);
    loop_check_drained(loop);
}

void loop_retire(struct loop *loop, double deadline_ms)
{
    loop->retiring = true;
    if (loop->listening)
        listener_stop(loop);
    for (struct connection *connection = loop->connections; connection; connection = connection->next)
        connection_retire(connection);
    if (deadline_ms < HUGE_VAL)
        loop_arm(&loop->drain_timer, deadline_ms);
    loop_check_drained(loop);
}

struct loop_stats loop_stats(const struct loop *loop)
{
    return loop->stats;
}
