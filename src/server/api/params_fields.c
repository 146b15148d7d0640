/* params_fields.c: the fields that requests of every route share. Owns nothing; any thread. */
#include "server/api/params.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static int no_memory(struct refusal *refusal)
{
    refuse(refusal, NULL, "no memory for the request");
    refusal->status = 503;
    return -1;
}

/* What would constrain the answer ------------------------------------------------------------------------- */

bool params_asks_for_nothing(const json_t *value)
{
    return !value || json_is_null(value) || json_is_false(value) ||
           (json_is_array(value) && !json_array_size(value)) ||
           (json_is_object(value) && !json_object_size(value)) ||
           (json_is_string(value) && !json_string_length(value));
}

/* Tools that the model must not call are not told to it. A conversation's are read by params_tools.c. */
static int refuse_tools(const json_t *root, unsigned route, struct refusal *refusal)
{
    static const struct {
        const char *tools, *choice;
    } names[] = {{"tools", "tool_choice"}, {"functions", "function_call"}};
    for (size_t i = route == PARAMS_CHAT; i < sizeof names / sizeof *names; i++) {
        const json_t *choice = json_find(root, names[i].choice);
        bool calls_none = json_is_text(choice, "none");
        if (choice && !calls_none && !json_is_text(choice, "auto"))
            return refuse(refusal, names[i].choice, "expected \"none\" or \"auto\", as there are no tools");
        if (!calls_none && !params_asks_for_nothing(json_find(root, names[i].tools)))
            return refuse(refusal, names[i].tools, "not supported, but for a %s of \"none\"",
                          names[i].choice);
    }
    return 0;
}

/* true where a route says yes anyway, and numbers between a field's bounds, ask for nothing either. */
static bool asks_for_no_more(const struct params_field *field, const json_t *value)
{
    if (field->kind == PARAMS_ONLY_TRUE)
        return !value || json_is_true(value);
    if (json_is_number(value))
        return json_number_value(value) >= field->least && json_number_value(value) <= field->most;
    return params_asks_for_nothing(value);
}

static int refuse_fields(const json_t *root, unsigned route, struct refusal *refusal)
{
    size_t n;
    const struct params_field *fields = params_fields(&n);
    for (size_t i = 0; i < n; i++) {
        bool may_be_refused = fields[i].kind == PARAMS_REFUSED || fields[i].kind == PARAMS_ONLY_TRUE;
        if (may_be_refused && (fields[i].routes & route) &&
            !asks_for_no_more(&fields[i], json_find(root, fields[i].name)))
            return refuse(refusal, fields[i].name,
                          "not supported here, and not ignored as it would change the answer");
    }
    return 0;
}

static int refuse_other_forms(const json_t *root, struct refusal *refusal)
{
    const json_t *verbosity = json_find(root, "verbosity");
    if (verbosity && !json_is_text(verbosity, "medium"))
        return refuse(refusal, "verbosity", "only \"medium\" is supported");
    const json_t *modalities = json_find(root, "modalities");
    if (modalities &&
        !(json_array_size(modalities) == 1 && json_is_text(json_array_get(modalities, 0), "text")))
        return refuse(refusal, "modalities", "only [\"text\"] is supported");
    return 0;
}

/* Fields -------------------------------------------------------------------------------------------------- */

