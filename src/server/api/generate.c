/* generate.c: /generate and /generate-batch: prompts in JSON, or one in query parameters, to whole answers. The loop's
 * thread only. */
#include "server/api/generate.h"

#include "base/clock.h"
#include "base/utf8.h"
#include "server/api/prepare.h"
#include "server/api/reply.h"
#include "server/core/job.h"
#include "server/core/json_write.h"
#include "server/core/record.h"
#include "server/core/requests.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

/* One request, or a batch of them. */
struct generate_answer {
    bool is_batch;
    double started_ms;
    double last_ms; /* of the first prompt's text, for the metrics */
    struct text body;
    size_t n;
    json_t *names[]; /* "id" of each entry of a batch; NULL: it has none */
};

static int no_memory(struct refusal *refusal)
{
    refuse(refusal, NULL, "no memory for the request");
    refusal->status = 503;
    return -1;
}

/* Answers ------------------------------------------------------------------------------------------------- */

static void free_answer(void *state)
{
    struct generate_answer *answer = state;
    for (size_t i = 0; i < answer->n; i++)
        json_decref(answer->names[i]);
    text_free(&answer->body);
    free(answer);
}

static void on_event(struct job *job, size_t index, const runnel_event *event)
{
    struct generate_answer *answer = job_state(job);
    if (index == 0 && (event->kind == RUNNEL_EVENT_THOUGHT || event->kind == RUNNEL_EVENT_ANSWER))
        metrics_text_arrived(job_server(job)->metrics, &answer->last_ms);
}

static void write_texts(const runnel_response *response, struct text *out)
{
    text_add_string(out, "{\"response\":");
    json_add_string(out, response->text, response->text_len);
    text_add_string(out, ",\"reasoning\":");
    json_add_string(out, response->reasoning, response->reasoning_len);
}

static void write_name(const json_t *name, struct text *out)
{
    text_add_string(out, ",\"request_id\":");
    if (json_is_string(name))
        json_add_string(out, json_string_value(name), json_string_length(name));
    else if (name)
        json_add_format(out, "%lld", (long long)json_integer_value(name));
    else
        text_add_string(out, "null");
}

/* False and *error if one of the requests failed. */
static bool write_answer(struct job *job, struct generate_answer *answer, runnel_error *error)
{
    struct text *out = &answer->body;
    text_add_string(out, answer->is_batch ? "{\"results\":[" : "");
    for (size_t i = 0; i < answer->n; i++) {
        const runnel_response *response = job_response(job, i, error);
        if (!response)
            return false;
        if (response->finish_reason == RUNNEL_FINISH_CANCELLED) {
            *error = (runnel_error){RUNNEL_ECANCELLED, "the server shuts down"};
            return false;
        }
        text_add_string(out, i ? "," : "");
        write_texts(response, out);
        if (answer->is_batch)
            write_name(answer->names[i], out);
        else
            json_add_format(out, ",\"latency_ms\":%.3f", clock_ms() - answer->started_ms);
        if (!answer->is_batch)
            record_write_degraded(record_of(job_exchange(job)), out);
        text_add_string(out, "}");
    }
    if (answer->is_batch) {
        text_add_string(out, "]");
        record_write_degraded(record_of(job_exchange(job)), out);
        text_add_string(out, "}");
    }
    return true;
}

static void on_end(struct job *job)
{
    struct generate_answer *answer = job_state(job);
    struct exchange *exchange = job_exchange(job);
    struct server *server = job_server(job);
    runnel_error error;
    for (size_t i = 0; i < answer->n; i++) {
        const runnel_response failed = {.finish_reason = RUNNEL_FINISH_ERROR};
        const runnel_response *response = job_response(job, i, &error);
        metrics_add_response(server->metrics, response ? response : &failed);
    }
    if (exchange_is_gone(exchange))
        exchange_abort(exchange);
    else if (write_answer(job, answer, &error))
        reply_json(exchange, &answer->body);
    else
        reply_engine_error(server, exchange, NULL, 0, &error);
}

static const struct job_handlers handlers = {on_event, on_end, free_answer, NULL};

/* Query parameters ---------------------------------------------------------------------------------------- */

enum { N_WORDS = 4 };

/* As people and programs write truth: "True" is Python's. */
static bool is_one_of(const char *text, const char *const words[N_WORDS])
{
    for (size_t i = 0; i < N_WORDS; i++)
        if (!strcasecmp(text, words[i]))
            return true;
    return false;
}

