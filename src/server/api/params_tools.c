/* params_tools.c: the tools of a conversation, calls of them and their results. Owns nothing; any thread.
 *
 * What goes on to the model's chat template is JSON as it came, without the nulls that clients send for what they do not say. */
#include "server/api/params.h"

#include "server/core/json_text.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int no_memory(struct refusal *refusal)
{
    refuse(refusal, NULL, "no memory for the request");
    refusal->status = 503;
    return -1;
}

/* The JSON as text, which the params own. */
static int keep_json(const json_t *json, struct params *params, const char **text, struct refusal *refusal)
{
    struct text made = {0};
    json_add_text(json, JSON_TIGHT, &made);
    if (made.failed) {
        text_free(&made);
        return no_memory(refusal);
    }
    params->made[params->n_made++] = made.bytes;
    *text = made.bytes;
    return 0;
}

/* A text without zeros; NULL: it is something else. */
static const char *text_of(const json_t *value)
{
    const char *text = json_string_value(value);
    return text && strlen(text) == json_string_length(value) ? text : NULL;
}

static bool is_function(const json_t *object)
{
    const json_t *type = json_find(object, "type");
    return !type || json_is_text(type, "function");
}

/* Tools --------------------------------------------------------------------------------------------------- */

static bool has_name(const json_t *tools, const char *name)
{
    const json_t *tool;
    size_t i;
    json_array_foreach(tools, i, tool)
    {
        if (json_is_text(json_object_get(json_object_get(tool, "function"), "name"), name))
            return true;
    }
    return false;
}

static int check_function(const json_t *function, const json_t *before, size_t index, struct refusal *refusal)
{
    char field[64];
    const json_t *description = json_find(function, "description"), *strict = json_find(function, "strict");
    const json_t *parameters = json_find(function, "parameters");
    const char *name = text_of(json_find(function, "name"));
    snprintf(field, sizeof field, "tools[%zu].function.name", index);
    if (!name || !*name)
        return refuse(refusal, field, "expected a string that is not empty");
    if (has_name(before, name))
        return refuse(refusal, field, "expected another name than that of an earlier tool");
    snprintf(field, sizeof field, "tools[%zu].function.description", index);
    if (description && !json_is_string(description))
        return refuse(refusal, field, "expected a string");
    snprintf(field, sizeof field, "tools[%zu].function.parameters", index);
    if (parameters && !json_is_object(parameters))
        return refuse(refusal, field, "expected an object");
    if (json_has_rounded(parameters))
        return refuse(refusal, field, "expected integers of at most 64 bits, or of 15 digits");
    snprintf(field, sizeof field, "tools[%zu].function.strict", index);
    if (strict && !json_is_boolean(strict))
        return refuse(refusal, field, "expected true or false");
    return 0;
}

/* A copy without the members that are null, and without what is no business of the template; NULL: no memory. */
static json_t *copy_function(const json_t *function)
{
    static const char *const members[] = {"description", "parameters"};
    json_t *copy = json_copy((json_t *)(uintptr_t)function);
    for (size_t i = 0; copy && i < sizeof members / sizeof *members; i++)
        if (json_is_null(json_object_get(copy, members[i])))
            json_object_del(copy, members[i]);
    if (copy)
        json_object_del(copy, "strict");
    return copy;
}

/* Adds the tool, as the template gets it, to the list. */
static int add_tool(const json_t *tool, size_t index, json_t *list, struct refusal *refusal)
{
    char field[64];
    const json_t *function = json_find(tool, "function");
    snprintf(field, sizeof field, "tools[%zu].type", index);
    if (json_is_object(tool) && !is_function(tool))
        return refuse(refusal, field, "expected \"function\"");
    snprintf(field, sizeof field, "tools[%zu].function", index);
    if (!json_is_object(function))
        return refuse(refusal, field, "expected an object");
    if (check_function(function, list, index, refusal))
        return -1;
    json_t *made = json_pack("{s:s, s:o}", "type", "function", "function", copy_function(function));
    return made && !json_array_append_new(list, made) ? 0 : no_memory(refusal);
}

/* Whether calls may be made, or must: none, auto, required, or the name of a tool. */
static int read_choice(const json_t *root, const json_t *tools, runnel_request *request, bool *may_call,
                       struct refusal *refusal)
{
    const json_t *choice = json_find(root, "tool_choice");
    const json_t *function = json_find(choice, "function");
    *may_call = !json_is_text(choice, "none");
    if (!choice || !*may_call || json_is_text(choice, "auto"))
        return 0;
    if (!json_array_size(tools))
        return refuse(refusal, "tool_choice", "expected \"none\" or \"auto\", as there are no tools");
    const char *name =
        json_is_object(choice) && is_function(choice) ? text_of(json_find(function, "name")) : NULL;
    if (name && !has_name(tools, name))
        return refuse(refusal, "tool_choice", "it names none of the tools");
    if (!name && !json_is_text(choice, "required"))
        return refuse(refusal, "tool_choice",
                      "expected \"none\", \"auto\", \"required\" or a function's name");
    request->must_call = true;
    request->must_call_name = name;
    return 0;
}

