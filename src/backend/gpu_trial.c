/* gpu_trial.c: whether a device's bits are the CPU's, when the back end opens (see gpu_step.h). That it rounds as the CPU does is at first
 * its driver's word: here embeddings, a norm and products, made of the model's own weights, are compared with those of plain C, so that
 * whatever is wrong has a name. One tile of a matrix will do, which takes the CPU some milliseconds. Then whole steps are compared with
 * those of the CPU's back end, which takes it as long as a short prompt does. */
#include "backend/cpu.h"
#include "backend/gpu_step.h"

#include "kernels/act.h"
#include "kernels/pack.h"
#include "kernels/team.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum {
    TRIAL_ROWS = 17, /* as many as matrix units, where there are such, multiply */
    TRIAL_POSITIONS = TRIAL_ROWS + 1 + 2,
};

_Static_assert((int)TRIAL_POSITIONS <= (int)KV_PAGE, "steps that are tried are of one page");

/* Stops at the first failure. */
struct trial {
    struct gpu_back *back;
    const struct kernels *plain;
    uint32_t n_rows, n_hidden;
    float *x;    /* [n_rows, n_hidden]: what the CPU makes of tokens; then normalised */
    void *acts;  /* ... and of that as inputs of products */
    float *out;  /* ... and of that times a matrix */
    void *found; /* the same of the device, which writes there */
    int failure;
    runnel_error *error;
};

static size_t larger(size_t a, size_t b)
{
    return a > b ? a : b;
}

/* Of anything that is compared, at most. */
static size_t bytes_of_trial(const struct trial *trial)
{
    const struct layer_weights *layer = &trial->back->options.weights->layers[0];
    size_t widest = larger(larger(layer->q.n_rows, layer->k.n_rows), layer->v.n_rows),
           n_bytes = trial->n_rows * larger(widest, trial->n_hidden) * sizeof(float);
    for (int kind = 0; kind < ACT_KINDS; kind++)
        n_bytes = larger(n_bytes, act_bytes((enum act_kind)kind, trial->n_rows, trial->n_hidden));
    return n_bytes;
}

static int take_memory(struct trial *trial)
{
    size_t n_bytes = bytes_of_trial(trial);
    trial->x = malloc(n_bytes);
    trial->acts = malloc(n_bytes);
    trial->out = malloc(n_bytes);
    trial->found = gpu_alloc_host(trial->back->gpu, n_bytes);
    if (trial->x && trial->acts && trial->out && trial->found)
        return RUNNEL_OK;
    return error_set(trial->error, RUNNEL_ENOMEM, "no memory to try a GPU");
}

static void give_memory_back(struct trial *trial)
{
    free(trial->x);
    free(trial->acts);
    free(trial->out);
    gpu_free_host(trial->back->gpu, trial->found);
}

/* What is to be compared comes from the device. */
static void fetch(struct trial *trial, struct gpu_place place, size_t n_bytes)
{
    struct gpu *gpu = trial->back->gpu;
    if (!trial->failure)
        trial->failure = gpu_read(gpu, place, trial->found, n_bytes, trial->error);
    if (!trial->failure)
        trial->failure = gpu_finish(gpu, GPU_BACK_REHEARSAL_MS, trial->error);
}

static void refuse(struct trial *trial, const char *operation, const char *type, uint32_t n_rows)
{
    trial->failure = error_set(trial->error, RUNNEL_EUNSUPPORTED,
                               "its answers would not be the CPU's: %s%s%s has other bits, with %u rows at a "
                               "time; it can be used with gpu_approximate",
                               operation, *type ? " with weights of type " : "", type, n_rows);
}

static void compare(struct trial *trial, struct gpu_place place, const void *expected, size_t n_bytes,
                    const char *operation)
{
    fetch(trial, place, n_bytes);
    if (!trial->failure && memcmp(trial->found, expected, n_bytes) != 0)
        refuse(trial, operation, "", trial->n_rows);
}

/* From all of the vocabulary. */
static uint32_t token_of(const struct weights *weights, uint32_t i)
{
    return (uint32_t)((uint64_t)i * weights->config.n_vocab / TRIAL_POSITIONS);
}

/* Rows of tokens, here and there. */
static void try_embedding(struct trial *trial)
{
    struct gpu_back *back = trial->back;
    const struct weights *weights = back->options.weights;
    const struct gpu_embedding embedding = {
        .rows = {.rows = back->rows, .pages = back->pages, .n = trial->n_rows},
        .matrix = back->embedding.tiles,
        .type = back->embedding.type,
        .n_columns = trial->n_hidden,
        .scale = weights->config.embedding_scale,
        .out = back->x};
    memset(back->host_rows, 0, trial->n_rows * sizeof *back->host_rows);
    for (uint32_t i = 0; i < trial->n_rows; i++) {
        uint32_t token = token_of(weights, i);
        float *row = trial->x + (size_t)i * trial->n_hidden;
        back->host_rows[i].token = (int32_t)token;
        pack_row_f32(&weights->embedding, token, row);
        for (uint32_t j = 0; j < trial->n_hidden && embedding.scale != 1; j++)
            row[j] *= embedding.scale;
    }
    trial->failure = gpu_write(back->gpu, back->rows, back->host_rows,
                               trial->n_rows * sizeof *back->host_rows, trial->error);
    if (!trial->failure)
        trial->failure = gpu_embed(back->gpu, &embedding, trial->error);
    compare(trial, back->x, trial->x, (size_t)trial->n_rows * trial->n_hidden * sizeof *trial->x,
            "the embedding");
}

