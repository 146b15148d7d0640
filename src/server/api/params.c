/* params.c: the bodies of /v1/chat/completions, /v1/completions and /generate (see params.h). Any thread. */
#include "server/api/params.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int no_memory(struct refusal *refusal)
{
    refuse(refusal, NULL, "no memory for the request");
    refusal->status = 503;
    return -1;
}

static int start(json_t *root, const struct params_limits *limits, struct params *params,
                 struct refusal *refusal)
{
    if (!json_is_object(root))
        return refuse(refusal, NULL, "the body: expected a JSON object, found another value");
    *params = (struct params){.request = limits->defaults,
                              .sampling = *limits->defaults.sampling,
                              .root = json_incref(root),
                              .n_choices = 1};
    return 0;
}

/* What was read gets its place, and points to itself there. */
static void settle(struct params *params, const struct params *read)
{
    *params = *read;
    params->request.stop = params->stop;
    params->request.sampling = &params->sampling;
}

void params_free(struct params *params)
{
    for (size_t i = 0; i < params->n_made; i++)
        free(params->made[i]);
    free(params->made);
    free(params->messages);
    free(params->message_tools);
    for (size_t i = 0; i < params->n_prompts; i++)
        free(params->prompts[i].ids);
    free(params->prompts);
    free(params->biases);
    runnel_tokens_free(params->encoded);
    runnel_grammar_free(params->grammar);
    free(params->constraint_text);
    free(params->choices);
    json_decref(params->root);
    *params = (struct params){0};
}

/* A conversation ------------------------------------------------------------------------------------------ */

/* What the template calls this role; NULL: it knows no such role. */
static const char *read_role(const json_t *value)
{
    static const struct {
        const char *name, *role;
    } roles[] = {{"system", "system"},
                 {"developer", "system"},
                 {"user", "user"},
                 {"assistant", "assistant"},
                 {"tool", "tool"}};
    for (size_t i = 0; i < sizeof roles / sizeof *roles; i++)
        if (json_is_text(value, roles[i].name))
            return roles[i].role;
    return NULL;
}

static int refuse_part(const json_t *type, const char *field, size_t index, struct refusal *refusal)
{
    static const struct {
        const char *type, *what;
    } kinds[] = {{"image_url", "images"},   {"input_image", "images"}, {"image", "images"},
                 {"input_audio", "sounds"}, {"audio_url", "sounds"},   {"audio", "sounds"},
                 {"video_url", "videos"},   {"video", "videos"},       {"input_file", "files"},
                 {"file", "files"},         {"document", "files"}};
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
        if (json_is_text(type, kinds[i].type))
            return refuse(refusal, field,
                          "part %zu is of type %s, and %s are not read: the model knows text alone", index,
                          kinds[i].type, kinds[i].what);
    return refuse(refusal, field, "expected parts {\"type\": \"text\", \"text\": \"...\"}, part %zu is none",
                  index);
}

/* [{"type":"text","text":"..."}, ...] to one text, the parts on lines of their own. */
static int join_parts(const json_t *parts, const char *field, struct params *params, runnel_message *message,
                      struct refusal *refusal)
{
    const json_t *part;
    size_t i, len = 0;
    json_array_foreach(parts, i, part)
    {
        const json_t *type = json_object_get(part, "type"), *text = json_object_get(part, "text");
        if (!json_is_text(type, "text") || !json_is_string(text))
            return refuse_part(type, field, i, refusal);
        len += json_string_length(text) + 1;
    }
    char *joined = malloc(len + 1), *at = joined;
    if (!joined)
        return no_memory(refusal);
    params->made[params->n_made++] = joined;
    json_array_foreach(parts, i, part)
    {
        const json_t *text = json_object_get(part, "text");
        if (at > joined)
            *at++ = '\n';
        memcpy(at, json_string_value(text), json_string_length(text));
        at += json_string_length(text);
    }
    *at = '\0';
    message->content = joined;
    message->content_len = (size_t)(at - joined);
    return 0;
}

static int read_message(const json_t *value, size_t index, struct params *params, runnel_message *message,
                        struct refusal *refusal)
{
    char field[64];
    snprintf(field, sizeof field, "messages[%zu]", index);
    if (!json_is_object(value))
        return refuse(refusal, field, "expected an object");
    snprintf(field, sizeof field, "messages[%zu].role", index);
    message->role = read_role(json_object_get(value, "role"));
    if (!message->role)
        return refuse(refusal, field,
                      "expected \"system\", \"developer\", \"user\", \"assistant\" or \"tool\"");
    if (params_read_message_tools(value, index, params, refusal))
        return -1;
    snprintf(field, sizeof field, "messages[%zu].content", index);
    const json_t *content = json_find(value, "content");
    if (json_is_array(content))
        return join_parts(content, field, params, message, refusal);
    bool may_lack = !strcmp(message->role, "assistant") || !strcmp(message->role, "tool");
    if (!json_is_string(content) && !(may_lack && !content))
        return refuse(refusal, field, "expected a string or a list of parts");
    message->content = content ? json_string_value(content) : "";
    message->content_len = json_string_length(content);
    return 0;
}

