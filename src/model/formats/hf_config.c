/* hf_config.c: the shapes of a config.json, and how its weights are quantised. See hf_config.h. */
#include "model/formats/hf_config.h"

#include "kernels/ops.h"
#include "model/formats/folder_file.h"

#include <string.h>
#include <strings.h>

enum {
    LAYERS_MAX = 1024,
    WIDTH_MAX = 1 << 20,
    HEADS_MAX = 4096,
    VOCAB_MAX = 1 << 24,
    CONTEXT_MAX = 1 << 30,
    WINDOW_EVERY = 6, /* of so many layers the last has no window */
};

/* An architecture, and what its config.json leaves out where it is the usual. */
struct known {
    struct hf_architecture architecture;
    const char *names[3]; /* in "architectures" */
    const char *types[2]; /* in "model_type", for folders without that */
    const char *activation;
    uint32_t head_dim, n_heads, n_kv_heads, n_vocab,
        n_context; /* 0: must be said, or follows from the others */
    double rope_base, query_scale;
    bool is_tied;
};

static const struct known known[] = {
    {{"qwen2", HF_QKV_BIASES},
     {"Qwen2ForCausalLM", "Qwen2Model"},
     {"qwen2"},
     "silu",
     .n_context = 32768,
     .rope_base = 10000},
    {{"qwen3", HF_QK_NORM | HF_KEY_LENGTH},
     {"Qwen3ForCausalLM", "Qwen3Model"},
     {"qwen3"},
     "silu",
     .head_dim = 128,
     .n_context = 32768,
     .rope_base = 10000},
    {{"llama", HF_QKV_BIASES | HF_PERMUTED_QK},
     {"LlamaForCausalLM", "LlamaModel"},
     {"llama"},
     "silu",
     .n_context = 2048,
     .rope_base = 10000},
    {{"gemma3", HF_QK_NORM | HF_GEMMA_NORMS | HF_WINDOWS | HF_KEY_LENGTH},
     {"Gemma3ForCausalLM", "Gemma3ForConditionalGeneration", "Gemma3Model"},
     {"gemma3_text", "gemma3"},
     "gelu_pytorch_tanh",
     .head_dim = 256,
     .n_heads = 8,
     .n_kv_heads = 4,
     .n_vocab = 262208,
     .n_context = 131072,
     .rope_base = 1000000,
     .query_scale = 256,
     .is_tied = true},
};

enum { N_KNOWN = sizeof known / sizeof *known };

/* Which architecture ------------------------------------------------------------------------------------------ */

static bool is_among(const char *name, const char *const *names, size_t n)
{
    for (size_t i = 0; i < n && names[i]; i++)
        if (!strcmp(name, names[i]))
            return true;
    return false;
}

static int find_architecture(struct json_place place, const struct known **out, runnel_error *error)
{
    json_t *list = NULL;
    const char *type = NULL;
    int code = json_field_array(place, "architectures", &list, error);
    if (!code)
        code = json_field_text(place, "model_type", &type, error);
    if (code)
        return code;
    const char *name = json_string_value(json_array_get(list, 0));
    for (size_t i = 0; i < N_KNOWN; i++)
        if (name ? is_among(name, known[i].names, 3) : type && is_among(type, known[i].types, 2)) {
            *out = &known[i];
            return RUNNEL_OK;
        }
    if (!name && !type)
        return error_set(error, RUNNEL_EFORMAT, "%s: architectures: not there", place.name);
    return error_set(error, RUNNEL_EUNSUPPORTED,
                     "%s: architecture %.60s is not known, expected Qwen2ForCausalLM, Qwen3ForCausalLM, "
                     "LlamaForCausalLM, Gemma3ForCausalLM or Gemma3ForConditionalGeneration",
                     place.name, name ? name : type);
}

const json_t *hf_config_text(const json_t *root)
{
    const json_t *text = json_object_get(root, "text_config");
    return json_is_object(text) ? text : root;
}

/* Shapes ------------------------------------------------------------------------------------------------------ */

