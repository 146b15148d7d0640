/* tokenizer.c: reads a model's tokenizer and turns text into token ids. See tokenizer.h.
 *
 * Text is cut at control and user-defined tokens (special.c); what lies between is ordinary text, which one of the encodings
 * (encoding.h) turns into tokens. */
#include "model/tokenizer.h"

#include "model/encoding.h"
#include "model/special.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define KEY_PREFIX "tokenizer.ggml."

/* What ends an answer: tokens that the file names by these keys, and tokens of these names. */
static const char *const end_keys[] = {KEY_PREFIX "eos_token_id", KEY_PREFIX "eot_token_id"};
static const char *const end_names[] = {
    "<|im_end|>", "<|endoftext|>",   "<｜end▁of▁sentence｜>", "<|eot_id|>",
    "<|eom_id|>", "<|end_of_text|>", "<end_of_turn>",         "<|end|>",
};
enum {
    N_END_KEYS = sizeof end_keys / sizeof *end_keys,
    N_END_NAMES = sizeof end_names / sizeof *end_names,
};

static const struct encoding_kind *const encodings[] = {&encoding_byte_level, &encoding_sentencepiece,
                                                        &encoding_lines};
enum { N_ENCODINGS = sizeof encodings / sizeof *encodings };

struct tokenizer {
    struct vocabulary vocabulary;
    struct special_set special;
    struct encoding *encoding;
    int32_t bos, eos; /* -1: none */
    bool adds_bos;
    int32_t ends[N_END_KEYS + N_END_NAMES]; /* the tokens that end an answer */
    size_t n_ends;
    struct token_list blanks; /* the tokens that are white space and nothing else */
    struct token_list silent; /* those that are no text */
};

static int unknown_model(struct gguf_string model, runnel_error *error)
{
    char known[256] = "";
    for (size_t i = 0, len = 0; i < N_ENCODINGS && len < sizeof known; i++)
        len += (size_t)snprintf(known + len, sizeof known - len, "%s%s (%s)", i ? ", " : "",
                                encodings[i]->name, encodings[i]->title);
    return error_set(error, RUNNEL_EUNSUPPORTED, KEY_PREFIX "model is \"%.*s\": known tokenizers are %s",
                     (int)(model.len < 64 ? model.len : 64), model.bytes, known);
}

static int find_encoding(const struct gguf *gguf, const struct encoding_kind **kind, runnel_error *error)
{
    struct gguf_string model;
    int code = gguf_get_string(gguf, KEY_PREFIX "model", &model, error);
    if (code)
        return code;
    for (size_t i = 0; i < N_ENCODINGS; i++)
        if (model.len == strlen(encodings[i]->name) &&
            memcmp(model.bytes, encodings[i]->name, model.len) == 0) {
            *kind = encodings[i];
            return RUNNEL_OK;
        }
    return unknown_model(model, error);
}

static int read_vocabulary(const struct gguf *gguf, enum token_spelling spelling,
                           struct vocabulary *vocabulary, runnel_error *error)
{
    struct gguf_array tokens, types, scores;
    int code = gguf_get_array(gguf, KEY_PREFIX "tokens", GGUF_STRING, &tokens, error);
    if (code)
        return code;
    code = gguf_get_array(gguf, KEY_PREFIX "token_type", GGUF_I32, &types, error);
    if (code)
        return code;
    if (tokens.n == 0)
        return error_set(error, RUNNEL_EFORMAT, KEY_PREFIX "tokens is empty: at least one token expected");
    if (types.n != tokens.n)
        return error_set(error, RUNNEL_EFORMAT,
                         KEY_PREFIX "token_type has %zu entries, %zu expected as in " KEY_PREFIX "tokens",
                         types.n, tokens.n);
    if (gguf_has_key(gguf, KEY_PREFIX "scores")) { /* not all use it, but it belongs to the tokens */
        code = gguf_get_array(gguf, KEY_PREFIX "scores", GGUF_F32, &scores, error);
        if (code)
            return code;
        if (scores.n != tokens.n)
            return error_set(error, RUNNEL_EFORMAT,
                             KEY_PREFIX "scores has %zu entries, %zu expected as in " KEY_PREFIX "tokens",
                             scores.n, tokens.n);
    }
    return vocabulary_build(vocabulary, spelling, tokens.values, types.values, tokens.n, error);
}

