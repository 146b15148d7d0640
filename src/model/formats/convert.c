/* convert.c: a Hugging Face folder to a GGUF file. See convert.h.
 *
 * Everything is read and checked before a byte is written, but for the values of weights. */
#include "model/formats/convert.h"

#include "base/new_file.h"
#include "kernels/quantize.h"
#include "model/formats/hf_special.h"
#include "model/formats/hf_tensors.h"
#include "model/formats/hf_tokenizer.h"
#include "model/formats/sentencepiece.h"

#include <dirent.h>
#include <inttypes.h>
#include <limits.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>

enum { CONFIG_MAX_BYTES = 4 << 20, TOKENIZER_CONFIG_MAX_BYTES = 32 << 20 };

struct conversion {
    const struct convert_options *options;
    struct hf_sources sources;
    struct hf_config config;
    struct checkpoint *checkpoint;
    struct hf_tensors tensors;
    struct gguf_writer *writer;

    /* While values are written: */
    struct tensor_output *outputs; /* [tensors.n] */
    struct hf_reader reader;
    unsigned char *row;
    uint64_t row_at; /* which row that is; UINT64_MAX: none */
    uint64_t done, total;
};

/* What gguf_writer_save calls with. */
struct tensor_output {
    struct conversion *conversion;
    const struct hf_tensor *tensor;
};

bool convert_find_type(const char *name, enum tensor_type *type)
{
    static const enum tensor_type types[] = {TENSOR_F16, TENSOR_BF16, TENSOR_F32, TENSOR_Q8_0};
    for (size_t i = 0; i < sizeof types / sizeof *types; i++)
        if (!strcasecmp(name, quant_find((uint32_t)types[i])->name)) {
            *type = types[i];
            return true;
        }
    return false;
}

static void __attribute__((format(printf, 2, 3)))
tell(const struct conversion *conversion, const char *format, ...)
{
    char line[400];
    va_list args;
    va_start(args, format);
    vsnprintf(line, sizeof line, format, args);
    va_end(args);
    if (conversion->options->on_remark)
        conversion->options->on_remark(conversion->options->user, line);
}

/* Reading the folder ------------------------------------------------------------------------------------------- */

/* By its ending: whether a file of a folder may be one that is read here. */
static bool is_source(const char *name)
{
    static const char *const endings[] = {".json", ".safetensors", ".model", ".jinja"};
    size_t len = strlen(name);
    for (size_t i = 0; i < sizeof endings / sizeof *endings; i++)
        if (len > strlen(endings[i]) && !strcmp(name + len - strlen(endings[i]), endings[i]))
            return true;
    return false;
}

static int check_folder(const char *folder, runnel_error *error)
{
    struct stat status;
    if (stat(folder, &status))
        return error_set(error, RUNNEL_EIO, "%s: cannot open: %m", folder);
    if (!S_ISDIR(status.st_mode))
        return error_set(error, RUNNEL_EINVAL, "%s: expected a folder with config.json and safetensors files",
                         folder);
    return RUNNEL_OK;
}

/* The output takes the place of nothing that it is made of. */
static int check_sources(const struct convert_options *options, runnel_error *error)
{
    char path[FOLDER_PATH_MAX];
    int code = RUNNEL_OK;
    DIR *directory = opendir(options->folder);
    if (!directory)
        return error_set(error, RUNNEL_EIO, "%s: cannot open the folder: %m", options->folder);
    for (struct dirent *entry; !code && (entry = readdir(directory));) {
        if (is_source(entry->d_name) && !folder_path(options->folder, entry->d_name, path, NULL))
            code = new_file_check_spares(options->output, path, error);
    }
    closedir(directory);
    return code;
}

/* Messages name what they are of: the folder, or the output. */
static int check_paths(const struct convert_options *options, runnel_error *error)
{
    int code = check_folder(options->folder, error);
    if (!code)
        code = new_file_check(options->output, error);
    return code ? code : check_sources(options, error);
}

static int read_optional(const char *folder, const char *name, size_t max_bytes, json_t **root,
                         runnel_error *error)
{
    return folder_has(folder, name) ? folder_read_json(folder, name, max_bytes, root, error) : RUNNEL_OK;
}

/* How older checkpoints say that their weights are quantised: in a file beside. */
static int read_config(struct conversion *conversion, runnel_error *error)
{
    static const struct {
        const char *name;
        enum hf_quant_method method;
    } files[] = {{"quantize_config.json", HF_QUANT_GPTQ}, {"quant_config.json", HF_QUANT_AWQ}};
    const char *folder = conversion->sources.folder, *name = NULL;
    enum hf_quant_method method = HF_QUANT_NONE;
    json_t *quant = NULL;
    int code = folder_read_json(folder, "config.json", CONFIG_MAX_BYTES, &conversion->sources.config, error);
    for (size_t i = 0; i < 2 && !code && !quant; i++) {
        name = files[i].name;
        method = files[i].method;
        code = read_optional(folder, name, CONFIG_MAX_BYTES, &quant, error);
    }
    if (!code)
        code = hf_config_read(conversion->sources.config, quant, name, method, &conversion->config, error);
    json_decref(quant);
    return code;
}

