/* mixes.c: see mixes.h. The rules are what llama.cpp's files of these names hold (its version of November 2026). */
#include "model/mixes.h"

#include "model/architectures.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

static const struct mix mixes[] = {
    {"F32", TENSOR_F32, 0},      {"F16", TENSOR_F16, 1},        {"BF16", TENSOR_BF16, 32},
    {"Q8_0", TENSOR_Q8_0, 7},    {"Q6_K", TENSOR_Q6_K, 18},     {"Q5_K_M", TENSOR_Q5_K, 17},
    {"Q5_1", TENSOR_Q5_1, 9},    {"Q5_0", TENSOR_Q5_0, 8},      {"Q4_K_M", TENSOR_Q4_K, 15},
    {"Q4_K_S", TENSOR_Q4_K, 14}, {"IQ4_NL", TENSOR_IQ4_NL, 25}, {"IQ4_XS", TENSOR_IQ4_XS, 30},
    {"Q4_1", TENSOR_Q4_1, 3},    {"Q4_0", TENSOR_Q4_0, 2},      {"Q3_K_M", TENSOR_Q3_K, 12},
    {"Q2_K", TENSOR_Q2_K, 10},
};

const struct mix *mix_at(size_t index)
{
    return index < sizeof mixes / sizeof *mixes ? &mixes[index] : NULL;
}

const struct mix *mix_find(const char *name)
{
    const struct mix *mix = NULL;
    for (size_t i = 0; (mix = mix_at(i)) && strcasecmp(mix->name, name) != 0; i++)
        ;
    return mix;
}

/* Matrices ------------------------------------------------------------------------------------------------ */

enum matrix { OTHER, OUTPUT, ATTENTION_V, ATTENTION_OUTPUT, FFN_DOWN };

static enum matrix matrix_of(const char *name, bool tied)
{
    if (strcmp(name, "output.weight") == 0 || (tied && strcmp(name, "token_embd.weight") == 0))
        return OUTPUT;
    if (strstr(name, "attn_v.weight") || strstr(name, "attn_qkv.weight"))
        return ATTENTION_V;
    if (strstr(name, "attn_output.weight"))
        return ATTENTION_OUTPUT;
    return strstr(name, "ffn_down") ? FFN_DOWN : OTHER;
}

static bool ends_with(const char *text, const char *end)
{
    size_t len = strlen(text), end_len = strlen(end);
    return len >= end_len && strcmp(text + len - end_len, end) == 0;
}

bool mix_covers(const struct gguf_tensor *tensor)
{
    bool matrix = tensor->dims[1] > 1 || tensor->dims[2] > 1 || tensor->dims[3] > 1;
    return matrix && ends_with(tensor->name, "weight") && !strstr(tensor->name, "_norm.weight") &&
           !strstr(tensor->name, "ffn_gate_inp.weight"); /* which expert: small, and decides much */
}

/* The layer of "blk.12.ffn_down.weight"; 0 of a tensor that is in none. */
static uint32_t layer_of(const char *name)
{
    return strncmp(name, "blk.", 4) == 0 ? (uint32_t)strtoul(name + 4, NULL, 10) : 0;
}

/* Rules --------------------------------------------------------------------------------------------------- */

enum condition {
    ALWAYS,
    FIRST_2, /* layers */
    FIRST_4,
    FIRST_16TH,
    FIRST_8TH,
    FIRST_8TH_WITH_IMPORTANCE,
    FIRST_8TH_WITHOUT_IMPORTANCE,
    ENDS_AND_EVERY_THIRD, /* the first and the last eighth, and every third between them */
    SHARED_BY_4,          /* 4 query heads or more share a head of keys and values: the matrix is small */
};

struct rule {
    const char *mix;
    enum matrix matrix;
    enum condition condition;
    enum tensor_type type;
};

static const struct rule rules[] = {
    /* the first that holds counts */
    {"Q5_K_M", ATTENTION_V, ENDS_AND_EVERY_THIRD, TENSOR_Q6_K},
    {"Q5_K_M", FFN_DOWN, ENDS_AND_EVERY_THIRD, TENSOR_Q6_K},
    {"Q5_0", FFN_DOWN, FIRST_8TH_WITH_IMPORTANCE, TENSOR_Q5_1},
    {"Q4_K_M", ATTENTION_V, ENDS_AND_EVERY_THIRD, TENSOR_Q6_K},
    {"Q4_K_M", FFN_DOWN, ENDS_AND_EVERY_THIRD, TENSOR_Q6_K},
    {"Q4_K_S", ATTENTION_V, FIRST_4, TENSOR_Q5_K},
    {"Q4_K_S", FFN_DOWN, FIRST_8TH, TENSOR_Q5_K},
    {"IQ4_NL", ATTENTION_V, SHARED_BY_4, TENSOR_Q5_K},
    {"IQ4_NL", FFN_DOWN, FIRST_8TH_WITHOUT_IMPORTANCE, TENSOR_Q5_K},
    {"IQ4_XS", ATTENTION_V, SHARED_BY_4, TENSOR_Q5_K},
    {"IQ4_XS", FFN_DOWN, FIRST_8TH_WITHOUT_IMPORTANCE, TENSOR_Q5_K},
    {"Q4_0", FFN_DOWN, FIRST_8TH_WITH_IMPORTANCE, TENSOR_Q4_1},
    {"Q3_K_M", ATTENTION_V, FIRST_2, TENSOR_Q5_K},
    {"Q3_K_M", ATTENTION_V, ALWAYS, TENSOR_Q4_K},
    {"Q3_K_M", FFN_DOWN, FIRST_16TH, TENSOR_Q5_K},
    {"Q3_K_M", FFN_DOWN, ALWAYS, TENSOR_Q4_K},
    {"Q3_K_M", ATTENTION_OUTPUT, ALWAYS, TENSOR_Q4_K},
    {"Q2_K", ATTENTION_V, SHARED_BY_4, TENSOR_Q4_K},
    {"Q2_K", ATTENTION_V, ALWAYS, TENSOR_Q3_K},
    {"Q2_K", FFN_DOWN, ALWAYS, TENSOR_Q3_K},
    {"Q2_K", ATTENTION_OUTPUT, ALWAYS, TENSOR_Q3_K},
};

