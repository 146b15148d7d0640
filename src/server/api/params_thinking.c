/* params_thinking.c: thinking on, off, or up to a budget, what closes a thought, and where thoughts are told, under the names
 * that servers and their clients have for it. Owns nothing; any thread. */
#include "server/api/params.h"

#include <stdio.h>
#include <string.h>

/* What a word for the effort means, in percent of the tokens that the answer may have. Docs: thoughts.md. */
struct effort {
    const char *name;
    unsigned soft_percent,
        hard_percent; /* of soft_thinking_budget and thinking_budget; hard 0: no thought at all */
};

static const struct effort efforts[] = {
    {"none", 0, 0}, {"minimal", 5, 10}, {"low", 15, 25}, {"medium", 30, 50}, {"high", 60, 75}};

/* What the names read so far agree on. Whichever of them says no switches thinking off. */
struct thinking {
    bool is_said; /* else the server's --reasoning decides */
    bool is_off;
    const char *budget_name, *effort_name, *message_name; /* NULL: not given */
    int64_t budget, soft_budget, reserve;                 /* -1: none; reserve: not said */
    const struct effort *effort;
    const json_t *message;
};

static int add_budget(const char *name, int64_t budget, struct thinking *thinking, struct refusal *refusal)
{
    if (thinking->budget_name && thinking->budget != budget)
        return refuse(refusal, name, "expected the same budget as %s, %lld, found %lld",
                      thinking->budget_name, (long long)thinking->budget, (long long)budget);
    thinking->budget_name = name;
    thinking->budget = budget;
    thinking->is_said = thinking->is_said || budget > 0;
    return 0;
}

static const struct effort *find_effort(const json_t *value)
{
    for (size_t i = 0; i < sizeof efforts / sizeof *efforts; i++)
        if (json_is_text(value, efforts[i].name))
            return &efforts[i];
    return NULL;
}

/* "none" switches thinking off. */
static int add_effort(const char *name, const json_t *value, struct thinking *thinking,
                      struct refusal *refusal)
{
    if (!value)
        return 0;
    const struct effort *effort = find_effort(value);
    if (!effort)
        return refuse(refusal, name,
                      "expected \"none\", \"minimal\", \"low\", \"medium\" or \"high\", found another value");
    if (thinking->effort_name && thinking->effort != effort)
        return refuse(refusal, name, "expected the same effort as %s, \"%s\", found \"%s\"",
                      thinking->effort_name, thinking->effort->name, effort->name);
    thinking->effort_name = name;
    thinking->effort = effort;
    thinking->is_said = true;
    thinking->is_off = thinking->is_off || !effort->hard_percent;
    return 0;
}

/* What is written before a thought is closed; an empty text asks for nothing. */
static int add_message(const char *name, const json_t *value, struct thinking *thinking,
                       struct refusal *refusal)
{
    size_t len = json_string_length(value);
    if (!value)
        return 0;
    if (!json_is_string(value))
        return refuse(refusal, name, "expected a string");
    if (memchr(json_string_value(value), 0, len))
        return refuse(refusal, name, "expected a text without zero bytes");
    if (strstr(json_string_value(value), "</think>"))
        return refuse(refusal, name, "expected a text without </think>, which is written behind it");
    if (len > PARAMS_MESSAGE_BYTES)
        return refuse(refusal, name, "expected a text of up to %d bytes, found one of %zu",
                      PARAMS_MESSAGE_BYTES, len);
    if (thinking->message_name && !json_equal(thinking->message, value))
        return refuse(refusal, name, "expected the same text as %s, found another", thinking->message_name);
    thinking->message_name = name;
    thinking->message = value;
    return 0;
}

static int add_switch(const char *name, const json_t *value, struct thinking *thinking,
                      struct refusal *refusal)
{
    if (value && !json_is_boolean(value))
        return refuse(refusal, name, "expected true or false");
    thinking->is_said = thinking->is_said || value;
    thinking->is_off = thinking->is_off || json_is_false(value);
    return 0;
}

