/* test_stopping.c: runnel_engine_stop while other threads are in calls with the engine. On a tiny model. The address and
 * thread sanitizers see what is read after the engine was freed; without them results and counts tell it. */
#include "engine/draft.h"
#include "engine/engine.h"
#include "helpers/tiny_engine.h"

#include <limits.h>
#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

enum {
    N_REQUESTS = 300,
    N_BYTES = 3000, /* of each one's prompt: all of them take longer to encode than an idle engine to stop */
    N_TEXT_BYTES = 500000, /* far more than the context has room for */
    N_TRIES = 50,          /* on a busy machine a call may have ended before the stop begins */
    HANGS_S = 300,
};

static runnel_model *model;

static int open_model(void **state)
{
    struct tiny_model_options options = tiny_engine_model();
    *state = model = tiny_engine_open(&options);
    alarm(HANGS_S);
    return 0;
}

static runnel_engine *start_engine(void)
{
    return tiny_engine_start(model, (runnel_engine_options){.n_context = 4096, .n_requests = 2 * N_REQUESTS});
}

static void pause_ms(long ms)
{
    nanosleep(&(struct timespec){.tv_nsec = ms * 1000000}, NULL);
}

/* A thread that is in a call with the engine for a while. */
struct caller {
    void *(*call)(void *user);
    atomic_bool has_ended;
    runnel_engine *engine;
    char *text; /* [N_TEXT_BYTES + 1] */
    int result;
    runnel_error error;
    runnel_future *futures[N_REQUESTS];
    runnel_response responses[N_REQUESTS];
};

static void make_requests(const struct caller *caller, runnel_request requests[N_REQUESTS])
{
    for (size_t i = 0; i < N_REQUESTS; i++) {
        runnel_request_init(&requests[i]);
        requests[i].prompt = caller->text;
        requests[i].prompt_len = N_BYTES;
        requests[i].raw = true;
        requests[i].max_tokens = 1;
    }
}

static void *submit(void *user)
{
    struct caller *caller = user;
    runnel_request requests[N_REQUESTS];
    make_requests(caller, requests);
    caller->result = runnel_submit(caller->engine, requests, N_REQUESTS, caller->futures, &caller->error);
    for (size_t i = 0; i < N_REQUESTS && !caller->result; i++)
        runnel_free(caller->futures[i]);
    return NULL;
}

static void *respond_many(void *user)
{
    struct caller *caller = user;
    runnel_request requests[N_REQUESTS];
    make_requests(caller, requests);
    caller->responses[0].size = sizeof caller->responses[0];
    caller->result =
        runnel_respond_many(caller->engine, requests, N_REQUESTS, caller->responses, &caller->error);
    for (size_t i = 0; i < N_REQUESTS && !caller->result; i++)
        runnel_response_free(&caller->responses[i]);
    return NULL;
}

/* Refused for its length, once that is known. */
static void *get_logits(void *user)
{
    struct caller *caller = user;
    runnel_model_info info = {.size = sizeof info};
    runnel_model_get_info(model, &info);
    float *logits = calloc(info.n_vocab, sizeof *logits);
    caller->result = runnel_get_logits(caller->engine, caller->text, logits, info.n_vocab, &caller->error);
    free(logits);
    return NULL;
}

static void *run_call(void *user)
{
    struct caller *caller = user;
    caller->call(caller);
    atomic_store(&caller->has_ended, true);
    return NULL;
}

/* Stops an engine that a thread is in a call with, or was. */
static void stop_during(struct caller *caller)
{
    pthread_t thread;
    caller->engine = start_engine();
    atomic_store(&caller->has_ended, false);
    assert_int_equal(pthread_create(&thread, NULL, run_call, caller), 0);
    while (!atomic_load(&caller->engine->n_inside) && !atomic_load(&caller->has_ended))
        sched_yield();
    unsigned n_held = runnel_engine_stop(caller->engine);
    pthread_join(thread, NULL);
    if (caller->result) /* what the call had made when it was refused is gone before the engine is */
        assert_int_equal(n_held, 0);
}

