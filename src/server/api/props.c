/* props.c: /props and /slots. The loop's thread only. */
#include "server/api/props.h"

#include "server/api/native_completion.h"
#include "server/api/reply.h"
#include "server/core/json_write.h"

#include <stdlib.h>
#include <string.h>

static void write_token(const struct server *server, const char *name, int32_t id, struct text *out)
{
    char *piece = NULL;
    size_t len = 0;
    if (id >= 0)
        (void)runnel_detokenize(server->model, &id, 1, true, &piece, &len, NULL);
    json_add_format(out, ",\"%s\":", name);
    json_add_string(out, piece ? piece : "", len);
    runnel_text_free(piece);
}

void props_get(struct server *server, struct exchange *exchange)
{
    const struct params_limits limits = reply_limits(server);
    const struct params defaults = {.request = limits.defaults};
    struct text body = {0};
    struct shared_gauges now;
    gauges_sum(server, &now);
    json_add_format(&body,
                    "{\"default_generation_settings\":{\"n_ctx\":%u,\"params\":", server->options->n_context);
    native_completion_write_settings(
        server, &defaults, server->options->has_seed ? limits.defaults.sampling->seed : UINT64_MAX, &body);
    json_add_format(&body, "},\"total_slots\":%u,\"model_alias\":", now.n_slots);
    json_add_string(&body, server->model_name, strlen(server->model_name));
    text_add_string(&body, ",\"model_path\":");
    json_add_string(&body, server->options->model_path, strlen(server->options->model_path));
    text_add_string(&body, ",\"chat_template\":");
    json_add_string(&body, server->info.jinja, strlen(server->info.jinja));
    write_token(server, "bos_token", server->info.bos_token, &body);
    write_token(server, "eos_token", server->info.eos_token, &body);
    json_add_format(
        &body,
        ",\"modalities\":{\"vision\":false,\"audio\":false},\"build_info\":\"b%s\",\"is_sleeping\":false",
        RUNNEL_VERSION);
    const char *sandbox = server->options->sandbox ? server->options->sandbox : "off";
    text_add_string(&body, ",\"sandbox\":");
    json_add_string(&body, sandbox, strlen(sandbox));
    text_add_string(&body, "}");
    metrics_add_status(server->metrics, reply_json(exchange, &body));
    text_free(&body);
}

static void write_slot(const struct server *server, size_t index, const struct shared_slot *slot,
                       struct text *out)
{
    json_add_format(out, "%s{\"id\":%zu,\"n_ctx\":%u,\"speculative\":false,\"is_processing\":%s",
                    index ? "," : "", index, server->options->n_context,
                    slot->is_processing ? "true" : "false");
    if (slot->is_processing)
        json_add_format(
            out,
            ",\"n_prompt_tokens\":%u,\"n_prompt_tokens_cache\":%u,\"n_computed\":%u,\"next_token\":"
            "{\"has_next_token\":true,\"n_remain\":%u,\"n_decoded\":%u}",
            slot->n_prompt_tokens, slot->n_cached_tokens, slot->n_computed, slot->max_tokens - slot->n_tokens,
            slot->n_tokens);
    text_add_string(out, "}");
}

/* With ?fail_on_no_slot=1 a server without a free place answers 503. */
static bool wants_a_free_slot(const struct exchange *exchange)
{
    struct exchange_text query = exchange_query(exchange);
    struct http_span name, value;
    size_t at = 0;
    static const char wanted[] = "fail_on_no_slot";
    while (http_query_next(query.bytes, query.len, &at, &name, &value))
        if (name.len == strlen(wanted) && !memcmp(query.bytes + name.at, wanted, name.len))
            return !(value.len == 1 && query.bytes[value.at] == '0');
    return false;
}

void props_get_slots(struct server *server, struct exchange *exchange)
{
    static const struct refusal no_memory = {.status = 503, .message = "no memory for the slots"};
    static const struct refusal no_slot = {.status = 503, .message = "no slot is free"};
    struct shared_slot *slots;
    size_t n = gauges_slots(server, &slots), n_idle = 0;
    struct text body = {0};
    int status;
    text_add_string(&body, "[");
    for (size_t i = 0; i < n; i++) {
        n_idle += !slots[i].is_processing;
        write_slot(server, i, &slots[i], &body);
    }
    text_add_string(&body, "]");
    if (!n)
        status = reply_refusal(exchange, &no_memory);
    else if (!n_idle && wants_a_free_slot(exchange))
        status = reply_refusal(exchange, &no_slot);
    else
        status = reply_json(exchange, &body);
    metrics_add_status(server->metrics, status);
    text_free(&body);
    free(slots);
}
