/* hf_special.c: special tokens, chat template and sampling values of a Hugging Face folder. See hf_special.h. */
#include "model/formats/hf_special.h"

#include "base/utf8.h"
#include "model/chat.h"
#include "model/formats/hf_config.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { TEMPLATE_MAX_BYTES = 4 << 20 };

/* Special tokens ----------------------------------------------------------------------------------------------- */

static const struct {
    const char *name; /* in tokenizer_config.json NAME_token, in config.json NAME_token_id */
    const char *key;  /* in the GGUF file */
} roles[] = {
    {"bos", "tokenizer.ggml.bos_token_id"},     {"eos", "tokenizer.ggml.eos_token_id"},
    {"unk", "tokenizer.ggml.unknown_token_id"}, {"sep", "tokenizer.ggml.seperator_token_id"},
    {"pad", "tokenizer.ggml.padding_token_id"}, {"cls", "tokenizer.ggml.cls_token_id"},
    {"mask", "tokenizer.ggml.mask_token_id"},
};
enum { N_ROLES = sizeof roles / sizeof *roles, BOS = 0, EOS = 1 };

struct special {
    int64_t ids[N_ROLES]; /* -1: none */
};

/* A token's text: a text, or an object with one. NULL: it is not said. */
static const json_t *token_text(const json_t *config, const char *role)
{
    char key[32];
    snprintf(key, sizeof key, "%s_token", role);
    const json_t *entry = json_object_get(config, key);
    if (json_is_object(entry))
        entry = json_object_get(entry, "content");
    return json_is_string(entry) ? entry : NULL;
}

/* An id, or the first of several. */
static int read_id(struct json_place place, const char *role, const struct hf_vocabulary *vocabulary,
                   int64_t *id, runnel_error *error)
{
    char key[32];
    snprintf(key, sizeof key, "%s_token_id", role);
    const json_t *value = json_field(place, key);
    if (json_is_array(value))
        value = json_array_get(value, 0);
    if (!value)
        return RUNNEL_OK;
    if (!json_is_integer(value) || json_integer_value(value) < 0 ||
        json_integer_value(value) >= vocabulary->n)
        return error_set(error, RUNNEL_EFORMAT, "%s: %s: expected an id from 0 to %u", place.name, key,
                         vocabulary->n - 1);
    *id = json_integer_value(value);
    return RUNNEL_OK;
}

static int find_ids(const struct hf_sources *sources, const struct hf_vocabulary *vocabulary,
                    struct special *special, runnel_error *error)
{
    struct json_place text = {hf_config_text(sources->config), "config.json"};
    for (size_t i = 0; i < N_ROLES; i++) {
        const json_t *token = token_text(sources->tokenizer_config, roles[i].name);
        special->ids[i] =
            token ? hf_vocabulary_find(vocabulary, json_string_value(token), json_string_length(token)) : -1;
        if (special->ids[i] >= 0)
            continue;
        int code = read_id((struct json_place){sources->config, "config.json"}, roles[i].name, vocabulary,
                           &special->ids[i], error);
        if (!code && special->ids[i] < 0)
            code = read_id(text, roles[i].name, vocabulary, &special->ids[i], error);
        if (code)
            return code;
    }
    return RUNNEL_OK;
}

/* What else ends an answer ------------------------------------------------------------------------------------- */

