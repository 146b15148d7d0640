/* openapi.c: GET /openapi.json. The loop's thread only. */
#include "server/openapi.h"

#include "server/api/params_table.h"
#include "server/api/reply.h"
#include "server/core/json_write.h"
#include "server/page.h"
#include "server/routes.h"

#include <math.h>
#include <string.h>

void openapi_add(struct text *out, const char *text)
{
    for (const char *quote; (quote = strchr(text, '\'')); text = quote + 1) {
        text_add(out, text, (size_t)(quote - text));
        text_add_string(out, "\"");
    }
    text_add_string(out, text);
}

static void add_string(struct text *out, const char *string)
{
    json_add_string(out, string, strlen(string));
}

/* Fields of requests -------------------------------------------------------------------------------------- */

/* An absent field may also be null. */
static void add_field_type(const struct params_field *field, uint32_t n_choices, struct text *out)
{
    double most = isinf(field->most) ? n_choices : field->most;
    switch (field->kind) {
    case PARAMS_BOOL:
        openapi_add(out, "'type':['boolean','null']");
        return;
    case PARAMS_NUMBER:
        json_add_format(out, "\"type\":[\"number\",\"null\"],\"minimum\":%g,\"maximum\":%g", field->least,
                        most);
        return;
    case PARAMS_WHOLE:
        json_add_format(out, "\"type\":[\"integer\",\"null\"],\"minimum\":%.0f,\"maximum\":%.0f",
                        field->least, most);
        return;
    case PARAMS_WHOLE_CLAMPED:
        json_add_format(out, "\"type\":[\"integer\",\"null\"],\"minimum\":%.0f", field->least);
        return;
    case PARAMS_REFUSED:
        openapi_add(out, "'enum':[null,false");
        if (field->least <= field->most)
            json_add_format(out, ",%g", field->most);
        text_add_string(out, "]");
        return;
    case PARAMS_ONLY_TRUE:
        openapi_add(out, "'enum':[null,true]");
        return;
    case PARAMS_HARMLESS:
        openapi_add(out, "'anyOf':[{}]");
        return;
    case PARAMS_OTHER:
        break;
    }
    openapi_add(out, "'allOf':[");
    openapi_add(out, field->schema);
    text_add_string(out, "]");
}

static void add_fields(unsigned routes, uint32_t n_choices, struct text *out)
{
    size_t n;
    const struct params_field *fields = params_fields(&n);
    bool any = false;
    openapi_add(out, "{'type':'object','required':[");
    for (size_t i = 0; i < n; i++)
        if ((fields[i].routes & routes) && fields[i].required) {
            text_add_string(out, any ? "," : "");
            add_string(out, fields[i].name);
            any = true;
        }
    openapi_add(out, "],'properties':{");
    any = false;
    for (size_t i = 0; i < n; i++) {
        if (!(fields[i].routes & routes))
            continue;
        text_add_string(out, any ? "," : "");
        add_string(out, fields[i].name);
        text_add_string(out, ":{");
        add_field_type(&fields[i], n_choices, out);
        openapi_add(out, ",'description':");
        add_string(out, fields[i].meaning);
        text_add_string(out, "}");
        any = true;
    }
    text_add_string(out, "}}");
}

static void add_schemas(uint32_t n_choices, struct text *out)
{
    static const struct {
        const char *name;
        unsigned routes;
    } requests[] = {{"ChatRequest", PARAMS_CHAT},
                    {"CompletionRequest", PARAMS_COMPLETION},
                    {"NativeRequest", PARAMS_NATIVE},
                    {"GenerateRequest", PARAMS_GENERATE}};
    openapi_add(out, "'schemas':{");
    for (size_t i = 0; i < sizeof requests / sizeof *requests; i++) {
        add_string(out, requests[i].name);
        text_add_string(out, ":");
        add_fields(requests[i].routes, n_choices, out);
        text_add_string(out, ",");
    }
    openapi_add(out, openapi_schemas);
    text_add_string(out, "}");
}

/* Routes -------------------------------------------------------------------------------------------------- */

static void add_content(const char *type, const char *schema, struct text *out)
{
    add_string(out, type);
    if (schema)
        json_add_format(out, ":{\"schema\":{\"$ref\":\"#/components/schemas/%s\"}}", schema);
    else
        openapi_add(out, ":{'schema':{'type':'string'}}");
}

/* What may be answered instead. */
static void add_errors(const struct route *route, struct text *out)
{
    static const struct {
        int status;
        bool needs_body;
        const char *meaning;
    } errors[] = {
        {400, false, "The request is wrong: message and param say where"},
        {401, false, "No API key, or a wrong one"},
        {403, false, "Host or Origin is not allowed"},
        {404, false, "No such route"},
        {405, false, "Another method is expected, see Allow"},
        {408, false, "The request came too slowly"},
        {411, true, "A length is missing"},
        {413, true, "The body is too large"},
        {414, false, "The target is too long"},
        {415, true, "The body is no JSON, or is encoded"},
        {417, true, "Only 100-continue can be expected"},
        {429, true, "Too many requests: see Retry-After"},
        {431, false, "The headers are too large"},
        {500, false, "It failed here"},
        {501, true, "An unknown transfer coding"},
        {503, false, "Loading, ending or overloaded: see Retry-After"},
        {504, true, "It took longer than a request may take"},
        {505, false, "Only HTTP/1.1 and HTTP/1.0 are spoken"},
    };
    bool is_health = !strcmp(route->path, "/health"); /* which tells its state with 503, too */
    for (size_t i = 0; i < sizeof errors / sizeof *errors; i++) {
        if (errors[i].needs_body && route->body == BODY_NONE)
            continue;
        json_add_format(out, ",\"%d\":{\"description\":", errors[i].status);
        add_string(out, errors[i].meaning);
        openapi_add(out, ",'content':{");
        add_content("application/json", is_health && errors[i].status == 503 ? "Health" : "Error", out);
        text_add_string(out, "}}");
    }
}

