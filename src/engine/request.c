/* request.c: one request on its way (see request.h for who owns what when). */
#include "engine/request.h"

#include "engine/arguments.h"
#include "engine/engine.h"

#include "base/clock.h"
#include "engine/sampler.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum {
    /* Texts have room from the start, so that a step need not ask the system: ordinary tokens are 4 bytes long. What
     * is reserved and not written takes no memory. */
    BYTES_OF_TOKEN = 16,
    RESERVED_TEXT_MAX = 1 << 20,
};

/* Memory -------------------------------------------------------------------------------------------------- */

int request_memory_create(size_t limit_bytes, struct request_memory **out, runnel_error *error)
{
    struct request_memory *memory = malloc(sizeof *memory);
    if (!memory)
        return error_set(error, RUNNEL_ENOMEM, "no memory for a memory pool");
    int failure = pool_create(limit_bytes, &memory->pool, error);
    if (failure) {
        free(memory);
        return failure;
    }
    atomic_init(&memory->n_holders, 1);
    *out = memory;
    return RUNNEL_OK;
}

unsigned request_memory_let_go(struct request_memory *memory)
{
    if (!memory)
        return 0;
    unsigned n_left = atomic_fetch_sub(&memory->n_holders, 1) - 1;
    if (n_left == 0) {
        pool_free(memory->pool, NULL);
        free(memory);
    }
    return n_left;
}

/* Making -------------------------------------------------------------------------------------------------- */

/* Rendering checks the messages, too, but those of an encoded request are not rendered. */
static int check_message_texts(const runnel_request *request, runnel_error *error)
{
    for (size_t i = 0; request->messages && i < request->n_messages; i++)
        if (!request->messages[i].role || !request->messages[i].content)
            return error_set(error, RUNNEL_EINVAL, "messages[%zu]: %s is missing", i,
                             request->messages[i].role ? "content" : "role");
    return RUNNEL_OK;
}

/* What request_encode is to read. */
static int check_input(const struct runnel_model *model, const runnel_request *request, runnel_error *error)
{
    uint32_t n_vocab = model->weights->config.n_vocab;
    int n_texts = (request->messages != NULL) + (request->prompt != NULL);
    int n_inputs = n_texts + (request->prompt_ids != NULL);
    int failure = arguments_check(
        "request",
        ARGUMENTS(ARRAY(messages, request->messages, n_messages, request->n_messages),
                  ARRAY(prompt, request->prompt, prompt_len, request->prompt_len),
                  ARRAY(prompt_ids, request->prompt_ids, n_prompt_ids, request->n_prompt_ids)),
        error);
    if (!failure)
        failure = check_message_texts(request, error);
    if (failure)
        return failure;
    if (request->continues && (!request->messages || !request->n_messages))
        return error_set(error, RUNNEL_EINVAL,
                         "request: continues is set, expected messages beside it, found none");
    if (request->encoded && (n_texts != 1 || !request->prompt_ids))
        return error_set(
            error, RUNNEL_EINVAL,
            "request: encoded is set, expected prompt_ids, and beside them messages or a prompt");
    if (!request->encoded && n_inputs != 1)
        return error_set(error, RUNNEL_EINVAL,
                         "request: %d of messages, prompt and prompt_ids given, expected one", n_inputs);
    for (size_t i = 0; request->prompt_ids && i < request->n_prompt_ids; i++)
        if (request->prompt_ids[i] < 0 || (uint32_t)request->prompt_ids[i] >= n_vocab)
            return error_set(error, RUNNEL_EINVAL, "prompt_ids: token %zu is %d, expected 0 to %u", i,
                             request->prompt_ids[i], n_vocab - 1);
    return RUNNEL_OK;
}

