/* tensors.c: the list of a model's tensors: bound to a file by name, checked by shape, counted (see tensors.h). */
#include "model/tensors.h"

#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* What the rows and columns of tensors are counted in. */
enum extent { ONE, HIDDEN, QUERIES, KEYS, HEAD, PAIRS, FFN, VOCAB, N_EXTENTS };

/* A tensor: its name, the kind and the place of its field, its shape. */
struct row {
    const char *name; /* a layer's comes after "blk.<layer>." */
    bool is_of_layer; /* its field is in struct layer_weights, else in struct weights */
    bool is_matrix;   /* else a vector */
    size_t offset;    /* of its field */
    enum extent n_rows, n_columns;
    enum { NEEDED, OPTIONAL } presence;
    unsigned trait; /* of the architectures that have it; 0: all do */
};

#define MODEL_MATRIX(field) false, true, offsetof(struct weights, field)
#define MODEL_VECTOR(field) false, false, offsetof(struct weights, field)
#define LAYER_MATRIX(field) true, true, offsetof(struct layer_weights, field)
#define LAYER_VECTOR(field) true, false, offsetof(struct layer_weights, field)

// clang-format off
static const struct row rows[] = {
    {"token_embd.weight",          MODEL_MATRIX(embedding),        VOCAB,   HIDDEN,  NEEDED,   0},
    {"output_norm.weight",         MODEL_VECTOR(output_norm),      ONE,     HIDDEN,  NEEDED,   0},
    {"output.weight",              MODEL_MATRIX(output),           VOCAB,   HIDDEN,  OPTIONAL, 0}, /* without it the embedding is the head */
    {"rope_freqs.weight",          MODEL_VECTOR(rope_factors),     ONE,     PAIRS,   OPTIONAL, TRAIT_ROPE_FACTORS},

    {"attn_norm.weight",           LAYER_VECTOR(attn_norm),        ONE,     HIDDEN,  NEEDED,   0},
    {"attn_q.weight",              LAYER_MATRIX(q),                QUERIES, HIDDEN,  NEEDED,   0},
    {"attn_k.weight",              LAYER_MATRIX(k),                KEYS,    HIDDEN,  NEEDED,   0},
    {"attn_v.weight",              LAYER_MATRIX(v),                KEYS,    HIDDEN,  NEEDED,   0},
    {"attn_q.bias",                LAYER_VECTOR(q_bias),           ONE,     QUERIES, OPTIONAL, TRAIT_QKV_BIASES},
    {"attn_k.bias",                LAYER_VECTOR(k_bias),           ONE,     KEYS,    OPTIONAL, TRAIT_QKV_BIASES},
    {"attn_v.bias",                LAYER_VECTOR(v_bias),           ONE,     KEYS,    OPTIONAL, TRAIT_QKV_BIASES},
    {"attn_q_norm.weight",         LAYER_VECTOR(q_norm),           ONE,     HEAD,    NEEDED,   TRAIT_HEAD_NORMS},
    {"attn_k_norm.weight",         LAYER_VECTOR(k_norm),           ONE,     HEAD,    NEEDED,   TRAIT_HEAD_NORMS},
    {"attn_output.weight",         LAYER_MATRIX(attn_output),      HIDDEN,  QUERIES, NEEDED,   0},
    {"post_attention_norm.weight", LAYER_VECTOR(attn_output_norm), ONE,     HIDDEN,  NEEDED,   TRAIT_OUTPUT_NORMS},
    {"ffn_norm.weight",            LAYER_VECTOR(ffn_norm),         ONE,     HIDDEN,  NEEDED,   0},
    {"ffn_gate.weight",            LAYER_MATRIX(gate),             FFN,     HIDDEN,  NEEDED,   0},
    {"ffn_up.weight",              LAYER_MATRIX(up),               FFN,     HIDDEN,  NEEDED,   0},
    {"ffn_down.weight",            LAYER_MATRIX(down),             HIDDEN,  FFN,     NEEDED,   0},
    {"post_ffw_norm.weight",       LAYER_VECTOR(ffn_output_norm),  ONE,     HIDDEN,  NEEDED,   TRAIT_OUTPUT_NORMS},
};
// clang-format on

