/* hf_vocabulary.c: the tokens of a model on their way into a GGUF file. See hf_vocabulary.h. */
#include "model/formats/hf_vocabulary.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char underline[] = "\xe2\x96\x81"; /* U+2581, a space in vocabularies of SentencePiece */

int hf_vocabulary_create(struct hf_vocabulary *vocabulary, uint32_t n, runnel_error *error)
{
    *vocabulary = (struct hf_vocabulary){.model = "gpt2", .pre = "default", .n = n};
    vocabulary->tokens = calloc(n, sizeof *vocabulary->tokens);
    if (!vocabulary->tokens)
        return error_set(error, RUNNEL_ENOMEM, "no memory for %u tokens", n);
    return RUNNEL_OK;
}

void hf_vocabulary_free(struct hf_vocabulary *vocabulary)
{
    free(vocabulary->tokens);
    free(vocabulary->merges);
    text_free(&vocabulary->texts);
    *vocabulary = (struct hf_vocabulary){.tokens = NULL};
}

void hf_vocabulary_set(struct hf_vocabulary *vocabulary, uint32_t id, const char *text, size_t len,
                       enum token_kind kind, float score)
{
    vocabulary->tokens[id] = (struct hf_token){vocabulary->texts.len, (uint32_t)len, (int32_t)kind, score};
    text_add(&vocabulary->texts, text, len);
}

static bool begins_and_ends(const char *text, size_t len, const char *begin, const char *end)
{
    size_t begin_len = strlen(begin), end_len = strlen(end);
    return len >= begin_len + end_len && !memcmp(text, begin, begin_len) &&
           !memcmp(text + len - end_len, end, end_len);
}