/* A number that must be there, unless *value is one already. */
static int need_u32(struct json_place place, const char *key, uint32_t most, uint32_t *value,
                    runnel_error *error)
{
    int code = json_field_u32(place, key, 1, most, value, error);
    if (!code && !*value)
        code = error_set(error, RUNNEL_EFORMAT, "%s: %s: not there", place.name, key);
    return code;
}

static int read_heads(struct json_place place, const struct known *row, struct hf_config *config,
                      runnel_error *error)
{
    config->n_heads = row->n_heads;
    int code = need_u32(place, "num_attention_heads", HEADS_MAX, &config->n_heads, error);
    if (code)
        return code;
    config->n_kv_heads = row->n_kv_heads ? row->n_kv_heads : config->n_heads;
    code = need_u32(place, "num_key_value_heads", HEADS_MAX, &config->n_kv_heads, error);
    if (code)
        return code;
    if (config->n_heads % config->n_kv_heads)
        return error_set(error, RUNNEL_EFORMAT,
                         "%s: num_attention_heads: %u is no multiple of num_key_value_heads, %u", place.name,
                         config->n_heads, config->n_kv_heads);
    config->has_head_dim = json_field(place, "head_dim") != NULL;
    config->head_dim = row->head_dim;
    if (!config->has_head_dim && !config->head_dim) {
        if (config->n_hidden % config->n_heads)
            return error_set(error, RUNNEL_EFORMAT,
                             "%s: hidden_size: %u is no multiple of num_attention_heads, %u", place.name,
                             config->n_hidden, config->n_heads);
        config->head_dim = config->n_hidden / config->n_heads;
    }
    code = need_u32(place, "head_dim", KV_HEAD_DIM_MAX, &config->head_dim, error);
    if (!code && (config->head_dim % 2 || config->head_dim > KV_HEAD_DIM_MAX))
        code =
            error_set(error, RUNNEL_EFORMAT, "%s: a head of %u values, an even number of at most %d expected",
                      place.name, config->head_dim, (int)KV_HEAD_DIM_MAX);
    return code;
}

static int read_shapes(struct json_place place, const struct known *row, struct hf_config *config,
                       runnel_error *error)
{
    int code = need_u32(place, "num_hidden_layers", LAYERS_MAX, &config->n_layers, error);
    if (!code)
        code = need_u32(place, "hidden_size", WIDTH_MAX, &config->n_hidden, error);
    if (!code)
        code = need_u32(place, "intermediate_size", WIDTH_MAX, &config->n_ffn, error);
    if (!code)
        code = read_heads(place, row, config, error);
    config->n_vocab = row->n_vocab;
    if (!code)
        code = need_u32(place, "vocab_size", VOCAB_MAX, &config->n_vocab, error);
    config->n_context = row->n_context;
    if (!code)
        code = need_u32(place, "max_position_embeddings", CONTEXT_MAX, &config->n_context, error);
    config->norm_epsilon = 1e-6;
    if (!code)
        code = json_field_positive(place, "rms_norm_eps", &config->norm_epsilon, error);
    return code;
}

/* What would be another model --------------------------------------------------------------------------------- */

static int refuse_value(struct json_place place, const char *key, const char *found, const char *expected,
                        runnel_error *error)
{
    return error_set(error, RUNNEL_EUNSUPPORTED, "%s: %s: %.40s is not supported, expected %s", place.name,
                     key, found, expected);
}

static int check_activation(struct json_place place, const struct known *row, runnel_error *error)
{
    static const char *const keys[] = {"hidden_act", "hidden_activation"};
    for (size_t i = 0; i < 2; i++) {
        const char *found = NULL;
        int code = json_field_text(place, keys[i], &found, error);
        if (!code && found && strcmp(found, row->activation) != 0)
            code = refuse_value(place, keys[i], found, row->activation, error);
        if (code)
            return code;
    }
    return RUNNEL_OK;
}

/* Switches that nobody but these has. */
static int check_switches(struct json_place place, runnel_error *error)
{
    static const char *const off[] = {"use_bidirectional_attention", "mlp_bias"};
    static const char *const unset[] = {"attn_logit_softcapping", "final_logit_softcapping"};
    for (size_t i = 0; i < 2; i++) {
        bool is_on = false;
        int code = json_field_bool(place, off[i], &is_on, error);
        if (!code && is_on)
            code = refuse_value(place, off[i], "true", "false", error);
        if (!code && json_field(place, unset[i]))
            code = refuse_value(place, unset[i], "a number", "null", error);
        if (code)
            return code;
    }
    return RUNNEL_OK;
}

