/* inspect.c: the command `runnel inspect`: what a model file holds, without loading its weights. A file whose
 * architecture is not known here is shown as far as it can be. One thread. */
#include "base/options.h"
#include "cli/catalogue.h"
#include "cli/cli.h"
#include "model/chat.h"
#include "model/sampling_keys.h"
#include "model/tokenizer.h"
#include "model/weights.h"

#include <inttypes.h>
#include <jansson.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { TYPES_MAX = 32, SPECIALS_MAX = 8 };

struct type_use {
    const struct quant_info *info;
    uint64_t n_tensors, n_bytes;
};

struct special_token {
    const char *role; /* "eos" */
    uint32_t id;
    struct gguf_string text; /* empty if the id is past the vocabulary */
};

struct inspection { /* strings belong to the gguf */
    struct gguf *gguf;
    struct gguf_string name, architecture, tokenizer, pre;
    bool has_config; /* architecture and hyperparameters are known here */
    struct model_config config;
    bool runs;            /* and so is the tokenizer */
    runnel_error refusal; /* if not */
    uint64_t n_parameters, weight_bytes;
    uint64_t bytes_per_token; /* that decoding one token reads of the file's weights */
    struct type_use types[TYPES_MAX];
    size_t n_types;
    size_t n_tokens;
    struct special_token specials[SPECIALS_MAX];
    size_t n_specials;
    const char *chat;  /* "r1", "chatml", "own", "none", "unknown" */
    char warning[512]; /* the sampling values that loading leaves out, and why; "" if none */
};

/* Gathering ----------------------------------------------------------------------------------------------- */

static struct gguf_string string_or_empty(const struct gguf *gguf, const char *key)
{
    struct gguf_string value = {.bytes = "", .len = 0};
    gguf_get_string(gguf, key, &value, NULL);
    return value;
}

/* Every matrix is read once for a token; of the embedding one row, unless it is the output head as well. */
static void count_weights(struct inspection *it)
{
    bool tied = !gguf_find_tensor(it->gguf, "output.weight");
    for (size_t i = 0; i < gguf_n_tensors(it->gguf); i++) {
        const struct gguf_tensor *tensor = gguf_tensor_at(it->gguf, i);
        it->n_parameters += tensor->dims[0] * tensor->dims[1] * tensor->dims[2] * tensor->dims[3];
        it->weight_bytes += tensor->n_bytes;
        bool embedding = !strcmp(tensor->name, "token_embd.weight");
        if (embedding)
            it->bytes_per_token += tensor->row_bytes;
        if (tensor->n_dims >= 2 && (!embedding || tied))
            it->bytes_per_token += tensor->n_bytes;
        size_t t = 0;
        while (t < it->n_types && it->types[t].info->type != tensor->type)
            t++;
        if (t == TYPES_MAX)
            continue;
        if (t == it->n_types)
            it->types[it->n_types++].info = quant_find((uint32_t)tensor->type);
        it->types[t].n_tensors++;
        it->types[t].n_bytes += tensor->n_bytes;
    }
}

static void read_tokenizer(struct inspection *it)
{
    static const char *const roles[SPECIALS_MAX] = {"bos",     "eos",     "eot",       "eom",
                                                    "unknown", "padding", "separator", "mask"};
    struct gguf_array tokens = {.n = 0};
    it->tokenizer = string_or_empty(it->gguf, "tokenizer.ggml.model");
    it->pre = string_or_empty(it->gguf, "tokenizer.ggml.pre");
    gguf_get_array(it->gguf, "tokenizer.ggml.tokens", GGUF_STRING, &tokens, NULL);
    it->n_tokens = tokens.n;
    for (size_t i = 0; i < SPECIALS_MAX; i++) {
        char key[64];
        struct special_token *special = &it->specials[it->n_specials];
        snprintf(key, sizeof key, "tokenizer.ggml.%s_token_id", roles[i]);
        if (gguf_get_u32(it->gguf, key, &special->id, NULL))
            continue;
        special->role = roles[i];
        special->text = (struct gguf_string){.bytes = "", .len = 0};
        if (special->id < tokens.n)
            special->text = ((const struct gguf_string *)tokens.values)[special->id];
        it->n_specials++;
    }
}

