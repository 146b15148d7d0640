/* native_completion.c: /completion: prompts continued as they are, in llama-server's own form. The loop's thread only. */
#include "server/api/native_completion.h"

#include "server/api/reply.h"
#include "server/api/timings.h"
#include "server/core/json_write.h"

#include <stdlib.h>
#include <string.h>

/* What the answer tells of its request: copies, as the rest may be freed on another thread. */
struct native_state {
    bool return_tokens;
    enum logprobs_native probabilities;
    struct text settings;    /* the request as it was understood, a JSON object */
    json_t *stop;            /* its stop texts, a list */
    json_t *response_fields; /* names of the fields that are wanted; NULL: all */
    size_t first_slot;       /* of this worker, among those of all: as in /slots */
    size_t n_prompts;
    struct text *prompts; /* as the model reads them, [n_prompts] */
};

/* What a request asked, by the names that it has there. */
static void write_sampling(const runnel_sampling *sampling, uint64_t seed, struct text *out)
{
    json_add_format(out, "\"seed\":%lld,\"temperature\":%g,\"top_k\":%d,\"top_p\":%g,\"min_p\":%g,",
                    (long long)seed, (double)sampling->temperature, sampling->top_k, (double)sampling->top_p,
                    (double)sampling->min_p);
    json_add_format(
        out, "\"repeat_last_n\":%d,\"repeat_penalty\":%g,\"presence_penalty\":%g,\"frequency_penalty\":%g",
        sampling->penalty_window, (double)sampling->repetition_penalty, (double)sampling->presence_penalty,
        (double)sampling->frequency_penalty);
}

static void write_biases(const runnel_sampling *sampling, struct text *out)
{
    text_add_string(out, ",\"logit_bias\":[");
    for (size_t i = 0; i < sampling->n_logit_bias; i++) {
        const runnel_logit_bias *entry = &sampling->logit_bias[i];
        json_add_format(out, "%s{\"token\":%d,\"bias\":", i ? "," : "", entry->token);
        if (entry->bias < -1e30f)
            text_add_string(out, "null"); /* never: JSON has no infinity */
        else
            json_add_format(out, "%g", (double)entry->bias);
        text_add_string(out, "}");
    }
    text_add_string(out, "]");
}

/* What llama-server has besides, which is always off here: its clients expect to find it. */
static const char absent_settings[] =
    ",\"dynatemp_range\":0.0,\"dynatemp_exponent\":1.0,\"top_n_sigma\":-1.0,\"typical_p\":1.0,"
    "\"xtc_probability\":0.0,\"xtc_threshold\":0.1,\"dry_multiplier\":0.0,\"dry_base\":1.75,"
    "\"dry_allowed_length\":2,\"dry_penalty_last_n\":0,\"dry_sequence_breakers\":[],\"mirostat\":0,"
    "\"mirostat_tau\":5.0,\"mirostat_eta\":0.1,\"n_keep\":0,\"n_discard\":0,\"min_keep\":0,\"grammar\":\"\","
    "\"samplers\":[\"penalties\",\"temperature\",\"top_k\",\"top_p\",\"min_p\"],"
    "\"lora\":[]";

void native_completion_write_settings(const struct server *server, const struct params *params, uint64_t seed,
                                      struct text *out)
{
    const runnel_request *request = &params->request;
    int n_predict = params->evaluates_only ? 0 : request->max_tokens ? request->max_tokens : -1;
    json_add_format(out, "{\"n_ctx\":%u,\"n_predict\":%d,\"max_tokens\":%d,", server->options->n_context,
                    n_predict, n_predict);
    write_sampling(request->sampling, seed, out);
    text_add_string(out, ",\"stop\":[");
    for (size_t i = 0; i < request->n_stop; i++) {
        text_add_string(out, i ? "," : "");
        json_add_string(out, request->stop[i], strlen(request->stop[i]));
    }
    json_add_format(out,
                    "],\"ignore_eos\":%s,\"stream\":%s,\"timings_per_token\":%s,\"n_probs\":%d,\"post_"
                    "sampling_probs\":%s",
                    request->ignore_eos ? "true" : "false", params->stream ? "true" : "false",
                    request->wants_counts ? "true" : "false",
                    request->n_logprobs < 0 ? 0 : request->n_logprobs,
                    request->wants_sampled_probs ? "true" : "false");
    write_biases(request->sampling, out);
    text_add_string(out, absent_settings);
    text_add_string(out, "}");
}