static bool holds(enum condition condition, const struct mix_model *model, uint32_t layer)
{
    uint32_t n = model->n_layers;
    switch (condition) {
    case ALWAYS:
        return true;
    case FIRST_2:
        return layer < 2;
    case FIRST_4:
        return layer < 4;
    case FIRST_16TH:
        return layer < n / 16;
    case FIRST_8TH:
        return layer < n / 8;
    case FIRST_8TH_WITH_IMPORTANCE:
        return layer < n / 8 && model->has_importance;
    case FIRST_8TH_WITHOUT_IMPORTANCE:
        return layer < n / 8 && !model->has_importance;
    case ENDS_AND_EVERY_THIRD:
        return layer < n / 8 || layer >= 7 * n / 8 || (layer - n / 8) % 3 == 2;
    case SHARED_BY_4:
        return model->n_query_heads_per_kv >= 4;
    }
    return false;
}

/* Types by rule, whatever the width. */
static enum tensor_type type_by_rules(const struct mix *mix, const struct mix_model *model,
                                      const struct gguf_tensor *tensor)
{
    enum matrix matrix = matrix_of(tensor->name, model->tied);
    if (matrix == OUTPUT) {
        bool fits = tensor->dims[0] % quant_find((uint32_t)mix->type)->block_values == 0;
        return fits && mix->type != TENSOR_Q8_0 ? TENSOR_Q6_K : TENSOR_Q8_0;
    }
    enum tensor_type type = mix->type;
    for (size_t i = 0; i < sizeof rules / sizeof *rules; i++)
        if (rules[i].matrix == matrix && strcmp(rules[i].mix, mix->name) == 0 &&
            holds(rules[i].condition, model, layer_of(tensor->name))) {
            type = rules[i].type;
            break;
        }
    /* Models of 80 layers (70B): this matrix is an eighth of the others. */
    if (matrix == ATTENTION_V && model->n_layers == 80 && model->n_query_heads_per_kv > 1 &&
        (type == TENSOR_Q3_K || type == TENSOR_Q4_K))
        type = TENSOR_Q5_K;
    return type;
}

/* What takes a type's place in rows that are no whole number of its blocks. */
static enum tensor_type narrower(enum tensor_type type)
{
    switch (type) {
    case TENSOR_Q6_K:
        return TENSOR_Q8_0;
    case TENSOR_Q5_K:
        return TENSOR_Q5_1;
    case TENSOR_Q4_K:
        return TENSOR_Q5_0;
    case TENSOR_IQ4_XS:
        return TENSOR_IQ4_NL;
    case TENSOR_Q3_K:
    case TENSOR_Q2_K:
        return TENSOR_Q4_0;
    default:
        return TENSOR_F16;
    }
}

enum tensor_type mix_type_of(const struct mix *mix, const struct mix_model *model,
                             const struct gguf_tensor *tensor)
{
    if (quant_find((uint32_t)mix->type)->block_values == 1)
        return mix->type;
    enum tensor_type type = type_by_rules(mix, model, tensor);
    while (tensor->dims[0] % quant_find((uint32_t)type)->block_values != 0)
        type = narrower(type);
    return type;
}

int mix_model_read(const struct gguf *gguf, bool has_importance, struct mix_model *model, runnel_error *error)
{
    struct gguf_string architecture;
    char key[128];
    uint32_t n_heads, n_kv_heads;
    int code = gguf_get_string(gguf, "general.architecture", &architecture, error);
    if (code)
        return code;
    *model = (struct mix_model){.n_query_heads_per_kv = 1,
                                .tied = !gguf_find_tensor(gguf, "output.weight"),
                                .has_importance = has_importance};
    int len = (int)(architecture.len < 64 ? architecture.len : 64);
    snprintf(key, sizeof key, "%.*s.block_count", len, architecture.bytes);
    code = gguf_get_u32(gguf, key, &model->n_layers, error);
    snprintf(key, sizeof key, "%.*s.attention.head_count", len, architecture.bytes);
    bool has_heads = gguf_get_u32(gguf, key, &n_heads, NULL) == RUNNEL_OK;
    snprintf(key, sizeof key, "%.*s.attention.head_count_kv", len, architecture.bytes);
    if (has_heads && gguf_get_u32(gguf, key, &n_kv_heads, NULL) == RUNNEL_OK && n_kv_heads > 0)
        model->n_query_heads_per_kv = n_heads / n_kv_heads;
    /* Any architecture with these keys will do; one without them is most likely none that anybody knows. */
    if (code && !architecture_find(architecture.bytes, architecture.len))
        code = architecture_unknown(architecture.bytes, architecture.len, error);
    return code;
}
