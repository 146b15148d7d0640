/* cli.c: what the commands share: errors, opening a model with a progress bar, reading files. */
#include "cli/cli.h"

#include "base/error.h"
#include "base/limits.h"
#include "base/new_file.h"
#include "base/split_name.h"
#include "base/utf8.h"
#include "cli/catalogue.h"
#include "cli/environment.h"
#include "cli/progress.h"

#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { SILENT_MS = 2000 }; /* that a pipe may be before somebody is told */

int cli_fail(const runnel_error *error)
{
    fprintf(stderr, "runnel: %s\n", error->message);
    return EXIT_FAILED;
}

static void tell_on_stderr(void *user, const char *line)
{
    (void)user;
    fprintf(stderr, "runnel: %s\n", line);
}

int cli_read_options(const struct options_table *table, int argc, char **argv, void *settings)
{
    int status = cli_read_options_only(table, argc, argv, settings);
    if (status < 0)
        environment_tell_unknown(tell_on_stderr, NULL);
    return status;
}

int cli_read_options_only(const struct options_table *table, int argc, char **argv, void *settings)
{
    runnel_error error;
    switch (options_read(table, argc, argv, settings, &error)) {
    case OPTIONS_READ:
        return -1;
    case OPTIONS_HELP:
        options_print_help(table, stdout);
        return EXIT_DONE;
    default:
        environment_tell_unknown(tell_on_stderr, NULL);
        fprintf(stderr, "%s: %s\n", table->command, error.message);
        return EXIT_USAGE;
    }
}

static void show_progress(void *user, uint64_t done, uint64_t total)
{
    progress_update(user, done, total);
}

int cli_find_model(const char *name, runnel_error *error)
{
    char path[PATH_MAX];
    return catalogue_resolve(name, path, sizeof path, error);
}

int cli_check_output(const char *output, const char *model, const char *other, runnel_error *error)
{
    char path[PATH_MAX];
    struct split_name name;
    int failure = catalogue_resolve(model, path, sizeof path, error);
    if (failure)
        return failure;
    unsigned n_parts = split_name_read(path, strlen(path), &name) ? name.count : 1;
    for (unsigned number = 1; number <= n_parts && !failure; number++) {
        if (n_parts > 1)
            split_name_renumber(path, &name, number);
        failure = new_file_check_spares(output, path, error);
    }
    return failure ? failure : new_file_check_spares(output, other, error);
}

bool cli_draft_is_off(const char *draft)
{
    return strcmp(draft, "off") == 0;
}

void cli_name_template_options(runnel_error *error)
{
    static const struct field_name names[] = {
        {"chat_template_text", "--chat-template-file"}, {"chat_template", "--chat-template"}, {NULL, NULL}};
    error_name_options(names, error);
}

bool cli_wants_device(const struct cli_device *device)
{
    return strcmp(device->name, "cpu") != 0;
}

void cli_name_gpu_approximate(runnel_error *error)
{
    static const struct field_name names[] = {{"gpu_approximate", "--gpu-approximate"}, {NULL, NULL}};
    error_name_options(names, error);
}

/* An exit handler that leaves out those of drivers, which were there before it and so would run after it: they might wait for a device that
 * answers no more. */
static void leave(void)
{
    fflush(NULL);
    _exit(EXIT_FAILED);
}

int cli_start_engine(const runnel_model *model, const runnel_engine_options *options, runnel_engine **engine,
                     runnel_error *error)
{
    int failure = runnel_engine_start(model, options, engine, error);
    if (failure == RUNNEL_EIO || failure == RUNNEL_ETIMEOUT) /* a device was lost */
        atexit(leave);
    if (failure)
        cli_name_gpu_approximate(error);
    return failure;
}

void cli_stop_engine(runnel_engine *engine)
{
    runnel_stats_values stats = {.size = sizeof stats};
    if (!engine)
        return;
    runnel_stats(engine, &stats);
    if (stats.device_is_lost)
        atexit(leave);
    runnel_engine_stop(engine);
}

bool cli_describe_device(const struct cli_device *device, const runnel_model *model, runnel_engine *engine,
                         char *line, size_t size)
{
    runnel_stats_values stats = {.size = sizeof stats};
    runnel_model_info info = {.size = sizeof info};
    runnel_stats(engine, &stats);
    runnel_model_get_info(model, &info);
    if (!*stats.device)
        return false;
    snprintf(line, size, "%s computes %u of %u layers%s%s", stats.device, stats.n_device_layers,
             info.n_layers, stats.n_device_layers < info.n_layers ? ", the CPU the rest" : "",
             device->approximates ? " (approximately)" : "");
    return true;
}

bool cli_describe_device_problem(runnel_engine *engine, char *line, size_t size)
{
    runnel_stats_values stats = {.size = sizeof stats};
    runnel_stats(engine, &stats);
    if (!*stats.device_problem)
        return false;
    snprintf(line, size, "no card computes; %s", stats.device_problem);
    return true;
}

int cli_open_model(const char *name, int n_threads, const char *chat_template, const char *chat_template_file,
                   runnel_model **model, runnel_error *error)
{
    const struct cli_device cpu = {.name = "cpu"};
    return cli_open_model_on(&cpu, name, n_threads, chat_template, chat_template_file, model, error);
}

