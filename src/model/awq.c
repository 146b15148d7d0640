/* awq.c: see awq.h.
 *
 * A place is where scales can stand: some matrices of a layer that share their inputs, and the tensor that makes these. Places do
 * not depend on one another: the threads take them one by one. */
#include "model/awq.h"

#include "base/thread.h"
#include "model/weights.h"

#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    N_ALPHAS = 10,     /* 0.1 .. 1 */
    SAMPLE_ROWS = 128, /* of a matrix: the scales are those of columns, so rows of everywhere tell the same */
    MATRICES_MAX = 3,
};
static const float SCALE_MAX = 64; /* and at least its inverse: what is divided by it must not vanish */
static const double WORTH = 0.98;  /* an error that is hardly smaller is no reason to change anything */
#define NO_TENSOR SIZE_MAX

static const struct place_row {
    const char *matrices[MATRICES_MAX]; /* that share their inputs */
    const char *before, *bias;          /* what is divided: a norm's weights, or rows and their bias */
    bool is_of_heads;                   /* the inputs are heads of queries, `before` heads of values */
} place_rows[] = {
    {{"attn_q.weight", "attn_k.weight", "attn_v.weight"}, "attn_norm.weight", NULL, false},
    {{"attn_output.weight"}, "attn_v.weight", "attn_v.bias", true},
    {{"ffn_gate.weight", "ffn_up.weight"}, "ffn_norm.weight", NULL, false},
    {{"ffn_down.weight"}, "ffn_up.weight", "ffn_up.bias", false},
};
enum { N_PLACE_ROWS = sizeof place_rows / sizeof *place_rows };

/* All that a layer may have. Another tensor might read the same inputs, so layers that have one stay as they are. */
static const char *const known_names[] = {
    "attn_norm.weight",   "attn_q.weight",        "attn_k.weight",    "attn_v.weight",
    "attn_q.bias",        "attn_k.bias",          "attn_v.bias",      "attn_q_norm.weight",
    "attn_k_norm.weight", "attn_output.weight",   "ffn_norm.weight",  "post_attention_norm.weight",
    "ffn_gate.weight",    "ffn_up.weight",        "ffn_down.weight",  "ffn_up.bias",
    "ffn_down.bias",      "post_ffw_norm.weight", "attn_output.bias",
};

struct place {
    const struct place_row *row;
    size_t matrices[MATRICES_MAX], n_matrices; /* indices of tensors */
    size_t before, bias;                       /* likewise; NO_TENSOR: there is none */
    uint32_t n_columns, n_channels;            /* scales: as many as columns, or fewer that heads share */
    double error;                              /* with scales / without */
};

struct factors { /* of a tensor; NULL: all 1 */
    float *columns, *rows;
    size_t n_columns; /* of the tensor */
};

struct awq {
    struct factors *factors; /* [n_tensors] */
    size_t n_tensors;
    struct place *places;
    size_t n_places;
    uint32_t head_dim, n_heads_per_kv;
};

/* Places -------------------------------------------------------------------------------------------------- */

static size_t find_tensor(const struct gguf *gguf, uint32_t layer, const char *name)
{
    char full[64];
    snprintf(full, sizeof full, "blk.%u.%s", layer, name);
    for (size_t i = 0; i < gguf_n_tensors(gguf); i++)
        if (!strcmp(gguf_tensor_at(gguf, i)->name, full))
            return i;
    return NO_TENSOR;
}

static bool is_known(const char *name)
{
    for (size_t i = 0; i < sizeof known_names / sizeof *known_names; i++)
        if (!strcmp(name, known_names[i]))
            return true;
    return false;
}

static bool is_known_layer(const struct gguf *gguf, uint32_t layer)
{
    char prefix[24];
    size_t len = (size_t)snprintf(prefix, sizeof prefix, "blk.%u.", layer);
    for (size_t i = 0; i < gguf_n_tensors(gguf); i++) {
        const char *name = gguf_tensor_at(gguf, i)->name;
        if (!strncmp(name, prefix, len) && !is_known(name + len))
            return false;
    }
    return true;
}