static int check_request(const struct runnel_model *model, const runnel_request *request, runnel_error *error)
{
    if (request->max_tokens < 0)
        return error_set(error, RUNNEL_EINVAL, "max_tokens: %d, expected 0 or more", request->max_tokens);
    if (request->min_tokens < 0)
        return error_set(error, RUNNEL_EINVAL, "min_tokens: %d, expected 0 or more", request->min_tokens);
    if (request->thinking_budget < -1)
        return error_set(error, RUNNEL_EINVAL, "thinking_budget: %d, expected -1 or more",
                         request->thinking_budget);
    if (request->n_logprobs < -1 || request->n_logprobs > REQUEST_LOGPROBS_MAX)
        return error_set(error, RUNNEL_EINVAL, "n_logprobs: %d, expected -1 to %d", request->n_logprobs,
                         REQUEST_LOGPROBS_MAX);
    int failure =
        arguments_check("request", ARGUMENTS(ARRAY(stop, request->stop, n_stop, request->n_stop)), error);
    if (failure)
        return failure;
    for (size_t i = 0; i < request->n_stop; i++)
        if (!request->stop[i] || !*request->stop[i])
            return error_set(error, RUNNEL_EINVAL, "stop[%zu]: %s, expected a text", i,
                             request->stop[i] ? "empty" : "NULL");
    return sampler_check(&request->sampling, model->weights->config.n_vocab, error);
}

static bool uses_template(const runnel_request *request)
{
    return request->messages || (request->prompt && !request->raw);
}

static enum chat_opening opening_of(const runnel_request *request)
{
    if (request->continues)
        return CHAT_CONTINUING;
    return !request->no_thinking && request->thinking_budget != 0 ? CHAT_THINKING : CHAT_ANSWERING;
}

static bool starts_in_thought(const runnel_request *request)
{
    return request->continues ? chat_continues_thought(&request->messages[request->n_messages - 1])
                              : opening_of(request) == CHAT_THINKING;
}

static size_t prompt_len(const runnel_request *request)
{
    return request->prompt_len ? request->prompt_len : strlen(request->prompt);
}

static runnel_message user_message(const runnel_request *request)
{
    return (runnel_message){.role = "user", .content = request->prompt, .content_len = request->prompt_len};
}

static int copy_ids(const runnel_request *request, struct token_list *tokens, runnel_error *error)
{
    tokens->ids = malloc(request->n_prompt_ids * sizeof *tokens->ids + 1);
    if (!tokens->ids)
        return error_set(error, RUNNEL_ENOMEM, "no memory for a prompt of %zu tokens", request->n_prompt_ids);
    memcpy(tokens->ids, request->prompt_ids, request->n_prompt_ids * sizeof *tokens->ids);
    tokens->n = tokens->cap = request->n_prompt_ids;
    return RUNNEL_OK;
}

int request_encode(const struct runnel_model *model, const runnel_request *request, struct token_list *tokens,
                   runnel_error *error)
{
    int failure = check_input(model, request, error);
    if (failure)
        return failure;
    if (request->prompt_ids)
        return copy_ids(request, tokens, error);
    if (request->messages)
        return model_encode_chat(model, request->messages, request->n_messages, opening_of(request), tokens,
                                 error);
    if (request->prompt && !request->raw) {
        const runnel_message message = user_message(request);
        return model_encode_chat(model, &message, 1, opening_of(request), tokens, error);
    }
    struct text_span all = {0, prompt_len(request)};
    return tokenizer_encode(model->tokenizer, request->prompt, all.end, &all, 1, tokens, error);
}

static int copy_text(const char *bytes, size_t n, char **text, size_t *len, runnel_error *error)
{
    char *copy = malloc(n + 1);
    if (!copy)
        return error_set(error, RUNNEL_ENOMEM, "no memory for a prompt of %zu bytes", n);
    memcpy(copy, bytes, n);
    copy[n] = 0;
    *text = copy;
    *len = n;
    return RUNNEL_OK;
}

