/* config.c: a model's hyperparameters, read from the file's keys and checked. Owns nothing; any thread. */
#include "model/weights.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum {
    LAYERS_MAX = 1024,
    WIDTH_MAX = 1 << 20, /* of the residual stream and the feed-forward network */
    HEADS_MAX = 4096,
    CONTEXT_MAX = 1 << 30,
};

/* A key "<architecture>.<name>". Absent: *value keeps its default, unless that is 0, which means that it is
 * needed. */
static int read_u32(const struct gguf *gguf, const struct model_config *config, const char *name,
                    uint32_t max, uint32_t *value, runnel_error *error)
{
    char key[128];
    snprintf(key, sizeof key, "%s.%s", config->architecture->name, name);
    if (*value && !gguf_has_key(gguf, key))
        return RUNNEL_OK;
    uint32_t found;
    int failure = gguf_get_u32(gguf, key, &found, error);
    if (failure)
        return failure;
    if (found < 1 || found > max)
        return error_set(error, RUNNEL_EFORMAT, "key %s: %u, expected 1 to %u", key, found, max);
    *value = found;
    return RUNNEL_OK;
}

static int read_f32(const struct gguf *gguf, const struct model_config *config, const char *name,
                    float *value, runnel_error *error)
{
    char key[128];
    snprintf(key, sizeof key, "%s.%s", config->architecture->name, name);
    if (*value != 0 && !gguf_has_key(gguf, key))
        return RUNNEL_OK;
    float found;
    int failure = gguf_get_f32(gguf, key, &found, error);
    if (failure)
        return failure;
    if (!isfinite(found) || found <= 0)
        return error_set(error, RUNNEL_EFORMAT, "key %s: %g, expected a finite number above 0", key,
                         (double)found);
    *value = found;
    return RUNNEL_OK;
}

static int read_architecture(const struct gguf *gguf, struct model_config *config, runnel_error *error)
{
    struct gguf_string name;
    int failure = gguf_get_string(gguf, "general.architecture", &name, error);
    if (failure)
        return failure;
    config->architecture = architecture_find(name.bytes, name.len);
    return config->architecture ? RUNNEL_OK : architecture_unknown(name.bytes, name.len, error);
}

static const char *const rope_scalings[] = {
    [ROPE_SCALING_NONE] = "none", [ROPE_SCALING_LINEAR] = "linear", [ROPE_SCALING_YARN] = "yarn"};

const char *rope_scaling_name(enum rope_scaling scaling)
{
    return rope_scalings[scaling];
}

static int read_rope_scaling(const struct gguf *gguf, const struct model_config *config,
                             enum rope_scaling *scaling, runnel_error *error)
{
    char key[128];
    snprintf(key, sizeof key, "%s.rope.scaling.type", config->architecture->name);
    *scaling = ROPE_SCALING_LINEAR; /* what a factor without a kind means; without a factor it is 1 */
    if (!gguf_has_key(gguf, key))
        return RUNNEL_OK;
    struct gguf_string type;
    int failure = gguf_get_string(gguf, key, &type, error);
    if (failure)
        return failure;
    for (size_t i = 0; i < sizeof rope_scalings / sizeof *rope_scalings; i++)
        if (strlen(rope_scalings[i]) == type.len && !memcmp(rope_scalings[i], type.bytes, type.len)) {
            *scaling = (enum rope_scaling)i;
            return RUNNEL_OK;
        }
    return error_set(error, RUNNEL_EUNSUPPORTED,
                     "key %s: \"%.*s\" is not supported, expected \"none\", \"linear\" or \"yarn\"", key,
                     type.len > 40 ? 40 : (int)type.len, type.bytes);
}

