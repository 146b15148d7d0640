/* gpu_trial.c: whether a device's bits are the CPU's, when the back end opens (see gpu_step.h). That it rounds as the CPU does is at first
 * its driver's word: here embeddings, a norm and products, made of the model's own weights, are compared with those of plain C. One tile of a
 * matrix will do, which takes the CPU some milliseconds. */
#include "backend/gpu_step.h"

#include "kernels/act.h"
#include "kernels/pack.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { TRIAL_ROWS = 17 /* as many as matrix units, where there are such, multiply */ };

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

/* Rows of tokens from all of the vocabulary, here and there. */
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
        uint32_t token = (uint32_t)((uint64_t)i * weights->config.n_vocab / trial->n_rows);
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
static bool are_numbers(const struct trial *trial)
{
    for (size_t i = 0; i < (size_t)trial->n_rows * trial->n_hidden; i++)
        if (!isfinite(trial->x[i]))
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
    if (!trial.failure && are_numbers(&trial)) {
        try_norm(&trial);
        try_products(&trial);
    }
    give_memory_back(&trial);
    return trial.failure;
}
