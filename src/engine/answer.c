/* answer.c: one request on its way: prompt in, tokens drawn, text and events out. A struct answer belongs to
 * the thread that holds the engine's lock. */
#include "engine/engine.h"

#include "base/clock.h"

#include <stdlib.h>
#include <string.h>

static int check_request(const struct runnel_engine *engine, const runnel_request *request,
                         runnel_error *error)
{
    int n_inputs = (request->messages != NULL) + (request->prompt != NULL) + (request->prompt_ids != NULL);
    if (n_inputs != 1)
        return error_set(error, RUNNEL_EINVAL,
                         "request: %d of messages, prompt and prompt_ids given, expected one", n_inputs);
    if (request->max_tokens < 0)
        return error_set(error, RUNNEL_EINVAL, "max_tokens: %d, expected 0 or more", request->max_tokens);
    for (size_t i = 0; i < request->n_stop; i++)
        if (!request->stop[i] || !*request->stop[i])
            return error_set(error, RUNNEL_EINVAL, "stop: text %zu is empty", i);
    for (size_t i = 0; request->prompt_ids && i < request->n_prompt_ids; i++)
        if (request->prompt_ids[i] < 0 ||
            (uint32_t)request->prompt_ids[i] >= engine->model->weights->config.n_vocab)
            return error_set(error, RUNNEL_EINVAL, "prompt_ids: token %zu is %d, expected 0 to %u", i,
                             request->prompt_ids[i], engine->model->weights->config.n_vocab - 1);
    return sampler_check(&request->sampling, engine->model->weights->config.n_vocab, error);
}

static bool uses_template(const runnel_request *request)
{
    return request->messages || (request->prompt && !request->raw);
}

static int encode_prompt(const struct runnel_engine *engine, const runnel_request *request,
                         struct token_list *tokens, runnel_error *error)
{
    const struct runnel_model *model = engine->model;
    if (request->messages)
        return model_encode_chat(model, request->messages, request->n_messages, !request->no_thinking, tokens,
                                 error);
    if (request->prompt && !request->raw) {
        const runnel_message message = {.role = "user", .content = request->prompt};
        return model_encode_chat(model, &message, 1, !request->no_thinking, tokens, error);
    }
    if (request->prompt) {
        struct text_span all = {0, strlen(request->prompt)};
        return tokenizer_encode(model->tokenizer, request->prompt, all.end, &all, 1, tokens, error);
    }
    tokens->ids = malloc(request->n_prompt_ids * sizeof *tokens->ids + 1);
    if (!tokens->ids)
        return error_set(error, RUNNEL_ENOMEM, "no memory for a prompt of %zu tokens", request->n_prompt_ids);
    memcpy(tokens->ids, request->prompt_ids, request->n_prompt_ids * sizeof *tokens->ids);
    tokens->n = tokens->cap = request->n_prompt_ids;
    return RUNNEL_OK;
}

/* Sees to it that no later step has to allocate for tokens. */
static int make_room(const struct runnel_engine *engine, struct answer *answer, runnel_error *error)
{
    struct token_list *tokens = &answer->tokens;
    if (tokens->n == 0)
        return error_set(error, RUNNEL_EINVAL, "the prompt is empty");
    if (tokens->n >= engine->n_context)
        return error_set(error, RUNNEL_ECONTEXT,
                         "the prompt has %zu tokens, the context has room for %u and an answer", tokens->n,
                         engine->n_context - 1);
    answer->n_prompt = (uint32_t)tokens->n;
    answer->max_tokens = engine->n_context - answer->n_prompt;
    if (answer->request->max_tokens && (uint32_t)answer->request->max_tokens < answer->max_tokens)
        answer->max_tokens = (uint32_t)answer->request->max_tokens;
    tokens->cap = tokens->n + answer->max_tokens;
    int32_t *ids = realloc(tokens->ids, tokens->cap * sizeof *ids);
    if (!ids)
        return error_set(error, RUNNEL_ENOMEM, "no memory for %zu tokens", tokens->cap);
    tokens->ids = ids;
    return RUNNEL_OK;
}

