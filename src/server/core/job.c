/* job.c: the requests behind one exchange (see job.h).
 *
 * Their events wait in their futures until the loop takes them; the engine's thread only wakes the loop, once until it has
 * come. All else is the loop thread's. */
#include "server/core/job.h"

#include "base/clock.h"
#include "base/pool.h"
#include "server/core/record.h"
#include "server/core/requests.h"

#include <event2/event.h>
#include <event2/event_struct.h>
#include <math.h>
#include <stdatomic.h>

struct job_request {
    struct job *job;
    runnel_future *future;
    bool is_known;            /* its first event has come: taken, or refused */
    bool has_answer;          /* some of it has come: no thought is running any more */
    bool has_finished;        /* then: */
    runnel_response response; /* its texts are the future's */
    const runnel_error *error;
};

struct job {
    struct server *server;
    struct exchange *exchange;
    const struct job_handlers *handlers;
    void *state;
    struct job *previous, *next; /* of the server */
    uint32_t key;                /* whose it is */
    size_t n, n_finished;
    struct job_request *requests;   /* [n] */
    struct event timer;             /* --request-timeout-s */
    struct breaker_verdict verdict; /* how it was let in */
    bool is_taken;                  /* by the engine, all of it */
    bool allows_control;            /* job_end_thoughts */
    bool is_over;                   /* ended, and kept for a wake that comes yet */
    bool failed;        /* one of the requests, or the time has run out: the others are cancelled */
    runnel_error error; /* why, if failed */

    size_t n_taken;     /* not counting those that were refused */
    atomic_bool posted; /* wake is on its way to the loop */
    struct loop_message wake;
};

/* On the engine's thread: an event of one of the requests waits. */
static void on_ready(void *user)
{
    const struct job_request *request = user;
    struct job *job = request->job;
    if (!atomic_exchange(&job->posted, true))
        loop_post(job->server->loop, &job->wake);
}

/* Gives back all but the job itself. From here on on_ready is not called any more: runnel_free sees to it. */
static void empty_job(struct job *job)
{
    event_del(&job->timer);
    for (size_t i = 0; i < job->n; i++)
        runnel_free(job->requests[i].future);
    if (job->handlers->free_state)
        job->handlers->free_state(job->state);
    pool_give(job->server->pool, job->requests);
    job->n = 0;
}

static void unlink_job(struct job *job)
{
    if (job->previous)
        job->previous->next = job->next;
    else
        job->server->jobs = job->next;
    if (job->next)
        job->next->previous = job->previous;
    pool_give(job->server->pool, job);
}

static enum breaker_outcome find_outcome(const struct job *job)
{
    if (job->failed && (job->error.code == RUNNEL_EEXPIRED || job->error.code == RUNNEL_ETIMEOUT))
        return BREAKER_TIMED_OUT;
    if (job->failed || exchange_is_gone(job->exchange))
        return BREAKER_UNDECIDED;
    for (size_t i = 0; i < job->n; i++)
        if (job->requests[i].response.finish_reason == RUNNEL_FINISH_CANCELLED)
            return BREAKER_UNDECIDED;
    return BREAKER_ANSWERED;
}

static void end_job(struct job *job)
{
    monitor_end(&job->server->monitor, &job->verdict, find_outcome(job));
    for (size_t i = 0; i < job->n; i++)
        record_add_response(record_of(job->exchange), &job->requests[i].response);
    gauges_changed(
        job->server); /* before its answer is out: who has it may ask another worker what was counted */
    job->handlers->on_end(job);
    empty_job(job);
    job->is_over = true;
    if (!atomic_load(&job->posted)) /* else a wake is still on its way: deliver takes it, and nothing else */
        unlink_job(job);
}

static void cancel_all(struct job *job)
{
    for (size_t i = 0; i < job->n; i++)
        runnel_cancel(job->requests[i].future);
}

/* One failure is the whole job's: its answer can only be that error. */
static void fail_job(struct job *job, const runnel_error *error)
{
    struct admit *admit = &job->server->admit;
    if (job->failed)
        return;
    job->failed = true;
    job->error = *error;
    if (error->code == RUNNEL_EEXPIRED || error->code == RUNNEL_ETIMEOUT)
        admit_timed_out(admit);
    else if (error->code == RUNNEL_ESLOW)
        admit_too_slow(admit);
    cancel_all(job);
}