/* The inputs of the first layer's matrices, of a kind. */
static void make_acts(struct trial *trial, enum act_kind kind)
{
    for (uint32_t i = 0; i < trial->n_rows; i++)
        act_quantize(trial->plain, kind, trial->acts, trial->n_hidden, i, 0,
                     trial->x + (size_t)i * trial->n_hidden, trial->n_hidden);
}

static void try_norm(struct trial *trial)
{
    struct gpu_back *back = trial->back;
    const struct weights *weights = back->options.weights;
    const float *weight = weights->layers[0].attn_norm;
    const struct gpu_preparation preparation = {
        .x = back->x,
        .n_rows = trial->n_rows,
        .n_columns = trial->n_hidden,
        .norm_weight = back->layers[0].attn_norm,
        .epsilon = weights->config.norm_epsilon,
        .out = back->acts,
    };
    for (uint32_t i = 0; i < trial->n_rows && weight; i++) {
        float *row = trial->x + (size_t)i * trial->n_hidden;
        trial->plain->rms_norm(row, weight, trial->n_hidden, weights->config.norm_epsilon, row);
    }
    if (!trial->failure)
        trial->failure = gpu_prepare_rows(back->gpu, &preparation, trial->error);
    for (enum act_kind kind = 0; kind < ACT_KINDS && !trial->failure; kind++) {
        if (!back->acts.of[kind].buffer.handle)
            continue;
        make_acts(trial, kind);
        compare(trial, back->acts.of[kind], trial->acts, act_bytes(kind, trial->n_rows, trial->n_hidden),
                "a norm");
    }
}

/* The first n_acts of the rows that were normalised, times a matrix. */
static void try_product(struct trial *trial, const struct packed_matrix *packed, const float *bias,
                        const struct gpu_back_matrix *matrix, struct gpu_place out, uint32_t n_acts)
{
    const struct gpu_product product = {
        .acts = trial->back->acts,
        .n_acts = n_acts,
        .n_columns = matrix->n_columns,
        .matrices = {{.tiles = matrix->tiles,
                      .type = matrix->type,
                      .n_rows = matrix->n_rows,
                      .bias = matrix->bias,
                      .out = out}},
        .n_matrices = 1,
    };
    if (trial->failure)
        return;
    make_acts(trial, act_kind_of(packed->kind));
    struct matmul_args args = act_product(packed, trial->acts, n_acts, trial->out);
    args.bias = bias;
    trial->plain->matmul[packed->kind](&args, 0, 1);
    trial->failure = gpu_multiply(trial->back->gpu, &product, trial->error);
    fetch(trial, out, (size_t)n_acts * matrix->n_rows * sizeof(float));
    size_t n_compared = matrix->n_rows < TILE_ROWS ? matrix->n_rows : TILE_ROWS;
    for (uint32_t i = 0; i < n_acts && !trial->failure; i++)
        if (memcmp((float *)trial->found + (size_t)i * matrix->n_rows,
                   trial->out + (size_t)i * matrix->n_rows, n_compared * sizeof(float)) != 0)
            refuse(trial, "a product", quant_find(matrix->type)->name, n_acts);
}

/* With as many rows as there are functions for: one, several, and many. */
static void try_products(struct trial *trial)
{
    struct gpu_back *back = trial->back;
    const struct layer_weights *weights = &back->options.weights->layers[0];
    const struct gpu_back_layer *layer = &back->layers[0];
    const uint32_t n_acts[] = {1, 2, TRIAL_ROWS};
    for (size_t i = 0; i < sizeof n_acts / sizeof *n_acts; i++)
        if (n_acts[i] <= trial->n_rows) {
            try_product(trial, &weights->q, weights->q_bias, &layer->q, back->q, n_acts[i]);
            try_product(trial, &weights->k, weights->k_bias, &layer->k, back->k, n_acts[i]);
            try_product(trial, &weights->v, weights->v_bias, &layer->v, back->v, n_acts[i]);
        }
}

/* Of NaN the bits are nobody's promise: then requests fail on the CPU as well. */
static bool are_numbers(const float *values, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (!isfinite(values[i]))
            return false;
    return true;
}

