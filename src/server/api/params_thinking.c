/* params_thinking.c: thinking on, off, or up to a budget, and where thoughts are told, under the names that servers and
 * their clients have for it. Owns nothing; any thread. */
#include "server/api/params.h"

#include <stdio.h>
#include <string.h>

/* What the names read so far agree on. Whichever of them says no switches thinking off. */
struct thinking {
    bool is_said; /* else the server's --reasoning decides */
    bool is_off;
    const char *budget_name, *effort_name; /* NULL: not given */
    int64_t budget;
    const json_t *effort;
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

/* "none" switches thinking off; other efforts change nothing. */
static int add_effort(const char *name, const json_t *value, struct thinking *thinking,
                      struct refusal *refusal)
{
    if (!value)
        return 0;
    if (!json_is_string(value))
        return refuse(refusal, name, "expected a string");
    if (thinking->effort_name && !json_equal(thinking->effort, value))
        return refuse(refusal, name, "expected the same effort as %s, found another", thinking->effort_name);
    thinking->effort_name = name;
    thinking->effort = value;
    thinking->is_said = true;
    thinking->is_off = thinking->is_off || json_is_text(value, "none");
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

int params_read_thinking(const json_t *root, struct params *params, struct refusal *refusal)
{
    struct thinking thinking = {.budget = -1};
    if (add_switch("enable_thinking", json_find(root, "enable_thinking"), &thinking, refusal) ||
        read_template_arguments(root, &thinking, refusal) ||
        add_effort("reasoning_effort", json_find(root, "reasoning_effort"), &thinking, refusal) ||
        read_think(root, &thinking, refusal) || read_thinking_object(root, &thinking, refusal) ||
        read_reasoning_object(root, &thinking, refusal) || read_custom_params(root, &thinking, refusal) ||
        read_budgets(root, &thinking, refusal))
        return -1;
    if (params->request.raw && thinking.budget >= 0)
        return refuse(refusal, thinking.budget_name, "not together with raw, where thoughts are not known");
    if (thinking.is_said)
        params->request.no_thinking = thinking.is_off;
    params->request.thinking_budget = (int)thinking.budget;
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
