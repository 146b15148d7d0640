/* chat_tools.c: see chat_tools.h. */
#include "model/chat_tools.h"

#include "model/template/template_text.h"

#include <stdlib.h>
#include <string.h>

bool chat_tools_are_used(const struct chat_conversation *conversation)
{
    if (conversation->tools)
        return true;
    for (size_t i = 0; i < conversation->n_messages; i++)
        if (strcmp(conversation->messages[i].role, "tool") == 0 ||
            (conversation->message_tools && conversation->message_tools[i].calls))
            return true;
    return false;
}

static int out_of_memory(runnel_error *error)
{
    return error_set(error, RUNNEL_ENOMEM, "out of memory for tools");
}

static int read_list(struct template_arena *arena, const char *json, size_t len, const char *what,
                     struct value *list, runnel_error *error)
{
    int code = template_read_json(arena, json, len, list, error);
    if (arena->over_the_limit)
        return out_of_memory(error);
    if (code)
        return error_prefix(error, "%s", what);
    if (list->kind != VALUE_LIST)
        return error_set(error, RUNNEL_EINVAL, "%s: expected a JSON list", what);
    return RUNNEL_OK;
}

/* Tools --------------------------------------------------------------------------------------------------- */

/* What a tool or a call says of its function: {"function": {...}}, or the object itself. NULL: it is no object. */
static struct dict *function_of(struct value value)
{
    const struct value *function = value.kind == VALUE_DICT ? dict_get_text(value.dict, "function") : NULL;
    if (function && function->kind == VALUE_DICT)
        return function->dict;
    return value.kind == VALUE_DICT ? value.dict : NULL;
}

/* The name of a tool, zero-terminated, in the arena; NULL: it has none that is fit, or memory ran out. */
static const char *name_of(struct template_arena *arena, struct value tool)
{
    const struct dict *function = function_of(tool);
    const struct value *name = function ? dict_get_text(function, "name") : NULL;
    if (!name || name->kind != VALUE_STRING || !tool_name_is_fit(name->string.bytes, name->string.len))
        return NULL;
    char *copy = template_arena_alloc(arena, name->string.len + 1);
    if (copy) {
        memcpy(copy, name->string.bytes, name->string.len);
        copy[name->string.len] = '\0';
    }
    return copy;
}

static int read_names(struct template_arena *arena, const struct list *tools, const char ***out,
                      runnel_error *error)
{
    const char **names = template_arena_alloc(arena, (tools->n + 1) * sizeof *names);
    for (size_t i = 0; names && i < tools->n; i++) {
        names[i] = name_of(arena, tools->items[i]);
        if (!names[i] && !arena->failed && !arena->over_the_limit)
            return error_set(error, RUNNEL_EINVAL,
                             "tools[%zu]: expected a name of 1 to %d bytes without quotes, backslashes and "
                             "control characters",
                             i, TOOL_NAME_MAX);
    }
    if (arena->failed || arena->over_the_limit)
        return out_of_memory(error);
    *out = names;
    return RUNNEL_OK;
}

int chat_tools_read(struct template_arena *arena, const char *json, size_t len, struct value *tools,
                    runnel_error *error)
{
    const char **names;
    int code = read_list(arena, json, len, "tools", tools, error);
    return code ? code : read_names(arena, tools->list, &names, error);
}

int chat_tools_read_names(const char *json, size_t len, struct tool_names *out, runnel_error *error)
{
    struct template_arena arena;
    struct value tools;
    const char **names;
    template_arena_init(&arena, template_default_limits.memory_bytes);
    int code = read_list(&arena, json, len, "tools", &tools, error);
    if (!code)
        code = read_names(&arena, tools.list, &names, error);
    if (!code)
        code = tool_names_create(names, tools.list->n, out, error);
    template_arena_free(&arena);
    return code;
}

/* Calls --------------------------------------------------------------------------------------------------- */

/* Arguments that are no JSON object, as a model may have written them, stay text. */
static bool read_arguments(struct template_arena *arena, struct dict *function)
{
    const struct value *text = dict_get_text(function, "arguments");
    struct value object;
    runnel_error ignored;
    if (!text || text->kind != VALUE_STRING)
        return true;
    int code = template_read_json(arena, text->string.bytes, text->string.len, &object, &ignored);
    if (arena->failed || arena->over_the_limit)
        return false;
    return code || object.kind != VALUE_DICT || dict_set_text(arena, function, "arguments", object);
}

int chat_tools_read_calls(struct template_arena *arena, const char *json, bool arguments_as_text,
                          struct value *calls, runnel_error *error)
{
    int code = read_list(arena, json, strlen(json), "calls", calls, error);
    for (size_t i = 0; !code && i < calls->list->n; i++) {
        struct dict *function = function_of(calls->list->items[i]);
        if (!function)
            code = error_set(error, RUNNEL_EINVAL, "calls[%zu]: expected an object", i);
        else if (!arguments_as_text && !read_arguments(arena, function))
            code = out_of_memory(error);
    }
    return code;
}

/* Words --------------------------------------------------------------------------------------------------- */

static void add_own(struct string_builder *out, const char *text)
{
    builder_add_bytes(out, text, strlen(text), true);
}

struct string chat_tools_describe(struct template_arena *arena, const struct tool_form *form,
                                  struct string system, const char *tools, size_t tools_len)
{
    struct string_builder out = {.arena = arena};
    builder_add(&out, system);
    add_own(&out, system.len ? "\n\n" : "");
    add_own(&out, "You can call tools. Each is described by a JSON object:\n");
    builder_add_bytes(&out, tools, tools_len, false);
    add_own(&out,
            "\n\nTo call one, write the following with its name and with its arguments as a JSON object, and "
            "nothing else after it; its result comes as the next message:\n");
    add_own(&out, form->example);
    add_own(&out, "\n\nWhere no tool helps, answer without one.");
    return builder_string(&out);
}

/* Finding the form ---------------------------------------------------------------------------------------- */

enum { ARGUMENTS_CAP = 64 };

/* The arguments of the last call of xyzzy in a text, without white space; "" if there is none, or one that has no end. */
static void find_call(const struct tool_form *form, const char *text, size_t len,
                      char arguments[ARGUMENTS_CAP])
{
    static char name[] = "xyzzy";
    static char *one[] = {name};
    static const struct tool_names names = {.names = one, .n = 1};
    struct tool_scan scan = {0};
    size_t n = 0;
    for (size_t i = 0; i < len;) {
        struct tool_scan_result result = tool_scan_push(&scan, form, &names, text[i]);
        if (result.fate == TOOL_SCAN_BEGIN)
            n = 0;
        if ((result.fate == TOOL_SCAN_BEGIN || result.fate == TOOL_SCAN_ARGUMENT) && n < ARGUMENTS_CAP - 1 &&
            text[i] != ' ')
            arguments[n++] = text[i];
        i = result.fate == TOOL_SCAN_AGAIN ? i - result.n_again : i + 1;
    }
    arguments[scan.begun && !scan.complete ? 0 : n] = '\0';
}

const struct tool_form *chat_tools_find_form(const char *text, size_t len)
{
    size_t n;
    const struct tool_form *forms = tool_forms(&n);
    for (size_t i = 0; i < n; i++) {
        char arguments[ARGUMENTS_CAP];
        if (!memmem(text, len, forms[i].sign, strlen(forms[i].sign)))
            continue;
        find_call(&forms[i], text, len, arguments);
        if (!strcmp(arguments, "{\"plugh\":\"q\"}"))
            return &forms[i];
    }
    return NULL;
}
