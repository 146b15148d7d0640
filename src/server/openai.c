/* openai.c: /v1/chat/completions, /v1/completions, /v1/models: from a body to a job, from its events to an answer (see
 * openai.h). The loop's thread only. */
#include "server/openai.h"

#include "base/clock.h"
#include "server/job.h"
#include "server/json_write.h"
#include "server/prepare.h"
#include "server/record.h"
#include "server/reply.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* A body as it was understood. */
struct openai_request {
    enum openai_form form;
    struct params params;

    /* Of llama-server's form, for the answer, which takes them: copies, as the rest may be freed on another thread. */
    json_t *stop, *response_fields;
    struct text *prompts; /* it repeats them */
    size_t n_prompts;
};

/* An answer's state --------------------------------------------------------------------------------------- */

static struct openai_answer *make_answer(const struct server *server, const struct exchange *exchange,
                                         struct openai_request *request)
{
    const struct params *params = &request->params;
    bool is_chat = request->form == OPENAI_CHAT;
    size_t n = params->n_choices * (is_chat ? 1 : params->n_prompts);
    struct openai_answer *answer = calloc(1, sizeof *answer + n * sizeof answer->choices[0]);
    if (!answer)
        return NULL;
    answer->is_native = request->form == OPENAI_NATIVE;
    answer->is_chat = is_chat;
    answer->return_tokens = params->request.wants_tokens;
    answer->evaluates_only = params->evaluates_only;
    answer->probabilities = params->request.n_logprobs < 0        ? LOGPROBS_NONE
                            : params->request.wants_sampled_probs ? LOGPROBS_AFTER_SAMPLING
                                                                  : LOGPROBS_OF_MODEL;
    answer->stop = request->stop;
    answer->response_fields = request->response_fields;
    answer->prompts = request->prompts;
    answer->n_prompts = request->n_prompts;
    request->stop = request->response_fields = NULL;
    request->prompts = NULL;
    request->n_prompts = 0;
    answer->wants_stream = params->stream;
    answer->include_usage = params->include_usage;
    answer->split_reasoning = params->split_reasoning;
    answer->repeats_reasoning = params->repeats_reasoning;
    answer->wants_logprobs = params->request.n_logprobs >= 0;
    answer->status = 200;
    answer->created_s = (int64_t)time(NULL);
    answer->model = server->model_name;
    answer->n_per_prompt = params->n_choices;
    answer->n = n;
    answer->record = record_of(exchange);
    snprintf(answer->id, sizeof answer->id, "%s-%s", is_chat ? "chatcmpl" : "cmpl", answer->record->id);
    return answer;
}

static void free_prompts(struct text *prompts, size_t n)
{
    for (size_t i = 0; i < n; i++)
        text_free(&prompts[i]);
    free(prompts);
}

static void free_answer(void *state)
{
    struct openai_answer *answer = state;
    for (size_t i = 0; i < answer->n; i++)
        logprobs_free(&answer->choices[i].logprobs);
    text_free(&answer->piece);
    text_free(&answer->settings);
    free_prompts(answer->prompts, answer->n_prompts);
    json_decref(answer->stop);
    json_decref(answer->response_fields);
    free(answer);
}

/* Events -------------------------------------------------------------------------------------------------- */

static void send_piece(struct job *job, struct openai_answer *answer)
{
    if (answer->piece.failed)
        answer->status = 503;
    else
        exchange_stream_write(job_exchange(job), answer->piece.bytes, answer->piece.len);
    answer->piece.len = 0;
}

/* Tells a stream that something failed, once, and gives the rest up. */
static void fail_stream(struct job *job, struct openai_answer *answer, const runnel_error *error)
{
    if (answer->status != 200)
        return;
    text_add_string(&answer->piece, "data: {\"error\":");
    reply_add_error(&answer->piece, reply_status(error), error->message, "");
    text_add_string(&answer->piece, "}}\n\n");
    send_piece(job, answer);
    answer->status = reply_status(error);
    for (size_t i = 0; i < answer->n; i++)
        job_cancel(job, i);
}

static void check_memory(struct job *job, struct openai_answer *answer, const struct openai_choice *choice)
{
    const runnel_error error = {RUNNEL_ENOMEM, "no memory for the answer"};
    if (!choice->logprobs.failed && !answer->piece.failed)
        return;
    text_free(&answer->piece);
    fail_stream(job, answer, &error);
}