enum { N_ROWS = sizeof rows / sizeof *rows };

/* Listing ------------------------------------------------------------------------------------------------- */

static uint32_t size_of(enum extent extent, const struct model_config *config)
{
    const uint32_t sizes[N_EXTENTS] = {
        [ONE] = 1,
        [HIDDEN] = config->n_hidden,
        [QUERIES] = config->n_heads * config->head_dim,
        [KEYS] = config->n_kv_heads * config->head_dim,
        [HEAD] = config->head_dim,
        [PAIRS] = config->n_rot / 2,
        [FFN] = config->n_ffn,
        [VOCAB] = config->n_vocab,
    };
    return sizes[extent];
}

/* owner: the struct whose field it is. layer: of a layer's tensor. */
static void add_slot(struct tensor_list *list, const struct gguf *gguf, const struct model_config *config,
                     const struct row *row, void *owner, uint32_t layer)
{
    struct tensor_slot *slot = &list->slots[list->n++];
    void *field = (char *)owner + row->offset;
    *slot = (struct tensor_slot){
        .is_optional = row->presence == OPTIONAL,
        .matrix = row->is_matrix ? field : NULL,
        .vector = row->is_matrix ? NULL : field,
        .n_rows = size_of(row->n_rows, config),
        .n_columns = size_of(row->n_columns, config),
    };
    if (row->is_of_layer)
        snprintf(slot->name, sizeof slot->name, "blk.%u.%s", layer, row->name);
    else
        snprintf(slot->name, sizeof slot->name, "%s", row->name);
    slot->tensor = gguf_find_tensor(gguf, slot->name);
}

/* Adds the rows that the architecture has: the model's own, or those of a layer. */
static void add_slots(struct tensor_list *list, const struct gguf *gguf, const struct model_config *config,
                      bool is_of_layer, void *owner, uint32_t layer)
{
    unsigned traits = config->architecture->traits;
    for (size_t i = 0; i < N_ROWS; i++)
        if (rows[i].is_of_layer == is_of_layer && (traits & rows[i].trait) == rows[i].trait)
            add_slot(list, gguf, config, &rows[i], owner, layer);
}

/* Checking ------------------------------------------------------------------------------------------------ */

static int check_slot(const struct tensor_slot *slot, runnel_error *error)
{
    const struct gguf_tensor *tensor = slot->tensor;
    if (!tensor && slot->is_optional)
        return RUNNEL_OK;
    if (!tensor)
        return error_set(error, RUNNEL_EFORMAT, "tensor %s: not in the file, expected [%u, %u]", slot->name,
                         slot->n_columns, slot->n_rows);
    if (tensor->dims[0] != slot->n_columns || tensor->dims[1] != slot->n_rows || tensor->dims[2] != 1 ||
        tensor->dims[3] != 1)
        return error_set(error, RUNNEL_EFORMAT,
                         "tensor %s: shape [%llu, %llu, %llu, %llu], expected [%u, %u]", slot->name,
                         (unsigned long long)tensor->dims[0], (unsigned long long)tensor->dims[1],
                         (unsigned long long)tensor->dims[2], (unsigned long long)tensor->dims[3],
                         slot->n_columns, slot->n_rows);
    return RUNNEL_OK;
}

static bool is_listed(const struct tensor_list *list, const char *name)
{
    for (size_t i = 0; i < list->n; i++)
        if (!strcmp(list->slots[i].name, name))
            return true;
    return false;
}

