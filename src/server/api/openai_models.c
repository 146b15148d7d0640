/* openai_models.c: /v1/models: the one model that the server has. The loop's thread only. */
#include "server/api/openai.h"

#include "server/api/reply.h"
#include "server/core/json_write.h"

#include <stdlib.h>
#include <string.h>

static void write_model(const struct server *server, struct text *out)
{
    text_add_string(out, "{\"id\":");
    json_add_string(out, server->model_name, strlen(server->model_name));
    json_add_format(out,
                    ",\"object\":\"model\",\"created\":%lld,\"owned_by\":\"runnel\",\"parent\":null,"
                    "\"max_model_len\":%u,\"root\":",
                    (long long)server->created_s, server->options->n_context);
    const char *root = *server->info.name ? server->info.name : server->model_name;
    json_add_string(out, root, strlen(root));
    json_add_format(out,
                    ",\"meta\":{\"n_vocab\":%u,\"n_ctx\":%u,\"n_ctx_train\":%u,\"n_embd\":%u,\"n_params\":%"
                    "llu,\"size\":%llu}}",
                    server->info.n_vocab, server->options->n_context, server->info.n_context_train,
                    server->info.n_hidden, (unsigned long long)server->info.n_parameters,
                    (unsigned long long)server->info.file_bytes);
}

void openai_models(struct server *server, struct exchange *exchange)
{
    struct text body = {0};
    text_add_string(&body, "{\"object\":\"list\",\"data\":[");
    write_model(server, &body);
    text_add_string(&body, "]}");
    metrics_add_status(server->metrics, reply_json(exchange, &body));
    text_free(&body);
}

/* The path ends in the model's name, as it is or in percent encoding. */
static bool names_model(const struct server *server, const struct exchange *exchange)
{
    static const char before[] = "/models/";
    struct exchange_text path = exchange_path(exchange), name = {0};
    const char *found = memmem(path.bytes, path.len, before, strlen(before));
    if (!found)
        return false;
    name.bytes = found + strlen(before);
    name.len = path.len - (size_t)(name.bytes - path.bytes);
    if (exchange_text_is(name, server->model_name))
        return true;
    char *decoded = malloc(name.len + 1);
    if (!decoded)
        return false;
    long len = http_query_decode(name.bytes, name.len, decoded);
    bool same = len >= 0 && exchange_text_is((struct exchange_text){.bytes = decoded, .len = (size_t)len},
                                             server->model_name);
    free(decoded);
    return same;
}

void openai_model(struct server *server, struct exchange *exchange)
{
    static const struct refusal unknown = {
        .status = 404, .param = "model", .message = "model: expected the name that /v1/models tells"};
    struct text body = {0};
    if (!names_model(server, exchange)) {
        metrics_add_status(server->metrics, reply_refusal(exchange, &unknown));
        return;
    }
    write_model(server, &body);
    metrics_add_status(server->metrics, reply_json(exchange, &body));
    text_free(&body);
}
