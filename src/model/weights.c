/* weights.c: binds the file's tensors by name, checks their shapes, and packs them into one region on all
 * threads.
 *
 * weights_load works in three passes: list every tensor that the configuration asks for, with the place its
 * values go to (a struct slot each); lay the slots out one after the other and map the region; read and pack,
 * in chunks of whole tiles that the members of the team share. */
#include "model/weights.h"

#include "base/region.h"
#include "kernels/pack.h"

#include <math.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <threads.h>

enum {
    REGION_ALIGN = 4096,     /* a matrix starts on a page of its own */
    CHUNK_BYTES = 512 << 10, /* about what is read at once */
};

/* Above this |bias| of the keys, f16 keys would lose what distinguishes one from another; see
 * docs/accuracy.md. */
static const float K_BIAS_F16_MAX = 64;

/* A tensor of the file and where it goes: a matrix or a vector. */
struct slot {
    char name[48];
    const struct gguf_tensor *tensor; /* NULL: optional, and not in the file */
    struct packed_matrix *matrix;
    const float **vector;
    uint32_t n_rows, n_columns; /* expected; a vector has one row */
    uint32_t chunk_tiles;       /* read at once */
    uint32_t n_chunks, first_chunk;
};

struct binding {
    const struct gguf *gguf;
    struct weights *weights;
    struct slot *slots; /* n_slots used; there is one for every row of the tables below, of every layer */
    size_t n_slots;
    runnel_error *error;
};

/* What the rows and columns of tensors are counted in. */
enum extent { ONE, HIDDEN, QUERIES, KEYS, FFN, VOCAB, N_EXTENTS };

/* A tensor that the configuration asks for: its name, the kind and the place of its field, its shape. */
struct wanted {
    const char *name;
    bool is_matrix; /* else a vector */
    size_t offset;  /* of the field in struct layer_weights or struct weights */
    enum extent n_rows, n_columns;
};

#define MATRIX(owner, field) true, offsetof(struct owner, field)
#define VECTOR(owner, field) false, offsetof(struct owner, field)

static const struct wanted of_the_model[] = {
    {"token_embd.weight", MATRIX(weights, embedding), VOCAB, HIDDEN},
    {"output_norm.weight", VECTOR(weights, output_norm), ONE, HIDDEN},
    {"output.weight", MATRIX(weights, output), VOCAB, HIDDEN}, /* the last: a tied model has none */
};

static const struct wanted of_a_layer[] = {
    {"attn_norm.weight", VECTOR(layer_weights, attn_norm), ONE, HIDDEN},
    {"attn_q.weight", MATRIX(layer_weights, q), QUERIES, HIDDEN},
    {"attn_k.weight", MATRIX(layer_weights, k), KEYS, HIDDEN},
    {"attn_v.weight", MATRIX(layer_weights, v), KEYS, HIDDEN},
    {"attn_q.bias", VECTOR(layer_weights, q_bias), ONE, QUERIES},
    {"attn_k.bias", VECTOR(layer_weights, k_bias), ONE, KEYS},
    {"attn_v.bias", VECTOR(layer_weights, v_bias), ONE, KEYS},
    {"attn_output.weight", MATRIX(layer_weights, attn_output), HIDDEN, QUERIES},
    {"ffn_norm.weight", VECTOR(layer_weights, ffn_norm), ONE, HIDDEN},
    {"ffn_gate.weight", MATRIX(layer_weights, gate), FFN, HIDDEN},
    {"ffn_up.weight", MATRIX(layer_weights, up), FFN, HIDDEN},
    {"ffn_down.weight", MATRIX(layer_weights, down), HIDDEN, FFN},
};

enum {
    N_OF_THE_MODEL = sizeof of_the_model / sizeof *of_the_model,
    N_OF_A_LAYER = sizeof of_a_layer / sizeof *of_a_layer,
};

static uint32_t size_of(enum extent extent, const struct model_config *config)
{
    const uint32_t sizes[N_EXTENTS] = {
        [ONE] = 1,
        [HIDDEN] = config->n_hidden,
        [QUERIES] = config->n_heads * config->head_dim,
        [KEYS] = config->n_kv_heads * config->head_dim,
        [FFN] = config->n_ffn,
        [VOCAB] = config->n_vocab,
    };
    return sizes[extent];
}