/* A budget within an object; path names both. */
static int add_inner_budget(const json_t *object, const char *path, struct thinking *thinking,
                            struct refusal *refusal)
{
    const char *name = strrchr(path, '.') + 1;
    int64_t budget = -1;
    if (!json_find(object, name))
        return 0;
    if (json_read_int(object, name, -1, INT32_MAX, true, &budget, refusal))
        return refuse(refusal, path, "expected a whole number from -1");
    return add_budget(path, budget, thinking, refusal);
}

static int read_budgets(const json_t *root, struct thinking *thinking, struct refusal *refusal)
{
    static const char *const names[] = {
        "thinking_budget_tokens", "reasoning_budget_tokens", "reasoning_budget", "thinking_token_budget",
        "max_thinking_tokens",    "reasoning_max_tokens",    "thinking_budget"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        int64_t budget = -1;
        if (json_find(root, names[i]) && (params_read_whole(root, names[i], &budget, refusal) ||
                                          add_budget(names[i], budget, thinking, refusal)))
            return -1;
    }
    return 0;
}

/* The names that no other server has. */
static int read_own_names(const json_t *root, struct thinking *thinking, struct refusal *refusal)
{
    if (params_read_whole(root, "soft_thinking_budget_tokens", &thinking->soft_budget, refusal) ||
        params_read_whole(root, "answer_reserve", &thinking->reserve, refusal))
        return -1;
    thinking->is_said = thinking->is_said || thinking->soft_budget > 0;
    return 0;
}

static int find_object(const json_t *root, const char *name, const json_t **object, struct refusal *refusal)
{
    *object = json_find(root, name);
    return *object && !json_is_object(*object) ? refuse(refusal, name, "expected an object") : 0;
}

/* Templates may ask for any name. Those that are not passed on to them are refused; a name is told only if it is one, and
 * not whatever a client wrote. */
static int refuse_other_arguments(const json_t *object, struct refusal *refusal)
{
    static const char *const known[] = {"enable_thinking", "thinking", "reasoning_effort", "thinking_budget"};
    static const char letters[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_";
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)(uintptr_t)object, key, value)
    {
        bool is_known = json_is_null(value);
        for (size_t i = 0; i < sizeof known / sizeof *known; i++)
            is_known = is_known || !strcmp(key, known[i]);
        if (is_known)
            continue;
        char path[64] = "chat_template_kwargs";
        if (strlen(key) <= 40 && strspn(key, letters) == strlen(key))
            snprintf(path, sizeof path, "chat_template_kwargs.%.40s", key);
        return refuse(
            refusal, path,
            "not supported, and not ignored as it would change the prompt; expected enable_thinking, "
            "thinking, reasoning_effort or thinking_budget");
    }
    return 0;
}

static int read_template_arguments(const json_t *root, struct thinking *thinking, struct refusal *refusal)
{
    const json_t *object;
    if (find_object(root, "chat_template_kwargs", &object, refusal) ||
        refuse_other_arguments(object, refusal) ||
        add_switch("chat_template_kwargs.enable_thinking", json_find(object, "enable_thinking"), thinking,
                   refusal) ||
        add_switch("chat_template_kwargs.thinking", json_find(object, "thinking"), thinking, refusal) ||
        add_effort("chat_template_kwargs.reasoning_effort", json_find(object, "reasoning_effort"), thinking,
                   refusal))
        return -1;
    return add_inner_budget(object, "chat_template_kwargs.thinking_budget", thinking, refusal);
}

/* {"type": "enabled" or "disabled", "budget_tokens"}, or true or false. */
static int read_thinking_object(const json_t *root, struct thinking *thinking, struct refusal *refusal)
{
    const json_t *object = json_find(root, "thinking"), *type = json_find(object, "type");
    if (!object || json_is_boolean(object))
        return add_switch("thinking", object, thinking, refusal);
    if (!json_is_object(object))
        return refuse(refusal, "thinking", "expected an object, true or false");
    bool is_off = json_is_text(type, "disabled");
    if (type && !is_off && !json_is_text(type, "enabled") && !json_is_text(type, "adaptive") &&
        !json_is_text(type, "auto"))
        return refuse(refusal, "thinking.type",
                      "expected \"enabled\", \"disabled\", \"adaptive\" or \"auto\"");
    thinking->is_said = true;
    thinking->is_off = thinking->is_off || is_off;
    return add_inner_budget(object, "thinking.budget_tokens", thinking, refusal);
}

