/* own_answers.c: see own_answers.h. */
#include "cli/own_answers.h"

#include "base/error.h"
#include "cli/interrupt.h"
#include "cli/progress.h"

#include <stdlib.h>
#include <string.h>

/* An answer, while it comes. Its events come on the engine's thread, one request's after the other's. */
struct answer {
    struct all *all;
    int32_t *ids; /* [n_prompt + max_tokens]: the prompt, then the answer */
    size_t n_prompt, n, cap;
};

struct all {
    struct answer *answers;
    size_t n;
    uint64_t n_done, n_total; /* tokens */
    struct progress progress;
};

/* The line that begins at *place, without its end; *place is then the beginning of the next one. */
static size_t cut_line(const char **place, const char **line)
{
    size_t len = strcspn(*place, "\n");
    *line = *place;
    *place += len + ((*place)[len] == '\n');
    return len > 0 && (*line)[len - 1] == '\r' ? len - 1 : len;
}

size_t own_answers_count(const char *text)
{
    size_t n = 0;
    const char *line;
    while (*text)
        n += cut_line(&text, &line) > 0;
    return n;
}

static bool on_event(void *user, const runnel_event *event)
{
    struct answer *answer = user;
    if (event->kind == RUNNEL_EVENT_TOKEN && answer->n < answer->cap) {
        answer->ids[answer->n++] = event->logprobs[0].token;
        progress_update(&answer->all->progress, ++answer->all->n_done, answer->all->n_total);
    }
    return !interrupt_came();
}

/* The request of a prompt, as its tokens. */
static int prepare(const runnel_model *model, const runnel_sampling *sampling, const char *line, size_t len,
                   int max_tokens, struct answer *answer, runnel_request *request, runnel_error *error)
{
    runnel_model_info info = {.size = sizeof info};
    runnel_model_get_info(model, &info);
    int32_t *ids;
    runnel_request_init(request);
    request->prompt = line;
    request->prompt_len = len;
    request->raw = !*info.chat_template;
    int failure = runnel_prompt_tokens(model, request, &ids, &answer->n_prompt, error);
    if (failure)
        return failure;
    answer->cap = answer->n_prompt + (size_t)max_tokens;
    answer->ids = malloc(answer->cap * sizeof *answer->ids);
    if (answer->ids)
        memcpy(answer->ids, ids, answer->n_prompt * sizeof *ids);
    runnel_tokens_free(ids);
    if (!answer->ids)
        return error_set(error, RUNNEL_ENOMEM, "no memory for an answer of %d tokens", max_tokens);
    answer->n = answer->n_prompt;
    runnel_request_init(request);
    request->prompt_ids = answer->ids;
    request->n_prompt_ids = answer->n_prompt;
    request->max_tokens = max_tokens;
    request->sampling = sampling;
    request->wants_tokens = true;
    request->on_event = on_event;
    request->user = answer;
    return RUNNEL_OK;
}

/* As the engine would refuse it, but told by its line, and before any other is answered. */
static int check_room(const struct answer *answer, uint32_t n_context, runnel_error *error)
{
    if (answer->n_prompt < n_context)
        return RUNNEL_OK;
    return error_set(error, RUNNEL_ECONTEXT,
                     "the prompt has %zu tokens, the context has room for %u and an answer", answer->n_prompt,
                     n_context - 1);
}

/* Answers of n requests; those of answers[i] are of requests[i]. */
static int answer_all(runnel_engine *engine, struct all *all, const runnel_request *requests,
                      runnel_error *error)
{
    runnel_response *responses = calloc(all->n, sizeof *responses);
    if (!responses)
        return error_set(error, RUNNEL_ENOMEM, "no memory for %zu answers", all->n);
    responses->size = sizeof *responses;
    progress_start_counting(&all->progress, "answers", "tokens", 0);
    int failure = runnel_respond_many(engine, requests, all->n, responses, error);
    progress_end(&all->progress);
    for (size_t i = 0; i < all->n && !failure; i++)
        runnel_response_free(&responses[i]);
    free(responses);
    if (!failure && interrupt_came())
        failure = error_set(error, RUNNEL_ECANCELLED, "interrupted");
    return failure;
}

/* An answer without a token has nothing to be scored. */
static int keep_answers(const struct all *all, struct scored_sequences *sequences, runnel_error *error)
{
    int failure = RUNNEL_OK;
    for (size_t i = 0; i < all->n && !failure; i++) {
        const struct answer *answer = &all->answers[i];
        if (answer->n > answer->n_prompt)
            failure = scored_sequences_add(sequences, answer->ids, answer->n, answer->n_prompt - 1, error);
    }
    return failure;
}

int own_answers_write(runnel_engine *engine, const runnel_model *model, const struct own_prompts *prompts,
                      struct scored_sequences *sequences, runnel_error *error)
{
    const char *text = prompts->text;
    int max_tokens = prompts->max_tokens;
    size_t n = own_answers_count(text);
    if (!n)
        return error_set(error, RUNNEL_EINVAL, "%s: expected a prompt a line, found none", prompts->name);
    struct all all = {.answers = calloc(n, sizeof *all.answers), .n_total = n * (uint64_t)max_tokens};
    runnel_request *requests = calloc(n, sizeof *requests);
    runnel_sampling sampling;
    runnel_sampling_init(model, &sampling);
    sampling.temperature = 0;
    sampling.repetition_penalty = 1;
    sampling.presence_penalty = sampling.frequency_penalty = 0;
    int failure = RUNNEL_OK;
    if (!all.answers || !requests)
        failure = error_set(error, RUNNEL_ENOMEM, "no memory for %zu answers", n);
    for (size_t n_line = 1; *text && !failure; n_line++) {
        const char *line;
        size_t len = cut_line(&text, &line);
        if (!len)
            continue;
        struct answer *answer = &all.answers[all.n];
        answer->all = &all;
        failure = prepare(model, &sampling, line, len, max_tokens, answer, &requests[all.n++], error);
        if (!failure)
            failure = check_room(answer, prompts->n_context, error);
        if (failure)
            error_prefix(error, "%s, line %zu", prompts->name, n_line);
    }
    if (!failure)
        failure = answer_all(engine, &all, requests, error);
    if (!failure)
        failure = keep_answers(&all, sequences, error);
    for (size_t i = 0; i < all.n; i++)
        free(all.answers[i].ids);
    free(all.answers);
    free(requests);
    return failure;
}
