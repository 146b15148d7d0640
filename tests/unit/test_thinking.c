/* test_thinking.c: a budget for thoughts, and what a request can learn of its tokens, on a tiny model of R1's kind: where
 * the engine closes a thought, what follows is what the model would have said after closing it itself. */
#include "engine/model.h"
#include "helpers/tiny_engine.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { N_TOKENS_MAX = 400 };

/* It never ends a thought of its own accord, nor an answer. */
static const runnel_logit_bias never_ends[] = {{TINY_TOKEN_THINK_END, -100},
                                               {TINY_TOKEN_R1_END, -100},
                                               {TINY_TOKEN_IM_END, -100},
                                               {TINY_TOKEN_ENDOFTEXT, -100}};
enum { N_NEVER = sizeof never_ends / sizeof *never_ends };

static runnel_model *model;

static int open_model(void **state)
{
    struct tiny_model_options options = tiny_engine_model();
    options.pre = "deepseek-r1-qwen";
    options.chat = "r1";
    *state = model = tiny_engine_open(&options);
    return 0;
}

struct heard {
    int32_t tokens[N_TOKENS_MAX];
    size_t n;
    float logprob; /* the last token's */
};

static bool hear(void *user, const runnel_event *event)
{
    struct heard *heard = user;
    if (event->kind == RUNNEL_EVENT_TOKEN) {
        assert_true(heard->n < N_TOKENS_MAX);
        heard->tokens[heard->n++] = event->logprobs[0].token;
        heard->logprob = event->logprobs[0].logprob;
    }
    return true;
}

static runnel_request ask_for(int budget, int max_tokens, unsigned seed, struct heard *heard)
{
    runnel_request request;
    runnel_request_init(&request);
    *heard = (struct heard){0};
    request.prompt = "Why is the sky blue?";
    request.max_tokens = max_tokens;
    request.thinking_budget = budget;
    own_sampling(model, &request)->seed = seed;
    own_sampling(model, &request)->temperature = 1;
    own_sampling(model, &request)->logit_bias = never_ends;
    own_sampling(model, &request)->n_logit_bias = N_NEVER;
    request.wants_tokens = true;
    request.wants_logits_hash = true;
    request.on_event = hear;
    request.user = heard;
    return request;
}

static runnel_response respond(runnel_engine *engine, const runnel_request *request)
{
    runnel_response response = {.size = sizeof response};
    runnel_error error;
    if (runnel_respond(engine, request, &response, &error))
        fail_msg("%s", error.message);
    return response;
}

/* Where the tokens of a text stand in a list; -1: nowhere. */
static int find_token(const struct heard *heard, int32_t token)
{
    for (size_t i = 0; i < heard->n; i++)
        if (heard->tokens[i] == token)
            return (int)i;
    return -1;
}

/* Draws no token that shows nothing: where an answer begins, constraints let none be drawn, and a prompt knows nothing of that. */
static void show_all(runnel_request *request)
{
    static runnel_logit_bias bias[256];
    size_t n = 0, n_blanks, n_silent;
    const int32_t *blanks = tokenizer_blanks(model->tokenizer, &n_blanks);
    const int32_t *silent = tokenizer_silent(model->tokenizer, &n_silent);
    assert_true(N_NEVER + n_blanks + n_silent <= sizeof bias / sizeof *bias);
    for (size_t i = 0; i < N_NEVER; i++)
        bias[n++] = never_ends[i];
    for (size_t i = 0; i < n_blanks; i++)
        bias[n++] = (runnel_logit_bias){blanks[i], -100};
    for (size_t i = 0; i < n_silent; i++)
        bias[n++] = (runnel_logit_bias){silent[i], -100};
    own_sampling(model, request)->logit_bias = bias;
    own_sampling(model, request)->n_logit_bias = n;
}