/* The tokens whose text this is belong to the answer; those of thoughts and what closes them do not. */
static void settle_tokens(const struct openai_answer *answer, struct openai_choice *choice,
                          const runnel_event *event)
{
    bool apart = answer->is_chat && answer->split_reasoning;
    if (apart && event->kind == RUNNEL_EVENT_THOUGHT) {
        logprobs_drop(&choice->logprobs);
        return;
    }
    if (apart && choice->thinking)
        logprobs_drop_thoughts(&choice->logprobs);
    logprobs_settle(&choice->logprobs, event->text_len);
}

static void take_text(struct job *job, struct openai_answer *answer, size_t index, const runnel_event *event)
{
    struct openai_choice *choice = &answer->choices[index];
    bool is_thought = event->kind == RUNNEL_EVENT_THOUGHT;
    metrics_text_arrived(job_server(job)->metrics, &choice->last_ms);
    settle_tokens(answer, choice, event);
    choice->has_new_line = choice->has_new_line || memchr(event->text, '\n', event->text_len);
    if (answer->stream && answer->status == 200 && !answer->evaluates_only) {
        if (answer->is_native)
            completion_write_delta(answer, index, event, &answer->piece);
        else
            openai_write_delta(answer, index, event, &answer->piece);
        check_memory(job, answer, choice);
        if (answer->status == 200)
            send_piece(job, answer);
    }
    choice->thinking = is_thought;
}

static void take_progress(struct job *job, struct openai_answer *answer, size_t index,
                          const runnel_event *event)
{
    if (!answer->stream || answer->status != 200)
        return;
    if (answer->is_native)
        completion_write_progress(answer, index, event->counts, &answer->piece);
    else
        openai_write_progress(answer, index, event->counts, &answer->piece);
    check_memory(job, answer, &answer->choices[index]);
    if (answer->status == 200)
        send_piece(job, answer);
}

static void take_finish(struct job *job, struct openai_answer *answer, size_t index,
                        const runnel_event *event)
{
    struct openai_choice *choice = &answer->choices[index];
    choice->finished = true;
    if (event->counts)
        choice->counts = *event->counts;
    choice->counts.text = choice->counts.reasoning = NULL;
    logprobs_drop(&choice->logprobs); /* the end token, or those of a stop text */
    if (!answer->stream || answer->status != 200)
        return;
    if (event->finish_reason == RUNNEL_FINISH_ERROR) {
        fail_stream(job, answer, event->error);
    } else if (event->finish_reason == RUNNEL_FINISH_CANCELLED) {
        const runnel_error error = {RUNNEL_ECANCELLED, "the server shuts down"};
        fail_stream(job, answer, &error);
    } else {
        if (answer->is_native)
            completion_write_end(answer, index, &answer->piece);
        else
            openai_write_end(answer, index, &answer->piece);
        check_memory(job, answer, choice);
        if (answer->status == 200)
            send_piece(job, answer);
    }
}

/* Until now a refusal would have had a status of its own. */
static void on_taken(struct job *job)
{
    struct openai_answer *answer = job_state(job);
    answer->stream = answer->wants_stream;
    if (answer->stream)
        exchange_stream_begin(job_exchange(job), 200, "text/event-stream", "Cache-Control: no-cache\r\n");
}

static void on_event(struct job *job, size_t index, const runnel_event *event)
{
    struct openai_answer *answer = job_state(job);
    switch (event->kind) {
    case RUNNEL_EVENT_TOKEN:
        logprobs_add(&answer->choices[index].logprobs, event);
        break;
    case RUNNEL_EVENT_THOUGHT:
    case RUNNEL_EVENT_ANSWER:
        if (event->text_len)
            take_text(job, answer, index, event);
        break;
    case RUNNEL_EVENT_PROMPT:
        take_progress(job, answer, index, event);
        break;
    case RUNNEL_EVENT_FINISH:
        take_finish(job, answer, index, event);
        break;
    }
}

/* The end ------------------------------------------------------------------------------------------------- */

static void end_stream(struct job *job, struct openai_answer *answer)
{
    struct exchange *exchange = job_exchange(job);
    if (answer->status != 200) {
        answer->record->stream_status = answer->status;
        exchange_close_after(exchange); /* without [DONE] */
    } else if (!answer->is_native) {    /* which ends without a mark */
        if (answer->include_usage)
            openai_write_usage_chunk(answer, &answer->piece);
        text_add_string(&answer->piece, "data: [DONE]\n\n");
        send_piece(job, answer);
    }
    exchange_stream_end(exchange);
}