/* Reads the id that key holds, checked against the vocabulary; leaves *id alone where there is no such key.
 */
static int read_id(const struct gguf *gguf, const struct tokenizer *tokenizer, const char *key, int32_t *id,
                   runnel_error *error)
{
    uint32_t value;
    if (!gguf_has_key(gguf, key))
        return RUNNEL_OK;
    int code = gguf_get_u32(gguf, key, &value, error);
    if (code)
        return code;
    if (value >= tokenizer->vocabulary.n)
        return error_set(error, RUNNEL_EFORMAT, "%s is %u: the vocabulary has %zu tokens", key,
                         (unsigned)value, tokenizer->vocabulary.n);
    *id = (int32_t)value;
    return RUNNEL_OK;
}

static bool is_end_key(const char *key)
{
    for (size_t i = 0; i < N_END_KEYS; i++)
        if (strcmp(key, end_keys[i]) == 0)
            return true;
    return false;
}

static void add_end(struct tokenizer *tokenizer, int32_t id)
{
    if (id >= 0 && !tokenizer_is_end(tokenizer, id))
        tokenizer->ends[tokenizer->n_ends++] = id;
}

/* The token that begins or ends texts where the file does not name it, if there is such a control token. */
static int32_t default_id(const struct tokenizer *tokenizer, int32_t id)
{
    return id && tokenizer_kind(tokenizer, id) == TOKEN_CONTROL ? id : -1;
}

/* A token that begins or ends texts is a control token, also where the file has it found in anybody's text. While the tokenizer is made:
 * later nobody changes the vocabulary. */
static void keep_from_text(struct tokenizer *tokenizer, int32_t id)
{
    if (tokenizer_kind(tokenizer, id) == TOKEN_USER_DEFINED)
        tokenizer->vocabulary.kinds[id] = TOKEN_CONTROL;
}

static int read_special_ids(const struct gguf *gguf, const struct encoding_kind *kind,
                            struct tokenizer *tokenizer, runnel_error *error)
{
    static const char suffix[] = "_token_id";
    tokenizer->bos = default_id(tokenizer, kind->bos);
    tokenizer->eos = default_id(tokenizer, kind->eos);
    /* Every id is checked, also those that are not used here. */
    for (size_t i = 0; i < gguf_n_keys(gguf); i++) {
        const char *key = gguf_key_name(gguf, i);
        size_t len = strlen(key);
        int32_t id = -1;
        if (strncmp(key, KEY_PREFIX, strlen(KEY_PREFIX)) != 0 || len < strlen(suffix) ||
            strcmp(key + len - strlen(suffix), suffix) != 0)
            continue;
        int code = read_id(gguf, tokenizer, key, &id, error);
        if (code)
            return code;
        if (strcmp(key, KEY_PREFIX "bos_token_id") == 0)
            tokenizer->bos = id;
        if (strcmp(key, KEY_PREFIX "eos_token_id") == 0)
            tokenizer->eos = id;
        if (is_end_key(key))
            add_end(tokenizer, id);
        if (is_end_key(key) || strcmp(key, KEY_PREFIX "bos_token_id") == 0)
            keep_from_text(tokenizer, id);
    }
    add_end(tokenizer, tokenizer->eos);
    for (size_t i = 0; i < N_END_NAMES; i++)
        add_end(tokenizer, vocabulary_find(&tokenizer->vocabulary, end_names[i], strlen(end_names[i]),
                                           KIND_BIT(TOKEN_CONTROL)));
    return RUNNEL_OK;
}

static int read_adds_bos(const struct gguf *gguf, struct tokenizer *tokenizer, runnel_error *error)
{
    static const char key[] = KEY_PREFIX "add_bos_token";
    bool adds_bos = tokenizer->encoding->adds_bos;
    int code = gguf_has_key(gguf, key) ? gguf_get_bool(gguf, key, &adds_bos, error) : RUNNEL_OK;
    tokenizer->adds_bos = tokenizer->bos >= 0 && adds_bos;
    return code;
}

