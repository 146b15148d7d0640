/* hf_rope.c: the rotation of a config.json. The hub's form has rope_theta and rope_scaling beside the other values, that of
 * transformers 5 has rope_parameters, of models with windows for each kind of layer. Owns nothing; any thread. */
#include "model/formats/folder_file.h"
#include "model/formats/hf_config.h"

#include <math.h>
#include <string.h>

enum { CONTEXT_MAX = 1 << 30 };

static int need_positive(struct json_place place, const char *key, double *value, runnel_error *error)
{
    int code = json_field_positive(place, key, value, error);
    if (!code && !(*value > 0))
        code = error_set(error, RUNNEL_EFORMAT, "%s: %s: not there", place.name, key);
    return code;
}

/* What transformers multiplies the rotated values with beside YaRN's own factor, from the two scales of DeepSeek's models. */
static double attention_factor(double factor, double mscale, double mscale_all_dim)
{
    double stretch = factor > 1 ? 0.1 * log(factor) : 0;
    return (stretch * mscale + 1) / (stretch * mscale_all_dim + 1);
}

static int read_yarn(struct json_place place, struct hf_rope *rope, runnel_error *error)
{
    double mscale = 0, mscale_all_dim = 0;
    bool is_truncated = true;
    int code = json_field_positive(place, "beta_fast", &rope->beta_fast, error);
    if (!code)
        code = json_field_positive(place, "beta_slow", &rope->beta_slow, error);
    if (!code)
        code = json_field_positive(place, "attention_factor", &rope->attention_factor, error);
    if (!code)
        code = json_field_positive(place, "attn_factor", &rope->attn_factor, error);
    if (!code)
        code = json_field_positive(place, "mscale", &mscale, error);
    if (!code)
        code = json_field_positive(place, "mscale_all_dim", &mscale_all_dim, error);
    if (!code)
        code = json_field_bool(place, "truncate", &is_truncated, error);
    if (!code && !is_truncated)
        code = error_set(error, RUNNEL_EUNSUPPORTED, "%s: truncate: false is not supported, expected true",
                         place.name);
    if (!code &&
        rope->factor < 1) /* transformers does not scale queries and keys then, readers of GGUF files do */
        code = error_set(error, RUNNEL_EUNSUPPORTED,
                         "%s: factor: %g is not supported of yarn, expected 1 or more", place.name,
                         rope->factor);
    if (!code && !(rope->attention_factor > 0) && mscale > 0 && mscale_all_dim > 0)
        rope->attention_factor = attention_factor(rope->factor, mscale, mscale_all_dim);
    if (!code && rope->attention_factor > 3e38)
        code = error_set(error, RUNNEL_EFORMAT, "%s: mscale: %g is too large", place.name, mscale);
    return code;
}

static int read_llama3(struct json_place place, const struct hf_config *config, struct hf_rope *rope,
                       runnel_error *error)
{
    if (!(config->architecture->traits & HF_PERMUTED_QK))
        return error_set(error, RUNNEL_EUNSUPPORTED, "%s: rope_type: llama3 is not supported of %s",
                         place.name, config->architecture->name);
    int code = need_positive(place, "low_freq_factor", &rope->low_freq_factor, error);
    if (!code)
        code = need_positive(place, "high_freq_factor", &rope->high_freq_factor, error);
    if (!code && !json_field(place, "original_max_position_embeddings"))
        code =
            error_set(error, RUNNEL_EFORMAT, "%s: original_max_position_embeddings: not there", place.name);
    if (!code && rope->high_freq_factor <= rope->low_freq_factor)
        code = error_set(error, RUNNEL_EFORMAT,
                         "%s: high_freq_factor: %g, expected more than low_freq_factor, %g", place.name,
                         rope->high_freq_factor, rope->low_freq_factor);
    return code;
}

