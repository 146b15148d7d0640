/* vocabulary_file.h: files that hold a small vocabulary alone, as a test describes it, and tokenizers made of them. One thread. */
#ifndef RUNNEL_TESTS_VOCABULARY_FILE_H
#define RUNNEL_TESTS_VOCABULARY_FILE_H

#include "model/gguf_write.h"
#include "model/tokenizer.h"

enum { VOCABULARY_FILE_TOKENS = 32, VOCABULARY_FILE_MERGES = 8 };

/* A tokenizer's keys. What is NULL or 0 is left out of the file. */
struct vocabulary_file {
    const char *model, *pre;
    const char *tokens[VOCABULARY_FILE_TOKENS];
    int32_t types[VOCABULARY_FILE_TOKENS];
    float scores[VOCABULARY_FILE_TOKENS];
    const char *merges[VOCABULARY_FILE_MERGES];
    size_t n_tokens, n_types, n_scores, n_merges;
    const char *id_key; /* one more key, with the value id */
    uint32_t id;
    const char *unknown_key; /* and another one with the same id */
    const char *bool_key;    /* and one with the value is */
    bool is;
};

/* Writes the file, makes a tokenizer of it and removes the file. */
int vocabulary_file_open(const struct vocabulary_file *file, struct tokenizer **tokenizer,
                         runnel_error *error);
/* The same for keys that the test has added to a writer, which is freed. */
int vocabulary_file_open_keys(struct gguf_writer *writer, struct tokenizer **tokenizer, runnel_error *error);

/* Compares the ids of text, in which [begin, end) may hold control tokens, with ids as text, such as "5 0 ". */
void vocabulary_file_check_ids(const struct tokenizer *tokenizer, const char *text, size_t begin, size_t end,
                               const char *expected);

#endif
