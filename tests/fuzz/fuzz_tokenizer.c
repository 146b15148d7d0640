/* fuzz_tokenizer.c: any bytes come back from their tokens, whatever the spans; control tokens only from
 * within spans. */
#include "helpers/tiny_model.h"
#include "model/tokenizer.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static struct tokenizer *tokenizers[3];

static struct tokenizer *make_tokenizer(const char *pre)
{
    char path[] = "/tmp/fuzz_tokenizer_XXXXXX";
    int descriptor = mkstemp(path);
    struct gguf_writer *writer = gguf_writer_create();
    struct gguf *gguf;
    struct tokenizer *tokenizer;
    runnel_error error;
    if (descriptor < 0 || !writer)
        abort();
    gguf_writer_add_string(writer, "general.architecture", "qwen2");
    tiny_model_add_tokenizer(writer, pre, "r1", 0);
    if (gguf_writer_save(writer, path, &error) || gguf_open(path, &gguf, &error) ||
        tokenizer_create(gguf, &tokenizer, &error)) {
        fprintf(stderr, "%s\n", error.message);
        abort();
    }
    gguf_writer_free(writer);
    gguf_close(gguf);
    close(descriptor);
    unlink(path);
    return tokenizer;
}

static bool lies_in_a_span(size_t begin, size_t end, const struct text_span *spans, size_t n_spans)
{
    for (size_t i = 0; i < n_spans; i++)
        if (spans[i].begin <= begin && end <= spans[i].end)
            return true;
    return false;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* The first byte chooses the tokenizer and the number of spans, the next ones the spans' ends; the rest is
 * the text. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char *const pres[] = {"qwen2", "smollm", "deepseek-r1-qwen"};
    if (!tokenizers[0])
        for (int i = 0; i < 3; i++)
            tokenizers[i] = make_tokenizer(pres[i]);
    if (size < 9)
        return 0;
    struct tokenizer *tokenizer = tokenizers[data[0] % 3];
    struct text_span spans[4];
    size_t n_spans = data[0] / 3 % 5, at = 0;
    for (size_t i = 0; i < n_spans; i++) {
        spans[i].begin = at + data[1 + 2 * i] % 32;
        at = spans[i].end = spans[i].begin + data[2 + 2 * i] % 64;
    }
    const char *text = (const char *)data + 9;
    size_t len = size - 9, done = 0;
    struct token_list list = {0};
    if (tokenizer_encode(tokenizer, text, len, spans, n_spans, &list, NULL))
        abort();
    for (size_t i = 0; i < list.n; i++) {
        struct gguf_string piece = tokenizer_piece(tokenizer, list.ids[i]);
        if (!piece.len || piece.len > len - done || memcmp(piece.bytes, text + done, piece.len) != 0)
            abort();
        if (tokenizer_kind(tokenizer, list.ids[i]) == TOKEN_CONTROL &&
            !lies_in_a_span(done, done + piece.len, spans, n_spans))
            abort();
        done += piece.len;
    }
    if (done != len)
        abort();
    free(list.ids);
    return 0;
}
