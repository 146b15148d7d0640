/* tool_grammar.c: see tool_grammar.h. */
#include "engine/tool_grammar.h"

#include "base/text.h"
#include "constrain/schema_calls.h"

#include <stdlib.h>
#include <string.h>

struct call_list {
    struct schema_call *calls; /* [n] */
    struct text *before, *or_before, *after;
    size_t n;
};

/* {"function": {...}}, or the function itself. */
static const struct json *function_of(const struct json *tool)
{
    const struct json *function = json_tree_member(tool, "function");
    return function ? function : tool;
}

static bool may_be_called(const struct tool_grammar_options *options, const struct json *name)
{
    return name && name->kind == JSON_STRING && (!options->name || json_tree_is(name, options->name));
}

/* What the parts of a call begin with: its arguments, or its name. */
static void write_parts(const struct tool_form *form, const char *name, struct text *arguments,
                        struct text *named)
{
    static const char arguments_mark[] = {TOOL_GRAMMAR_ARGUMENTS, 0}, name_mark[] = {TOOL_GRAMMAR_NAME, 0};
    const char *between = strstr(form->example, "NAME") + strlen("NAME");
    text_add_string(arguments, arguments_mark);
    text_add_string(arguments, name);
    text_add_string(arguments, arguments_mark);
    text_add_string(named, name_mark);
    text_add_string(named, name);
    text_add(named, between, (size_t)(strstr(between, "ARGUMENTS") - between));
}

/* What a form writes of a call before and behind its arguments. */
static void write_call(const struct tool_form *form, const char *name, struct text *before,
                       struct text *after)
{
    static const char name_mark[] = "NAME", arguments_mark[] = "ARGUMENTS";
    const char *call = form->example + strlen(form->begin);
    const char *name_at = strstr(call, name_mark), *arguments_at = strstr(call, arguments_mark);
    const char *behind = arguments_at + sizeof arguments_mark - 1;
    text_add(before, call, (size_t)(name_at - call));
    text_add_string(before, name);
    name_at += sizeof name_mark - 1;
    text_add(before, name_at, (size_t)(arguments_at - name_at));
    text_add(after, behind, strlen(behind) - strlen(form->end));
}

static void free_list(struct call_list *list)
{
    for (size_t i = 0; i < list->n; i++) {
        text_free(&list->before[i]);
        text_free(&list->or_before[i]);
        text_free(&list->after[i]);
    }
    free(list->calls);
    free(list->before);
    free(list->or_before);
    free(list->after);
}

static bool add_call(const struct tool_grammar_options *options, const struct json *tool,
                     struct call_list *list)
{
    const struct json *function = function_of(tool), *name = json_tree_member(function, "name");
    size_t n = list->n;
    if (!may_be_called(options, name))
        return true;
    list->n++;
    text_add_string(&list->after[n], "");
    if (options->within_text)
        write_parts(options->form, name->text, &list->before[n], &list->or_before[n]);
    else
        write_call(options->form, name->text, &list->before[n], &list->after[n]);
    list->calls[n] = (struct schema_call){.name = name->text,
                                          .before = list->before[n].bytes,
                                          .or_before = list->or_before[n].bytes,
                                          .after = list->after[n].bytes,
                                          .schema = json_tree_member(function, "parameters")};
    return !list->before[n].failed && !list->or_before[n].failed && !list->after[n].failed;
}

/* Of those that may be called. */
static int make_list(const struct tool_grammar_options *options, const struct json *tools,
                     struct call_list *list, runnel_error *error)
{
    list->calls = calloc(tools->n + 1, sizeof *list->calls);
    list->before = calloc(tools->n + 1, sizeof *list->before);
    list->or_before = calloc(tools->n + 1, sizeof *list->or_before);
    list->after = calloc(tools->n + 1, sizeof *list->after);
    bool failed = !list->calls || !list->before || !list->or_before || !list->after;
    for (uint32_t i = 0; i < tools->n && !failed; i++)
        failed = !add_call(options, &tools->items[i], list);
    if (failed)
        return error_set(error, RUNNEL_ENOMEM, "no memory for the calls of tools");
    if (list->n)
        return RUNNEL_OK;
    return error_set(error, RUNNEL_EINVAL, "tools: there is none%s%.64s", options->name ? " named " : "",
                     options->name ? options->name : "");
}

static int make_grammar(const struct constrain_limits *limits, const struct tool_grammar_options *options,
                        const struct json *tools, const struct json *or_value, struct grammar **grammar,
                        runnel_error *error)
{
    struct call_list list = {0};
    int failure = make_list(options, tools, &list, error);
    if (!failure) {
        const struct tool_form *form = options->form;
        bool whole = !options->within_text;
        const struct schema_calls calls = {.calls = list.calls,
                                           .n = list.n,
                                           .begin = whole ? form->begin : "",
                                           .between = whole ? form->between : "",
                                           .end = whole ? form->end : "",
                                           .max = options->max,
                                           .any_text = !whole,
                                           .or_value = or_value};
        failure = schema_calls_grammar(limits, &calls, grammar, error);
    }
    free_list(&list);
    return failure;
}

static int make_with_value(const struct constrain_limits *limits, const struct tool_grammar_options *options,
                           const struct json *tools, struct grammar **grammar, runnel_error *error)
{
    struct json_text value = {0};
    int failure = options->or_schema
                      ? json_tree_read(options->or_schema, options->or_schema_len, &value, error)
                      : RUNNEL_OK;
    if (failure)
        return failure;
    failure = make_grammar(limits, options, tools, options->or_schema ? &value.root : NULL, grammar, error);
    json_tree_free(&value);
    return failure;
}

int tool_grammar_create(const struct constrain_limits *limits, const struct tool_grammar_options *options,
                        struct grammar **grammar, runnel_error *error)
{
    struct json_text tools;
    int failure = json_tree_read(options->tools, options->tools_len, &tools, error);
    if (failure) {
        error_prefix(error, "tools");
        return failure;
    }
    failure = make_with_value(limits, options, &tools.root, grammar, error);
    json_tree_free(&tools);
    return failure;
}