static int read_yarn(const struct gguf *gguf, const struct model_config *config, struct rope_config *rope,
                     runnel_error *error)
{
    float ext_factor = 1;
    int failure = read_u32(gguf, config, "rope.scaling.original_context_length", CONTEXT_MAX,
                           &rope->n_context_original, error);
    if (!failure)
        failure = read_f32(gguf, config, "rope.scaling.yarn_beta_fast", &rope->beta_fast, error);
    if (!failure)
        failure = read_f32(gguf, config, "rope.scaling.yarn_beta_slow", &rope->beta_slow, error);
    if (!failure)
        failure = read_f32(gguf, config, "rope.scaling.yarn_ext_factor", &ext_factor, error);
    if (failure)
        return failure;
    if (ext_factor != 1)
        return error_set(error, RUNNEL_EUNSUPPORTED,
                         "key %s.rope.scaling.yarn_ext_factor: %g is not supported, expected 1",
                         config->architecture->name, (double)ext_factor);
    return RUNNEL_OK;
}

static int read_rope(const struct gguf *gguf, const struct model_config *config, struct rope_config *out,
                     runnel_error *error)
{
    struct rope_config rope = {.base = 10000,
                               .factor = 1,
                               .n_context_original = config->n_context_train,
                               .beta_fast = 32,
                               .beta_slow = 1,
                               .attention_factor = 1};
    int failure = read_f32(gguf, config, "rope.freq_base", &rope.base, error);
    if (!failure)
        failure = read_rope_scaling(gguf, config, &rope.scaling, error);
    if (!failure && rope.scaling != ROPE_SCALING_NONE)
        failure = read_f32(gguf, config, "rope.scale_linear", &rope.factor, error); /* the name of 2023 */
    if (!failure && rope.scaling != ROPE_SCALING_NONE)
        failure = read_f32(gguf, config, "rope.scaling.factor", &rope.factor, error);
    if (rope.scaling == ROPE_SCALING_LINEAR && rope.factor == 1)
        rope.scaling = ROPE_SCALING_NONE;
    if (!failure)
        failure = read_f32(gguf, config, "rope.scaling.attn_factor", &rope.attention_factor, error);
    if (!failure && rope.scaling == ROPE_SCALING_YARN)
        failure = read_yarn(gguf, config, &rope, error);
    if (!failure)
        *out = rope;
    return failure;
}

static int read_heads(const struct gguf *gguf, struct model_config *config, runnel_error *error)
{
    const char *arch = config->architecture->name;
    int failure = read_u32(gguf, config, "attention.head_count", HEADS_MAX, &config->n_heads, error);
    if (failure)
        return failure;
    config->n_kv_heads = config->n_heads;
    failure = read_u32(gguf, config, "attention.head_count_kv", HEADS_MAX, &config->n_kv_heads, error);
    if (failure)
        return failure;
    if (config->n_heads % config->n_kv_heads)
        return error_set(error, RUNNEL_EFORMAT,
                         "key %s.attention.head_count: %u heads are no multiple of %u KV heads", arch,
                         config->n_heads, config->n_kv_heads);

    char key[128];
    snprintf(key, sizeof key, "%s.attention.key_length", arch);
    if (!gguf_has_key(gguf, key) && config->n_hidden % config->n_heads)
        return error_set(error, RUNNEL_EFORMAT,
                         "key %s.embedding_length: width %u is no multiple of %u heads", arch,
                         config->n_hidden, config->n_heads);
    config->head_dim = config->n_hidden / config->n_heads;
    failure = read_u32(gguf, config, "attention.key_length", KV_HEAD_DIM_MAX, &config->head_dim, error);
    if (failure)
        return failure;
    uint32_t value_length = config->head_dim;
    failure = read_u32(gguf, config, "attention.value_length", KV_HEAD_DIM_MAX, &value_length, error);
    if (failure)
        return failure;
    if (value_length != config->head_dim)
        return error_set(error, RUNNEL_EUNSUPPORTED,
                         "key %s.attention.value_length: %u, expected the key length %u", arch, value_length,
                         config->head_dim);
    if (config->head_dim == 0 || config->head_dim % 2 || config->head_dim > KV_HEAD_DIM_MAX)
        return error_set(error, RUNNEL_EFORMAT, "head size %u of %s, expected an even number from 2 to %u",
                         config->head_dim, arch, (unsigned)KV_HEAD_DIM_MAX);

    config->n_rot = config->head_dim;
    failure = read_u32(gguf, config, "rope.dimension_count", UINT32_MAX, &config->n_rot, error);
    if (failure)
        return failure;
    if (config->n_rot % 2 || config->n_rot > config->head_dim)
        return error_set(
            error, RUNNEL_EFORMAT,
            "key %s.rope.dimension_count: %u, expected an even number of at most the head size %u", arch,
            config->n_rot, config->head_dim);
    return RUNNEL_OK;
}

