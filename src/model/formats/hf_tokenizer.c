/* hf_tokenizer.c: tokenizer.json to the lists of a GGUF file. See hf_tokenizer.h. */
#include "model/formats/hf_tokenizer.h"

#include "model/vocabulary.h"

#include <stdlib.h>
#include <string.h>

#define NAME "tokenizer.json"

static struct json_place model_of(const json_t *root)
{
    const json_t *model = json_object_get(root, "model");
    return (struct json_place){json_is_object(model) ? model : NULL, NAME ": model"};
}

bool hf_tokenizer_is_sentencepiece(const json_t *root)
{
    return json_is_true(json_field(model_of(root), "byte_fallback"));
}

/* Added tokens ------------------------------------------------------------------------------------------------- */

static int add_token(const char *name, json_int_t id, const json_t *object, struct hf_vocabulary *vocabulary,
                     size_t *n_left_out, runnel_error *error)
{
    const json_t *content = json_object_get(object, "content");
    bool is_special = false;
    size_t len = json_string_length(content);
    if (id < 0 || !json_is_string(content) || len == 0 || len > TOKEN_MAX_BYTES)
        return error_set(error, RUNNEL_EFORMAT,
                         "%s: expected an id from 0 on and a text of 1 to %d bytes as content", name,
                         TOKEN_MAX_BYTES);
    int code = json_field_bool((struct json_place){object, name}, "special", &is_special, error);
    if (code)
        return code;
    if (id < vocabulary->n)
        hf_vocabulary_set_added(vocabulary, (uint32_t)id, json_string_value(content), len, is_special);
    else
        ++*n_left_out;
    return RUNNEL_OK;
}

int hf_tokenizer_read_added(const json_t *list, const char *name, struct hf_vocabulary *vocabulary,
                            size_t *n_left_out, runnel_error *error)
{
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *object = json_array_get(list, i), *id = json_object_get(object, "id");
        int code = add_token(name, json_is_integer(id) ? json_integer_value(id) : -1, object, vocabulary,
                             n_left_out, error);
        if (code)
            return code;
    }
    return RUNNEL_OK;
}

int hf_tokenizer_read_decoder(const json_t *decoder, struct hf_vocabulary *vocabulary, size_t *n_left_out,
                              runnel_error *error)
{
    const char *key;
    json_t *object;
    json_object_foreach((json_t *)decoder, key, object)
    {
        size_t n_digits = strspn(key, "0123456789");
        json_int_t id = *key && !key[n_digits] && n_digits < 10 ? strtoll(key, NULL, 10) : -1;
        int code = add_token("tokenizer_config.json: added_tokens_decoder", id, object, vocabulary,
                             n_left_out, error);
        if (code)
            return code;
    }
    return RUNNEL_OK;
}

/* The vocabulary ----------------------------------------------------------------------------------------------- */

static enum token_kind kind_of(const char *text, bool has_bytes, const char *unknown)
{
    size_t len = strlen(text);
    if (unknown && !strcmp(text, unknown))
        return TOKEN_UNKNOWN;
    bool is_byte = has_bytes && len == 6 && !strncmp(text, "<0x", 3) && text[5] == '>' &&
                   strspn(text + 3, "0123456789ABCDEF") == 2;
    return is_byte ? TOKEN_BYTE : TOKEN_NORMAL;
}

