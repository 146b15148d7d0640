/* api.c: the functions of runnel.h that run on an engine. Each takes the engine's lock for as long as it
 * runs. */
#include "engine/engine.h"

#include <stdlib.h>
#include <string.h>

void runnel_request_init(const runnel_model *model, runnel_request *request)
{
    *request = (runnel_request){.size = sizeof *request, .sampling = model->sampling};
}

/* Answers ------------------------------------------------------------------------------------------------- */

static void fill_response(struct answer *answer, runnel_response *response)
{
    *response = (runnel_response){
        .text = answer->text.bytes,
        .reasoning = answer->reasoning.bytes,
        .text_len = answer->text.len,
        .reasoning_len = answer->reasoning.len,
        .finish_reason = answer->finish_reason,
        .n_prompt_tokens = answer->n_prompt,
        .n_cached_tokens = answer->n_cached,
        .n_tokens = answer->n_drawn,
        .n_reasoning_tokens = answer->n_thought,
        .prefill_ms = answer->first_ms - answer->start_ms,
        .decode_ms = answer->last_ms - answer->first_ms,
        .logits_hash = answer->logits_hash,
    };
    answer->text = answer->reasoning = (struct text){0}; /* the response owns them now */
}

/* A request of a caller that was built against another header. */
static int read_request(const runnel_request *given, const struct runnel_model *model,
                        runnel_request *request, runnel_error *error)
{
    if (given->size < sizeof given->size)
        return error_set(error, RUNNEL_EINVAL, "runnel_request.size: %zu, expected sizeof(runnel_request)",
                         given->size);
    runnel_request_init(model, request);
    memcpy(request, given, given->size < sizeof *request ? given->size : sizeof *request);
    return RUNNEL_OK;
}

int runnel_respond_many(runnel_engine *engine, const runnel_request *given, size_t n,
                        runnel_response *responses, runnel_error *error)
{
    if (n > engine->n_parallel)
        return error_set(error, RUNNEL_EINVAL, "%zu requests at once, expected at most the engine's %u", n,
                         engine->n_parallel);
    int failure = RUNNEL_OK;
    size_t n_prepared = 0;
    runnel_request *requests = calloc(n, sizeof *requests);
    struct answer *answers = calloc(n, sizeof *answers);
    if (n && (!requests || !answers))
        failure = error_set(error, RUNNEL_ENOMEM, "no memory for %zu requests", n);
    pthread_mutex_lock(&engine->lock);
    while (!failure && n_prepared < n) {
        size_t i = n_prepared;
        failure = read_request(&given[i], engine->model, &requests[i], error);
        if (!failure) {
            n_prepared++;
            failure = answer_prepare(engine, &requests[i], &answers[i], error);
        }
    }
    if (!failure)
        failure = engine_run(engine, answers, n, error);
    for (size_t i = 0; i < n_prepared; i++) {
        if (!failure)
            fill_response(&answers[i], &responses[i]);
        answer_free(engine, &answers[i]);
    }
    pthread_mutex_unlock(&engine->lock);
    free(answers);
    free(requests);
    return failure;
}

int runnel_respond(runnel_engine *engine, const runnel_request *request, runnel_response *response,
                   runnel_error *error)
{
    return runnel_respond_many(engine, request, 1, response, error);
}

void runnel_response_free(runnel_response *response)
{
    free(response->text);
    free(response->reasoning);
    response->text = response->reasoning = NULL;
}

int runnel_generate(runnel_engine *engine, const char *prompt, int max_tokens, float temperature, char **text,
                    runnel_error *error)
{
    runnel_request request;
    runnel_response response;
    runnel_request_init(engine->model, &request);
    request.prompt = prompt;
    request.max_tokens = max_tokens;
    request.sampling.temperature = temperature;
    int failure = runnel_respond(engine, &request, &response, error);
    if (failure)
        return failure;
    *text = response.text;
    response.text = NULL;
    runnel_response_free(&response);
    return RUNNEL_OK;
}

/* Logits -------------------------------------------------------------------------------------------------- */

/* Hands out the logits of the rows that the last step kept, as many at a time as the engine's buffer holds.
 */