static int read_sentencepiece(struct conversion *conversion, struct hf_vocabulary *vocabulary,
                              size_t *n_left_out, runnel_error *error)
{
    const char *folder = conversion->sources.folder;
    json_t *decoder = NULL, *added = NULL;
    char *bytes;
    size_t len;
    int code = folder_read(folder, "tokenizer.model", TOKENIZER_MODEL_MAX_BYTES, &bytes, &len, error);
    if (code)
        return code;
    code = sentencepiece_read(bytes, len, vocabulary, n_left_out, error);
    free(bytes);
    struct json_place config = {conversion->sources.tokenizer_config, "tokenizer_config.json"};
    if (!code)
        code = json_field_object(config, "added_tokens_decoder", &decoder, error);
    if (!code)
        code = json_field_array((struct json_place){conversion->sources.tokenizer, "tokenizer.json"},
                                "added_tokens", &added, error);
    if (!code && decoder)
        code = hf_tokenizer_read_decoder(decoder, vocabulary, n_left_out, error);
    else if (!code)
        code = hf_tokenizer_read_added(added, "tokenizer.json: added_tokens", vocabulary, n_left_out, error);
    bool prefix = vocabulary->space_prefix;
    if (!code)
        code = json_field_bool(config, "add_prefix_space", &prefix, error);
    vocabulary->space_prefix = prefix && !(conversion->config.architecture->traits & HF_WINDOWS);
    return code;
}

static int read_vocabulary(struct conversion *conversion, struct hf_vocabulary *vocabulary,
                           runnel_error *error)
{
    struct hf_sources *sources = &conversion->sources;
    size_t n_left_out = 0;
    int code = read_optional(sources->folder, "tokenizer.json", TOKENIZER_JSON_MAX_BYTES, &sources->tokenizer,
                             error);
    if (!code)
        code = read_optional(sources->folder, "tokenizer_config.json", TOKENIZER_CONFIG_MAX_BYTES,
                             &sources->tokenizer_config, error);
    if (!code)
        code = read_optional(sources->folder, "generation_config.json", CONFIG_MAX_BYTES,
                             &sources->generation, error);
    if (code)
        return code;
    bool has_model = folder_has(sources->folder, "tokenizer.model");
    if (!sources->tokenizer && !has_model)
        return error_set(error, RUNNEL_EIO, "tokenizer.json: not there, nor tokenizer.model");
    if (has_model && (!sources->tokenizer || hf_tokenizer_is_sentencepiece(sources->tokenizer)))
        code = read_sentencepiece(conversion, vocabulary, &n_left_out, error);
    else
        code = hf_tokenizer_read(sources->tokenizer, vocabulary, &n_left_out, error);
    if (!code && n_left_out)
        tell(conversion, "left out: %zu token%s for which the embedding has no row", n_left_out,
             n_left_out == 1 ? "" : "s");
    return code;
}

/* Keys --------------------------------------------------------------------------------------------------------- */

static void add_u32(struct conversion *conversion, const char *name, uint32_t value)
{
    char key[96];
    snprintf(key, sizeof key, "%s.%s", conversion->config.architecture->name, name);
    gguf_writer_add_u32(conversion->writer, key, value);
}

static void add_f32(struct conversion *conversion, const char *name, double value)
{
    char key[96];
    snprintf(key, sizeof key, "%s.%s", conversion->config.architecture->name, name);
    gguf_writer_add_f32(conversion->writer, key, (float)value);
}

static void add_string(struct conversion *conversion, const char *name, const char *value)
{
    char key[96];
    snprintf(key, sizeof key, "%s.%s", conversion->config.architecture->name, name);
    gguf_writer_add_string(conversion->writer, key, value);
}

/* The number by which files say what most of their tensors are. */
static uint32_t file_type(const struct conversion *conversion)
{
    static const struct {
        enum tensor_type type;
        uint32_t number;
    } numbers[] = {{TENSOR_F32, 0},  {TENSOR_F16, 1},  {TENSOR_Q4_0, 2},
                   {TENSOR_Q4_1, 3}, {TENSOR_Q8_0, 7}, {TENSOR_BF16, 32}};
    enum { N = sizeof numbers / sizeof *numbers };
    size_t n_tensors[N] = {0}, most = 0;
    for (size_t i = 0; i < conversion->tensors.n; i++)
        for (size_t t = 0; t < N; t++)
            if (conversion->tensors.list[i].is_matrix && conversion->tensors.list[i].type == numbers[t].type)
                n_tensors[t]++;
    for (size_t t = 1; t < N; t++)
        if (n_tensors[t] > n_tensors[most])
            most = t;
    return numbers[most].number;
}

