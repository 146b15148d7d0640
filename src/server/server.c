/* server.c: a server's life: it listens, loads, serves, drains, and gives everything back.
 *
 * It listens before the model is open, so that whoever starts it can ask /health from the first moment. The model is opened, and
 * its engine started, on a thread of its own, which ends with a message to the loop; all else is the loop's thread. */
#include "server/server.h"

#include "base/clock.h"
#include "base/pool.h"
#include "base/thread.h"
#include "server/admin.h"
#include "server/api/prepare.h"
#include "server/api/reply.h"
#include "server/core/job.h"
#include "server/core/record.h"
#include "server/core/rules.h"
#include "server/page.h"

#include <event2/event.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

enum {
    POOL_BYTES = 256 << 20, /* of requests on their way, at most */
};

enum { N_SIGNALS_MAX = 3 };
/* Without a model there is nothing to stay for. */
static const double LOADING_RETIRE_IDLE_MS = 100, LOADING_RETIRE_MS = 1000;

/* A server and what it is made with. */
struct run {
    struct server server;
    const struct server_listening *listening;
    struct event *signal_events[N_SIGNALS_MAX];
    pthread_t opener;
    bool opening; /* the thread is to be joined */
    bool hurries; /* what still runs is given up */
    bool retires; /* others accept in its place */
    bool lost;    /* its GPU is, so that it can answer nothing more */

    /* The opening thread's, until its message comes. */
    const runnel_model *model;
    runnel_engine *engine;
    int open_failure;
    runnel_error open_error;
    struct loop_message opened;
};

/* Routes -------------------------------------------------------------------------------------------------- */

static bool is_always_answered(const struct exchange *exchange)
{
    return record_is_probe(exchange) || page_find(exchange_path(exchange));
}

static void refuse_by_breaker(struct server *server, struct exchange *exchange)
{
    struct refusal refusal = {.status = 503};
    monitor_add_headers(&server->monitor, exchange);
    snprintf(refusal.message, sizeof refusal.message, "%s", monitor_refusal(&server->monitor));
    metrics_add_status(server->metrics, reply_refusal(exchange, &refusal));
}

/* What asks for work. No order of the admin is refused: more workers, or other limits, may be what helps. */
static bool is_for_breaker(const struct server *server, const struct exchange *exchange)
{
    return server->engine && exchange_text_is(exchange_method(exchange), "POST") &&
           !admin_find(server, exchange_path(exchange));
}

/* Nothing is computed before the model is there, and nothing new once the server is to end. */
static void on_head(struct exchange *exchange, void *user)
{
    struct server *server = user;
    rules_take_over(server);
    record_start(exchange, server->worker.number);
    int status = guard_admit(&server->options->guard, exchange);
    if (status) {
        metrics_add_status(server->metrics, status);
        return;
    }
    const char *why = !server->engine                  ? "the model is being loaded"
                      : loop_is_draining(server->loop) ? "the server is about to end"
                                                       : NULL;
    if (why && !is_always_answered(exchange)) {
        metrics_add_status(server->metrics, 503);
        exchange_respond_error(exchange, 503, server->engine ? "Retry-After: 5\r\n" : "Retry-After: 1\r\n",
                               why);
        return;
    }
    if (is_for_breaker(server, exchange) && monitor_refuses(&server->monitor)) {
        refuse_by_breaker(server, exchange);
        return;
    }
    routes_on_head(exchange, user);
}

static void on_refusal(const struct exchange *exchange, int status, void *user)
{
    struct server *server = user;
    metrics_add_status(server->metrics, status);
    if (!exchange)
        record_log_refusal(server->log, status);
}

static void on_end(const struct exchange *exchange, void *user)
{
    struct server *server = user;
    record_count(server->metrics, exchange);
    record_log(server->log, exchange);
    gauges_changed(server);
}

/* Opening ------------------------------------------------------------------------------------------------- */

static void *open_model_and_engine(void *user)
{
    struct run *run = user;
    const struct server_listening *listening = run->listening;
    thread_begin("runnel-opener");
    run->model = listening->model;
    if (!run->model)
        run->open_failure = listening->open_model(listening->user, &run->model, &run->open_error);
    if (!run->open_failure)
        run->open_failure =
            listening->start_engine(listening->user, run->model, &run->engine, &run->open_error);
    if (!run->open_failure) /* not before: threads have the privileges of whoever starts them */
        run->open_failure = prepare_begin(&run->server, &run->open_error);
    loop_post(run->server.loop, &run->opened);
    return NULL;
}

static void join_opener(struct run *run)
{
    if (run->opening)
        pthread_join(run->opener, NULL);
    run->opening = false;
}

/* A worker could not be asked before. */
static int listen_at_last(struct run *run)
{
    if (!run->listening->is_worker || loop_is_draining(run->server.loop))
        return RUNNEL_OK;
    return loop_listen(run->server.loop, run->listening->descriptor, &run->open_error);
}