/* Whether what is divided has as many rows, or of a vector values, as there are scales. */
static bool fits_before(const struct gguf_tensor *before, const struct place *place)
{
    return before->n_dims == 2   ? before->dims[1] == place->n_channels
           : before->n_dims == 1 ? before->dims[0] == place->n_channels
                                 : false;
}

static bool fits_bias(const struct gguf_tensor *bias, const struct place *place)
{
    return bias->n_dims == 1 && bias->dims[0] == place->n_channels;
}

/* False: something is not there, is not known, or has another shape than this module knows. */
static bool fill_place(const struct awq_options *options, const struct awq *awq, uint32_t layer,
                       const struct place_row *row, struct place *place)
{
    *place = (struct place){.row = row, .bias = NO_TENSOR, .error = 1};
    for (size_t i = 0; i < MATRICES_MAX && row->matrices[i]; i++) {
        size_t tensor = find_tensor(options->from, layer, row->matrices[i]);
        if (tensor == NO_TENSOR || !options->importance[tensor])
            return false;
        const struct gguf_tensor *matrix = gguf_tensor_at(options->from, tensor);
        if (matrix->dims[2] != 1 || matrix->dims[3] != 1 || (i && matrix->dims[0] != place->n_columns) ||
            (row->is_of_heads && matrix->dims[0] % ((uint64_t)awq->head_dim * awq->n_heads_per_kv) != 0))
            return false;
        place->n_columns = (uint32_t)matrix->dims[0];
        place->matrices[place->n_matrices++] = tensor;
    }
    place->before = find_tensor(options->from, layer, row->before);
    if (row->bias)
        place->bias = find_tensor(options->from, layer, row->bias);
    place->n_channels = place->n_columns / (row->is_of_heads ? awq->n_heads_per_kv : 1);
    return place->before != NO_TENSOR && fits_before(gguf_tensor_at(options->from, place->before), place) &&
           (place->bias == NO_TENSOR || fits_bias(gguf_tensor_at(options->from, place->bias), place));
}

static int find_places(const struct awq_options *options, struct awq *awq, runnel_error *error)
{
    struct model_config config;
    int failure = model_config_read(options->from, &config, error);
    if (failure)
        return failure;
    awq->head_dim = config.head_dim;
    awq->n_heads_per_kv = config.n_heads / config.n_kv_heads;
    awq->n_tensors = gguf_n_tensors(options->from);
    awq->factors = calloc(awq->n_tensors + 1, sizeof *awq->factors);
    awq->places = calloc((size_t)config.n_layers * N_PLACE_ROWS, sizeof *awq->places);
    if (!awq->factors || !awq->places)
        return error_set(error, RUNNEL_ENOMEM, "no memory for the scales of %u layers", config.n_layers);
    for (size_t i = 0; i < awq->n_tensors; i++)
        awq->factors[i].n_columns = (size_t)gguf_tensor_at(options->from, i)->dims[0];
    for (uint32_t layer = 0; layer < config.n_layers; layer++)
        for (size_t i = 0; i < N_PLACE_ROWS && is_known_layer(options->from, layer); i++)
            awq->n_places += fill_place(options, awq, layer, &place_rows[i], &awq->places[awq->n_places]);
    return RUNNEL_OK;
}

/* Which scale is that of a column. */
static uint32_t channel_of(const struct awq *awq, const struct place *place, uint32_t column)
{
    if (!place->row->is_of_heads)
        return column;
    return column / awq->head_dim / awq->n_heads_per_kv * awq->head_dim + column % awq->head_dim;
}

/* What all threads share ----------------------------------------------------------------------------------- */

struct searching {
    const struct awq_options *options;
    struct awq *awq;
    atomic_size_t n_taken, n_done;
    atomic_bool stops; /* one has failed, or shall stop */
    pthread_mutex_t lock;
    runnel_error error; /* guarded by lock: the first one; code 0: none */
};

