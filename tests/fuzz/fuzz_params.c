/* fuzz_params.c: arbitrary bytes as the body of every route. What is accepted must be within the promised bounds. */
#include "server/api/params.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { VOCABULARY = 1000, CHOICES = 4 };

static void check(bool holds)
{
    if (!holds)
        abort();
}

static void check_request(const runnel_request *request)
{
    const runnel_sampling *sampling = request->sampling;
    check(sampling->temperature >= 0 && sampling->temperature <= 2);
    check(sampling->top_p > 0 && sampling->top_p <= 1 && sampling->min_p >= 0 && sampling->min_p <= 1);
    check(sampling->top_k >= 0 && sampling->penalty_window >= -1 && request->max_tokens >= 0);
    check(fabsf(sampling->presence_penalty) <= 2 && fabsf(sampling->frequency_penalty) <= 2);
    check(sampling->n_logit_bias <= PARAMS_LOGIT_BIASES && request->n_stop <= PARAMS_STOPS);
    check(request->thinking_budget >= -1 && request->soft_thinking_budget >= -1 &&
          request->answer_reserve >= -1);
    check(!request->thinking_message || strlen(request->thinking_message) <= RUNNEL_THINKING_MESSAGE_MAX);
    check(request->n_logprobs >= -1 && request->n_logprobs <= RUNNEL_LOGPROBS_MAX);
    for (size_t i = 0; i < sampling->n_logit_bias; i++)
        check(sampling->logit_bias[i].token >= 0 && sampling->logit_bias[i].token < VOCABULARY &&
              (fabsf(sampling->logit_bias[i].bias) <= 100 || sampling->logit_bias[i].bias == -INFINITY));
    for (size_t i = 0; i < request->n_stop; i++)
        check(*request->stop[i] && strlen(request->stop[i]) <= PARAMS_STOP_BYTES);
    for (size_t i = 0; i < request->n_messages; i++)
        check(request->messages[i].role && strlen(request->messages[i].content) < SIZE_MAX);
}

static void check_prompts(const struct params *params)
{
    for (size_t i = 0; i < params->n_prompts; i++) {
        const struct params_prompt *prompt = &params->prompts[i];
        check((prompt->text != NULL) != (prompt->ids != NULL));
        check(prompt->text ? prompt->text_len : prompt->n_ids);
        for (size_t k = 0; k < prompt->n_ids; k++)
            check(prompt->ids[k] >= 0 && prompt->ids[k] < VOCABULARY);
    }
}

/* A byte a token. */
static int encode(void *user, const char *text, size_t len, int32_t **ids, size_t *n_ids, runnel_error *error)
{
    (void)user;
    (void)error;
    *ids = malloc(len * sizeof **ids + 1);
    check(*ids != NULL);
    for (size_t i = 0; i < len; i++)
        (*ids)[i] = (unsigned char)text[i] % VOCABULARY;
    *n_ids = len;
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    int (*const readers[])(json_t *, const struct params_limits *, struct params *, struct refusal *) = {
        params_read_chat, params_read_completion, params_read_native, params_read_generate};
    struct params_limits limits = {
        .n_vocab = VOCABULARY, .n_choices = CHOICES, .encode = encode, .bos = size % 2 ? 1 : -1};
    static const runnel_sampling sampling = {.size = sizeof sampling, .top_p = 1, .repetition_penalty = 1};
    limits.defaults.sampling = &sampling;
    struct refusal refusal = {0};
    json_t *root;
    if (json_read((const char *)data, size, &root, &refusal)) {
        check(refusal.status == 400 && refusal.message[0]);
        return 0;
    }
    for (size_t i = 0; i < sizeof readers / sizeof *readers; i++) {
        struct params params;
        refusal = (struct refusal){0};
        if (readers[i](root, &limits, &params, &refusal)) {
            check(refusal.status == 400 && refusal.message[0]);
            continue;
        }
        check(params.n_choices >= 1 && params.n_choices <= CHOICES);
        check_request(&params.request);
        check_prompts(&params);
        params_free(&params);
    }
    json_decref(root);
    return 0;
}