/* The stop text that ended the answer. */
static const json_t *stopping_word(const struct native_state *state, const runnel_response *response)
{
    if (response->finish_reason != RUNNEL_FINISH_STOP || response->stop_index < 0)
        return NULL;
    return json_array_get(state->stop, (size_t)response->stop_index);
}

/* All but the content and its tokens, which stand before it. */
static void write_rest(const struct dialect_answer *answer, size_t index, struct text *out)
{
    const struct native_state *state = answer->state;
    const struct dialect_choice *choice = &answer->choices[index];
    const runnel_response *counts = &choice->counts;
    const json_t *word = stopping_word(state, counts);
    const struct text *prompt = &state->prompts[index / answer->n_per_prompt];
    int slot = counts->slot < 0 ? -1 : counts->slot + (int)state->first_slot;
    const char *type = word ? "word" : counts->finish_reason == RUNNEL_FINISH_LENGTH ? "limit" : "eos";
    json_add_format(out, ",\"index\":%zu,\"id_slot\":%d,\"stop\":true,\"model\":", index, slot);
    json_add_string(out, answer->model, strlen(answer->model));
    json_add_format(
        out, ",\"tokens_predicted\":%u,\"tokens_evaluated\":%u,\"tokens_cached\":%u,\"truncated\":false,",
        answer->evaluates_only ? 0 : counts->n_tokens, counts->n_prompt_tokens, counts->n_cached_tokens);
    json_add_format(out, "\"has_new_line\":%s,\"prompt\":", choice->has_new_line ? "true" : "false");
    json_add_string(out, prompt->bytes ? prompt->bytes : "", prompt->len);
    json_add_format(out, ",\"stop_type\":\"%s\",\"stopping_word\":", type);
    json_add_string(out, json_string_value(word), json_string_length(word));
    text_add_string(out, ",\"generation_settings\":");
    text_add(out, state->settings.bytes, state->settings.len);
    out->failed = out->failed || state->settings.failed || prompt->failed;
    timings_write(choice, 1, 1, out);
    record_write_degraded(answer->record, out);
    text_add_string(out, "}");
}

static void write_content(struct dialect_answer *answer, size_t index, const char *bytes, size_t len,
                          struct text *out)
{
    const struct native_state *state = answer->state;
    if (answer->evaluates_only) /* a token was drawn all the same */
        logprobs_free(&answer->choices[index].logprobs);
    text_add_string(out, "{\"content\":");
    json_add_string(out, bytes, len);
    logprobs_write_native(&answer->choices[index].logprobs, state->return_tokens, state->probabilities, out);
}

static void write_delta(struct dialect_answer *answer, size_t index, const runnel_event *event,
                        struct text *out)
{
    text_add_string(out, "data: ");
    write_content(answer, index, event->text, event->text_len, out);
    json_add_format(out, ",\"index\":%zu,\"stop\":false", index);
    timings_write_event(event, out);
    text_add_string(out, "}\n\n");
}

static void write_progress(struct dialect_answer *answer, size_t index, const runnel_response *counts,
                           struct text *out)
{
    text_add_string(out, "data: ");
    write_content(answer, index, "", 0, out);
    json_add_format(out, ",\"index\":%zu,\"stop\":false", index);
    timings_write_progress(counts, out);
    text_add_string(out, "}\n\n");
}

/* The value that a path such as "timings/predicted_n" leads to; NULL if there is none. */
static json_t *find_path(json_t *object, const char *path)
{
    for (const char *slash; object && (slash = strchr(path, '/')); path = slash + 1)
        object = json_object_getn(object, path, (size_t)(slash - path));
    return json_object_get(object, path);
}

