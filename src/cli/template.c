/* template.c: the command `runnel template`: a chat request as JSON on stdin to the prompt on stdout, byte for byte as the
 * chat template renders it. Reads the model's vocabulary and none of its weights. One thread. */
#include "base/options.h"
#include "cli/catalogue.h"
#include "cli/cli.h"
#include "model/chat.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct settings {
    const char *model, *file, *now;
};

static const struct option_spec specs[] = {
    {"model", 'm', OPTION_STRING, "MODEL",
     "a GGUF file or the name of a pulled model; a vocabulary alone will do",
     OPTION_FIELD(struct settings, model), .required = true, .bare = true,
     .extra_hint = "the request is read from stdin: runnel template MODEL < request.json"},
    {"file", 0, OPTION_STRING, "T.jinja", "this template instead of the model's own",
     OPTION_FIELD(struct settings, file)},
    {"now", 0, OPTION_STRING, "TIME",
     "the time that the template sees, such as 2026-08-05T12:00:00 (default: now)",
     OPTION_FIELD(struct settings, now)},
};

const struct options_table template_table = {
    "runnel template",
    "Turns a chat request on stdin (JSON: messages, tools, chat_template_kwargs, add_generation_prompt) into "
    "the prompt on "
    "stdout, as the chat template renders it.",
    specs,
    OPTION_COUNT(specs),
};

/* The token whose id stands under a key; empty if there is none. */
static struct gguf_string token_text(const struct gguf *gguf, const struct gguf_array *tokens,
                                     const char *key)
{
    uint32_t id;
    struct gguf_string none = {.bytes = "", .len = 0};
    if (gguf_get_u32(gguf, key, &id, NULL) || id >= tokens->n)
        return none;
    return ((const struct gguf_string *)tokens->values)[id];
}

static int compile_template(const struct gguf *gguf, const char *file, const struct chat_tokens *named,
                            struct chat_template *template, runnel_error *error)
{
    struct gguf_string jinja;
    if (file) {
        char *text = NULL;
        size_t len = 0;
        int code = cli_read_file(file, &text, &len, error);
        if (!code)
            code = cli_check_utf8(file, text, len, error);
        if (!code && (code = chat_compile(text, len, named, template, error)))
            error_prefix(error, "%s", file);
        free(text);
        return code;
    }
    int code = gguf_get_string(gguf, "tokenizer.chat_template", &jinja, error);
    if (!code)
        code = chat_compile(jinja.bytes, jinja.len, named, template, error);
    return code ? error_prefix(error, "%s", gguf_path(gguf)) : RUNNEL_OK;
}

/* With the tokens that the model's tokenizer begins and ends texts with; what the file's keys name, if it is not a known one. */
static int open_template(const struct gguf *gguf, const char *file, struct chat_template *template,
                         runnel_error *error)
{
    struct tokenizer *tokenizer;
    struct gguf_array tokens = {0};
    if (!tokenizer_create(gguf, &tokenizer, NULL)) {
        const struct chat_tokens named = chat_tokens_of(tokenizer);
        int code = compile_template(gguf, file, &named, template, error);
        tokenizer_free(tokenizer);
        return code;
    }
    gguf_get_array(gguf, "tokenizer.ggml.tokens", GGUF_STRING, &tokens, NULL);
    const struct chat_tokens named = {token_text(gguf, &tokens, "tokenizer.ggml.bos_token_id"),
                                      token_text(gguf, &tokens, "tokenizer.ggml.eos_token_id"), false};
    return compile_template(gguf, file, &named, template, error);
}

static int read_time(const char *text, struct tm *now, runnel_error *error)
{
    time_t seconds = time(NULL);
    *now = (struct tm){0};
    if (!text) {
        localtime_r(&seconds, now);
        return RUNNEL_OK;
    }
    const char *end = strptime(text, "%Y-%m-%dT%H:%M:%S", now);
    if (!end)
        end = strptime(text, "%Y-%m-%d", now);
    if (!end || (*end && strcmp(end, "Z") != 0))
        return error_set(error, RUNNEL_EINVAL,
                         "--now: expected a time such as 2026-08-05T12:00:00, found '%.80s'", text);
    return RUNNEL_OK;
}

static int print_prompt(const struct chat_template *template, const char *text, size_t len,
                        const struct tm *now, runnel_error *error)
{
    struct template_arena arena;
    struct chat_prompt prompt = {0};
    struct value request;
    if (strspn(text, " \t\r\n") == len)
        return error_set(error, RUNNEL_EINVAL, "stdin: expected a JSON object, found nothing");
    template_arena_init(&arena, template_default_limits.memory_bytes);
    int code = template_read_json(&arena, text, len, &request, error);
    if (!code && request.kind != VALUE_DICT)
        code = error_set(error, RUNNEL_EINVAL, "stdin: expected a JSON object");
    if (!code)
        code = chat_render_request(template, &arena, request.dict, now, &prompt, error);
    if (!code && (fwrite(prompt.text, 1, prompt.len, stdout) != prompt.len || fflush(stdout) != 0))
        code = error_set(error, RUNNEL_EIO, "stdout could not be written");
    chat_prompt_free(&prompt);
    template_arena_free(&arena);
    return code;
}

/* What the table of options cannot say. */
static int check_values(const struct settings *settings, struct tm *now, runnel_error *error)
{
    if (settings->file && !strcmp(settings->file, "-"))
        return error_set(error, RUNNEL_EINVAL, "--file -: expected another file, stdin is the request");
    return read_time(settings->now, now, error);
}

static int render(const struct settings *settings, const struct tm *now, runnel_error *error)
{
    char path[PATH_MAX], *text = NULL;
    size_t len = 0;
    struct gguf *gguf = NULL;
    struct chat_template template = {.name = ""};
    int code = catalogue_resolve(settings->model, path, sizeof path, error);
    if (!code)
        code = gguf_open(path, &gguf, error);
    if (!code && (code = gguf_check_type(gguf, error)))
        error_prefix(error, "%s", path);
    if (!code)
        code = open_template(gguf, settings->file, &template, error);
    if (!code)
        code = cli_read_file("-", &text, &len, error);
    if (!code)
        code = cli_check_utf8("stdin", text, len, error);
    if (!code)
        code = print_prompt(&template, text, len, now, error);
    free(text);
    chat_close(&template);
    gguf_close(gguf);
    return code;
}

int command_template(int argc, char **argv)
{
    struct settings settings = {0};
    struct tm now;
    runnel_error error;
    int status = cli_read_options(&template_table, argc, argv, &settings);
    if (status >= 0)
        return status;
    if (check_values(&settings, &now, &error)) {
        fprintf(stderr, "runnel template: %s\n", error.message);
        return EXIT_USAGE;
    }
    return render(&settings, &now, &error) ? cli_fail(&error) : EXIT_DONE;
}
