/* tokenize.c: the command `runnel tokenize`: text on stdin to token ids on stdout. Reads the model's
 * tokenizer and none of its weights. One thread. */
#include "base/error.h"
#include "base/options.h"
#include "cli/catalogue.h"
#include "cli/cli.h"
#include "model/tokenizer.h"

#include <errno.h>
#include <jansson.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct settings {
    const char *model;
    bool special, jsonl;
};

static const struct option_spec specs[] = {
    {"model", 'm', OPTION_STRING, "MODEL",
     "a GGUF file or the name of a pulled model; a vocabulary alone will do",
     OPTION_FIELD(struct settings, model), .required = true, .bare = true,
     .extra_hint = "the text is read from stdin: printf '...' | runnel tokenize MODEL"},
    {"special", 0, OPTION_FLAG, NULL,
     "read control tokens in the text as such (user-defined ones always are)",
     OPTION_FIELD(struct settings, special)},
    {"jsonl", 0, OPTION_FLAG, NULL, "one JSON string a line in, one array a line out",
     OPTION_FIELD(struct settings, jsonl)},
};

const struct options_table tokenize_table = {
    "runnel tokenize",
    "Turns the text on stdin into a JSON array of token ids on stdout. No token is added before or after "
    "(SentencePiece's models have a space set before the text, though), and the text, which has to be UTF-8, "
    "is not normalised: an accented letter of one code point and of two have different ids.",
    specs,
    OPTION_COUNT(specs),
};

static int fail(runnel_error *error, int code, const char *message)
{
    error->code = code;
    snprintf(error->message, sizeof error->message, "%s", message);
    return code;
}

static int load_tokenizer(const char *model, struct tokenizer **tokenizer, runnel_error *error)
{
    char path[PATH_MAX];
    struct gguf *gguf = NULL;
    int code = catalogue_resolve(model, path, sizeof path, error);
    if (!code)
        code = gguf_open(path, &gguf, error);
    if (!code && ((code = gguf_check_type(gguf, error)) || (code = tokenizer_create(gguf, tokenizer, error))))
        error_prefix(error, "%s", path);
    gguf_close(gguf); /* the tokenizer has copies of all it needs */
    return code;
}

static int print_tokens(const struct tokenizer *tokenizer, const char *text, size_t len, bool special,
                        runnel_error *error)
{
    struct text_span all = {0, len};
    struct token_list list = {0};
    int code = tokenizer_encode(tokenizer, text, len, &all, special ? 1 : 0, &list, error);
    if (!code) {
        putchar('[');
        for (size_t i = 0; i < list.n; i++)
            printf(i ? ",%d" : "%d", (int)list.ids[i]);
        fputs("]\n", stdout);
        if (fflush(stdout) != 0)
            code = fail(error, RUNNEL_EIO, "stdout could not be written");
    }
    free(list.ids);
    return code;
}

static int tokenize_line(const struct tokenizer *tokenizer, const char *line, size_t len, size_t number,
                         bool special, runnel_error *error)
{
    json_error_t where;
    char name[48];
    snprintf(name, sizeof name, "stdin, line %zu", number);
    int code = cli_check_utf8(name, line, len, error);
    if (code)
        return code;
    json_t *value = json_loadb(line, len, JSON_DECODE_ANY | JSON_ALLOW_NUL, &where);
    if (!json_is_string(value)) {
        json_decref(value);
        return error_set(error, RUNNEL_EINVAL, "%s: a JSON string expected", name);
    }
    code = print_tokens(tokenizer, json_string_value(value), json_string_length(value), special, error);
    json_decref(value);
    return code;
}

static int tokenize_lines(const struct tokenizer *tokenizer, bool special, runnel_error *error)
{
    char *line = NULL;
    size_t cap = 0;
    ssize_t len;
    int code = RUNNEL_OK;
    for (size_t number = 1; !code && (len = getline(&line, &cap, stdin)) >= 0; number++)
        code = tokenize_line(tokenizer, line, (size_t)len, number, special, error);
    if (!code && !feof(stdin))
        code = fail(error, errno == ENOMEM ? RUNNEL_ENOMEM : RUNNEL_EIO, strerror(errno));
    free(line);
    return code;
}

static int tokenize_all(const struct tokenizer *tokenizer, bool special, runnel_error *error)
{
    char *text = NULL;
    size_t len = 0;
    int code = cli_read_file("-", &text, &len, error);
    if (!code)
        code = cli_check_utf8("stdin", text, len, error);
    if (!code)
        code = print_tokens(tokenizer, text, len, special, error);
    free(text);
    return code;
}

int command_tokenize(int argc, char **argv)
{
    struct settings settings = {0};
    struct tokenizer *tokenizer = NULL;
    runnel_error error;
    int status = cli_read_options(&tokenize_table, argc, argv, &settings);
    if (status >= 0)
        return status;
    int code = load_tokenizer(settings.model, &tokenizer, &error);
    if (!code)
        code = settings.jsonl ? tokenize_lines(tokenizer, settings.special, &error)
                              : tokenize_all(tokenizer, settings.special, &error);
    tokenizer_free(tokenizer);
    return code ? cli_fail(&error) : EXIT_DONE;
}
