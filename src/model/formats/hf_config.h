/* hf_config.h: what a config.json says of a model, in the hub's form and in that of transformers 5.
 *
 * Read whole and checked; what would make another model of the same weights and cannot be said in a GGUF file is refused by
 * name. Plain values, nothing to free. Any thread. */
#ifndef RUNNEL_MODEL_FORMATS_HF_CONFIG_H
#define RUNNEL_MODEL_FORMATS_HF_CONFIG_H

#include "base/error.h"

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

enum hf_trait {
    HF_QKV_BIASES = 1u << 0,  /* queries, keys and values may have biases */
    HF_PERMUTED_QK = 1u << 1, /* GGUF has the rows of q and k in the order of interleaved rotation */
    HF_QK_NORM = 1u << 2,     /* a norm over each head of q and of k */
    HF_GEMMA_NORMS =
        1u << 3, /* norms hold their weight less 1, and stand after attention and feed-forward, too */
    HF_WINDOWS = 1u << 4,    /* five layers with a window, then one without */
    HF_KEY_LENGTH = 1u << 5, /* the size of a head is written whether or not the folder says it */
};

struct hf_architecture {
    const char *name; /* the value of general.architecture */
    unsigned traits;
};

enum hf_rope_scaling { HF_SCALING_NONE, HF_SCALING_LINEAR, HF_SCALING_YARN, HF_SCALING_LLAMA3 };

struct hf_rope {
    double base;
    enum hf_rope_scaling scaling;
    double factor;
    uint32_t n_context_original;              /* YaRN and Llama 3 */
    double beta_fast, beta_slow;              /* YaRN; 0: not said */
    double attention_factor;                  /* YaRN; 0: not said */
    double attn_factor;                       /* YaRN: written, and used by nobody; 0: not said */
    double low_freq_factor, high_freq_factor; /* Llama 3 */
};

enum hf_quant_method { HF_QUANT_NONE, HF_QUANT_AWQ, HF_QUANT_GPTQ };

struct hf_config {
    const struct hf_architecture *architecture;
    uint32_t n_layers, n_hidden, n_ffn, n_heads, n_kv_heads, head_dim, n_vocab, n_context;
    bool has_head_dim; /* config.json says it */
    double norm_epsilon;
    bool is_tied;
    struct hf_rope rope;
    double rope_base_local; /* of layers with a window */
    uint32_t window;
    double query_scale; /* query_pre_attn_scalar; 0: of an architecture without it */
    enum hf_quant_method quant;
    uint32_t group;       /* input columns that share a scale; 0: all of them */
    uint32_t zero_excess; /* GPTQ: what is added to a stored zero */
};

/* root: of config.json. quant: NULL, or the object of a file of its own, quant_name, that says how the weights are quantised;
 * quant_method: what they are if it does not say. It counts if config.json says nothing. */
int hf_config_read(const json_t *root, const json_t *quant, const char *quant_name,
                   enum hf_quant_method quant_method, struct hf_config *config, runnel_error *error);

/* The part of config.json that speaks of text: all of it, or an object within. */
const json_t *hf_config_text(const json_t *root);

/* hf_rope.c: the rotation. config has the rest of its values already. */
struct json_place;
int hf_rope_read(struct json_place place, struct hf_config *config, runnel_error *error);

#endif
