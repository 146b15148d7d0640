/* hf_tensors.c: the list of a model's tensors, and where a checkpoint has them. See hf_tensors.h. */
#include "model/formats/hf_tensors.h"

#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* What the rows and columns of tensors are counted in. */
enum extent { ONE, HIDDEN, QUERIES, KEYS, HEAD, FFN, VOCAB, N_EXTENTS };

enum change { AS_IT_IS, HEADS_OF_Q, HEADS_OF_K, SCALED };

struct row {
    const char *name;   /* in the GGUF file; a layer's comes after "blk.<layer>." */
    const char *source; /* in the checkpoint; a layer's comes after "layers.<layer>." */
    bool is_of_layer, is_matrix;
    enum extent n_rows, n_columns;
    enum { NEEDED, OPTIONAL } presence;
    unsigned trait, no_trait; /* of the architectures that have it; 0: all do */
    enum change change;
};

// clang-format off
static const struct row rows[] = {
    {"token_embd.weight",  "embed_tokens.weight",             false, true,  VOCAB,   HIDDEN,  NEEDED,   0, 0, AS_IT_IS},
    {"output_norm.weight", "norm.weight",                     false, false, ONE,     HIDDEN,  NEEDED,   0, 0, AS_IT_IS},

    {"attn_norm.weight",   "input_layernorm.weight",          true,  false, ONE,     HIDDEN,  NEEDED,   0, 0, AS_IT_IS},
    {"attn_q.weight",      "self_attn.q_proj.weight",         true,  true,  QUERIES, HIDDEN,  NEEDED,   0, 0, HEADS_OF_Q},
    {"attn_k.weight",      "self_attn.k_proj.weight",         true,  true,  KEYS,    HIDDEN,  NEEDED,   0, 0, HEADS_OF_K},
    {"attn_v.weight",      "self_attn.v_proj.weight",         true,  true,  KEYS,    HIDDEN,  NEEDED,   0, 0, AS_IT_IS},
    {"attn_q.bias",        "self_attn.q_proj.bias",           true,  false, ONE,     QUERIES, OPTIONAL, HF_QKV_BIASES, 0, HEADS_OF_Q},
    {"attn_k.bias",        "self_attn.k_proj.bias",           true,  false, ONE,     KEYS,    OPTIONAL, HF_QKV_BIASES, 0, HEADS_OF_K},
    {"attn_v.bias",        "self_attn.v_proj.bias",           true,  false, ONE,     KEYS,    OPTIONAL, HF_QKV_BIASES, 0, AS_IT_IS},
    {"attn_q_norm.weight", "self_attn.q_norm.weight",         true,  false, ONE,     HEAD,    NEEDED,   HF_QK_NORM, 0, SCALED},
    {"attn_k_norm.weight", "self_attn.k_norm.weight",         true,  false, ONE,     HEAD,    NEEDED,   HF_QK_NORM, 0, AS_IT_IS},
    {"attn_output.weight", "self_attn.o_proj.weight",         true,  true,  HIDDEN,  QUERIES, NEEDED,   0, 0, AS_IT_IS},
    {"post_attention_norm.weight", "post_attention_layernorm.weight", true, false, ONE, HIDDEN, NEEDED, HF_GEMMA_NORMS, 0, AS_IT_IS},
    {"ffn_norm.weight",    "post_attention_layernorm.weight", true,  false, ONE,     HIDDEN,  NEEDED,   0, HF_GEMMA_NORMS, AS_IT_IS},
    {"ffn_norm.weight",    "pre_feedforward_layernorm.weight", true, false, ONE,     HIDDEN,  NEEDED,   HF_GEMMA_NORMS, 0, AS_IT_IS},
    {"post_ffw_norm.weight", "post_feedforward_layernorm.weight", true, false, ONE,  HIDDEN,  NEEDED,   HF_GEMMA_NORMS, 0, AS_IT_IS},
    {"ffn_gate.weight",    "mlp.gate_proj.weight",            true,  true,  FFN,     HIDDEN,  NEEDED,   0, 0, AS_IT_IS},
    {"ffn_up.weight",      "mlp.up_proj.weight",              true,  true,  FFN,     HIDDEN,  NEEDED,   0, 0, AS_IT_IS},
    {"ffn_down.weight",    "mlp.down_proj.weight",            true,  true,  HIDDEN,  FFN,     NEEDED,   0, 0, AS_IT_IS},
};
static const struct row head_row =
    {"output.weight",      "lm_head.weight",                  false, true,  VOCAB,   HIDDEN,  NEEDED,   0, 0, AS_IT_IS};