static int read_list(const json_t *tools, json_t *list, struct params *params, struct refusal *refusal)
{
    const json_t *tool;
    size_t i;
    if (!list)
        return no_memory(refusal);
    json_array_foreach(tools, i, tool)
    {
        if (add_tool(tool, i, list, refusal))
            return -1;
    }
    return keep_json(list, params, &params->request.tools, refusal);
}

int params_read_tools(const json_t *root, struct params *params, struct refusal *refusal)
{
    const json_t *tools = json_find(root, "tools");
    bool may_call, parallel = true;
    if (tools && !json_is_false(tools) && !json_is_array(tools))
        return refuse(refusal, "tools", "expected a list");
    if (read_choice(root, tools, &params->request, &may_call, refusal) ||
        params_read_bool(root, "parallel_tool_calls", &parallel, refusal))
        return -1;
    if (!may_call || !json_array_size(tools)) /* tools that it must not call are not told to the model */
        return 0;
    params->constraint_field = params->constraint_field ? params->constraint_field : "tools";
    if (json_array_size(tools) > PARAMS_TOOLS)
        return refuse(refusal, "tools", "expected at most %d, found %zu", PARAMS_TOOLS,
                      json_array_size(tools));
    params->request.max_calls = parallel && !params->request.must_call_name ? 0 : 1;
    json_t *list = json_array();
    int failure = read_list(tools, list, params, refusal);
    json_decref(list);
    return failure;
}

/* Calls and results --------------------------------------------------------------------------------------- */

/* Adds the call, as the template gets it, to the list: arguments are text. */
static int add_call(const json_t *call, const char *field, size_t index, json_t *list,
                    struct refusal *refusal)
{
    const json_t *function = json_find(call, "function"), *id = json_find(call, "id");
    json_t *arguments = json_find(function, "arguments");
    const char *name = text_of(json_find(function, "name"));
    if (!json_is_object(call) || !is_function(call) || !json_is_object(function) || !name || !*name)
        return refuse(refusal, field, "expected calls of functions with a name, call %zu is none", index);
    if (id && !json_is_string(id))
        return refuse(refusal, field, "call %zu: expected a string as its id", index);
    if (arguments && !json_is_string(arguments) && !json_is_object(arguments))
        return refuse(refusal, field, "call %zu: expected a string as its arguments", index);
    bool says_some = json_is_object(arguments) || json_string_length(arguments);
    struct text made = {0};
    if (json_is_object(arguments))
        json_add_text(arguments, JSON_SPACED, &made);
    json_t *text = !says_some    ? json_string("{}")
                   : made.failed ? NULL
                   : made.bytes  ? json_string(made.bytes)
                                 : json_incref(arguments);
    text_free(&made);
    json_t *copy = json_pack("{s:O*, s:s, s:{s:s, s:o}}", "id", id, "type", "function", "function", "name",
                             name, "arguments", text);
    return copy && !json_array_append_new(list, copy) ? 0 : no_memory(refusal);
}

static int read_calls(const json_t *calls, const char *field, struct params *params, const char **text,
                      struct refusal *refusal)
{
    const json_t *call;
    size_t i;
    int failure = 0;
    json_t *list = json_array();
    if (!list)
        return no_memory(refusal);
    json_array_foreach(calls, i, call)
    {
        failure = failure ? failure : add_call(call, field, i, list, refusal);
    }
    failure = failure ? failure : keep_json(list, params, text, refusal);
    json_decref(list);
    return failure;
}

/* A text or null; NULL for null. */
static int read_text(const json_t *value, const char *field, const char **text, struct refusal *refusal)
{
    *text = value ? text_of(value) : NULL;
    return value && !*text ? refuse(refusal, field, "expected a string without zero bytes") : 0;
}

int params_read_message_tools(const json_t *message, size_t index, struct params *params,
                              struct refusal *refusal)
{
    char field[64];
    runnel_message_tools *tools = &params->message_tools[index];
    const char *role = params->messages[index].role;
    const json_t *calls = json_find(message, "tool_calls");
    snprintf(field, sizeof field, "messages[%zu].function_call", index);
    if (json_find(message, "function_call"))
        return refuse(refusal, field, "not supported: expected tool_calls");
    snprintf(field, sizeof field, "messages[%zu].tool_calls", index);
    if (calls && !json_is_array(calls))
        return refuse(refusal, field, "expected a list");
    if (json_array_size(calls)) {
        if (strcmp(role, "assistant") != 0)
            return refuse(refusal, field, "only the assistant calls tools");
        return read_calls(calls, field, params, &tools->calls, refusal);
    }
    if (strcmp(role, "tool") != 0)
        return 0;
    snprintf(field, sizeof field, "messages[%zu].tool_call_id", index);
    if (read_text(json_find(message, "tool_call_id"), field, &tools->call_id, refusal))
        return -1;
    snprintf(field, sizeof field, "messages[%zu].name", index);
    return read_text(json_find(message, "name"), field, &tools->name, refusal);
}
