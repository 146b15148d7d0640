/* grammar_source.c: see grammar_source.h. */
#include "engine/grammar_source.h"

#include "constrain/gbnf.h"
#include "constrain/regex.h"
#include "constrain/schema.h"
#include "engine/arguments.h"
#include "engine/tool_grammar.h"
#include "model/chat.h"

#include <stdio.h>
#include <string.h>

static const char any_object[] = "{\"type\":\"object\"}";

static size_t source_len(const runnel_request *request)
{
    return request->constraint_len || !request->constraint_text ? request->constraint_len
                                                                : strlen(request->constraint_text);
}

static size_t tools_len(const runnel_request *request)
{
    return request->tools_len ? request->tools_len : strlen(request->tools);
}

enum grammar_source_kind grammar_source_kind(const runnel_request *request)
{
    if (request->tools)
        return request->must_call || request->constraint ? GRAMMAR_OF_CALLS : GRAMMAR_OF_PARTS;
    return request->constraint ? GRAMMAR_OF_TEXT : GRAMMAR_OF_NOTHING;
}

/* Checks ------------------------------------------------------------------------------------------------- */

/* Without repeating what was given. */
static int check_constraint(const runnel_request *request, runnel_error *error)
{
    bool has_text = request->constraint == RUNNEL_CONSTRAINT_SCHEMA ||
                    request->constraint == RUNNEL_CONSTRAINT_REGEX ||
                    request->constraint == RUNNEL_CONSTRAINT_GRAMMAR;
    bool has_choices = request->constraint == RUNNEL_CONSTRAINT_CHOICE;
    if ((int)request->constraint < RUNNEL_CONSTRAINT_NONE || request->constraint > RUNNEL_CONSTRAINT_GRAMMAR)
        return error_set(error, RUNNEL_EINVAL, "constraint: %d, expected one of those that there are",
                         (int)request->constraint);
    if (has_text != (request->constraint_text != NULL))
        return error_set(error, RUNNEL_EINVAL, "constraint_text: %s",
                         has_text ? "expected one with this constraint, found none"
                                  : "given with a constraint that has none");
    if (has_choices != (request->n_choices > 0))
        return error_set(error, RUNNEL_EINVAL, "choices: %s",
                         has_choices ? "expected at least one, found none" : "given with another constraint");
    int failure = arguments_check(
        "request", ARGUMENTS(ARRAY(choices, request->choices, n_choices, request->n_choices)), error);
    for (size_t i = 0; !failure && i < request->n_choices; i++)
        if (!request->choices[i])
            failure = error_set(error, RUNNEL_EINVAL, "choices[%zu]: NULL", i);
    return failure;
}

static int check_tools(const runnel_request *request, const struct tool_form *form, runnel_error *error)
{
    bool has_json =
        request->constraint == RUNNEL_CONSTRAINT_JSON || request->constraint == RUNNEL_CONSTRAINT_SCHEMA;
    if (!request->tools && (request->must_call || request->must_call_name))
        return error_set(error, RUNNEL_EINVAL, "must_call: given without tools");
    if (request->must_call_name && !request->must_call)
        return error_set(error, RUNNEL_EINVAL, "must_call_name: given without must_call");
    if (request->tools && request->constraint && !has_json)
        return error_set(error, RUNNEL_EINVAL, "constraint: expected JSON or a schema beside tools");
    return request->tools && !form ? chat_refuse_tools(error) : RUNNEL_OK;
}

int grammar_source_check(const runnel_request *request, const struct tool_form *form, runnel_error *error)
{
    int failure = check_constraint(request, error);
    return failure ? failure : check_tools(request, form, error);
}

/* Keys ---------------------------------------------------------------------------------------------------- */

/* With its length before it: nothing else reads the same. */
static void add_part(struct text *key, const char *text, size_t len)
{
    char number[32];
    snprintf(number, sizeof number, "%zu:", len);
    text_add_string(key, number);
    text_add(key, text, len);
}

struct text grammar_source_key(const runnel_request *request)
{
    struct text key = {0};
    char number[96];
    snprintf(number, sizeof number, "%llu:%d:%d:%d:%u:", (unsigned long long)request->key,
             (int)grammar_source_kind(request), (int)request->constraint, (int)request->must_call,
             request->tools ? request->max_calls : 0);
    text_add_string(&key, number);
    if (request->constraint_text)
        add_part(&key, request->constraint_text, source_len(request));
    for (size_t i = 0; i < request->n_choices; i++)
        add_part(&key, request->choices[i], strlen(request->choices[i]));
    if (request->must_call_name)
        add_part(&key, request->must_call_name, strlen(request->must_call_name));
    if (request->tools)
        add_part(&key, request->tools, tools_len(request));
    return key;
}

/* Rules --------------------------------------------------------------------------------------------------- */

static int read_calls(const runnel_request *request, const struct tool_form *form,
                      const struct constrain_limits *limits, struct grammar **grammar, runnel_error *error)
{
    struct tool_grammar_options options = {.form = form,
                                           .tools = request->tools,
                                           .tools_len = tools_len(request),
                                           .name = request->must_call_name,
                                           .max = request->max_calls};
    if (!request->must_call && request->constraint == RUNNEL_CONSTRAINT_SCHEMA) {
        options.or_schema = request->constraint_text;
        options.or_schema_len = source_len(request);
    } else if (!request->must_call && request->constraint == RUNNEL_CONSTRAINT_JSON) {
        options.or_schema = any_object;
        options.or_schema_len = sizeof any_object - 1;
    }
    return tool_grammar_create(limits, &options, grammar, error);
}

static int read_parts(const runnel_request *request, const struct tool_form *form,
                      const struct constrain_limits *limits, struct grammar **grammar, runnel_error *error)
{
    const struct tool_grammar_options options = {
        .form = form, .within_text = true, .tools = request->tools, .tools_len = tools_len(request)};
    return tool_grammar_create(limits, &options, grammar, error);
}

/* By the front end of its kind. */
static int read_text(const runnel_request *request, const struct constrain_limits *limits,
                     struct grammar **grammar, runnel_error *error)
{
    const char *text = request->constraint_text;
    size_t len = source_len(request);
    switch (request->constraint) {
    case RUNNEL_CONSTRAINT_JSON:
        return schema_grammar(limits, any_object, sizeof any_object - 1, grammar, error);
    case RUNNEL_CONSTRAINT_SCHEMA:
        return schema_grammar(limits, text, len, grammar, error);
    case RUNNEL_CONSTRAINT_REGEX:
        return regex_grammar(limits, text, len, grammar, error);
    case RUNNEL_CONSTRAINT_CHOICE:
        return choice_grammar(limits, request->choices, request->n_choices, grammar, error);
    case RUNNEL_CONSTRAINT_GRAMMAR:
        return gbnf_grammar(limits, text, len, grammar, error);
    case RUNNEL_CONSTRAINT_NONE:
        break;
    }
    return error_set(error, RUNNEL_EINVAL, "constraint: expected one");
}

int grammar_source_read(const runnel_request *request, const struct tool_form *form, struct grammar **grammar,
                        runnel_error *error)
{
    static const struct constrain_limits limits = CONSTRAIN_LIMITS;
    switch (grammar_source_kind(request)) {
    case GRAMMAR_OF_CALLS:
        return read_calls(request, form, &limits, grammar, error);
    case GRAMMAR_OF_PARTS:
        return read_parts(request, form, &limits, grammar, error);
    case GRAMMAR_OF_TEXT:
    case GRAMMAR_OF_NOTHING:
        break;
    }
    return read_text(request, &limits, grammar, error);
}