static int hand_out(struct runnel_engine *engine, uint32_t n_kept, size_t first_index,
                    bool (*on_logits)(void *user, size_t index, const float *logits), void *user,
                    runnel_error *error)
{
    uint32_t n_vocab = engine->model->weights->config.n_vocab;
    for (uint32_t first = 0; first < n_kept; first += engine->n_logits) {
        uint32_t n = n_kept - first < engine->n_logits ? n_kept - first : engine->n_logits;
        forward_logits(engine->forward, first, n, engine->logits);
        for (uint32_t i = 0; i < n; i++)
            if (!on_logits(user, first_index + first + i, engine->logits + (size_t)i * n_vocab))
                return error_set(error, RUNNEL_ECANCELLED, "ended by the caller");
    }
    return RUNNEL_OK;
}

/* Computes ids from an empty cache, n_chunk at a time. from: the first token whose logits are wanted. */
static int evaluate(struct runnel_engine *engine, const int32_t *ids, uint32_t n_ids, uint32_t n_chunk,
                    uint32_t from, bool (*on_logits)(void *user, size_t index, const float *logits),
                    void *user, runnel_error *error)
{
    int sequence = kvcache_open(engine->cache, 0, 0, 0);
    if (sequence < 0)
        return error_set(error, RUNNEL_ENOMEM, "no free sequence");
    int failure = RUNNEL_OK;
    for (uint32_t done = 0; done < n_ids && !failure; done += n_chunk) {
        uint32_t n = n_ids - done < n_chunk ? n_ids - done : n_chunk;
        failure = kvcache_reserve(engine->cache, sequence, n);
        if (failure) {
            error_set(error, failure, "no room in the KV cache for %u tokens", n_ids);
            break;
        }
        for (uint32_t i = 0; i < n; i++)
            engine->rows[i] = (struct forward_row){.sequence = sequence,
                                                   .position = done + i,
                                                   .token = ids[done + i],
                                                   .wants_logits = done + i >= from};
        uint32_t n_kept = forward_step(engine->forward, engine->rows, n);
        kvcache_commit(engine->cache, sequence, ids + done, n);
        failure = hand_out(engine, n_kept, done + n - n_kept, on_logits, user, error);
    }
    kvcache_close(engine->cache, sequence);
    return failure;
}

static int check_ids(const struct runnel_engine *engine, const int32_t *ids, size_t n_ids,
                     runnel_error *error)
{
    if (n_ids == 0)
        return error_set(error, RUNNEL_EINVAL, "no tokens, expected at least one");
    if (n_ids > engine->n_context)
        return error_set(error, RUNNEL_ECONTEXT, "%zu tokens, the context has room for %u", n_ids,
                         engine->n_context);
    for (size_t i = 0; i < n_ids; i++)
        if (ids[i] < 0 || (uint32_t)ids[i] >= engine->model->weights->config.n_vocab)
            return error_set(error, RUNNEL_EINVAL, "token %zu is %d, expected 0 to %u", i, ids[i],
                             engine->model->weights->config.n_vocab - 1);
    return RUNNEL_OK;
}

int runnel_logits_each(runnel_engine *engine, const int32_t *ids, size_t n_ids, size_t n_chunk,
                       bool (*on_logits)(void *user, size_t index, const float *logits), void *user,
                       runnel_error *error)
{
    int failure = check_ids(engine, ids, n_ids, error);
    if (failure)
        return failure;
    if (n_chunk == 0)
        n_chunk = engine->n_batch;
    if (n_chunk > engine->n_batch)
        return error_set(error, RUNNEL_EINVAL, "chunk: %zu tokens, expected at most the engine's batch of %u",
                         n_chunk, engine->n_batch);
    pthread_mutex_lock(&engine->lock);
    failure = evaluate(engine, ids, (uint32_t)n_ids, (uint32_t)n_chunk, 0, on_logits, user, error);
    pthread_mutex_unlock(&engine->lock);
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

int runnel_get_logits(runnel_engine *engine, const char *text, float *logits, size_t n, runnel_error *error)
{
    uint32_t n_vocab = engine->model->weights->config.n_vocab;
    if (n != n_vocab)
        return error_set(error, RUNNEL_EINVAL, "room for %zu logits, expected the model's %u", n, n_vocab);
    int32_t *ids;
    size_t n_ids;
    int failure = runnel_tokenize(engine->model, text, strlen(text), true, &ids, &n_ids, error);
    if (failure)
        return failure;
    failure = check_ids(engine, ids, n_ids, error);
    if (!failure) {
        struct logits_copy copy = {logits, n};
        pthread_mutex_lock(&engine->lock);
        failure = evaluate(engine, ids, (uint32_t)n_ids, engine->n_batch, (uint32_t)n_ids - 1, copy_logits,
                           &copy, error);
        pthread_mutex_unlock(&engine->lock);
    }
    runnel_tokens_free(ids);
    return failure;
}