/* A tensor that nothing asked for means that computing without it would be another model. */
static int check_no_tensor_is_left(const struct tensor_list *list, const struct gguf *gguf,
                                   const struct model_config *config, runnel_error *error)
{
    size_t n_bound = 0;
    for (size_t i = 0; i < list->n; i++)
        n_bound += list->slots[i].tensor != NULL;
    if (n_bound == gguf_n_tensors(gguf))
        return RUNNEL_OK;
    for (size_t i = 0; i < gguf_n_tensors(gguf); i++) {
        const char *name = gguf_tensor_at(gguf, i)->name;
        if (is_listed(list, name))
            continue;
        unsigned layer;
        if (sscanf(name, "blk.%u.", &layer) == 1 && layer >= config->n_layers)
            return error_set(error, RUNNEL_EFORMAT, "tensor %s: the file announces %u layers", name,
                             config->n_layers);
        return error_set(error, RUNNEL_EUNSUPPORTED, "tensor %s: not part of a %s model as it is known here",
                         name, config->architecture->name);
    }
    return RUNNEL_OK;
}

int tensors_bind(const struct gguf *gguf, struct weights *weights, struct tensor_list *list,
                 runnel_error *error)
{
    const struct model_config *config = &weights->config;
    *list =
        (struct tensor_list){.slots = calloc(N_ROWS * ((size_t)config->n_layers + 1), sizeof *list->slots)};
    if (!list->slots)
        return error_set(error, RUNNEL_ENOMEM, "no memory for the tensors of %u layers", config->n_layers);
    add_slots(list, gguf, config, false, weights, 0);
    for (uint32_t layer = 0; layer < config->n_layers; layer++)
        add_slots(list, gguf, config, true, &weights->layers[layer], layer);
    int failure = RUNNEL_OK;
    for (size_t i = 0; i < list->n && !failure; i++)
        failure = check_slot(&list->slots[i], error);
    if (!failure)
        failure = check_no_tensor_is_left(list, gguf, config, error);
    if (failure)
        tensors_free(list);
    return failure;
}

void tensors_free(struct tensor_list *list)
{
    free(list->slots);
    *list = (struct tensor_list){.n = 0};
}

/* Naming -------------------------------------------------------------------------------------------------- */

void tensors_name(const struct weights *weights, const struct packed_matrix *matrix, char *name, size_t size)
{
    uintptr_t place = (uintptr_t)matrix, layers = (uintptr_t)weights->layers;
    bool is_of_layer = place >= layers && place - layers < weights->config.n_layers * sizeof *weights->layers;
    if (matrix == &weights->output && weights->config.tied)
        matrix = &weights->embedding;
    size_t offset = is_of_layer ? (place - layers) % sizeof *weights->layers
                                : (size_t)((uintptr_t)matrix - (uintptr_t)weights);
    snprintf(name, size, "?");
    for (size_t i = 0; i < N_ROWS; i++)
        if (rows[i].is_matrix && rows[i].is_of_layer == is_of_layer && rows[i].offset == offset) {
            if (is_of_layer)
                snprintf(name, size, "blk.%zu.%s", (size_t)(place - layers) / sizeof *weights->layers,
                         rows[i].name);
            else
                snprintf(name, size, "%s", rows[i].name);
        }
}

/* Counting ------------------------------------------------------------------------------------------------ */

void tensors_count(const struct tensor_list *list, struct weights *weights)
{
    for (size_t i = 0; i < list->n; i++) {
        const struct tensor_slot *slot = &list->slots[i];
        const struct packed_matrix *matrix = slot->matrix;
        if (!slot->tensor)
            continue;
        weights->n_parameters += (uint64_t)slot->n_rows * slot->n_columns;
        if (!matrix) {
            weights->bytes_per_token += slot->n_columns * sizeof(float);
        } else if (matrix == &weights->embedding && !weights->config.tied) {
            weights->bytes_per_token += matrix->tile_bytes / TILE_ROWS; /* a row */
        } else {
            weights->bytes_per_token += matrix->n_tiles * matrix->tile_bytes;
            weights->acts[act_kind_of(matrix->kind)] = true;
        }
        if (matrix && matrix != &weights->embedding && matrix != &weights->output)
            weights->n_layer_weights += (uint64_t)slot->n_rows * slot->n_columns;
    }
}