/* Bit for bit: the rest is what the model continues a prompt with that holds the thought and its end. */
static void the_answer_follows(void **state)
{
    (void)state;
    runnel_engine *engine =
        tiny_engine_start(model, (runnel_engine_options){.n_context = 512, .n_parallel = 2});
    static const int budgets[] = {1, 2, 17, 60};
    for (size_t i = 0; i < sizeof budgets / sizeof *budgets; i++) {
        struct heard heard, rest;
        runnel_request request = ask_for(budgets[i], 100, (unsigned)i, &heard);
        show_all(&request);
        runnel_response response = respond(engine, &request);
        int close_at = find_token(&heard, TINY_TOKEN_THINK_END);
        assert_int_equal(response.n_reasoning_tokens, budgets[i]);
        assert_int_equal(response.n_tokens, 100);
        assert_int_equal(response.finish_reason, RUNNEL_FINISH_LENGTH);
        assert_int_equal(close_at, budgets[i] + 1); /* a newline stands between */
        assert_true(response.text_len > 0 && response.reasoning_len > 0);
        assert_null(strstr(response.reasoning, "think>"));
        assert_true(response.thinking_ms >= 0 && response.thinking_ms < response.decode_ms);

        int32_t *prompt;
        size_t n_prompt, n_until = (size_t)close_at + 1;
        assert_int_equal(runnel_prompt_tokens(model, &request, &prompt, &n_prompt, NULL), RUNNEL_OK);
        while (n_until < heard.n && n_until < (size_t)close_at + 3 &&
               heard.tokens[n_until] == heard.tokens[close_at - 1])
            n_until++; /* the newlines after it, a token each in this vocabulary */
        int32_t *ids = malloc((n_prompt + n_until) * sizeof *ids);
        assert_non_null(ids);
        memcpy(ids, prompt, n_prompt * sizeof *ids);
        memcpy(ids + n_prompt, heard.tokens, n_until * sizeof *ids);
        runnel_request continued = ask_for(-1, 100 - (int)n_until, (unsigned)i, &rest);
        show_all(&continued);
        continued.prompt = NULL;
        continued.prompt_ids = ids;
        continued.n_prompt_ids = n_prompt + n_until;
        runnel_response expected = respond(engine, &continued);
        assert_int_equal(rest.n, 100 - n_until);
        assert_memory_equal(rest.tokens, heard.tokens + n_until, rest.n * sizeof *rest.tokens);
        assert_string_equal(expected.text, response.text);
        free(ids);
        runnel_tokens_free(prompt);
        runnel_response_free(&response);
        runnel_response_free(&expected);
    }
    runnel_engine_stop(engine);
}

/* A prompt whose tokens were made before has its template and its thoughts all the same. */
static void tokens_may_be_made_before(void **state)
{
    (void)state;
    runnel_engine *engine = tiny_engine_start(model, (runnel_engine_options){.n_context = 512});
    struct heard heard, again;
    runnel_request request = ask_for(10, 40, 1, &heard), encoded = ask_for(10, 40, 1, &again);
    int32_t *ids;
    assert_int_equal(runnel_prompt_tokens(model, &request, &ids, &encoded.n_prompt_ids, NULL), RUNNEL_OK);
    encoded.prompt_ids = ids;
    encoded.encoded = true;
    runnel_response expected = respond(engine, &request), response = respond(engine, &encoded);
    assert_int_equal(again.n, heard.n);
    assert_memory_equal(again.tokens, heard.tokens, heard.n * sizeof *heard.tokens);
    assert_string_equal(response.reasoning, expected.reasoning);
    assert_string_equal(response.text, expected.text);
    assert_int_equal(response.n_reasoning_tokens, 10);
    runnel_tokens_free(ids);
    runnel_response_free(&response);
    runnel_response_free(&expected);
    runnel_engine_stop(engine);
}

/* A thought that ends by itself in time is left alone, whatever the budget. */
static void shorter_thoughts_are_left_alone(void **state)
{
    (void)state;
    runnel_engine *engine = tiny_engine_start(model, (runnel_engine_options){.n_context = 512});
    const runnel_logit_bias soon = {TINY_TOKEN_THINK_END, 2};
    unsigned n_tried = 0;
    for (unsigned seed = 0; seed < 20; seed++) {
        struct heard heard, budgeted;
        runnel_request request = ask_for(-1, 80, seed, &heard);
        own_sampling(model, &request)->logit_bias = &soon;
        own_sampling(model, &request)->n_logit_bias = 1;
        runnel_response free_one = respond(engine, &request);
        int n_thought = (int)free_one.n_reasoning_tokens;
        if (n_thought > 1 && n_thought < 70) {
            n_tried++;
            request.thinking_budget = n_thought;
            request.user = &budgeted;
            budgeted.n = 0;
            runnel_response same = respond(engine, &request);
            assert_true(same.logits_hash == free_one.logits_hash &&
                        same.n_reasoning_tokens == (uint32_t)n_thought);
            runnel_response_free(&same);
            /* One less, and it is cut: its own end tag is the token too much. */
            request.thinking_budget = n_thought - 1;
            budgeted.n = 0;
            runnel_response cut = respond(engine, &request);
            assert_int_equal(cut.n_reasoning_tokens, n_thought - 1);
            assert_true(cut.logits_hash != free_one.logits_hash);
            runnel_response_free(&cut);
        }
        runnel_response_free(&free_one);
    }
    assert_true(n_tried > 2);
    runnel_engine_stop(engine);
}