/* {"effort", "max_tokens", "enabled", "exclude"} */
static int read_reasoning_object(const json_t *root, struct thinking *thinking, struct refusal *refusal)
{
    const json_t *object;
    bool excludes = false;
    if (find_object(root, "reasoning", &object, refusal) ||
        add_effort("reasoning.effort", json_find(object, "effort"), thinking, refusal) ||
        add_switch("reasoning.enabled", json_find(object, "enabled"), thinking, refusal) ||
        add_inner_budget(object, "reasoning.max_tokens", thinking, refusal))
        return -1;
    if (json_read_bool(object, "exclude", &excludes, refusal))
        return refuse(refusal, "reasoning.exclude", "expected true or false");
    return excludes ? refuse(refusal, "reasoning.exclude",
                             "expected false: thoughts are always told, apart from the answer")
                    : 0;
}

/* Ollama's: true, false, or an effort. */
static int read_think(const json_t *root, struct thinking *thinking, struct refusal *refusal)
{
    const json_t *think = json_find(root, "think");
    if (json_is_string(think))
        return add_effort("think", think, thinking, refusal);
    if (think && !json_is_boolean(think))
        return refuse(refusal, "think", "expected true, false or a string");
    return add_switch("think", think, thinking, refusal);
}

static int read_custom_params(const json_t *root, struct thinking *thinking, struct refusal *refusal)
{
    const json_t *object;
    return find_object(root, "custom_params", &object, refusal)
               ? -1
               : add_inner_budget(object, "custom_params.thinking_budget", thinking, refusal);
}

/* FastDeploy's {"thinking_budget", "think_stop_sentence"}, and the names that stand by themselves. */
static int read_messages(const json_t *root, struct thinking *thinking, struct refusal *refusal)
{
    const json_t *object;
    if (find_object(root, "logits_processors_args", &object, refusal) ||
        add_inner_budget(object, "logits_processors_args.thinking_budget", thinking, refusal) ||
        add_message("logits_processors_args.think_stop_sentence", json_find(object, "think_stop_sentence"),
                    thinking, refusal) ||
        add_message("think_stop_sentence", json_find(root, "think_stop_sentence"), thinking, refusal))
        return -1;
    return add_message("reasoning_budget_message", json_find(root, "reasoning_budget_message"), thinking,
                       refusal);
}

/* All that goes wrong between what is right by itself. */
static int check_together(const struct thinking *thinking, bool is_raw, struct refusal *refusal)
{
    const char *name = thinking->budget >= 0                   ? thinking->budget_name
                       : thinking->soft_budget >= 0            ? "soft_thinking_budget_tokens"
                       : thinking->reserve > 0                 ? "answer_reserve"
                       : json_string_length(thinking->message) ? thinking->message_name
                                                               : NULL;
    if (is_raw && name)
        return refuse(refusal, name, "not together with raw, where thoughts are not known");
    if (thinking->budget >= 0 && thinking->soft_budget > thinking->budget)
        return refuse(refusal, "soft_thinking_budget_tokens", "expected at most %s, %lld, found %lld",
                      thinking->budget_name, (long long)thinking->budget, (long long)thinking->soft_budget);
    return 0;
}

