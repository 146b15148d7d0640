/* reply.c: what every route does with a body and with failure. The loop's thread only. */
#include "server/api/reply.h"

#include "base/clock.h"
#include "base/error.h"
#include "server/core/job.h"
#include "server/core/json_write.h"

#include <stdio.h>
#include <string.h>
#include <sys/random.h>

static void add_error(struct text *out, int status, const char *type, const char *message, const char *param)
{
    text_add_string(out, "{\"message\":");
    json_add_string(out, message, strlen(message));
    json_add_format(out, ",\"type\":\"%s\",\"param\":", type);
    if (*param)
        json_add_string(out, param, strlen(param));
    else
        text_add_string(out, "null");
    json_add_format(out, ",\"code\":%d", status);
}

void reply_add_error(struct text *out, int status, const char *message, const char *param)
{
    add_error(out, status, http_error_type(status), message, param);
}

/* Ends the exchange with what is in body; a static text if that could not be written. Frees the body. */
static int send_error(struct exchange *exchange, int status, struct text *body)
{
    char retry[32], *headers = NULL;
    if (status == 429 || status == 503) {
        snprintf(retry, sizeof retry, "Retry-After: %u\r\n", exchange_retry(exchange));
        headers = retry;
    }
    if (body->failed)
        exchange_respond_error(exchange, status, headers, "no memory for the error's message");
    else
        exchange_respond(exchange, status, "application/json", headers, body->bytes, body->len);
    text_free(body);
    return status;
}

/* Clients that shorten their history look for the words that OpenAI and llama-server have for it. */
static void add_context_error(struct text *out, const char *why, const char *param, size_t n_prompt_tokens,
                              uint32_t n_context)
{
    char message[sizeof((runnel_error *)0)->message + 96];
    snprintf(message, sizeof message, "%s: it exceeds the available context size (context_length_exceeded)",
             why);
    add_error(out, 400, "exceed_context_size_error", message, param);
    json_add_format(out, ",\"n_prompt_tokens\":%zu,\"n_ctx\":%u", n_prompt_tokens, n_context);
}

int reply_refusal(struct exchange *exchange, const struct refusal *refusal)
{
    struct text body = {0};
    if (exchange_is_gone(exchange)) {
        exchange_abort(exchange);
        return 499;
    }
    text_add_string(&body, "{\"error\":");
    if (refusal->n_context) /* where nobody has counted them, the least that does not fit */
        add_context_error(&body, refusal->message, refusal->param,
                          refusal->n_prompt_tokens ? refusal->n_prompt_tokens : refusal->n_context,
                          refusal->n_context);
    else
        reply_add_error(&body, refusal->status, refusal->message, refusal->param);
    text_add_string(&body, "}}");
    return send_error(exchange, refusal->status, &body);
}

int reply_status(const runnel_error *error)
{
    switch (error->code) {
    case RUNNEL_EINVAL:
    case RUNNEL_ECONTEXT:
    case RUNNEL_EUNSUPPORTED: /* a conversation, and no template that is known */
        return 400;
    case RUNNEL_EBUSY:
    case RUNNEL_ESLOW:
        return 429;
    case RUNNEL_ETIMEOUT:
        return 504;
    case JOB_EREFUSED:
    case RUNNEL_EEXPIRED:
    case RUNNEL_ENOMEM:
    case RUNNEL_ECANCELLED: /* by a server that shuts down */
        return 503;
    default:
        return 500;
    }
}

int reply_refuse_error(const runnel_error *error, struct refusal *refusal)
{
    static const struct field_name names[] = {{"chat_template", "--chat-template"}, {NULL, NULL}};
    runnel_error named = *error;
    error_name_options(names, &named); /* whoever started the server can do something about it */
    refuse(refusal, NULL, "%.230s", named.message);
    refusal->status = reply_status(error);
    return -1;
}

/* What the prompt of a request came in. */
static const char *prompt_field(const runnel_request *request)
{
    return request->messages ? "messages" : "prompt";
}