static int read_vocabulary(struct json_place model, bool is_sentencepiece, struct hf_vocabulary *vocabulary,
                           json_t **out, runnel_error *error)
{
    json_t *vocab = NULL, *value;
    const char *unknown = NULL, *text;
    int code = json_field_object(model, "vocab", &vocab, error);
    if (!code && is_sentencepiece)
        code = json_field_text(model, "unk_token", &unknown, error);
    if (code)
        return code;
    if (!json_object_size(vocab))
        return error_set(error, RUNNEL_EFORMAT, "%s: vocab: not there, or empty", model.name);
    json_object_foreach(vocab, text, value)
    {
        json_int_t id = json_is_integer(value) ? json_integer_value(value) : -1;
        size_t len = strlen(text);
        if (id < 0 || id >= vocabulary->n)
            return error_set(
                error, RUNNEL_EFORMAT,
                "%s: vocab: token \"%.60s\": expected an id from 0 to %u, as config.json has a vocab_size "
                "of %u",
                model.name, text, vocabulary->n - 1, vocabulary->n);
        if (len == 0 || len > TOKEN_MAX_BYTES)
            return error_set(error, RUNNEL_EFORMAT, "%s: vocab: token %lld has %zu bytes, 1 to %d expected",
                             model.name, (long long)id, len, TOKEN_MAX_BYTES);
        if (vocabulary->tokens[id].kind)
            return error_set(error, RUNNEL_EFORMAT, "%s: vocab: two tokens have the id %lld", model.name,
                             (long long)id);
        hf_vocabulary_set(vocabulary, (uint32_t)id, text, len, kind_of(text, is_sentencepiece, unknown), 0);
    }
    *out = vocab;
    return RUNNEL_OK;
}

/* Merges ------------------------------------------------------------------------------------------------------- */

struct part {
    const char *bytes;
    size_t len;
};

/* A merge is a text, "a b", or of late a pair of texts. */
static int read_merge(const json_t *merge, size_t i, struct part parts[2], runnel_error *error)
{
    if (json_is_array(merge) && json_array_size(merge) == 2 && json_is_string(json_array_get(merge, 0)) &&
        json_is_string(json_array_get(merge, 1))) {
        for (size_t p = 0; p < 2; p++)
            parts[p] = (struct part){json_string_value(json_array_get(merge, p)),
                                     json_string_length(json_array_get(merge, p))};
    } else {
        const char *text = json_string_value(merge), *space = text ? strchr(text + (*text != 0), ' ') : NULL;
        if (!space)
            return error_set(error, RUNNEL_EFORMAT, NAME ": model: merge %zu: expected two parts", i);
        parts[0] = (struct part){text, (size_t)(space - text)};
        parts[1] = (struct part){space + 1, strlen(space + 1)};
    }
    if (!parts[0].len || !parts[1].len || parts[0].len + parts[1].len > TOKEN_MAX_BYTES)
        return error_set(error, RUNNEL_EFORMAT,
                         NAME ": model: merge %zu: expected two parts, together of at most %d "
                              "bytes",
                         i, TOKEN_MAX_BYTES);
    return RUNNEL_OK;
}

/* The id of a text in the vocabulary; -1: none. */
static int64_t find_text(const json_t *vocab, const char *bytes, size_t len)
{
    char text[TOKEN_MAX_BYTES + 1];
    memcpy(text, bytes, len);
    text[len] = 0;
    const json_t *id = json_object_get(vocab, text);
    return id && strlen(text) == len ? json_integer_value(id) : -1;
}

static int64_t find_whole(const json_t *vocab, const struct part parts[2])
{
    char text[TOKEN_MAX_BYTES];
    memcpy(text, parts[0].bytes, parts[0].len);
    memcpy(text + parts[0].len, parts[1].bytes, parts[1].len);
    return find_text(vocab, text, parts[0].len + parts[1].len);
}

static int refuse_merge(size_t i, const struct part parts[2], runnel_error *error)
{
    int lens[2];
    for (int p = 0; p < 2; p++)
        lens[p] = parts[p].len < 40 ? (int)parts[p].len : 40;
    return error_set(error, RUNNEL_EFORMAT,
                     NAME ": model: merge %zu, \"%.*s\" and \"%.*s\": not made of tokens of the vocabulary",
                     i, lens[0], parts[0].bytes, lens[1], parts[1].bytes);
}

