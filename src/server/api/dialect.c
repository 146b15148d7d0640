/* dialect.c: from a body to a job, from its events to an answer, in whatever dialect (see dialect.h). The loop's thread
 * only. */
#include "server/api/dialect.h"

#include "base/clock.h"
#include "base/error.h"
#include "server/api/prepare.h"
#include "server/api/reply.h"
#include "server/core/job.h"
#include "server/core/json_write.h"
#include "server/core/record.h"
#include "server/core/requests.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* A body as it was understood. */
struct dialect_request {
    const struct dialect *dialect;
    uint32_t key; /* whose it is */
    struct params params;
    void *state; /* the dialect's own; the answer takes it */
};

/* An answer's state --------------------------------------------------------------------------------------- */

static void free_state(const struct dialect *dialect, void *state)
{
    if (state && dialect->free_state)
        dialect->free_state(state);
    free(state);
}

static struct dialect_answer *make_answer(const struct server *server, const struct exchange *exchange,
                                          struct dialect_request *request)
{
    const struct params *params = &request->params;
    const struct dialect *dialect = request->dialect;
    size_t n = params->n_choices * (params->n_prompts ? params->n_prompts : 1);
    struct dialect_answer *answer = calloc(1, sizeof *answer + n * sizeof answer->choices[0]);
    if (!answer)
        return NULL;
    answer->dialect = dialect;
    answer->state = request->state;
    request->state = NULL;
    answer->evaluates_only = params->evaluates_only;
    answer->wants_stream = params->stream;
    answer->include_usage = params->include_usage;
    answer->split_reasoning = dialect->tells_thoughts && params->split_reasoning;
    answer->repeats_reasoning = dialect->tells_thoughts && params->repeats_reasoning;
    answer->status = 200;
    answer->created_s = (int64_t)time(NULL);
    answer->model = server->model_name;
    answer->n_per_prompt = params->n_choices;
    answer->n = n;
    answer->record = record_of(exchange);
    snprintf(answer->id, sizeof answer->id, "%s-%s", dialect->id_prefix, answer->record->id);
    return answer;
}

static void free_answer(void *state)
{
    struct dialect_answer *answer = state;
    for (size_t i = 0; i < answer->n; i++)
        logprobs_free(&answer->choices[i].logprobs);
    text_free(&answer->piece);
    free_state(answer->dialect, answer->state);
    free(answer);
}

/* Events -------------------------------------------------------------------------------------------------- */

static void send_piece(struct job *job, struct dialect_answer *answer)
{
    if (answer->piece.failed)
        answer->status = 503;
    else
        exchange_stream_write(job_exchange(job), answer->piece.bytes, answer->piece.len);
    answer->piece.len = 0;
}

/* The library and jobs say which of several requests is at fault; here several are choices of a prompt, or of some prompts.
 * What is wrong with a request before it is computed is so with all choices of its prompt. */
static void name_prompt(size_t n, size_t n_per_prompt, bool names_choice, runnel_error *error)
{
    const runnel_error named = *error;
    size_t index;
    int len = 0;
    if (sscanf(named.message, "requests[%zu]: %n", &index, &len) < 1 || !len)
        return;
    if (n > n_per_prompt)
        error_set(error, named.code, "prompt[%zu]: %s", index / n_per_prompt, named.message + len);
    else if (names_choice)
        error_set(error, named.code, "choices[%zu]: %s", index, named.message + len);
    else
        error_set(error, named.code, "%s", named.message + len);
}

/* Tells a stream that something failed, once, and gives the rest up. */
static void fail_stream(struct job *job, struct dialect_answer *answer, const runnel_error *error)
{
    if (answer->status != 200)
        return;
    runnel_error named = *error;
    name_prompt(answer->n, answer->n_per_prompt, true, &named);
    text_add_string(&answer->piece, "data: {\"error\":");
    reply_add_error(&answer->piece, reply_status(error), named.message, "");
    text_add_string(&answer->piece, "}}\n\n");
    send_piece(job, answer);
    answer->status = reply_status(error);
    for (size_t i = 0; i < answer->n; i++)
        job_cancel(job, i);
}

static void check_memory(struct job *job, struct dialect_answer *answer, const struct dialect_choice *choice)
{
    const runnel_error error = {RUNNEL_ENOMEM, "no memory for the answer"};
    if (!choice->logprobs.failed && !answer->piece.failed)
        return;
    text_free(&answer->piece);
    fail_stream(job, answer, &error);
}

/* The tokens whose text this is belong to the answer; those of thoughts and what closes them do not. */
static void settle_tokens(const struct dialect_answer *answer, struct dialect_choice *choice,
                          const runnel_event *event)
{
    if (answer->split_reasoning && event->kind == RUNNEL_EVENT_THOUGHT) {
        logprobs_drop(&choice->logprobs);
        return;
    }
    if (answer->split_reasoning && choice->thinking)
        logprobs_drop_thoughts(&choice->logprobs);
    logprobs_settle(&choice->logprobs, event->text_len);
}