/* It ends what it has begun with an engine that is still there, and is refused then. */
static void a_call_that_has_begun_is_waited_for(void **state)
{
    (void)state;
    const struct {
        void *(*call)(void *user);
        int expected;
        const char *message;
    } calls[] = {{submit, RUNNEL_ECANCELLED, "the engine is being stopped"},
                 {respond_many, RUNNEL_ECANCELLED, "the engine is being stopped"},
                 {get_logits, RUNNEL_ECONTEXT, "n_context has room for 4096"}};
    for (size_t i = 0; i < sizeof calls / sizeof *calls; i++) {
        struct caller *caller = calloc(1, sizeof *caller);
        caller->call = calls[i].call;
        caller->text = malloc(N_TEXT_BYTES + 1);
        memset(caller->text, 'a', N_TEXT_BYTES);
        for (size_t j = 7; j < N_TEXT_BYTES; j += 7)
            caller->text[j] = ' ';
        caller->text[N_TEXT_BYTES] = 0;
        int n_tries = 0;
        do {
            assert_true(n_tries++ < N_TRIES);
            stop_during(caller);
        } while (!caller->result);
        assert_int_equal(caller->result, calls[i].expected);
        assert_non_null(strstr(caller->error.message, calls[i].message));
        free(caller->text);
        free(caller);
    }
}

/* An engine's thread that is held up in a callback, and a thread that stops the engine meanwhile. */
struct hold_up {
    runnel_engine *engine;
    sem_t is_held, goes_on;
    unsigned n_held;
};

static bool wait_to_go_on(void *user, const runnel_event *event)
{
    struct hold_up *hold_up = user;
    if (event->kind != RUNNEL_EVENT_FINISH)
        return true;
    sem_post(&hold_up->is_held);
    sem_wait(&hold_up->goes_on);
    return true;
}

/* Starts an engine and a request of one token, whose end holds it up. */
static void start_hold_up(struct hold_up *hold_up, runnel_request *request, runnel_future **future)
{
    static const int32_t ids[] = {5, 6, 7};
    hold_up->engine = start_engine();
    sem_init(&hold_up->is_held, 0, 0);
    sem_init(&hold_up->goes_on, 0, 0);
    runnel_request_init(request);
    request->prompt_ids = ids;
    request->n_prompt_ids = 3;
    request->max_tokens = 1;
    request->on_event = wait_to_go_on;
    request->user = hold_up;
    assert_int_equal(runnel_submit(hold_up->engine, request, 1, future, NULL), RUNNEL_OK);
}

static void end_hold_up(struct hold_up *hold_up, runnel_future *future)
{
    runnel_free(future);
    sem_destroy(&hold_up->is_held);
    sem_destroy(&hold_up->goes_on);
}

static void *stop(void *user)
{
    struct hold_up *hold_up = user;
    hold_up->n_held = runnel_engine_stop(hold_up->engine);
    return NULL;
}

static void wait_until_stopping(runnel_engine *engine)
{
    bool stopping = false;
    while (!stopping) {
        pthread_mutex_lock(&engine->lock);
        stopping = engine->stopping;
        pthread_mutex_unlock(&engine->lock);
        pause_ms(1);
    }
}

static void calls_that_begin_during_a_stop(void **state)
{
    (void)state;
    struct hold_up hold_up;
    runnel_request request;
    runnel_future *future, *none = NULL;
    runnel_response response = {.size = sizeof response};
    runnel_stats_values stats = {.size = sizeof stats};
    runnel_slot slot = {.size = sizeof slot};
    runnel_error error;
    pthread_t thread;
    start_hold_up(&hold_up, &request, &future);
    assert_int_equal(pthread_create(&thread, NULL, stop, &hold_up), 0);
    wait_until_stopping(hold_up.engine);

    assert_int_equal(runnel_engine_stop(hold_up.engine), UINT_MAX); /* somebody else does it */
    request.on_event = NULL;
    assert_int_equal(runnel_submit(hold_up.engine, &request, 1, &none, &error), RUNNEL_ECANCELLED);
    assert_string_equal(error.message, "the engine is being stopped");
    assert_int_equal(runnel_respond(hold_up.engine, &request, &response, &error), RUNNEL_ECANCELLED);
    runnel_stats(hold_up.engine, &stats);
    runnel_slots(hold_up.engine, &slot, 1);
    runnel_cancel(future);

    sem_post(&hold_up.goes_on);
    pthread_join(thread, NULL);
    assert_int_equal(hold_up.n_held, 1);
    end_hold_up(&hold_up, future);
}