static bool has_window(const struct hf_config *config, uint32_t layer)
{
    return config->architecture->traits & HF_WINDOWS && (layer + 1) % WINDOW_EVERY;
}

static int check_layer_types(struct json_place place, json_t *types, const struct hf_config *config,
                             runnel_error *error)
{
    if (json_array_size(types) != config->n_layers)
        return error_set(error, RUNNEL_EFORMAT,
                         "%s: layer_types: %zu entries, %u expected as there are layers", place.name,
                         json_array_size(types), config->n_layers);
    for (uint32_t layer = 0; layer < config->n_layers; layer++) {
        const char *type = json_string_value(json_array_get(types, layer));
        const char *expected = has_window(config, layer) ? "sliding_attention" : "full_attention";
        if (!type || strcmp(type, expected) != 0)
            return error_set(error, RUNNEL_EUNSUPPORTED,
                             "%s: layer_types: \"%.40s\" of layer %u is not supported, expected \"%s\"",
                             place.name, type ? type : "", layer, expected);
    }
    return RUNNEL_OK;
}

/* Of the architectures without windows: may be there and switched off, or as long as the context. */
static int check_no_window(struct json_place place, const struct hf_config *config, runnel_error *error)
{
    bool is_used = false;
    uint32_t first = 0, window = 0;
    int code = json_field_bool(place, "use_sliding_window", &is_used, error);
    if (!code)
        code = json_field_u32(place, "max_window_layers", 0, UINT32_MAX, &first, error);
    if (!code)
        code = json_field_u32(place, "sliding_window", 0, UINT32_MAX, &window, error);
    if (code || !is_used || first >= config->n_layers || !window || window >= config->n_context)
        return code;
    return refuse_value(place, "use_sliding_window", "true", "false", error);
}

static int read_windows(struct json_place place, struct hf_config *config, runnel_error *error)
{
    json_t *types = NULL;
    uint32_t every = WINDOW_EVERY;
    int code = json_field_array(place, "layer_types", &types, error);
    if (!code && types)
        code = check_layer_types(place, types, config, error);
    if (code)
        return code;
    if (!(config->architecture->traits & HF_WINDOWS))
        return types ? RUNNEL_OK : check_no_window(place, config, error);
    code = need_u32(place, "sliding_window", CONTEXT_MAX, &config->window, error);
    if (!code && !types)
        code = json_field_u32(place, "sliding_window_pattern", 0, UINT32_MAX, &every, error);
    if (!code && every != WINDOW_EVERY)
        code = error_set(error, RUNNEL_EUNSUPPORTED,
                         "%s: sliding_window_pattern: %u is not supported, expected %d", place.name, every,
                         WINDOW_EVERY);
    return code;
}

/* Quantised weights ------------------------------------------------------------------------------------------- */

static int check_awq(struct json_place place, runnel_error *error)
{
    const char *version = "gemm", *backend = "autoawq";
    int code = json_field_text(place, "version", &version, error);
    if (!code)
        code = json_field_text(place, "backend", &backend, error);
    if (!code && strcasecmp(version, "gemm") != 0)
        code = refuse_value(place, "version", version, "gemm, the packing that is known", error);
    if (!code && strcasecmp(backend, "autoawq") != 0)
        code = refuse_value(place, "backend", backend, "autoawq, whose packing is known", error);
    return code;
}

static int check_gptq(struct json_place place, struct hf_config *config, runnel_error *error)
{
    const char *format = "gptq", *pack = "int32";
    bool is_marlin = false;
    int code = json_field_text(place, "checkpoint_format", &format, error);
    if (!code)
        code = json_field_text(place, "pack_dtype", &pack, error);
    if (!code)
        code = json_field_bool(place, "is_marlin_format", &is_marlin, error);
    if (!code && is_marlin)
        format = "marlin";
    config->zero_excess = !strcmp(format, "gptq");
    if (!code && !config->zero_excess && strcmp(format, "gptq_v2") != 0)
        code = refuse_value(place, "checkpoint_format", format, "gptq or gptq_v2", error);
    if (!code && strcmp(pack, "int32") != 0)
        code = refuse_value(place, "pack_dtype", pack, "int32", error);
    return code;
}

