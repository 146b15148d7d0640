/* hf_special.h: what the other files of a Hugging Face folder say: which tokens begin and end texts, the chat template, sampling
 * values. Nothing is kept; any thread. */
#ifndef RUNNEL_MODEL_FORMATS_HF_SPECIAL_H
#define RUNNEL_MODEL_FORMATS_HF_SPECIAL_H

#include "model/formats/folder_file.h"
#include "model/formats/hf_vocabulary.h"

/* The JSON of a folder; NULL: the file is not there. */
struct hf_sources {
    const char *folder;
    json_t *config, *tokenizer, *tokenizer_config, *generation;
};

/* Writes the ids of special tokens and whether the first and the last are added to texts. */
int hf_special_write(const struct hf_sources *sources, const struct hf_vocabulary *vocabulary,
                     struct gguf_writer *writer, runnel_error *error);

/* Writes the chat template: of chat_template.jinja, else of tokenizer_config.json, else of chat_template.json. One
 * that this program cannot run is written all the same, and remark is told. */
int hf_template_write(const struct hf_sources *sources, struct gguf_writer *writer, hf_remark *remark,
                      void *user, runnel_error *error);

/* Writes the sampling values of generation_config.json; of those that cannot be used remark is told. */
void hf_sampling_write(const struct hf_sources *sources, struct gguf_writer *writer, hf_remark *remark,
                       void *user);

#endif