static int write_merges(const json_t *merges, const json_t *vocab, struct hf_vocabulary *vocabulary,
                        runnel_error *error)
{
    for (size_t i = 0; i < json_array_size(merges); i++) {
        struct part parts[2];
        int code = read_merge(json_array_get(merges, i), i, parts, error);
        if (code)
            return code;
        if (find_whole(vocab, parts) < 0 || find_text(vocab, parts[0].bytes, parts[0].len) < 0 ||
            find_text(vocab, parts[1].bytes, parts[1].len) < 0)
            return refuse_merge(i, parts, error);
        hf_vocabulary_add_merge(vocabulary, parts[0].bytes, parts[0].len, parts[1].bytes, parts[1].len);
    }
    return RUNNEL_OK;
}

/* SentencePiece's merges --------------------------------------------------------------------------------------- */

static bool is_merged(const struct hf_vocabulary *vocabulary, int64_t id)
{
    return id >= 0 && vocabulary->tokens[id].kind == TOKEN_NORMAL;
}

/* In how many ways a token of the vocabulary is two of its tokens. */
static size_t count_splits(const json_t *vocab, const struct hf_vocabulary *vocabulary, uint32_t id)
{
    struct gguf_string text = hf_vocabulary_text(vocabulary, id);
    size_t n = 0;
    for (size_t at = 1; at < text.len; at++)
        n += (text.bytes[at] & 0xc0) != 0x80 && is_merged(vocabulary, find_text(vocab, text.bytes, at)) &&
             is_merged(vocabulary, find_text(vocab, text.bytes + at, text.len - at));
    return n;
}

/* SentencePiece merges two neighbours whenever both together are a token, the one with the highest score first; merges in a list
 * do the same if the list has every such pair, and the earliest merge of a token has its score. Added tokens match before. */
static int score_by_merges(const json_t *merges, const json_t *vocab, struct hf_vocabulary *vocabulary,
                           runnel_error *error)
{
    size_t n_merges = 0, n_splits = 0, n_scored = 0;
    if (vocabulary->texts.failed) /* they are read below */
        return error_set(error, RUNNEL_ENOMEM, "no memory for %u tokens", vocabulary->n);
    for (size_t i = 0; i < json_array_size(merges); i++) {
        struct part parts[2];
        int code = read_merge(json_array_get(merges, i), i, parts, error);
        if (code)
            return code;
        int64_t id = find_whole(vocab, parts), first = find_text(vocab, parts[0].bytes, parts[0].len),
                second = find_text(vocab, parts[1].bytes, parts[1].len);
        if (id < 0 || first < 0 || second < 0)
            return refuse_merge(i, parts, error);
        n_merges +=
            is_merged(vocabulary, id) && is_merged(vocabulary, first) && is_merged(vocabulary, second);
        if (vocabulary->tokens[id].score == 0)
            vocabulary->tokens[id].score = -(float)++n_scored;
    }
    for (uint32_t id = 0; id < vocabulary->n; id++)
        if (vocabulary->tokens[id].kind == TOKEN_NORMAL) {
            n_splits += count_splits(vocab, vocabulary, id);
            if (vocabulary->tokens[id].score == 0)
                vocabulary->tokens[id].score = -(float)++n_scored; /* never merged to */
        }
    if (n_merges == n_splits)
        return RUNNEL_OK;
    return error_set(
        error, RUNNEL_EUNSUPPORTED,
        NAME ": model: %zu merges, a SentencePiece model of this vocabulary has %zu: its tokenizer.model is "
             "needed",
        n_merges, n_splits);
}

/* What is done to a text before: only that spaces become U+2581, and that one may be put in front. */
static const struct space_step {
    const char *type, *key; /* key: its text is U+2581; NULL: it has none */
    bool has_pattern;       /* which is a space */
} space_steps[] = {{"Sequence", NULL, false},
                   {"Replace", "content", true},
                   {"Split", NULL, true},
                   {"Prepend", "prepend", false},
                   {"Metaspace", "replacement", false}};

