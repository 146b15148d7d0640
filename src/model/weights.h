/* weights.h: a model's hyperparameters and its weights, checked by name and shape and packed for the kernels.
 *
 * A struct weights owns one region of memory (huge pages) that holds all matrices and vectors. It is
 * immutable after weights_load, the region so that a write is a SIGSEGV; any number of threads may read it, and children of a
 * fork share it. */
#ifndef RUNNEL_MODEL_WEIGHTS_H
#define RUNNEL_MODEL_WEIGHTS_H

#include "kernels/ops.h"
#include "kernels/team.h"
#include "model/architectures.h"
#include "model/gguf.h"

/* How positions become angles; backend/rotation.c has the formulas. */
struct rope_config {
    float base;
    enum rope_scaling { ROPE_SCALING_NONE, ROPE_SCALING_LINEAR, ROPE_SCALING_YARN } scaling;
    float factor;           /* the context is stretched so many times; 1 without scaling */
    float attention_factor; /* rotated values are multiplied with it; 1: the file says none */
    /* YaRN's: pairs that turn beta_fast times or more over the original context keep their frequency, those that turn beta_slow
     * times or less are stretched. */
    uint32_t n_context_original;
    float beta_fast, beta_slow;
};

struct model_config {
    const struct architecture *architecture;
    uint32_t n_layers;
    uint32_t n_hidden;   /* width of the residual stream */
    uint32_t n_heads;    /* of queries */
    uint32_t n_kv_heads; /* of keys and values; divides n_heads */
    uint32_t head_dim;   /* even */
    uint32_t n_ffn;
    uint32_t n_vocab;               /* rows of the embedding and of the output head */
    uint32_t n_context_train;       /* tokens */
    uint32_t n_rot;                 /* values of a head that are rotated; even, at most head_dim */
    struct rope_config rope;        /* of layers that see all positions */
    struct rope_config window_rope; /* of layers with a window */
    uint32_t n_window; /* positions that a row of these layers sees, its own included; 0: none has a window */
    uint32_t window_period; /* of so many layers the last one sees all positions */
    float attention_scale;  /* scores are multiplied with it */
    float embedding_scale;  /* likewise embeddings; 1: as they are */
    float norm_epsilon;
    bool tied; /* the output head is the embedding */
};

struct layer_weights {
    const float *attn_norm;    /* [n_hidden] */
    struct packed_matrix q;    /* [n_heads * head_dim, n_hidden] */
    struct packed_matrix k, v; /* [n_kv_heads * head_dim, n_hidden] */
    const float *q_bias;       /* [n_heads * head_dim]; NULL: none; likewise the next two */
    const float *k_bias, *v_bias;
    const float *q_norm, *k_norm;     /* [head_dim], of every head; NULL: heads are not normalised */
    struct packed_matrix attn_output; /* [n_hidden, n_heads * head_dim] */
    const float *attn_output_norm;    /* [n_hidden]; NULL: what attention gives is added as it is */
    const float *ffn_norm;            /* [n_hidden] */
    struct packed_matrix gate, up;    /* [n_ffn, n_hidden] */
    struct packed_matrix down;        /* [n_hidden, n_ffn] */
    const float *ffn_output_norm;     /* [n_hidden]; NULL: likewise */
};

struct weights {
    struct model_config config;
    struct packed_matrix embedding; /* [n_vocab, n_hidden] */
    struct packed_matrix output;    /* [n_vocab, n_hidden]; the embedding's memory if tied */
    const float *output_norm;       /* [n_hidden] */
    const float *rope_factors;      /* [n_rot / 2]: each pair's frequency is divided by its own; NULL: none */
    struct layer_weights *layers;   /* [n_layers] */
    struct kv_shape *kv_shapes;     /* [n_layers] */
    bool acts[ACT_KINDS];           /* the kinds of activation rows that the matrices are multiplied with */
    uint64_t n_parameters;
    uint64_t n_layer_weights; /* in the matrices of all layers */
    uint64_t bytes_per_token; /* that decoding one token reads */
    uint8_t *region;          /* owned */
    size_t region_bytes;
};

/* Reads the hyperparameters alone. RUNNEL_EUNSUPPORTED for an architecture that is not known, naming the
 * known ones. */
int model_config_read(const struct gguf *gguf, struct model_config *config, runnel_error *error);

/* How many positions up to its own a row of the layer sees; 0: all. */
uint32_t model_config_window(const struct model_config *config, uint32_t layer);

/* As files name it: "none", "linear", "yarn". */
const char *rope_scaling_name(enum rope_scaling scaling);

/* Reads, checks and packs on all members of the team. on_progress (may be NULL) is called on the calling
 * thread. */
int weights_load(const struct gguf *gguf, struct team *team,
                 void (*on_progress)(void *user, uint64_t done, uint64_t total), void *user,
                 struct weights **weights, runnel_error *error);
void weights_free(struct weights *weights);

#endif