/* Odd ones have a soft budget, too, and a message. */
static runnel_request ask_in_company(unsigned i, struct heard *heard)
{
    runnel_request request = ask_for(i % 2 ? 140 : 20 + (int)i * 11, 160, i, heard);
    request.soft_thinking_budget = i % 2 ? 5 : -1;
    request.thinking_message = i % 2 ? "So." : NULL;
    return request;
}

/* Alone, in company, and put back again and again for want of pages. */
static void company_changes_nothing(void **state)
{
    (void)state;
    enum { N = 6 };
    runnel_engine *engine = tiny_engine_start(
        model, (runnel_engine_options){.n_context = 256, .n_parallel = N, .n_kv_tokens = 512});
    runnel_request requests[N];
    runnel_response together[N] = {{.size = sizeof *together}};
    struct heard heard[N];
    runnel_error error;
    uint32_t n_preempted = 0, n_soft = 0;
    for (unsigned i = 0; i < N; i++)
        requests[i] = ask_in_company(i, &heard[i]);
    if (runnel_respond_many(engine, requests, N, together, &error))
        fail_msg("%s", error.message);
    for (unsigned i = 0; i < N; i++) {
        struct heard heard_alone;
        runnel_request request = ask_in_company(i, &heard_alone);
        runnel_response alone = respond(engine, &request);
        assert_true(alone.logits_hash == together[i].logits_hash);
        assert_string_equal(alone.text, together[i].text);
        assert_string_equal(alone.reasoning, together[i].reasoning);
        assert_int_equal(together[i].n_reasoning_tokens, alone.n_reasoning_tokens);
        assert_int_equal(together[i].thought_end, alone.thought_end);
        if (i % 2 == 0)
            assert_int_equal(together[i].n_reasoning_tokens, 20 + i * 11);
        n_soft += alone.thought_end == RUNNEL_THOUGHT_SOFT_BUDGET;
        assert_in_range(together[i].slot, 0, N - 1);
        n_preempted += together[i].n_preempted;
        runnel_response_free(&alone);
        runnel_response_free(&together[i]);
    }
    assert_true(n_preempted > 0 && n_soft > 0);
    runnel_engine_stop(engine);
}

static void max_tokens_still_counts_all(void **state)
{
    (void)state;
    runnel_engine *engine = tiny_engine_start(model, (runnel_engine_options){.n_context = 512});
    for (int max_tokens = 9; max_tokens < 16; max_tokens++) {
        struct heard heard;
        runnel_request request = ask_for(10, max_tokens, 3, &heard);
        runnel_response response = respond(engine, &request);
        assert_int_equal(response.n_tokens, max_tokens);
        assert_int_equal(heard.n, max_tokens);
        assert_int_equal(response.finish_reason, RUNNEL_FINISH_LENGTH);
        assert_int_equal(response.n_reasoning_tokens, max_tokens < 10 ? max_tokens : 10);
        assert_null(strstr(response.reasoning, "</"));
        runnel_response_free(&response);
    }
    runnel_engine_stop(engine);
}

