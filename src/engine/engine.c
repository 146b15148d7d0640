/* engine.c: starting an engine, and the loop that turns requests into steps. The lock's holder is the engine
 * thread. */
#include "engine/engine.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum {
    CONTEXT_DEFAULT = 8192,
    BATCH_DEFAULT = 512,
    BATCH_MAX = 8192,
    PARALLEL_MAX = 1024,
    LOGITS_MIN = 8, /* rows of logits: one pass of the head's weights serves as many */
};

void runnel_engine_options_init(runnel_engine_options *options)
{
    *options = (runnel_engine_options){.size = sizeof *options};
}

static int read_options(const struct runnel_model *model, const runnel_engine_options *given,
                        runnel_engine_options *options, runnel_error *error)
{
    runnel_engine_options_init(options);
    if (given && given->size < sizeof given->size)
        return error_set(error, RUNNEL_EINVAL,
                         "runnel_engine_options.size: %zu, expected sizeof(runnel_engine_options)",
                         given->size);
    if (given)
        memcpy(options, given, given->size < sizeof *options ? given->size : sizeof *options);
    uint32_t n_train = model->weights->config.n_context_train;
    if (!options->n_context)
        options->n_context = n_train < CONTEXT_DEFAULT ? n_train : CONTEXT_DEFAULT;
    if (!options->n_batch)
        options->n_batch = BATCH_DEFAULT;
    if (!options->n_parallel)
        options->n_parallel = 1;
    if (options->n_context < 2 || options->n_context > n_train)
        return error_set(error, RUNNEL_EINVAL, "context: %u tokens, expected 2 to the model's %u",
                         options->n_context, n_train);
    if (options->n_batch > BATCH_MAX)
        return error_set(error, RUNNEL_EINVAL, "batch: %u rows, expected 1 to %u", options->n_batch,
                         (unsigned)BATCH_MAX);
    if (options->n_parallel > PARALLEL_MAX)
        return error_set(error, RUNNEL_EINVAL, "parallel: %u requests, expected 1 to %u", options->n_parallel,
                         (unsigned)PARALLEL_MAX);
    if (options->n_batch < options->n_parallel)
        options->n_batch = options->n_parallel;
    return RUNNEL_OK;
}

int runnel_engine_start(const runnel_model *model, const runnel_engine_options *given, runnel_engine **out,
                        runnel_error *error)
{
    runnel_engine_options options;
    int failure = read_options(model, given, &options, error);
    if (failure)
        return failure;
    struct runnel_engine *engine = calloc(1, sizeof *engine);
    if (!engine)
        return error_set(error, RUNNEL_ENOMEM, "no memory for an engine");
    const struct model_config *config = &model->weights->config;
    engine->model = model;
    engine->n_context = options.n_context;
    engine->n_batch = options.n_batch;
    engine->n_parallel = options.n_parallel;
    pthread_mutex_init(&engine->lock, NULL);

    uint32_t pages_a_sequence = (options.n_context + KV_PAGE - 1) / KV_PAGE;
    uint32_t n_pages = options.n_kv_tokens ? (options.n_kv_tokens + KV_PAGE - 1) / KV_PAGE
                                           : pages_a_sequence * options.n_parallel;
    const struct kvcache_options cache_options = {
        .n_layers = config->n_layers,
        .n_kv_heads = config->n_kv_heads,
        .shapes = model->weights->kv_shapes,
        .n_pages = n_pages > pages_a_sequence ? n_pages : pages_a_sequence,
        .n_sequences = options.n_parallel,
        .n_positions = options.n_context,
    };
    engine->rows = malloc(engine->n_batch * sizeof *engine->rows);
    engine->n_logits = engine->n_parallel > LOGITS_MIN ? engine->n_parallel : LOGITS_MIN;
    engine->logits = malloc((size_t)engine->n_logits * config->n_vocab * sizeof *engine->logits);
    if (!engine->rows || !engine->logits)
        failure =
            error_set(error, RUNNEL_ENOMEM, "no memory for the logits of %u requests", engine->n_parallel);
    if (!failure)
        failure = team_create(model->n_threads, &engine->team, error);
    if (!failure)
        failure = kvcache_create(&cache_options, &engine->cache, error);
    if (!failure)
        failure = forward_create(model->weights, model->kernels, engine->team, engine->cache, engine->n_batch,
                                 &engine->forward, error);
    if (!failure)
        failure = sampler_create(config->n_vocab, &engine->sampler, error);
    if (failure) {
        runnel_engine_stop(engine);
        return failure;
    }
    *out = engine;
    return RUNNEL_OK;
}

void runnel_engine_stop(runnel_engine *engine)
{
    if (!engine)
        return;
    sampler_free(engine->sampler);
    forward_free(engine->forward);
    kvcache_free(engine->cache);
    team_free(engine->team);
    free(engine->rows);
    free(engine->logits);
    pthread_mutex_destroy(&engine->lock);
    free(engine);
}

/* The loop ------------------------------------------------------------------------------------------------ */

