/* hf_tokenizer.h: the tokenizer of a Hugging Face folder, as tokenizer.json has it, or tokenizer.model (sentencepiece.h).
 *
 * Byte-level BPE becomes the model gpt2, whose pre-tokenizer is found by the steps that tokenizer.json lists. SentencePiece's BPE
 * becomes the model llama: from tokenizer.model with its scores, else from the merges of tokenizer.json, whose order is that of
 * the scores. Nothing is kept; any thread. */
#ifndef RUNNEL_MODEL_FORMATS_HF_TOKENIZER_H
#define RUNNEL_MODEL_FORMATS_HF_TOKENIZER_H

#include "model/formats/folder_file.h"
#include "model/formats/hf_vocabulary.h"

enum { TOKENIZER_JSON_MAX_BYTES = 128 << 20, TOKENIZER_MODEL_MAX_BYTES = 64 << 20 };

/* Whether this tokenizer.json is of SentencePiece's kind, so that tokenizer.model is to be preferred. */
bool hf_tokenizer_is_sentencepiece(const json_t *root);

/* Tokens, kinds, merges, model and pre-tokenizer. root: of tokenizer.json. n_left_out: added tokens that have no row in the
 * embedding. */
int hf_tokenizer_read(const json_t *root, struct hf_vocabulary *vocabulary, size_t *n_left_out,
                      runnel_error *error);

/* Added tokens: an array of objects with id, content and special. */
int hf_tokenizer_read_added(const json_t *list, const char *name, struct hf_vocabulary *vocabulary,
                            size_t *n_left_out, runnel_error *error);

/* The same as tokenizer_config.json has them: an object whose keys are the ids. */
int hf_tokenizer_read_decoder(const json_t *decoder, struct hf_vocabulary *vocabulary, size_t *n_left_out,
                              runnel_error *error);

/* hf_pretokenizer.c: the name by which GGUF files call these steps. is_r1: the vocabulary has DeepSeek's tokens. */
int hf_pretokenizer_name(const json_t *steps, bool is_r1, const char **name, runnel_error *error);

#endif