static void fail(struct searching *searching, const runnel_error *error)
{
    pthread_mutex_lock(&searching->lock);
    if (!searching->error.code)
        searching->error = *error;
    pthread_mutex_unlock(&searching->lock);
    atomic_store(&searching->stops, true);
}

/* Asked between two recipes, too: a place of a large model takes seconds. */
static bool must_stop(struct searching *searching, bool is_caller)
{
    const struct awq_options *options = searching->options;
    runnel_error error;
    if (is_caller && options->on_progress && !atomic_load(&searching->stops) &&
        !options->on_progress(options->user, atomic_load(&searching->n_done), searching->awq->n_places)) {
        error_set(&error, RUNNEL_ECANCELLED, "stopped");
        fail(searching, &error);
    }
    return atomic_load(&searching->stops);
}

/* Searching ----------------------------------------------------------------------------------------------- */

/* How scales are made of the sizes of inputs and weights. */
struct recipe {
    float alpha;
    bool by_weights; /* (inputs / weights) ^ alpha, else inputs ^ alpha */
};

/* What a thread needs for a place. */
struct work {
    float *sample;               /* [n_matrices][up to SAMPLE_ROWS][n_columns], as in the file */
    size_t n_rows[MATRICES_MAX]; /* of each matrix in the sample */
    float *magnitudes, *widths;  /* [n_channels]: the size of inputs, and that of columns of weights */
    float *scales, *best;        /* [n_channels]: what is tried; what was best */
    struct recipe recipe;        /* of the best ones; alpha 0: nothing is worth it */
    double least;                /* their error, or that of no scales times WORTH */
    float *values, *importance, *columns; /* [n_columns] */
    void *scratch;                        /* [n_columns] f32 */
    void *raw;                            /* a row as in the file */
};

static void free_work(struct work *work)
{
    free(work->sample);
    free(work->magnitudes);
    free(work->widths);
    free(work->scales);
    free(work->best);
    free(work->values);
    free(work->importance);
    free(work->columns);
    free(work->scratch);
    free(work->raw);
}

static int make_work(const struct awq_options *options, const struct place *place, struct work *work,
                     runnel_error *error)
{
    size_t n = place->n_columns, raw_bytes = 0;
    for (size_t i = 0; i < place->n_matrices; i++) {
        const struct gguf_tensor *matrix = gguf_tensor_at(options->from, place->matrices[i]);
        raw_bytes = matrix->row_bytes > raw_bytes ? (size_t)matrix->row_bytes : raw_bytes;
    }
    *work = (struct work){
        .sample = malloc(place->n_matrices * SAMPLE_ROWS * n * sizeof(float)),
        .magnitudes = calloc(place->n_channels, sizeof(float)),
        .widths = calloc(place->n_channels, sizeof(float)),
        .scales = malloc(place->n_channels * sizeof(float)),
        .best = malloc(place->n_channels * sizeof(float)),
        .values = malloc(n * sizeof(float)),
        .importance = malloc(n * sizeof(float)),
        .columns = malloc(n * sizeof(float)),
        .scratch = malloc(n * sizeof(float)),
        .raw = malloc(raw_bytes),
    };
    if (work->sample && work->magnitudes && work->widths && work->scales && work->best && work->values &&
        work->importance && work->columns && work->scratch && work->raw)
        return RUNNEL_OK;
    return error_set(error, RUNNEL_ENOMEM, "no memory for the scales of %zu columns", n);
}