static void end_whole(struct job *job, struct openai_answer *answer)
{
    struct exchange *exchange = job_exchange(job);
    const runnel_response **responses = calloc(answer->n, sizeof *responses);
    runnel_error error = {RUNNEL_ENOMEM, "no memory for the answer"};
    bool good = responses;
    for (size_t i = 0; good && i < answer->n; i++) {
        responses[i] = job_response(job, i, &error);
        good = responses[i] && !answer->choices[i].logprobs.failed;
        if (good && responses[i]->finish_reason == RUNNEL_FINISH_CANCELLED) {
            error = (runnel_error){RUNNEL_ECANCELLED, "the server shuts down"};
            good = false;
        }
    }
    if (good) {
        if (answer->is_native)
            completion_write_whole(answer, responses, &answer->piece);
        else
            openai_write_whole(answer, responses, &answer->piece);
        reply_json(exchange, &answer->piece);
    } else {
        reply_engine_error(job_server(job), exchange, NULL, 0, &error);
    }
    free(responses);
}

static void on_end(struct job *job)
{
    struct openai_answer *answer = job_state(job);
    struct metrics *metrics = job_server(job)->metrics;
    for (size_t i = 0; i < answer->n; i++) {
        const runnel_response failed = {.finish_reason = RUNNEL_FINISH_ERROR};
        runnel_error error;
        const runnel_response *response = job_response(job, i, &error);
        metrics_add_response(metrics, response ? response : &failed);
    }
    if (answer->stream)
        end_stream(job, answer);
    else if (exchange_is_gone(job_exchange(job)))
        exchange_abort(job_exchange(job));
    else
        end_whole(job, answer);
}

static const struct job_handlers handlers = {on_event, on_end, free_answer, on_taken};

/* Taking requests ----------------------------------------------------------------------------------------- */

/* Keeps what the answer tells of its request. */
static int keep_for_answer(const struct server *server, struct openai_request *request,
                           struct refusal *refusal)
{
    const struct params *params = &request->params;
    runnel_error error = {RUNNEL_ENOMEM, "no memory for the request"};
    request->stop = json_array();
    for (size_t i = 0; i < params->request.n_stop && request->stop; i++)
        if (json_array_append_new(request->stop, json_string(params->request.stop[i])))
            return reply_refuse_error(&error, refusal);
    request->response_fields = json_deep_copy(params->response_fields);
    request->prompts = calloc(params->n_prompts, sizeof *request->prompts);
    if (!request->prompts || !request->stop || (params->response_fields && !request->response_fields))
        return reply_refuse_error(&error, refusal);
    for (; request->n_prompts < params->n_prompts; request->n_prompts++) {
        const struct params_prompt *prompt = &params->prompts[request->n_prompts];
        runnel_request asked = params->request;
        char *text;
        size_t len;
        asked.prompt_ids = prompt->ids;
        asked.n_prompt_ids = prompt->n_ids;
        int failure = runnel_prompt_text(server->model, &asked, &text, &len, &error);
        if (failure == RUNNEL_ENOMEM)
            return reply_refuse_error(&error, refusal);
        if (failure) /* rows of the embedding that no token has */
            continue;
        text_add(&request->prompts[request->n_prompts], text, len);
        runnel_text_free(text);
    }
    return 0;
}

static int read_body(const struct server *server, const struct prepare_input *input, void *state,
                     struct refusal *refusal)
{
    static int (*const readers[])(json_t *, const struct params_limits *, struct params *,
                                  struct refusal *) = {
        [OPENAI_CHAT] = params_read_chat,
        [OPENAI_COMPLETION] = params_read_completion,
        [OPENAI_NATIVE] = params_read_native,
    };
    const struct params_limits limits = reply_limits(server);
    struct openai_request *request = state;
    json_t *root;
    if (json_read(input->body.bytes, input->body.len, &root, refusal))
        return -1;
    int failure = readers[request->form](root, &limits, &request->params, refusal);
    json_decref(root);
    if (!failure && request->form == OPENAI_CHAT)
        failure = reply_encode(server, &request->params, refusal);
    if (!failure && request->form == OPENAI_NATIVE)
        failure = keep_for_answer(server, request, refusal);
    return failure;
}

