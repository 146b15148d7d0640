/* weights.c: packs a file's tensors into one region on all threads.
 *
 * weights_load works in three passes: list every tensor that the configuration asks for, with the place its
 * values go to (tensors.c); lay the tensors out one after the other and map the region; read and pack,
 * in chunks of whole tiles that the members of the team share. */
#include "model/weights.h"

#include "base/region.h"
#include "kernels/pack.h"
#include "model/tensors.h"

#include <math.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <threads.h>

enum {
    REGION_ALIGN = 4096,     /* a matrix starts on a page of its own */
    CHUNK_BYTES = 512 << 10, /* about what is read at once */
};

/* Above this |bias| of the keys, f16 keys would lose what distinguishes one from another; see
 * docs/accuracy.md. */
static const float K_BIAS_F16_MAX = 64;

/* Fills in matrices and vectors as offsets into a region that is mapped afterwards. Returns its size. */
static size_t lay_out(struct tensor_list *list, uint32_t *n_chunks)
{
    size_t end = 0;
    *n_chunks = 0;
    for (size_t i = 0; i < list->n; i++) {
        struct tensor_slot *slot = &list->slots[i];
        if (!slot->tensor)
            continue;
        slot->first_chunk = *n_chunks;
        slot->n_chunks = 1;
        if (slot->matrix) {
            struct packed_matrix *matrix = slot->matrix;
            end = (end + REGION_ALIGN - 1) / REGION_ALIGN * REGION_ALIGN;
            *matrix = (struct packed_matrix){
                .type = slot->tensor->type,
                .kind = pack_kind(slot->tensor->type),
                .n_rows = slot->n_rows,
                .n_columns = slot->n_columns,
                .n_tiles = (slot->n_rows + TILE_ROWS - 1) / TILE_ROWS,
                .tile_bytes = pack_tile_bytes(slot->tensor->type, slot->n_columns),
                .data = (uint8_t *)end,
            };
            end += matrix->n_tiles * matrix->tile_bytes;
            size_t tile_file_bytes = TILE_ROWS * slot->tensor->row_bytes;
            slot->chunk_tiles = tile_file_bytes < CHUNK_BYTES ? (uint32_t)(CHUNK_BYTES / tile_file_bytes) : 1;
            slot->n_chunks = (matrix->n_tiles + slot->chunk_tiles - 1) / slot->chunk_tiles;
        } else {
            end = (end + 63) / 64 * 64;
            *slot->vector = (const float *)end;
            end += slot->n_columns * sizeof(float);
        }
        *n_chunks += slot->n_chunks;
    }
    return end;
}

static void place_in_region(const struct tensor_list *list, uint8_t *region)
{
    for (size_t i = 0; i < list->n; i++) {
        const struct tensor_slot *slot = &list->slots[i];
        if (!slot->tensor)
            continue;
        if (slot->matrix)
            slot->matrix->data = region + (uintptr_t)slot->matrix->data;
        else
            *slot->vector = (const float *)(region + (uintptr_t)*slot->vector);
    }
}

/* What the members share while they read. */
struct loading {
    const struct gguf *gguf;
    const struct tensor_list *list;
    struct team *team;
    uint32_t n_chunks;
    size_t buffer_bytes;
    atomic_bool failed; /* set with `lock` held, once `error` is written */
    mtx_t lock;
    runnel_error error;
    atomic_ullong bytes_done;
    uint64_t bytes_total;
    void (*on_progress)(void *user, uint64_t done, uint64_t total);
    void *user;
};

static void loading_fail(struct loading *loading, const runnel_error *error)
{
    mtx_lock(&loading->lock);
    if (!atomic_load(&loading->failed)) {
        loading->error = *error;
        atomic_store(&loading->failed, true);
    }
    mtx_unlock(&loading->lock);
}

static int load_vector(const struct loading *loading, const struct tensor_slot *slot, void *buffer,
                       runnel_error *error)
{
    const struct gguf_tensor *tensor = slot->tensor;
    int failure = gguf_read(loading->gguf, tensor->offset, buffer, tensor->n_bytes, error);
    if (!failure)
        quant_decode(tensor->type, buffer, slot->n_columns, (float *)(uintptr_t)*slot->vector);
    return failure;
}

static int load_tiles(const struct loading *loading, const struct tensor_slot *slot, uint32_t chunk,
                      void *buffer, runnel_error *error)
{
    const struct gguf_tensor *tensor = slot->tensor;
    struct packed_matrix *matrix = slot->matrix;
    uint32_t tile = chunk * slot->chunk_tiles, tile_end = tile + slot->chunk_tiles;
    if (tile_end > matrix->n_tiles)
        tile_end = matrix->n_tiles;
    uint32_t row = tile * TILE_ROWS, row_end = tile_end * TILE_ROWS;
    if (row_end > matrix->n_rows)
        row_end = matrix->n_rows;
    int failure = gguf_read(loading->gguf, tensor->offset + row * tensor->row_bytes, buffer,
                            (row_end - row) * tensor->row_bytes, error);
    if (failure)
        return failure;
    const uint8_t *rows = buffer;
    for (; tile < tile_end; tile++, row += TILE_ROWS, rows += TILE_ROWS * tensor->row_bytes)
        pack_tile(tensor->type, rows, tensor->row_bytes,
                  row_end - row < TILE_ROWS ? row_end - row : TILE_ROWS, matrix->n_columns,
                  matrix->data + tile * matrix->tile_bytes);
    return RUNNEL_OK;
}

