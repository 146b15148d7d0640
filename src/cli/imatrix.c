/* imatrix.c: the command `runnel imatrix`: the mean square of each input of each matrix over a text, in a file that says what
 * of the weights matters, for `quantize` (imatrix_file.h).
 *
 * The text is computed in chunks. Within a chunk squares are added as doubles; a chunk's sums are added to the file's f32 ones,
 * also where nothing is written between: so a run that was stopped and goes on ends with the same bytes as one that was not.
 * The main thread; on_inputs is called on the engine's, while it waits. */
#include "cli/cli.h"
#include "cli/imatrix_file.h"
#include "cli/interrupt.h"
#include "cli/mark.h"
#include "cli/progress.h"
#include "cli/text_chunks.h"

#include "base/error.h"
#include "base/new_file.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum {
    DEFAULT_CONTEXT = 512,
    BATCH = 512,
    MARK_TOKENS = 32, /* whose logits say which model it is */
};

struct imatrix_settings {
    const char *model, *text, *output;
    int n_context, n_chunks, n_save, n_threads;
    bool special;
    char *config_text;
};

static const struct option_spec imatrix_options[] = {
    {"model", 'm', OPTION_STRING, "MODEL",
     "GGUF file, or the name of a pulled model: best the one that is to be quantized",
     OPTION_FIELD(struct imatrix_settings, model), .required = true, .bare = true,
     .extra_hint = "the text is that of -f FILE"},
    {"file", 'f', OPTION_STRING, "TEXT",
     "a text such as the model is used for, best its own answers; -: stdin",
     OPTION_FIELD(struct imatrix_settings, text), .required = true, .once = true},
    {"output", 'o', OPTION_STRING, "FILE",
     "where to write what was found: GGUF, as llama.cpp has it. What is there is gone on with, if model and "
     "text are the same",
     OPTION_FIELD(struct imatrix_settings, output), .required = true},
    {"ctx", 'c', OPTION_INT, "N", "tokens a chunk: each is computed by itself",
     OPTION_FIELD(struct imatrix_settings, n_context), .minimum = 2, .maximum = 1 << 20,
     .default_text = "512"},
    {"chunks", 0, OPTION_INT, "N", "of the text at most; 0: all",
     OPTION_FIELD(struct imatrix_settings, n_chunks), .minimum = 0, .maximum = 1 << 30},
    {"save-every", 0, OPTION_INT, "N", "write the file every N chunks, and at the end",
     OPTION_FIELD(struct imatrix_settings, n_save), .minimum = 1, .maximum = 1 << 30, .default_text = "10"},
    {"special", 0, OPTION_FLAG, NULL, "read control tokens in the text as such",
     OPTION_FIELD(struct imatrix_settings, special)},
    {"threads", 't', OPTION_INT, "N",
     "compute threads; 0: as many as this process may use, if fewer are not faster",
     OPTION_FIELD(struct imatrix_settings, n_threads), .minimum = 0, .maximum = 256},
    {"config", 0, OPTION_CONFIG, "FILE", "read options from FILE, a line `name = value` each",
     OPTION_FIELD(struct imatrix_settings, config_text)},
};

const struct options_table imatrix_table = {
    "runnel imatrix", "Finds which inputs of a model's matrices matter, over a text, for quantize.",
    imatrix_options, OPTION_COUNT(imatrix_options)};

/* Gathering ----------------------------------------------------------------------------------------------- */

/* Matrices that share their inputs, and the sums of the chunk that is being computed. */
struct site {
    size_t *entries; /* [n_entries] of the struct imatrix: their indices */
    size_t n_entries;
    double *sums; /* [n_columns] */
    uint32_t n_columns, n_tokens;
};

struct gathering {
    runnel_engine *engine;
    const struct text_chunks *text;
    struct imatrix *imatrix;
    struct site *sites;
    size_t n_sites, current; /* the site that was told last: they come in turn */
    uint64_t n_done;         /* tokens, of all chunks */
    uint64_t n_total;
    size_t n_tokens; /* of this chunk so far, as far as the first site has been told */
    struct progress progress;
    runnel_error error; /* code 0: none */
};

static bool is_site(const struct gathering *gathering, size_t index, const runnel_inputs *inputs)
{
    const struct site *site = &gathering->sites[index];
    return !strcmp(gathering->imatrix->entries[site->entries[0]].name, inputs->matrices[0]);
}

/* The index of an entry, which is added if it is not there. Negative: an error. */
static int find_entry(struct imatrix *imatrix, const char *name, size_t n_columns, size_t *index,
                      runnel_error *error)
{
    struct imatrix_entry *entry = imatrix_find(imatrix, name);
    if (!entry)
        entry = imatrix_add(imatrix, name, (uint32_t)n_columns, 1);
    if (!entry)
        return error_set(error, RUNNEL_ENOMEM, "no memory for the sums of %s", name);
    if (entry->n_columns != n_columns || entry->n_parts != 1)
        return error_set(error, RUNNEL_EFORMAT, "%s: the file has sums of %u columns, the model %zu", name,
                         entry->n_columns, n_columns);
    *index = (size_t)(entry - imatrix->entries);
    return RUNNEL_OK;
}

