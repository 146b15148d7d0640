/* fuzz_tokenizer.c: any bytes come back from their tokens, whatever the spans (SentencePiece gives back spaces for U+2581);
 * control tokens only from within spans. */
#include "helpers/tiny_model.h"
#include "model/tokenizer.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char *const pres[] = {"qwen2",  "smollm",       "deepseek-r1-qwen", "sentencepiece",
                                   "falcon", "deepseek-llm", "deepseek-coder",   "llama-bpe",
                                   "qwen35", "gpt-2"};
enum { N_TOKENIZERS = sizeof pres / sizeof *pres };
static struct tokenizer *tokenizers[N_TOKENIZERS];

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

/* How many bytes of text this byte of a token stands for. */
static size_t match_byte(char byte, const char *text, size_t len, bool has_spaces)
{
    if (len && *text == byte)
        return 1;
    if (has_spaces && byte == ' ' && len >= 3 && memcmp(text, "\xe2\x96\x81", 3) == 0)
        return 3;
    abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* The first byte chooses the tokenizer and the number of spans, the next ones the spans' ends; the rest is
 * the text. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (!tokenizers[0])
        for (int i = 0; i < N_TOKENIZERS; i++)
            tokenizers[i] = make_tokenizer(pres[i]);
    if (size < 9)
        return 0;
    bool has_spaces = strcmp(pres[data[0] % N_TOKENIZERS], "sentencepiece") == 0;
    struct tokenizer *tokenizer = tokenizers[data[0] % N_TOKENIZERS];
    struct text_span spans[4];
    size_t n_spans = data[0] / N_TOKENIZERS % 5, at = 0;
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
        struct gguf_string piece = tokenizer_text(tokenizer, i ? list.ids[i - 1] : -1, list.ids[i]);
        size_t begin = done;
        for (size_t k = 0; k < piece.len; k++)
            done += match_byte(piece.bytes[k], text + done, len - done, has_spaces);
        if (done == begin && !has_spaces)
            abort();
        if (tokenizer_kind(tokenizer, list.ids[i]) == TOKEN_CONTROL &&
            !lies_in_a_span(begin, done, spans, n_spans))
            abort();
    }
    if (done != len)
        abort();
    free(list.ids);
    return 0;
}