/* An object with the fields of a whole one that were asked for, under the names by which they were. */
static void write_fields(const json_t *names, const struct text *whole, struct text *out)
{
    json_t *all = whole->failed ? NULL : json_loadb(whole->bytes, whole->len, JSON_ALLOW_NUL, NULL);
    json_t *fields = json_object(), *name;
    size_t i;
    json_array_foreach(names, i, name)
    {
        json_t *value = find_path(all, json_string_value(name));
        if (value && json_object_set(fields, json_string_value(name), value))
            out->failed = true;
    }
    char *bytes = all && fields ? json_dumps(fields, JSON_COMPACT | JSON_REAL_PRECISION(12)) : NULL;
    if (bytes)
        text_add_string(out, bytes);
    else
        out->failed = true;
    free(bytes);
    json_decref(fields);
    json_decref(all);
}

static void write_result(struct dialect_answer *answer, size_t index, const char *bytes, size_t len,
                         struct text *out)
{
    const struct native_state *state = answer->state;
    struct text whole = {0}, *to = state->response_fields ? &whole : out;
    write_content(answer, index, bytes, len, to);
    write_rest(answer, index, to);
    if (state->response_fields)
        write_fields(state->response_fields, &whole, out);
    text_free(&whole);
}

static void write_end(struct dialect_answer *answer, size_t index, struct text *out)
{
    text_add_string(out, "data: ");
    write_result(answer, index, "", 0, out);
    text_add_string(out, "\n\n");
}

static void write_whole(struct dialect_answer *answer, const runnel_response *const *responses,
                        struct text *out)
{
    text_add_string(out, answer->n > 1 ? "[" : "");
    for (size_t i = 0; i < answer->n; i++) {
        text_add_string(out, i ? "," : "");
        write_result(answer, i, responses[i]->text, answer->evaluates_only ? 0 : responses[i]->text_len, out);
    }
    text_add_string(out, answer->n > 1 ? "]" : "");
}

/* The dialect --------------------------------------------------------------------------------------------- */

/* Keeps what the answer tells of its request. */
static int prepare(const struct server *server, struct params *params, void *user, struct refusal *refusal)
{
    struct native_state *state = user;
    runnel_error error = {RUNNEL_ENOMEM, "no memory for the request"};
    state->return_tokens = params->request.wants_tokens;
    state->probabilities = params->request.n_logprobs < 0        ? LOGPROBS_NONE
                           : params->request.wants_sampled_probs ? LOGPROBS_AFTER_SAMPLING
                                                                 : LOGPROBS_OF_MODEL;
    state->stop = json_array();
    for (size_t i = 0; i < params->request.n_stop && state->stop; i++)
        if (json_array_append_new(state->stop, json_string(params->request.stop[i])))
            return reply_refuse_error(&error, refusal);
    state->response_fields = json_deep_copy(params->response_fields);
    state->prompts = calloc(params->n_prompts, sizeof *state->prompts);
    if (!state->prompts || !state->stop || (params->response_fields && !state->response_fields))
        return reply_refuse_error(&error, refusal);
    for (; state->n_prompts < params->n_prompts; state->n_prompts++) {
        const struct params_prompt *prompt = &params->prompts[state->n_prompts];
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
        text_add(&state->prompts[state->n_prompts], text, len);
        runnel_text_free(text);
    }
    return 0;
}

static void free_state(void *user)
{
    struct native_state *state = user;
    for (size_t i = 0; i < state->n_prompts; i++)
        text_free(&state->prompts[i]);
    free(state->prompts);
    text_free(&state->settings);
    json_decref(state->stop);
    json_decref(state->response_fields);
}

static void begin(struct dialect_answer *answer, const struct server *server, const struct params *params,
                  uint64_t seed)
{
    struct native_state *state = answer->state;
    state->first_slot = gauges_first_slot(server);
    native_completion_write_settings(server, params, seed, &state->settings);
}

static const struct dialect native = {
    .metric = METRICS_COMPLETION,
    .id_prefix = "cmpl",
    .state_bytes = sizeof(struct native_state),
    .read = params_read_native,
    .prepare = prepare,
    .free_state = free_state,
    .begin = begin,
    .delta = write_delta,
    .progress = write_progress,
    .end = write_end,
    .whole = write_whole,
};

void native_completion(struct server *server, struct exchange *exchange)
{
    dialect_answer(server, exchange, &native);
}