static int find_space_step(struct json_place place, const struct space_step **step, runnel_error *error)
{
    const char *type = "";
    int code = json_field_text(place, "type", &type, error);
    for (size_t i = 0; i < sizeof space_steps / sizeof *space_steps && !code; i++)
        if (!strcmp(type, space_steps[i].type)) {
            *step = &space_steps[i];
            return RUNNEL_OK;
        }
    return code
               ? code
               : error_set(error, RUNNEL_EUNSUPPORTED, "%s: %.40s is not supported of SentencePiece's tokens",
                           place.name, *type ? type : "a step without a type");
}

static int check_space_step(struct json_place place, const struct space_step *step, runnel_error *error)
{
    const char *text = "", *space = "";
    json_t *pattern = NULL;
    int code = step->key ? json_field_text(place, step->key, &text, error) : RUNNEL_OK;
    if (!code && step->has_pattern)
        code = json_field_object(place, "pattern", &pattern, error);
    if (!code && pattern)
        code = json_field_text((struct json_place){pattern, place.name}, "String", &space, error);
    if (code)
        return code;
    if ((step->key && strcmp(text, "\u2581") != 0) || (step->has_pattern && strcmp(space, " ") != 0))
        return error_set(error, RUNNEL_EUNSUPPORTED,
                         "%s: a %s of something else than spaces and U+2581 is not supported of "
                         "SentencePiece's tokens",
                         place.name, step->type);
    return RUNNEL_OK;
}

static int read_spaces(const json_t *object, const char *name, struct hf_vocabulary *vocabulary,
                       runnel_error *error)
{
    struct json_place place = {object, name};
    const struct space_step *step = NULL;
    json_t *list = NULL;
    int code = find_space_step(place, &step, error);
    if (!code)
        code = check_space_step(place, step, error);
    if (code)
        return code;
    const char *scheme = strcmp(step->type, "Metaspace") != 0 ? "never" : "always"; /* if it says nothing */
    code = json_field_text(place, "prepend_scheme", &scheme, error);
    if (!code && !strcmp(step->type, "Sequence"))
        code = json_field_array(place, json_field(place, "normalizers") ? "normalizers" : "pretokenizers",
                                &list, error);
    if (!strcmp(step->type, "Prepend") || !strcmp(scheme, "first") || !strcmp(scheme, "always"))
        vocabulary->space_prefix = true;
    for (size_t i = 0; i < json_array_size(list) && !code; i++) {
        const json_t *inner = json_array_get(list, i);
        if (json_object_get(inner, "normalizers") || json_object_get(inner, "pretokenizers"))
            return error_set(error, RUNNEL_EUNSUPPORTED, "%s: a sequence in a sequence is not known", name);
        code = read_spaces(inner, name, vocabulary, error);
    }
    return code;
}

static int read_sentencepiece(const json_t *root, const json_t *merges, const json_t *vocab,
                              struct hf_vocabulary *vocabulary, runnel_error *error)
{
    static const struct {
        const char *key, *name;
    } steps[] = {{"normalizer", NAME ": normalizer"}, {"pre_tokenizer", NAME ": pre_tokenizer"}};
    vocabulary->model = "llama";
    vocabulary->has_scores = vocabulary->says_space_prefix = true;
    for (size_t i = 0; i < 2; i++) {
        const json_t *step = json_field((struct json_place){root, NAME}, steps[i].key);
        int code = step ? read_spaces(step, steps[i].name, vocabulary, error) : RUNNEL_OK;
        if (code)
            return code;
    }
    return score_by_merges(merges, vocab, vocabulary, error);
}

/* All ---------------------------------------------------------------------------------------------------------- */