void job_set_timeout_error(const struct server *server, runnel_error *error)
{
    error_set(error, RUNNEL_ETIMEOUT, "not finished within %.3g s, the longest that a request may take",
              server->rules.limits.request_ms / 1e3);
}

static void on_timeout(evutil_socket_t descriptor, short what, void *user)
{
    struct job *job = user;
    runnel_error error;
    (void)descriptor;
    (void)what;
    job_set_timeout_error(job->server, &error);
    fail_job(job, &error);
}

/* Of several requests, says which one failed, as runnel_submit does; one that would wait too long says so for all. */
static void fail_request(struct job *job, size_t index, const runnel_error *error)
{
    runnel_error named = *error;
    if (job->n > 1 && error->code != RUNNEL_ESLOW)
        error_prefix(&named, "requests[%zu]", index);
    fail_job(job, &named);
}

/* What a request's end means for the job; what was cancelled because the job failed ends with its error. */
static void take_end(struct job *job, struct job_request *request, runnel_event *event)
{
    request->has_finished = true;
    request->response = *event->counts;
    if (event->error && event->error->code == RUNNEL_ESLOW)
        exchange_set_retry(job->exchange,
                           (unsigned)ceil(fmin(request->response.predicted_wait_ms / 1e3, 86400)));
    if (event->error) {
        fail_request(job, (size_t)(request - job->requests), event->error);
        event->error = &job->error;
    } else if (job->failed) {
        event->error = &job->error;
        event->finish_reason = request->response.finish_reason = RUNNEL_FINISH_ERROR;
    } else if (event->finish_reason != RUNNEL_FINISH_CANCELLED) {
        admit_answered(&job->server->admit);
    }
    request->error = event->error;
}

static void take_event(struct job *job, struct job_request *request, runnel_event *event)
{
    struct record *record = record_of(job->exchange);
    if (!record->first_text_ms && event->text_len)
        record->first_text_ms = clock_ms();
    if (event->kind == RUNNEL_EVENT_ANSWER || event->kind == RUNNEL_EVENT_CALL)
        request->has_answer = true;
    if (event->kind == RUNNEL_EVENT_FINISH)
        take_end(job, request, event);
    if (!exchange_is_gone(job->exchange))
        job->handlers->on_event(job, (size_t)(request - job->requests), event);
    if (event->kind != RUNNEL_EVENT_FINISH)
        return;
    admit_give(&job->server->admit, job->key, 1); /* before its answer is out: who has it may ask again */
    job->n_finished++;
}

/* The next event of a request, if one waits. */
static bool next_event(struct job_request *request, runnel_event *event)
{
    *event = (runnel_event){.size = sizeof *event};
    return !request->has_finished && !runnel_next(request->future, event, 0) &&
           event->kind != RUNNEL_EVENT_NONE;
}

/* Learns which requests were taken and which refused: nothing else happens before that is known of all of them. True once
 * it is. */
static bool find_taken(struct job *job)
{
    size_t n_known = 0;
    for (size_t i = 0; i < job->n; i++) {
        struct job_request *request = &job->requests[i];
        runnel_event event;
        if (!request->is_known && next_event(request, &event)) {
            request->is_known = true;
            if (event.kind == RUNNEL_EVENT_TAKEN)
                job->n_taken++;
            else
                take_event(job, request, &event);
        }
        n_known += request->is_known;
    }
    return n_known == job->n;
}

/* On the loop's thread: takes all events that wait. */
static void deliver(void *user)
{
    struct job *job = user;
    if (job->is_over) {
        unlink_job(job);
        return;
    }
    atomic_store(&job->posted, false); /* before the taking: what comes from now on wakes the loop again */
    if (!job->is_taken) {
        job->is_taken = find_taken(job);
        if (job->n_taken == job->n && !exchange_is_gone(job->exchange) && job->handlers->on_taken)
            job->handlers->on_taken(job);
    }
    for (size_t i = 0; i < job->n && job->is_taken; i++) {
        runnel_event event;
        while (next_event(&job->requests[i], &event))
            take_event(job, &job->requests[i], &event);
    }
    if (job->n_finished == job->n)
        end_job(job);
}

