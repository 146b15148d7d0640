/* api.c: the functions of runnel.h that talk to an engine from other threads. */
#include "base/versioned.h"
#include "engine/arguments.h"
#include "engine/engine.h"
#include "engine/grammar_store.h"
#include "engine/text_check.h"

#include <stdlib.h>
#include <string.h>

void runnel_request_init_sized(void *request, size_t size)
{
    const runnel_request defaults = {.size = sizeof defaults,
                                     .n_logprobs = -1,
                                     .thinking_budget = -1,
                                     .soft_thinking_budget = -1,
                                     .answer_reserve = -1};
    if (request)
        versioned_init(&defaults, sizeof defaults, request, size);
}

void runnel_sampling_init_sized(const runnel_model *model, void *sampling, size_t size)
{
    const size_t none = 0;
    if (!sampling)
        return;
    if (model)
        versioned_init(&model->sampling, sizeof model->sampling, sampling, size);
    else
        memcpy(sampling, &none, sizeof none); /* a size with which every function refuses it */
}

/* Futures ------------------------------------------------------------------------------------------------- */

/* A request with all its values, whatever header its caller was built against. */
struct full_request {
    runnel_request request; /* its sampling is the one below */
    runnel_sampling sampling;
};

static int read_request(const runnel_request *given, const struct runnel_model *model,
                        struct full_request *full, runnel_error *error)
{
    runnel_request_init(&full->request);
    full->sampling = model->sampling;
    int failure = versioned_read("runnel_request", given, &full->request, sizeof full->request, error);
    if (!failure && full->request.sampling)
        failure = versioned_read("runnel_sampling", full->request.sampling, &full->sampling,
                                 sizeof full->sampling, error);
    full->request.sampling = &full->sampling;
    return failure;
}

/* Request i of an array, whose steps are as long as its first element says. */
static const runnel_request *request_at(const runnel_request *requests, size_t i)
{
    return (const runnel_request *)((const char *)requests + i * requests->size);
}

/* Puts the made requests into the inbox, if the engine takes so many more. The engine holds them too from then on. */
static int enqueue(struct runnel_engine *engine, runnel_future **futures, size_t n, runnel_error *error)
{
    int failure = RUNNEL_OK;
    pthread_mutex_lock(&engine->lock);
    if (engine->stopping) { /* from an event of what the stop ends: nobody would take it any more */
        failure = error_set(error, RUNNEL_ECANCELLED, ENGINE_IS_STOPPING);
    } else if (n > engine->n_requests_max - engine->n_requests) {
        failure = error_set(error, RUNNEL_EBUSY,
                            "%u requests are running or waiting, expected at most %u with %zu more",
                            engine->n_requests, engine->n_requests_max, n);
    } else {
        for (size_t i = 0; i < n; i++) {
            futures[i]->in_engine = true; /* nobody else knows it yet */
            futures[i]->engine = engine;
            futures[i]->next = engine->inbox;
            engine->inbox = futures[i];
        }
        engine->n_requests += (uint32_t)n;
        pthread_cond_signal(&engine->wake);
    }
    pthread_mutex_unlock(&engine->lock);
    return failure;
}

/* Of several requests, says which one the error is about, as runnel_submit promises. */
static void name_request(size_t i, size_t n, runnel_error *error)
{
    if (n < 2 || !error)
        return;
    const runnel_error unnamed = *error;
    error_set(error, unnamed.code, "requests[%zu]: %s", i, unnamed.message);
}

/* The request whose constraint somebody wants, whole and with all fields checked; function: which was called. */
static int read_constrained(const char *function, const runnel_model *model, const runnel_request *given,
                            runnel_grammar **grammar, struct full_request *full, runnel_error *error)
{
    int failure = arguments_check(
        function, ARGUMENTS(POINTER(model, model), POINTER(request, given), POINTER(grammar, grammar)),
        error);
    return failure ? failure : read_request(given, model, full, error);
}

int runnel_grammar_compile(const runnel_model *model, const runnel_request *given, runnel_grammar **grammar,
                           runnel_error *error)
{
    struct full_request full;
    int failure = read_constrained(__func__, model, given, grammar, &full, error);
    return failure ? failure : grammar_store_get(model->grammars, &full.request, grammar, error);
}

int runnel_grammar_find(const runnel_model *model, const runnel_request *given, runnel_grammar **grammar,
                        runnel_error *error)
{
    struct full_request full;
    int failure = read_constrained(__func__, model, given, grammar, &full, error);
    return failure ? failure : grammar_store_find(model->grammars, &full.request, grammar, error);
}

void runnel_grammar_free(runnel_grammar *grammar)
{
    grammar_release(grammar);
}