/* Rows from the whole matrix, as far from one another as can be. */
static int read_sample(const struct awq_options *options, const struct place *place, struct work *work,
                       runnel_error *error)
{
    for (size_t i = 0; i < place->n_matrices; i++) {
        const struct gguf_tensor *matrix = gguf_tensor_at(options->from, place->matrices[i]);
        uint64_t n = matrix->dims[1] < SAMPLE_ROWS ? matrix->dims[1] : SAMPLE_ROWS;
        work->n_rows[i] = (size_t)n;
        for (uint64_t j = 0; j < n; j++) {
            uint64_t row = j * matrix->dims[1] / n;
            int failure = gguf_read(options->from, matrix->offset + row * matrix->row_bytes, work->raw,
                                    (size_t)matrix->row_bytes, error);
            if (failure)
                return error_prefix(error, "tensor %s", matrix->name);
            quant_decode(matrix->type, work->raw, place->n_columns,
                         work->sample + (i * SAMPLE_ROWS + (size_t)j) * place->n_columns);
        }
    }
    return RUNNEL_OK;
}

/* Roots of sums of squares. What is always 0 is as good as what is very small. */
static void take_roots(const struct place *place, float *sums)
{
    float largest = 0;
    for (uint32_t j = 0; j < place->n_channels; j++) {
        sums[j] = sqrtf(sums[j]);
        largest = fmaxf(largest, sums[j]);
    }
    for (uint32_t j = 0; j < place->n_channels; j++)
        sums[j] = largest > 0 ? fmaxf(sums[j], largest * 1e-6f) : 1;
}

/* The size of the inputs of each channel: all matrices of a place have the same. */
static void find_magnitudes(const struct awq_options *options, const struct awq *awq,
                            const struct place *place, struct work *work)
{
    const float *importance = options->importance[place->matrices[0]];
    for (uint32_t j = 0; j < place->n_columns; j++)
        work->magnitudes[channel_of(awq, place, j)] += importance[j];
    take_roots(place, work->magnitudes);
}

/* The size of each channel's weights. Matrices count alike, whatever their rows and the size of all their weights. */
static void find_widths(const struct awq *awq, const struct place *place, struct work *work)
{
    for (size_t i = 0; i < place->n_matrices; i++) {
        const float *sample = work->sample + i * SAMPLE_ROWS * place->n_columns;
        size_t n = work->n_rows[i] * place->n_columns;
        double whole = 0;
        for (size_t k = 0; k < n; k++)
            whole += (double)sample[k] * (double)sample[k];
        for (size_t k = 0; k < n && whole > 0; k++)
            work->widths[channel_of(awq, place, (uint32_t)(k % place->n_columns))] +=
                (float)((double)sample[k] * (double)sample[k] / whole);
    }
    take_roots(place, work->widths);
}

/* Into work->scales: their geometric mean is 1, but for what is cut off. */
static void make_scales(const struct place *place, const struct recipe *recipe, struct work *work)
{
    double sum = 0;
    for (uint32_t j = 0; j < place->n_channels; j++) {
        work->scales[j] =
            recipe->alpha * (logf(work->magnitudes[j]) - (recipe->by_weights ? logf(work->widths[j]) : 0));
        sum += (double)work->scales[j];
    }
    float middle = (float)(sum / place->n_channels);
    for (uint32_t j = 0; j < place->n_channels; j++)
        work->scales[j] = fminf(fmaxf(expf(work->scales[j] - middle), 1 / SCALE_MAX), SCALE_MAX);
}

/* The error of the rounded sample of a matrix in comparison with what it multiplies. */
static double error_of_matrix(const struct awq_options *options, const struct place *place, size_t i,
                              struct work *work)
{
    double error = 0, whole = 0;
    for (size_t row = 0; row < work->n_rows[i]; row++) {
        const float *sample = work->sample + (i * SAMPLE_ROWS + row) * place->n_columns;
        for (uint32_t j = 0; j < place->n_columns; j++)
            work->values[j] = sample[j] * work->columns[j];
        options->round_row(options->user, place->matrices[i], work->importance, work->values, work->scratch);
        for (uint32_t j = 0; j < place->n_columns; j++) {
            double exact = (double)sample[j] * (double)work->columns[j],
                   off = exact - (double)work->values[j];
            error += (double)work->importance[j] * off * off;
            whole += (double)work->importance[j] * exact * exact;
        }
    }
    return whole > 0 ? error / whole : 0;
}