static int open_sequences(struct runnel_engine *engine, struct answer *answers, size_t n, runnel_error *error)
{
    for (size_t i = 0; i < n; i++) {
        answers[i].sequence = kvcache_open(engine->cache, 0, 0, 0);
        if (answers[i].sequence < 0)
            return error_set(error, RUNNEL_ENOMEM, "no free sequence for request %zu of %zu", i + 1, n);
        answers[i].n_cached =
            kvcache_match(engine->cache, answers[i].sequence, answers[i].tokens.ids, answers[i].n_prompt);
    }
    return RUNNEL_OK;
}

/* Adds the rows of one answer to the step: the next token, or as much of its prompt as fits. */
static int add_rows(struct runnel_engine *engine, const struct answer *answer, uint32_t *n_rows,
                    uint32_t room, runnel_error *error)
{
    uint32_t length = kvcache_length(engine->cache, answer->sequence);
    uint32_t n_known = (uint32_t)answer->tokens.n, n = n_known - length < room ? n_known - length : room;
    int failure = kvcache_reserve(engine->cache, answer->sequence, n);
    if (failure)
        return error_set(error, failure, "no room in the KV cache for %u more tokens", n);
    for (uint32_t i = length; i < length + n; i++)
        engine->rows[(*n_rows)++] = (struct forward_row){
            .sequence = answer->sequence,
            .position = i,
            .token = answer->tokens.ids[i],
            .wants_logits = i + 1 == n_known,
        };
    return RUNNEL_OK;
}

/* Builds a step: one row of each answer that is decoding, and prompts in the order of the requests in what is
 * left. Each answer that still has to get a row keeps one. */
static int build_step(struct runnel_engine *engine, const struct answer *answers, size_t n, uint32_t *n_rows,
                      runnel_error *error)
{
    uint32_t n_waiting = 0;
    for (size_t i = 0; i < n; i++)
        n_waiting += !answers[i].finished;
    *n_rows = 0;
    for (size_t i = 0; i < n; i++) {
        if (answers[i].finished)
            continue;
        n_waiting--;
        int failure = add_rows(engine, &answers[i], n_rows, engine->n_batch - *n_rows - n_waiting, error);
        if (failure)
            return failure;
    }
    return RUNNEL_OK;
}

static void commit_step(struct runnel_engine *engine, uint32_t n_rows, struct answer *answers, size_t n)
{
    uint32_t row = 0;
    for (size_t i = 0; i < n && row < n_rows; i++) {
        uint32_t begin = row;
        while (row < n_rows && engine->rows[row].sequence == answers[i].sequence)
            row++;
        if (row > begin)
            kvcache_commit(engine->cache, answers[i].sequence,
                           answers[i].tokens.ids + engine->rows[begin].position, row - begin);
    }
}

static uint64_t hash_logits(uint64_t hash, const float *logits, uint32_t n)
{
    const uint8_t *bytes = (const uint8_t *)logits;
    for (size_t i = 0; i < n * sizeof *logits; i++)
        hash = (hash ^ bytes[i]) * 0x100000001b3u;
    return hash;
}

/* Draws the next token of an answer whose logits are there. */
static int draw(struct runnel_engine *engine, struct answer *answer, float *logits, runnel_error *error)
{
    uint32_t n_vocab = engine->model->weights->config.n_vocab;
    size_t n_tokens = tokenizer_n_tokens(engine->model->tokenizer);
    if (answer->request->wants_logits_hash)
        answer->logits_hash = hash_logits(answer->logits_hash, logits, n_vocab);
    for (size_t i = n_tokens; i < n_vocab; i++) /* rows of the head without a token */
        logits[i] = -INFINITY;
    const struct sampler_context context = {
        .tokens = answer->tokens.ids,
        .n_tokens = answer->tokens.n,
        .position = answer->tokens.n,
    };
    int32_t token;
    int failure = sampler_draw(engine->sampler, &answer->sampling, &context, logits, &token, NULL, error);
    return failure ? failure : answer_take(engine, answer, token, error);
}

/* Every sequence with rows that wanted logits draws; the logits stand in the order of the rows. */
static int draw_all(struct runnel_engine *engine, struct answer *answers, size_t n, uint32_t n_wanted,
                    runnel_error *error)
{
    uint32_t n_vocab = engine->model->weights->config.n_vocab, next = 0;
    forward_logits(engine->forward, 0, n_wanted, engine->logits);
    for (size_t i = 0; i < n; i++) {
        if (answers[i].finished || kvcache_length(engine->cache, answers[i].sequence) < answers[i].tokens.n)
            continue;
        int failure = draw(engine, &answers[i], engine->logits + (size_t)next++ * n_vocab, error);
        if (failure)
            return failure;
    }
    return RUNNEL_OK;
}

int engine_run(struct runnel_engine *engine, struct answer *answers, size_t n, runnel_error *error)
{
    int failure = open_sequences(engine, answers, n, error);
    while (!failure) {
        uint32_t n_rows;
        failure = build_step(engine, answers, n, &n_rows, error);
        if (failure || !n_rows)
            break;
        uint32_t n_wanted = forward_step(engine->forward, engine->rows, n_rows);
        commit_step(engine, n_rows, answers, n);
        if (n_wanted)
            failure = draw_all(engine, answers, n, n_wanted, error);
    }
    return failure;
}