void runnel_grammars_forget(const runnel_model *model)
{
    if (model)
        grammar_store_forget(model->grammars);
}

int runnel_grammar_check(const runnel_grammar *grammar, const char *text, size_t len,
                         runnel_text_check *check, runnel_error *error)
{
    runnel_text_check found = {.size = sizeof found};
    int failure = arguments_check(
        __func__, ARGUMENTS(POINTER(grammar, grammar), ARRAY(text, text, len, len), POINTER(check, check)),
        error);
    if (!failure)
        failure = versioned_check("runnel_text_check", check, error);
    if (failure)
        return failure;
    const struct vocabulary *vocabulary = grammar_vocabulary(grammar);
    failure = text_check(vocabulary->tokenizer, grammar_automaton(grammar), vocabulary->n_vocab,
                         text ? text : "", len, &found, error);
    versioned_write(&found, sizeof found, check);
    return failure;
}

void runnel_text_check_free(runnel_text_check *check)
{
    if (!check)
        return;
    free(check->mask_us);
    check->mask_us = NULL;
}

int runnel_prompt_text(const runnel_model *model, const runnel_request *given, char **text, size_t *len,
                       runnel_error *error)
{
    struct full_request full;
    int failure = arguments_check(
        __func__,
        ARGUMENTS(POINTER(model, model), POINTER(request, given), POINTER(text, text), POINTER(len, len)),
        error);
    if (!failure)
        failure = read_request(given, model, &full, error);
    return failure ? failure : request_render(model, &full.request, text, len, error);
}

int runnel_prompt_tokens(const runnel_model *model, const runnel_request *given, int32_t **ids, size_t *n_ids,
                         runnel_error *error)
{
    struct full_request full;
    struct token_list tokens = {0};
    int failure = arguments_check(
        __func__,
        ARGUMENTS(POINTER(model, model), POINTER(request, given), POINTER(ids, ids), POINTER(n_ids, n_ids)),
        error);
    if (!failure)
        failure = read_request(given, model, &full, error);
    if (!failure)
        failure = request_encode(model, &full.request, &tokens, error);
    if (failure) {
        free(tokens.ids);
        return failure;
    }
    *ids = tokens.ids;
    *n_ids = tokens.n;
    return RUNNEL_OK;
}

static int check_sizes(const runnel_request *requests, size_t n, runnel_error *error)
{
    int failure = n ? versioned_check("runnel_request", requests, error) : RUNNEL_OK;
    for (size_t i = 1; i < n && !failure; i++)
        if (request_at(requests, i)->size != requests->size)
            failure =
                error_set(error, RUNNEL_EINVAL, "requests[%zu].size: %zu, expected %zu as in the first one",
                          i, request_at(requests, i)->size, requests->size);
    return failure;
}

/* n requests, for an engine that takes so many. */
static int check_batch(const struct runnel_engine *engine, const runnel_request *requests, size_t n,
                       runnel_error *error)
{
    if (n > engine->n_requests_max)
        return error_set(error, RUNNEL_EBUSY, "n: %zu requests, expected at most n_requests, %u", n,
                         engine->n_requests_max);
    return check_sizes(requests, n, error);
}

/* Inside the engine. */
static int submit(struct runnel_engine *engine, const runnel_request *requests, size_t n,
                  runnel_future **futures, runnel_error *error)
{
    int failure = check_batch(engine, requests, n, error);
    if (failure)
        return failure;
    size_t n_made = 0;
    runnel_future **made = calloc(n + 1, sizeof *made);
    if (!made)
        return error_set(error, RUNNEL_ENOMEM, "no memory for %zu requests", n);
    for (; !failure && n_made < n; n_made += !failure) {
        struct full_request full;
        failure = read_request(request_at(requests, n_made), engine->model, &full, error);
        full.request.n_context = engine->limits.n_context;
        if (!failure)
            failure = request_create(engine->model, &engine->limits, engine->memory, &full.request,
                                     &made[n_made], error);
        if (failure)
            name_request(n_made, n, error);
    }
    if (!failure)
        failure = enqueue(engine, made, n, error);
    if (failure)
        for (size_t i = 0; i < n_made; i++)
            request_let_go(made[i]);
    else if (n)
        memcpy(futures, made, n * sizeof *made);
    free(made);
    return failure;
}

int runnel_submit(runnel_engine *engine, const runnel_request *requests, size_t n, runnel_future **futures,
                  runnel_error *error)
{
    int failure = arguments_check(
        __func__,
        ARGUMENTS(POINTER(engine, engine), ARRAY(requests, requests, n, n), ARRAY(futures, futures, n, n)),
        error);
    if (failure)
        return failure;
    engine_enter(engine);
    failure = submit(engine, requests, n, futures, error);
    engine_leave(engine);
    return failure;
}