static void on_gone(struct exchange *exchange, void *user)
{
    (void)exchange;
    cancel_all(user);
}

static struct job *make_job(struct server *server, size_t n, runnel_error *error)
{
    struct job *job = pool_take(server->pool, sizeof *job);
    if (!job)
        goto no_memory;
    *job = (struct job){.server = server, .n = n};
    job->requests = pool_take(server->pool, n * sizeof *job->requests);
    if (!job->requests)
        goto no_memory;
    for (size_t i = 0; i < n; i++)
        job->requests[i] = (struct job_request){.job = job};
    job->wake = (struct loop_message){.run = deliver, .user = job};
    return job;

no_memory:
    pool_give(server->pool, job);
    error_set(error, RUNNEL_ENOMEM, "no memory for the request");
    return NULL;
}

int job_take_places(struct server *server, uint32_t key, size_t n_wanted, runnel_error *error)
{
    struct admit *admit = &server->admit;
    uint32_t n = n_wanted > UINT32_MAX ? UINT32_MAX : (uint32_t)n_wanted;
    switch (admit_take(admit, key, n)) {
    case ADMIT_TAKEN:
        return RUNNEL_OK;
    case ADMIT_OVER_SHARE:
        return error_set(
            error, RUNNEL_EBUSY,
            "%u requests of this key are running or waiting: with %u more it would have more than its "
            "share of the %u that there may be; %u at most when nobody else asks",
            admit_n_of_key(admit, key), n, admit->n_max, admit_share(admit));
    default:
        return error_set(error, RUNNEL_EBUSY,
                         "%u requests are running or waiting, expected at most %u with %u more",
                         admit_n_requests(admit), admit->n_max, n);
    }
}

/* Asks the breaker; while it is open, notes what the request gets at most. */
static int pass_breaker(struct job *job, runnel_error *error)
{
    struct server *server = job->server;
    const struct monitor_options *options = server->monitor.options;
    job->verdict = monitor_admit(&server->monitor);
    if (job->verdict.level == BREAKER_REFUSING) {
        monitor_add_headers(&server->monitor, job->exchange);
        return error_set(error, JOB_EREFUSED, "%s", monitor_refusal(&server->monitor));
    }
    if (job->verdict.level == BREAKER_DEGRADED) {
        struct record *record = record_of(job->exchange);
        record->degraded = breaker_reason(&server->monitor.breaker);
        record->degraded_max_tokens = options->degraded_max_tokens;
        record->degraded_temperature = options->degraded_temperature;
        monitor_add_headers(&server->monitor, job->exchange);
    }
    return RUNNEL_OK;
}

/* Thoughts get half of what is left, or the answer would fall off its end. */
static void degrade(const struct record *record, runnel_request *request)
{
    int most = record->degraded_max_tokens,
        half = (most + 1) / 2; /* not 0: the prompt has opened a thought */
    if (!record->degraded)
        return;
    if (request->max_tokens == 0 || request->max_tokens > most) {
        request->max_tokens = most;
        if (request->thinking_budget < 0 || request->thinking_budget > half)
            request->thinking_budget = half;
        if (request->soft_thinking_budget > request->thinking_budget)
            request->soft_thinking_budget = request->thinking_budget;
        if (request->answer_reserve > most - half)
            request->answer_reserve = most - half;
        if (request->min_tokens > most)
            request->min_tokens = most;
    }
    if (request->sampling->temperature > record->degraded_temperature)
        requests_sampling(request)->temperature = record->degraded_temperature;
}