/* -1, all columns of a tensor, becomes 0. */
static int read_group(struct json_place place, struct hf_config *config, runnel_error *error)
{
    const char *key = json_field(place, "group_size") ? "group_size" : "q_group_size";
    if (json_is_integer(json_field(place, key)) && json_integer_value(json_field(place, key)) == -1)
        return RUNNEL_OK;
    int code = need_u32(place, key, WIDTH_MAX, &config->group, error);
    if (!code && config->group % 32)
        code = error_set(error, RUNNEL_EUNSUPPORTED,
                         "%s: %s: groups of %u do not fit blocks of 32, expected 32, "
                         "64, 128 or another multiple of 32",
                         place.name, key, config->group);
    return code;
}

static int read_method(struct json_place place, enum hf_quant_method by_default, struct hf_config *config,
                       runnel_error *error)
{
    const char *method = by_default == HF_QUANT_AWQ ? "awq" : by_default == HF_QUANT_GPTQ ? "gptq" : "";
    uint32_t n_bits = 0;
    int code = json_field_text(place, "quant_method", &method, error);
    if (code)
        return code;
    config->quant = !strcmp(method, "awq")    ? HF_QUANT_AWQ
                    : !strcmp(method, "gptq") ? HF_QUANT_GPTQ
                                              : HF_QUANT_NONE;
    if (!config->quant)
        return refuse_value(place, "quant_method", *method ? method : "a checkpoint without one",
                            "awq or gptq", error);
    const char *key = json_field(place, "bits") ? "bits" : "w_bit";
    code = need_u32(place, key, 64, &n_bits, error);
    if (!code && n_bits != 4)
        code = error_set(error, RUNNEL_EUNSUPPORTED,
                         "%s: %s: weights of %u bits are not supported, expected 4", place.name, key, n_bits);
    if (!code)
        code = read_group(place, config, error);
    if (!code)
        code = config->quant == HF_QUANT_AWQ ? check_awq(place, error) : check_gptq(place, config, error);
    return code;
}

static int read_quant(struct json_place place, const json_t *quant, const char *quant_name,
                      enum hf_quant_method quant_method, struct hf_config *config, runnel_error *error)
{
    json_t *own = NULL;
    int code = json_field_object(place, "quantization_config", &own, error);
    if (code)
        return code;
    if (own)
        return read_method((struct json_place){own, "config.json: quantization_config"}, HF_QUANT_NONE,
                           config, error);
    if (quant)
        return read_method((struct json_place){quant, quant_name}, quant_method, config, error);
    return RUNNEL_OK;
}

/* All --------------------------------------------------------------------------------------------------------- */

int hf_config_read(const json_t *root, const json_t *quant, const char *quant_name,
                   enum hf_quant_method quant_method, struct hf_config *out, runnel_error *error)
{
    struct hf_config config = {.n_layers = 0};
    struct json_place whole = {root, "config.json"};
    const struct known *row = NULL;
    int code = find_architecture(whole, &row, error);
    if (code)
        return code;
    struct json_place place = {hf_config_text(root), "config.json"};
    config.architecture = &row->architecture;
    config.is_tied = row->is_tied;
    config.rope.base = row->rope_base;
    config.query_scale = row->query_scale;
    code = json_field_bool(place, "tie_word_embeddings", &config.is_tied, error);
    if (!code)
        code = read_shapes(place, row, &config, error);
    if (!code)
        code = json_field_positive(place, "query_pre_attn_scalar", &config.query_scale, error);
    if (!code)
        code = check_activation(place, row, error);
    if (!code)
        code = check_switches(place, error);
    if (!code)
        code = read_windows(place, &config, error);
    if (!code)
        code = hf_rope_read(place, &config, error);
    if (!code)
        code = read_quant(whole, quant, quant_name, quant_method, &config, error);
    if (!code)
        *out = config;
    return code;
}