// clang-format on

enum { N_ROWS = sizeof rows / sizeof *rows };

/* Before the names of a checkpoint, and before that of its head: of a model for text, the same without a head, and of models
 * that see as well, in the form of 2025 and that of today. */
static const struct {
    const char *body, *head;
} prefixes[] = {
    {"model.", ""}, {"", ""}, {"language_model.model.", "language_model."}, {"model.language_model.", ""}};

/* No key of a GGUF file says what queries are scaled by: readers take the size of a head, but of Gemma 3 27B, which they know by
 * its number of layers, the width over the heads. */
enum { LAYERS_OF_GEMMA3_27B = 62 };

static double scale_of_readers(const struct hf_config *config)
{
    return config->n_layers == LAYERS_OF_GEMMA3_27B ? config->n_hidden / config->n_heads : config->head_dim;
}

/* What is being listed. */
struct listing {
    struct checkpoint *checkpoint;
    const struct hf_config *config;
    const char *body, *head; /* the prefixes */
    enum tensor_type type;
    hf_remark *remark;
    void *user;
    struct hf_tensors tensors;
};

static void __attribute__((format(printf, 2, 3))) tell(const struct listing *listing, const char *format, ...)
{
    char line[400];
    va_list args;
    va_start(args, format);
    vsnprintf(line, sizeof line, format, args);
    va_end(args);
    if (listing->remark)
        listing->remark(listing->user, line);
}

/* Finding ------------------------------------------------------------------------------------------------------ */

static uint32_t size_of(enum extent extent, const struct hf_config *config)
{
    const uint32_t sizes[N_EXTENTS] = {
        [ONE] = 1,
        [HIDDEN] = config->n_hidden,
        [QUERIES] = config->n_heads * config->head_dim,
        [KEYS] = config->n_kv_heads * config->head_dim,
        [HEAD] = config->head_dim,
        [FFN] = config->n_ffn,
        [VOCAB] = config->n_vocab,
    };
    return sizes[extent];
}

static int check_shape(const struct hf_tensor *tensor, const struct safetensor *source, runnel_error *error)
{
    bool fits = tensor->is_matrix ? source->n_dims == 2 && source->dims[0] == tensor->n_rows &&
                                        source->dims[1] == tensor->n_columns
                                  : source->n_dims == 1 && source->dims[0] == tensor->n_columns;
    if (fits)
        return RUNNEL_OK;
    char found[SAFETENSORS_DIMS_MAX * 22 + 1] = "";
    for (uint32_t d = 0, len = 0; d < source->n_dims; d++)
        len +=
            (uint32_t)snprintf(found + len, sizeof found - len, "%s%" PRIu64, d ? ", " : "", source->dims[d]);
    if (tensor->is_matrix)
        return error_set(error, RUNNEL_EFORMAT, "tensor %s: shape [%s], expected [%u, %u] by config.json",
                         source->name, found, tensor->n_rows, tensor->n_columns);
    return error_set(error, RUNNEL_EFORMAT, "tensor %s: shape [%s], expected [%u] by config.json",
                     source->name, found, tensor->n_columns);
}

static void set_change(const struct hf_config *config, const struct row *row, struct hf_tensor *tensor)
{
    unsigned traits = config->architecture->traits;
    bool is_norm = !row->is_matrix && strstr(row->name, "norm.weight");
    tensor->factor = 1;
    if (traits & HF_PERMUTED_QK && row->change == HEADS_OF_Q)
        tensor->n_heads = config->n_heads;
    if (traits & HF_PERMUTED_QK && row->change == HEADS_OF_K)
        tensor->n_heads = config->n_kv_heads;
    if (traits & HF_GEMMA_NORMS && is_norm)
        tensor->add = 1;
    if (traits & HF_GEMMA_NORMS && row->change == SCALED && config->query_scale > 0)
        tensor->factor = (float)sqrt(scale_of_readers(config) / config->query_scale);
}