static bool is_blank(struct gguf_string text)
{
    size_t i = 0;
    while (i < text.len && text.bytes[i] && strchr(" \t\r\n", text.bytes[i]))
        i++;
    return text.len && i == text.len;
}

/* The tokens that show nothing. */
static int list_blanks(struct tokenizer *tokenizer, runnel_error *error)
{
    int code = RUNNEL_OK;
    for (int32_t id = 0; (size_t)id < tokenizer->vocabulary.n && !code; id++) {
        if (!tokenizer_has_text(tokenizer, id))
            code = token_list_add(&tokenizer->silent, id, error);
        else if (is_blank(tokenizer_text(tokenizer, id, id)))
            code = token_list_add(&tokenizer->blanks, id, error);
    }
    return code;
}

int tokenizer_create(const struct gguf *gguf, struct tokenizer **out, runnel_error *error)
{
    const struct encoding_kind *kind = NULL;
    int code = find_encoding(gguf, &kind, error);
    if (code)
        return code;
    struct tokenizer *tokenizer = calloc(1, sizeof *tokenizer);
    if (!tokenizer)
        return error_set(error, RUNNEL_ENOMEM, "out of memory for the tokenizer");
    tokenizer->bos = tokenizer->eos = -1;
    if ((code = read_vocabulary(gguf, kind->spelling, &tokenizer->vocabulary, error)) ||
        (code = read_special_ids(gguf, kind, tokenizer, error)) ||
        (code = kind->create(gguf, &tokenizer->vocabulary, &tokenizer->encoding, error)) ||
        (code = read_adds_bos(gguf, tokenizer, error)) ||
        (code = special_set_build(&tokenizer->special, &tokenizer->vocabulary, error)) ||
        (code = list_blanks(tokenizer, error)))
        goto fail;
    *out = tokenizer;
    return RUNNEL_OK;
fail:
    tokenizer_free(tokenizer);
    return code;
}

void tokenizer_free(struct tokenizer *tokenizer)
{
    if (!tokenizer)
        return;
    if (tokenizer->encoding)
        tokenizer->encoding->kind->free(tokenizer->encoding);
    special_set_free(&tokenizer->special);
    vocabulary_free(&tokenizer->vocabulary);
    free(tokenizer->blanks.ids);
    free(tokenizer->silent.ids);
    free(tokenizer);
}

size_t tokenizer_n_tokens(const struct tokenizer *tokenizer)
{
    return tokenizer->vocabulary.n;
}

const char *tokenizer_pre(const struct tokenizer *tokenizer)
{
    return tokenizer->encoding->pre;
}

int32_t tokenizer_bos(const struct tokenizer *tokenizer)
{
    return tokenizer->bos;
}

bool tokenizer_adds_bos(const struct tokenizer *tokenizer)
{
    return tokenizer->adds_bos;
}

int32_t tokenizer_eos(const struct tokenizer *tokenizer)
{
    return tokenizer->eos;
}

bool tokenizer_is_end(const struct tokenizer *tokenizer, int32_t id)
{
    for (size_t i = 0; i < tokenizer->n_ends; i++)
        if (tokenizer->ends[i] == id)
            return true;
    return false;
}

const int32_t *tokenizer_ends(const struct tokenizer *tokenizer, size_t *n)
{
    *n = tokenizer->n_ends;
    return tokenizer->ends;
}

const int32_t *tokenizer_blanks(const struct tokenizer *tokenizer, size_t *n)
{
    *n = tokenizer->blanks.n;
    return tokenizer->blanks.ids;
}

const int32_t *tokenizer_silent(const struct tokenizer *tokenizer, size_t *n)
{
    *n = tokenizer->silent.n;
    return tokenizer->silent.ids;
}

static bool in_range(const struct tokenizer *tokenizer, int32_t id)
{
    return id >= 0 && (size_t)id < tokenizer->vocabulary.n;
}

enum token_kind tokenizer_kind(const struct tokenizer *tokenizer, int32_t id)
{
    return in_range(tokenizer, id) ? (enum token_kind)tokenizer->vocabulary.kinds[id] : TOKEN_UNUSED;
}