/* A parameter's text as the JSON that the same field of a body would hold; NULL if it is none. */
static json_t *read_parameter(const char *name, const char *text)
{
    static const char *const truths[] = {"true", "1", "yes", "on"}, *const untruths[] = {"false", "0", "no",
                                                                                         "off"};
    char *end = NULL;
    if (!strcmp(name, "prompt"))
        return json_string(text);
    if (!strcmp(name, "raw"))
        return is_one_of(text, truths) ? json_true() : is_one_of(text, untruths) ? json_false() : NULL;
    if (!*text || strspn(text, "0123456789+-.eE") != strlen(text))
        return NULL;
    double number = strtod(text, &end);
    return *end ? NULL : json_real(number);
}

static int add_parameter(json_t *root, const char *name, const char *encoded, size_t len,
                         struct refusal *refusal)
{
    char *text = malloc(len + 1);
    int failure = -1;
    if (!text)
        return no_memory(refusal);
    long decoded_len = http_query_decode(encoded, len, text);
    if (decoded_len >= 0)
        text[decoded_len] = '\0';
    if (json_object_get(root, name)) {
        refuse(refusal, name, "expected once in the query, found twice");
    } else if (decoded_len < 0 || memchr(text, 0, (size_t)decoded_len) ||
               !utf8_valid(text, (size_t)decoded_len)) {
        refuse(refusal, name, "expected UTF-8 in percent encoding");
    } else {
        json_t *value = read_parameter(name, text);
        if (value)
            failure = json_object_set_new(root, name, value) ? no_memory(refusal) : 0;
        else
            refuse(refusal, name, "expected a %s",
                   strcmp(name, "raw") ? "number" : "yes or no: true or false, 1 or 0, on or off");
    }
    free(text);
    return failure;
}

static int read_query(struct exchange_text query, json_t **out, struct refusal *refusal)
{
    static const char *const names[] = {"prompt", "max_tokens", "temperature", "top_p",
                                        "top_k",  "min_p",      "seed",        "raw"};
    struct http_span name, value;
    json_t *root = json_object();
    size_t at = 0;
    if (!root)
        return no_memory(refusal);
    while (http_query_next(query.bytes, query.len, &at, &name, &value)) {
        for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
            if (name.len != strlen(names[i]) || memcmp(query.bytes + name.at, names[i], name.len) != 0)
                continue;
            if (add_parameter(root, names[i], query.bytes + value.at, value.len, refusal)) {
                json_decref(root);
                return -1;
            }
        }
    }
    *out = root;
    return 0;
}

/* Taking requests ----------------------------------------------------------------------------------------- */

/* A body as it was understood. */
struct generate_request {
    bool is_batch;
    uint32_t key; /* whose it is */
    double started_ms;
    size_t n_params; /* that were read */
    struct params *params;
};

static int read_root(const struct prepare_input *input, bool is_batch, json_t **root, struct refusal *refusal)
{
    if (!is_batch && !input->body.len && input->query.len)
        return read_query(input->query, root, refusal);
    return json_read(input->body.bytes, input->body.len, root, refusal);
}

/* The entries of a batch: [..] or {"requests": [..]}. */
static int find_entries(json_t *root, json_t **entries, struct refusal *refusal)
{
    json_t *list = json_is_array(root) ? root : json_find(root, "requests");
    if (!json_is_array(list) || !json_array_size(list))
        return refuse(refusal, "requests", "expected a list of at least one request");
    if (json_array_size(list) > PARAMS_PROMPTS)
        return refuse(refusal, "requests", "expected at most %d requests, found %zu", PARAMS_PROMPTS,
                      json_array_size(list));
    *entries = list;
    return 0;
}

/* Hands a request's params to a job, or answers that it cannot. */
static void start_answer(struct server *server, struct exchange *exchange, const struct params *params,
                         size_t n, bool is_batch, double started_ms)
{
    static const struct refusal no_room = {.status = 503, .message = "no memory for the request"};
    struct generate_answer *answer = calloc(1, sizeof *answer + n * sizeof answer->names[0]);
    runnel_request *requests = calloc(1, requests_bytes(n));
    runnel_error error;
    struct job *job;
    if (!answer || !requests) {
        free(answer);
        free(requests);
        reply_refusal(exchange, &no_room);
        return;
    }
    answer->is_batch = is_batch;
    answer->started_ms = started_ms;
    answer->n = n;
    for (size_t i = 0; i < n; i++) {
        answer->names[i] = json_copy(params[i].name); /* the rest goes to another thread */
        requests_copy(requests, n, i, &params[i].request);
        requests_sampling(&requests[i])->seed = reply_seed(server, &params[i]);
    }
    if (job_start(server, exchange, requests, n, &handlers, answer, &job, &error)) /* frees the answer */
        reply_engine_error(server, exchange, requests, n, &error);
    free(requests);
}