static void wait_until_done(runnel_future *future)
{
    pthread_mutex_lock(&future->lock);
    while (!future->done)
        pthread_cond_wait(&future->done_changed, &future->lock);
    pthread_mutex_unlock(&future->lock);
}

/* On the engine's own thread nothing is waited for that this thread alone can bring about. */
static int check_can_wait(const char *function, runnel_future *future, runnel_error *error)
{
    pthread_mutex_lock(&future->lock);
    bool would_hang =
        !future->done && engine_is_this_thread(future->engine); /* not done: the engine is there */
    pthread_mutex_unlock(&future->lock);
    return would_hang ? error_set(error, RUNNEL_EINVAL, "%s: " ENGINE_WOULD_HANG, function) : RUNNEL_OK;
}

int runnel_wait(runnel_future *future, runnel_response *response, runnel_error *error)
{
    int failure =
        arguments_check(__func__, ARGUMENTS(POINTER(future, future), POINTER(response, response)), error);
    if (!failure)
        failure = versioned_check("runnel_response", response, error);
    if (!failure)
        failure = check_can_wait(__func__, future, error);
    if (failure)
        return failure;
    wait_until_done(future);
    if (future->finish_reason == RUNNEL_FINISH_ERROR)
        return error_set(error, future->error.code, "%s", future->error.message);
    pthread_mutex_lock(&future->lock); /* two threads may wait: one gets it */
    bool was_taken = !future->answer.text.bytes;
    if (!was_taken) {
        versioned_write(&future->final, sizeof future->final, response);
        future->answer.text = future->answer.reasoning = (struct text){0}; /* the response owns them now */
        future->answer.calls = (struct calls){0};
        future->final.text = future->final.reasoning = NULL;
        future->final.calls = NULL;
    }
    pthread_mutex_unlock(&future->lock);
    return was_taken ? error_set(error, RUNNEL_EINVAL, "the response was taken before") : RUNNEL_OK;
}

bool runnel_poll(const runnel_future *future)
{
    if (!future)
        return true; /* runnel_wait would refuse it at once */
    runnel_future *locked = (runnel_future *)(uintptr_t)future;
    pthread_mutex_lock(&locked->lock);
    bool done = locked->done;
    pthread_mutex_unlock(&locked->lock);
    return done;
}

int runnel_next(runnel_future *future, runnel_event *event, int timeout_ms)
{
    int failure = arguments_check(__func__, ARGUMENTS(POINTER(future, future), POINTER(event, event)), NULL);
    if (!failure && !future->wants_events)
        failure = RUNNEL_EINVAL;
    if (!failure)
        failure = versioned_check("runnel_event", event, NULL);
    if (!failure && timeout_ms)
        failure = check_can_wait(__func__, future, NULL);
    if (failure)
        return failure;
    const runnel_event none = {.size = sizeof none, .text = ""},
                       *next = mailbox_take(&future->mailbox, timeout_ms);
    versioned_write(next ? next : &none, sizeof none, event);
    return RUNNEL_OK;
}

int runnel_descriptor(runnel_future *future)
{
    if (!future || !future->wants_events)
        return RUNNEL_EINVAL;
    int descriptor = mailbox_descriptor(&future->mailbox);
    return descriptor >= 0 ? descriptor : RUNNEL_EIO;
}

/* Sets one of the future's wishes, unless it is done: false. */
static bool wish(runnel_future *future, atomic_bool *wished)
{
    pthread_mutex_lock(&future->lock);
    bool runs = !future->done;
    if (runs) { /* so the engine is still there */
        atomic_store(wished, true);
        engine_poke(future->engine);
    }
    pthread_mutex_unlock(&future->lock);
    return runs;
}

void runnel_cancel(runnel_future *future)
{
    if (future)
        wish(future, &future->cancelled);
}

const char *runnel_thought_end_name(enum runnel_thought_end end)
{
    static const char *const names[] = {
        [RUNNEL_THOUGHT_MODEL] = "model",
        [RUNNEL_THOUGHT_BUDGET] = "budget",
        [RUNNEL_THOUGHT_SOFT_BUDGET] = "soft_budget",
        [RUNNEL_THOUGHT_RESERVE] = "reserve",
        [RUNNEL_THOUGHT_LOOP] = "loop",
        [RUNNEL_THOUGHT_END_TOKEN] = "end_token",
        [RUNNEL_THOUGHT_ASKED] = "asked",
    };
    return (size_t)end < sizeof names / sizeof *names ? names[end] : NULL;
}

bool runnel_end_thought(runnel_future *future)
{
    return future && wish(future, &future->thought_end_wished);
}