/* Of /generate without a body. */
static void add_query(struct text *out)
{
    static const char *const names[] = {"prompt", "max_tokens", "temperature", "top_p",
                                        "top_k",  "min_p",      "seed",        "raw"};
    openapi_add(out, ",'parameters':[");
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        text_add_string(out, i ? "," : "");
        openapi_add(out, "{'in':'query','required':false,'name':");
        add_string(out, names[i]);
        json_add_format(out, ",\"schema\":{\"type\":\"%s\"}}",
                        !strcmp(names[i], "prompt") ? "string"
                        : !strcmp(names[i], "raw")  ? "boolean"
                                                    : "number");
    }
    text_add_string(out, "]");
}

/* What stands in a path's {}; the schema with ' for every ". */
static void add_path_parameter(const char *path, const char *schema, struct text *out)
{
    const char *name = strchr(path, '{') + 1;
    openapi_add(out, ",'parameters':[{'in':'path','required':true,'name':");
    json_add_string(out, name, strcspn(name, "}"));
    openapi_add(out, ",'schema':");
    openapi_add(out, schema);
    openapi_add(out, "}]");
}

/* Of /slots. */
static const char slots_query[] =
    ",'parameters':[{'in':'query','required':false,'name':'fail_on_no_slot','schema':{'type':'integer'},"
    "'description':'Not 0: 503 if no slot is free'}]";

static void add_route(const struct route *route, struct text *out)
{
    add_string(out, route->path);
    openapi_add(out, route->body == BODY_NONE ? ":{'get':{'summary':" : ":{'post':{'summary':");
    add_string(out, route->summary);
    if (route->body == BODY_OPTIONAL)
        add_query(out);
    if (strchr(route->path, '{'))
        add_path_parameter(route->path, "{'type':'string','minLength':1}", out);
    if (!strcmp(route->path, "/slots"))
        openapi_add(out, slots_query);
    if (route->asks) {
        openapi_add(out, route->body == BODY_JSON ? ",'requestBody':{'required':true,'content':{"
                                                  : ",'requestBody':{'required':false,'content':{");
        add_content("application/json", route->asks, out);
        text_add_string(out, "}}");
    }
    openapi_add(out, ",'responses':{'200':{'description':'The answer','content':{");
    add_content(route->gives ? "application/json" : "text/plain", route->gives, out);
    if (route->streams) {
        text_add_string(out, ",");
        add_content("text/event-stream", NULL, out);
    }
    text_add_string(out, "}}");
    add_errors(route, out);
    text_add_string(out, "}}}");
}

/* The files that the page consists of, but for the page itself. */
static void add_page_files(struct text *out)
{
    static const struct route files = {.path = "/web/{file}", .body = BODY_NONE};
    static const char folder[] = "/web/";
    struct text names = {0};
    openapi_add(&names, "{'type':'string','enum':[");
    for (size_t i = 0, n = 0; i < n_page_files; i++) {
        if (strncmp(page_files[i].path, folder, strlen(folder)) != 0)
            continue;
        text_add_string(&names, n++ ? "," : "");
        add_string(&names, page_files[i].path + strlen(folder));
    }
    text_add_string(&names, "]}");
    openapi_add(out, ",'/web/{file}':{'get':{'summary':'What the page consists of'");
    add_path_parameter(files.path, names.failed ? "{}" : names.bytes, out);
    openapi_add(out, ",'responses':{'200':{'description':'The file','content':{");
    static const char *const types[] = {"text/javascript", "text/css", "text/plain", "image/svg+xml"};
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        text_add_string(out, i ? "," : "");
        add_content(types[i], NULL, out);
    }
    openapi_add(out, "}},'304':{'description':'The browser has it already'}");
    add_errors(&files, out);
    text_add_string(out, "}}}");
    text_free(&names);
}

static void add_page(struct text *out)
{
    static const struct route page = {.path = "/", .body = BODY_NONE};
    openapi_add(out, ",'/':{'get':{'summary':'The page: chat and dashboard','responses':{"
                     "'200':{'description':'The page','content':{");
    add_content("text/html", NULL, out);
    openapi_add(out, "}},'304':{'description':'The browser has it already'}");
    add_errors(&page, out);
    text_add_string(out, "}}}");
}

void openapi_write(uint32_t n_choices, struct text *out)
{
    size_t n;
    const struct route *routes = route_table(&n);
    openapi_add(out, "{'openapi':'3.1.0','info':{'title':'Runnel','version':'" RUNNEL_VERSION
                     "','description':'Answers from a small reasoning model.'},'paths':{");
    for (size_t i = 0; i < n; i++) {
        text_add_string(out, i ? "," : "");
        add_route(&routes[i], out);
    }
    add_page(out);
    add_page_files(out);
    openapi_add(out, "},'components':{'securitySchemes':{'key':{'type':'http','scheme':'bearer'}},");
    add_schemas(n_choices, out);
    openapi_add(out, "},'security':[{},{'key':[]}]}");
}

void openapi_get(struct server *server, struct exchange *exchange)
{
    struct text body = {0};
    openapi_write(server->options->n_choices, &body);
    metrics_add_status(server->metrics, reply_json(exchange, &body));
    text_free(&body);
}