/* What still runs has failed or will, and is told so; whoever looks after this process starts another one. */
static void on_lost(void *user)
{
    struct run *run = user;
    run->lost = true;
    run->hurries = true;
    loop_stop(run->server.loop);
}

static void on_opened(void *user)
{
    struct run *run = user;
    struct server *server = &run->server;
    join_opener(run); /* it ends as it says this */
    if (!run->open_failure)
        run->open_failure = listen_at_last(run);
    if (run->open_failure) {
        loop_stop(server->loop);
        return;
    }
    server->model = run->model;
    server->engine = run->engine;
    server->info.size = sizeof server->info;
    runnel_model_get_info(server->model, &server->info);
    const char *name = server->options->alias ? server->options->alias : server->info.name;
    snprintf(server->model_name, sizeof server->model_name, "%s", name);
    monitor_on_lost(&server->monitor, on_lost, run);
    monitor_ready(&server->monitor, server->model, server->engine);
    if (!loop_is_draining(server->loop))
        shared_set_state(&server->worker, SHARED_READY);
    gauges_tell(server);
    if (run->listening->on_ready && !loop_is_draining(server->loop))
        run->listening->on_ready(run->listening->user, server);
}

static bool has_model(const struct server_listening *listening)
{
    return listening->model || listening->open_model;
}

static int start_opening(struct run *run, runnel_error *error)
{
    run->opened = (struct loop_message){.run = on_opened, .user = run};
    if (thread_start(&run->opener, open_model_and_engine, run))
        return error_set(error, RUNNEL_ENOMEM, "no thread to load the model on");
    run->opening = true;
    return RUNNEL_OK;
}

/* Signals ------------------------------------------------------------------------------------------------- */

static void on_retire(evutil_socket_t number, short what, void *user)
{
    struct run *run = user;
    (void)number;
    (void)what;
    if (loop_is_draining(run->server.loop) || run->retires)
        return;
    run->retires = true;
    rules_take_over(&run->server); /* the limit may be another one since the last request */
    shared_set_state(&run->server.worker, SHARED_DRAINING);
    loop_retire(run->server.loop,
                has_model(run->listening) ? run->server.rules.limits.retire_ms : LOADING_RETIRE_MS);
}

/* Of a worker its supervisor says that the server ends. */
static void say_end(const struct run *run)
{
    uint32_t n_running = loop_stats(run->server.loop).n_exchanges;
    if (n_running)
        log_say(run->server.log, "drain", "Runnel ends: %u requests may finish within %g s", n_running,
                run->server.rules.limits.drain_ms / 1e3);
    else if (!run->listening->is_worker)
        log_say(run->server.log, "drain", "Runnel ends");
}

/* Also of one that retires. */
static void on_end_signal(evutil_socket_t number, short what, void *user)
{
    struct run *run = user;
    (void)number;
    (void)what;
    if (loop_is_draining(run->server.loop))
        return;
    rules_take_over(&run->server);
    say_end(run);
    shared_set_state(&run->server.worker, SHARED_DRAINING);
    loop_drain(run->server.loop, run->server.rules.limits.drain_ms);
}

static void on_hurry_signal(evutil_socket_t number, short what, void *user)
{
    struct run *run = user;
    (void)number;
    (void)what;
    run->hurries = true;
    loop_stop(run->server.loop);
}

static void on_signal_alone(evutil_socket_t number, short what, void *user)
{
    struct run *run = user;
    if (!loop_is_draining(run->server.loop)) {
        on_end_signal(number, what, user);
        return;
    }
    log_say(run->server.log, "stop", "A second signal: what still runs is given up");
    on_hurry_signal(number, what, user);
}

struct watch {
    int number;
    event_callback_fn function;
    bool is_ignored_then;
};

/* A worker may hear of the same thing twice, from its supervisor and from whoever sends a signal to all processes: each of its
 * signals means one thing, however often it comes. Once the events are freed it means nothing, or it ends the process, should giving
 * things back take too long. */
static const struct watch alone[] = {{SIGTERM, on_signal_alone, false}, {SIGINT, on_signal_alone, false}},
                          supervised[] = {{SIGTERM, on_retire, true},
                                          {SIGUSR1, on_end_signal, true},
                                          {SIGALRM, on_hurry_signal, false}};

static int watch_signals(struct run *run, runnel_error *error)
{
    bool is_worker = run->listening->is_worker;
    const struct watch *watches = is_worker ? supervised : alone;
    size_t n = is_worker ? sizeof supervised / sizeof *supervised : sizeof alone / sizeof *alone;
    for (size_t i = 0; i < n; i++) {
        if (watches[i].is_ignored_then)
            signal(watches[i].number, SIG_IGN); /* what libevent finds, it leaves behind */
        struct event *event =
            evsignal_new(loop_base(run->server.loop), watches[i].number, watches[i].function, run);
        if (!event || event_add(event, NULL)) {
            if (event)
                event_free(event);
            return error_set(error, RUNNEL_ENOMEM, "signals cannot be watched");
        }
        run->signal_events[i] = event;
    }
    return RUNNEL_OK;
}