static void no_budget_at_all(void **state)
{
    (void)state;
    runnel_engine *engine = tiny_engine_start(model, (runnel_engine_options){.n_context = 512});
    struct heard heard;
    runnel_request request = ask_for(0, 40, 1, &heard), without = request;
    without.thinking_budget = -1;
    without.no_thinking = true;
    runnel_response response = respond(engine, &request);
    assert_int_equal(response.n_reasoning_tokens, 0);
    assert_string_equal(response.reasoning, "");
    uint64_t hash = response.logits_hash;
    runnel_response_free(&response);
    heard.n = 0;
    response = respond(engine, &without);
    assert_true(response.logits_hash == hash);
    runnel_response_free(&response);

    /* A model that opens a thought all the same has it closed. */
    const runnel_logit_bias opens = {TINY_TOKEN_THINK, 100};
    heard.n = 0;
    own_sampling(model, &request)->logit_bias = &opens;
    own_sampling(model, &request)->n_logit_bias = 1;
    response = respond(engine, &request);
    assert_int_equal(heard.tokens[0], TINY_TOKEN_THINK);
    assert_int_equal(heard.tokens[2], TINY_TOKEN_THINK_END);
    assert_int_equal(response.n_reasoning_tokens, 0);
    assert_true(response.text_len > 0);
    runnel_response_free(&response);

    runnel_error error;
    request.thinking_budget = -2;
    runnel_future *future;
    assert_int_equal(runnel_submit(engine, &request, 1, &future, &error), RUNNEL_EINVAL);
    assert_non_null(strstr(error.message, "thinking_budget"));
    runnel_engine_stop(engine);
}

/* The same tokens with probabilities; that of a token that was not drawn is the model's, too. */
static void forced_tokens_have_probabilities(void **state)
{
    (void)state;
    runnel_engine *engine = tiny_engine_start(model, (runnel_engine_options){.n_context = 512});
    struct heard plain, told;
    runnel_request request = ask_for(10, 11, 5, &plain); /* the tag is the last token */
    runnel_response response = respond(engine, &request);
    assert_true(plain.n == 11 && plain.logprob == 0);
    runnel_response_free(&response);
    told = (struct heard){0};
    request.user = &told;
    request.n_logprobs = 2;
    response = respond(engine, &request);
    assert_memory_equal(told.tokens, plain.tokens, sizeof told.tokens);
    assert_int_equal(told.tokens[10], TINY_TOKEN_THINK_END);
    assert_true(told.logprob < 0);
    runnel_response_free(&response);

    /* After sampling it has one, too; none where sampling would not have drawn it. */
    const runnel_logit_bias rarely_ends[] = {{TINY_TOKEN_THINK_END, -12}};
    for (int top_k = 0; top_k < 2; top_k++) {
        told = (struct heard){0};
        request.wants_sampled_probs = true;
        own_sampling(model, &request)->logit_bias = rarely_ends;
        own_sampling(model, &request)->n_logit_bias = 1;
        own_sampling(model, &request)->top_k = top_k;
        own_sampling(model, &request)->top_p = 1;
        own_sampling(model, &request)->min_p = 0;
        response = respond(engine, &request);
        assert_int_equal(told.tokens[10], TINY_TOKEN_THINK_END);
        assert_true(top_k ? told.logprob == -INFINITY : told.logprob < -8 && told.logprob > -40);
        runnel_response_free(&response);
    }
    runnel_engine_stop(engine);
}

static void the_stop_text_is_named(void **state)
{
    (void)state;
    runnel_engine *engine = tiny_engine_start(model, (runnel_engine_options){.n_context = 512});
    struct heard heard;
    runnel_request request = ask_for(5, 40, 5, &heard);
    runnel_response response = respond(engine, &request);
    assert_int_equal(response.stop_index, -1);
    assert_true(response.text_len > 8);
    char longer[4] = {0}, shorter[3] = {0};
    memcpy(longer, response.text, 3);
    memcpy(shorter, response.text + 1, 2);
    assert_true(longer[0] > 0 && longer[1] > 0 && longer[2] > 0 && memcmp(longer, shorter, 2) != 0);
    const char *const stops[] = {"zzzzzzzz", longer, shorter};
    runnel_response_free(&response);
    heard.n = 0;
    request.stop = stops;
    request.n_stop = 3;
    response = respond(engine, &request);
    assert_int_equal(response.finish_reason, RUNNEL_FINISH_STOP);
    assert_int_equal(response.stop_index, 1); /* of two that end together the longest */
    assert_int_equal(response.text_len, 0);
    assert_true(response.reasoning_len > 0 && response.thought_closed);
    runnel_response_free(&response);
    runnel_engine_stop(engine);
}

