/* quantize.c: the command `runnel quantize`: a model's file into one whose matrices take fewer bits. The metadata is copied
 * but for what says the types. The main thread writes; threads of model/rewrite.c compute. */
#include "base/options.h"
#include "cli/catalogue.h"
#include "cli/cli.h"
#include "cli/imatrix_file.h"
#include "cli/interrupt.h"
#include "cli/progress.h"
#include "cli/size_text.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/error.h"
#include "base/limits.h"
#include "base/near_name.h"
#include "base/new_file.h"
#include "kernels/quantize.h"
#include "model/awq.h"
#include "model/mixes.h"
#include "model/rewrite.h"

struct quantize_settings {
    const char *model, *output, *type, *imatrix;
    int n_threads;
    bool awq, allow_requantize;
    char *config_text;
};

static const struct option_spec quantize_options[] = {
    {"MODEL", 0, OPTION_STRING, NULL, "the file to take the weights from, in F32, F16 or BF16",
     OPTION_FIELD(struct quantize_settings, model), .positional = true, .required = true},
    {"OUTPUT", 0, OPTION_STRING, NULL, "the file to write", OPTION_FIELD(struct quantize_settings, output),
     .positional = true, .required = true},
    {"TYPE", 0, OPTION_STRING, NULL,
     "F32, F16, BF16, Q8_0, Q6_K, Q5_K_M, Q5_1, Q5_0, Q4_K_M, Q4_K_S, IQ4_NL, IQ4_XS, Q4_1, Q4_0, Q3_K_M or "
     "Q2_K",
     OPTION_FIELD(struct quantize_settings, type), .positional = true, .required = true},
    {"imatrix", 0, OPTION_STRING, "FILE",
     "how much the inputs of each matrix matter, as `runnel imatrix` or llama.cpp wrote it: errors are put "
     "where they "
     "matter least",
     OPTION_FIELD(struct quantize_settings, imatrix)},
    {"awq", 0, OPTION_FLAG, NULL,
     "with --imatrix: scale columns up that lose much when they are rounded, and their inputs down where "
     "these "
     "are made: the model computes the same, and its rounded weights are nearer to the source's",
     OPTION_FIELD(struct quantize_settings, awq), .needs = "imatrix"},
    {"allow-requantize", 0, OPTION_FLAG, NULL,
     "take a file whose weights were quantised before: its errors stay, and new ones come",
     OPTION_FIELD(struct quantize_settings, allow_requantize)},
    {"threads", 't', OPTION_INT, "N", "compute threads; 0: as many as this process may use",
     OPTION_FIELD(struct quantize_settings, n_threads), .minimum = 0, .maximum = 256},
    {"config", 0, OPTION_CONFIG, "FILE", "read options from FILE, a line `name = value` each",
     OPTION_FIELD(struct quantize_settings, config_text)},
};

const struct options_table quantize_table = {
    "runnel quantize",
    "Writes a model's file in another type, with fewer bits a weight; llama.cpp opens it, too.",
    quantize_options, OPTION_COUNT(quantize_options)};

struct quantizing {
    const struct quantize_settings *settings;
    const struct mix *mix;
    struct gguf *gguf;
    struct imatrix *imatrix;        /* NULL: none was given */
    struct awq *awq;                /* NULL: weights are encoded as they are */
    struct rewrite_tensor *tensors; /* one for each of the file; their importance is owned */
    uint64_t n_bytes, n_weights;    /* of the tensors that will be written */
    struct progress progress;
};

/* What is to become of each tensor ------------------------------------------------------------------------ */

/* The importance of a matrix's columns; none where the file has none for it, as for an embedding. */
static int take_importance(const struct quantizing *it, const struct gguf_tensor *tensor,
                           struct rewrite_tensor *to, size_t *n_found, runnel_error *error)
{
    const struct imatrix_entry *entry = it->imatrix ? imatrix_find(it->imatrix, tensor->name) : NULL;
    if (!entry)
        return RUNNEL_OK;
    if (entry->n_columns != tensor->dims[0] || (entry->n_parts != 1 && entry->n_parts != tensor->dims[2]))
        return error_set(
            error, RUNNEL_EFORMAT,
            "%s: \"%s\": expected the importance of %llu columns, found %u x %u: is it another model's?",
            it->settings->imatrix, tensor->name, (unsigned long long)tensor->dims[0], entry->n_parts,
            entry->n_columns);
    float *importance = malloc((size_t)entry->n_columns * entry->n_parts * sizeof *importance);
    if (!importance)
        return error_set(error, RUNNEL_ENOMEM, "no memory for the importance of \"%s\"", tensor->name);
    imatrix_importance(entry, importance);
    to->importance = importance;
    to->n_parts = entry->n_parts;
    ++*n_found;
    return RUNNEL_OK;
}

