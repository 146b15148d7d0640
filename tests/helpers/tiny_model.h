/* tiny_model.h: makes small random models for tests, the same bytes for the same options every time.
 *
 * The vocabulary (TINY_MODEL_TOKENS tokens): ids 0 .. 255 are the 256 bytes, each under its GPT-2 letter;
 * then a few merges; then the special tokens that the constants below name. Any further rows of the embedding
 * are unused tokens. */
#ifndef RUNNEL_TESTS_TINY_MODEL_H
#define RUNNEL_TESTS_TINY_MODEL_H

#include "kernels/quants.h"
#include "model/gguf_write.h"

enum tiny_token {
    TINY_TOKEN_MERGES = 256, /* the first merged token; there are TINY_MODEL_MERGES */
    TINY_MODEL_MERGES = 24,
    TINY_TOKEN_ENDOFTEXT = TINY_TOKEN_MERGES + TINY_MODEL_MERGES, /* <|endoftext|>, control */
    TINY_TOKEN_IM_START,                                          /* <|im_start|>, control */
    TINY_TOKEN_IM_END,       /* <|im_end|>, control; the end token of "chatml" */
    TINY_TOKEN_R1_BEGIN,     /* <|begin of sentence|> in R1's spelling, control */
    TINY_TOKEN_R1_END,       /* R1's end of sentence, control; the end token of "r1" */
    TINY_TOKEN_R1_USER,      /* control */
    TINY_TOKEN_R1_ASSISTANT, /* control */
    TINY_TOKEN_THINK,        /* <think>, user-defined */
    TINY_TOKEN_THINK_END,    /* </think>, user-defined */
    TINY_MODEL_TOKENS,
};

struct tiny_model_options {
    const char *architecture; /* "qwen2", "llama", "qwen3", "gemma3" */
    uint32_t n_layers, n_hidden, n_heads, n_kv_heads, n_ffn, n_context;
    uint32_t head_dim; /* 0: n_hidden / n_heads; another value is written as attention.key_length */
    uint32_t n_vocab;  /* rows of the embedding, at least TINY_MODEL_TOKENS; 0: as many */
    uint32_t rope_dimension_count; /* 0: the key is absent */
    float rope_base, epsilon;
    bool rope_factors;      /* a tensor of a factor for each rotated pair */
    uint32_t window;        /* attention.sliding_window; 0: the key is absent */
    float window_rope_base; /* rope.freq_base_swa; 0: the key is absent */
    enum tensor_type q, k, v, o, gate, up, down, embed, output;
    bool tied;        /* no output.weight */
    bool biases;      /* on Q, K and V */
    float k_bias;     /* largest size of a K bias; 0: 0.1 as for the others */
    const char *pre;  /* "qwen2", "smollm" ... as files name it, or "sentencepiece" */
    const char *chat; /* "chatml", "r1", NULL: no template; it also chooses the end token */
    const char *const *
        words; /* texts of further tokens, from TINY_MODEL_TOKENS on: "<|...|>" are control tokens, others user-defined; NULL ends them, or: none */
    uint64_t seed;
    void (*add_keys)(struct gguf_writer *writer, void *user); /* further keys; NULL: none */
    void *user;
};

/* qwen2, 2 layers, hidden 256, 4 heads over 2, ffn 512, all Q4_K but v and down and output Q6_K, biases,
 * ChatML. */
void tiny_model_defaults(struct tiny_model_options *options);

/* All tensor types of the matrices at once. */
void tiny_model_set_types(struct tiny_model_options *options, enum tensor_type type);

int tiny_model_write(const struct tiny_model_options *options, const char *path, runnel_error *error);

/* Adds the keys of the tokenizer, for tests that make their own files. n_vocab as above. pre "sentencepiece": the tokenizer
 * is SentencePiece's, with a space set before texts; the same tokens have the same ids, but a byte is a byte token. */
void tiny_model_add_tokenizer(struct gguf_writer *writer, const char *pre, const char *chat,
                              uint32_t n_vocab);

/* n (whole blocks) random values of about the given standard deviation as blocks of type, deterministic in
 * seed. */
void tiny_model_random_blocks(enum tensor_type type, uint64_t seed, float deviation, size_t n, void *blocks);

/* The template texts that real files carry: "chatml" is SmolLM2's, "r1" that of R1-Distill-Qwen. */
const char *tiny_model_template(const char *chat);

#endif