/* A letter that a thought has is a stop text, and so are its tags: the thought stays whole, and so does its end. */
static void stop_texts_end_no_thought(void **state)
{
    (void)state;
    runnel_engine *engine = tiny_engine_start(model, (runnel_engine_options){.n_context = 512});
    struct heard heard;
    runnel_request request = ask_for(20, 21, 5, &heard);
    runnel_response whole = respond(engine, &request);
    assert_true(whole.reasoning_len > 0);
    char letter[2] = "";
    for (size_t i = 0; i < whole.reasoning_len && !letter[0]; i++)
        if ((unsigned char)whole.reasoning[i] < 0x80)
            letter[0] = whole.reasoning[i];
    assert_true(letter[0]);
    const char *const list[] = {letter, "<", ">", "</think>", "think"};
    heard.n = 0;
    request.stop = list;
    request.n_stop = 5;
    runnel_response stopped = respond(engine, &request);
    assert_string_equal(stopped.reasoning, whole.reasoning);
    assert_int_equal(stopped.n_reasoning_tokens, whole.n_reasoning_tokens);
    runnel_response_free(&whole);
    runnel_response_free(&stopped);
    runnel_engine_stop(engine);
}

/* A user's text never becomes a control token, and is counted as it is submitted. */
static void prompts_are_told_as_tokens(void **state)
{
    (void)state;
    runnel_engine *engine = tiny_engine_start(model, (runnel_engine_options){.n_context = 512});
    const runnel_message message = {"user", "a<｜User｜>b", 0};
    struct heard heard;
    runnel_request request = ask_for(-1, 1, 1, &heard);
    request.prompt = NULL;
    request.messages = &message;
    request.n_messages = 1;
    int32_t *ids;
    size_t n_ids, n_control = 0;
    assert_int_equal(runnel_prompt_tokens(model, &request, &ids, &n_ids, NULL), RUNNEL_OK);
    for (size_t i = 0; i < n_ids; i++)
        n_control += ids[i] == TINY_TOKEN_R1_USER;
    assert_int_equal(n_control, 1); /* the template's own */
    runnel_response response = respond(engine, &request);
    assert_int_equal(response.n_prompt_tokens, n_ids);
    runnel_response_free(&response);
    runnel_tokens_free(ids);
    request.prompt = "two inputs";
    assert_int_equal(runnel_prompt_tokens(model, &request, &ids, &n_ids, NULL), RUNNEL_EINVAL);
    runnel_engine_stop(engine);
}

/* A thought that is begun is gone on with; zeros in texts count. */
static void prompts_are_told_as_text(void **state)
{
    (void)state;
    runnel_message messages[] = {{"user", "a\0b", 3}, {"assistant", "<think>\nhm", 0}};
    static const char rendered[] = "<｜begin▁of▁sentence｜><｜User｜>a\0b<｜Assistant｜><think>\nhm";
    struct heard heard;
    runnel_request request = ask_for(-1, 4, 1, &heard);
    char *text;
    size_t len;
    request.prompt = NULL;
    request.messages = messages;
    request.n_messages = 2;
    request.continues = true;
    assert_int_equal(runnel_prompt_text(model, &request, &text, &len, NULL), RUNNEL_OK);
    assert_int_equal(len, sizeof rendered - 1);
    assert_memory_equal(text, rendered, sizeof rendered);
    runnel_text_free(text);
    runnel_engine *engine = tiny_engine_start(model, (runnel_engine_options){.n_context = 512});
    runnel_response response = respond(engine, &request);
    assert_int_equal(response.n_reasoning_tokens, 4);
    assert_int_equal(response.text_len, 0);
    runnel_response_free(&response);
    request.n_messages = 1;
    assert_int_equal(runnel_prompt_text(model, &request, &text, &len, NULL), RUNNEL_EINVAL);
    request.messages = NULL;
    request.n_messages = 0;
    request.prompt = "a\0b";
    request.prompt_len = 3;
    assert_int_equal(runnel_prompt_text(model, &request, &text, &len, NULL), RUNNEL_EINVAL);
    int32_t id = 1;
    request.prompt_ids = &id;
    request.n_prompt_ids = request.n_messages = 1;
    request.encoded = true; /* of a conversation that is not there */
    assert_int_equal(runnel_prompt_text(model, &request, &text, &len, NULL), RUNNEL_EINVAL);
    request.prompt_ids = NULL;
    request.n_prompt_ids = request.n_messages = 0;
    request.encoded = false;
    request.continues = false;
    request.raw = true;
    static const char led[] = "<｜begin▁of▁sentence｜>a\0b";
    assert_int_equal(runnel_prompt_text(model, &request, &text, &len, NULL), RUNNEL_OK);
    assert_int_equal(len, sizeof led - 1);
    assert_memory_equal(text, led, sizeof led);
    runnel_text_free(text);
    response = respond(engine, &request);
    assert_int_equal(response.n_prompt_tokens, 4);
    runnel_response_free(&response);
    request.prompt = led; /* it begins so by itself */
    request.prompt_len = sizeof led - 1;
    response = respond(engine, &request);
    assert_int_equal(response.n_prompt_tokens, 4);
    runnel_response_free(&response);
    runnel_engine_stop(engine);
}

