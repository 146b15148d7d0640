/* vocabulary_file.c: see vocabulary_file.h. */
#include "helpers/vocabulary_file.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static void add_strings(struct gguf_writer *writer, const char *key, const char *const *texts, size_t n)
{
    struct gguf_string strings[VOCABULARY_FILE_TOKENS];
    for (size_t i = 0; i < n; i++)
        strings[i] = (struct gguf_string){texts[i], strlen(texts[i])};
    gguf_writer_add_array(writer, key, GGUF_STRING, n, strings);
}

int vocabulary_file_open_keys(struct gguf_writer *writer, struct tokenizer **tokenizer, runnel_error *error)
{
    char path[] = "/tmp/vocabulary_file_XXXXXX";
    int descriptor = mkstemp(path);
    struct gguf *gguf;
    assert_true(descriptor >= 0);
    assert_int_equal(gguf_writer_save(writer, path, NULL), 0);
    gguf_writer_free(writer);
    assert_int_equal(gguf_open(path, &gguf, error), 0);
    int code = tokenizer_create(gguf, tokenizer, error);
    gguf_close(gguf);
    close(descriptor);
    unlink(path);
    return code;
}

int vocabulary_file_open(const struct vocabulary_file *file, struct tokenizer **tokenizer,
                         runnel_error *error)
{
    struct gguf_writer *writer = gguf_writer_create();
    gguf_writer_add_string(writer, "general.architecture", "qwen2");
    gguf_writer_add_string(writer, "tokenizer.ggml.model", file->model);
    if (file->pre)
        gguf_writer_add_string(writer, "tokenizer.ggml.pre", file->pre);
    add_strings(writer, "tokenizer.ggml.tokens", file->tokens, file->n_tokens);
    gguf_writer_add_array(writer, "tokenizer.ggml.token_type", GGUF_I32, file->n_types, file->types);
    if (file->n_merges || !file->n_scores)
        add_strings(writer, "tokenizer.ggml.merges", file->merges, file->n_merges);
    if (file->n_scores)
        gguf_writer_add_array(writer, "tokenizer.ggml.scores", GGUF_F32, file->n_scores, file->scores);
    if (file->id_key)
        gguf_writer_add_u32(writer, file->id_key, file->id);
    if (file->unknown_key)
        gguf_writer_add_u32(writer, file->unknown_key, file->id);
    if (file->bool_key)
        gguf_writer_add_bool(writer, file->bool_key, file->is);
    return vocabulary_file_open_keys(writer, tokenizer, error);
}

void vocabulary_file_check_ids(const struct tokenizer *tokenizer, const char *text, size_t begin, size_t end,
                               const char *expected)
{
    struct text_span span = {begin, end};
    struct token_list list = {0};
    char found[512] = "";
    assert_int_equal(tokenizer_encode(tokenizer, text, strlen(text), &span, 1, &list, NULL), 0);
    for (size_t i = 0; i < list.n; i++)
        snprintf(found + strlen(found), sizeof found - strlen(found), "%d ", (int)list.ids[i]);
    assert_string_equal(found, expected);
    free(list.ids);
}