static void take_text(struct job *job, struct dialect_answer *answer, size_t index, const runnel_event *event)
{
    struct dialect_choice *choice = &answer->choices[index];
    bool is_thought = event->kind == RUNNEL_EVENT_THOUGHT;
    metrics_text_arrived(job_server(job)->metrics, &choice->last_ms);
    settle_tokens(answer, choice, event);
    choice->has_new_line = choice->has_new_line || memchr(event->text, '\n', event->text_len);
    if (answer->stream && answer->status == 200 && !answer->evaluates_only) {
        answer->dialect->delta(answer, index, event, &answer->piece);
        check_memory(job, answer, choice);
        if (answer->status == 200)
            send_piece(job, answer);
    }
    choice->thinking = is_thought;
}

/* A call of a tool has no text of the answer, so that no token's probabilities are told of it. */
static void take_call(struct job *job, struct dialect_answer *answer, size_t index, const runnel_event *event)
{
    struct dialect_choice *choice = &answer->choices[index];
    metrics_text_arrived(job_server(job)->metrics, &choice->last_ms);
    logprobs_drop(&choice->logprobs);
    if (answer->stream && answer->status == 200) {
        answer->dialect->delta(answer, index, event, &answer->piece);
        check_memory(job, answer, choice);
        if (answer->status == 200)
            send_piece(job, answer);
    }
    choice->thinking = false;
}

static void take_progress(struct job *job, struct dialect_answer *answer, size_t index,
                          const runnel_event *event)
{
    if (!answer->stream || answer->status != 200)
        return;
    answer->dialect->progress(answer, index, event->counts, &answer->piece);
    check_memory(job, answer, &answer->choices[index]);
    if (answer->status == 200)
        send_piece(job, answer);
}

static void take_finish(struct job *job, struct dialect_answer *answer, size_t index,
                        const runnel_event *event)
{
    struct dialect_choice *choice = &answer->choices[index];
    choice->finished = true;
    if (event->counts)
        choice->counts = *event->counts;
    choice->counts.text = choice->counts.reasoning = NULL;
    choice->counts.calls = NULL;
    bool in_thought = choice->thinking && answer->split_reasoning;
    if (event->finish_reason == RUNNEL_FINISH_LENGTH && !in_thought)
        logprobs_settle_all(&choice->logprobs);
    else
        logprobs_drop(&choice->logprobs); /* the end token, or those of a stop text */
    if (!answer->stream || answer->status != 200)
        return;
    if (event->finish_reason == RUNNEL_FINISH_ERROR) {
        fail_stream(job, answer, event->error);
    } else if (event->finish_reason == RUNNEL_FINISH_CANCELLED) {
        const runnel_error error = {RUNNEL_ECANCELLED, "the server shuts down"};
        fail_stream(job, answer, &error);
    } else {
        answer->dialect->end(answer, index, &answer->piece);
        check_memory(job, answer, choice);
        if (answer->status == 200)
            send_piece(job, answer);
    }
}

/* Until now a refusal would have had a status of its own. */
static void on_taken(struct job *job)
{
    struct dialect_answer *answer = job_state(job);
    answer->stream = answer->wants_stream;
    if (answer->stream)
        exchange_stream_begin(job_exchange(job), 200, "text/event-stream", "Cache-Control: no-cache\r\n");
}

static void on_event(struct job *job, size_t index, const runnel_event *event)
{
    struct dialect_answer *answer = job_state(job);
    switch (event->kind) {
    case RUNNEL_EVENT_TOKEN:
        logprobs_add(&answer->choices[index].logprobs, event);
        break;
    case RUNNEL_EVENT_THOUGHT:
    case RUNNEL_EVENT_ANSWER:
        if (event->text_len)
            take_text(job, answer, index, event);
        break;
    case RUNNEL_EVENT_CALL:
    case RUNNEL_EVENT_ARGUMENTS:
    case RUNNEL_EVENT_CALL_END:
        take_call(job, answer, index, event);
        break;
    case RUNNEL_EVENT_PROMPT:
        take_progress(job, answer, index, event);
        break;
    case RUNNEL_EVENT_FINISH:
        take_finish(job, answer, index, event);
        break;
    case RUNNEL_EVENT_NONE:
    case RUNNEL_EVENT_TAKEN:
        break; /* job.c's own */
    }
}

/* The end ------------------------------------------------------------------------------------------------- */

static void end_stream(struct job *job, struct dialect_answer *answer)
{
    struct exchange *exchange = job_exchange(job);
    if (answer->status != 200) {
        answer->record->stream_status = answer->status;
        exchange_close_after(exchange); /* without the mark of a good end */
    } else if (answer->dialect->done) {
        answer->dialect->done(answer, &answer->piece);
        send_piece(job, answer);
    }
    exchange_stream_end(exchange);
}

static void end_whole(struct job *job, struct dialect_answer *answer)
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
        answer->dialect->whole(answer, responses, &answer->piece);
        reply_json(exchange, &answer->piece);
    } else {
        name_prompt(answer->n, answer->n_per_prompt, true, &error);
        reply_engine_error(job_server(job), exchange, NULL, 0, &error);
    }
    free(responses);
}