static void free_request(void *state)
{
    struct openai_request *request = state;
    json_decref(request->stop);
    json_decref(request->response_fields);
    free_prompts(request->prompts, request->n_prompts);
    params_free(&request->params);
}

/* The request of each choice, to be freed. */
static runnel_request *make_requests(const struct server *server, const struct params *params,
                                     struct openai_answer *answer)
{
    runnel_request *requests = calloc(answer->n, sizeof *requests);
    uint64_t seed = reply_seed(server, params);
    if (answer->is_native)
        completion_write_settings(server, params, seed, &answer->settings);
    for (size_t i = 0; requests && i < answer->n; i++) {
        requests[i] = params->request;
        requests[i].sampling.seed = seed + i % answer->n_per_prompt;
        if (answer->is_chat)
            continue;
        const struct params_prompt *prompt = &params->prompts[i / answer->n_per_prompt];
        requests[i].prompt = prompt->text;
        requests[i].prompt_len = prompt->text_len;
        requests[i].prompt_ids = prompt->ids;
        requests[i].n_prompt_ids = prompt->n_ids;
    }
    return requests;
}

/* Gives the exchange to a job, or answers that it cannot. */
static void start_answer(struct server *server, struct exchange *exchange, struct openai_request *request)
{
    static const struct refusal no_memory = {.status = 503, .message = "no memory for the request"};
    struct openai_answer *answer = make_answer(server, exchange, request);
    runnel_request *requests = answer ? make_requests(server, &request->params, answer) : NULL;
    runnel_error error;
    struct job *job;
    if (!requests) {
        if (answer)
            free_answer(answer);
        reply_refusal(exchange, &no_memory);
        return;
    }
    size_t n = answer->n;
    if (job_start(server, exchange, requests, n, &handlers, answer, &job, &error)) /* frees the answer */
        reply_engine_error(server, exchange, requests, n, &error);
    free(requests);
}

static void start_request(struct server *server, struct exchange *exchange, void *state,
                          const struct refusal *refusal)
{
    struct openai_request *request = state;
    if (refusal)
        reply_refusal(exchange, refusal);
    else
        start_answer(server, exchange, request);
}

static void take_request(struct server *server, struct exchange *exchange, enum openai_form form)
{
    static const enum metrics_route routes[] = {METRICS_CHAT, METRICS_COMPLETIONS, METRICS_COMPLETION};
    static const struct prepare_steps steps = {sizeof(struct openai_request), read_body, start_request,
                                               free_request};
    struct openai_request request = {.form = form};
    record_start_text(server->metrics, exchange, routes[form]);
    prepare_request(server, exchange, &steps, &request);
}

void openai_chat(struct server *server, struct exchange *exchange)
{
    take_request(server, exchange, OPENAI_CHAT);
}

void openai_completion(struct server *server, struct exchange *exchange)
{
    take_request(server, exchange, OPENAI_COMPLETION);
}

void openai_native(struct server *server, struct exchange *exchange)
{
    take_request(server, exchange, OPENAI_NATIVE);
}

static void tell_count(struct server *server, struct exchange *exchange, void *state,
                       const struct refusal *refusal)
{
    const struct openai_request *request = state;
    struct text body = {0};
    if (!refusal)
        json_add_format(&body, "{\"input_tokens\":%zu}", request->params.request.n_prompt_ids);
    metrics_add_status(server->metrics,
                       refusal ? reply_refusal(exchange, refusal) : reply_json(exchange, &body));
    text_free(&body);
}

void openai_count_tokens(struct server *server, struct exchange *exchange)
{
    static const struct prepare_steps steps = {sizeof(struct openai_request), read_body, tell_count,
                                               free_request};
    struct openai_request request = {.form = OPENAI_CHAT};
    prepare_request(server, exchange, &steps, &request);
}

static void write_model(const struct server *server, struct text *out)
{
    text_add_string(out, "{\"id\":");
    json_add_string(out, server->model_name, strlen(server->model_name));
    json_add_format(out,
                    ",\"object\":\"model\",\"created\":%lld,\"owned_by\":\"runnel\",\"meta\":{\"n_vocab\":%u,"
                    "\"n_ctx\":%u,\"n_ctx_train\":%u,\"n_embd\":%u,\"n_params\":%llu,\"size\":%llu}}",
                    (long long)server->created_s, server->info.n_vocab, server->options->n_context,
                    server->info.n_context_train, server->info.n_hidden,
                    (unsigned long long)server->info.n_parameters,
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