int request_render(const struct runnel_model *model, const runnel_request *request, char **text, size_t *len,
                   runnel_error *error)
{
    const runnel_message message = user_message(request);
    struct chat_prompt prompt;
    int failure = check_input(model, request, error);
    if (failure)
        return failure;
    if (request->prompt_ids)
        return runnel_detokenize(model, request->prompt_ids, request->n_prompt_ids, true, text, len, error);
    if (!uses_template(request))
        return copy_text(request->prompt, prompt_len(request), text, len, error);
    failure = request->messages ? model_render_chat(model, request->messages, request->n_messages,
                                                    opening_of(request), &prompt, error)
                                : model_render_chat(model, &message, 1, opening_of(request), &prompt, error);
    if (failure)
        return failure;
    *text = prompt.text;
    *len = prompt.len;
    prompt.text = NULL;
    chat_prompt_free(&prompt);
    return RUNNEL_OK;
}

/* Sees to it that no later step has to allocate for tokens. */
static int make_room(struct runnel_future *future, const struct token_list *tokens,
                     const struct request_limits *limits, int max_tokens, runnel_error *error)
{
    if (tokens->n == 0)
        return error_set(error, RUNNEL_EINVAL, "the prompt is empty");
    if (tokens->n >= limits->n_context)
        return error_set(error, RUNNEL_ECONTEXT,
                         "the prompt has %zu tokens, the context has room for %u and an answer", tokens->n,
                         limits->n_context - 1);
    struct scheduler_entry *entry = &future->entry;
    entry->n_prompt = (uint32_t)tokens->n;
    entry->max_tokens = limits->n_positions - entry->n_prompt;
    if (max_tokens && (uint32_t)max_tokens < entry->max_tokens)
        entry->max_tokens = (uint32_t)max_tokens;
    size_t cap = tokens->n + entry->max_tokens;
    int32_t *ids = pool_take(future->memory->pool, cap * sizeof *ids);
    if (!ids)
        return error_set(error, RUNNEL_ENOMEM, "no memory for %zu tokens", cap);
    memcpy(ids, tokens->ids, tokens->n * sizeof *ids);
    future->tokens = (struct token_list){.ids = ids, .n = tokens->n, .cap = cap};
    return RUNNEL_OK;
}

/* The request's biases, and with min_tokens behind them those that forbid the end tokens. */
static int copy_bias(const struct tokenizer *tokenizer, struct runnel_future *future, runnel_error *error)
{
    size_t n = future->sampling.n_logit_bias, n_ends;
    const int32_t *ends = tokenizer_ends(tokenizer, &n_ends);
    if (!future->min_tokens)
        n_ends = 0;
    const runnel_logit_bias *given = future->sampling.logit_bias;
    future->sampling.logit_bias = NULL;
    if (!n && !n_ends)
        return RUNNEL_OK;
    runnel_logit_bias *copy = pool_take(future->memory->pool, (n + n_ends) * sizeof *copy);
    if (!copy)
        return error_set(error, RUNNEL_ENOMEM, "no memory for %zu logit biases", n + n_ends);
    if (n)
        memcpy(copy, given, n * sizeof *copy);
    for (size_t i = 0; i < n_ends; i++)
        copy[n + i] = (runnel_logit_bias){.token = ends[i], .bias = -INFINITY};
    future->n_end_bias = n_ends;
    future->sampling.logit_bias = copy;
    return RUNNEL_OK;
}

static int prepare_closing(struct runnel_future *future, const struct runnel_model *model, int budget,
                           runnel_error *error)
{
    struct token_list tokens = {0};
    int failure = model_encode_thought_end(model, &tokens, error);
    if (!failure && tokens.n > REQUEST_CLOSING_MAX)
        failure = error_set(error, RUNNEL_EUNSUPPORTED,
                            "thinking_budget: %zu tokens close a thought, at most %d expected", tokens.n,
                            REQUEST_CLOSING_MAX);
    if (!failure) {
        memcpy(future->closing, tokens.ids, tokens.n * sizeof *tokens.ids);
        future->n_closing = (uint32_t)tokens.n;
        future->thinking_budget = budget;
    }
    free(tokens.ids);
    return failure;
}