/* Folders call some control tokens ordinary. The last two are those of DeepSeek and Gemma. */
static bool looks_like_control(const char *text, size_t len)
{
    static const char *const names[] = {"<pad>", "<mask>", "<2mass>", "[@BOS@]"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (strlen(names[i]) == len && !memcmp(names[i], text, len))
            return true;
    return begins_and_ends(text, len, "<|", "|>") || begins_and_ends(text, len, "<\uff5c", "\uff5c>") ||
           begins_and_ends(text, len, "<unused", ">");
}

void hf_vocabulary_set_added(struct hf_vocabulary *vocabulary, uint32_t id, const char *text, size_t len,
                             bool is_special)
{
    const float score = -1000; /* SentencePiece's files have one for each token; these are never merged */
    if (is_special || looks_like_control(text, len)) {
        hf_vocabulary_set(vocabulary, id, text, len, TOKEN_CONTROL, score);
        return;
    }
    hf_vocabulary_set(vocabulary, id, "", 0, TOKEN_USER_DEFINED, score);
    for (size_t i = 0; i < len;) {
        bool is_space = len - i >= sizeof underline - 1 && !memcmp(text + i, underline, sizeof underline - 1);
        text_add(&vocabulary->texts, is_space ? " " : text + i, 1);
        i += is_space ? sizeof underline - 1 : 1;
        vocabulary->tokens[id].len++;
    }
}

static void add_without_spaces(struct text *texts, const char *part, size_t len)
{
    for (size_t i = 0; i < len; i++)
        text_add(texts, part[i] == ' ' ? "\u0120" : part + i, part[i] == ' ' ? 2 : 1);
}

void hf_vocabulary_add_merge(struct hf_vocabulary *vocabulary, const char *first, size_t first_len,
                             const char *second, size_t second_len)
{
    if (vocabulary->n_merges == vocabulary->merges_cap) {
        size_t cap = vocabulary->merges_cap ? 2 * vocabulary->merges_cap : 1024;
        struct text_span *merges = realloc(vocabulary->merges, cap * sizeof *merges);
        if (!merges) {
            vocabulary->texts.failed = true;
            return;
        }
        vocabulary->merges = merges;
        vocabulary->merges_cap = cap;
    }
    size_t begin = vocabulary->texts.len;
    add_without_spaces(&vocabulary->texts, first, first_len);
    text_add(&vocabulary->texts, " ", 1);
    add_without_spaces(&vocabulary->texts, second, second_len);
    vocabulary->merges[vocabulary->n_merges++] = (struct text_span){begin, vocabulary->texts.len};
}

struct gguf_string hf_vocabulary_text(const struct hf_vocabulary *vocabulary, uint32_t id)
{
    const struct hf_token *token = &vocabulary->tokens[id];
    return (struct gguf_string){token->len ? vocabulary->texts.bytes + token->begin : "", token->len};
}

int64_t hf_vocabulary_find(const struct hf_vocabulary *vocabulary, const char *text, size_t len)
{
    for (uint32_t id = 0; id < vocabulary->n && !vocabulary->texts.failed; id++) {
        struct gguf_string found = hf_vocabulary_text(vocabulary, id);
        if (vocabulary->tokens[id].kind && found.len == len && !memcmp(found.bytes, text, len))
            return id;
    }
    return -1;
}

/* Rows of the embedding without a token. */
static void fill_up(struct hf_vocabulary *vocabulary)
{
    for (uint32_t id = 0; id < vocabulary->n; id++) {
        char name[24];
        if (vocabulary->tokens[id].kind)
            continue;
        int len = snprintf(name, sizeof name, "[PAD%u]", id);
        hf_vocabulary_set(vocabulary, id, name, (size_t)len, TOKEN_UNUSED, -10000);
    }
}

static void write_lists(const struct hf_vocabulary *vocabulary, struct gguf_writer *writer,
                        struct gguf_string *strings, int32_t *kinds, float *scores)
{
    for (uint32_t id = 0; id < vocabulary->n; id++) {
        strings[id] = hf_vocabulary_text(vocabulary, id);
        kinds[id] = vocabulary->tokens[id].kind;
        scores[id] = vocabulary->tokens[id].score;
    }
    gguf_writer_add_string(writer, "tokenizer.ggml.model", vocabulary->model);
    gguf_writer_add_string(writer, "tokenizer.ggml.pre", vocabulary->pre);
    gguf_writer_add_array(writer, "tokenizer.ggml.tokens", GGUF_STRING, vocabulary->n, strings);
    if (vocabulary->has_scores)
        gguf_writer_add_array(writer, "tokenizer.ggml.scores", GGUF_F32, vocabulary->n, scores);
    gguf_writer_add_array(writer, "tokenizer.ggml.token_type", GGUF_I32, vocabulary->n, kinds);
    for (size_t i = 0; i < vocabulary->n_merges; i++)
        strings[i] = (struct gguf_string){vocabulary->texts.bytes + vocabulary->merges[i].begin,
                                          vocabulary->merges[i].end - vocabulary->merges[i].begin};
    if (vocabulary->n_merges)
        gguf_writer_add_array(writer, "tokenizer.ggml.merges", GGUF_STRING, vocabulary->n_merges, strings);
    if (vocabulary->says_space_prefix)
        gguf_writer_add_bool(writer, "tokenizer.ggml.add_space_prefix", vocabulary->space_prefix);
}

int hf_vocabulary_write(struct hf_vocabulary *vocabulary, struct gguf_writer *writer, runnel_error *error)
{
    fill_up(vocabulary);
    size_t n = vocabulary->n, n_strings = vocabulary->n_merges > n ? vocabulary->n_merges : n;
    struct gguf_string *strings = malloc(n_strings * sizeof *strings);
    int32_t *kinds = malloc(n * sizeof *kinds);
    float *scores = malloc(n * sizeof *scores);
    bool has_room = strings && kinds && scores && !vocabulary->texts.failed;
    if (has_room)
        write_lists(vocabulary, writer, strings, kinds, scores);
    free(strings);
    free(kinds);
    free(scores);
    return has_room ? RUNNEL_OK : error_set(error, RUNNEL_ENOMEM, "no memory for %zu tokens", n);
}