static int read_sampling(const json_t *root, runnel_sampling *sampling, struct refusal *refusal)
{
    int64_t top_k = sampling->top_k, window = sampling->penalty_window;
    float top_p = sampling->top_p;
    float repetition = sampling->repetition_penalty;
    if (params_read_number(root, "temperature", &sampling->temperature, refusal) ||
        params_read_number(root, "top_p", &top_p, refusal) ||
        params_read_number(root, "min_p", &sampling->min_p, refusal) ||
        params_read_whole(root, "top_k", &top_k, refusal) ||
        params_read_number(root, "presence_penalty", &sampling->presence_penalty, refusal) ||
        params_read_number(root, "frequency_penalty", &sampling->frequency_penalty, refusal) ||
        params_read_number(root, "repeat_penalty", &repetition, refusal) ||
        params_read_number(root, "repetition_penalty", &repetition, refusal) ||
        params_read_whole(root, "repeat_last_n", &window, refusal))
        return -1;
    bool penalises = sampling->presence_penalty != 0 || sampling->frequency_penalty != 0 || repetition != 1;
    if (penalises && window == 0 && !json_find(root, "repeat_last_n"))
        window = -1; /* whoever asks for a penalty wants one */
    sampling->top_k = top_k < 0 ? 0 : (int)top_k;
    sampling->top_p = top_p > 0 ? top_p : 1e-6f; /* 0 is allowed by the API, and means the likeliest one */
    sampling->repetition_penalty = repetition;
    sampling->penalty_window = (int)window;
    return 0;
}

/* max_completion_tokens is the new name of max_tokens, n_predict llama-server's. Of several the last one counts. */
static const char *const max_tokens_names[] = {"max_tokens", "max_completion_tokens", "n_predict"};
enum { N_MAX_TOKENS_NAMES = sizeof max_tokens_names / sizeof *max_tokens_names };

/* The one that counts; NULL: none is given. */
static const char *find_max_tokens(const json_t *root)
{
    const char *found = NULL;
    for (size_t i = 0; i < N_MAX_TOKENS_NAMES; i++)
        if (json_find(root, max_tokens_names[i]))
            found = max_tokens_names[i];
    return found;
}

/* -1 is llama-server's way to say "as many as fit". */
static int read_max_tokens(const json_t *root, bool may_be_none, int *out, struct refusal *refusal)
{
    for (size_t i = 0; i < N_MAX_TOKENS_NAMES; i++) {
        const char *name = max_tokens_names[i];
        int64_t max_tokens = *out;
        if (!json_find(root, name))
            continue;
        if (params_read_whole(root, name, &max_tokens, refusal))
            return -1;
        if (max_tokens == 0 && !(may_be_none && !strcmp(name, "n_predict")))
            return refuse(refusal, name, "expected 1 or more, or -1 for as many as fit");
        *out = max_tokens < 0 ? 0 : (int)max_tokens;
    }
    return 0;
}

static int read_seed(const json_t *root, struct params *params, struct refusal *refusal)
{
    int64_t seed = -1;
    if (params_read_whole(root, "seed", &seed, refusal))
        return -1;
    params->has_seed = seed != -1; /* llama-server's way to say "any" */
    if (params->has_seed)
        params->sampling.seed = (uint64_t)seed;
    return 0;
}

static int add_stop(const json_t *value, struct params *params, struct refusal *refusal)
{
    if (!json_is_string(value))
        return refuse(refusal, "stop", "expected a string or a list of strings");
    size_t len = json_string_length(value);
    if (memchr(json_string_value(value), 0, len))
        return refuse(refusal, "stop", "expected texts without zero bytes");
    if (len > PARAMS_STOP_BYTES)
        return refuse(refusal, "stop", "expected texts of up to %d bytes, found one of %zu",
                      PARAMS_STOP_BYTES, len);
    if (len) /* an empty one asks for nothing */
        params->stop[params->request.n_stop++] = json_string_value(value);
    return 0;
}

static int read_stop(const json_t *root, struct params *params, struct refusal *refusal)
{
    const json_t *stop = json_find(root, "stop"), *value;
    size_t i;
    params->request.stop = params->stop;
    params->request.n_stop = 0;
    if (!stop)
        return 0;
    if (!json_is_array(stop))
        return add_stop(stop, params, refusal);
    if (json_array_size(stop) > PARAMS_STOPS)
        return refuse(refusal, "stop", "expected at most %d texts, found %zu", PARAMS_STOPS,
                      json_array_size(stop));
    json_array_foreach(stop, i, value)
    {
        if (add_stop(value, params, refusal))
            return -1;
    }
    return 0;
}