/* owner: the struct whose field it is. layer: -1 for the model's own. */
static void bind_tensor(struct binding *binding, const struct wanted *wanted, void *owner, int layer)
{
    const struct model_config *config = &binding->weights->config;
    struct slot *slot = &binding->slots[binding->n_slots++];
    void *field = (char *)owner + wanted->offset;
    *slot = (struct slot){
        .matrix = wanted->is_matrix ? field : NULL,
        .vector = wanted->is_matrix ? NULL : field,
        .n_rows = size_of(wanted->n_rows, config),
        .n_columns = size_of(wanted->n_columns, config),
    };
    if (layer < 0)
        snprintf(slot->name, sizeof slot->name, "%s", wanted->name);
    else
        snprintf(slot->name, sizeof slot->name, "blk.%d.%s", layer, wanted->name);
    slot->tensor = gguf_find_tensor(binding->gguf, slot->name);
}

static int bind_all(struct binding *binding)
{
    struct weights *weights = binding->weights;
    uint32_t n_layers = weights->config.n_layers;
    binding->slots = calloc(N_OF_THE_MODEL + (size_t)N_OF_A_LAYER * n_layers, sizeof *binding->slots);
    if (!binding->slots)
        return error_set(binding->error, RUNNEL_ENOMEM, "no memory for the tensors of %u layers", n_layers);
    size_t n_own = weights->config.tied ? N_OF_THE_MODEL - 1 : N_OF_THE_MODEL;
    for (size_t i = 0; i < n_own; i++)
        bind_tensor(binding, &of_the_model[i], weights, -1);
    for (uint32_t layer = 0; layer < n_layers; layer++)
        for (size_t i = 0; i < N_OF_A_LAYER; i++)
            bind_tensor(binding, &of_a_layer[i], &weights->layers[layer], (int)layer);
    return RUNNEL_OK;
}

static bool is_optional(const struct slot *slot)
{
    size_t len = strlen(slot->name);
    return len > 5 && !strcmp(slot->name + len - 5, ".bias");
}

static int check_slot(const struct slot *slot, runnel_error *error)
{
    const struct gguf_tensor *tensor = slot->tensor;
    if (!tensor) {
        if (is_optional(slot))
            return RUNNEL_OK;
        return error_set(error, RUNNEL_EFORMAT, "tensor %s: not in the file, expected [%u, %u]", slot->name,
                         slot->n_columns, slot->n_rows);
    }
    if (tensor->dims[0] != slot->n_columns || tensor->dims[1] != slot->n_rows || tensor->dims[2] != 1 ||
        tensor->dims[3] != 1)
        return error_set(error, RUNNEL_EFORMAT,
                         "tensor %s: shape [%llu, %llu, %llu, %llu], expected [%u, %u]", slot->name,
                         (unsigned long long)tensor->dims[0], (unsigned long long)tensor->dims[1],
                         (unsigned long long)tensor->dims[2], (unsigned long long)tensor->dims[3],
                         slot->n_columns, slot->n_rows);
    return RUNNEL_OK;
}

/* A tensor that nothing asked for means that computing without it would be another model. */
static int check_no_tensor_is_left(const struct binding *binding)
{
    size_t n_bound = 0;
    for (size_t i = 0; i < binding->n_slots; i++)
        n_bound += binding->slots[i].tensor != NULL;
    if (n_bound == gguf_n_tensors(binding->gguf))
        return RUNNEL_OK;
    for (size_t i = 0; i < gguf_n_tensors(binding->gguf); i++) {
        const char *name = gguf_tensor_at(binding->gguf, i)->name;
        bool bound = false;
        for (size_t j = 0; j < binding->n_slots && !bound; j++)
            bound = !strcmp(binding->slots[j].name, name);
        if (bound)
            continue;
        unsigned layer;
        if (sscanf(name, "blk.%u.", &layer) == 1 && layer >= binding->weights->config.n_layers)
            return error_set(binding->error, RUNNEL_EFORMAT, "tensor %s: the file announces %u layers", name,
                             binding->weights->config.n_layers);
        return error_set(binding->error, RUNNEL_EUNSUPPORTED,
                         "tensor %s: not part of a %s model as it is known here", name,
                         binding->weights->config.architecture);
    }
    return RUNNEL_OK;
}

static int check_all(const struct binding *binding)
{
    for (size_t i = 0; i < binding->n_slots; i++) {
        int failure = check_slot(&binding->slots[i], binding->error);
        if (failure)
            return failure;
    }
    return check_no_tensor_is_left(binding);
}