static int answer_check_memory(const struct answer *answer, runnel_error *error)
{
    if (answer->text.failed || answer->reasoning.failed)
        return error_set(error, RUNNEL_ENOMEM, "no memory for the answer's text");
    return RUNNEL_OK;
}

int answer_prepare(const struct runnel_engine *engine, const runnel_request *request, struct answer *answer,
                   runnel_error *error)
{
    *answer = (struct answer){.request = request, .sampling = request->sampling, .sequence = -1};
    answer->start_ms = clock_ms();
    answer->logits_hash = request->wants_logits_hash ? 0xcbf29ce484222325u : 0; /* FNV-1a's offset basis */
    int failure = check_request(engine, request, error);
    if (!failure)
        failure = encode_prompt(engine, request, &answer->tokens, error);
    if (!failure)
        failure = make_room(engine, answer, error);
    if (failure)
        return failure;
    bool splits = uses_template(request) && model_is_reasoning(engine->model);
    const struct output_options options = {
        .stop = request->stop,
        .n_stop = request->n_stop,
        .split_thoughts = splits,
        .starts_in_thought = splits && !request->no_thinking,
    };
    failure = output_create(&options, &answer->output, error);
    if (failure)
        return failure;
    text_add(&answer->text, "", 0);
    text_add(&answer->reasoning, "", 0);
    return answer_check_memory(answer, error);
}

void answer_free(struct runnel_engine *engine, struct answer *answer)
{
    if (answer->sequence >= 0)
        kvcache_close(engine->cache, answer->sequence);
    output_free(answer->output);
    free(answer->tokens.ids);
    text_free(&answer->text);
    text_free(&answer->reasoning);
}

/* Keeps the text of an event and passes it on. */
static bool on_text(void *user, const runnel_event *event)
{
    struct answer *answer = user;
    struct text *text = event->kind == RUNNEL_EVENT_THOUGHT ? &answer->reasoning : &answer->text;
    text_add(text, event->text, event->text_len);
    if (text->failed)
        return false;
    return !answer->request->on_event || answer->request->on_event(answer->request->user, event);
}

void answer_finish(struct answer *answer, enum runnel_finish_reason reason)
{
    answer->finished = true;
    answer->finish_reason = reason;
    if (reason != RUNNEL_FINISH_CANCELLED &&
        output_finish(answer->output, on_text, answer) == OUTPUT_CANCELLED)
        answer->finish_reason = RUNNEL_FINISH_CANCELLED;
    const runnel_event event = {
        .kind = RUNNEL_EVENT_FINISH, .text = "", .text_len = 0, .finish_reason = answer->finish_reason};
    if (answer->request->on_event)
        answer->request->on_event(answer->request->user, &event);
}

int answer_take(const struct runnel_engine *engine, struct answer *answer, int32_t token, runnel_error *error)
{
    const struct tokenizer *tokenizer = engine->model->tokenizer;
    answer->last_ms = clock_ms();
    if (answer->n_drawn++ == 0)
        answer->first_ms = answer->last_ms;
    answer->n_thought += output_in_thought(answer->output);
    answer->tokens.ids[answer->tokens.n++] = token;
    if (!answer->request->ignore_eos && tokenizer_is_end(tokenizer, token)) {
        answer_finish(answer, RUNNEL_FINISH_STOP);
    } else {
        struct gguf_string piece = {.bytes = "", .len = 0};
        if (tokenizer_kind(tokenizer, token) != TOKEN_CONTROL)
            piece = tokenizer_piece(tokenizer, token);
        enum output_state state = output_push(answer->output, piece.bytes, piece.len, on_text, answer);
        if (state == OUTPUT_STOPPED)
            answer_finish(answer, RUNNEL_FINISH_STOP);
        else if (state == OUTPUT_CANCELLED)
            answer_finish(answer, RUNNEL_FINISH_CANCELLED);
        else if (answer->n_drawn == answer->max_tokens)
            answer_finish(answer, RUNNEL_FINISH_LENGTH);
    }
    return answer_check_memory(answer, error);
}
