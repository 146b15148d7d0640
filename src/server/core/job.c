/* job.c: the requests behind one exchange (see job.h).
 *
 * The engine's thread copies each event into a message and appends it to the job's mailbox; only from empty to non-empty
 * does it wake the loop. The loop detaches the whole list before it calls the dialect. All else is the loop thread's. */
#include "server/core/job.h"

#include "base/clock.h"
#include "base/pool.h"
#include "server/core/record.h"

#include <event2/event.h>
#include <event2/event_struct.h>
#include <math.h>
#include <pthread.h>
#include <string.h>

/* A copy of an event; what it points to follows it in the same block. */
struct message {
    struct message *next;
    size_t index;
    runnel_event event;
    runnel_error error;
    runnel_response response; /* of an event with counts */
};

struct job_request {
    struct job *job;
    size_t index;
    runnel_future *future;
    struct message *finish; /* once it has come: holds the response */
    bool out_of_memory;     /* an event could not be copied; guarded by the job's lock */
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
    bool failed;        /* one of the requests, or the time has run out: the others are cancelled */
    runnel_error error; /* why, if failed */

    pthread_mutex_t lock; /* guards the mailbox */
    struct message *first, **end;
    size_t n_taken;
    bool posted;
    struct loop_message wake;
};

/* The engine's thread ------------------------------------------------------------------------------------- */

/* Copies bytes to *place and moves it on; the copy ends in a zero. */
static const char *copy_bytes(char **place, const char *bytes, size_t len)
{
    char *copy = *place;
    if (len)
        memcpy(copy, bytes, len);
    copy[len] = 0;
    *place += len + 1;
    return copy;
}

static size_t message_bytes(const runnel_event *event)
{
    size_t n_bytes = sizeof(struct message) + event->text_len + 1;
    for (size_t i = 0; i < event->n_logprobs; i++)
        n_bytes += sizeof *event->logprobs + event->logprobs[i].n_bytes + 1;
    if (event->counts)
        n_bytes += event->counts->text_len + 1 + event->counts->reasoning_len + 1;
    return n_bytes;
}

static struct message *copy_event(struct pool *pool, size_t index, const runnel_event *event)
{
    struct message *message = pool_take(pool, message_bytes(event));
    if (!message)
        return NULL;
    *message = (struct message){.index = index, .event = *event};
    runnel_logprob *logprobs = (runnel_logprob *)(message + 1);
    char *place = (char *)(logprobs + event->n_logprobs);
    message->event.text = copy_bytes(&place, event->text, event->text_len);
    if (event->n_logprobs)
        message->event.logprobs = logprobs;
    for (size_t i = 0; i < event->n_logprobs; i++) {
        logprobs[i] = event->logprobs[i];
        logprobs[i].bytes = copy_bytes(&place, event->logprobs[i].bytes, event->logprobs[i].n_bytes);
    }
    if (event->error) {
        message->error = *event->error;
        message->event.error = &message->error;
    }
    if (event->counts) {
        message->response = *event->counts;
        message->event.counts = &message->response;
        message->response.text =
            (char *)(uintptr_t)copy_bytes(&place, event->counts->text, event->counts->text_len);
        message->response.reasoning =
            (char *)(uintptr_t)copy_bytes(&place, event->counts->reasoning, event->counts->reasoning_len);
    }
    return message;
}

/* A request's end must be told even when there is no memory to tell more: its place was kept. */
static struct message *use_kept_finish(struct job_request *request, const runnel_event *event)
{
    struct message *message = request->finish;
    *message = (struct message){.index = request->index, .event = {.kind = RUNNEL_EVENT_FINISH, .text = ""}};
    message->event.finish_reason = RUNNEL_FINISH_ERROR;
    message->event.error = &message->error;
    message->error = event->error
                         ? *event->error
                         : (runnel_error){RUNNEL_ENOMEM, "no memory for the answer: it was given up"};
    if (event->counts)
        message->response = *event->counts;
    message->response.text = message->response.reasoning = (char *)(uintptr_t) "";
    message->response.text_len = message->response.reasoning_len = 0;
    message->event.counts = &message->response;
    return message;
}