int reply_refuse_prompt(const runnel_request *request, const runnel_error *error, struct refusal *refusal)
{
    reply_refuse_error(error, refusal);
    if (error->code == RUNNEL_EUNSUPPORTED && request->tools)
        snprintf(refusal->param, sizeof refusal->param, "tools");
    if (error->code == RUNNEL_ECONTEXT) {
        refusal->n_context = request->n_context;
        snprintf(refusal->param, sizeof refusal->param, "%s", prompt_field(request));
    }
    return -1;
}

int reply_encode(const struct server *server, struct params *params, struct refusal *refusal)
{
    runnel_request *request = &params->request;
    runnel_error error;
    if (runnel_prompt_tokens(server->model, request, &params->encoded, &request->n_prompt_ids, &error))
        return reply_refuse_prompt(request, &error, refusal);
    request->prompt_ids = params->encoded;
    request->encoded = true;
    return 0;
}

bool reply_must_compile(const struct server *server, struct params *params)
{
    const runnel_request *request = &params->request;
    runnel_error error;
    if (params->grammar || (!request->constraint && !request->tools))
        return false;
    return runnel_grammar_find(server->model, request, &params->grammar, &error) || !params->grammar;
}

int reply_compile(const struct server *server, struct params *params, struct refusal *refusal)
{
    runnel_error error;
    if (params->grammar || !runnel_grammar_compile(server->model, &params->request, &params->grammar, &error))
        return 0;
    if (reply_status(&error) != 400)
        return reply_refuse_error(&error, refusal);
    return refuse(refusal, params->constraint_field, "%.180s", error.message);
}

/* Of several prompts the longest one is told. */
static int send_context_error(struct server *server, struct exchange *exchange,
                              const runnel_request *requests, size_t n, const runnel_error *error)
{
    struct text body = {0};
    size_t most = 0;
    for (size_t i = 0; i < n; i++)
        if (requests[i].n_prompt_ids > most)
            most = requests[i].n_prompt_ids;
    text_add_string(&body, "{\"error\":");
    add_context_error(&body, error->message, prompt_field(&requests[0]), most, server->options->n_context);
    text_add_string(&body, "}}");
    return send_error(exchange, 400, &body);
}

int reply_engine_error(struct server *server, struct exchange *exchange, const runnel_request *requests,
                       size_t n, const runnel_error *error)
{
    if (error->code == RUNNEL_ECONTEXT)
        return send_context_error(server, exchange, requests, n, error);
    struct refusal refusal;
    reply_refuse_error(error, &refusal);
    return reply_refusal(exchange, &refusal);
}

int reply_json(struct exchange *exchange, const struct text *json)
{
    if (json->failed) {
        exchange_respond_error(exchange, 503, "Retry-After: 1\r\n", "no memory for the answer");
        return 503;
    }
    exchange_respond(exchange, 200, "application/json", NULL, json->bytes, json->len);
    return 200;
}

static int encode(void *user, const char *text, size_t len, int32_t **ids, size_t *n_ids, runnel_error *error)
{
    const struct server *server = user;
    return runnel_tokenize(server->model, text, len, true, ids, n_ids, error);
}

struct params_limits reply_limits(const struct server *server)
{
    struct params_limits limits = {
        .n_vocab = server->info.n_vocab,
        .n_choices = server->options->n_choices,
        .split_reasoning = server->options->split_reasoning,
        .encode = encode,
        .encode_user = (void *)(uintptr_t)server,
        .bos = server->info.adds_bos ? server->info.bos_token : -1,
    };
    runnel_request_init(&limits.defaults);
    limits.defaults.no_thinking = server->options->no_thinking;
    limits.defaults.sampling = &server->options->sampling;
    limits.defaults.max_tokens = server->options->max_tokens;
    limits.defaults.n_context = server->options->n_context;
    return limits;
}

uint64_t reply_seed(const struct server *server, const struct params *params)
{
    uint64_t seed = params->has_seed ? params->sampling.seed : server->options->sampling.seed;
    if (!params->has_seed && !server->options->has_seed && getrandom(&seed, sizeof seed, 0) != sizeof seed)
        seed = (uint64_t)(clock_ms() * 1e6);
    if (!params->has_seed && !server->options->has_seed)
        seed &= INT32_MAX; /* clients that send it back may keep it as a double or an int */
    return seed;
}
