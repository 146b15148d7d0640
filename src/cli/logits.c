/* logits.c: the command `runnel logits`: the logits after every token of a list, as raw floats in a file. One
 * thread. */
#include "base/error.h"
#include "base/options.h"
#include "cli/cli.h"
#include "cli/logits_file.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>

struct logits_settings {
    const char *model, *ids, *output;
    int chunk, n_threads;
    struct cli_device device;
    char *config_text;
};

static const struct option_spec logits_options[] = {
    {"model", 'm', OPTION_STRING, "MODEL", "GGUF file, or the name of a pulled model",
     OPTION_FIELD(struct logits_settings, model), .required = true, .bare = true,
     .extra_hint = "the tokens are those of --ids FILE"},
    {"ids", 0, OPTION_STRING, "FILE", "a JSON array of token ids", OPTION_FIELD(struct logits_settings, ids),
     .required = true},
    {"output", 'o', OPTION_STRING, "FILE",
     "where to write them: float32, little-endian, [tokens][vocabulary]",
     OPTION_FIELD(struct logits_settings, output), .required = true},
    {"chunk", 0, OPTION_INT, "N", "tokens a step", OPTION_FIELD(struct logits_settings, chunk), .minimum = 1,
     .maximum = 8192, .default_text = "512"},
    {"threads", 't', OPTION_INT, "N",
     "compute threads; 0: as many as this process may use, if fewer are not faster",
     OPTION_FIELD(struct logits_settings, n_threads), .minimum = 0, .maximum = 256},
    CLI_DEVICE_OPTIONS(struct logits_settings, device),
    {"config", 0, OPTION_CONFIG, "FILE", "read options from FILE, a line `name = value` each",
     OPTION_FIELD(struct logits_settings, config_text)},
};

const struct options_table logits_table = {"runnel logits", "Writes the logits after every token of a list.",
                                           logits_options, OPTION_COUNT(logits_options)};

static int fail(runnel_error *error, int code, const char *path, const char *what)
{
    error_set(error, code, "%s: %s", path, what);
    return code;
}

/* A JSON array of token ids. */
static int read_ids(const char *path, int32_t **out, size_t *n_ids, runnel_error *error)
{
    json_error_t where;
    json_t *list = json_load_file(path, JSON_REJECT_DUPLICATES, &where);
    if (!list)
        return fail(error, RUNNEL_EINVAL, path, where.text);
    int failure = RUNNEL_OK;
    size_t n = json_array_size(list);
    int32_t *ids = malloc(n * sizeof *ids + 1);
    if (!json_is_array(list))
        failure = fail(error, RUNNEL_EINVAL, path, "expected a JSON array of token ids");
    else if (!ids)
        failure = fail(error, RUNNEL_ENOMEM, path, "no memory for its tokens");
    for (size_t i = 0; i < n && !failure; i++) {
        const json_t *id = json_array_get(list, i);
        json_int_t value = json_integer_value(id);
        if (!json_is_integer(id) || value < 0 || value > INT32_MAX)
            failure = fail(error, RUNNEL_EINVAL, path, "expected token ids: whole numbers from 0 on");
        else
            ids[i] = (int32_t)value;
    }
    json_decref(list);
    if (failure) {
        free(ids);
        return failure;
    }
    *out = ids;
    *n_ids = n;
    return RUNNEL_OK;
}

struct writer {
    struct logits_output output;
    uint32_t n_vocab;
};

static bool write_logits(void *user, size_t index, const float *logits)
{
    (void)index;
    struct writer *writer = user;
    return logits_output_write(&writer->output, logits, writer->n_vocab * sizeof *logits);
}

/* Computes and writes. */
static int write_output(runnel_engine *engine, const char *path, uint32_t n_vocab, const int32_t *ids,
                        size_t n_ids, runnel_error *error)
{
    struct writer writer = {.n_vocab = n_vocab};
    int failure = logits_output_open(&writer.output, path, error);
    if (failure)
        return failure;
    failure = runnel_logits_each(engine, ids, n_ids, 0, write_logits, &writer, error);
    return logits_output_close(&writer.output, failure, error);
}

static int compute(const runnel_model *model, const struct logits_settings *settings, const int32_t *ids,
                   size_t n_ids, runnel_error *error)
{
    static const struct field_name names[] = {{"n_context", "--ids: number of tokens"}, {NULL, NULL}};
    runnel_model_info info = {.size = sizeof info};
    runnel_model_get_info(model, &info);
    runnel_engine *engine;
    runnel_engine_options options;
    runnel_engine_options_init(&options);
    options.n_context = n_ids < 2 ? 2 : n_ids > UINT32_MAX ? UINT32_MAX : (uint32_t)n_ids;
    options.n_batch = (uint32_t)settings->chunk;
    int failure = cli_start_engine(model, &options, &engine, error);
    if (failure) {
        error_name_options(names, error);
        return failure;
    }
    failure = write_output(engine, settings->output, info.n_vocab, ids, n_ids, error);
    cli_stop_engine(engine);
    return failure;
}

static int run(const struct logits_settings *settings)
{
    runnel_error error;
    int32_t *ids;
    size_t n_ids;
    if (cli_check_output(settings->output, settings->model, settings->ids, &error) ||
        read_ids(settings->ids, &ids, &n_ids, &error))
        return cli_fail(&error);
    runnel_model *model;
    int failure = cli_open_model_on(&settings->device, settings->model, settings->n_threads, NULL, NULL,
                                    &model, &error);
    if (!failure) {
        cli_tell_threads(settings->n_threads);
        failure = compute(model, settings, ids, n_ids, &error);
        runnel_model_close(model);
    }
    free(ids);
    return failure ? cli_fail(&error) : EXIT_DONE;
}

int command_logits(int argc, char **argv)
{
    struct logits_settings settings;
    int status = cli_read_options(&logits_table, argc, argv, &settings);
    if (status >= 0)
        return status;
    status = run(&settings);
    free(settings.config_text);
    return status;
}