static int add_site(struct gathering *gathering, const runnel_inputs *inputs)
{
    struct site *sites = reallocarray(gathering->sites, gathering->n_sites + 1, sizeof *sites);
    if (sites)
        gathering->sites = sites;
    struct site site = {
        .entries = calloc(inputs->n_matrices, sizeof *site.entries),
        .n_entries = inputs->n_matrices,
        .sums = calloc(inputs->n_values, sizeof *site.sums),
        .n_columns = (uint32_t)inputs->n_values,
    };
    int failure = RUNNEL_OK;
    if (!sites || !site.entries || !site.sums)
        failure =
            error_set(&gathering->error, RUNNEL_ENOMEM, "no memory for the sums of %s", inputs->matrices[0]);
    for (size_t i = 0; i < inputs->n_matrices && !failure; i++)
        failure = find_entry(gathering->imatrix, inputs->matrices[i], inputs->n_values, &site.entries[i],
                             &gathering->error);
    if (failure) {
        free(site.entries);
        free(site.sums);
        return failure;
    }
    sites[gathering->n_sites++] = site;
    return RUNNEL_OK;
}

/* The site that inputs are of. NULL: an error, which is kept. */
static struct site *find_site(struct gathering *gathering, const runnel_inputs *inputs)
{
    for (size_t i = 0; i < gathering->n_sites; i++) { /* the same one again, or the next */
        size_t index = (gathering->current + i) % gathering->n_sites;
        if (is_site(gathering, index, inputs)) {
            gathering->current = index;
            return &gathering->sites[index];
        }
    }
    if (add_site(gathering, inputs))
        return NULL;
    gathering->current = gathering->n_sites - 1;
    return &gathering->sites[gathering->current];
}

static bool on_inputs(void *user, const runnel_inputs *inputs)
{
    struct gathering *gathering = user;
    struct site *site = find_site(gathering, inputs);
    if (!site || interrupt_came())
        return false;
    for (size_t i = 0; i < inputs->n_values; i++)
        site->sums[i] += (double)inputs->values[i] * (double)inputs->values[i];
    site->n_tokens++;
    if (site == gathering->sites)
        progress_update(&gathering->progress, gathering->n_done + inputs->index + 1, gathering->n_total);
    return true;
}

/* Adds the sums of a chunk to those of the file, or refuses them. */
static int take_chunk(struct gathering *gathering)
{
    for (size_t i = 0; i < gathering->n_sites; i++)
        for (size_t j = 0; j < gathering->sites[i].n_columns; j++)
            if (!isfinite((float)gathering->sites[i].sums[j]))
                return error_set(&gathering->error, RUNNEL_ENUMERIC,
                                 "chunk %u: the inputs of %s are not finite numbers",
                                 gathering->imatrix->n_chunks,
                                 gathering->imatrix->entries[gathering->sites[i].entries[0]].name);
    for (size_t i = 0; i < gathering->n_sites; i++) {
        struct site *site = &gathering->sites[i];
        for (size_t k = 0; k < site->n_entries; k++) {
            struct imatrix_entry *entry = &gathering->imatrix->entries[site->entries[k]];
            for (size_t j = 0; j < site->n_columns; j++)
                entry->sums[j] += (float)site->sums[j];
            entry->counts[0] += (float)site->n_tokens;
        }
        memset(site->sums, 0, site->n_columns * sizeof *site->sums);
        site->n_tokens = 0;
    }
    gathering->imatrix->n_chunks++;
    return RUNNEL_OK;
}

static void free_sites(struct gathering *gathering)
{
    for (size_t i = 0; i < gathering->n_sites; i++) {
        free(gathering->sites[i].entries);
        free(gathering->sites[i].sums);
    }
    free(gathering->sites);
}

/* Marks ------------------------------------------------------------------------------------------------- */

struct logits_hash {
    uint64_t hash;
    size_t n_vocab;
};

static bool hash_logits(void *user, size_t index, const float *logits)
{
    (void)index;
    struct logits_hash *hash = user;
    hash->hash = mark_add(hash->hash, logits, hash->n_vocab * sizeof *logits);
    return !interrupt_came();
}