static int read_kind(struct json_place place, const struct hf_config *config, enum hf_rope_scaling *scaling,
                     runnel_error *error)
{
    static const struct {
        const char *name;
        enum hf_rope_scaling scaling;
    } kinds[] = {{"default", HF_SCALING_NONE},
                 {"linear", HF_SCALING_LINEAR},
                 {"yarn", HF_SCALING_YARN},
                 {"llama3", HF_SCALING_LLAMA3}};
    const char *name = "default";
    int code = json_field_text(place, "type", &name, error);
    if (!code)
        code = json_field_text(place, "rope_type", &name, error);
    if (code)
        return code;
    /* Of models with windows only the scaling of 2025 is known to all who read such files. */
    size_t n = config->architecture->traits & HF_WINDOWS ? 2 : sizeof kinds / sizeof *kinds;
    for (size_t i = 0; i < n; i++)
        if (!strcmp(name, kinds[i].name)) {
            *scaling = kinds[i].scaling;
            return RUNNEL_OK;
        }
    return error_set(error, RUNNEL_EUNSUPPORTED, "%s: rope_type: %.40s is not supported, expected %s",
                     place.name, name, n == 2 ? "default or linear" : "default, linear, yarn or llama3");
}

static int check_all_is_rotated(struct json_place place, runnel_error *error)
{
    double share = 1;
    int code = json_field_positive(place, "partial_rotary_factor", &share, error);
    if (!code && share != 1)
        code = error_set(error, RUNNEL_EUNSUPPORTED,
                         "%s: partial_rotary_factor: %g is not supported, expected 1", place.name, share);
    if (!code && json_field(place, "mrope_section"))
        code = error_set(error, RUNNEL_EUNSUPPORTED, "%s: mrope_section: not supported", place.name);
    return code;
}

/* The object that says how positions are stretched, and perhaps the base. */
static int read_scaling(struct json_place place, const struct hf_config *config, struct hf_rope *rope,
                        runnel_error *error)
{
    int code = json_field_positive(place, "rope_theta", &rope->base, error);
    if (!code)
        code = check_all_is_rotated(place, error);
    if (!code)
        code = read_kind(place, config, &rope->scaling, error);
    if (code || rope->scaling == HF_SCALING_NONE)
        return code;
    rope->n_context_original = config->n_context;
    code = need_positive(place, "factor", &rope->factor, error);
    if (!code)
        code = json_field_u32(place, "original_max_position_embeddings", 1, CONTEXT_MAX,
                              &rope->n_context_original, error);
    if (!code && rope->scaling == HF_SCALING_YARN)
        code = read_yarn(place, rope, error);
    if (!code && rope->scaling == HF_SCALING_LLAMA3)
        code = read_llama3(place, config, rope, error);
    return code;
}

/* transformers 5. */
static int read_parameters(const json_t *parameters, struct hf_config *config, runnel_error *error)
{
    json_t *full = NULL, *local = NULL;
    struct json_place place = {parameters, "config.json: rope_parameters"};
    int code = json_field_object(place, "full_attention", &full, error);
    if (!code)
        code = json_field_object(place, "sliding_attention", &local, error);
    if (!code)
        code = read_scaling((struct json_place){full ? full : parameters, place.name}, config, &config->rope,
                            error);
    if (code || !local)
        return code;
    struct hf_rope of_windows = {.base = config->rope_base_local};
    code = read_scaling((struct json_place){local, "config.json: rope_parameters: sliding_attention"}, config,
                        &of_windows, error);
    if (!code && of_windows.scaling != HF_SCALING_NONE)
        code = error_set(error, RUNNEL_EUNSUPPORTED,
                         "config.json: rope_parameters: sliding_attention: a scaling is not supported there");
    config->rope_base_local = of_windows.base;
    return code;
}

int hf_rope_read(struct json_place place, struct hf_config *config, runnel_error *error)
{
    json_t *parameters = NULL, *scaling = NULL;
    config->rope_base_local = 10000;
    int code = check_all_is_rotated(place, error);
    if (!code)
        code = json_field_positive(place, "rope_theta", &config->rope.base, error);
    if (!code)
        code = json_field_positive(place, "rope_local_base_freq", &config->rope_base_local, error);
    if (!code)
        code = json_field_object(place, "rope_parameters", &parameters, error);
    if (!code)
        code = json_field_object(place, "rope_scaling", &scaling, error);
    if (code)
        return code;
    if (parameters)
        return read_parameters(parameters, config, error);
    if (scaling)
        return read_scaling((struct json_place){scaling, "config.json: rope_scaling"}, config, &config->rope,
                            error);
    return RUNNEL_OK;
}