/* Reads and packs chunk i of all. */
static int load_chunk(struct loading *loading, uint32_t i, void *buffer, runnel_error *error)
{
    const struct tensor_slot *slot = loading->list->slots;
    while (!slot->tensor || i >= slot->first_chunk + slot->n_chunks)
        slot++;
    int failure = slot->matrix ? load_tiles(loading, slot, i - slot->first_chunk, buffer, error)
                               : load_vector(loading, slot, buffer, error);
    if (failure)
        return error_prefix(error, "tensor %s", slot->name);
    atomic_fetch_add(&loading->bytes_done, slot->tensor->n_bytes / slot->n_chunks);
    return RUNNEL_OK;
}

static void load_member(void *arg, unsigned member)
{
    struct loading *loading = arg;
    runnel_error error;
    void *buffer = malloc(loading->buffer_bytes);
    if (!buffer) {
        error_set(&error, RUNNEL_ENOMEM, "no memory for a read buffer of %zu bytes", loading->buffer_bytes);
        loading_fail(loading, &error);
    }
    struct team_loop loop = {.n = loading->n_chunks, .grain = 1};
    while (team_next(loading->team, member, &loop))
        for (uint32_t i = loop.begin; i < loop.end && !atomic_load(&loading->failed); i++) {
            if (load_chunk(loading, i, buffer, &error))
                loading_fail(loading, &error);
            else if (member == 0 && loading->on_progress)
                loading->on_progress(loading->user, atomic_load(&loading->bytes_done), loading->bytes_total);
        }
    free(buffer);
}

static int load_all(struct loading *loading, runnel_error *error)
{
    for (size_t i = 0; i < loading->list->n; i++) {
        const struct tensor_slot *slot = &loading->list->slots[i];
        if (!slot->tensor)
            continue;
        loading->bytes_total += slot->tensor->n_bytes;
        size_t bytes =
            slot->matrix ? slot->chunk_tiles * TILE_ROWS * slot->tensor->row_bytes : slot->tensor->n_bytes;
        if (bytes > loading->buffer_bytes)
            loading->buffer_bytes = bytes;
    }
    mtx_init(&loading->lock, mtx_plain);
    team_run(loading->team, load_member, loading);
    mtx_destroy(&loading->lock);
    if (atomic_load(&loading->failed)) {
        if (error)
            *error = loading->error;
        return loading->error.code;
    }
    if (loading->on_progress)
        loading->on_progress(loading->user, loading->bytes_total, loading->bytes_total);
    return RUNNEL_OK;
}

static void choose_kv_shapes(struct weights *weights)
{
    const struct model_config *config = &weights->config;
    for (uint32_t i = 0; i < config->n_layers; i++) {
        const float *bias = weights->layers[i].k_bias;
        float largest = 0;
        for (uint32_t j = 0; bias && j < config->n_kv_heads * config->head_dim; j++)
            largest = fmaxf(largest, fabsf(bias[j]));
        weights->kv_shapes[i] =
            (struct kv_shape){.head_dim = config->head_dim, .k_f32 = largest > K_BIAS_F16_MAX};
    }
}

/* Frequencies are divided by them. */
static int check_rope_factors(const struct weights *weights, runnel_error *error)
{
    uint32_t n_pairs = weights->rope_factors ? weights->config.n_rot / 2 : 0;
    for (uint32_t i = 0; i < n_pairs; i++)
        if (!isfinite(weights->rope_factors[i]) || weights->rope_factors[i] <= 0)
            return error_set(error, RUNNEL_EFORMAT,
                             "tensor rope_freqs.weight: value %u is %g, expected a finite number above 0", i,
                             (double)weights->rope_factors[i]);
    return RUNNEL_OK;
}

int weights_load(const struct gguf *gguf, struct team *team,
                 void (*on_progress)(void *user, uint64_t done, uint64_t total), void *user,
                 struct weights **out, runnel_error *error)
{
    int failure;
    struct tensor_list list = {.n = 0};
    struct weights *weights = calloc(1, sizeof *weights);
    if (!weights)
        return error_set(error, RUNNEL_ENOMEM, "no memory for the weights' tables");
    failure = model_config_read(gguf, &weights->config, error);
    if (failure)
        goto fail;

    uint32_t n_layers = weights->config.n_layers;
    weights->layers = calloc(n_layers, sizeof *weights->layers);
    weights->kv_shapes = calloc(n_layers, sizeof *weights->kv_shapes);
    if (!weights->layers || !weights->kv_shapes) {
        failure = error_set(error, RUNNEL_ENOMEM, "no memory for the tables of %u layers", n_layers);
        goto fail;
    }
    failure = tensors_bind(gguf, weights, &list, error);
    if (failure)
        goto fail;

    struct loading loading = {
        .gguf = gguf, .list = &list, .team = team, .on_progress = on_progress, .user = user};
    weights->region_bytes = lay_out(&list, &loading.n_chunks);
    weights->region = region_map(weights->region_bytes);
    if (!weights->region) {
        failure =
            error_set(error, RUNNEL_ENOMEM, "no memory for %zu bytes of weights", weights->region_bytes);
        goto fail;
    }
    place_in_region(&list, weights->region);
    failure = load_all(&loading, error);
    if (!failure)
        failure = check_rope_factors(weights, error);
    if (failure)
        goto fail;
    if (weights->config.tied)
        weights->output = weights->embedding;
    choose_kv_shapes(weights);
    if (!region_protect(weights->region, weights->region_bytes)) {
        failure = error_set(error, RUNNEL_ENOMEM, "no memory to make the weights read-only");
        goto fail;
    }
    tensors_count(&list, weights);
    tensors_free(&list);
    *out = weights;
    return RUNNEL_OK;

fail:
    tensors_free(&list);
    weights_free(weights);
    return failure;
}

void weights_free(struct weights *weights)
{
    if (!weights)
        return;
    region_unmap(weights->region, weights->region_bytes);
    free(weights->layers);
    free(weights->kv_shapes);
    free(weights);
}
