/* fuzz_hf_tokenizer.c: any bytes as the files of a tokenizer: read or refused, never a crash; all tokens of what is accepted are within
 * bounds. The first byte says which file: tokenizer.json, tokenizer.model, or all the others at once. */
#include "model/formats/hf_special.h"
#include "model/formats/hf_tokenizer.h"
#include "model/formats/sentencepiece.h"
#include "model/vocabulary.h"

#include <stdlib.h>
#include <string.h>

enum { N_TOKENS = 64 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(bool holds)
{
    if (!holds)
        abort();
}

static void check_vocabulary(struct hf_vocabulary *vocabulary, struct gguf_writer *writer)
{
    check(!hf_vocabulary_write(vocabulary, writer, NULL));
    for (uint32_t id = 0; id < vocabulary->n; id++) {
        struct gguf_string text = hf_vocabulary_text(vocabulary, id);
        check(text.len > 0 && text.len <= TOKEN_MAX_BYTES);
        check(vocabulary->tokens[id].kind >= TOKEN_NORMAL && vocabulary->tokens[id].kind <= TOKEN_BYTE);
    }
    for (size_t i = 0; i < vocabulary->n_merges; i++)
        check(vocabulary->merges[i].begin < vocabulary->merges[i].end);
}

static int read_json(const char *bytes, size_t len, bool is_tokenizer, struct hf_vocabulary *vocabulary,
                     struct gguf_writer *writer, runnel_error *error)
{
    json_t *root;
    size_t n_left_out = 0;
    int code = json_parse("tokenizer.json", bytes, len, &root, error);
    if (code)
        return code;
    struct hf_sources sources = {.folder = "/nowhere",
                                 .config = root,
                                 .tokenizer = root,
                                 .tokenizer_config = root,
                                 .generation = root};
    if (is_tokenizer) {
        code = hf_tokenizer_read(root, vocabulary, &n_left_out, error);
    } else {
        code = hf_tokenizer_read_decoder(json_field((struct json_place){root, ""}, "added_tokens_decoder"),
                                         vocabulary, &n_left_out, error);
        if (!code)
            code = hf_special_write(&sources, vocabulary, writer, error);
        if (!code)
            code = hf_template_write(&sources, writer, NULL, NULL, error);
        if (!code)
            hf_sampling_write(&sources, writer, NULL, NULL);
    }
    json_decref(root);
    return code;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct hf_vocabulary vocabulary;
    runnel_error error = {0};
    size_t n_left_out = 0;
    struct gguf_writer *writer = gguf_writer_create();
    if (size == 0 || !writer || hf_vocabulary_create(&vocabulary, N_TOKENS, NULL)) {
        gguf_writer_free(writer);
        return 0;
    }
    const char *bytes = (const char *)data + 1;
    int code = data[0] % 3 == 1 ? sentencepiece_read(bytes, size - 1, &vocabulary, &n_left_out, &error)
                                : read_json(bytes, size - 1, data[0] % 3 == 0, &vocabulary, writer, &error);
    if (code)
        check(code == error.code && error.message[0] && !strchr(error.message, '\n'));
    else
        check_vocabulary(&vocabulary, writer);
    hf_vocabulary_free(&vocabulary);
    gguf_writer_free(writer);
    return 0;
}