void runnel_free(runnel_future *future)
{
    if (!future)
        return;
    runnel_cancel(future);
    request_mute(future);
    request_let_go(future);
}

/* Answers ------------------------------------------------------------------------------------------------- */

/* Waits for all, and fills the responses if none failed. */
static int collect(runnel_future **futures, size_t n, runnel_response *responses, runnel_error *error)
{
    int failure = RUNNEL_OK;
    for (size_t i = 0; i < n; i++) {
        wait_until_done(futures[i]);
        if (failure || futures[i]->finish_reason != RUNNEL_FINISH_ERROR)
            continue;
        failure = error_set(error, futures[i]->error.code, "%s", futures[i]->error.message);
        name_request(i, n, error);
    }
    size_t step = n ? responses->size : 0;
    char *response = (char *)responses;
    for (size_t i = 0; !failure && i < n; i++, response += step) {
        memcpy(response, &step, sizeof step);
        runnel_wait(futures[i], (runnel_response *)response, error);
    }
    return failure;
}

/* For a function of that name, and inside the engine: until it has ended, it is not stopped. */
static int respond(const char *function, struct runnel_engine *engine, const runnel_request *requests,
                   size_t n, runnel_response *responses, runnel_error *error)
{
    int failure = check_batch(engine, requests, n, error);
    if (!failure && n)
        failure = versioned_check("runnel_response", responses, error);
    if (!failure)
        failure = engine_check_thread(engine, function, error);
    if (failure)
        return failure;
    runnel_future **futures = calloc(n + 1, sizeof *futures);
    if (!futures)
        return error_set(error, RUNNEL_ENOMEM, "no memory for %zu requests", n);
    failure = submit(engine, requests, n, futures, error);
    if (!failure) {
        failure = collect(futures, n, responses, error);
        for (size_t i = 0; i < n; i++)
            runnel_free(futures[i]);
    }
    free(futures);
    return failure;
}

int runnel_respond_many(runnel_engine *engine, const runnel_request *requests, size_t n,
                        runnel_response *responses, runnel_error *error)
{
    int failure = arguments_check(__func__,
                                  ARGUMENTS(POINTER(engine, engine), ARRAY(requests, requests, n, n),
                                            ARRAY(responses, responses, n, n)),
                                  error);
    if (failure)
        return failure;
    engine_enter(engine);
    failure = respond(__func__, engine, requests, n, responses, error);
    engine_leave(engine);
    return failure;
}

int runnel_respond(runnel_engine *engine, const runnel_request *request, runnel_response *response,
                   runnel_error *error)
{
    int failure = arguments_check(
        __func__, ARGUMENTS(POINTER(engine, engine), POINTER(request, request), POINTER(response, response)),
        error);
    if (failure)
        return failure;
    engine_enter(engine);
    failure = respond(__func__, engine, request, 1, response, error);
    engine_leave(engine);
    return failure;
}

void runnel_response_free(runnel_response *response)
{
    if (!response)
        return;
    free(response->text);
    free(response->reasoning);
    response->text = response->reasoning = NULL;
    if (response->size < offsetof(runnel_response, calls) + sizeof response->calls)
        return; /* its caller was built before answers had calls */
    struct calls calls = {.calls = response->calls, .n = response->calls ? response->n_calls : 0};
    calls_free(&calls);
    response->calls = NULL;
}

/* Inside the engine. */
static int generate(struct runnel_engine *engine, const runnel_request *request, char **text,
                    runnel_error *error)
{
    runnel_response response = {.size = sizeof response};
    int failure = respond("runnel_generate", engine, request, 1, &response, error);
    if (!failure &&
        response.finish_reason == RUNNEL_FINISH_CANCELLED) { /* half a text would look like a whole one */
        runnel_response_free(&response);
        failure = error_set(error, RUNNEL_ECANCELLED, ENGINE_IS_STOPPING);
    }
    if (failure)
        return failure;
    *text = response.text;
    response.text = NULL;
    runnel_response_free(&response);
    return RUNNEL_OK;
}

int runnel_generate(runnel_engine *engine, const char *prompt, int max_tokens, float temperature, char **text,
                    runnel_error *error)
{
    runnel_request request;
    runnel_sampling sampling;
    int failure = arguments_check(
        __func__, ARGUMENTS(POINTER(engine, engine), POINTER(prompt, prompt), POINTER(text, text)), error);
    if (failure)
        return failure;
    engine_enter(engine);
    runnel_sampling_init(engine->model, &sampling);
    sampling.temperature = temperature;
    runnel_request_init(&request);
    request.prompt = prompt;
    request.max_tokens = max_tokens;
    request.sampling = &sampling;
    failure = generate(engine, &request, text, error);
    engine_leave(engine);
    return failure;
}