int gpu_back_try(struct gpu_back *back, runnel_error *error)
{
    const uint32_t n_rows = back->options.n_rows_max;
    struct trial trial = {.back = back,
                          .n_rows = n_rows < TRIAL_ROWS ? n_rows : TRIAL_ROWS,
                          .n_hidden = back->options.weights->config.n_hidden,
                          .error = error};
    if (gpu_get_info(back->gpu)->approximates || back->options.first_layer > 0)
        return RUNNEL_OK;
    kernels_possible(&trial.plain);
    trial.failure = take_memory(&trial);
    if (!trial.failure)
        try_embedding(&trial);
    if (!trial.failure && are_numbers(trial.x, (size_t)trial.n_rows * trial.n_hidden)) {
        try_norm(&trial);
        try_products(&trial);
    }
    give_memory_back(&trial);
    return trial.failure;
}

/* Steps ----------------------------------------------------------------------------------------------------- */

/* *made: the logits of the last row, or where other layers follow those of the range what it gives to them, in step->hidden_out. */
static int run_step(struct backend *backend, const struct backend_step *step, bool has_head,
                    const float **made, runnel_error *error)
{
    float *logits = NULL;
    int failure = backend->kind->begin(backend, step, error);
    if (!failure && has_head)
        failure = backend->kind->begin_logits(backend, 0, 1, error);
    if (!failure)
        failure = backend->kind->wait(backend, &logits, error);
    *made = has_head ? logits : step->hidden_out;
    return failure;
}

/* Rows behind those of the steps before. hidden: float [2, n_rows, n_hidden]. */
static int try_step(struct gpu_back *back, struct backend *cpu, uint32_t first, uint32_t n_rows,
                    float *hidden, runnel_error *error)
{
    static const uint32_t pages[] = {0};
    const struct weights *weights = back->options.weights;
    const struct model_config *config = &weights->config;
    bool has_head = back->options.end_layer == config->n_layers;
    size_t n_hidden = (size_t)n_rows * config->n_hidden, n = has_head ? config->n_vocab : n_hidden;
    struct backend_row rows[TRIAL_ROWS];
    for (uint32_t i = 0; i < n_rows; i++)
        rows[i] = (struct backend_row){.pages = pages,
                                       .position = first + i,
                                       .token = (int32_t)token_of(weights, first + i),
                                       .wants_logits = i + 1 == n_rows};
    struct backend_step step = {.rows = rows, .n_rows = n_rows, .hidden_out = hidden};
    const float *expected, *found;
    int failure = run_step(cpu, &step, has_head, &expected, error);
    step.hidden_out = hidden + n_hidden;
    if (!failure)
        failure = run_step(&back->backend, &step, has_head, &found, error);
    if (failure)
        return failure;
    if (!are_numbers(expected, n) || !memcmp(found, expected, n * sizeof *found))
        return RUNNEL_OK;
    return error_set(
        error, RUNNEL_EUNSUPPORTED,
        "its answers would not be the CPU's: a step of %u rows has other bits; it can be used with "
        "gpu_approximate",
        n_rows);
}

/* A prompt, and behind it one token and two, as far as steps and sequences may be so long. */
static int try_all_steps(struct gpu_back *back, struct backend *cpu, float *hidden, runnel_error *error)
{
    static const uint32_t n_rows[] = {TRIAL_ROWS, 1, 2};
    uint32_t first = 0, n_positions = back->options.n_positions;
    int failure = RUNNEL_OK;
    for (size_t i = 0; i < sizeof n_rows / sizeof *n_rows && !failure; i++) {
        uint32_t n = n_rows[i] < back->options.n_rows_max ? n_rows[i] : back->options.n_rows_max;
        n = n < n_positions - first ? n : n_positions - first;
        if (n)
            failure = try_step(back, cpu, first, n, hidden, error);
        first += n;
    }
    return failure;
}

static int try_beside(struct gpu_back *back, struct team *team, runnel_error *error)
{
    struct backend_options options = back->options;
    struct backend *cpu = NULL;
    options.team = team;
    options.n_pages = options.n_sequences = options.n_logits_max = 1;
    options.n_rows_max = TRIAL_ROWS;
    options.touches_later = true;
    float *hidden = malloc(2 * sizeof(float) * TRIAL_ROWS * options.weights->config.n_hidden);
    int failure = hidden ? cpu_backend.open(&options, &cpu, error)
                         : error_set(error, RUNNEL_ENOMEM, "no memory to try a GPU");
    if (!failure)
        failure = try_all_steps(back, cpu, hidden, error);
    cpu_backend.close(cpu);
    free(hidden);
    return failure;
}

int gpu_back_try_steps(struct gpu_back *back, runnel_error *error)
{
    struct team *team = back->options.team;
    if (gpu_get_info(back->gpu)->approximates || back->options.first_layer > 0)
        return RUNNEL_OK;
    int failure = team ? RUNNEL_OK : team_create(1, &team, error);
    if (!failure)
        failure = try_beside(back, team, error);
    if (team != back->options.team)
        team_free(team);
    return failure;
}