/* Fills in matrices and vectors as offsets into a region that is mapped afterwards. Returns its size. */
static size_t lay_out(struct binding *binding, uint32_t *n_chunks)
{
    size_t end = 0;
    *n_chunks = 0;
    for (size_t i = 0; i < binding->n_slots; i++) {
        struct slot *slot = &binding->slots[i];
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

static void place_in_region(const struct binding *binding)
{
    uint8_t *region = binding->weights->region;
    for (size_t i = 0; i < binding->n_slots; i++) {
        const struct slot *slot = &binding->slots[i];
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
    const struct binding *binding;
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

static int load_vector(const struct loading *loading, const struct slot *slot, void *buffer,
                       runnel_error *error)
{
    const struct gguf_tensor *tensor = slot->tensor;
    int failure = gguf_read(loading->binding->gguf, tensor->offset, buffer, tensor->n_bytes, error);
    if (!failure)
        quant_decode(tensor->type, buffer, slot->n_columns, (float *)(uintptr_t)*slot->vector);
    return failure;
}

static int load_tiles(const struct loading *loading, const struct slot *slot, uint32_t chunk, void *buffer,
                      runnel_error *error)
{
    const struct gguf_tensor *tensor = slot->tensor;
    struct packed_matrix *matrix = slot->matrix;
    uint32_t tile = chunk * slot->chunk_tiles, tile_end = tile + slot->chunk_tiles;
    if (tile_end > matrix->n_tiles)
        tile_end = matrix->n_tiles;
    uint32_t row = tile * TILE_ROWS, row_end = tile_end * TILE_ROWS;
    if (row_end > matrix->n_rows)
        row_end = matrix->n_rows;
    int failure = gguf_read(loading->binding->gguf, tensor->offset + row * tensor->row_bytes, buffer,
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
    const struct slot *slot = loading->binding->slots;
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

static int load_all(const struct binding *binding, struct team *team, uint32_t n_chunks,
                    void (*on_progress)(void *user, uint64_t done, uint64_t total), void *user)
{
    struct loading loading = {
        .binding = binding, .team = team, .n_chunks = n_chunks, .on_progress = on_progress, .user = user};
    for (size_t i = 0; i < binding->n_slots; i++) {
        const struct slot *slot = &binding->slots[i];
        if (!slot->tensor)
            continue;
        loading.bytes_total += slot->tensor->n_bytes;
        size_t bytes =
            slot->matrix ? slot->chunk_tiles * TILE_ROWS * slot->tensor->row_bytes : slot->tensor->n_bytes;
        if (bytes > loading.buffer_bytes)
            loading.buffer_bytes = bytes;
    }
    mtx_init(&loading.lock, mtx_plain);
    team_run(team, load_member, &loading);
    mtx_destroy(&loading.lock);
    if (atomic_load(&loading.failed)) {
        if (binding->error)
            *binding->error = loading.error;
        return loading.error.code;
    }
    if (on_progress)
        on_progress(user, loading.bytes_total, loading.bytes_total);
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

static void count(const struct binding *binding)
{
    struct weights *weights = binding->weights;
    for (size_t i = 0; i < binding->n_slots; i++) {
        const struct slot *slot = &binding->slots[i];
        if (!slot->tensor)
            continue;
        weights->n_parameters += (uint64_t)slot->n_rows * slot->n_columns;
        if (slot->matrix && slot->matrix != &weights->embedding && slot->matrix != &weights->output)
            weights->n_layer_weights += (uint64_t)slot->n_rows * slot->n_columns;
        if (!slot->matrix)
            weights->bytes_per_token += slot->n_columns * sizeof(float);
        else if (slot->matrix != &weights->embedding || weights->config.tied)
            weights->bytes_per_token += slot->matrix->n_tiles * slot->matrix->tile_bytes;
        else
            weights->bytes_per_token += slot->matrix->tile_bytes / TILE_ROWS; /* a row */
    }
}

int weights_load(const struct gguf *gguf, struct team *team,
                 void (*on_progress)(void *user, uint64_t done, uint64_t total), void *user,
                 struct weights **out, runnel_error *error)
{
    int failure;
    struct binding binding = {.gguf = gguf, .error = error};
    struct weights *weights = binding.weights = calloc(1, sizeof *weights);
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
    failure = bind_all(&binding);
    if (!failure)
        failure = check_all(&binding);
    if (failure)
        goto fail;

    uint32_t n_chunks;
    weights->region_bytes = lay_out(&binding, &n_chunks);
    weights->region = region_map(weights->region_bytes);
    if (!weights->region) {
        failure =
            error_set(error, RUNNEL_ENOMEM, "no memory for %zu bytes of weights", weights->region_bytes);
        goto fail;
    }
    place_in_region(&binding);
    failure = load_all(&binding, team, n_chunks, on_progress, user);
    if (failure)
        goto fail;
    if (weights->config.tied)
        weights->output = weights->embedding;
    choose_kv_shapes(weights);
    count(&binding);
    free(binding.slots);
    *out = weights;
    return RUNNEL_OK;

fail:
    free(binding.slots);
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
