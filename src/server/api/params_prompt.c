/* params_prompt.c: the prompts of completions: texts, token ids, both mixed, and lists of these. Owns nothing; any
 * thread. */
#include "server/api/params.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char expected[] =
    "expected a string, token ids, both mixed, {\"prompt_string\"}, or a list of these";

static int no_memory(struct refusal *refusal)
{
    refuse(refusal, NULL, "no memory for the request");
    refusal->status = 503;
    return -1;
}

static int reserve(struct params_prompt *prompt, size_t n, struct refusal *refusal)
{
    int32_t *ids = realloc(prompt->ids, (prompt->n_ids + n) * sizeof *ids + 1);
    if (!ids)
        return no_memory(refusal);
    prompt->ids = ids;
    return 0;
}

static int add_id(const json_t *value, uint32_t n_vocab, struct params_prompt *prompt,
                  struct refusal *refusal)
{
    json_int_t id = json_integer_value(value);
    if (!json_is_integer(value) || id < 0 || id >= (json_int_t)n_vocab)
        return refuse(refusal, "prompt", "expected token ids from 0 to %u", n_vocab - 1);
    prompt->ids[prompt->n_ids++] = (int32_t)id;
    return 0;
}

/* The first text of a prompt is led by the token with which the model wants texts to begin. Keeps room for n_more. */
static int add_text(const json_t *value, size_t n_more, const struct params_limits *limits,
                    struct params_prompt *prompt, struct refusal *refusal)
{
    int32_t *ids;
    size_t n_ids;
    runnel_error error;
    if (!limits->encode)
        return refuse(refusal, "prompt", "text and token ids cannot be mixed here");
    if (limits->encode(limits->encode_user, json_string_value(value), json_string_length(value), &ids, &n_ids,
                       &error))
        return no_memory(refusal);
    bool led = limits->bos >= 0 && !prompt->n_ids && !(n_ids && ids[0] == limits->bos);
    int failure = reserve(prompt, n_ids + led + n_more, refusal);
    if (!failure) {
        if (led)
            prompt->ids[prompt->n_ids++] = limits->bos;
        if (n_ids)
            memcpy(prompt->ids + prompt->n_ids, ids, n_ids * sizeof *ids);
        prompt->n_ids += n_ids;
    }
    runnel_tokens_free(ids);
    return failure;
}

static int read_text(const json_t *value, const struct params_limits *limits, struct params_prompt *prompt,
                     struct refusal *refusal)
{
    if (!json_string_length(value))
        return refuse(refusal, "prompt", "it is empty");
    if (limits->encode)
        return add_text(value, 0, limits, prompt, refusal);
    prompt->text = json_string_value(value);
    prompt->text_len = json_string_length(value);
    return 0;
}

static int read_mixed(const json_t *array, const struct params_limits *limits, struct params_prompt *prompt,
                      struct refusal *refusal)
{
    const json_t *value;
    size_t i, n = json_array_size(array);
    if (reserve(prompt, n, refusal))
        return -1;
    json_array_foreach(array, i, value)
    {
        if (json_is_string(value) ? add_text(value, n, limits, prompt, refusal)
                                  : add_id(value, limits->n_vocab, prompt, refusal))
            return -1;
    }
    return prompt->n_ids ? 0 : refuse(refusal, "prompt", "it is empty");
}

static int read_prompt(const json_t *value, const struct params_limits *limits, struct params_prompt *prompt,
                       struct refusal *refusal)
{
    if (json_is_object(value)) {
        const json_t *data = json_find(value, "multimodal_data");
        if (json_array_size(data) || (data && !json_is_array(data)))
            return refuse(refusal, "prompt", "multimodal_data is not supported");
        value = json_find(value, "prompt_string");
        if (!json_is_string(value))
            return refuse(refusal, "prompt", "%s", expected);
    }
    if (json_is_string(value))
        return read_text(value, limits, prompt, refusal);
    return json_is_array(value) ? read_mixed(value, limits, prompt, refusal)
                                : refuse(refusal, "prompt", "%s", expected);
}

/* A list with a number in it is one prompt, and any other list holds prompts. */
static bool is_list(const json_t *prompt)
{
    const json_t *value;
    size_t i;
    json_array_foreach(prompt, i, value)
    {
        if (json_is_number(value))
            return false;
    }
    return json_is_array(prompt);
}

/* Says which prompt of a list is refused; the field is the list. */
static void name_prompt(size_t index, struct refusal *refusal)
{
    static const char unnamed[] = "prompt: ";
    char rest[sizeof refusal->message];
    if (strncmp(refusal->message, unnamed, strlen(unnamed)) != 0)
        return; /* no memory: nobody's fault */
    strcpy(rest, refusal->message + strlen(unnamed));
    snprintf(refusal->message, sizeof refusal->message, "prompt[%zu]: %.200s", index, rest);
}

int params_read_prompts(const json_t *root, const struct params_limits *limits, struct params *params,
                        struct refusal *refusal)
{
    const json_t *prompt = json_find(root, "prompt");
    bool several = is_list(prompt);
    size_t n = several ? json_array_size(prompt) : 1;
    if (!prompt || !n)
        return refuse(refusal, "prompt", "%s", expected);
    if (n > PARAMS_PROMPTS)
        return refuse(refusal, "prompt", "expected at most %d prompts, found %zu", PARAMS_PROMPTS, n);
    params->prompts = calloc(n, sizeof *params->prompts);
    if (!params->prompts)
        return no_memory(refusal);
    params->n_prompts = n;
    for (size_t i = 0; i < n; i++)
        if (read_prompt(several ? json_array_get(prompt, i) : prompt, limits, &params->prompts[i], refusal)) {
            if (several)
                name_prompt(i, refusal);
            return -1;
        }
    return 0;
}