static int make_output(struct runnel_future *future, const struct runnel_model *model,
                       const runnel_request *request, runnel_error *error)
{
    bool splits = uses_template(request) && model_is_reasoning(model);
    const struct output_options options = {
        .stop = request->stop,
        .n_stop = request->n_stop,
        .split_thoughts = splits,
        .starts_in_thought = splits && starts_in_thought(request),
    };
    int failure = output_create(&options, &future->output, error);
    if (!failure && splits && request->thinking_budget >= 0)
        failure = prepare_closing(future, model, request->thinking_budget, error);
    if (failure)
        return failure;
    size_t likely = (size_t)future->entry.max_tokens * BYTES_OF_TOKEN;
    likely = likely < RESERVED_TEXT_MAX ? likely : RESERVED_TEXT_MAX;
    text_reserve(&future->text, likely);
    text_reserve(&future->reasoning, splits ? likely : 0);
    if (future->text.failed || future->reasoning.failed)
        return error_set(error, RUNNEL_ENOMEM, "no memory for the answer's text");
    return RUNNEL_OK;
}

/* A mutex that its holder may lock again: on_event may free its own future. */
static void init_recursive(pthread_mutex_t *mutex)
{
    pthread_mutexattr_t recursive;
    pthread_mutexattr_init(&recursive);
    pthread_mutexattr_settype(&recursive, PTHREAD_MUTEX_RECURSIVE);
    pthread_mutex_init(mutex, &recursive);
    pthread_mutexattr_destroy(&recursive);
}

int request_create(const struct runnel_model *model, const struct request_limits *limits,
                   struct request_memory *memory, const runnel_request *request, struct runnel_future **out,
                   runnel_error *error)
{
    int failure = check_request(model, request, error);
    if (failure)
        return failure;
    struct runnel_future *future = pool_take(memory->pool, sizeof *future);
    if (!future)
        return error_set(error, RUNNEL_ENOMEM, "no memory for a request");
    memset(future, 0, sizeof *future);
    atomic_fetch_add(&memory->n_holders, 1);
    future->memory = memory;
    future->sampling = request->sampling;
    future->entry.key = request->key;
    future->n_logprobs = request->n_logprobs;
    future->tells_tokens = request->wants_tokens || request->n_logprobs >= 0;
    future->tells_sampled = request->wants_sampled_probs && request->n_logprobs >= 0;
    future->thinking_budget = -1;
    future->slot = -1;
    future->ignore_eos = request->ignore_eos;
    future->min_tokens = (uint32_t)request->min_tokens;
    future->tells_counts = request->wants_counts;
    future->tells_progress = request->wants_progress;
    future->n_told = -1;
    future->hashes_logits = request->wants_logits_hash;
    future->on_event = request->on_event;
    future->on_taken = request->on_taken;
    future->user = request->user;
    future->sequence = -1;
    future->logits_hash = request->wants_logits_hash ? 0xcbf29ce484222325u : 0; /* FNV-1a's offset basis */
    future->entry.arrival_ms = clock_ms();
    atomic_init(&future->cancelled, false);
    init_recursive(&future->events);
    pthread_mutex_init(&future->lock, NULL);
    pthread_cond_init(&future->done_changed, NULL);

    struct token_list prompt = {0};
    failure = copy_bias(model->tokenizer, future, error);
    if (!failure)
        failure = request_encode(model, request, &prompt, error);
    if (!failure)
        failure = make_room(future, &prompt, limits, request->max_tokens, error);
    free(prompt.ids);
    if (!failure)
        failure = make_output(future, model, request, error);
    if (failure) {
        request_let_go(future);
        return failure;
    }
    *out = future;
    return RUNNEL_OK;
}

static void free_request(struct runnel_future *future)
{
    struct request_memory *memory = future->memory;
    output_free(future->output);
    pool_give(memory->pool, future->tokens.ids);
    pool_give(memory->pool, (void *)(uintptr_t)future->sampling.logit_bias);
    text_free(&future->text);
    text_free(&future->reasoning);
    pthread_cond_destroy(&future->done_changed);
    pthread_mutex_destroy(&future->lock);
    pthread_mutex_destroy(&future->events);
    pool_give(memory->pool, future);
    request_memory_let_go(memory);
}