int cli_open_model_on(const struct cli_device *device, const char *name, int n_threads,
                      const char *chat_template, const char *chat_template_file, runnel_model **model,
                      runnel_error *error)
{
    char path[PATH_MAX], *text = NULL;
    size_t len;
    int failure = catalogue_resolve(name, path, sizeof path, error);
    if (!failure && chat_template && chat_template_file)
        failure =
            error_set(error, RUNNEL_EINVAL, "--chat-template and --chat-template-file: expected one of them");
    if (!failure && chat_template_file)
        failure = cli_read_file(chat_template_file, &text, &len, error);
    if (!failure && text)
        failure = cli_check_utf8(chat_template_file, text, len, error);
    if (failure) {
        free(text);
        return failure;
    }
    static const struct field_name device_names[] = {{"gpu_layers", "--gpu-layers"},
                                                     {"gpu_approximate", "--gpu-approximate"},
                                                     {"device", "--device"},
                                                     {NULL, NULL}};
    struct progress progress;
    progress_start(&progress, "loading", 0);
    runnel_model_options options;
    runnel_model_options_init(&options);
    options.n_threads = n_threads;
    options.device = device->name;
    options.gpu_layers = (uint32_t)device->n_layers;
    options.gpu_approximate = device->approximates;
    options.chat_template = chat_template;
    options.chat_template_text = text;
    options.on_progress = show_progress;
    options.user = &progress;
    failure = runnel_model_open(path, &options, model, error);
    progress_end(&progress);
    free(text);
    if (failure) {
        cli_name_template_options(error);
        if (failure == RUNNEL_EINVAL) /* else it may be a part of a file's name */
            error_name_options(device_names, error);
    }
    return failure;
}

bool cli_remark_threads(int n_threads, char *line, size_t size)
{
    unsigned n_cpus = limits_cpus();
    if (n_threads <= 0 || (unsigned)n_threads <= n_cpus)
        return false;
    snprintf(line, size, "--threads %d: this process may use %u CPU%s; more threads make it slow", n_threads,
             n_cpus, n_cpus == 1 ? "" : "s");
    return true;
}

void cli_tell_threads(int n_threads)
{
    char line[128];
    if (cli_remark_threads(n_threads, line, sizeof line))
        fprintf(stderr, "runnel: %s\n", line);
}

void cli_tell_warning(const runnel_model *model)
{
    runnel_model_info info = {.size = sizeof info};
    runnel_model_get_info(model, &info);
    if (*info.warning)
        fprintf(stderr, "The model's file, left out: %s\n", info.warning);
}

static int fail_file(runnel_error *error, const char *path, const char *what)
{
    error_set(error, RUNNEL_EIO, "%s: %s", path, what);
    return RUNNEL_EIO;
}

/* Nobody shall wonder why nothing happens. */
static void announce_stdin(void)
{
    struct pollfd input = {.fd = STDIN_FILENO, .events = POLLIN};
    if (isatty(STDIN_FILENO))
        fprintf(stderr, "runnel: type the text; Ctrl-D ends it\n");
    else if (poll(&input, 1, SILENT_MS) == 0)
        fprintf(stderr, "runnel: waiting for stdin to end; < /dev/null where nothing is to come\n");
}

void cli_print_text(const char *text, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        unsigned char byte = (unsigned char)text[i];
        bool is_c1 = byte == 0xc2 && i + 1 < len && (unsigned char)text[i + 1] < 0xa0;
        putchar(byte < 0x20 || byte == 0x7f || is_c1 ? '?' : byte);
        i += is_c1; /* U+0080 to U+009F take two bytes */
    }
}

int cli_check_utf8(const char *name, const char *text, size_t len, runnel_error *error)
{
    size_t wrong = utf8_find_wrong(text, len);
    if (wrong == len)
        return RUNNEL_OK;
    return error_set(error, RUNNEL_EINVAL, "%s: expected UTF-8 text, found byte 0x%02X at offset %zu", name,
                     (unsigned char)text[wrong], wrong);
}

int cli_read_file(const char *path, char **text, size_t *len, runnel_error *error)
{
    bool is_stdin = !strcmp(path, "-");
    FILE *file = is_stdin ? stdin : fopen(path, "rb");
    if (!file)
        return fail_file(error, path, strerror(errno));
    if (is_stdin)
        announce_stdin();
    size_t used = 0, cap = 0;
    char *buffer = NULL;
    int failure = RUNNEL_OK;
    for (;;) {
        if (used + 1 >= cap) {
            char *grown = realloc(buffer, cap = cap * 2 + 65536);
            if (!grown) {
                failure = fail_file(error, path, "no memory for its text");
                break;
            }
            buffer = grown;
        }
        size_t n = fread(buffer + used, 1, cap - used - 1, file);
        used += n;
        if (n == 0 || feof(file)) /* a terminal would want a second Ctrl-D */
            break;
    }
    if (!failure && ferror(file))
        failure = fail_file(error, path, strerror(errno));
    if (!is_stdin)
        fclose(file);
    if (failure) {
        free(buffer);
        return failure;
    }
    buffer[used] = 0;
    *text = buffer;
    *len = used;
    return RUNNEL_OK;
}