static void add_general_keys(struct conversion *conversion)
{
    char resolved[PATH_MAX];
    const char *path = realpath(conversion->sources.folder, resolved) ? resolved : conversion->sources.folder;
    const char *slash = strrchr(path, '/'), *name = slash && slash[1] ? slash + 1 : path;
    gguf_writer_add_string(conversion->writer, "general.architecture", conversion->config.architecture->name);
    gguf_writer_add_string(conversion->writer, "general.type", "model");
    gguf_writer_add_string(conversion->writer, "general.name", name);
    gguf_writer_add_u32(conversion->writer, "general.file_type", file_type(conversion));
    gguf_writer_add_u32(conversion->writer, "general.quantization_version", 2);
}

static void add_rope_keys(struct conversion *conversion)
{
    const struct hf_rope *rope = &conversion->config.rope;
    add_f32(conversion, "rope.freq_base", rope->base);
    if (rope->scaling == HF_SCALING_LINEAR || rope->scaling == HF_SCALING_YARN) {
        add_string(conversion, "rope.scaling.type", rope->scaling == HF_SCALING_YARN ? "yarn" : "linear");
        add_f32(conversion, "rope.scaling.factor", rope->factor);
    }
    if (rope->scaling != HF_SCALING_YARN)
        return;
    add_u32(conversion, "rope.scaling.original_context_length", rope->n_context_original);
    /* Of transformers the whole factor, of readers of GGUF files what YaRN's own is multiplied with. */
    if (rope->attention_factor > 0)
        add_f32(conversion, "rope.scaling.attn_factor",
                rope->attention_factor / (1 + 0.1 * log(rope->factor)));
    if (rope->attn_factor > 0)
        add_f32(conversion, "rope.scaling.yarn_attn_factor", rope->attn_factor);
    if (rope->beta_fast > 0)
        add_f32(conversion, "rope.scaling.yarn_beta_fast", rope->beta_fast);
    if (rope->beta_slow > 0)
        add_f32(conversion, "rope.scaling.yarn_beta_slow", rope->beta_slow);
}

static void add_model_keys(struct conversion *conversion)
{
    const struct hf_config *config = &conversion->config;
    unsigned traits = config->architecture->traits;
    add_u32(conversion, "block_count", config->n_layers);
    add_u32(conversion, "context_length", config->n_context);
    add_u32(conversion, "embedding_length", config->n_hidden);
    add_u32(conversion, "feed_forward_length", config->n_ffn);
    add_u32(conversion, "attention.head_count", config->n_heads);
    add_u32(conversion, "attention.head_count_kv", config->n_kv_heads);
    add_f32(conversion, "attention.layer_norm_rms_epsilon", config->norm_epsilon);
    if (config->has_head_dim || traits & HF_KEY_LENGTH) {
        add_u32(conversion, "attention.key_length", config->head_dim);
        add_u32(conversion, "attention.value_length", config->head_dim);
    }
    add_rope_keys(conversion);
    if (traits & HF_PERMUTED_QK) {
        add_u32(conversion, "rope.dimension_count", config->head_dim);
        add_u32(conversion, "vocab_size", config->n_vocab);
    }
    if (traits & HF_WINDOWS) {
        add_f32(conversion, "rope.freq_base_swa", config->rope_base_local);
        add_u32(conversion, "attention.sliding_window", config->window);
    }
}

static int add_tokenizer_keys(struct conversion *conversion, runnel_error *error)
{
    struct hf_vocabulary vocabulary;
    int code = hf_vocabulary_create(&vocabulary, conversion->config.n_vocab, error);
    if (code)
        return code;
    code = read_vocabulary(conversion, &vocabulary, error);
    const struct convert_options *options = conversion->options;
    if (!code) {
        hf_sampling_write(&conversion->sources, conversion->writer, options->on_remark, options->user);
        code = hf_vocabulary_write(&vocabulary, conversion->writer, error);
    }
    if (!code)
        code = hf_special_write(&conversion->sources, &vocabulary, conversion->writer, error);
    if (!code)
        code = hf_template_write(&conversion->sources, conversion->writer, options->on_remark, options->user,
                                 error);
    hf_vocabulary_free(&vocabulary);
    return code;
}

/* Values ------------------------------------------------------------------------------------------------------- */