/* Submits copies of the requests whose events come to the job. */
static int submit(struct job *job, const runnel_request *requests, runnel_error *error)
{
    struct pool *pool = job->server->pool;
    runnel_request *copies = pool_take(pool, requests_bytes(job->n));
    runnel_future **futures = pool_take(pool, job->n * sizeof *futures);
    int failure = RUNNEL_OK;
    if (copies && futures) {
        for (size_t i = 0; i < job->n; i++) {
            requests_copy(copies, job->n, i, &requests[i]);
            copies[i].wants_events = true;
            copies[i].on_ready = on_ready;
            copies[i].user = &job->requests[i];
            copies[i].key = job->key;
            degrade(record_of(job->exchange), &copies[i]);
        }
        failure = job_take_places(job->server, job->key, job->n, error);
        if (!failure) {
            failure = runnel_submit(job->server->engine, copies, job->n, futures, error);
            if (failure)
                admit_give(&job->server->admit, job->key, (uint32_t)job->n);
        }
        for (size_t i = 0; !failure && i < job->n; i++)
            job->requests[i].future = futures[i];
    } else {
        failure = error_set(error, RUNNEL_ENOMEM, "no memory for the request");
    }
    pool_give(pool, copies);
    pool_give(pool, futures);
    return failure;
}

void job_start_timer(const struct server *server, const struct exchange *exchange, struct event *timer)
{
    double whole_ms = server->rules.limits.request_ms;
    double ms = fmax(whole_ms - (clock_ms() - record_of(exchange)->began_ms), 1);
    struct timeval time = {(long)(ms / 1e3), (long)fmod(ms, 1e3) * 1000};
    if (whole_ms > 0)
        event_add(timer, &time);
}

int job_start(struct server *server, struct exchange *exchange, const runnel_request *requests, size_t n,
              const struct job_handlers *handlers, void *state, struct job **out, runnel_error *error)
{
    struct job *job = make_job(server, n, error);
    if (!job) {
        if (handlers->free_state)
            handlers->free_state(state);
        return RUNNEL_ENOMEM;
    }
    job->exchange = exchange;
    job->key = exchange_key(exchange);
    job->handlers = handlers;
    job->state = state;
    evtimer_assign(&job->timer, loop_base(server->loop), on_timeout, job);
    int failure = pass_breaker(job, error);
    if (!failure) {
        failure = submit(job, requests, error);
        if (failure)
            monitor_end(&server->monitor, &job->verdict, BREAKER_UNDECIDED);
    }
    if (failure) {
        empty_job(job);
        pool_give(server->pool, job);
        return failure;
    }
    job->next = server->jobs;
    if (job->next)
        job->next->previous = job;
    server->jobs = job;
    job_start_timer(server, exchange, &job->timer);
    exchange_set_gone(exchange, on_gone, job);
    gauges_changed(server);
    *out = job;
    return RUNNEL_OK;
}

void job_end_all(struct server *server)
{
    for (struct job *job = server->jobs; job; job = job->next)
        cancel_all(job);
    while (server->jobs)
        event_base_loop(loop_base(server->loop), EVLOOP_ONCE);
}

struct server *job_server(const struct job *job)
{
    return job->server;
}

struct exchange *job_exchange(const struct job *job)
{
    return job->exchange;
}

void *job_state(const struct job *job)
{
    return job->state;
}

const runnel_response *job_response(struct job *job, size_t index, runnel_error *error)
{
    const struct job_request *request = &job->requests[index];
    if (!request->error)
        return &request->response;
    *error = *request->error;
    return NULL;
}

void job_cancel(struct job *job, size_t index)
{
    runnel_cancel(job->requests[index].future);
}

void job_allow_control(struct job *job)
{
    job->allows_control = true;
}

static enum job_control end_thoughts(struct job *job)
{
    enum job_control control = JOB_CONTROL_OVER;
    if (!job->allows_control)
        return JOB_CONTROL_NOT_ALLOWED;
    for (size_t i = 0; i < job->n; i++)
        if (!job->requests[i].has_answer && runnel_end_thought(job->requests[i].future))
            control = JOB_CONTROL_DONE;
    return control;
}

enum job_control job_end_thoughts(struct server *server, const struct record_id *id, uint32_t key)
{
    for (struct job *job = server->jobs; job; job = job->next)
        if (!job->is_over && job->key == key && record_is(record_of(job->exchange), id))
            return end_thoughts(job);
    return JOB_CONTROL_UNKNOWN;
}