/* Says which entry of a batch is refused. */
static void name_entry(size_t index, struct refusal *refusal)
{
    struct refusal named = {.status = refusal->status, .n_context = refusal->n_context};
    const char *message = refusal->message;
    int len = snprintf(named.param, sizeof named.param, "requests[%zu]", index);
    if (*refusal->param)
        snprintf(named.param + len, sizeof named.param - (size_t)len, ".%.40s", refusal->param);
    else
        len = 0;
    snprintf(named.message, sizeof named.message, "requests[%zu]%s%.200s", index, len ? "." : ": ", message);
    *refusal = named;
}

static int read_params(const struct server *server, json_t *root, json_t *entries,
                       struct generate_request *request, struct refusal *refusal)
{
    struct params_limits limits = reply_limits(server);
    size_t n = entries ? json_array_size(entries) : 1;
    limits.defaults.key = request->key; /* what is compiled for one is not found by another */
    request->params = calloc(n, sizeof *request->params);
    if (!request->params)
        return no_memory(refusal);
    for (size_t i = 0; i < n; i++) {
        json_t *entry = entries ? json_array_get(entries, i) : root;
        int failure = params_read_generate(entry, &limits, &request->params[i], refusal);
        if (!failure) {
            request->n_params++;
            failure = reply_encode(server, &request->params[i], refusal);
        }
        if (failure) {
            if (entries)
                name_entry(i, refusal);
            return -1;
        }
    }
    return 0;
}

static int read_body(const struct server *server, const struct prepare_input *input, void *state,
                     struct refusal *refusal)
{
    struct generate_request *request = state;
    json_t *root = NULL, *entries = NULL;
    int failure = read_root(input, request->is_batch, &root, refusal);
    if (!failure && request->is_batch)
        failure = find_entries(root, &entries, refusal);
    if (!failure)
        failure = read_params(server, root, entries, request, refusal);
    json_decref(root);
    return failure;
}

static bool must_compile_batch(const struct server *server, void *state)
{
    const struct generate_request *request = state;
    bool must = false;
    for (size_t i = 0; i < request->n_params && !must; i++)
        must = reply_must_compile(server, &request->params[i]);
    return must;
}

static int compile_batch(const struct server *server, void *state, struct refusal *refusal)
{
    struct generate_request *request = state;
    for (size_t i = 0; i < request->n_params; i++)
        if (reply_compile(server, &request->params[i], refusal)) {
            if (request->is_batch)
                name_entry(i, refusal);
            return -1;
        }
    return 0;
}

static void free_request(void *state)
{
    struct generate_request *request = state;
    for (size_t i = 0; i < request->n_params; i++)
        params_free(&request->params[i]);
    free(request->params);
}

static void start_request(struct server *server, struct exchange *exchange, void *state,
                          const struct refusal *refusal)
{
    const struct generate_request *request = state;
    if (refusal)
        reply_refusal(exchange, refusal);
    else
        start_answer(server, exchange, request->params, request->n_params, request->is_batch,
                     request->started_ms);
}

static void take_request(struct server *server, struct exchange *exchange, bool is_batch)
{
    static const struct prepare_steps steps = {.state_bytes = sizeof(struct generate_request),
                                               .read = read_body,
                                               .takes_long = must_compile_batch,
                                               .read_rest = compile_batch,
                                               .start = start_request,
                                               .free_state = free_request};
    struct generate_request request = {.is_batch = is_batch, .key = exchange_key(exchange)};
    request.started_ms =
        record_start_text(server->metrics, exchange, is_batch ? METRICS_GENERATE_BATCH : METRICS_GENERATE);
    prepare_request(server, exchange, &steps, &request);
}

void generate_one(struct server *server, struct exchange *exchange)
{
    take_request(server, exchange, false);
}

void generate_batch(struct server *server, struct exchange *exchange)
{
    take_request(server, exchange, true);
}
