/* evaluation.c: the functions of runnel.h that hand out logits, and inputs of products: lists of tokens computed between two
 * steps. */
#include "engine/arguments.h"
#include "engine/engine.h"
#include "model/tensors.h"

#include <string.h>

#define ENDED_BY_CALLER "ended by the caller"

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

/* Inputs of products -------------------------------------------------------------------------------------- */

/* Somebody who is told the inputs of products, on the engine's thread. */
struct inputs_listener {
    bool (*on_inputs)(void *user, const runnel_inputs *inputs);
    void *user;
    const struct weights *weights;
    const struct packed_matrix *first_matrix; /* of those whose names are in names now */
    char names[BACKEND_INPUTS_MATRICES][TENSORS_NAME_BYTES];
    const char *matrices[BACKEND_INPUTS_MATRICES]; /* pointers to names, as struct runnel_inputs wants them */
    uint32_t n_done;                               /* tokens of the chunks before */
    bool ended;                                    /* by on_inputs */
};

static void name_matrices(struct inputs_listener *listener, const struct backend_inputs *inputs)
{
    if (listener->first_matrix == inputs->matrices[0])
        return;
    listener->first_matrix = inputs->matrices[0];
    for (uint32_t i = 0; i < inputs->n_matrices; i++) {
        tensors_name(listener->weights, inputs->matrices[i], listener->names[i], TENSORS_NAME_BYTES);
        listener->matrices[i] = listener->names[i];
    }
}

static void tell_inputs(void *user, const struct backend_inputs *inputs)
{
    struct inputs_listener *listener = user;
    if (listener->ended)
        return;
    name_matrices(listener, inputs);
    const runnel_inputs told = {
        .size = sizeof told,
        .index = listener->n_done + inputs->row,
        .matrices = listener->matrices,
        .n_matrices = inputs->n_matrices,
        .values = inputs->values,
        .n_values = inputs->matrices[0]->n_columns,
    };
    listener->ended = !listener->on_inputs(listener->user, &told);
}

/* Lists of tokens ----------------------------------------------------------------------------------------- */

/* A list of tokens to compute from an empty cache, between two steps of the engine thread. */
struct evaluation {
    const int32_t *ids;
    uint32_t n_ids, n_chunk;
    uint32_t from; /* the first token whose logits are wanted */
    /* NULL: the rows are kept, and their logits not computed. */
    bool (*on_logits)(void *user, size_t index, const float *logits);
    void *user;
    struct inputs_listener *listener; /* NULL: nobody is told inputs */
    runnel_error *error;
    int failure;
};

/* runnel_engine_stop does not wait for the rest. */
static int check_goes_on(struct runnel_engine *engine, const struct evaluation *evaluation)
{
    pthread_mutex_lock(&engine->lock);
    bool stopping = engine->stopping;
    pthread_mutex_unlock(&engine->lock);
    return stopping ? error_set(evaluation->error, RUNNEL_ECANCELLED, ENGINE_IS_STOPPING) : RUNNEL_OK;
}

/* Hands out the logits of the rows that the last step kept, as many at a time as there is room for. */
static int hand_out(struct runnel_engine *engine, uint32_t n_kept, size_t first_index,
                    const struct evaluation *evaluation)
{
    uint32_t n_vocab = engine->model->weights->config.n_vocab;
    for (uint32_t first = 0; first < n_kept; first += engine->n_logits) {
        uint32_t n = n_kept - first < engine->n_logits ? n_kept - first : engine->n_logits;
        float *logits;
        int failure = check_goes_on(engine, evaluation);
        if (failure)
            return failure;
        forward_begin_logits(engine->forward, first, n);
        failure = forward_wait(engine->forward, &logits, evaluation->error);
        if (failure)
            return failure;
        for (uint32_t i = 0; i < n; i++)
            if (!evaluation->on_logits(evaluation->user, first_index + first + i,
                                       logits + (size_t)i * n_vocab))
                return error_set(evaluation->error, RUNNEL_ECANCELLED, ENDED_BY_CALLER);
    }
    return RUNNEL_OK;
}

/* Computes one chunk, the tokens from `done` on, and hands out its logits. */
static int evaluate_chunk(struct runnel_engine *engine, const struct evaluation *evaluation, int sequence,
                          uint32_t done)
{
    uint32_t n_left = evaluation->n_ids - done,
             n = n_left < evaluation->n_chunk ? n_left : evaluation->n_chunk;
    int failure = check_goes_on(engine, evaluation);
    if (failure)
        return failure;
    failure = kvcache_reserve(engine->cache, sequence, n);
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
    if (evaluation->listener)
        evaluation->listener->n_done = done;
    failure = forward_begin(engine->forward, engine->rows, n, &n_kept, evaluation->error);
    if (!failure)
        failure = forward_wait(engine->forward, &none, evaluation->error);
    if (failure)
        return failure;
    kvcache_commit(engine->cache, sequence, evaluation->ids + done, n);
    if (evaluation->listener && evaluation->listener->ended)
        return error_set(evaluation->error, RUNNEL_ECANCELLED, ENDED_BY_CALLER);
    if (!evaluation->on_logits)
        return RUNNEL_OK;
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
    if (evaluation->listener)
        forward_tell_inputs(engine->forward, tell_inputs, evaluation->listener);
    for (uint32_t done = 0; done < evaluation->n_ids && !evaluation->failure; done += evaluation->n_chunk)
        evaluation->failure = evaluate_chunk(engine, evaluation, sequence, done);
    forward_tell_inputs(engine->forward, NULL, NULL);
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

int runnel_inputs_each(runnel_engine *engine, const int32_t *ids, size_t n_ids, size_t n_chunk,
                       bool (*on_inputs)(void *user, const runnel_inputs *inputs), void *user,
                       runnel_error *error)
{
    int failure = arguments_check(__func__,
                                  ARGUMENTS(POINTER(engine, engine), ARRAY(ids, ids, n_ids, n_ids),
                                            POINTER(on_inputs, on_inputs ? "" : NULL)),
                                  error);
    if (failure)
        return failure;
    engine_enter(engine);
    struct inputs_listener listener = {
        .on_inputs = on_inputs, .user = user, .weights = engine->model->weights};
    struct evaluation evaluation = {.ids = ids, .listener = &listener, .error = error};
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
