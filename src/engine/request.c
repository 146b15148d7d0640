/* request.c: one request on its way (see request.h for who owns what when). */
#include "engine/request.h"

#include "engine/arguments.h"

#include "base/clock.h"

#include <stdlib.h>
#include <string.h>

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
    if ((request->tools || request->message_tools) && !request->messages)
        return error_set(error, RUNNEL_EINVAL, "request: %s given, expected messages beside it, found none",
                         request->tools ? "tools" : "message_tools");
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
    if (request->max_tokens && request->min_tokens > request->max_tokens)
        return error_set(error, RUNNEL_EINVAL, "min_tokens: %d, expected at most max_tokens, %d",
                         request->min_tokens, request->max_tokens);
    if (request->raw && request->n_messages)
        return error_set(error, RUNNEL_EINVAL, "raw: given with messages, expected a prompt");
    if (request->thinking_budget < -1)
        return error_set(error, RUNNEL_EINVAL, "thinking_budget: %d, expected -1 or more",
                         request->thinking_budget);
    if (request->soft_thinking_budget < -1)
        return error_set(error, RUNNEL_EINVAL, "soft_thinking_budget: %d, expected -1 or more",
                         request->soft_thinking_budget);
    if (request->answer_reserve < -1)
        return error_set(error, RUNNEL_EINVAL, "answer_reserve: %d, expected -1 or more",
                         request->answer_reserve);
    if (request->n_logprobs < -1 || request->n_logprobs > RUNNEL_LOGPROBS_MAX)
        return error_set(error, RUNNEL_EINVAL, "n_logprobs: %d, expected -1 to %d", request->n_logprobs,
                         RUNNEL_LOGPROBS_MAX);
    int failure =
        arguments_check("request", ARGUMENTS(ARRAY(stop, request->stop, n_stop, request->n_stop)), error);
    if (failure)
        return failure;
    for (size_t i = 0; i < request->n_stop; i++)
        if (!request->stop[i] || !*request->stop[i])
            return error_set(error, RUNNEL_EINVAL, "stop[%zu]: %s, expected a text", i,
                             request->stop[i] ? "empty" : "NULL");
    if (request->on_event && request->wants_events)
        return error_set(error, RUNNEL_EINVAL,
                         "request: on_event and wants_events given, expected one of them");
    if (request->on_ready && !request->wants_events)
        return error_set(error, RUNNEL_EINVAL, "request: on_ready is for wants_events");
    return sampler_check(request->sampling, model->weights->config.n_vocab, error);
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

