/* hf_vocabulary.h: the tokens of a model on their way into a GGUF file: texts, kinds, scores, merges.
 *
 * A struct hf_vocabulary owns its memory. It has as many tokens as the embedding has rows; those that nobody sets become
 * [PADn], unused. One thread. */
#ifndef RUNNEL_MODEL_FORMATS_HF_VOCABULARY_H
#define RUNNEL_MODEL_FORMATS_HF_VOCABULARY_H

#include "base/text.h"
#include "model/gguf_write.h"
#include "model/tokenizer.h"

struct hf_token {
    size_t begin; /* of its text, in `texts` */
    uint32_t len;
    int32_t kind; /* of enum token_kind; 0: nobody has set it */
    float score;
};

struct hf_vocabulary {
    const char *model, *pre; /* the values of tokenizer.ggml.model and .pre; static */
    uint32_t n;
    struct hf_token *tokens;  /* [n] */
    struct text texts;        /* of tokens and merges, one after the other */
    struct text_span *merges; /* in `texts` */
    size_t n_merges, merges_cap;
    bool has_scores;
    bool says_space_prefix, space_prefix; /* is a space put before a text? */
};

int hf_vocabulary_create(struct hf_vocabulary *vocabulary, uint32_t n, runnel_error *error);
void hf_vocabulary_free(struct hf_vocabulary *vocabulary);

/* id: below n. What was there before is replaced. */
void hf_vocabulary_set(struct hf_vocabulary *vocabulary, uint32_t id, const char *text, size_t len,
                       enum token_kind kind, float score);

/* A token that was added to a vocabulary: a control token if the folder says so or it looks like one, as <|this|>, else a
 * user-defined one, of which U+2581 stands for a space. */
void hf_vocabulary_set_added(struct hf_vocabulary *vocabulary, uint32_t id, const char *text, size_t len,
                             bool is_special);

/* Two parts, each as the vocabulary writes it; a space in one becomes U+0120, as in the byte-level alphabet. */
void hf_vocabulary_add_merge(struct hf_vocabulary *vocabulary, const char *first, size_t first_len,
                             const char *second, size_t second_len);

/* The text of a token that is set; not to be asked once there was no memory for one (texts.failed). */
struct gguf_string hf_vocabulary_text(const struct hf_vocabulary *vocabulary, uint32_t id);

/* The first token with this text; -1: none. */
int64_t hf_vocabulary_find(const struct hf_vocabulary *vocabulary, const char *text, size_t len);

/* The keys of tokens, kinds, scores and merges. A lack of memory, here or before, is told now. */
int hf_vocabulary_write(struct hf_vocabulary *vocabulary, struct gguf_writer *writer, runnel_error *error);

#endif