static bool is_float(enum tensor_type type)
{
    return quant_find((uint32_t)type)->block_values == 1;
}

/* Whether scales may be folded into it, so that it is encoded anew even if it keeps its type. */
static bool may_be_scaled(const struct quantizing *it, const struct gguf_tensor *tensor)
{
    return it->settings->awq && mix_covers(tensor) && strncmp(tensor->name, "blk.", strlen("blk.")) == 0;
}

static int plan_tensor(struct quantizing *it, const struct mix_model *model, size_t i, size_t *n_found,
                       runnel_error *error)
{
    const struct gguf_tensor *tensor = gguf_tensor_at(it->gguf, i);
    struct rewrite_tensor *to = &it->tensors[i];
    *to = (struct rewrite_tensor){.type = tensor->type, .n_parts = 1};
    if (mix_covers(tensor))
        to->type = mix_type_of(it->mix, model, tensor);
    uint64_t n = tensor->dims[0] * tensor->dims[1] * tensor->dims[2] * tensor->dims[3];
    const struct quant_info *info = quant_find((uint32_t)to->type);
    it->n_weights += n;
    it->n_bytes += n / info->block_values * info->block_bytes;
    if (to->type == tensor->type && !may_be_scaled(it, tensor))
        return RUNNEL_OK;
    if (!is_float(tensor->type) && !it->settings->allow_requantize)
        return error_set(error, RUNNEL_EINVAL,
                         "%s: tensor \"%s\": expected F32, F16 or BF16, found %s: errors would add up "
                         "(--allow-requantize takes it all the same)",
                         it->settings->model, tensor->name, quant_find((uint32_t)tensor->type)->name);
    return is_float(to->type) ? RUNNEL_OK : take_importance(it, tensor, to, n_found, error);
}

static int plan(struct quantizing *it, runnel_error *error)
{
    struct mix_model model;
    size_t n = gguf_n_tensors(it->gguf), n_found = 0;
    int code = mix_model_read(it->gguf, it->imatrix, &model, error);
    if (code)
        return error_prefix(error, "%s", it->settings->model), code;
    it->tensors = calloc(n + 1, sizeof *it->tensors);
    if (!it->tensors)
        return error_set(error, RUNNEL_ENOMEM, "no memory for a list of %zu tensors", n);
    for (size_t i = 0; i < n && !code; i++)
        code = plan_tensor(it, &model, i, &n_found, error);
    if (!code && it->imatrix && !n_found && !is_float(it->mix->type))
        code = error_set(error, RUNNEL_EFORMAT,
                         "%s: expected the importance of matrices of %s, found none of them",
                         it->settings->imatrix, it->settings->model);
    return code;
}

/* Scales -------------------------------------------------------------------------------------------------- */

static bool on_progress(void *user, uint64_t done, uint64_t total)
{
    struct quantizing *it = user;
    progress_update(&it->progress, done, total);
    return !interrupt_came();
}

/* See struct awq_options. A scaled row that its type cannot hold is left as zeros: a loss that no search takes for a gain. */
static void round_row(void *user, size_t i, const float *importance, float *values, void *scratch)
{
    const struct quantizing *it = user;
    enum tensor_type type = it->tensors[i].type;
    size_t n = (size_t)gguf_tensor_at(it->gguf, i)->dims[0];
    if (quantize_find_misfit(type, values, n) < n) {
        memset(values, 0, n * sizeof *values);
        return;
    }
    quantize_encode(type, values, n, importance, scratch);
    quant_decode(type, scratch, n, values);
}

static unsigned n_threads(const struct quantizing *it)
{
    return it->settings->n_threads ? (unsigned)it->settings->n_threads : limits_cpus();
}