/* With work->scales; the sum over the matrices. */
static double error_of_place(const struct awq_options *options, const struct awq *awq,
                             const struct place *place, struct work *work)
{
    double error = 0;
    for (size_t i = 0; i < place->n_matrices; i++) {
        const float *importance = options->importance[place->matrices[i]];
        for (uint32_t j = 0; j < place->n_columns; j++) {
            float scale = work->scales[channel_of(awq, place, j)];
            work->columns[j] = scale;
            work->importance[j] = importance[j] / (scale * scale);
        }
        error += error_of_matrix(options, place, i, work);
    }
    return error;
}

/* Keeps the recipe if its scales are better than the best ones before. */
static void try_recipe(const struct awq_options *options, const struct awq *awq, const struct place *place,
                       struct recipe recipe, struct work *work)
{
    make_scales(place, &recipe, work);
    double error = error_of_place(options, awq, place, work);
    if (!(error < work->least))
        return;
    work->least = error;
    work->recipe = recipe;
    memcpy(work->best, work->scales, place->n_channels * sizeof *work->best);
}

/* The best scales into work->best, what they gain into place->error. */
static void search_place(struct searching *searching, bool is_caller, struct place *place, struct work *work)
{
    const struct awq_options *options = searching->options;
    const struct awq *awq = searching->awq;
    find_magnitudes(options, awq, place, work);
    find_widths(awq, place, work);
    make_scales(place, &work->recipe, work); /* all 1 */
    double plain = error_of_place(options, awq, place, work);
    work->least = plain * WORTH;
    for (int i = 1; i <= N_ALPHAS && !must_stop(searching, is_caller); i++)
        for (int by_weights = 0; by_weights < 2; by_weights++)
            try_recipe(options, awq, place, (struct recipe){(float)i / N_ALPHAS, by_weights}, work);
    struct recipe middle = work->recipe;
    for (int side = -1; side <= 1 && middle.alpha > 0; side += 2)
        try_recipe(options, awq, place,
                   (struct recipe){middle.alpha + (float)side * 0.5f / N_ALPHAS, middle.by_weights}, work);
    place->error = work->recipe.alpha > 0 ? work->least / plain : 1;
}

/* Keeping ------------------------------------------------------------------------------------------------- */

/* Multiplies the factors at *factors, which are made if there are none. */
static int multiply(float **factors, const float *by, size_t n, runnel_error *error)
{
    if (!*factors) {
        *factors = malloc(n * sizeof **factors);
        if (!*factors)
            return error_set(error, RUNNEL_ENOMEM, "no memory for %zu scales", n);
        for (size_t i = 0; i < n; i++)
            (*factors)[i] = 1;
    }
    for (size_t i = 0; i < n; i++)
        (*factors)[i] *= by[i];
    return RUNNEL_OK;
}

/* Factors of a tensor belong to one place each: a matrix's columns to that of its inputs, its rows to that of its outputs. So
 * threads do not meet here. */
static int keep_scales(const struct awq_options *options, struct awq *awq, const struct place *place,
                       struct work *work, runnel_error *error)
{
    int failure = RUNNEL_OK;
    for (uint32_t j = 0; j < place->n_columns; j++)
        work->columns[j] = work->best[channel_of(awq, place, j)];
    for (size_t i = 0; i < place->n_matrices && !failure; i++)
        failure = multiply(&awq->factors[place->matrices[i]].columns, work->columns, place->n_columns, error);
    for (uint32_t j = 0; j < place->n_channels; j++)
        work->scales[j] = 1 / work->best[j];
    bool is_vector = gguf_tensor_at(options->from, place->before)->n_dims == 1;
    struct factors *before = &awq->factors[place->before];
    if (!failure)
        failure =
            multiply(is_vector ? &before->columns : &before->rows, work->scales, place->n_channels, error);
    if (!failure && place->bias != NO_TENSOR)
        failure = multiply(&awq->factors[place->bias].columns, work->scales, place->n_channels, error);
    return failure;
}