/* A model is known by its logits after the first tokens of the text: these are the same bits on every machine. */
static int mark_model(runnel_engine *engine, const runnel_model *model, const struct text_chunks *text,
                      int32_t *ids, char mark[IMATRIX_MARK_BYTES], runnel_error *error)
{
    runnel_model_info info = {.size = sizeof info};
    runnel_model_get_info(model, &info);
    struct logits_hash hash = {MARK_BEGIN, info.n_vocab};
    size_t n = text_chunks_get(text, 0, ids);
    int failure =
        runnel_logits_each(engine, ids, n < MARK_TOKENS ? n : MARK_TOKENS, 0, hash_logits, &hash, error);
    if (!failure)
        snprintf(mark, IMATRIX_MARK_BYTES, "%016" PRIx64, hash.hash);
    return failure;
}

/* A text is known by its tokens; more of it is another text. */
static void mark_text(const struct text_chunks *text, char mark[IMATRIX_MARK_BYTES])
{
    snprintf(mark, IMATRIX_MARK_BYTES, "%016" PRIx64,
             mark_add(MARK_BEGIN, text->ids, text->n_ids * sizeof *text->ids));
}

/* Going on ------------------------------------------------------------------------------------------------ */

static const char hint[] = "remove it, or choose another -o FILE";

/* The model comes last: its mark depends on the beginning of the text. */
static int check_is_ours(const char *path, const struct imatrix *found, const struct imatrix *wanted,
                         runnel_error *error)
{
    if (!*found->model_mark || !*found->text_mark)
        return error_set(error, RUNNEL_EINVAL,
                         "%s: not begun by runnel imatrix, it cannot go on from there: %s", path, hint);
    if (strcmp(found->text_mark, wanted->text_mark))
        return error_set(error, RUNNEL_EINVAL, "%s: begun with another text, it cannot go on from there: %s",
                         path, hint);
    if (found->chunk_tokens != wanted->chunk_tokens)
        return error_set(error, RUNNEL_EINVAL, "%s: begun with --ctx %u, found --ctx %u: %s", path,
                         found->chunk_tokens, wanted->chunk_tokens, hint);
    if (strcmp(found->model_mark, wanted->model_mark))
        return error_set(error, RUNNEL_EINVAL, "%s: begun with another model, it cannot go on from there: %s",
                         path, hint);
    return RUNNEL_OK;
}

/* Takes what is at path, if anything, in the place of *imatrix, which says what it must be of. */
static int take_what_is_there(const char *path, struct imatrix **imatrix, runnel_error *error)
{
    struct imatrix *found;
    struct stat status;
    if (stat(path, &status))
        return RUNNEL_OK;
    int failure = imatrix_file_read(path, &found, error);
    if (failure)
        return failure;
    failure = check_is_ours(path, found, *imatrix, error);
    if (failure) {
        imatrix_free(found);
        return failure;
    }
    imatrix_free(*imatrix);
    *imatrix = found;
    return RUNNEL_OK;
}

/* The command --------------------------------------------------------------------------------------------- */

static int compute_chunk(struct gathering *gathering, size_t chunk, int32_t *ids, runnel_error *error)
{
    size_t n = text_chunks_get(gathering->text, chunk, ids);
    int failure = runnel_inputs_each(gathering->engine, ids, n, 0, on_inputs, gathering, error);
    if (failure == RUNNEL_ECANCELLED && gathering->error.code) {
        *error = gathering->error;
        return gathering->error.code;
    }
    if (!failure && take_chunk(gathering)) {
        *error = gathering->error;
        return gathering->error.code;
    }
    gathering->n_done += n;
    return failure;
}

/* Computes the chunks from those that are done up to n_chunks, and writes the file. After Ctrl-C and after a failure, too,
 * whole chunks are kept. */
static int compute_chunks(struct gathering *gathering, const struct imatrix_settings *settings,
                          size_t n_chunks, int32_t *ids, runnel_error *error)
{
    size_t first = gathering->imatrix->n_chunks, written = first;
    int failure = RUNNEL_OK;
    gathering->n_total = (uint64_t)n_chunks * gathering->text->chunk_tokens;
    if (gathering->n_total > text_chunks_total(gathering->text))
        gathering->n_total = text_chunks_total(gathering->text);
    gathering->n_done = (uint64_t)first * gathering->text->chunk_tokens;
    progress_start_counting(&gathering->progress, "imatrix", "tokens", gathering->n_done);
    for (size_t chunk = first; chunk < n_chunks && !failure; chunk++) {
        failure = compute_chunk(gathering, chunk, ids, error);
        if (!failure && (chunk + 1 - written >= (size_t)settings->n_save || chunk + 1 == n_chunks)) {
            failure = imatrix_file_write(gathering->imatrix, settings->output, error);
            written = failure ? written : chunk + 1;
        }
    }
    progress_end(&gathering->progress);
    if (failure && gathering->imatrix->n_chunks > written &&
        imatrix_file_write(gathering->imatrix, settings->output, NULL) == RUNNEL_OK)
        written = gathering->imatrix->n_chunks;
    if (failure && written)
        fprintf(stderr, "%s: %zu of %zu chunks are kept: the same command goes on from there.\n",
                settings->output, written, n_chunks);
    return failure;
}