/* The type of a matrix of floats in the GGUF file: rows must be whole blocks. */
static enum tensor_type matrix_type(const struct listing *listing, const struct hf_tensor *tensor)
{
    if (tensor->n_columns % quant_find((uint32_t)listing->type)->block_values == 0)
        return listing->type;
    tell(listing, "%s: rows of %u values are no whole blocks of %s: F16", tensor->name, tensor->n_columns,
         quant_find((uint32_t)listing->type)->name);
    return TENSOR_F16;
}

static int find_stored(struct listing *listing, struct checkpoint_tensor *source, struct hf_tensor *tensor,
                       runnel_error *error)
{
    source->is_taken = true;
    tensor->stored = source;
    int code = check_shape(tensor, source->tensor, error);
    if (!code)
        code = checkpoint_float_type(source, &tensor->stored_type, error);
    if (!code)
        tensor->type = tensor->is_matrix ? matrix_type(listing, tensor) : TENSOR_F32;
    return code;
}

static int find_quantised(struct listing *listing, const char *source, struct hf_tensor *tensor,
                          bool *is_there, runnel_error *error)
{
    static const char ending[] = ".weight";
    char base[256];
    size_t len = strlen(source);
    *is_there = false;
    if (!tensor->is_matrix || len < sizeof ending || strcmp(source + len - (sizeof ending - 1), ending) != 0)
        return RUNNEL_OK;
    snprintf(base, sizeof base, "%.*s", (int)(len - (sizeof ending - 1)), source);
    int code = int4_find(listing->checkpoint, listing->config, base, tensor->n_rows, tensor->n_columns,
                         &tensor->int4, is_there, error);
    tensor->type = tensor->int4.type;
    return code;
}

/* prefix: of the name in the checkpoint. layer: of a layer's tensor. */
static int add_tensor(struct listing *listing, const struct row *row, const char *prefix, uint32_t layer,
                      runnel_error *error)
{
    const struct hf_config *config = listing->config;
    struct hf_tensor *tensor = &listing->tensors.list[listing->tensors.n];
    char source[256], before[32] = "";
    bool is_there;
    *tensor = (struct hf_tensor){.is_matrix = row->is_matrix,
                                 .n_rows = size_of(row->n_rows, config),
                                 .n_columns = size_of(row->n_columns, config)};
    if (row->is_of_layer)
        snprintf(before, sizeof before, "layers.%u.", layer);
    snprintf(source, sizeof source, "%s%s%s", prefix, before, row->source);
    if (row->is_of_layer)
        snprintf(before, sizeof before, "blk.%u.", layer);
    snprintf(tensor->name, sizeof tensor->name, "%s%s", before, row->name);
    set_change(config, row, tensor);

    struct checkpoint_tensor *stored = checkpoint_find(listing->checkpoint, source);
    int code = stored ? find_stored(listing, stored, tensor, error)
                      : find_quantised(listing, source, tensor, &is_there, error);
    if (code)
        return code;
    if (!stored && !is_there && row->presence == OPTIONAL)
        return RUNNEL_OK;
    if (!stored && !is_there)
        return error_set(error, RUNNEL_EFORMAT, "tensor %s: not in the folder%s", source,
                         row == &head_row ? ", and config.json does not tie it to the embedding" : "");
    listing->tensors.n++;
    return RUNNEL_OK;
}

static int add_rows(struct listing *listing, bool is_of_layer, uint32_t layer, runnel_error *error)
{
    unsigned traits = listing->config->architecture->traits;
    int code = RUNNEL_OK;
    for (size_t i = 0; i < N_ROWS && !code; i++)
        if (rows[i].is_of_layer == is_of_layer && (traits & rows[i].trait) == rows[i].trait &&
            !(traits & rows[i].no_trait))
            code = add_tensor(listing, &rows[i], listing->body, layer, error);
    return code;
}