int32_t tokenizer_find(const struct tokenizer *tokenizer, const char *text, size_t len)
{
    return vocabulary_find(&tokenizer->vocabulary, text, len, KIND_ANY);
}

struct gguf_string tokenizer_piece(const struct tokenizer *tokenizer, int32_t id)
{
    return in_range(tokenizer, id) ? vocabulary_piece(&tokenizer->vocabulary, id)
                                   : (struct gguf_string){"", 0};
}

bool tokenizer_has_text(const struct tokenizer *tokenizer, int32_t id)
{
    enum token_kind kind = tokenizer_kind(tokenizer, id);
    return kind != TOKEN_CONTROL && kind != TOKEN_UNKNOWN;
}

/* Whether ordinary text after this token was encoded with a space before it. */
static bool spaces_follow(const struct tokenizer *tokenizer, int32_t id)
{
    return tokenizer->encoding->adds_space_prefix &&
           (!tokenizer_has_text(tokenizer, id) || tokenizer_kind(tokenizer, id) == TOKEN_USER_DEFINED);
}

struct gguf_string tokenizer_text(const struct tokenizer *tokenizer, int32_t before, int32_t id)
{
    struct gguf_string text = tokenizer_piece(tokenizer, id);
    enum token_kind kind = tokenizer_kind(tokenizer, id);
    bool is_spaced = (kind == TOKEN_NORMAL || kind == TOKEN_BYTE) && text.len && *text.bytes == ' ';
    if (is_spaced && (before < 0 ? tokenizer->encoding->adds_space_prefix : spaces_follow(tokenizer, before)))
        return (struct gguf_string){text.bytes + 1, text.len - 1};
    return text;
}

/* Ordinary text and tokens that stand for themselves, in turns. is_spaced: with a space before the first text. */
static int encode_text(const struct tokenizer *tokenizer, struct encoding_session *session, const char *text,
                       size_t len, const struct text_span *spans, size_t n_spans, bool is_spaced,
                       struct token_list *out, runnel_error *error)
{
    const struct encoding_kind *kind = tokenizer->encoding->kind;
    struct special_match match;
    size_t done = 0, span = 0;
    while (special_set_next(&tokenizer->special, text, len, done, spans, n_spans, &span, &match)) {
        int code = kind->encode(session, text + done, match.begin - done, is_spaced, out, error);
        if (!code)
            code = token_list_add(out, match.id, error);
        if (code)
            return code;
        done = match.end;
        is_spaced = tokenizer->encoding->adds_space_prefix;
    }
    return kind->encode(session, text + done, len - done, is_spaced, out, error);
}

static int encode(const struct tokenizer *tokenizer, const char *text, size_t len,
                  const struct text_span *spans, size_t n_spans, bool is_spaced, struct token_list *out,
                  runnel_error *error)
{
    struct encoding_session *session = NULL;
    if (!len)
        return RUNNEL_OK;
    if (len > INT32_MAX)
        return error_set(error, RUNNEL_EINVAL, "text of %zu bytes: at most %d expected", len, INT32_MAX);
    size_t n_before = out->n;
    int code = tokenizer->encoding->kind->begin(tokenizer->encoding, &session, error);
    if (!code)
        code = encode_text(tokenizer, session, text, len, spans, n_spans, is_spaced, out, error);
    if (code)
        out->n = n_before;
    tokenizer->encoding->kind->end(session);
    return code;
}

int tokenizer_encode(const struct tokenizer *tokenizer, const char *text, size_t len,
                     const struct text_span *spans, size_t n_spans, struct token_list *out,
                     runnel_error *error)
{
    return encode(tokenizer, text, len, spans, n_spans, tokenizer->encoding->adds_space_prefix, out, error);
}

int tokenizer_encode_on(const struct tokenizer *tokenizer, const char *text, size_t len,
                        const struct text_span *spans, size_t n_spans, struct token_list *out,
                        runnel_error *error)
{
    return encode(tokenizer, text, len, spans, n_spans, false, out, error);
}