/* What the assistant has begun is gone on with, as llama-server does; if it is nothing, the answer begins. */
static int end_messages(runnel_request *request, struct refusal *refusal)
{
    const runnel_message *last = &request->messages[request->n_messages - 1];
    if (request->message_tools[request->n_messages - 1].calls)
        return refuse(refusal, "messages", "expected the results of the calls that the last message has");
    if (strcmp(last->role, "assistant") != 0)
        return 0;
    if (last->content_len)
        request->continues = true;
    else if (request->n_messages > 1)
        request->n_messages--;
    return 0;
}

static int read_messages(const json_t *root, struct params *params, struct refusal *refusal)
{
    const json_t *messages = json_find(root, "messages"), *value;
    size_t i, n = json_array_size(messages);
    if (!json_is_array(messages) || !n)
        return refuse(refusal, "messages", "expected a list of at least one message");
    params->messages = calloc(n, sizeof *params->messages);
    params->message_tools = calloc(n, sizeof *params->message_tools);
    params->made = calloc(2 * n + 1, sizeof *params->made); /* content and calls of each, and the tools */
    if (!params->messages || !params->message_tools || !params->made)
        return no_memory(refusal);
    json_array_foreach(messages, i, value)
    {
        if (read_message(value, i, params, &params->messages[i], refusal))
            return -1;
    }
    if (n > 1 && !strcmp(params->messages[n - 1].role, "assistant") &&
        !strcmp(params->messages[n - 2].role, "assistant"))
        return refuse(refusal, "messages",
                      "expected at most one message of the assistant at the end, found two");
    params->request.messages = params->messages;
    params->request.message_tools = params->message_tools;
    params->request.n_messages = n;
    if (end_messages(&params->request, refusal))
        return -1;
    if (params->request.continues && json_is_false(json_find(root, "continue_final_message")))
        return refuse(
            refusal, "continue_final_message",
            "expected true or none, as the last message is the assistant's, which is always gone on with; "
            "found false");
    return 0;
}

static int read_chat_logprobs(const json_t *root, struct params *params, struct refusal *refusal)
{
    bool wants = false;
    int64_t n_top = 0;
    if (params_read_bool(root, "logprobs", &wants, refusal) ||
        params_read_whole(root, "top_logprobs", &n_top, refusal))
        return -1;
    if (n_top && !wants)
        return refuse(refusal, "top_logprobs", "only together with logprobs");
    params->request.n_logprobs = wants ? (int)n_top : -1;
    return 0;
}

int params_read_chat(json_t *root, const struct params_limits *limits, struct params *params,
                     struct refusal *refusal)
{
    struct params read;
    if (start(root, limits, &read, refusal))
        return -1;
    if (read_messages(root, &read, refusal) ||
        params_read_common(root, limits, PARAMS_CHAT, &read, refusal) ||
        params_read_tools(root, &read, refusal) || params_check_constraint(&read, refusal) ||
        params_read_stream(root, &read, refusal) || params_read_thinking(root, limits, &read, refusal) ||
        params_read_thoughts_place(root, &read, refusal) || read_chat_logprobs(root, &read, refusal) ||
        params_read_bool(root, "reasoning_control", &read.allows_control, refusal)) {
        params_free(&read);
        return -1;
    }
    settle(params, &read);
    return 0;
}

/* Prompts to be continued --------------------------------------------------------------------------------- */

int params_read_completion(json_t *root, const struct params_limits *limits, struct params *params,
                           struct refusal *refusal)
{
    struct params read;
    int64_t n_logprobs = -1;
    bool echo = false;
    if (start(root, limits, &read, refusal))
        return -1;
    if (params_read_prompts(root, limits, &read, refusal) ||
        params_read_common(root, limits, PARAMS_COMPLETION, &read, refusal) ||
        params_read_stream(root, &read, refusal) || json_read_bool(root, "echo", &echo, refusal) ||
        (echo && refuse(refusal, "echo", "not supported")) ||
        (!json_is_false(json_find(root, "logprobs")) &&
         params_read_whole(root, "logprobs", &n_logprobs, refusal))) {
        params_free(&read);
        return -1;
    }
    settle(params, &read);
    params->request.raw = true;
    params->request.n_logprobs = (int)n_logprobs;
    return 0;
}