struct counted {
    bool wanted;
    unsigned n_texts;
    uint32_t n_tokens; /* of the last text */
};

static bool count(void *user, const runnel_event *event)
{
    struct counted *counted = user;
    if (event->kind != RUNNEL_EVENT_THOUGHT && event->kind != RUNNEL_EVENT_ANSWER)
        return true;
    assert_int_equal(event->counts != NULL, counted->wanted);
    counted->n_texts++;
    if (!event->counts)
        return true;
    assert_true(event->counts->n_tokens >= counted->n_tokens && event->counts->n_prompt_tokens > 0);
    assert_int_equal(event->counts->text_len + event->counts->reasoning_len, 0);
    counted->n_tokens = event->counts->n_tokens;
    return true;
}

static void texts_come_with_counts(void **state)
{
    (void)state;
    runnel_engine *engine = tiny_engine_start(model, (runnel_engine_options){.n_context = 512});
    for (int wanted = 0; wanted < 2; wanted++) {
        struct heard heard;
        struct counted counted = {.wanted = wanted};
        runnel_request request = ask_for(3, 20, 1, &heard);
        request.wants_counts = wanted;
        request.on_event = count;
        request.user = &counted;
        runnel_response response = respond(engine, &request);
        assert_true(counted.n_texts > 3 && response.text_len > 0);
        assert_true(counted.n_tokens == 0 || counted.n_tokens >= 10);
        assert_int_equal(counted.n_tokens > 0, wanted);
        runnel_response_free(&response);
    }
    runnel_engine_stop(engine);
}

struct watched {
    runnel_engine *engine;
    runnel_slot slots[3];
};

static bool watch(void *user, const runnel_event *event)
{
    struct watched *watched = user;
    if (event->kind == RUNNEL_EVENT_TOKEN)
        runnel_slots(watched->engine, watched->slots, 3);
    return true;
}

static void slots_show_what_runs(void **state)
{
    (void)state;
    runnel_engine *engine =
        tiny_engine_start(model, (runnel_engine_options){.n_context = 512, .n_parallel = 2});
    struct watched watched = {.engine = engine, .slots = {{.size = sizeof *watched.slots}}};
    struct heard heard;
    runnel_request request = ask_for(-1, 10, 1, &heard);
    request.on_event = watch;
    request.user = &watched;
    runnel_response response = respond(engine, &request);
    const runnel_slot *slot = &watched.slots[response.slot];
    assert_true(slot->is_processing && !watched.slots[!response.slot].is_processing);
    assert_false(watched.slots[2].is_processing); /* there are two */
    assert_int_equal(slot->n_tokens, 9);          /* the last one is about to be told, */
    assert_int_equal(slot->max_tokens, 10);
    assert_int_equal(slot->n_prompt_tokens, response.n_prompt_tokens);
    assert_int_equal(slot->n_computed, response.n_prompt_tokens + 9); /* after a step with all before it */
    runnel_response_free(&response);
    runnel_engine_stop(engine);
}

struct stats_heard {
    runnel_engine *engine;
    uint32_t n_running, n_waiting; /* in the first event */
    size_t n_events;
};

