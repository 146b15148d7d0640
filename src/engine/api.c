/* api.c: the functions of runnel.h that talk to an engine from other threads. */
#include "base/versioned.h"
#include "engine/arguments.h"
#include "engine/engine.h"

#include <stdlib.h>
#include <string.h>

void runnel_request_init_sized(void *request, size_t size)
{
    const runnel_request defaults = {.size = sizeof defaults, .n_logprobs = -1, .thinking_budget = -1};
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
        future->final.text = future->final.reasoning = NULL;
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

void runnel_cancel(runnel_future *future)
{
    if (!future)
        return;
    pthread_mutex_lock(&future->lock);
    if (!future->done) { /* so the engine is still there */
        atomic_store(&future->cancelled, true);
        engine_poke(future->engine);
    }
    pthread_mutex_unlock(&future->lock);
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

/* Logits -------------------------------------------------------------------------------------------------- */

static int check_ids(const struct runnel_engine *engine, const int32_t *ids, size_t n_ids,
                     runnel_error *error)
{
    if (n_ids == 0)
        return error_set(error, RUNNEL_EINVAL, "n_ids: 0 tokens, expected at least one");
    if (n_ids > engine->limits.n_context)
        return error_set(error, RUNNEL_ECONTEXT, "n_ids: %zu tokens, n_context has room for %u", n_ids,
                         engine->limits.n_context);
    for (size_t i = 0; i < n_ids; i++)
        if (ids[i] < 0 || (uint32_t)ids[i] >= engine->model->weights->config.n_vocab)
            return error_set(error, RUNNEL_EINVAL, "ids: token %zu is %d, expected 0 to %u", i, ids[i],
                             engine->model->weights->config.n_vocab - 1);
    return RUNNEL_OK;
}

/* A list of tokens to compute from an empty cache, between two steps of the engine thread. */
struct evaluation {
    const int32_t *ids;
    uint32_t n_ids, n_chunk;
    uint32_t from; /* the first token whose logits are wanted */
    bool (*on_logits)(void *user, size_t index, const float *logits);
    void *user;
    runnel_error *error;
    int failure;
};

/* Hands out the logits of the rows that the last step kept, as many at a time as there is room for. */
static int hand_out(struct runnel_engine *engine, uint32_t n_kept, size_t first_index,
                    const struct evaluation *evaluation)
{
    uint32_t n_vocab = engine->model->weights->config.n_vocab;
    for (uint32_t first = 0; first < n_kept; first += engine->n_logits) {
        uint32_t n = n_kept - first < engine->n_logits ? n_kept - first : engine->n_logits;
        float *logits;
        forward_begin_logits(engine->forward, first, n);
        int failure = forward_wait(engine->forward, &logits, evaluation->error);
        if (failure)
            return failure;
        for (uint32_t i = 0; i < n; i++)
            if (!evaluation->on_logits(evaluation->user, first_index + first + i,
                                       logits + (size_t)i * n_vocab))
                return error_set(evaluation->error, RUNNEL_ECANCELLED, "ended by the caller");
    }
    return RUNNEL_OK;
}

/* Computes one chunk, the tokens from `done` on, and hands out its logits. */
static int evaluate_chunk(struct runnel_engine *engine, const struct evaluation *evaluation, int sequence,
                          uint32_t done)
{
    uint32_t n_left = evaluation->n_ids - done,
             n = n_left < evaluation->n_chunk ? n_left : evaluation->n_chunk;
    int failure = kvcache_reserve(engine->cache, sequence, n);
    if (failure)
        return error_set(evaluation->error, failure, "no room in the KV cache for %u tokens",
                         evaluation->n_ids);
    for (uint32_t i = 0; i < n; i++)
        engine->rows[i] = (struct forward_row){.sequence = sequence,
                                               .position = done + i,
                                               .token = evaluation->ids[done + i],
                                               .wants_logits = done + i >= evaluation->from};
    uint32_t n_kept;
    float *none;
    failure = forward_begin(engine->forward, engine->rows, n, &n_kept, evaluation->error);
    if (!failure)
        failure = forward_wait(engine->forward, &none, evaluation->error);
    if (failure)
        return failure;
    kvcache_commit(engine->cache, sequence, evaluation->ids + done, n);
    return hand_out(engine, n_kept, done + n - n_kept, evaluation);
}

static void evaluate(struct runnel_engine *engine, void *arg)
{
    struct evaluation *evaluation = arg;
    int sequence = kvcache_open(engine->cache, 0, 0, 0);
    if (sequence < 0) {
        evaluation->failure = error_set(evaluation->error, RUNNEL_ENOMEM, "no free sequence");
        return;
    }
    for (uint32_t done = 0; done < evaluation->n_ids && !evaluation->failure; done += evaluation->n_chunk)
        evaluation->failure = evaluate_chunk(engine, evaluation, sequence, done);
    kvcache_close(engine->cache, sequence);
}

/* Inside the engine, for a function of that name. */
static int run_evaluation(const char *function, struct runnel_engine *engine, struct evaluation *evaluation,
                          size_t n_ids, size_t n_chunk)
{
    runnel_error *error = evaluation->error;
    int failure = engine_check_thread(engine, function, error);
    if (!failure)
        failure = check_ids(engine, evaluation->ids, n_ids, error);
    if (!failure && n_chunk > engine->n_batch)
        failure =
            error_set(error, RUNNEL_EINVAL, "n_chunk: %zu tokens, expected at most the engine's batch of %u",
                      n_chunk, engine->n_batch);
    if (failure)
        return failure;
    evaluation->n_ids = (uint32_t)n_ids;
    evaluation->n_chunk = n_chunk ? (uint32_t)n_chunk : engine->n_batch;
    failure = engine_call(engine, evaluate, evaluation, error);
    return failure ? failure : evaluation->failure;
}

int runnel_logits_each(runnel_engine *engine, const int32_t *ids, size_t n_ids, size_t n_chunk,
                       bool (*on_logits)(void *user, size_t index, const float *logits), void *user,
                       runnel_error *error)
{
    int failure = arguments_check(__func__,
                                  ARGUMENTS(POINTER(engine, engine), ARRAY(ids, ids, n_ids, n_ids),
                                            POINTER(on_logits, on_logits ? "" : NULL)),
                                  error);
    if (failure)
        return failure;
    struct evaluation evaluation = {.ids = ids, .on_logits = on_logits, .user = user, .error = error};
    engine_enter(engine);
    failure = run_evaluation(__func__, engine, &evaluation, n_ids, n_chunk);
    engine_leave(engine);
    return failure;
}

struct logits_copy {
    float *logits;
    size_t n;
};

static bool copy_logits(void *user, size_t index, const float *logits)
{
    (void)index;
    const struct logits_copy *copy = user;
    memcpy(copy->logits, logits, copy->n * sizeof *logits);
    return true;
}

/* Inside the engine. */
static int get_logits(struct runnel_engine *engine, const char *text, const struct logits_copy *copy,
                      runnel_error *error)
{
    static const char function[] = "runnel_get_logits";
    uint32_t n_vocab = engine->model->weights->config.n_vocab;
    int failure = engine_check_thread(engine, function, error);
    if (failure)
        return failure;
    if (copy->n != n_vocab)
        return error_set(error, RUNNEL_EINVAL, "n: room for %zu logits, expected n_vocab, %u", copy->n,
                         n_vocab);
    int32_t *ids;
    size_t n_ids;
    failure = runnel_tokenize(engine->model, text, strlen(text), true, &ids, &n_ids, error);
    if (failure)
        return failure;
    struct evaluation evaluation = {.ids = ids,
                                    .from = n_ids ? (uint32_t)n_ids - 1 : 0,
                                    .on_logits = copy_logits,
                                    .user = (void *)(uintptr_t)copy,
                                    .error = error};
    failure = run_evaluation(function, engine, &evaluation, n_ids, 0);
    runnel_tokens_free(ids);
    return failure;
}

int runnel_get_logits(runnel_engine *engine, const char *text, float *logits, size_t n, runnel_error *error)
{
    const struct logits_copy copy = {logits, n};
    int failure = arguments_check(
        __func__, ARGUMENTS(POINTER(engine, engine), POINTER(text, text), POINTER(logits, logits)), error);
    if (failure)
        return failure;
    engine_enter(engine);
    failure = get_logits(engine, text, &copy, error);
    engine_leave(engine);
    return failure;
}