/* What the template is given; *user: for a prompt, which is the user's only message. */
static struct model_chat chat_of(const runnel_request *request, runnel_message *user)
{
    *user = (runnel_message){.role = "user", .content = request->prompt, .content_len = request->prompt_len};
    const char *tools = request->tools;
    return (struct model_chat){
        .conversation = {.messages = request->messages ? request->messages : user,
                         .n_messages = request->messages ? request->n_messages : 1,
                         .message_tools = request->messages ? request->message_tools : NULL,
                         .tools = tools,
                         .tools_len = tools && !request->tools_len ? strlen(tools) : request->tools_len},
        .opening = opening_of(request),
        .n_context = request->n_context};
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

/* The token that comes before a prompt without a template: with it the model wants texts to begin. -1: none. */
static int32_t lead_of(const struct runnel_model *model, const runnel_request *request)
{
    int32_t bos = tokenizer_adds_bos(model->tokenizer) ? tokenizer_bos(model->tokenizer) : -1;
    struct gguf_string piece = tokenizer_piece(model->tokenizer, bos);
    size_t len = prompt_len(request);
    bool begins_so = len >= piece.len && memcmp(request->prompt, piece.bytes, piece.len) == 0;
    return len && !begins_so ? bos : -1;
}

static int encode_raw(const struct runnel_model *model, const runnel_request *request,
                      struct token_list *tokens, runnel_error *error)
{
    struct text_span all = {0, prompt_len(request)};
    int32_t lead = lead_of(model, request);
    int failure = lead >= 0 ? token_list_add(tokens, lead, error) : RUNNEL_OK;
    return failure ? failure
                   : tokenizer_encode(model->tokenizer, request->prompt, all.end, &all, 1, tokens, error);
}

int request_encode(const struct runnel_model *model, const runnel_request *request, struct token_list *tokens,
                   runnel_error *error)
{
    int failure = check_input(model, request, error);
    if (failure)
        return failure;
    if (request->prompt_ids)
        return copy_ids(request, tokens, error);
    if (uses_template(request)) {
        runnel_message user;
        const struct model_chat chat = chat_of(request, &user);
        return model_encode_chat(model, &chat, tokens, error);
    }
    return encode_raw(model, request, tokens, error);
}

static int render_raw(const struct runnel_model *model, const runnel_request *request, char **text,
                      size_t *len, runnel_error *error)
{
    struct gguf_string lead = tokenizer_piece(model->tokenizer, lead_of(model, request));
    size_t n = prompt_len(request);
    char *whole = malloc(lead.len + n + 1);
    if (!whole)
        return error_set(error, RUNNEL_ENOMEM, "no memory for a prompt of %zu bytes", n);
    memcpy(whole, lead.bytes, lead.len);
    memcpy(whole + lead.len, request->prompt, n);
    whole[lead.len + n] = 0;
    *text = whole;
    *len = lead.len + n;
    return RUNNEL_OK;
}

int request_render(const struct runnel_model *model, const runnel_request *request, char **text, size_t *len,
                   runnel_error *error)
{
    struct chat_prompt prompt;
    runnel_message user;
    int failure = check_input(model, request, error);
    if (failure)
        return failure;
    if (request->prompt_ids)
        return runnel_detokenize(model, request->prompt_ids, request->n_prompt_ids, true, text, len, error);
    if (!uses_template(request))
        return render_raw(model, request, text, len, error);
    const struct model_chat chat = chat_of(request, &user);
    failure = model_render_chat(model, &chat, &prompt, error);
    if (failure)
        return failure;
    *text = prompt.text;
    *len = prompt.len;
    prompt.text = NULL;
    chat_prompt_free(&prompt);
    return RUNNEL_OK;
}

/* How many tokens the prompt has, and the answer may have. */
static int set_lengths(struct runnel_future *future, size_t n_prompt, const struct request_limits *limits,
                       int max_tokens, runnel_error *error)
{
    if (n_prompt == 0)
        return error_set(error, RUNNEL_EINVAL, "the prompt is empty");
    if (n_prompt >= limits->n_context)
        return error_set(error, RUNNEL_ECONTEXT,
                         "the prompt has %zu tokens, the context has room for %u and an answer", n_prompt,
                         limits->n_context - 1);
    struct scheduler_entry *entry = &future->entry;
    entry->n_prompt = (uint32_t)n_prompt;
    entry->max_tokens = limits->n_positions - entry->n_prompt;
    if (max_tokens && (uint32_t)max_tokens < entry->max_tokens)
        entry->max_tokens = (uint32_t)max_tokens;
    return RUNNEL_OK;
}

static uint32_t smaller(uint32_t a, uint32_t b)
{
    return a < b ? a : b;
}

/* How many of an answer's n tokens its thoughts may not use. What is no request's own wish leaves them something. */
static uint32_t reserve_of(const runnel_request *request, const struct request_limits *limits, uint32_t n)
{
    uint32_t eighth = n / 8 > 16 ? n / 8 : 16;
    if (request->answer_reserve >= 0)
        return (uint32_t)request->answer_reserve;
    if (limits->answer_reserve >= 0)
        return (uint32_t)limits->answer_reserve < n ? (uint32_t)limits->answer_reserve : n / 2;
    return smaller(smaller(512, eighth), n / 2);
}

static bool on_answer_event(void *user, const runnel_event *event);

static int make_answer(struct runnel_future *future, const struct runnel_model *model,
                       const struct request_limits *limits, const runnel_request *request,
                       const struct token_list *prompt, runnel_error *error)
{
    bool splits = uses_template(request) && model_is_reasoning(model);
    bool in_thought = splits && starts_in_thought(request);
    bool is_kept = request->constraint || request->must_call;
    if (is_kept) /* such a text is the answer's, tags in it, too */
        splits = in_thought;
    const struct answer_options options = {
        .pool = future->memory->pool,
        .prompt = prompt,
        .max_tokens = future->entry.max_tokens,
        .n_reserved = reserve_of(request, limits, future->entry.max_tokens),
        .splits_thoughts = splits,
        .tool_form = model->chat.calls.form,
        .starts_in_thought = in_thought,
        .on_event = on_answer_event,
        .user = future,
    };
    return answer_create(&future->answer, model, request, &options, error);
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
    future->entry.key = request->key;
    future->slot = -1;
    future->tells_counts = request->wants_counts;
    future->tells_progress = request->wants_progress;
    future->n_told = -1;
    future->wants_events = request->wants_events;
    mailbox_open(&future->mailbox, memory->pool, request->on_ready, request->user);
    future->on_event = request->on_event;
    future->on_taken = request->on_taken;
    future->user = request->user;
    future->sequence = -1;
    future->entry.arrival_ms = clock_ms();
    atomic_init(&future->cancelled, false);
    atomic_init(&future->thought_end_wished, false);
    init_recursive(&future->events);
    pthread_mutex_init(&future->lock, NULL);
    pthread_cond_init(&future->done_changed, NULL);

    struct token_list prompt = {0};
    failure = request_encode(model, request, &prompt, error);
    if (!failure)
        failure = set_lengths(future, prompt.n, limits, request->max_tokens, error);
    if (!failure)
        failure = make_answer(future, model, limits, request, &prompt, error);
    free(prompt.ids);
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
    answer_free(&future->answer);
    mailbox_close(&future->mailbox);
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

/* Events -------------------------------------------------------------------------------------------------- */

/* Puts an event where it will be taken. False: there is no memory for it, and the answer ends. */
static bool post(struct runnel_future *future, const runnel_event *event)
{
    if (event->kind == RUNNEL_EVENT_FINISH)
        mailbox_put_end(&future->mailbox, event);
    else if (!mailbox_put(&future->mailbox, event))
        future->lost_event = true;
    return !future->lost_event;
}

static bool emit(struct runnel_future *future, const runnel_event *event)
{
    bool goes_on = true;
    pthread_mutex_lock(&future->events);
    if (!future->muted && future->wants_events)
        goes_on = post(future, event);
    else if (!future->muted && future->on_event)
        goes_on = future->on_event(future->user, event);
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
    bool has_drawn = future->answer.n_drawn > 0;
    *response = (runnel_response){
        .size = sizeof *response,
        .finish_reason = future->finish_reason,
        .slot = future->slot,
        .n_prompt_tokens = entry->n_prompt,
        .n_cached_tokens = future->n_cached,
        .queue_ms = start_ms - entry->arrival_ms,
        .predicted_wait_ms = entry->predicted_wait_ms,
        .prefill_ms = has_drawn ? future->answer.first_ms - start_ms : 0,
        .stall_ms = future->stall_ms,
        .n_preempted = entry->n_preempted,
        .n_computed_tokens = has_drawn ? entry->n_prompt : entry->n_committed,
        .n_draft_tokens = future->n_draft_tokens,
        .n_draft_accepted = future->n_draft_accepted,
    };
    answer_describe(&future->answer, response);
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
    counts.calls = NULL;
    counted.counts = &counts;
    return emit(future, &counted);
}

/* Passes on what the answer tells. Who does not want to hear more of its tokens hears of the text all the same, and the
 * answer ends before the next step. */
static bool on_answer_event(void *user, const runnel_event *event)
{
    struct runnel_future *future = user;
    if (event->kind != RUNNEL_EVENT_TOKEN)
        return future->tells_counts ? emit_counted(future, event) : emit(future, event);
    if (!emit(future, event))
        atomic_store(&future->cancelled, true);
    return true;
}

void request_end(struct runnel_future *future, const struct answer_outcome *outcome)
{
    future->finish_reason = outcome->reason;
    if (outcome->error)
        future->error = *outcome->error;
    if (future->lost_event) {
        future->finish_reason = RUNNEL_FINISH_ERROR;
        error_set(&future->error, RUNNEL_ENOMEM, "no memory for the answer's events");
    }
    request_describe(future, &future->final);
    const runnel_event event = {
        .size = sizeof event,
        .kind = RUNNEL_EVENT_FINISH,
        .text = "",
        .finish_reason = future->finish_reason,
        .error = future->finish_reason == RUNNEL_FINISH_ERROR ? &future->error : NULL,
        .counts = &future->final,
    };
    emit(future, &event);
}

void request_tell_taken(struct runnel_future *future)
{
    const runnel_event event = {.size = sizeof event, .kind = RUNNEL_EVENT_TAKEN, .text = ""};
    pthread_mutex_lock(&future->events);
    if (!future->muted && future->on_taken)
        future->on_taken(future->user);
    if (!future->muted && future->wants_events && !post(future, &event))
        atomic_store(&future->cancelled, true);
    pthread_mutex_unlock(&future->events);
}

bool request_tell_progress(struct runnel_future *future)
{
    const runnel_event event = {.size = sizeof event, .kind = RUNNEL_EVENT_PROMPT, .text = ""};
    if (!future->tells_progress || future->entry.n_drawn || future->entry.n_committed <= future->n_told)
        return true;
    future->n_told = future->entry.n_committed;
    return emit_counted(future, &event);
}