/* Decimal digits alone are a token's id. */
static bool is_token_id(const char *text, size_t len)
{
    return len && strspn(text, "0123456789") == len;
}

/* Biases of the tokens read so far. */
struct biases {
    const struct params_limits *limits;
    struct params *params;
    size_t n, cap;
};

static int add_bias(struct biases *biases, int64_t id, float bias, struct refusal *refusal)
{
    if (id < 0 || id >= (int64_t)biases->limits->n_vocab)
        return refuse(refusal, "logit_bias", "expected token ids from 0 to %u", biases->limits->n_vocab - 1);
    if (biases->n == PARAMS_LOGIT_BIASES)
        return refuse(refusal, "logit_bias", "expected at most %d entries", PARAMS_LOGIT_BIASES);
    if (biases->n == biases->cap) {
        size_t cap = 2 * biases->cap + 16;
        runnel_logit_bias *grown = realloc(biases->params->biases, cap * sizeof *grown);
        if (!grown)
            return no_memory(refusal);
        biases->params->biases = grown;
        biases->cap = cap;
    }
    biases->params->biases[biases->n++] = (runnel_logit_bias){.token = (int32_t)id, .bias = bias};
    return 0;
}

/* A text stands for each of its tokens. */
static int add_text_bias(struct biases *biases, const char *text, size_t len, float bias,
                         struct refusal *refusal)
{
    const struct params_limits *limits = biases->limits;
    int32_t *ids;
    size_t n_ids;
    runnel_error error;
    if (!limits->encode || !len)
        return refuse(refusal, "logit_bias", "expected token ids from 0 to %u", limits->n_vocab - 1);
    if (limits->encode(limits->encode_user, text, len, &ids, &n_ids, &error))
        return no_memory(refusal);
    int failure = 0;
    for (size_t i = 0; i < n_ids && !failure; i++)
        failure = add_bias(biases, ids[i], bias, refusal);
    runnel_tokens_free(ids);
    return failure;
}

/* A number from -100 to 100, or false: never. */
static int read_bias(const json_t *value, float *bias, struct refusal *refusal)
{
    double number = json_number_value(value);
    if (json_is_false(value)) {
        *bias = -INFINITY;
        return 0;
    }
    if (!json_is_number(value) || !(number >= -100 && number <= 100))
        return refuse(refusal, "logit_bias", "expected numbers from -100 to 100, or false");
    *bias = (float)number;
    return 0;
}

/* {"id or text": bias, ...} */
static int read_bias_object(json_t *object, struct biases *biases, struct refusal *refusal)
{
    const char *key;
    json_t *value;
    float bias;
    json_object_foreach(object, key, value)
    {
        size_t len = strlen(key);
        if (read_bias(value, &bias, refusal))
            return -1;
        if (is_token_id(key, len) ? add_bias(biases, len > 9 ? -1 : strtol(key, NULL, 10), bias, refusal)
                                  : add_text_bias(biases, key, len, bias, refusal))
            return -1;
    }
    return 0;
}

/* [[id or text, bias], ...] */
static int read_bias_pairs(const json_t *array, struct biases *biases, struct refusal *refusal)
{
    const json_t *pair;
    size_t i;
    float bias;
    json_array_foreach(array, i, pair)
    {
        const json_t *token = json_array_get(pair, 0);
        if (json_array_size(pair) != 2 || !(json_is_integer(token) || json_is_string(token)))
            return refuse(refusal, "logit_bias", "expected pairs of a token id or text and a number");
        if (read_bias(json_array_get(pair, 1), &bias, refusal))
            return -1;
        if (json_is_integer(token)
                ? add_bias(biases, json_integer_value(token), bias, refusal)
                : add_text_bias(biases, json_string_value(token), json_string_length(token), bias, refusal))
            return -1;
    }
    return 0;
}