void request_let_go(struct runnel_future *future)
{
    pthread_mutex_lock(&future->lock);
    future->let_go = true;
    bool is_last = !future->in_engine;
    pthread_mutex_unlock(&future->lock);
    if (is_last)
        free_request(future);
}

void request_set_done(struct runnel_future *future)
{
    pthread_mutex_lock(&future->lock);
    future->done = true;
    future->in_engine = false;
    bool is_last = future->let_go;
    pthread_cond_broadcast(&future->done_changed);
    pthread_mutex_unlock(&future->lock);
    if (is_last)
        free_request(future);
}

/* Tokens -------------------------------------------------------------------------------------------------- */

static bool emit(struct runnel_future *future, const runnel_event *event)
{
    pthread_mutex_lock(&future->events);
    bool goes_on = future->muted || !future->on_event || future->on_event(future->user, event);
    pthread_mutex_unlock(&future->events);
    return goes_on;
}

void request_mute(struct runnel_future *future)
{
    pthread_mutex_lock(&future->events);
    future->muted = true;
    pthread_mutex_unlock(&future->events);
}

void request_describe(const struct runnel_future *future, runnel_response *response)
{
    const struct scheduler_entry *entry = &future->entry;
    double start_ms = entry->admitted_ms > 0 ? entry->admitted_ms : clock_ms();
    *response = (runnel_response){
        .text = future->text.bytes,
        .reasoning = future->reasoning.bytes,
        .text_len = future->text.len,
        .reasoning_len = future->reasoning.len,
        .finish_reason = future->finish_reason,
        .stop_index = future->output ? output_stop_index(future->output) : -1,
        .slot = future->slot,
        .n_prompt_tokens = entry->n_prompt,
        .n_cached_tokens = future->n_cached,
        .n_tokens = entry->n_drawn,
        .n_reasoning_tokens = future->n_thought,
        .queue_ms = start_ms - entry->arrival_ms,
        .predicted_wait_ms = entry->predicted_wait_ms,
        .prefill_ms = entry->n_drawn ? future->first_ms - start_ms : 0,
        .decode_ms = entry->n_drawn ? future->last_ms - future->first_ms : 0,
        .thinking_ms = future->n_thought ? future->thought_ms - future->first_ms : 0,
        .stall_ms = future->stall_ms,
        .n_preempted = entry->n_preempted,
        .logits_hash = future->logits_hash,
        .thought_closed = future->reasoning.len && !output_in_thought(future->output),
        .n_computed_tokens = entry->n_drawn ? entry->n_prompt : entry->n_committed,
    };
}

/* Passes an event on together with the counts so far. */
static bool emit_counted(struct runnel_future *future, const runnel_event *event)
{
    runnel_event counted = *event;
    runnel_response counts;
    request_describe(future, &counts);
    if (event->kind == RUNNEL_EVENT_PROMPT)
        counts.prefill_ms = clock_ms() - future->entry.admitted_ms;
    counts.text = counts.reasoning = NULL; /* they would be copied for each piece */
    counts.text_len = counts.reasoning_len = 0;
    counted.counts = &counts;
    return emit(future, &counted);
}

/* Keeps the text of an event and passes it on. */
static bool on_text(void *user, const runnel_event *event)
{
    struct runnel_future *future = user;
    struct text *text = event->kind == RUNNEL_EVENT_THOUGHT ? &future->reasoning : &future->text;
    text_add(text, event->text, event->text_len);
    if (text->failed)
        return false;
    return future->tells_counts ? emit_counted(future, event) : emit(future, event);
}