/* What byte-level BPE can have, and readers of GGUF files do not know. */
static int check_bpe(struct json_place model, const char *pre, runnel_error *error)
{
    static const char *const unset[] = {"continuing_subword_prefix", "end_of_word_suffix"};
    bool ignores_merges = false;
    for (size_t i = 0; i < 2; i++) {
        const char *text = "";
        int code = json_field_text(model, unset[i], &text, error);
        if (!code && *text)
            code = error_set(error, RUNNEL_EUNSUPPORTED, "%s: %s: \"%.40s\" is not supported, expected none",
                             model.name, unset[i], text);
        if (code)
            return code;
    }
    int code = json_field_bool(model, "ignore_merges", &ignores_merges, error);
    if (!code && ignores_merges && strcmp(pre, "llama-bpe") != 0)
        code =
            error_set(error, RUNNEL_EUNSUPPORTED,
                      "%s: ignore_merges: true is not supported with the pre-tokenizer %s", model.name, pre);
    return code;
}

/* Text is not normalised here, nor in llama.cpp; of NFC nothing is seen in text as people type it. */
static int check_normalizer(const json_t *root, runnel_error *error)
{
    struct json_place place = {json_field((struct json_place){root, NAME}, "normalizer"),
                               NAME ": normalizer"};
    const char *type = "NFC";
    json_t *list = NULL;
    int code = json_field_text(place, "type", &type, error);
    if (!code && !strcmp(type, "Sequence")) {
        code = json_field_array(place, "normalizers", &list, error);
        if (!code && !json_array_size(list))
            return RUNNEL_OK;
    }
    if (!code && strcmp(type, "NFC") != 0)
        code = error_set(error, RUNNEL_EUNSUPPORTED, "%s: %.40s is not supported, expected NFC or none",
                         place.name, type);
    return code;
}

static int read_byte_level(const json_t *root, struct json_place model, const json_t *merges,
                           const json_t *vocab, struct hf_vocabulary *vocabulary, runnel_error *error)
{
    static const char r1_token[] = "<\uff5cbegin\u2581of\u2581sentence\uff5c>";
    bool is_r1 = hf_vocabulary_find(vocabulary, r1_token, sizeof r1_token - 1) >= 0;
    int code = check_normalizer(root, error);
    if (!code)
        code = hf_pretokenizer_name(json_field((struct json_place){root, NAME}, "pre_tokenizer"), is_r1,
                                    &vocabulary->pre, error);
    if (!code)
        code = check_bpe(model, vocabulary->pre, error);
    if (!code && !json_array_size(merges))
        code = error_set(error, RUNNEL_EFORMAT, "%s: merges: not there, or empty", model.name);
    return code ? code : write_merges(merges, vocab, vocabulary, error);
}

int hf_tokenizer_read(const json_t *root, struct hf_vocabulary *vocabulary, size_t *n_left_out,
                      runnel_error *error)
{
    struct json_place model = model_of(root);
    const char *type = "BPE"; /* the first files had none */
    json_t *merges = NULL, *vocab = NULL, *added = NULL;
    bool is_sentencepiece = hf_tokenizer_is_sentencepiece(root);
    if (!model.object)
        return error_set(error, RUNNEL_EFORMAT, NAME ": model: not there");
    int code = json_field_text(model, "type", &type, error);
    if (!code && strcmp(type, "BPE") != 0)
        code = error_set(error, RUNNEL_EUNSUPPORTED, "%s: type %.40s is not known, expected BPE", model.name,
                         type);
    if (!code)
        code = json_field_array(model, "merges", &merges, error);
    if (!code)
        code = read_vocabulary(model, is_sentencepiece, vocabulary, &vocab, error);
    if (!code)
        code = json_field_array((struct json_place){root, NAME}, "added_tokens", &added, error);
    if (!code)
        code = hf_tokenizer_read_added(added, NAME ": added_tokens", vocabulary, n_left_out, error);
    if (code)
        return code;
    return is_sentencepiece ? read_sentencepiece(root, merges, vocab, vocabulary, error)
                            : read_byte_level(root, model, merges, vocab, vocabulary, error);
}