/* Life ---------------------------------------------------------------------------------------------------- */

static unsigned n_to_accept(void *server)
{
    return admit_n_connections(&((struct server *)server)->admit);
}

/* The server without a model: whoever has heard of a worker that answers must not meet this one, which refuses. */
static unsigned n_to_greet(void *user)
{
    struct server *server = user;
    for (unsigned i = 0; i < SHARED_WORKERS_MAX; i++)
        if (shared_state(server->worker.shared, i) == SHARED_READY) {
            loop_retire(server->loop, LOADING_RETIRE_MS);
            return 0;
        }
    return UINT_MAX;
}

static void on_newcomers(uint32_t n, void *server)
{
    shared_expect(&((struct server *)server)->worker, n);
}

static int start(struct run *run, runnel_error *error)
{
    struct server *server = &run->server;
    struct loop_limits limits = server->rules.limits.loop;
    struct loop_handlers handlers = {
        .n_to_accept = has_model(run->listening) ? n_to_accept : n_to_greet,
        .on_newcomers = on_newcomers,
        .on_head = on_head,
        .on_request = routes_on_request,
        .on_refusal = on_refusal,
        .on_end = on_end,
        .note_bytes = sizeof(struct record),
        .user = server,
    };
    limits.accepts_while_drained = true; /* /health tells */
    if (!has_model(run->listening))
        limits.retire_idle_ms = LOADING_RETIRE_IDLE_MS;
    int failure = pool_create(POOL_BYTES, &server->pool, error);
    if (!failure)
        failure = loop_create(&limits, &handlers, &server->loop, error);
    if (!failure)
        failure = monitor_start(&server->monitor, &server->rules.limits.monitor, server->metrics,
                                loop_base(server->loop), server->log, error);
    if (!failure)
        failure = inbox_start(server, error);
    if (!failure)
        failure = gauges_start(server, error);
    if (!failure)
        failure = watch_signals(run, error);
    if (!failure && (!run->listening->is_worker || !has_model(run->listening)))
        failure = loop_listen(server->loop, run->listening->descriptor, error);
    if (!failure && has_model(run->listening))
        failure = start_opening(run, error);
    else if (!failure && run->listening->on_ready) /* nothing else will be opened */
        run->listening->on_ready(run->listening->user, server);
    return failure;
}

/* What still runs is ended, and told so; clients that are behind with reading have a moment to catch up, unless there was a
 * second signal. */
static void end_requests(struct run *run)
{
    struct server *server = &run->server;
    if (server->jobs && !run->hurries)
        log_say(server->log, "drain", "The time to drain is over (%s): %u requests are ended",
                loop_is_draining(server->loop) ? "--timeout-drain" : "--request-timeout-s",
                loop_stats(server->loop).n_exchanges);
    job_end_all(server);
    if (!run->hurries)
        loop_write_rest(server->loop, server->rules.limits.loop.linger_ms);
}

/* Gives back what start took, as far as it came. */
static void stop(struct run *run)
{
    struct server *server = &run->server;
    for (size_t i = 0; i < N_SIGNALS_MAX; i++)
        if (run->signal_events[i])
            event_free(run->signal_events[i]);
    monitor_stop(&server->monitor);
    join_opener(run);
    prepare_end(server);
    if (server->loop)
        end_requests(run);
    gauges_stop(server);
    inbox_stop(server);
    loop_free(server->loop);
    if (server->pool) {
        struct pool_stats last;
        uint64_t n_held = pool_free(server->pool, &last);
        if (n_held)
            log_say(server->log, "leak", "%llu blocks of %zu bytes in all were still held at the end",
                    (unsigned long long)n_held, last.in_use_bytes);
    }
}

int server_run(const struct server_listening *listening, runnel_error *error)
{
    struct run run = {.listening = listening};
    run.server = (struct server){
        .options = listening->options,
        .log = listening->log,
        .start_ms = clock_ms(),
        .created_s = shared_created_s(listening->shared),
    };
    shared_join(&run.server.worker, listening->shared, listening->worker);
    run.server.metrics = shared_counters(listening->shared);
    rules_read(&run.server);
    admit_init(&run.server.admit, &run.server.worker, run.server.rules.limits.n_requests,
               keys_count(&run.server.rules.keys));
    int failure = start(&run, error);
    if (!failure)
        failure = loop_run(run.server.loop, error);
    stop(&run);
    if (!failure && run.open_failure) {
        if (error)
            *error = run.open_error;
        failure = run.open_failure;
    }
    if (!failure && run.lost)
        failure = error_set(error, RUNNEL_EIO, "the GPU answers no more");
    return failure;
}