/* With the lock held. */
static void wake(struct job *job)
{
    if (job->posted)
        return;
    job->posted = true;
    loop_post(job->server->loop, &job->wake);
}

static bool on_event(void *user, const runnel_event *event)
{
    struct job_request *request = user;
    struct job *job = request->job;
    struct message *message =
        request->out_of_memory ? NULL : copy_event(job->server->pool, request->index, event);
    if (!message) {
        request->out_of_memory = true; /* the engine's thread alone reads it again */
        if (event->kind != RUNNEL_EVENT_FINISH)
            return false;
        message = use_kept_finish(request, event);
    }
    pthread_mutex_lock(&job->lock);
    *job->end = message;
    job->end = &message->next;
    wake(job);
    pthread_mutex_unlock(&job->lock);
    return true;
}

static void on_taken(void *user)
{
    const struct job_request *request = user;
    struct job *job = request->job;
    pthread_mutex_lock(&job->lock);
    if (++job->n_taken == job->n)
        wake(job);
    pthread_mutex_unlock(&job->lock);
}

/* The loop's thread --------------------------------------------------------------------------------------- */

static void free_job(struct job *job)
{
    struct pool *pool = job->server->pool;
    event_del(&job->timer);
    for (size_t i = 0; i < job->n; i++) {
        runnel_free(job->requests[i].future);
        pool_give(pool, job->requests[i].finish);
    }
    if (job->handlers->free_state)
        job->handlers->free_state(job->state);
    pthread_mutex_destroy(&job->lock);
    pool_give(pool, job->requests);
    pool_give(pool, job);
}

static enum breaker_outcome find_outcome(const struct job *job)
{
    if (job->failed && (job->error.code == RUNNEL_EEXPIRED || job->error.code == RUNNEL_ETIMEOUT))
        return BREAKER_TIMED_OUT;
    if (job->failed || exchange_is_gone(job->exchange))
        return BREAKER_UNDECIDED;
    for (size_t i = 0; i < job->n; i++)
        if (job->requests[i].finish->event.finish_reason == RUNNEL_FINISH_CANCELLED)
            return BREAKER_UNDECIDED;
    return BREAKER_ANSWERED;
}

static void record_answer(struct job *job, const struct message *finish)
{
    runnel_response response = finish->response;
    if (finish->event.error)
        response.finish_reason = RUNNEL_FINISH_ERROR;
    record_add_response(record_of(job->exchange), &response);
}

static void end_job(struct job *job)
{
    monitor_end(&job->server->monitor, &job->verdict, find_outcome(job));
    if (job->previous)
        job->previous->next = job->next;
    else
        job->server->jobs = job->next;
    if (job->next)
        job->next->previous = job->previous;
    for (size_t i = 0; i < job->n; i++)
        record_answer(job, job->requests[i].finish);
    job->handlers->on_end(job);
    free_job(job);
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
        admit->n_slow++;
    cancel_all(job);
}

