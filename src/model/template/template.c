/* template.c: compiling and rendering of chat templates. See template.h. */
#include "model/template/template.h"

#include "model/template/template_run.h"

#include <stdlib.h>
#include <string.h>

enum { TEMPLATE_BYTES_MAX = 1 << 20, TREE_BYTES_MAX = 256 << 20 };

const struct template_limits template_default_limits = {
    .n_steps = 20000000,
    .memory_bytes = (size_t)256 << 20,
    .output_bytes = (size_t)32 << 20,
    .depth = 400,
};

struct template
{
    struct template_arena arena;
    struct node *tree;
};

int template_compile(const char *text, size_t len, struct template **out, runnel_error *error)
{
    if (len > TEMPLATE_BYTES_MAX)
        return error_set(error, RUNNEL_EUNSUPPORTED, "chat template of %zu bytes: expected at most %d", len,
                         TEMPLATE_BYTES_MAX);
    struct template *template = calloc(1, sizeof *template);
    if (!template)
        return error_set(error, RUNNEL_ENOMEM, "out of memory for the chat template");
    template_arena_init(&template->arena, TREE_BYTES_MAX);
    int code = parser_read(&template->arena, text, len, &template->tree, error);
    if (code) {
        template_free(template);
        return code;
    }
    *out = template;
    return RUNNEL_OK;
}

void template_free(struct template *template)
{
    if (!template)
        return;
    template_arena_free(&template->arena);
    free(template);
}

void template_output_free(struct template_output *output)
{
    free(output->text);
    free(output->own);
    *output = (struct template_output){0};
}

/* Writes the spans of own bytes, or only counts them if spans is NULL. */
static size_t list_spans(struct string string, struct text_span *spans)
{
    size_t n = 0;
    for (size_t i = 0; i < string.len;) {
        size_t begin = i;
        bool own = string_is_own(string, i);
        while (i < string.len && string_is_own(string, i) == own)
            i++;
        if (own && spans)
            spans[n] = (struct text_span){begin, i};
        n += own;
    }
    return n;
}

static int copy_output(struct string string, struct template_output *output, runnel_error *error)
{
    size_t n = list_spans(string, NULL);
    char *text = malloc(string.len + 1);
    struct text_span *own = malloc((n + 1) * sizeof *own);
    if (!text || !own) {
        free(text);
        free(own);
        return error_set(error, RUNNEL_ENOMEM, "out of memory for the prompt");
    }
    memcpy(text, string.bytes, string.len);
    text[string.len] = '\0';
    list_spans(string, own);
    output->text = text;
    output->len = string.len;
    output->own = own;
    output->n_own = n;
    return RUNNEL_OK;
}

int template_render(const struct template *template, struct template_arena *arena,
                    const struct template_limits *limits, const struct dict *inputs, const struct tm *now,
                    struct template_output *output, runnel_error *error)
{
    struct string_builder out = {.arena = arena};
    struct scope scope = {0};
    struct run run = {.arena = arena,
                      .limits = limits,
                      .inputs = inputs,
                      .now = now,
                      .scope = &scope,
                      .out = &out,
                      .line = 1,
                      .error = error};
    if (!run_statements(&run, template->tree) || !run_step(&run, 0))
        return run.code;
    return copy_output(builder_string(&out), output, error);
}