/* Llama 3's stretching: slow pairs of a head turn `factor` times slower, fast ones as before, those between in proportion. */
static double llama3_divisor(const struct hf_rope *rope, uint32_t head_dim, uint32_t pair)
{
    double wavelength = 2 * M_PI * pow(rope->base, 2.0 * pair / head_dim);
    double turns = rope->n_context_original / wavelength; /* over the original context */
    if (turns > rope->high_freq_factor)
        return 1;
    if (turns < rope->low_freq_factor)
        return rope->factor;
    double smooth = (turns - rope->low_freq_factor) / (rope->high_freq_factor - rope->low_freq_factor);
    return 1 / ((1 - smooth) / rope->factor + smooth);
}

static int add_rope_factors(struct listing *listing, runnel_error *error)
{
    const struct hf_config *config = listing->config;
    if (config->rope.scaling != HF_SCALING_LLAMA3)
        return RUNNEL_OK;
    struct hf_tensor *tensor = &listing->tensors.list[listing->tensors.n];
    *tensor = (struct hf_tensor){.name = "rope_freqs.weight",
                                 .n_rows = 1,
                                 .n_columns = config->head_dim / 2,
                                 .type = TENSOR_F32,
                                 .factor = 1};
    tensor->computed = malloc(tensor->n_columns * sizeof *tensor->computed);
    if (!tensor->computed)
        return error_set(error, RUNNEL_ENOMEM, "no memory for %u factors of rotation", tensor->n_columns);
    for (uint32_t pair = 0; pair < tensor->n_columns; pair++)
        tensor->computed[pair] = (float)llama3_divisor(&config->rope, config->head_dim, pair);
    listing->tensors.n++;
    return RUNNEL_OK;
}

/* What nobody asked for ---------------------------------------------------------------------------------------- */

static bool ends_with(const char *name, const char *ending)
{
    size_t len = strlen(name), end = strlen(ending);
    return len >= end && !strcmp(name + len - end, ending);
}

static bool is_of_vision(const char *name)
{
    static const char *const beginnings[] = {"vision_tower.", "multi_modal_projector.", "model.vision_tower.",
                                             "model.multi_modal_projector."};
    for (size_t i = 0; i < sizeof beginnings / sizeof *beginnings; i++)
        if (!strncmp(name, beginnings[i], strlen(beginnings[i])))
            return true;
    return false;
}

/* Checkpoints of GPTQ have biases for layers without any. */
static int is_zero(const struct checkpoint_tensor *tensor, bool *zero, runnel_error *error)
{
    enum tensor_type type;
    uint64_t n_bytes = tensor->tensor->n_bytes;
    *zero = false;
    if (n_bytes > 4 << 20 || checkpoint_float_type(tensor, &type, NULL))
        return RUNNEL_OK;
    unsigned char *bytes = malloc((size_t)n_bytes + 1);
    if (!bytes)
        return error_set(error, RUNNEL_ENOMEM, "tensor %s: no memory", tensor->tensor->name);
    int code = safetensors_read(tensor->file, tensor->tensor, 0, bytes, (size_t)n_bytes, error);
    size_t value_bytes = type == TENSOR_F32 ? 4 : 2;
    *zero = !code;
    for (size_t i = 0; i < n_bytes && *zero; i++) /* -0 has a bit in the upper byte of a value */
        *zero = (bytes[i] & (i % value_bytes == value_bytes - 1 ? 0x7f : 0xff)) == 0;
    free(bytes);
    return code;
}

