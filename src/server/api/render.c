/* render.c: /v1/chat/completions/render and /v1/completions/render. Bodies are read on any thread (prepare.h).
 *
 * The shapes are vLLM's: what the engine would be asked, one object for a chat and a list of them for completions. What the
 * routes of chats and completions refuse is refused here in the same words, a prompt that does not fit the context, too. */
#include "server/api/render.h"

#include "server/api/prepare.h"
#include "server/api/reply.h"
#include "server/core/json_write.h"
#include "server/core/record.h"

#include <stdio.h>
#include <string.h>

struct render_request;

/* What differs between the two routes. */
struct render_form {
    const char *id_prefix; /* of request_id, as of the answers of the route whose requests it takes */
    int (*read)(json_t *root, const struct params_limits *limits, struct params *params,
                struct refusal *refusal);
    int (*write)(const struct server *server, struct params *params, struct render_request *request,
                 struct refusal *refusal);
};

struct render_request {
    const struct render_form *form;
    char id[RECORD_ID_BYTES];
    struct text out;
};

static void write_stop(const runnel_request *request, struct text *out)
{
    text_add_string(out, ",\"stop\":[");
    for (size_t i = 0; i < request->n_stop; i++) {
        text_add_string(out, i ? "," : "");
        json_add_string(out, request->stop[i], strlen(request->stop[i]));
    }
    text_add_string(out, "]");
}

static void write_logit_bias(const runnel_sampling *sampling, struct text *out)
{
    text_add_string(out, ",\"logit_bias\":{");
    for (size_t i = 0; i < sampling->n_logit_bias; i++) {
        const runnel_logit_bias *entry = &sampling->logit_bias[i];
        json_add_format(out, "%s\"%d\":%g", i ? "," : "", entry->token,
                        entry->bias < -100 ? -100.0 : (double)entry->bias); /* JSON has no infinity */
    }
    text_add_string(out, "}");
}

/* By vLLM's names; max_tokens is what the context leaves where the request and the server say nothing. */
static void write_sampling(const struct params *params, uint32_t n_left, struct text *out)
{
    const runnel_request *request = &params->request;
    const runnel_sampling *sampling = request->sampling;
    json_add_format(out, "{\"n\":%u,\"temperature\":%g,\"top_p\":%g,\"top_k\":%d,\"min_p\":%g",
                    params->n_choices, (double)sampling->temperature, (double)sampling->top_p,
                    sampling->top_k, (double)sampling->min_p);
    json_add_format(out,
                    ",\"presence_penalty\":%g,\"frequency_penalty\":%g,\"repetition_penalty\":%g,\"seed\":",
                    (double)sampling->presence_penalty, (double)sampling->frequency_penalty,
                    (double)sampling->repetition_penalty);
    if (params->has_seed)
        json_add_format(out, "%llu", (unsigned long long)sampling->seed);
    else
        text_add_string(out, "null");
    write_stop(request, out);
    write_logit_bias(sampling, out);
    json_add_format(out, ",\"ignore_eos\":%s,\"max_tokens\":%u,\"min_tokens\":%d,\"logprobs\":",
                    request->ignore_eos ? "true" : "false",
                    request->max_tokens ? (unsigned)request->max_tokens : n_left, request->min_tokens);
    if (request->n_logprobs >= 0)
        json_add_format(out, "%d}", request->n_logprobs);
    else
        text_add_string(out, "null}");
}

/* The refusal that the engine has for such a request; which: "prompt[2]: ", of several prompts. */
static int refuse_length(const char *param, const char *which, size_t n_ids, uint32_t n_context,
                         struct refusal *refusal)
{
    refuse(refusal, NULL, "%sthe prompt has %zu tokens, the context has room for %u and an answer", which,
           n_ids, n_context - 1);
    snprintf(refusal->param, sizeof refusal->param, "%s", param);
    refusal->n_context = n_context;
    refusal->n_prompt_tokens = n_ids;
    return -1;
}

/* What the engine would be asked for one prompt. */
static void write_prompt(const struct server *server, const struct params *params, const int32_t *ids,
                         size_t n_ids, struct render_request *request)
{
    struct text *out = &request->out;
    json_add_format(out, "{\"request_id\":\"%s-%s\",\"token_ids\":[", request->form->id_prefix, request->id);
    for (size_t i = 0; i < n_ids; i++)
        json_add_format(out, "%s%d", i ? "," : "", ids[i]);
    text_add_string(out, "],\"features\":null,\"sampling_params\":");
    write_sampling(params, server->options->n_context - (uint32_t)n_ids, out);
    text_add_string(out, ",\"model\":");
    json_add_string(out, server->model_name, strlen(server->model_name));
    json_add_format(out, ",\"stream\":%s,\"priority\":0}", params->stream ? "true" : "false");
}

static int write_chat(const struct server *server, struct params *params, struct render_request *request,
                      struct refusal *refusal)
{
    uint32_t n_context = server->options->n_context;
    if (reply_encode(server, params, refusal))
        return -1;
    if (params->request.n_prompt_ids >= n_context)
        return refuse_length("messages", "", params->request.n_prompt_ids, n_context, refusal);
    write_prompt(server, params, params->request.prompt_ids, params->request.n_prompt_ids, request);
    return 0;
}

static int write_completion(const struct server *server, struct params *params,
                            struct render_request *request, struct refusal *refusal)
{
    uint32_t n_context = server->options->n_context;
    char which[32] = "";
    for (size_t i = 0; i < params->n_prompts; i++) {
        const struct params_prompt *prompt = &params->prompts[i];
        if (params->n_prompts > 1)
            snprintf(which, sizeof which, "prompt[%zu]: ", i);
        if (prompt->n_ids >= n_context)
            return refuse_length("prompt", which, prompt->n_ids, n_context, refusal);
        text_add_string(&request->out, i ? "," : "[");
        write_prompt(server, params, prompt->ids, prompt->n_ids, request);
    }
    text_add_string(&request->out, "]");
    return 0;
}

static int read_body(const struct server *server, const struct prepare_input *input, void *state,
                     struct refusal *refusal)
{
    const struct params_limits limits = reply_limits(server);
    struct render_request *request = state;
    struct params params;
    json_t *root;
    if (json_read(input->body.bytes, input->body.len, &root, refusal))
        return -1;
    int failure = request->form->read(root, &limits, &params, refusal);
    json_decref(root);
    if (failure)
        return failure;
    failure = request->form->write(server, &params, request, refusal);
    params_free(&params);
    return failure;
}

static void tell(struct server *server, struct exchange *exchange, void *state, const struct refusal *refusal)
{
    const struct render_request *request = state;
    metrics_add_status(server->metrics,
                       refusal ? reply_refusal(exchange, refusal) : reply_json(exchange, &request->out));
}

static void free_request(void *state)
{
    struct render_request *request = state;
    text_free(&request->out);
}

static void render(struct server *server, struct exchange *exchange, const struct render_form *form)
{
    static const struct prepare_steps steps = {sizeof(struct render_request), read_body, tell, free_request};
    struct render_request request = {.form = form};
    snprintf(request.id, sizeof request.id, "%s", record_of(exchange)->id);
    prepare_request(server, exchange, &steps, &request);
}

void render_chat(struct server *server, struct exchange *exchange)
{
    static const struct render_form chat = {"chatcmpl", params_read_chat, write_chat};
    render(server, exchange, &chat);
}

void render_completion(struct server *server, struct exchange *exchange)
{
    static const struct render_form completion = {"cmpl", params_read_completion, write_completion};
    render(server, exchange, &completion);
}