static int search_scales(struct quantizing *it, runnel_error *error)
{
    const float **importance = calloc(gguf_n_tensors(it->gguf) + 1, sizeof *importance);
    if (!importance)
        return error_set(error, RUNNEL_ENOMEM, "no memory for a list of %zu tensors",
                         gguf_n_tensors(it->gguf));
    for (size_t i = 0; i < gguf_n_tensors(it->gguf); i++)
        importance[i] = it->tensors[i].importance;
    const struct awq_options options = {
        .from = it->gguf,
        .importance = importance,
        .round_row = round_row,
        .on_progress = on_progress,
        .user = it,
        .n_threads = n_threads(it),
    };
    progress_start_counting(&it->progress, "scales", "places", 0);
    int code = awq_search(&options, &it->awq, error);
    progress_end(&it->progress);
    free((void *)importance);
    return code ? error_prefix(error, "%s", it->settings->model) : RUNNEL_OK;
}

/* The plan with the scales that were found. */
static void fold_scales(struct quantizing *it)
{
    for (size_t i = 0; i < gguf_n_tensors(it->gguf); i++) {
        struct rewrite_tensor *to = &it->tensors[i];
        to->is_changed = awq_changes(it->awq, i);
        if (to->importance)
            awq_change_importance(it->awq, i, (float *)to->importance);
    }
}

static void change_row(void *user, size_t i, uint64_t row, float *values)
{
    const struct quantizing *it = user;
    awq_change_row(it->awq, i, row, values);
}

static void tell_scales(const struct quantizing *it)
{
    struct awq_summary summary;
    awq_get_summary(it->awq, &summary);
    if (summary.n_places == 0) {
        fprintf(stderr,
                "scales: no place for them: layers have other tensors than are known, or the importance "
                "file lacks their matrices\n");
        return;
    }
    fprintf(stderr, "scales: at %zu of %zu places, whose mean error becomes %.1f %% of what it was\n",
            summary.n_scaled, summary.n_places, 100 * summary.error);
}

/* Keys ---------------------------------------------------------------------------------------------------- */

/* Keys that this program writes itself, or that say how the source was made or stored. */
static bool is_replaced(const struct quantizing *it, const char *key)
{
    return strcmp(key, "general.file_type") == 0 || strcmp(key, "general.quantization_version") == 0 ||
           strncmp(key, "split.", strlen("split.")) == 0 ||
           (it->imatrix && strncmp(key, "quantize.imatrix.", strlen("quantize.imatrix.")) == 0);
}

static void add_keys(const struct quantizing *it, struct gguf_writer *writer)
{
    uint32_t alignment;
    for (size_t i = 0; i < gguf_n_keys(it->gguf); i++) {
        const char *key = gguf_key_name(it->gguf, i);
        if (strcmp(key, "general.alignment") == 0 && !gguf_get_u32(it->gguf, key, &alignment, NULL))
            gguf_writer_set_alignment(writer, alignment);
        else if (!is_replaced(it, key))
            gguf_writer_add_copy(writer, it->gguf, i);
    }
    gguf_writer_add_u32(writer, "general.file_type", it->mix->file_type);
    gguf_writer_add_u32(writer, "general.quantization_version", 2);
    if (!it->imatrix)
        return;
    gguf_writer_add_string(writer, "quantize.imatrix.file", it->settings->imatrix);
    if (it->imatrix->n_datasets)
        gguf_writer_add_string(writer, "quantize.imatrix.dataset", it->imatrix->datasets[0]);
    gguf_writer_add_u32(writer, "quantize.imatrix.entries_count", (uint32_t)it->imatrix->n_entries);
    gguf_writer_add_u32(writer, "quantize.imatrix.chunks_count", it->imatrix->n_chunks);
}

/* The command --------------------------------------------------------------------------------------------- */

/* The output takes the place of nothing that it is made of: no part of the model, no importance file. */
static int check_sources(const struct quantizing *it, runnel_error *error)
{
    const struct quantize_settings *settings = it->settings;
    int code = RUNNEL_OK;
    for (size_t i = 0; i < gguf_n_parts(it->gguf) && !code; i++)
        code = new_file_check_spares(settings->output, gguf_part_path(it->gguf, i), error);
    if (!code && settings->imatrix)
        code = new_file_check_spares(settings->output, settings->imatrix, error);
    return code;
}