/* A tensor that nothing asked for means that computing without it would be another model, but for these. */
static int check_left(const struct listing *listing, runnel_error *error)
{
    const struct hf_config *config = listing->config;
    size_t n_vision = 0;
    for (size_t i = 0; i < listing->checkpoint->n; i++) {
        const struct checkpoint_tensor *tensor = &listing->checkpoint->tensors[i];
        const char *name = tensor->tensor->name;
        bool zero = false;
        if (tensor->is_taken || ends_with(name, ".rotary_emb.inv_freq") || ends_with(name, ".masked_bias"))
            continue;
        if (config->is_tied && ends_with(name, "lm_head.weight"))
            continue;
        if (config->architecture->traits & HF_WINDOWS && is_of_vision(name)) {
            n_vision++;
            continue;
        }
        if (ends_with(name, "_proj.bias")) {
            int code = is_zero(tensor, &zero, error);
            if (code)
                return code;
        }
        if (!zero)
            return error_set(error, RUNNEL_EUNSUPPORTED,
                             "tensor %s: not part of a %s model of %u layers as it is known here", name,
                             config->architecture->name, config->n_layers);
    }
    if (n_vision)
        tell(listing, "left out: %zu tensor%s of the part that sees", n_vision, n_vision == 1 ? "" : "s");
    return RUNNEL_OK;
}

/* All ---------------------------------------------------------------------------------------------------------- */

static int find_prefix(struct listing *listing, runnel_error *error)
{
    char name[64];
    for (size_t i = 0; i < sizeof prefixes / sizeof *prefixes; i++) {
        snprintf(name, sizeof name, "%sembed_tokens.weight", prefixes[i].body);
        if (checkpoint_find(listing->checkpoint, name)) {
            listing->body = prefixes[i].body;
            listing->head = prefixes[i].head;
            return RUNNEL_OK;
        }
    }
    return error_set(error, RUNNEL_EFORMAT, "tensor model.embed_tokens.weight: not in the folder");
}

/* The type that most values of matrices have. */
static enum tensor_type most_frequent_type(const struct checkpoint *checkpoint)
{
    static const enum tensor_type types[] = {TENSOR_BF16, TENSOR_F16, TENSOR_F32};
    uint64_t n_values[3] = {0};
    size_t most = 0;
    for (size_t i = 0; i < checkpoint->n; i++) {
        enum tensor_type type;
        const struct safetensor *tensor = checkpoint->tensors[i].tensor;
        if (tensor->n_dims != 2 || !ends_with(tensor->name, ".weight") ||
            checkpoint_float_type(&checkpoint->tensors[i], &type, NULL))
            continue;
        for (size_t t = 0; t < 3; t++)
            if (types[t] == type)
                n_values[t] += tensor->dims[0] * tensor->dims[1];
    }
    for (size_t t = 1; t < 3; t++)
        if (n_values[t] > n_values[most])
            most = t;
    return types[most];
}

int hf_tensors_find(struct checkpoint *checkpoint, const struct hf_config *config,
                    const enum tensor_type *type, hf_remark *remark, void *user, struct hf_tensors *out,
                    runnel_error *error)
{
    struct listing listing = {.checkpoint = checkpoint,
                              .config = config,
                              .type = type ? *type : most_frequent_type(checkpoint),
                              .remark = remark,
                              .user = user};
    int code = find_prefix(&listing, error);
    if (code)
        return code;
    listing.tensors.list = calloc(N_ROWS * ((size_t)config->n_layers + 1) + 2, sizeof *listing.tensors.list);
    if (!listing.tensors.list)
        return error_set(error, RUNNEL_ENOMEM, "no memory for the tensors of %u layers", config->n_layers);
    code = add_rows(&listing, false, 0, error);
    if (!code && !config->is_tied)
        code = add_tensor(&listing, &head_row, listing.head, 0, error);
    if (!code)
        code = add_rope_factors(&listing, error);
    for (uint32_t layer = 0; layer < config->n_layers && !code; layer++)
        code = add_rows(&listing, true, layer, error);
    if (!code)
        code = check_left(&listing, error);
    if (code)
        hf_tensors_free(&listing.tensors);
    else
        *out = listing.tensors;
    return code;
}

void hf_tensors_free(struct hf_tensors *tensors)
{
    for (size_t i = 0; i < tensors->n; i++)
        free(tensors->list[i].computed);
    free(tensors->list);
    *tensors = (struct hf_tensors){.list = NULL};
}