void job_set_timeout_error(const struct server *server, runnel_error *error)
{
    error_set(error, RUNNEL_ETIMEOUT, "not finished within %.3g s, the longest that a request may take",
              server->options->request_ms / 1e3);
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

/* What a request's end means for the job; what was cancelled because the job failed ends with its error. */
static void take_end(struct job *job, struct message *message)
{
    const runnel_error *error = message->event.error;
    if (error && error->code == RUNNEL_ESLOW && message->event.counts)
        exchange_set_retry(job->exchange,
                           (unsigned)ceil(fmin(message->response.predicted_wait_ms / 1e3, 86400)));
    if (error) {
        fail_job(job, error);
    } else if (job->failed) {
        message->error = job->error;
        message->event.error = &message->error;
        message->event.finish_reason = message->response.finish_reason = RUNNEL_FINISH_ERROR;
    } else if (message->event.finish_reason != RUNNEL_FINISH_CANCELLED) {
        admit_answered(&job->server->admit);
    }
}

static void take_message(struct job *job, struct message *message)
{
    struct job_request *request = &job->requests[message->index];
    struct record *record = record_of(job->exchange);
    if (!record->first_text_ms && message->event.text_len)
        record->first_text_ms = clock_ms();
    if (message->event.kind == RUNNEL_EVENT_FINISH)
        take_end(job, message);
    if (!exchange_is_gone(job->exchange))
        job->handlers->on_event(job, message->index, &message->event);
    if (message->event.kind != RUNNEL_EVENT_FINISH) {
        pool_give(job->server->pool, message);
        return;
    }
    if (message != request->finish) {
        pool_give(job->server->pool, request->finish);
        request->finish = message;
    }
    admit_give(&job->server->admit, job->key, 1); /* before its answer is out: who has it may ask again */
    job->n_finished++;
}

static void deliver(void *user)
{
    struct job *job = user;
    pthread_mutex_lock(&job->lock);
    struct message *message = job->first;
    bool is_taken = job->n_taken == job->n;
    job->first = NULL;
    job->end = &job->first;
    job->posted = false;
    pthread_mutex_unlock(&job->lock);
    if (is_taken && !job->is_taken && !exchange_is_gone(job->exchange) && job->handlers->on_taken)
        job->handlers->on_taken(job);
    job->is_taken = is_taken;
    while (message) {
        struct message *next = message->next;
        take_message(job, message);
        message = next;
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
        job->requests[i] = (struct job_request){.job = job, .index = i};
    for (size_t i = 0; i < n; i++) {
        job->requests[i].finish = pool_take(server->pool, sizeof(struct message));
        if (!job->requests[i].finish)
            goto no_memory;
    }
    job->end = &job->first;
    job->wake = (struct loop_message){.run = deliver, .user = job};
    return job;

no_memory:
    for (size_t i = 0; job && job->requests && i < n; i++)
        pool_give(server->pool, job->requests[i].finish);
    if (job)
        pool_give(server->pool, job->requests);
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
            admit->n_by_key[key], n, admit->n_max, admit_share(admit));
    default:
        return error_set(error, RUNNEL_EBUSY,
                         "%u requests are running or waiting, expected at most %u with %u more",
                         admit->n_requests, admit->n_max, n);
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
    }
    if (request->sampling.temperature > record->degraded_temperature)
        request->sampling.temperature = record->degraded_temperature;
}

/* Submits copies of the requests whose events come to the job. */
static int submit(struct job *job, const runnel_request *requests, runnel_error *error)
{
    struct pool *pool = job->server->pool;
    runnel_request *copies = pool_take(pool, job->n * sizeof *copies);
    runnel_future **futures = pool_take(pool, job->n * sizeof *futures);
    int failure = RUNNEL_OK;
    if (copies && futures) {
        for (size_t i = 0; i < job->n; i++) {
            copies[i] = requests[i];
            copies[i].on_event = on_event;
            copies[i].on_taken = on_taken;
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
    double whole_ms = server->options->request_ms;
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
    pthread_mutex_init(&job->lock, NULL);
    int failure = pass_breaker(job, error);
    if (!failure) {
        failure = submit(job, requests, error);
        if (failure)
            monitor_end(&server->monitor, &job->verdict, BREAKER_UNDECIDED);
    }
    if (failure) {
        free_job(job);
        return failure;
    }
    job->next = server->jobs;
    if (job->next)
        job->next->previous = job;
    server->jobs = job;
    job_start_timer(server, exchange, &job->timer);
    exchange_set_gone(exchange, on_gone, job);
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

size_t job_n_requests(const struct job *job)
{
    return job->n;
}

const runnel_response *job_response(struct job *job, size_t index, runnel_error *error)
{
    const struct message *finish = job->requests[index].finish;
    if (!finish->event.error)
        return &finish->response;
    *error = *finish->event.error;
    return NULL;
}

void job_cancel(struct job *job, size_t index)
{
    runnel_cancel(job->requests[index].future);
}