static void end(struct runnel_future *future, enum runnel_finish_reason reason)
{
    runnel_response counts;
    future->finished = true;
    future->finish_reason = reason;
    request_describe(future, &counts);
    const runnel_event event = {
        .kind = RUNNEL_EVENT_FINISH,
        .text = "",
        .finish_reason = reason,
        .error = reason == RUNNEL_FINISH_ERROR ? &future->error : NULL,
        .counts = &counts,
    };
    if (future->in_engine)
        engine_free_place(
            future->engine); /* before anybody hears of the end: who does may ask again at once */
    emit(future, &event);
}

void request_fail(struct runnel_future *future, const runnel_error *error)
{
    future->error = *error;
    end(future, RUNNEL_FINISH_ERROR);
}

void request_finish(struct runnel_future *future, enum runnel_finish_reason reason)
{
    enum output_state state =
        reason == RUNNEL_FINISH_CANCELLED
            ? OUTPUT_CANCELLED
            : output_finish(future->output, reason == RUNNEL_FINISH_LENGTH, on_text, future);
    if (state == OUTPUT_CANCELLED)
        reason = RUNNEL_FINISH_CANCELLED;
    else if (state == OUTPUT_STOPPED)
        reason = RUNNEL_FINISH_STOP;
    if (future->text.failed || future->reasoning.failed) {
        runnel_error error;
        error_set(&error, RUNNEL_ENOMEM, "no memory for the answer's text");
        request_fail(future, &error);
    } else {
        end(future, reason);
    }
}

void request_tell_taken(struct runnel_future *future)
{
    pthread_mutex_lock(&future->events);
    if (!future->muted && future->on_taken)
        future->on_taken(future->user);
    pthread_mutex_unlock(&future->events);
}

bool request_tell_progress(struct runnel_future *future)
{
    const runnel_event event = {.kind = RUNNEL_EVENT_PROMPT, .text = ""};
    if (!future->tells_progress || future->entry.n_drawn || future->entry.n_committed <= future->n_told)
        return true;
    future->n_told = future->entry.n_committed;
    return emit_counted(future, &event);
}

void request_tell_logprobs(struct runnel_future *future, const runnel_logprob *logprobs, size_t n)
{
    const runnel_event event = {
        .kind = RUNNEL_EVENT_TOKEN, .text = "", .logprobs = logprobs, .n_logprobs = n};
    if (!emit(future, &event))
        atomic_store(&future->cancelled, true);
}

int32_t request_forced_token(const struct runnel_future *future)
{
    return future->closes && future->n_closed < future->n_closing ? future->closing[future->n_closed] : -1;
}

/* Says of a token before its text is known what it belongs to: to what is open. What the budget writes belongs to
 * neither. */
static void count_token(struct runnel_future *future)
{
    future->last_ms = clock_ms();
    if (future->entry.n_drawn == 1)
        future->first_ms = future->last_ms;
    if (request_forced_token(future) >= 0) {
        future->n_closed++;
    } else if (output_in_thought(future->output)) {
        future->n_thought++;
        future->thought_ms = future->last_ms;
    }
}

void request_take(const struct runnel_model *model, struct runnel_future *future, int32_t token)
{
    count_token(future);
    future->tokens.ids[future->tokens.n++] = token;
    if (!future->ignore_eos && tokenizer_is_end(model->tokenizer, token)) {
        request_finish(future, RUNNEL_FINISH_STOP);
        return;
    }
    struct gguf_string piece = {.bytes = "", .len = 0};
    if (tokenizer_kind(model->tokenizer, token) != TOKEN_CONTROL)
        piece = tokenizer_piece(model->tokenizer, token);
    enum output_state state = output_push(future->output, piece.bytes, piece.len, on_text, future);
    if (state == OUTPUT_STOPPED)
        request_finish(future, RUNNEL_FINISH_STOP);
    else if (state == OUTPUT_CANCELLED)
        request_finish(future, RUNNEL_FINISH_CANCELLED);
    else if (future->entry.n_drawn == future->entry.max_tokens)
        request_finish(future, RUNNEL_FINISH_LENGTH);
    else if (future->thinking_budget >= 0 && output_in_thought(future->output) &&
             future->n_thought >= (uint32_t)future->thinking_budget)
        future->closes = true;
}
