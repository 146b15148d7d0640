/* run_input.c: the texts that `runnel run` is given. Owns nothing; one thread. */
#include "cli/run_input.h"

#include "base/error.h"
#include "base/text.h"
#include "cli/cli.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

bool run_input_is_chat(const struct run_settings *settings)
{
    return !settings->prompt && !settings->prompt_file && isatty(STDIN_FILENO) && !settings->json &&
           !settings->raw;
}

/* Written like a sentence, and no file. */
static bool is_question(const char *model)
{
    size_t len = strlen(model);
    bool is_file_name = (len >= 5 && !strcmp(model + len - 5, ".gguf")) || !access(model, F_OK);
    bool is_sentence = strpbrk(model, " \t\n") || (len && strchr("?!.", model[len - 1]));
    for (const char *at = model; *at && !is_sentence; at++)
        is_sentence = (unsigned char)*at >= 0x80; /* Chinese has no spaces; no known model's name has such */
    return is_sentence && !is_file_name && cli_find_model(model, NULL);
}

/* A pipe, a socket or a file: what is not a terminal and not /dev/null, as cron and service managers give it. */
static bool is_something_piped(void)
{
    struct stat status;
    return !fstat(STDIN_FILENO, &status) && !S_ISCHR(status.st_mode) && !isatty(STDIN_FILENO);
}

static bool is_blank(const char *text)
{
    return !text[strspn(text, " \t\r\n")];
}

static const char *name_of(const char *path)
{
    return strcmp(path, "-") ? path : "stdin";
}

/* The text in a file; blank ones are refused unless they are allowed. */
static int read_text(const char *path, bool may_be_blank, char **text, runnel_error *error)
{
    size_t len;
    int failure = cli_read_file(path, text, &len, error);
    if (failure)
        return failure;
    if (strlen(*text) != len)
        failure = error_set(error, RUNNEL_EINVAL, "%s: expected text, found a zero byte at offset %zu",
                            name_of(path), strlen(*text));
    else if (cli_check_utf8(name_of(path), *text, len, error))
        failure = RUNNEL_EINVAL;
    else if (!may_be_blank && is_blank(*text))
        failure = error_set(error, RUNNEL_EINVAL, "%s: expected a question, found nothing", name_of(path));
    if (failure) {
        free(*text);
        *text = NULL;
    }
    return failure;
}

/* Adds a text behind what is there, with a blank line between. */
static void add_part(struct text *all, const char *part)
{
    if (is_blank(part) && all->len)
        return;
    if (all->len) {
        while (all->len && (all->bytes[all->len - 1] == '\n' || all->bytes[all->len - 1] == '\r'))
            all->len--;
        text_add_string(all, "\n\n");
    }
    text_add_string(all, part);
}

static int add_file(struct text *all, const char *path, bool may_be_blank, runnel_error *error)
{
    char *text;
    int failure = read_text(path, may_be_blank, &text, error);
    if (failure)
        return failure;
    add_part(all, text);
    free(text);
    return RUNNEL_OK;
}

static bool is_stdin(const char *path)
{
    return path && !strcmp(path, "-");
}

int run_input_check(const struct run_settings *settings, runnel_error *error)
{
    if (is_question(settings->model))
        return error_set(error, RUNNEL_EINVAL,
                         "'%.80s': expected a model as the first argument; a question goes behind -p: "
                         "runnel run MODEL -p \"...\"",
                         settings->model);
    const struct {
        const char *option, *path;
    } files[] = {{"--system-file", settings->system_file},
                 {"--chat-template-file", settings->chat_template_file},
                 {"--schema", settings->schema},
                 {"-f", settings->prompt_file}};
    const char *taker = NULL;
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        if (!is_stdin(files[i].path))
            continue;
        if (taker)
            return error_set(error, RUNNEL_EINVAL, "%s -: expected another file, stdin is that of %s",
                             files[i].option, taker);
        taker = files[i].option;
    }
    if (taker && !settings->prompt && !settings->prompt_file)
        return error_set(error, RUNNEL_EINVAL, "expected a question in -p or -f: stdin is that of %s", taker);
    return RUNNEL_OK;
}

int run_input_question(const struct run_settings *settings, char **question, runnel_error *error)
{
    struct text all = {0};
    const char *file = settings->prompt_file;
    bool has_text = settings->prompt || file;
    bool stdin_taken = is_stdin(file) || is_stdin(settings->system_file) ||
                       is_stdin(settings->chat_template_file) || is_stdin(settings->schema);
    int failure = RUNNEL_OK;
    if (settings->prompt)
        failure = cli_check_utf8("-p", settings->prompt, strlen(settings->prompt), error);
    if (settings->prompt && !failure)
        text_add_string(&all, settings->prompt);
    if (file && !failure)
        failure = add_file(&all, file, false, error);
    if (!failure && !stdin_taken && (!has_text || is_something_piped()))
        failure = add_file(&all, "-", has_text, error);
    if (!failure && all.failed)
        failure = error_set(error, RUNNEL_ENOMEM, "no memory for the question");
    if (!failure && (!all.bytes || !all.bytes[strspn(all.bytes, " \t\r\n")]))
        failure =
            error_set(error, RUNNEL_EINVAL, "-p: the prompt is empty: expected a question, found nothing");
    if (failure)
        text_free(&all);
    else
        *question = all.bytes;
    return failure;
}

int run_input_system(const struct run_settings *settings, char **system, runnel_error *error)
{
    *system = NULL;
    if (settings->system_file) {
        int failure = read_text(settings->system_file, true, system, error);
        if (failure)
            return failure;
    } else if (settings->system) {
        int failure = cli_check_utf8("--system", settings->system, strlen(settings->system), error);
        if (failure)
            return failure;
        *system = strdup(settings->system);
        if (!*system)
            return error_set(error, RUNNEL_ENOMEM, "no memory for the system prompt");
    }
    for (size_t len = *system ? strlen(*system) : 0;
         settings->system_file && len && strchr("\r\n", (*system)[len - 1]); len--)
        (*system)[len - 1] = 0;
    return RUNNEL_OK;
}

int run_input_schema(const struct run_settings *settings, char **schema, runnel_error *error)
{
    *schema = NULL;
    return settings->schema ? read_text(settings->schema, true, schema, error) : RUNNEL_OK;
}
