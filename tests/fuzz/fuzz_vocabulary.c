/* fuzz_vocabulary.c: any vocabulary, with any text: refused, or encoded to tokens of ordinary kinds that stay within the text. */
#include "model/gguf_write.h"
#include "model/tokenizer.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { TOKENS_MAX = 64, MERGES_MAX = 32, TEXT_MAX = 1 << 16 };

struct input {
    const uint8_t *data;
    size_t size;
};

static uint8_t take(struct input *input)
{
    if (!input->size)
        return 0;
    input->size--;
    return *input->data++;
}

static struct gguf_string take_string(struct input *input)
{
    size_t len = take(input) % 12;
    len = len < input->size ? len : input->size;
    struct gguf_string string = {(const char *)input->data, len};
    input->data += len;
    input->size -= len;
    return string;
}

static void add_tokens(struct input *input, struct gguf_writer *writer)
{
    struct gguf_string tokens[TOKENS_MAX];
    int32_t kinds[TOKENS_MAX];
    float scores[TOKENS_MAX];
    size_t n = take(input) % TOKENS_MAX;
    for (size_t i = 0; i < n; i++) {
        uint8_t kind = take(input);
        uint32_t score = (uint32_t)take(input) << 24 | (uint32_t)take(input) << 16;
        kinds[i] = kind % 8;
        memcpy(&scores[i], &score, sizeof score); /* NaN and infinity among them */
        tokens[i] = take_string(input);
    }
    gguf_writer_add_array(writer, "tokenizer.ggml.tokens", GGUF_STRING, n, tokens);
    gguf_writer_add_array(writer, "tokenizer.ggml.token_type", GGUF_I32, n, kinds);
    gguf_writer_add_array(writer, "tokenizer.ggml.scores", GGUF_F32, n, scores);
}

static void add_merges(struct input *input, struct gguf_writer *writer)
{
    struct gguf_string merges[MERGES_MAX];
    size_t n = take(input) % MERGES_MAX;
    for (size_t i = 0; i < n; i++)
        merges[i] = take_string(input);
    gguf_writer_add_array(writer, "tokenizer.ggml.merges", GGUF_STRING, n, merges);
}

/* NULL: refused. */
static struct tokenizer *make_tokenizer(struct input *input)
{
    static const char *const pres[] = {"qwen2",     "falcon", "deepseek-llm",
                                       "llama-bpe", "gpt-2",  "deepseek-coder"};
    static const char *const models[] = {"gpt2", "llama", "gemma4"};
    char path[] = "/tmp/fuzz_vocabulary_XXXXXX";
    int descriptor = mkstemp(path);
    struct gguf_writer *writer = gguf_writer_create();
    struct gguf *gguf;
    struct tokenizer *tokenizer = NULL;
    if (descriptor < 0 || !writer)
        abort();
    uint8_t kind = take(input);
    gguf_writer_add_string(writer, "tokenizer.ggml.model", models[kind % 3]);
    gguf_writer_add_string(writer, "tokenizer.ggml.pre", pres[kind / 3 % 6]);
    gguf_writer_add_bool(writer, "tokenizer.ggml.add_space_prefix", kind & 128);
    gguf_writer_add_u32(writer, "tokenizer.ggml.eos_token_id", take(input) % 16);
    add_tokens(input, writer);
    add_merges(input, writer);
    if (gguf_writer_save(writer, path, NULL) || gguf_open(path, &gguf, NULL))
        abort();
    if (tokenizer_create(gguf, &tokenizer, NULL))
        tokenizer = NULL;
    gguf_close(gguf);
    gguf_writer_free(writer);
    close(descriptor);
    unlink(path);
    return tokenizer;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct input input = {data, size};
    struct tokenizer *tokenizer = make_tokenizer(&input);
    struct token_list list = {0};
    size_t len = input.size < TEXT_MAX ? input.size : TEXT_MAX, n_bytes = 0;
    if (!tokenizer)
        return 0;
    if (tokenizer_encode(tokenizer, (const char *)input.data, len, NULL, 0, &list, NULL))
        abort();
    for (size_t i = 0; i < list.n; i++) {
        enum token_kind kind = tokenizer_kind(tokenizer, list.ids[i]);
        if (kind == TOKEN_CONTROL || kind == TOKEN_UNUSED)
            abort();
        struct gguf_string text = tokenizer_text(tokenizer, i ? list.ids[i - 1] : -1, list.ids[i]);
        n_bytes += kind == TOKEN_UNKNOWN ? 0 : text.len;
    }
    if (n_bytes > len)
        abort();
    free(list.ids);
    tokenizer_free(tokenizer);
    return 0;
}
