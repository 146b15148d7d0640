/* params_constraint.c: what an answer's text is to keep to, under the names of several servers. Owns nothing; any thread.
 *
 * Read here is where it stands and of which type it is; whether it is a schema, a pattern or a grammar is found when it is
 * compiled (reply_compile). */
#include "server/api/params.h"

#include "base/text.h"
#include "server/core/json_text.h"

#include <stdlib.h>
#include <string.h>

static int no_memory(struct refusal *refusal)
{
    refuse(refusal, NULL, "no memory for the request");
    refusal->status = 503;
    return -1;
}

/* One constraint ------------------------------------------------------------------------------------------ */

static int set(struct params *params, const char *field, enum runnel_constraint kind, struct refusal *refusal)
{
    if (params->request.constraint)
        return refuse(refusal, field, "expected one constraint, found %s as well", params->constraint_field);
    params->request.constraint = kind;
    params->constraint_field = field;
    return 0;
}

/* A text that the params own. */
static int set_text(struct params *params, const char *field, enum runnel_constraint kind, struct text *text,
                    struct refusal *refusal)
{
    if (text->failed || set(params, field, kind, refusal)) {
        bool failed = text->failed;
        text_free(text);
        return failed ? no_memory(refusal) : -1;
    }
    params->constraint_text = text->bytes;
    params->request.constraint_text = text->bytes;
    params->request.constraint_len = text->len;
    return 0;
}

static int set_string(struct params *params, const char *field, enum runnel_constraint kind,
                      const json_t *value, struct refusal *refusal)
{
    struct text text = {0};
    if (!json_is_string(value) || !json_string_length(value))
        return refuse(refusal, field, "expected a text");
    text_add(&text, json_string_value(value), json_string_length(value));
    return set_text(params, field, kind, &text, refusal);
}

/* A schema as JSON. */
static int set_schema(struct params *params, const char *field, const json_t *value, struct refusal *refusal)
{
    struct text text = {0};
    if (!json_is_object(value) && !json_is_boolean(value))
        return refuse(refusal, field, "expected a JSON Schema: an object");
    if (json_has_rounded(value))
        return refuse(refusal, field, "expected integers of at most 64 bits, or of 15 digits");
    json_add_text(value, JSON_TIGHT, &text);
    return set_text(params, field, RUNNEL_CONSTRAINT_SCHEMA, &text, refusal);
}

static int set_choices(struct params *params, const char *field, const json_t *list, struct refusal *refusal)
{
    const json_t *value;
    size_t i, n = json_array_size(list);
    if (!n || n > PARAMS_CHOICES)
        return refuse(refusal, field, "expected a list of 1 to %d texts", PARAMS_CHOICES);
    json_array_foreach(list, i, value)
    {
        if (!json_is_string(value) || strlen(json_string_value(value)) != json_string_length(value))
            return refuse(refusal, field, "expected texts without zero bytes");
    }
    if (set(params, field, RUNNEL_CONSTRAINT_CHOICE, refusal))
        return -1;
    params->choices = calloc(n, sizeof *params->choices);
    if (!params->choices)
        return no_memory(refusal);
    json_array_foreach(list, i, value)
    {
        params->choices[i] = json_string_value(value);
    }
    params->request.choices = params->choices;
    params->request.n_choices = n;
    return 0;
}

/* Names --------------------------------------------------------------------------------------------------- */

struct named_constraint {
    const char *name, *field; /* of the member, and what the client is told */
    enum runnel_constraint kind;
};

/* {} is a schema: of any JSON value. */
static bool names_nothing(const struct named_constraint *named, const json_t *value)
{
    bool is_schema = named->kind == RUNNEL_CONSTRAINT_SCHEMA && json_is_object(value);
    return !is_schema && params_asks_for_nothing(value);
}

static int read_named(const struct named_constraint *named, const json_t *value, struct params *params,
                      struct refusal *refusal)
{
    if (names_nothing(named, value))
        return 0;
    switch (named->kind) {
    case RUNNEL_CONSTRAINT_JSON:
        return json_is_true(value) ? set(params, named->field, named->kind, refusal)
                                   : refuse(refusal, named->field, "expected true or false");
    case RUNNEL_CONSTRAINT_SCHEMA: /* vLLM takes the text of one, too */
        return json_is_string(value) ? set_string(params, named->field, named->kind, value, refusal)
                                     : set_schema(params, named->field, value, refusal);
    case RUNNEL_CONSTRAINT_CHOICE:
        return set_choices(params, named->field, value, refusal);
    case RUNNEL_CONSTRAINT_REGEX:
    case RUNNEL_CONSTRAINT_GRAMMAR:
        return set_string(params, named->field, named->kind, value, refusal);
    case RUNNEL_CONSTRAINT_NONE:
        break;
    }
    return 0;
}