static int write_file(struct quantizing *it, runnel_error *error)
{
    const struct quantize_settings *settings = it->settings;
    struct gguf_writer *writer = gguf_writer_create();
    if (!writer)
        return error_set(error, RUNNEL_ENOMEM, "%s: no memory to write it", settings->output);
    add_keys(it, writer);
    struct rewrite rewrite = {
        .from = it->gguf,
        .tensors = it->tensors,
        .n_threads = n_threads(it),
        .change = change_row,
        .on_progress = on_progress,
        .user = it,
    };
    progress_start(&it->progress, "quantizing", 0);
    int code = model_rewrite(&rewrite, writer, settings->output, error);
    progress_end(&it->progress);
    gguf_writer_free(writer);
    return code;
}

static void tell_result(const struct quantizing *it)
{
    char size[SIZE_TEXT_BYTES];
    struct stat status;
    uint64_t n_bytes = stat(it->settings->output, &status) ? it->n_bytes : (uint64_t)status.st_size;
    fprintf(stderr, "%s: %s, %.2f bits a weight, in %.1f s\n", it->settings->output,
            size_text_growing(n_bytes, size), 8 * (double)it->n_bytes / (double)it->n_weights,
            progress_seconds(&it->progress));
}

static int quantize(struct quantizing *it, runnel_error *error)
{
    const struct quantize_settings *settings = it->settings;
    char path[PATH_MAX];
    int code = catalogue_resolve(settings->model, path, sizeof path, error);
    if (!code)
        code = new_file_check(settings->output, error);
    if (!code)
        code = gguf_open(path, &it->gguf, error);
    if (!code && (code = gguf_check_model(it->gguf, error)))
        error_prefix(error, "%s", path);
    if (!code)
        code = check_sources(it, error);
    if (!code && settings->imatrix)
        code = imatrix_file_read(settings->imatrix, &it->imatrix, error);
    if (!code)
        code = plan(it, error);
    if (code)
        return code;
    interrupt_watch_each();
    if (settings->awq) {
        code = search_scales(it, error);
        if (code)
            return code;
        fold_scales(it);
        tell_scales(it);
    }
    return write_file(it, error);
}

static void release(struct quantizing *it)
{
    for (size_t i = 0; it->tensors && i < gguf_n_tensors(it->gguf); i++)
        free((float *)it->tensors[i].importance);
    free(it->tensors);
    awq_free(it->awq);
    imatrix_free(it->imatrix);
    gguf_close(it->gguf);
}

/* Says which types there are. */
static int find_mix(const char *name, const struct mix **found, runnel_error *error)
{
    const struct mix *mix;
    struct near_name near = near_name_begin(name, strlen(name));
    char names[256] = "";
    size_t len = 0;
    *found = mix_find(name);
    if (*found)
        return RUNNEL_OK;
    for (size_t i = 0; (mix = mix_at(i)); i++) {
        near_name_consider(&near, mix->name, strlen(mix->name));
        len += (size_t)snprintf(names + len, sizeof names - len, "%s%s", i ? ", " : "", mix->name);
    }
    return error_set(error, RUNNEL_EINVAL, "TYPE: expected one of %s, found '%s'%s%s%s", names, name,
                     *near.nearest ? "; did you mean " : "", near.nearest, *near.nearest ? "?" : "");
}

/* The type that the user asks for, if that goes with the other options. */
static int find_type(struct quantizing *it, runnel_error *error)
{
    int code = find_mix(it->settings->type, &it->mix, error);
    if (!code && it->settings->awq && is_float(it->mix->type))
        code = error_set(error, RUNNEL_EINVAL,
                         "--awq: expected a TYPE that scales make better, found %s, which only rounds each "
                         "weight by itself",
                         it->mix->name);
    return code;
}

int command_quantize(int argc, char **argv)
{
    struct quantize_settings settings;
    struct quantizing it = {.settings = &settings};
    runnel_error error;
    int status = cli_read_options(&quantize_table, argc, argv, &settings);
    if (status >= 0)
        return status;
    if (find_type(&it, &error)) {
        fprintf(stderr, "runnel quantize: %s\n", error.message);
        free(settings.config_text);
        return EXIT_USAGE;
    }
    int code = quantize(&it, &error);
    status = EXIT_DONE;
    if (code == RUNNEL_ECANCELLED) {
        fprintf(stderr, "Stopped: nothing was written.\n");
        status = EXIT_INTERRUPTED;
    } else if (code)
        status = cli_fail(&error);
    else
        tell_result(&it);
    release(&it);
    free(settings.config_text);
    return status;
}