static void look_at_template(struct inspection *it)
{
    struct gguf_string jinja = string_or_empty(it->gguf, "tokenizer.chat_template");
    const struct chat_tokens tokens = {{"", 0}, {"", 0}, false};
    struct chat_template template;
    it->chat = "none";
    if (!jinja.len)
        return;
    it->chat = "unknown";
    if (chat_open(jinja.bytes, jinja.len, &tokens, &template, NULL))
        return;
    it->chat = template.name;
    chat_close(&template);
}

static bool find_refusal(struct inspection *it)
{
    struct tokenizer *tokenizer;
    it->has_config =
        !gguf_check_model(it->gguf, &it->refusal) && !model_config_read(it->gguf, &it->config, &it->refusal);
    if (!it->has_config || tokenizer_create(it->gguf, &tokenizer, &it->refusal))
        return true;
    tokenizer_free(tokenizer);
    return false;
}

static void gather(struct inspection *it)
{
    it->name = string_or_empty(it->gguf, "general.name");
    it->architecture = string_or_empty(it->gguf, "general.architecture");
    it->runs = !find_refusal(it);
    look_at_template(it);
    sampling_keys_read(it->gguf, &(runnel_sampling){0}, it->warning, sizeof it->warning);
    count_weights(it);
    read_tokenizer(it);
}

/* For people ---------------------------------------------------------------------------------------------- */

static void print_text(struct gguf_string text)
{
    cli_print_text(text.bytes, text.len);
}

static void label(const char *name)
{
    printf("%-16s", name);
}

static void line_text(const char *name, struct gguf_string text)
{
    label(name);
    if (text.len)
        print_text(text);
    else
        printf("none");
    putchar('\n');
}

/* "gpt2, qwen2, 151936 tokens": the second word only where there is one. */
static void print_tokenizer(const struct inspection *it)
{
    label("tokenizer");
    if (!it->tokenizer.len && !it->n_tokens) {
        printf("none\n");
        return;
    }
    if (it->tokenizer.len)
        print_text(it->tokenizer);
    else
        printf("without a kind");
    printf(", ");
    if (it->pre.len) {
        print_text(it->pre);
        printf(", ");
    }
    printf("%zu tokens\n", it->n_tokens);
}

static void line_bytes(const char *name, uint64_t n_bytes)
{
    label(name);
    printf("%.2f MB (%" PRIu64 " bytes)\n", (double)n_bytes / 1e6, n_bytes);
}

static uint64_t kv_bytes_per_token(const struct model_config *config)
{
    return UINT64_C(2) * sizeof(uint16_t) * config->n_layers * config->n_kv_heads * config->head_dim;
}

static void print_shapes(const struct inspection *it)
{
    const struct model_config *config = &it->config;
    label("layers");
    printf("%" PRIu32 "\n", config->n_layers);
    label("hidden size");
    printf("%" PRIu32 ", feed-forward %" PRIu32 "\n", config->n_hidden, config->n_ffn);
    label("heads");
    printf("%" PRIu32 " of size %" PRIu32 " over %" PRIu32 " of keys and values\n", config->n_heads,
           config->head_dim, config->n_kv_heads);
    label("rotation");
    printf("%" PRIu32 " values a head, base %g", config->n_rot, (double)config->rope.base);
    if (config->rope.factor != 1)
        printf(", context stretched %g times (%s)", (double)config->rope.factor,
               rope_scaling_name(config->rope.scaling));
    printf("\n");
    if (config->n_window) {
        label("window");
        printf("%" PRIu32 " tokens, base %g, in %" PRIu32 " layers of %" PRIu32 "\n", config->n_window,
               (double)config->window_rope.base, config->window_period - 1, config->window_period);
    }
    label("norm epsilon");
    printf("%g\n", (double)config->norm_epsilon);
    label("output head");
    printf("%s\n", config->tied ? "tied to the embedding" : "separate");
    label("context");
    printf("%" PRIu32 " tokens\n", config->n_context_train);
}