static bool count_running(void *user, const runnel_event *event)
{
    (void)event;
    struct stats_heard *first = user;
    runnel_stats_values stats = {.size = sizeof stats};
    runnel_stats(first->engine, &stats);
    if (!first->n_events++) {
        first->n_running = stats.n_running;
        first->n_waiting = stats.n_waiting;
    }
    return true;
}

/* Whose first event it is runs, whether that tells of the prompt or of a token. */
static void stats_count_who_runs(void **state)
{
    (void)state;
    runnel_engine *engine =
        tiny_engine_start(model, (runnel_engine_options){.n_context = 512, .n_parallel = 2});
    for (int progress = 0; progress < 2; progress++) {
        struct stats_heard first = {.engine = engine};
        struct heard heard;
        runnel_request request = ask_for(-1, 3, 1, &heard);
        request.wants_progress = progress;
        request.on_event = count_running;
        request.user = &first;
        runnel_response response = respond(engine, &request);
        assert_true(first.n_events > 2);
        assert_int_equal(first.n_running, 1);
        assert_int_equal(first.n_waiting, 0);
        runnel_response_free(&response);
    }
    runnel_engine_stop(engine);
}

struct texts {
    char text[512], reasoning[512];
};

static bool join(void *user, const runnel_event *event)
{
    struct texts *texts = user;
    if (event->kind == RUNNEL_EVENT_THOUGHT)
        strcat(texts->reasoning, event->text);
    if (event->kind == RUNNEL_EVENT_ANSWER)
        strcat(texts->text, event->text);
    return true;
}

/* The model says nothing but beginnings of characters. Those that no limit cut are U+FFFD. */
static void limits_within_characters(void **state)
{
    (void)state;
    static const runnel_logit_bias begins[] = {{0xe2, 1000}};
    static const char two[] = "\xef\xbf\xbd\xef\xbf\xbd";
    runnel_engine *engine = tiny_engine_start(model, (runnel_engine_options){.n_context = 512});
    struct heard heard;
    struct texts texts = {.text = ""};
    runnel_request request = ask_for(0, 3, 1, &heard);
    request.no_thinking = true;
    request.thinking_budget = -1;
    own_sampling(model, &request)->logit_bias = begins;
    own_sampling(model, &request)->n_logit_bias = 1;
    request.on_event = join;
    request.user = &texts;
    runnel_response response = respond(engine, &request);
    assert_int_equal(response.finish_reason, RUNNEL_FINISH_LENGTH);
    assert_int_equal(response.n_tokens, 3);
    assert_string_equal(response.text, two);
    assert_string_equal(texts.text, two);
    runnel_response_free(&response);

    texts = (struct texts){.text = ""}; /* the budget cuts the thought, max_tokens the answer */
    request.no_thinking = false;
    request.thinking_budget = 3;
    request.max_tokens = 30;
    response = respond(engine, &request);
    assert_true(response.thought_closed);
    assert_string_equal(response.reasoning, "\xef\xbf\xbd\xef\xbf\xbd\n"); /* the end is a line of its own */
    assert_string_equal(texts.reasoning, response.reasoning);
    size_t n_answer = response.text_len;
    assert_true(n_answer > 0 && n_answer % 3 == 0);
    runnel_response_free(&response);
    request.max_tokens++;
    response = respond(engine, &request);
    assert_int_equal(response.text_len, n_answer + 3);
    runnel_response_free(&response);
    runnel_engine_stop(engine);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_answer_follows),
        cmocka_unit_test(tokens_may_be_made_before),
        cmocka_unit_test(shorter_thoughts_are_left_alone),
        cmocka_unit_test(company_changes_nothing),
        cmocka_unit_test(max_tokens_still_counts_all),
        cmocka_unit_test(no_budget_at_all),
        cmocka_unit_test(forced_tokens_have_probabilities),
        cmocka_unit_test(the_stop_text_is_named),
        cmocka_unit_test(stop_texts_end_no_thought),
        cmocka_unit_test(prompts_are_told_as_tokens),
        cmocka_unit_test(slots_show_what_runs),
        cmocka_unit_test(prompts_are_told_as_text),
        cmocka_unit_test(stats_count_who_runs),
        cmocka_unit_test(limits_within_characters),
        cmocka_unit_test(texts_come_with_counts),
    };
    return cmocka_run_group_tests(tests, open_model, tiny_engine_close);
}