static int read_logit_bias(const json_t *root, const struct params_limits *limits, struct params *params,
                           struct refusal *refusal)
{
    json_t *bias = json_find(root, "logit_bias");
    struct biases biases = {.limits = limits, .params = params};
    if (!bias)
        return 0;
    if (!json_is_object(bias) && !json_is_array(bias))
        return refuse(refusal, "logit_bias", "expected an object or a list of pairs: token ids and numbers");
    if (json_is_object(bias) ? read_bias_object(bias, &biases, refusal)
                             : read_bias_pairs(bias, &biases, refusal))
        return -1;
    params->sampling.logit_bias = params->biases;
    params->sampling.n_logit_bias = biases.n;
    return 0;
}

/* Past what the client allows at most it is refused; past the server's own --max-tokens the answer gets as many. */
static int read_min_tokens(const json_t *root, struct params *params, struct refusal *refusal)
{
    static const char *const names[] = {"min_tokens", "min_new_tokens"};
    runnel_request *request = &params->request;
    const char *most_name = find_max_tokens(root);
    int most = params->evaluates_only ? 0 : request->max_tokens;
    bool has_most = params->evaluates_only || (most_name && most);
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        int64_t n = request->min_tokens;
        if (params_read_whole(root, names[i], &n, refusal))
            return -1;
        if (has_most && n > most)
            return refuse(refusal, names[i], "expected at most %s, %d, found %lld", most_name, most,
                          (long long)n);
        request->min_tokens = (int)n;
    }
    if (request->max_tokens && request->min_tokens > request->max_tokens)
        request->max_tokens = request->min_tokens;
    return 0;
}

static int read_n(const json_t *root, uint32_t most, struct params *params, struct refusal *refusal)
{
    int64_t n = 1;
    if (json_read_int(root, "n_cmpl", 1, most, false, &n, refusal) ||
        json_read_int(root, "n", 1, most, false, &n, refusal))
        return -1;
    int64_t best_of = n;
    if (json_read_int(root, "best_of", 1, most, false, &best_of, refusal))
        return -1;
    if (best_of != n)
        return refuse(refusal, "best_of", "expected the same number as n, %lld, found %lld", (long long)n,
                      (long long)best_of);
    params->n_choices = (unsigned)n;
    return 0;
}

int params_read_common(const json_t *root, const struct params_limits *limits, unsigned route,
                       struct params *params, struct refusal *refusal)
{
    const json_t *model = json_find(root, "model");
    if (model && !json_is_string(model))
        return refuse(refusal, "model", "expected a string");
    params->split_reasoning = limits->split_reasoning;
    if (refuse_tools(root, route, refusal) || refuse_fields(root, route, refusal) ||
        refuse_other_forms(root, refusal) || params_read_constraint(root, params, refusal) ||
        read_sampling(root, &params->sampling, refusal) ||
        read_max_tokens(root, params->evaluates_only, &params->request.max_tokens, refusal) ||
        read_min_tokens(root, params, refusal) || read_seed(root, params, refusal) ||
        read_stop(root, params, refusal) || read_logit_bias(root, limits, params, refusal) ||
        read_n(root, limits->n_choices, params, refusal) ||
        params_read_bool(root, "ignore_eos", &params->request.ignore_eos, refusal))
        return -1;
    return 0;
}

int params_read_stream(const json_t *root, struct params *params, struct refusal *refusal)
{
    const json_t *options = json_find(root, "stream_options");
    bool progress = false;
    if (params_read_bool(root, "stream", &params->stream, refusal) ||
        params_read_bool(root, "timings_per_token", &params->request.wants_counts, refusal) ||
        params_read_bool(root, "return_progress", &progress, refusal))
        return -1;
    params->request.wants_progress = progress && params->stream;
    if (!options)
        return 0;
    if (!json_is_object(options))
        return refuse(refusal, "stream_options", "expected an object");
    return json_read_bool(options, "include_usage", &params->include_usage, refusal)
               ? refuse(refusal, "stream_options.include_usage", "expected true or false")
               : 0;
}