static void print_inspection(const struct inspection *it)
{
    line_text("name", it->name);
    line_text("architecture", it->architecture);
    label("file");
    cli_print_text(gguf_path(it->gguf), strlen(gguf_path(it->gguf)));
    printf(", GGUF version %" PRIu32, gguf_version(it->gguf));
    if (gguf_n_parts(it->gguf) > 1)
        printf(", in %zu parts", gguf_n_parts(it->gguf));
    putchar('\n');
    line_bytes("file size", gguf_file_bytes(it->gguf));
    if (it->has_config)
        print_shapes(it);
    if (!it->runs) {
        label("cannot run");
        printf("%s\n", it->refusal.message);
    }
    label("parameters");
    printf("%.3f billion (%" PRIu64 ")\n", (double)it->n_parameters / 1e9, it->n_parameters);
    for (size_t t = 0; t < it->n_types; t++) {
        label(t ? "" : "tensors");
        printf("%5" PRIu64 " x %-6s %9.2f MB\n", it->types[t].n_tensors, it->types[t].info->name,
               (double)it->types[t].n_bytes / 1e6);
    }
    line_bytes("read per token", it->bytes_per_token);
    if (it->has_config) {
        label("cache per token");
        printf("%" PRIu64 " bytes at 16 bits a value\n", kv_bytes_per_token(&it->config));
    }
    print_tokenizer(it);
    for (size_t s = 0; s < it->n_specials; s++) {
        label(s ? "" : "special tokens");
        printf("%-9s %6" PRIu32 "  ", it->specials[s].role, it->specials[s].id);
        print_text(it->specials[s].text);
        putchar('\n');
    }
    label("chat template");
    printf("%s\n", it->chat);
    if (*it->warning)
        line_text("left out", (struct gguf_string){.bytes = it->warning, .len = strlen(it->warning)});
}

/* For programs -------------------------------------------------------------------------------------------- */

/* Text from a file as a JSON string; bytes that are not ASCII become '?' if it is not UTF-8. */
static json_t *json_text(struct gguf_string text)
{
    json_t *string = json_stringn(text.bytes, text.len);
    char *copy = string ? NULL : malloc(text.len + 1);
    if (!copy)
        return string;
    for (size_t i = 0; i < text.len; i++)
        copy[i] = (text.bytes[i] & 0x80) ? '?' : text.bytes[i];
    string = json_stringn(copy, text.len);
    free(copy);
    return string;
}

static json_t *json_count(uint64_t value)
{
    return json_integer((json_int_t)value);
}

static json_t *json_shapes(const struct model_config *config)
{
    return json_pack("{s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:f, s:s, s:f, s:I, s:I, s:f, s:b, s:I}",
                     "layers", (json_int_t)config->n_layers, "hidden", (json_int_t)config->n_hidden, "heads",
                     (json_int_t)config->n_heads, "kv_heads", (json_int_t)config->n_kv_heads, "head_dim",
                     (json_int_t)config->head_dim, "ffn", (json_int_t)config->n_ffn, "vocab",
                     (json_int_t)config->n_vocab, "context", (json_int_t)config->n_context_train, "rope_base",
                     (double)config->rope.base, "rope_scaling", rope_scaling_name(config->rope.scaling),
                     "rope_factor", (double)config->rope.factor, "rope_dimensions", (json_int_t)config->n_rot,
                     "window", (json_int_t)config->n_window, "norm_epsilon", (double)config->norm_epsilon,
                     "tied", (int)config->tied, "kv_bytes_per_token", (json_int_t)kv_bytes_per_token(config));
}