static int read_fields(const json_t *root, struct params *params, struct refusal *refusal)
{
    static const struct named_constraint fields[] = {
        {"json_schema", "json_schema", RUNNEL_CONSTRAINT_SCHEMA},
        {"grammar", "grammar", RUNNEL_CONSTRAINT_GRAMMAR},
        {"guided_json", "guided_json", RUNNEL_CONSTRAINT_SCHEMA},
        {"guided_regex", "guided_regex", RUNNEL_CONSTRAINT_REGEX},
        {"guided_choice", "guided_choice", RUNNEL_CONSTRAINT_CHOICE},
        {"guided_grammar", "guided_grammar", RUNNEL_CONSTRAINT_GRAMMAR},
    };
    for (size_t i = 0; i < sizeof fields / sizeof *fields; i++)
        if (read_named(&fields[i], json_object_get(root, fields[i].name), params, refusal))
            return -1;
    return 0;
}

/* vLLM's. */
static int read_structured(const json_t *root, struct params *params, struct refusal *refusal)
{
    static const struct named_constraint members[] = {
        {"json", "structured_outputs.json", RUNNEL_CONSTRAINT_SCHEMA},
        {"json_object", "structured_outputs.json_object", RUNNEL_CONSTRAINT_JSON},
        {"regex", "structured_outputs.regex", RUNNEL_CONSTRAINT_REGEX},
        {"choice", "structured_outputs.choice", RUNNEL_CONSTRAINT_CHOICE},
        {"grammar", "structured_outputs.grammar", RUNNEL_CONSTRAINT_GRAMMAR},
        {"disable_fallback", NULL, RUNNEL_CONSTRAINT_NONE}, /* there is one way to do it, and no other */
    };
    enum { N_MEMBERS = sizeof members / sizeof *members };
    json_t *object = json_find(root, "structured_outputs"), *value;
    const char *name;
    if (params_asks_for_nothing(object))
        return 0;
    if (!json_is_object(object))
        return refuse(refusal, "structured_outputs", "expected an object");
    json_object_foreach(object, name, value)
    {
        size_t i = 0;
        while (i < N_MEMBERS && strcmp(members[i].name, name) != 0)
            i++;
        if (i == N_MEMBERS && !params_asks_for_nothing(value))
            return refuse(refusal, "structured_outputs",
                          "expected json, json_object, regex, choice or grammar, found a member that is none "
                          "of them");
        if (i < N_MEMBERS && read_named(&members[i], value, params, refusal))
            return -1;
    }
    return 0;
}

/* OpenAI's, and llama-server's with the schema beside the type. */
static int read_format(const json_t *root, struct params *params, struct refusal *refusal)
{
    const json_t *format = json_find(root, "response_format");
    const json_t *type = json_find(format, "type"), *inner = json_find(format, "json_schema");
    const json_t *beside = json_find(format, "schema");
    if (!format)
        return 0;
    if (!json_is_object(format))
        return refuse(refusal, "response_format", "expected an object");
    if (json_is_text(type, "text"))
        return 0;
    if (json_is_text(type, "json_object") && inner)
        return refuse(refusal, "response_format.json_schema", "expected json_schema as the type beside it");
    if (json_is_text(type, "json_object"))
        return beside ? set_schema(params, "response_format.schema", beside, refusal)
                      : set(params, "response_format", RUNNEL_CONSTRAINT_JSON, refusal);
    if (!json_is_text(type, "json_schema"))
        return refuse(refusal, "response_format",
                      "expected text, json_object or json_schema as its type, found something else");
    if (inner && !json_is_object(inner))
        return refuse(refusal, "response_format.json_schema", "expected an object");
    const json_t *strict = json_find(inner, "strict"), *schema = json_find(inner, "schema");
    if (strict && !json_is_boolean(strict))
        return refuse(refusal, "response_format.json_schema.strict", "expected true or false");
    if (!schema && !beside)
        return refuse(refusal, "response_format.json_schema", "expected a schema in it, found none");
    return schema ? set_schema(params, "response_format.json_schema.schema", schema, refusal)
                  : set_schema(params, "response_format.schema", beside, refusal);
}

int params_read_constraint(const json_t *root, struct params *params, struct refusal *refusal)
{
    return read_format(root, params, refusal) || read_fields(root, params, refusal) ||
                   read_structured(root, params, refusal)
               ? -1
               : 0;
}

int params_check_constraint(const struct params *params, struct refusal *refusal)
{
    bool is_json = params->request.constraint == RUNNEL_CONSTRAINT_JSON ||
                   params->request.constraint == RUNNEL_CONSTRAINT_SCHEMA;
    return params->request.constraint && params->request.tools && !is_json
               ? refuse(refusal, params->constraint_field,
                        "not supported beside tools that may be called, where expected is JSON or a schema; "
                        "with a "
                        "tool_choice of \"none\" it is")
               : 0;
}