static int do_place(struct searching *searching, bool is_caller, struct place *place, runnel_error *error)
{
    const struct awq_options *options = searching->options;
    struct awq *awq = searching->awq;
    struct work work;
    int failure = make_work(options, place, &work, error);
    if (!failure)
        failure = read_sample(options, place, &work, error);
    if (!failure) {
        search_place(searching, is_caller, place, &work);
        if (place->error < 1)
            failure = keep_scales(options, awq, place, &work, error);
    }
    free_work(&work);
    return failure;
}

/* Threads ------------------------------------------------------------------------------------------------- */

static void take_places(struct searching *searching, bool is_caller)
{
    struct awq *awq = searching->awq;
    size_t i;
    while (!must_stop(searching, is_caller) &&
           (i = atomic_fetch_add(&searching->n_taken, 1)) < awq->n_places) {
        runnel_error error;
        if (do_place(searching, is_caller, &awq->places[i], &error))
            fail(searching, &error);
        atomic_fetch_add(&searching->n_done, 1);
    }
}

static void *run_thread(void *arg)
{
    take_places(arg, false);
    return NULL;
}

/* Threads that cannot be started are done without. */
static int search_all(const struct awq_options *options, struct awq *awq, runnel_error *error)
{
    struct searching searching = {.options = options, .awq = awq, .lock = PTHREAD_MUTEX_INITIALIZER};
    pthread_t *threads = calloc(options->n_threads, sizeof *threads);
    unsigned n = 0;
    while (threads && n + 1 < options->n_threads && !thread_start(&threads[n], run_thread, &searching))
        n++;
    take_places(&searching, true);
    for (unsigned i = 0; i < n; i++)
        pthread_join(threads[i], NULL);
    free(threads);
    pthread_mutex_destroy(&searching.lock);
    if (searching.error.code && error)
        *error = searching.error;
    return searching.error.code;
}

/* The whole ----------------------------------------------------------------------------------------------- */

int awq_search(const struct awq_options *options, struct awq **out, runnel_error *error)
{
    struct awq *awq = calloc(1, sizeof *awq);
    if (!awq)
        return error_set(error, RUNNEL_ENOMEM, "no memory for the scales of a model");
    int failure = find_places(options, awq, error);
    if (!failure)
        failure = search_all(options, awq, error);
    if (failure) {
        awq_free(awq);
        return failure;
    }
    *out = awq;
    return RUNNEL_OK;
}

void awq_free(struct awq *awq)
{
    if (!awq)
        return;
    for (size_t i = 0; awq->factors && i < awq->n_tensors; i++) {
        free(awq->factors[i].columns);
        free(awq->factors[i].rows);
    }
    free(awq->factors);
    free(awq->places);
    free(awq);
}

bool awq_changes(const struct awq *awq, size_t tensor)
{
    return awq->factors[tensor].columns || awq->factors[tensor].rows;
}

void awq_change_row(const struct awq *awq, size_t tensor, uint64_t row, float *values)
{
    const struct factors *factors = &awq->factors[tensor];
    for (size_t j = 0; factors->columns && j < factors->n_columns; j++)
        values[j] *= factors->columns[j];
    for (size_t j = 0; factors->rows && j < factors->n_columns; j++)
        values[j] *= factors->rows[row];
}

void awq_change_importance(const struct awq *awq, size_t tensor, float *importance)
{
    const struct factors *factors = &awq->factors[tensor];
    for (size_t j = 0; factors->columns && j < factors->n_columns; j++)
        importance[j] /= factors->columns[j] * factors->columns[j];
}

void awq_get_summary(const struct awq *awq, struct awq_summary *summary)
{
    *summary = (struct awq_summary){.n_places = awq->n_places};
    for (size_t i = 0; i < awq->n_places; i++) {
        summary->n_scaled += awq->places[i].error < 1;
        summary->error += awq->places[i].error / (double)awq->n_places;
    }
}