/* Tokens that readers know as ends by their names. */
static bool is_known_end(struct gguf_string text)
{
    static const char *const names[] = {
        "<|im_end|>", "<|endoftext|>",   "<|eot_id|>",
        "<|eom_id|>", "<|end_of_text|>", "<end_of_turn>",
        "</s>",       "<eos>",           "<\uff5cend\u2581of\u2581sentence\uff5c>"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (strlen(names[i]) == text.len && !memcmp(names[i], text.bytes, text.len))
            return true;
    return false;
}

/* Of several ends in generation_config.json, one that readers would not know otherwise. */
static void write_other_end(const struct hf_sources *sources, const struct hf_vocabulary *vocabulary,
                            int64_t eos, struct gguf_writer *writer)
{
    const json_t *ends = json_object_get(sources->generation, "eos_token_id");
    for (size_t i = 0; i < json_array_size(ends); i++) {
        const json_t *end = json_array_get(ends, i);
        json_int_t id = json_is_integer(end) ? json_integer_value(end) : -1;
        if (id < 0 || id >= vocabulary->n || id == eos || !vocabulary->tokens[id].kind ||
            is_known_end(hf_vocabulary_text(vocabulary, (uint32_t)id)))
            continue;
        gguf_writer_add_u32(writer, "tokenizer.ggml.eot_token_id", (uint32_t)id);
        return;
    }
}

/* What is added to texts --------------------------------------------------------------------------------------- */

struct additions {
    bool says_bos, says_eos, bos, eos;
};

static bool is_special_token(const json_t *entry, const json_t *token)
{
    const json_t *id = json_object_get(json_object_get(entry, "SpecialToken"), "id");
    return json_is_string(id) && token && json_equal(id, token);
}

static void read_processor(const json_t *processor, const struct hf_sources *sources,
                           struct additions *additions)
{
    const char *type = json_string_value(json_object_get(processor, "type"));
    if (type && !strcmp(type, "ByteLevel"))
        additions->says_bos = additions->says_eos = true; /* no, unless another one says yes */
    if (!type || strcmp(type, "TemplateProcessing") != 0)
        return;
    const json_t *single = json_object_get(processor, "single");
    size_t n = json_array_size(single);
    if (n < 2)
        return;
    const json_t *first = json_array_get(single, 0), *last = json_array_get(single, n - 1);
    if (json_object_get(first, "SpecialToken")) {
        additions->says_bos = true;
        additions->bos = is_special_token(first, token_text(sources->tokenizer_config, "bos"));
    }
    if (json_object_get(last, "SpecialToken")) {
        additions->says_eos = true;
        additions->eos = is_special_token(last, token_text(sources->tokenizer_config, "eos"));
    }
}

/* The steps of tokenizer.json count before the switches of tokenizer_config.json. */
static int find_additions(const struct hf_sources *sources, struct additions *additions, runnel_error *error)
{
    struct json_place config = {sources->tokenizer_config, "tokenizer_config.json"};
    const json_t *post = json_object_get(sources->tokenizer, "post_processor");
    const json_t *list = json_object_get(post, "processors");
    if (!list)
        read_processor(post, sources, additions);
    for (size_t i = 0; i < json_array_size(list); i++)
        read_processor(json_array_get(list, i), sources, additions);
    bool bos = false, eos = false;
    int code = json_field_bool(config, "add_bos_token", &bos, error);
    if (!code)
        code = json_field_bool(config, "add_eos_token", &eos, error);
    if (!additions->says_bos && json_field(config, "add_bos_token")) {
        additions->says_bos = true;
        additions->bos = bos;
    }
    if (!additions->says_eos && json_field(config, "add_eos_token")) {
        additions->says_eos = true;
        additions->eos = eos;
    }
    return code;
}

int hf_special_write(const struct hf_sources *sources, const struct hf_vocabulary *vocabulary,
                     struct gguf_writer *writer, runnel_error *error)
{
    struct special special;
    struct additions additions = {.says_bos = false};
    int code = find_ids(sources, vocabulary, &special, error);
    if (!code)
        code = find_additions(sources, &additions, error);
    if (code)
        return code;
    for (size_t i = 0; i < N_ROLES; i++)
        if (special.ids[i] >= 0)
            gguf_writer_add_u32(writer, roles[i].key, (uint32_t)special.ids[i]);
    write_other_end(sources, vocabulary, special.ids[EOS], writer);
    if (additions.says_bos)
        gguf_writer_add_bool(writer, "tokenizer.ggml.add_bos_token", additions.bos && special.ids[BOS] >= 0);
    if (additions.says_eos)
        gguf_writer_add_bool(writer, "tokenizer.ggml.add_eos_token", additions.eos && special.ids[EOS] >= 0);
    return RUNNEL_OK;
}

/* The chat template -------------------------------------------------------------------------------------------- */

struct template_place {
    const struct hf_sources *sources;
    struct gguf_writer *writer;
    hf_remark *remark;
    void *user;
};

/* A template that cannot be run is kept, as other programs may run it. name: of its file. */
static int keep_template(const struct template_place *to, const char *name, const char *text,
                         runnel_error *error)
{
    const json_t *bos = token_text(to->sources->tokenizer_config, "bos"),
                 *eos = token_text(to->sources->tokenizer_config, "eos");
    const struct chat_tokens tokens = {
        {bos ? json_string_value(bos) : "", json_string_length(bos)},
        {eos ? json_string_value(eos) : "", json_string_length(eos)},
        false,
    };
    struct chat_template template;
    runnel_error why;
    char line[sizeof why.message + 64];
    gguf_writer_add_string(to->writer, "tokenizer.chat_template", text);
    if (!to->remark)
        return RUNNEL_OK;
    int code = chat_open(text, strlen(text), &tokens, &template, &why);
    if (!code)
        chat_close(&template);
    if (!code || code == RUNNEL_ENOMEM)
        return code ? error_set(error, code, "%s: %s", name, why.message) : RUNNEL_OK;
    snprintf(line, sizeof line, "%s: %s", name, why.message);
    to->remark(to->user, line);
    return RUNNEL_OK;
}

/* One text, or several with names, of which "default" is the one for conversations. */
static int write_template(const struct template_place *to, const json_t *template, const char *name,
                          runnel_error *error)
{
    if (json_is_array(template)) {
        const json_t *chosen = NULL;
        for (size_t i = 0; i < json_array_size(template); i++) {
            const json_t *entry = json_array_get(template, i);
            const char *of = json_string_value(json_object_get(entry, "name"));
            if (of && !strcmp(of, "default"))
                chosen = json_object_get(entry, "template");
        }
        template = chosen;
    }
    if (!json_is_string(template) || strlen(json_string_value(template)) != json_string_length(template))
        return error_set(error, RUNNEL_EFORMAT,
                         "%s: chat_template: expected a text, or one that is called default", name);
    return keep_template(to, name, json_string_value(template), error);
}

static int write_template_file(const struct template_place *to, runnel_error *error)
{
    char *text;
    size_t len;
    int code =
        folder_read(to->sources->folder, "chat_template.jinja", TEMPLATE_MAX_BYTES, &text, &len, error);
    if (code)
        return code;
    size_t wrong = utf8_find_wrong(text, len);
    if (strlen(text) != len)
        code = error_set(error, RUNNEL_EFORMAT, "chat_template.jinja: expected a text, found a zero byte");
    else if (wrong < len)
        code = error_set(error, RUNNEL_EFORMAT, "chat_template.jinja: not valid UTF-8 at byte %zu", wrong);
    else
        code = keep_template(to, "chat_template.jinja", text, error);
    free(text);
    return code;
}

int hf_template_write(const struct hf_sources *sources, struct gguf_writer *writer, hf_remark *remark,
                      void *user, runnel_error *error)
{
    const struct template_place to = {sources, writer, remark, user};
    if (folder_has(sources->folder, "chat_template.jinja"))
        return write_template_file(&to, error);
    const json_t *template =
        json_field((struct json_place){sources->tokenizer_config, "tokenizer_config.json"}, "chat_template");
    if (template)
        return write_template(&to, template, "tokenizer_config.json", error);
    if (!folder_has(sources->folder, "chat_template.json"))
        return RUNNEL_OK;
    json_t *root;
    int code = folder_read_json(sources->folder, "chat_template.json", TEMPLATE_MAX_BYTES, &root, error);
    if (code)
        return code;
    code = write_template(&to, json_object_get(root, "chat_template"), "chat_template.json", error);
    json_decref(root);
    return code;
}

/* Sampling values ---------------------------------------------------------------------------------------------- */

/* A value that cannot be used is no reason to refuse a model: requests give their own. */
static void leave_out(struct json_place place, const char *name, const char *expected, hf_remark *remark,
                      void *user)
{
    char line[200], found[JSON_DESCRIBED_BYTES];
    json_describe(json_field(place, name), found);
    snprintf(line, sizeof line, "left out: %s: %s: expected a %s from 0 on, found %s", place.name, name,
             expected, found);
    if (remark)
        remark(user, line);
}

void hf_sampling_write(const struct hf_sources *sources, struct gguf_writer *writer, hf_remark *remark,
                       void *user)
{
    static const struct {
        const char *name, *key;
        bool is_whole;
    } values[] = {
        {"temperature", "general.sampling.temp", false},
        {"top_k", "general.sampling.top_k", true},
        {"top_p", "general.sampling.top_p", false},
        {"min_p", "general.sampling.min_p", false},
        {"repetition_penalty", "general.sampling.penalty_repeat", false},
    };
    struct json_place place = {sources->generation, "generation_config.json"};
    for (size_t i = 0; i < sizeof values / sizeof *values; i++) {
        const json_t *value = json_field(place, values[i].name);
        double number = json_number_value(value);
        if (!value)
            continue;
        bool is_fine = json_is_number(value) && number >= 0 && number <= INT32_MAX &&
                       (!values[i].is_whole || number == floor(number));
        if (!is_fine)
            leave_out(place, values[i].name, values[i].is_whole ? "whole number" : "number", remark, user);
        else if (values[i].is_whole)
            gguf_writer_add_i32(writer, values[i].key, (int32_t)number);
        else
            gguf_writer_add_f32(writer, values[i].key, (float)number);
    }
}