/* The window of the layers that have one, and their rotation. */
static int read_windows(const struct gguf *gguf, struct model_config *config, runnel_error *error)
{
    config->window_period = config->architecture->window_period;
    if (!config->window_period)
        return RUNNEL_OK;
    config->window_rope = (struct rope_config){.base = 10000, .factor = 1, .attention_factor = 1};
    int failure = read_u32(gguf, config, "attention.sliding_window", CONTEXT_MAX, &config->n_window, error);
    if (!failure)
        failure = read_u32(gguf, config, "attention.sliding_window_pattern", LAYERS_MAX,
                           &config->window_period, error);
    if (!failure)
        failure = read_f32(gguf, config, "rope.freq_base_swa", &config->window_rope.base, error);
    return failure;
}

uint32_t model_config_window(const struct model_config *config, uint32_t layer)
{
    return config->n_window && (layer + 1) % config->window_period ? config->n_window : 0;
}

static void choose_scales(struct model_config *config)
{
    const struct architecture *architecture = config->architecture;
    uint32_t n_scaled = config->n_layers == architecture->n_layers_scaled_by_width
                            ? config->n_hidden / config->n_heads
                            : config->head_dim;
    config->attention_scale = 1.0f / sqrtf((float)n_scaled);
    config->embedding_scale =
        architecture->traits & TRAIT_SCALED_EMBEDDING ? sqrtf((float)config->n_hidden) : 1;
}

/* Caps that no architecture here has: computing without them would be another model. */
static int check_no_caps(const struct gguf *gguf, const struct model_config *config, runnel_error *error)
{
    static const char *const names[] = {"attn_logit_softcapping", "final_logit_softcapping"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char key[128];
        float cap;
        snprintf(key, sizeof key, "%s.%s", config->architecture->name, names[i]);
        if (!gguf_has_key(gguf, key))
            continue;
        int failure = gguf_get_f32(gguf, key, &cap, error);
        if (failure)
            return failure;
        if (cap != 0)
            return error_set(error, RUNNEL_EUNSUPPORTED, "key %s: %g is not supported, expected 0", key,
                             (double)cap);
    }
    return RUNNEL_OK;
}

int model_config_read(const struct gguf *gguf, struct model_config *out, runnel_error *error)
{
    struct model_config config = {.architecture = NULL};
    int failure = read_architecture(gguf, &config, error);
    if (!failure)
        failure = read_u32(gguf, &config, "block_count", LAYERS_MAX, &config.n_layers, error);
    if (!failure)
        failure = read_u32(gguf, &config, "embedding_length", WIDTH_MAX, &config.n_hidden, error);
    if (!failure)
        failure = read_u32(gguf, &config, "feed_forward_length", WIDTH_MAX, &config.n_ffn, error);
    if (!failure)
        failure = read_u32(gguf, &config, "context_length", CONTEXT_MAX, &config.n_context_train, error);
    if (!failure)
        failure = read_f32(gguf, &config, "attention.layer_norm_rms_epsilon", &config.norm_epsilon, error);
    if (!failure)
        failure = read_heads(gguf, &config, error);
    if (!failure)
        failure = read_rope(gguf, &config, &config.rope, error);
    if (!failure)
        failure = read_windows(gguf, &config, error);
    if (!failure)
        failure = check_no_caps(gguf, &config, error);
    if (failure)
        return failure;

    choose_scales(&config);
    const struct gguf_tensor *embedding = gguf_find_tensor(gguf, "token_embd.weight");
    if (!embedding)
        return error_set(error, RUNNEL_EFORMAT, "tensor token_embd.weight: not in the file");
    config.n_vocab = (uint32_t)embedding->dims[1]; /* weights.c checks the rest of its shape */
    config.tied = !gguf_find_tensor(gguf, "output.weight");
    *out = config;
    return RUNNEL_OK;
}