/* The message's tokens come out of max_tokens: the engine takes so many and no more. */
static int check_message(const struct thinking *thinking, const struct params_limits *limits,
                         struct refusal *refusal)
{
    const size_t most = RUNNEL_THINKING_MESSAGE_MAX;
    int32_t *ids;
    size_t n_ids;
    runnel_error error;
    if (!json_string_length(thinking->message) || !limits->encode)
        return 0;
    if (limits->encode(limits->encode_user, json_string_value(thinking->message),
                       json_string_length(thinking->message), &ids, &n_ids, &error)) {
        refuse(refusal, NULL, "no memory for the request");
        refusal->status = 503;
        return -1;
    }
    runnel_tokens_free(ids);
    return n_ids <= most ? 0
                         : refuse(refusal, thinking->message_name,
                                  "expected a text of up to %zu tokens, found one of %zu", most, n_ids);
}

/* What the answer may have at most, as far as that is known before its prompt is. */
static int64_t answer_tokens(const struct params_limits *limits, const runnel_request *request)
{
    int64_t n_context = limits->defaults.n_context, n = request->max_tokens;
    return !n || (n_context && n_context < n) ? n_context : n;
}

static int64_t smaller(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

/* An effort is budgets; one that is named goes before it. As the prompt may leave less than they are shares of, the engine's
 * reserve stands beside them. */
static void apply_effort(struct thinking *thinking, const struct params_limits *limits,
                         runnel_request *request)
{
    const struct effort *effort = thinking->effort;
    int64_t n = answer_tokens(limits, request);
    if (!effort || thinking->is_off || thinking->budget_name || thinking->soft_budget >= 0 || !n)
        return;
    int64_t hard = n * effort->hard_percent / 100, soft = n * effort->soft_percent / 100;
    thinking->budget = hard > 1 ? hard : 1;
    thinking->soft_budget = smaller(soft, thinking->budget - 1);
    request->keeps_reserve = true;
}

int params_read_thinking(const json_t *root, const struct params_limits *limits, struct params *params,
                         struct refusal *refusal)
{
    runnel_request *request = &params->request;
    struct thinking thinking = {.budget = -1, .soft_budget = -1, .reserve = -1};
    if (add_switch("enable_thinking", json_find(root, "enable_thinking"), &thinking, refusal) ||
        read_template_arguments(root, &thinking, refusal) ||
        add_effort("reasoning_effort", json_find(root, "reasoning_effort"), &thinking, refusal) ||
        read_think(root, &thinking, refusal) || read_thinking_object(root, &thinking, refusal) ||
        read_reasoning_object(root, &thinking, refusal) || read_custom_params(root, &thinking, refusal) ||
        read_messages(root, &thinking, refusal) || read_budgets(root, &thinking, refusal) ||
        read_own_names(root, &thinking, refusal) || check_together(&thinking, request->raw, refusal) ||
        check_message(&thinking, limits, refusal))
        return -1;
    if (!request->raw)
        apply_effort(&thinking, limits, request);
    if (thinking.is_said)
        request->no_thinking = thinking.is_off;
    request->thinking_budget = (int)thinking.budget;
    request->soft_thinking_budget = (int)thinking.soft_budget;
    request->answer_reserve = (int)thinking.reserve;
    if (json_string_length(thinking.message))
        request->thinking_message = json_string_value(thinking.message);
    return 0;
}

int params_read_thoughts_place(const json_t *root, struct params *params, struct refusal *refusal)
{
    const json_t *format = json_find(root, "reasoning_format");
    bool separates = true;
    bool repeats = json_is_text(format, "deepseek-legacy");
    if (params_read_bool(root, "separate_reasoning", &separates, refusal))
        return -1;
    if (repeats || json_is_text(format, "none"))
        params->split_reasoning = false;
    else if (json_is_text(format, "deepseek"))
        params->split_reasoning = true;
    else if (format && !json_is_text(format, "auto"))
        return refuse(refusal, "reasoning_format",
                      "expected \"deepseek\", \"deepseek-legacy\", \"none\" or \"auto\"");
    params->repeats_reasoning = repeats;
    if (!json_find(root, "separate_reasoning"))
        return 0;
    if (format && !json_is_text(format, "auto") && (repeats || separates != params->split_reasoning))
        return refuse(refusal, "separate_reasoning",
                      "expected what reasoning_format says, found the opposite");
    params->split_reasoning = separates;
    return 0;
}