static int begin_tensor(struct conversion *conversion, const struct hf_tensor *tensor, runnel_error *error)
{
    hf_reader_close(&conversion->reader);
    free(conversion->row);
    conversion->row = NULL;
    conversion->row_at = UINT64_MAX;
    int code = hf_reader_open(&conversion->reader, tensor, error);
    if (code)
        return code;
    conversion->row = malloc(conversion->reader.row_bytes);
    return conversion->row ? RUNNEL_OK : error_set(error, RUNNEL_ENOMEM, "no memory for a row");
}

static int tell_progress(struct conversion *conversion, size_t n, runnel_error *error)
{
    const struct convert_options *options = conversion->options;
    conversion->done += n;
    if (options->on_progress && !options->on_progress(options->user, conversion->done, conversion->total))
        return error_set(error, RUNNEL_ECANCELLED, "stopped");
    return RUNNEL_OK;
}

static int fill_tensor(void *arg, uint64_t offset, void *buffer, size_t n, runnel_error *error)
{
    const struct tensor_output *output = arg;
    struct conversion *conversion = output->conversion;
    unsigned char *to = buffer;
    int code = conversion->reader.tensor == output->tensor ? RUNNEL_OK
                                                           : begin_tensor(conversion, output->tensor, error);
    size_t left = n;
    while (left && !code) {
        size_t row_bytes = conversion->reader.row_bytes, within = (size_t)(offset % row_bytes);
        size_t step = row_bytes - within < left ? row_bytes - within : left;
        uint64_t row = offset / row_bytes;
        if (row != conversion->row_at)
            code = hf_reader_row(&conversion->reader, (uint32_t)row, conversion->row, error);
        conversion->row_at = row;
        if (!code)
            memcpy(to, conversion->row + within, step);
        to += step;
        offset += step;
        left -= step;
    }
    return code ? code : tell_progress(conversion, n, error);
}

static int add_tensors(struct conversion *conversion, runnel_error *error)
{
    conversion->outputs = calloc(conversion->tensors.n, sizeof *conversion->outputs);
    if (!conversion->outputs)
        return error_set(error, RUNNEL_ENOMEM, "no memory for %zu tensors", conversion->tensors.n);
    for (size_t i = 0; i < conversion->tensors.n; i++) {
        const struct hf_tensor *tensor = &conversion->tensors.list[i];
        const struct quant_info *info = quant_find((uint32_t)tensor->type);
        uint64_t dims[2] = {tensor->n_columns, tensor->n_rows};
        conversion->outputs[i] = (struct tensor_output){conversion, tensor};
        conversion->total +=
            (uint64_t)tensor->n_rows * (tensor->n_columns / info->block_values) * info->block_bytes;
        gguf_writer_add_tensor(conversion->writer, tensor->name, tensor->type, tensor->is_matrix ? 2 : 1,
                               dims, fill_tensor, &conversion->outputs[i]);
    }
    return RUNNEL_OK;
}

/* All ---------------------------------------------------------------------------------------------------------- */

static void free_json(struct hf_sources *sources)
{
    json_decref(sources->config);
    json_decref(sources->tokenizer);
    json_decref(sources->tokenizer_config);
    json_decref(sources->generation);
    *sources = (struct hf_sources){.folder = sources->folder};
}

static int prepare(struct conversion *conversion, runnel_error *error)
{
    const struct convert_options *options = conversion->options;
    int code = read_config(conversion, error);
    if (!code)
        code = checkpoint_open(options->folder, &conversion->checkpoint, error);
    if (!code)
        code = hf_tensors_find(conversion->checkpoint, &conversion->config,
                               options->has_type ? &options->type : NULL, options->on_remark, options->user,
                               &conversion->tensors, error);
    if (code)
        return code;
    conversion->writer = gguf_writer_create();
    if (!conversion->writer)
        return error_set(error, RUNNEL_ENOMEM, "no memory for a writer");
    add_general_keys(conversion);
    add_model_keys(conversion);
    code = add_tokenizer_keys(conversion, error);
    free_json(&conversion->sources);
    return code ? code : add_tensors(conversion, error);
}

int convert_folder(const struct convert_options *options, runnel_error *error)
{
    struct conversion conversion = {
        .options = options, .sources.folder = options->folder, .row_at = UINT64_MAX};
    int code = check_paths(options, error);
    if (!code && (code = prepare(&conversion, error)))
        error_prefix(error, "%s", options->folder);
    if (!code)
        code = gguf_writer_save(conversion.writer, options->output, error);
    hf_reader_close(&conversion.reader);
    free(conversion.row);
    free(conversion.outputs);
    free_json(&conversion.sources);
    gguf_writer_free(conversion.writer);
    hf_tensors_free(&conversion.tensors);
    checkpoint_close(conversion.checkpoint);
    return code;
}