/* In llama-server's form 0 tokens are none: what has to be drawn all the same is not told. */
static int read_native_max_tokens(const json_t *root, struct params *params, struct refusal *refusal)
{
    int64_t n_predict = -1;
    if (params_read_whole(root, "n_predict", &n_predict, refusal))
        return -1;
    params->evaluates_only = n_predict == 0;
    return 0;
}

static int read_native_tokens(const json_t *root, struct params *params, struct refusal *refusal)
{
    int64_t n_probs = 0;
    bool reads_cache = true;
    if (params_read_whole(root, "n_probs", &n_probs, refusal) ||
        params_read_bool(root, "return_tokens", &params->return_tokens, refusal) ||
        params_read_bool(root, "cache_prompt", &reads_cache, refusal) ||
        params_read_bool(root, "post_sampling_probs", &params->request.wants_sampled_probs, refusal))
        return -1;
    params->request.n_logprobs = n_probs ? (int)n_probs : -1;
    params->request.wants_tokens = params->return_tokens || params->stream;
    return 0;
}

/* Names of the answer's fields; an empty list is none. */
static int read_response_fields(const json_t *root, struct params *params, struct refusal *refusal)
{
    static const char name[] = "response_fields";
    json_t *list = json_find(root, name), *value;
    size_t i;
    if (list && !json_is_array(list))
        return refuse(refusal, name, "expected a list of names");
    if (json_array_size(list) > PARAMS_RESPONSE_FIELDS) /* each answer of the request is searched for all */
        return refuse(refusal, name, "expected at most %d names, found %zu", PARAMS_RESPONSE_FIELDS,
                      json_array_size(list));
    json_array_foreach(list, i, value)
    {
        if (!json_is_string(value) || strlen(json_string_value(value)) != json_string_length(value))
            return refuse(refusal, name, "expected a list of names");
    }
    params->response_fields = json_array_size(list) ? list : NULL;
    return 0;
}

int params_read_native(json_t *root, const struct params_limits *limits, struct params *params,
                       struct refusal *refusal)
{
    struct params read;
    if (start(root, limits, &read, refusal))
        return -1;
    if (read_native_max_tokens(root, &read, refusal) || params_read_prompts(root, limits, &read, refusal) ||
        params_read_common(root, limits, PARAMS_NATIVE, &read, refusal) ||
        params_read_stream(root, &read, refusal) || read_native_tokens(root, &read, refusal) ||
        read_response_fields(root, &read, refusal)) {
        params_free(&read);
        return -1;
    }
    settle(params, &read);
    params->request.raw = true;
    if (params->evaluates_only)
        params->request.max_tokens = 1;
    return 0;
}

/* /generate ------------------------------------------------------------------------------------------------ */

static int read_name(json_t *root, struct params *params, struct refusal *refusal)
{
    json_t *name = json_find(root, "id");
    if (!name)
        return 0;
    if (!json_is_integer(name) && !(json_is_string(name) && json_string_length(name) <= PARAMS_NAME_BYTES))
        return refuse(refusal, "id", "expected a whole number or a string of at most %d bytes",
                      PARAMS_NAME_BYTES);
    params->name = name;
    return 0;
}

/* Thoughts are always told apart here. */
static int refuse_thoughts_in_answer(const json_t *root, struct refusal *refusal)
{
    const json_t *format = json_find(root, "reasoning_format");
    if (format && !json_is_text(format, "deepseek") && !json_is_text(format, "auto"))
        return refuse(refusal, "reasoning_format", "expected \"deepseek\" or \"auto\"");
    return 0;
}

int params_read_generate(json_t *root, const struct params_limits *limits, struct params *params,
                         struct refusal *refusal)
{
    struct params read;
    if (start(root, limits, &read, refusal))
        return -1;
    const json_t *prompt = json_find(root, "prompt");
    read.request.max_tokens = GENERATE_MAX_TOKENS;
    if ((!json_is_string(prompt) && refuse(refusal, "prompt", "expected a string")) ||
        (!json_string_length(prompt) && refuse(refusal, "prompt", "it is empty")) ||
        params_read_bool(root, "raw", &read.request.raw, refusal) ||
        params_read_common(root, limits, PARAMS_GENERATE, &read, refusal) ||
        (read.n_choices > 1 && refuse(refusal, "n", "only 1 is supported")) ||
        params_read_thinking(root, limits, &read, refusal) || refuse_thoughts_in_answer(root, refusal) ||
        read_name(root, &read, refusal)) {
        params_free(&read);
        return -1;
    }
    settle(params, &read);
    params->request.prompt = json_string_value(prompt);
    params->request.prompt_len = json_string_length(prompt);
    return 0;
}