static void on_end(struct job *job)
{
    struct dialect_answer *answer = job_state(job);
    struct shared_counters *counters = job_server(job)->metrics;
    for (size_t i = 0; i < answer->n; i++) {
        const runnel_response failed = {.finish_reason = RUNNEL_FINISH_ERROR};
        runnel_error error;
        const runnel_response *response = job_response(job, i, &error);
        metrics_add_response(counters, response ? response : &failed);
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

static int read_body(const struct server *server, const struct prepare_input *input, void *state,
                     struct refusal *refusal)
{
    const runnel_error no_memory = {RUNNEL_ENOMEM, "no memory for the request"};
    struct dialect_request *request = state;
    const struct dialect *dialect = request->dialect;
    struct params_limits limits = reply_limits(server);
    json_t *root;
    limits.defaults.key = request->key; /* what is compiled for one is not found by another */
    if (json_read(input->body.bytes, input->body.len, &root, refusal))
        return -1;
    int failure = dialect->read(root, &limits, &request->params, refusal);
    json_decref(root);
    if (failure)
        return failure;
    if (dialect->state_bytes && !(request->state = calloc(1, dialect->state_bytes)))
        return reply_refuse_error(&no_memory, refusal);
    return dialect->prepare ? dialect->prepare(server, &request->params, request->state, refusal) : 0;
}

static bool must_compile(const struct server *server, void *state)
{
    struct dialect_request *request = state;
    return reply_must_compile(server, &request->params);
}

static int compile(const struct server *server, void *state, struct refusal *refusal)
{
    struct dialect_request *request = state;
    return reply_compile(server, &request->params, refusal);
}

static void free_request(void *state)
{
    struct dialect_request *request = state;
    free_state(request->dialect, request->state);
    params_free(&request->params);
}

/* The request of each choice, to be freed. */
static runnel_request *make_requests(const struct server *server, const struct params *params,
                                     struct dialect_answer *answer)
{
    runnel_request *requests = calloc(1, requests_bytes(answer->n));
    uint64_t seed = reply_seed(server, params);
    if (answer->dialect->begin)
        answer->dialect->begin(answer, server, params, seed);
    for (size_t i = 0; requests && i < answer->n; i++) {
        requests_copy(requests, answer->n, i, &params->request);
        requests_sampling(&requests[i])->seed = seed + i % answer->n_per_prompt;
        if (!params->n_prompts) /* the request has its prompt */
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
static void start_answer(struct server *server, struct exchange *exchange, struct dialect_request *request)
{
    static const struct refusal no_memory = {.status = 503, .message = "no memory for the request"};
    struct dialect_answer *answer = make_answer(server, exchange, request);
    runnel_request *requests = answer ? make_requests(server, &request->params, answer) : NULL;
    runnel_error error;
    struct job *job;
    if (!requests) {
        if (answer)
            free_answer(answer);
        reply_refusal(exchange, &no_memory);
        return;
    }
    size_t n = answer->n, n_per_prompt = answer->n_per_prompt;
    if (job_start(server, exchange, requests, n, &handlers, answer, &job, &error)) { /* frees the answer */
        name_prompt(n, n_per_prompt, false, &error);
        reply_engine_error(server, exchange, requests, n, &error);
    } else if (request->params.allows_control) {
        job_allow_control(job);
    }
    free(requests);
}

static void start_request(struct server *server, struct exchange *exchange, void *state,
                          const struct refusal *refusal)
{
    struct dialect_request *request = state;
    if (refusal)
        reply_refusal(exchange, refusal);
    else
        start_answer(server, exchange, request);
}

void dialect_answer(struct server *server, struct exchange *exchange, const struct dialect *dialect)
{
    static const struct prepare_steps steps = {.state_bytes = sizeof(struct dialect_request),
                                               .read = read_body,
                                               .takes_long = must_compile,
                                               .read_rest = compile,
                                               .start = start_request,
                                               .free_state = free_request};
    struct dialect_request request = {.dialect = dialect, .key = exchange_key(exchange)};
    record_start_text(server->metrics, exchange, dialect->metric);
    prepare_request(server, exchange, &steps, &request);
}

static void tell_count(struct server *server, struct exchange *exchange, void *state,
                       const struct refusal *refusal)
{
    const struct dialect_request *request = state;
    struct text body = {0};
    if (!refusal)
        json_add_format(&body, "{\"input_tokens\":%zu}", request->params.request.n_prompt_ids);
    metrics_add_status(server->metrics,
                       refusal ? reply_refusal(exchange, refusal) : reply_json(exchange, &body));
    text_free(&body);
}

void dialect_count_tokens(struct server *server, struct exchange *exchange, const struct dialect *dialect)
{
    static const struct prepare_steps steps = {.state_bytes = sizeof(struct dialect_request),
                                               .read = read_body,
                                               .start = tell_count,
                                               .free_state = free_request};
    struct dialect_request request = {.dialect = dialect, .key = exchange_key(exchange)};
    prepare_request(server, exchange, &steps, &request);
}