static json_t *json_tokenizer(const struct inspection *it)
{
    json_t *specials = json_array();
    for (size_t s = 0; s < it->n_specials; s++)
        json_array_append_new(specials, json_pack("{s:s, s:I, s:o}", "role", it->specials[s].role, "id",
                                                  (json_int_t)it->specials[s].id, "text",
                                                  json_text(it->specials[s].text)));
    return json_pack("{s:o, s:o, s:o, s:o}", "model", json_text(it->tokenizer), "pre", json_text(it->pre),
                     "tokens", json_count(it->n_tokens), "special", specials);
}

static int print_json(const struct inspection *it)
{
    json_t *types = json_array();
    for (size_t t = 0; t < it->n_types; t++)
        json_array_append_new(types, json_pack("{s:s, s:o, s:o}", "type", it->types[t].info->name, "tensors",
                                               json_count(it->types[t].n_tensors), "bytes",
                                               json_count(it->types[t].n_bytes)));
    struct gguf_string path = {.bytes = gguf_path(it->gguf), .len = strlen(gguf_path(it->gguf))};
    json_t *object = json_pack(
        "{s:o, s:o, s:o, s:o, s:o, s:o, s:b, s:o, s:o, s:o, s:o, s:o, s:s, s:s}", "path", json_text(path),
        "name", json_text(it->name), "architecture", json_text(it->architecture), "gguf_version",
        json_count(gguf_version(it->gguf)), "file_bytes", json_count(gguf_file_bytes(it->gguf)), "parts",
        json_count(gguf_n_parts(it->gguf)), "runs", (int)it->runs, "parameters", json_count(it->n_parameters),
        "weight_bytes", json_count(it->weight_bytes), "bytes_per_token", json_count(it->bytes_per_token),
        "types", types, "tokenizer", json_tokenizer(it), "chat_template", it->chat, "warning", it->warning);
    if (it->has_config) {
        json_t *shapes = json_shapes(&it->config);
        json_object_update(object, shapes);
        json_decref(shapes);
    }
    if (!it->runs)
        json_object_set_new(object, "error", json_string(it->refusal.message));
    if (!object) {
        fprintf(stderr, "runnel: the model cannot be described as JSON\n");
        return EXIT_FAILED;
    }
    json_dumpf(object, stdout, JSON_INDENT(2));
    putchar('\n');
    json_decref(object);
    return EXIT_DONE;
}

/* The command --------------------------------------------------------------------------------------------- */

struct inspect_settings {
    const char *model;
    bool json;
    char *config_text;
};

static const struct option_spec inspect_options[] = {
    {"model", 'm', OPTION_STRING, "MODEL", "GGUF file, or the name of a pulled model",
     OPTION_FIELD(struct inspect_settings, model), .required = true, .bare = true},
    {"json", 0, OPTION_FLAG, NULL, "print one object", OPTION_FIELD(struct inspect_settings, json)},
    {"config", 0, OPTION_CONFIG, "FILE", "read options from FILE, a line `name = value` each",
     OPTION_FIELD(struct inspect_settings, config_text)},
};

const struct options_table inspect_table = {
    "runnel inspect", "Shows what a model file holds: shapes, types, tokenizer, template, bytes a token.",
    inspect_options, OPTION_COUNT(inspect_options)};

static int run(const char *model, bool json)
{
    char path[PATH_MAX];
    runnel_error error;
    struct inspection it = {.gguf = NULL};
    if (catalogue_resolve(model, path, sizeof path, &error) || gguf_open(path, &it.gguf, &error))
        return cli_fail(&error);
    gather(&it);
    int status = EXIT_DONE;
    if (json)
        status = print_json(&it);
    else
        print_inspection(&it);
    gguf_close(it.gguf);
    return status;
}

int command_inspect(int argc, char **argv)
{
    struct inspect_settings settings;
    int status = cli_read_options(&inspect_table, argc, argv, &settings);
    if (status >= 0)
        return status;
    status = run(settings.model, settings.json);
    free(settings.config_text);
    return status;
}