/* n_wanted: chunks that this run was to reach. What was there may have more: sums cannot be taken apart again. */
static void tell_result(const char *path, const struct imatrix *imatrix, size_t n_wanted)
{
    fprintf(stderr, "%s: %zu matrices, %u chunk%s of %u tokens", path, imatrix->n_entries, imatrix->n_chunks,
            imatrix->n_chunks == 1 ? "" : "s", imatrix->chunk_tokens);
    if (imatrix->n_chunks > n_wanted)
        fprintf(stderr, ", as it was: --chunks %zu takes none away", n_wanted);
    fputc('\n', stderr);
}

/* With an engine. */
static int gather(struct gathering *gathering, const runnel_model *model,
                  const struct imatrix_settings *settings, int32_t *ids, runnel_error *error)
{
    const struct text_chunks *text = gathering->text;
    size_t n_chunks = settings->n_chunks && (size_t)settings->n_chunks < text->n_chunks
                          ? (size_t)settings->n_chunks
                          : text->n_chunks;
    gathering->imatrix->chunk_tokens = text->chunk_tokens;
    mark_text(text, gathering->imatrix->text_mark);
    int failure = imatrix_add_dataset(gathering->imatrix, settings->text, error);
    if (!failure)
        failure = mark_model(gathering->engine, model, text, ids, gathering->imatrix->model_mark, error);
    if (!failure)
        failure = take_what_is_there(settings->output, &gathering->imatrix, error);
    if (!failure && gathering->imatrix->n_chunks)
        fprintf(stderr, "%s: goes on behind chunk %u\n", settings->output, gathering->imatrix->n_chunks);
    if (!failure)
        failure = compute_chunks(gathering, settings, n_chunks, ids, error);
    if (!failure)
        tell_result(settings->output, gathering->imatrix, n_chunks);
    return failure;
}

static int compute(const runnel_model *model, const struct imatrix_settings *settings,
                   const struct text_chunks *text, runnel_error *error)
{
    static const struct field_name names[] = {{"n_context", "--ctx"}, {NULL, NULL}};
    runnel_engine_options options;
    runnel_engine_options_init(&options);
    options.n_context = text->chunk_tokens;
    options.n_batch = text->chunk_tokens < BATCH ? text->chunk_tokens : BATCH;
    struct gathering gathering = {.text = text, .imatrix = imatrix_create()};
    int32_t *ids = malloc(text->chunk_tokens * sizeof *ids);
    int failure = RUNNEL_OK;
    if (!gathering.imatrix || !ids)
        failure = error_set(error, RUNNEL_ENOMEM, "no memory for chunks of %u tokens", text->chunk_tokens);
    if (!failure) {
        failure = runnel_engine_start(model, &options, &gathering.engine, error);
        if (failure)
            error_name_options(names, error);
    }
    if (!failure) {
        failure = gather(&gathering, model, settings, ids, error);
        runnel_engine_stop(gathering.engine);
    }
    free_sites(&gathering);
    imatrix_free(gathering.imatrix);
    free(ids);
    return failure;
}

static int run(const struct imatrix_settings *settings)
{
    runnel_error error;
    runnel_model *model;
    char *text = NULL;
    size_t len = 0;
    struct text_chunks chunks;
    const struct text_chunks_options options = {.name = settings->text,
                                                .chunk_tokens = (uint32_t)settings->n_context,
                                                .n_tokens_min = 1,
                                                .special = settings->special};
    int failure = cli_find_model(settings->model, &error);
    if (!failure)
        failure = new_file_check(settings->output, &error);
    if (!failure)
        failure = cli_check_output(settings->output, settings->model, settings->text, &error);
    if (!failure)
        failure = cli_read_file(settings->text, &text, &len, &error);
    if (!failure)
        failure = cli_check_utf8(settings->text, text, len, &error);
    if (!failure)
        failure = cli_open_model(settings->model, settings->n_threads, NULL, NULL, &model, &error);
    if (!failure) {
        interrupt_watch();
        cli_tell_threads(settings->n_threads);
        failure = text_chunks_create(model, text, len, &options, &chunks, &error);
        if (!failure) {
            failure = compute(model, settings, &chunks, &error);
            text_chunks_free(&chunks);
        }
        runnel_model_close(model);
    }
    free(text);
    if (failure && interrupt_came())
        return EXIT_INTERRUPTED;
    return failure ? cli_fail(&error) : EXIT_DONE;
}

int command_imatrix(int argc, char **argv)
{
    struct imatrix_settings settings;
    int status = cli_read_options(&imatrix_table, argc, argv, &settings);
    if (status >= 0)
        return status;
    status = run(&settings);
    free(settings.config_text);
    return status;
}