/* Long lists of tokens, whose logits somebody waits for in another thread. */
enum {
    N_IDS = 2000,
    N_LOGITS = 1 + DRAFT_MAX, /* rows of logits that are computed at once: of the answer and of its guesses */
};

struct measuring {
    runnel_engine *engine;
    size_t n_chunk;
    sem_t has_begun;
    size_t n_told;
    int result;
    runnel_error error;
};

/* The first one waits until the engine is being stopped. */
static bool wait_for_the_stop(void *user, size_t index, const float *logits)
{
    (void)logits;
    struct measuring *measuring = user;
    measuring->n_told++;
    if (index == 0) {
        sem_post(&measuring->has_begun);
        wait_until_stopping(measuring->engine);
    }
    return true;
}

static void *measure(void *user)
{
    struct measuring *measuring = user;
    int32_t ids[N_IDS];
    for (int i = 0; i < N_IDS; i++)
        ids[i] = i % 200;
    measuring->result = runnel_logits_each(measuring->engine, ids, N_IDS, measuring->n_chunk,
                                           wait_for_the_stop, measuring, &measuring->error);
    return NULL;
}

static void a_stop_ends_logits_between_chunks(void **state)
{
    (void)state;
    for (size_t n_chunk = 0; n_chunk < 3; n_chunk++) { /* 0: whole batches, whose logits are many */
        struct measuring measuring = {.engine = start_engine(), .n_chunk = n_chunk};
        pthread_t thread;
        sem_init(&measuring.has_begun, 0, 0);
        assert_int_equal(pthread_create(&thread, NULL, measure, &measuring), 0);
        sem_wait(&measuring.has_begun);
        assert_int_equal(runnel_engine_stop(measuring.engine), 0);
        pthread_join(thread, NULL);
        assert_int_equal(measuring.result, RUNNEL_ECANCELLED);
        assert_string_equal(measuring.error.message, "the engine is being stopped");
        assert_in_range(measuring.n_told, 1, n_chunk ? n_chunk : N_LOGITS);
        sem_destroy(&measuring.has_begun);
    }
}

static void *get_some_logits(void *user)
{
    struct measuring *measuring = user;
    runnel_model_info info = {.size = sizeof info};
    runnel_model_get_info(model, &info);
    float *logits = calloc(info.n_vocab, sizeof *logits);
    measuring->result =
        runnel_get_logits(measuring->engine, "once upon", logits, info.n_vocab, &measuring->error);
    free(logits);
    return NULL;
}

static void wait_until_called(runnel_engine *engine)
{
    bool called = false;
    while (!called) {
        pthread_mutex_lock(&engine->lock);
        called = engine->calls != NULL;
        pthread_mutex_unlock(&engine->lock);
        pause_ms(1);
    }
}

/* They have not been begun when the stop comes, and are not any more. */
static void a_stop_ends_logits_that_wait(void **state)
{
    (void)state;
    struct hold_up hold_up;
    runnel_request request;
    runnel_future *future;
    pthread_t stopper, asker;
    start_hold_up(&hold_up, &request, &future);
    struct measuring measuring = {.engine = hold_up.engine};
    sem_wait(&hold_up.is_held); /* a call before that would be answered at once */
    assert_int_equal(pthread_create(&asker, NULL, get_some_logits, &measuring), 0);
    wait_until_called(hold_up.engine);
    assert_int_equal(pthread_create(&stopper, NULL, stop, &hold_up), 0);
    wait_until_stopping(hold_up.engine);
    sem_post(&hold_up.goes_on);
    pthread_join(asker, NULL);
    pthread_join(stopper, NULL);
    assert_int_equal(measuring.result, RUNNEL_ECANCELLED);
    end_hold_up(&hold_up, future);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_call_that_has_begun_is_waited_for),
        cmocka_unit_test(calls_that_begin_during_a_stop),
        cmocka_unit_test(a_stop_ends_logits_between_chunks),
        cmocka_unit_test(a_stop_ends_logits_that_wait),
    };
    return cmocka_run_group_tests(tests, open_model, tiny_engine_close);
}
