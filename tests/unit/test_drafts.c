/* test_drafts.c: answers with drafts and without are the same bit for bit, whatever else goes on; and keys are apart. On tiny models,
 * whose answers are made to repeat themselves. */
#include "helpers/tiny_engine.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { N_TOKENS_MAX = 600, N_REQUESTS_MAX = 6 };

static runnel_model *model, *thinker;

/* Few tokens come, so that what came before comes again; the answer does not end of its own accord. */
static const runnel_logit_bias few[] = {{'a', 60},
                                        {'b', 60},
                                        {'c', 59},
                                        {'d', 59},
                                        {'f', 58},
                                        {'e', 58},
                                        {TINY_TOKEN_IM_END, -100},
                                        {TINY_TOKEN_R1_END, -100},
                                        {TINY_TOKEN_ENDOFTEXT, -100}};
enum { N_FEW = sizeof few / sizeof *few };

static int open_models(void **state)
{
    struct tiny_model_options options = tiny_engine_model();
    model = tiny_engine_open(&options);
    options.pre = "deepseek-r1-qwen";
    options.chat = "r1";
    thinker = tiny_engine_open(&options);
    *state = NULL;
    return 0;
}

static int close_models(void **state)
{
    (void)state;
    runnel_model_close(model);
    runnel_model_close(thinker);
    return 0;
}

/* All that is heard of an answer. */
struct heard {
    int32_t tokens[N_TOKENS_MAX];
    float logprobs[N_TOKENS_MAX];
    uint64_t steps[N_TOKENS_MAX]; /* of the engine, when the token was told */
    size_t n, n_finishes;
    size_t n_wanted; /* it wants to hear no more then; 0: all */
    runnel_engine *engine;
    runnel_response response;
};

static bool hear(void *user, const runnel_event *event)
{
    struct heard *heard = user;
    if (event->kind == RUNNEL_EVENT_FINISH)
        heard->n_finishes++;
    if (event->kind != RUNNEL_EVENT_TOKEN)
        return true;
    assert_true(heard->n < N_TOKENS_MAX);
    heard->tokens[heard->n] = event->logprobs[0].token;
    for (size_t i = 0; i < event->n_logprobs; i++)
        heard->logprobs[heard->n] += event->logprobs[i].logprob * (float)(i + 1);
    runnel_stats_values stats = {.size = sizeof stats};
    runnel_stats(heard->engine, &stats);
    heard->steps[heard->n] = stats.n_steps;
    heard->n++;
    return heard->n != heard->n_wanted;
}

static runnel_request request_of(const runnel_model *of, const char *prompt, int max_tokens,
                                 float temperature, unsigned seed)
{
    runnel_request request;
    runnel_request_init(&request);
    request.prompt = prompt;
    request.max_tokens = max_tokens;
    own_sampling(of, &request)->temperature = temperature;
    own_sampling(of, &request)->seed = seed;
    own_sampling(of, &request)->top_k = 0;
    own_sampling(of, &request)->top_p = 1;
    own_sampling(of, &request)->repetition_penalty = 1;
    own_sampling(of, &request)->logit_bias = few;
    own_sampling(of, &request)->n_logit_bias = N_FEW;
    request.wants_tokens = true;
    request.wants_logits_hash = true;
    return request;
}

/* Asks n requests at once. */
static void ask(runnel_engine *engine, const runnel_request *requests, size_t n, struct heard *heard)
{
    runnel_request own[N_REQUESTS_MAX] = {{.size = 0}};
    runnel_response responses[N_REQUESTS_MAX] = {{.size = 0}};
    runnel_error error;
    for (size_t i = 0; i < n; i++) {
        size_t n_wanted = heard[i].n_wanted;
        heard[i] = (struct heard){.n_wanted = n_wanted, .engine = engine};
        own[i] = requests[i];
        own[i].on_event = hear;
        own[i].user = &heard[i];
        responses[i] = (runnel_response){.size = sizeof *responses};
    }
    if (runnel_respond_many(engine, own, n, responses, &error))
        fail_msg("%s", error.message);
    for (size_t i = 0; i < n; i++)
        heard[i].response = responses[i];
}

static void forget(struct heard *heard, size_t n)
{
    for (size_t i = 0; i < n; i++)
        runnel_response_free(&heard[i].response);
}

static void assert_same(const struct heard *a, const struct heard *b)
{
    assert_int_equal(a->n, b->n);
    assert_memory_equal(a->tokens, b->tokens, a->n * sizeof *a->tokens);
    assert_memory_equal(a->logprobs, b->logprobs, a->n * sizeof *a->logprobs);
    assert_int_equal(a->n_finishes, 1);
    assert_int_equal(b->n_finishes, 1);
    assert_string_equal(a->response.text, b->response.text);
    assert_string_equal(a->response.reasoning, b->response.reasoning);
    assert_int_equal(a->response.finish_reason, b->response.finish_reason);
    assert_int_equal(a->response.stop_index, b->response.stop_index);
    assert_int_equal(a->response.n_tokens, b->response.n_tokens);
    assert_int_equal(a->response.n_reasoning_tokens, b->response.n_reasoning_tokens);
    assert_int_equal(a->response.thought_end, b->response.thought_end);
    assert_int_equal(a->response.n_calls, b->response.n_calls);
    assert_true(a->response.logits_hash == b->response.logits_hash);
}

/* What drafts did in thoughts. */
struct thoughts {
    uint32_t n_ends[RUNNEL_THOUGHT_ASKED + 1]; /* by what ended them */
    uint32_t n_tokens, n_steps;
    uint32_t
        n_within; /* whose last token, and the first one of what closes them, were of the same step: the end is within a draft */
};

static void count_thought(struct thoughts *thoughts, const struct heard *heard)
{
    uint32_t n = heard->response.n_reasoning_tokens;
    thoughts->n_ends[heard->response.thought_end]++;
    thoughts->n_tokens += n;
    for (uint32_t i = 0; i < n; i++)
        thoughts->n_steps += !i || heard->steps[i] != heard->steps[i - 1];
    thoughts->n_within += n && n < heard->n && heard->steps[n - 1] == heard->steps[n];
}

static void add_thoughts(struct thoughts *all, const struct thoughts *more)
{
    for (size_t i = 0; i <= RUNNEL_THOUGHT_ASKED; i++)
        all->n_ends[i] += more->n_ends[i];
    all->n_tokens += more->n_tokens;
    all->n_steps += more->n_steps;
    all->n_within += more->n_within;
}

/* What drafts did in a comparison. */
struct outcome {
    uint64_t n_tokens, n_drafted, n_accepted, n_preempted, n_cached;
    uint32_t n_calls; /* of tools */
    struct thoughts thoughts;
};

/* Asks two engines, one with drafts and one without, twice: the second time answers are in the history and prompts in the cache. */
static struct outcome compare(runnel_model *of, runnel_engine_options options, const runnel_request *requests,
                              size_t n, size_t n_wanted)
{
    static struct heard with[N_REQUESTS_MAX], without[N_REQUESTS_MAX];
    struct outcome outcome = {0};
    runnel_stats_values stats = {.size = sizeof stats};
    options.n_threads = n > 1 ? 2 : 1;
    runnel_engine *guessing = tiny_engine_start(of, options);
    options.no_drafts = true;
    runnel_engine *plain = tiny_engine_start(of, options);
    for (int round = 0; round < 2; round++) {
        for (size_t i = 0; i < n; i++)
            with[i].n_wanted = without[i].n_wanted = n_wanted;
        ask(guessing, requests, n, with);
        ask(plain, requests, n, without);
        for (size_t i = 0; i < n; i++) {
            assert_same(&with[i], &without[i]);
            assert_int_equal(without[i].response.n_draft_tokens, 0);
            assert_true(with[i].response.n_draft_accepted <= with[i].response.n_draft_tokens);
            assert_true(with[i].response.n_draft_accepted <= with[i].response.n_tokens);
            outcome.n_tokens += with[i].response.n_tokens;
            outcome.n_drafted += with[i].response.n_draft_tokens;
            outcome.n_accepted += with[i].response.n_draft_accepted;
            outcome.n_preempted += with[i].response.n_preempted;
            outcome.n_cached += with[i].response.n_cached_tokens;
            count_thought(&outcome.thoughts, &with[i]);
            outcome.n_calls += (uint32_t)with[i].response.n_calls;
        }
        forget(with, n);
        forget(without, n);
    }
    tiny_engine_wait_until_idle(guessing);
    runnel_stats(guessing, &stats); /* of all that ended, what was told */
    assert_int_equal(stats.n_generated_tokens, outcome.n_tokens);
    assert_int_equal(stats.n_draft_tokens, outcome.n_drafted);
    assert_int_equal(stats.n_draft_accepted, outcome.n_accepted);
    assert_true(stats.n_drafts <= stats.n_draft_tokens);
    uint64_t n_prompt_tokens = stats.n_prompt_tokens;
    runnel_stats(plain, &stats);
    if (n == 1)
        assert_int_equal(stats.n_prompt_tokens, n_prompt_tokens);
    assert_int_equal(stats.n_drafts + stats.n_draft_tokens + stats.n_draft_accepted, 0);
    runnel_engine_stop(guessing);
    runnel_engine_stop(plain);
    return outcome;
}

static void greedy_and_with_seeds(void **state)
{
    (void)state;
    struct outcome all = {0};
    for (unsigned seed = 0; seed < 6; seed++) {
        runnel_request request = request_of(model, "What is it?", 200, 0.4f * (float)seed, seed);
        struct outcome outcome =
            compare(model, (runnel_engine_options){.n_context = 512, .n_parallel = 1}, &request, 1, 0);
        assert_int_equal(outcome.n_tokens, 400);
        all.n_accepted += outcome.n_accepted;
        all.n_drafted += outcome.n_drafted;
    }
    assert_true(all.n_accepted > 300);           /* the second time each one is known */
    assert_true(all.n_drafted > all.n_accepted); /* and some were wrong */
}

static void beside_others(void **state)
{
    (void)state;
    static const char *const prompts[] = {"one", "another one", "a third, longer one, which has more to it",
                                          "four"};
    runnel_request requests[4];
    for (unsigned i = 0; i < 4; i++)
        requests[i] = request_of(model, prompts[i], 60 + 70 * (int)i, 0.3f * (float)i, i);
    struct outcome outcome =
        compare(model, (runnel_engine_options){.n_context = 512, .n_parallel = 4}, requests, 4, 0);
    assert_true(outcome.n_accepted > 0);
}

static void where_a_prompt_comes_meanwhile(void **state)
{
    (void)state;
    static const char *const prompts[] = {"one", "another one", "three", "four", "five", "six"};
    runnel_request requests[6];
    for (unsigned i = 0; i < 6; i++)
        requests[i] = request_of(model, prompts[i], 40 + 30 * (int)i, 0.5f, i);
    struct outcome outcome = compare(
        model, (runnel_engine_options){.n_context = 256, .n_parallel = 2, .n_requests = 6}, requests, 6, 0);
    assert_true(outcome.n_accepted > 0);
}

static void with_penalties(void **state)
{
    (void)state;
    uint64_t n_accepted = 0;
    for (unsigned seed = 0; seed < 4; seed++) {
        runnel_request request = request_of(model, "What is it?", 150, 0.7f, seed);
        own_sampling(model, &request)->repetition_penalty = 1.2f;
        own_sampling(model, &request)->presence_penalty = 0.5f;
        own_sampling(model, &request)->frequency_penalty = 0.1f;
        own_sampling(model, &request)->penalty_window = seed % 2 ? -1 : 20;
        n_accepted +=
            compare(model, (runnel_engine_options){.n_context = 512, .n_parallel = 1}, &request, 1, 0)
                .n_accepted;
    }
    assert_true(n_accepted > 100);
}

static void with_logprobs(void **state)
{
    (void)state;
    for (int sampled = 0; sampled < 2; sampled++) {
        runnel_request request = request_of(model, "What is it?", 150, 0.7f, 3);
        request.n_logprobs = 5;
        request.wants_sampled_probs = sampled;
        struct outcome outcome =
            compare(model, (runnel_engine_options){.n_context = 512, .n_parallel = 1}, &request, 1, 0);
        assert_true(outcome.n_accepted > 20);
    }
}

/* The grammar forces most of the text: it is guessed the first time already. */
static void with_a_schema(void **state)
{
    (void)state;
    static const char schema[] = "{\"type\":\"object\",\"properties\":{\"a_long_name_of_a_member\":{\"enum\":"
                                 "[\"the only value of it\"]},"
                                 "\"another_name\":{\"type\":\"integer\",\"minimum\":1,\"maximum\":99},"
                                 "\"kind\":{\"enum\":[\"one\",\"other\"]}},"
                                 "\"required\":[\"a_long_name_of_a_member\",\"another_name\",\"kind\"],"
                                 "\"additionalProperties\":false}";
    for (unsigned seed = 0; seed < 3; seed++) {
        runnel_request request = request_of(model, "What is it?", 300, 0.8f, seed);
        own_sampling(model, &request)->logit_bias = NULL;
        own_sampling(model, &request)->n_logit_bias = 0;
        request.constraint = RUNNEL_CONSTRAINT_SCHEMA;
        request.constraint_text = schema;
        struct outcome outcome =
            compare(model, (runnel_engine_options){.n_context = 512, .n_parallel = 1}, &request, 1, 0);
        assert_true(outcome.n_accepted > outcome.n_tokens / 4);
    }
}

static void in_a_window(void **state)
{
    (void)state;
    runnel_request requests[2] = {request_of(model, "What is it?", 500, 0.5f, 1),
                                  request_of(model, "And what was it?", 400, 0, 2)};
    struct outcome outcome = compare(
        model, (runnel_engine_options){.n_context = 128, .n_parallel = 2, .keep_first = 10, .keep_last = 64},
        requests, 2, 0);
    assert_int_equal(outcome.n_tokens, 2 * 900);
    assert_true(outcome.n_accepted > 100);
}

static void after_preemption(void **state)
{
    (void)state;
    static const char *const prompts[] = {"one", "another one", "three", "four"};
    runnel_request requests[4];
    for (unsigned i = 0; i < 4; i++)
        requests[i] = request_of(model, prompts[i], 200, 0.5f, i);
    struct outcome outcome =
        compare(model, (runnel_engine_options){.n_context = 256, .n_parallel = 4, .n_kv_tokens = 320},
                requests, 4, 0);
    assert_true(outcome.n_preempted > 0);
    assert_true(outcome.n_accepted > 0);
}

static void over_cache_hits(void **state)
{
    (void)state;
    char prompt[300];
    memset(prompt, 'x', sizeof prompt);
    prompt[sizeof prompt - 1] = 0;
    runnel_request request = request_of(model, prompt, 100, 0.5f, 1);
    struct outcome outcome =
        compare(model, (runnel_engine_options){.n_context = 512, .n_parallel = 1}, &request, 1, 0);
    assert_true(outcome.n_cached > 200);
    assert_true(outcome.n_accepted > 20);
    int32_t ids[65]; /* all but the last one are in the cache: its step is of one row, and of guesses */
    for (int i = 0; i < 65; i++)
        ids[i] = 'a' + i % 20;
    request.prompt = NULL;
    request.prompt_ids = ids;
    request.n_prompt_ids = 65;
    outcome = compare(model, (runnel_engine_options){.n_context = 512, .n_parallel = 1}, &request, 1, 0);
    assert_int_equal(outcome.n_cached, 64);
}

/* What drafts have left in the cache is what was accepted: a conversation goes on over it. */
static void a_conversation_goes_on_over_the_cache(void **state)
{
    (void)state;
    static struct heard first, with, without;
    runnel_engine_options options = {.n_context = 1024, .n_parallel = 1, .n_threads = 1};
    runnel_engine *guessing = tiny_engine_start(model, options);
    options.no_drafts = true;
    runnel_engine *plain = tiny_engine_start(model, options);
    runnel_request request = request_of(model, "What is it?", 300, 0.5f, 5);
    ask(guessing, &request, 1, &first);
    int32_t *ids;
    size_t n_prompt;
    assert_int_equal(runnel_prompt_tokens(model, &request, &ids, &n_prompt, NULL), RUNNEL_OK);
    int32_t *all = malloc((n_prompt + first.n + 1) * sizeof *all);
    assert_non_null(all);
    memcpy(all, ids, n_prompt * sizeof *all);
    memcpy(all + n_prompt, first.tokens, first.n * sizeof *all);
    all[n_prompt + first.n] = 'z';
    runnel_tokens_free(ids);
    runnel_request next = request;
    next.prompt = NULL;
    next.prompt_ids = all;
    next.n_prompt_ids = n_prompt + first.n + 1;
    ask(guessing, &next, 1, &with);
    ask(plain, &next, 1, &without);
    assert_same(&with, &without);
    assert_true(with.response.n_cached_tokens > 250);
    forget(&first, 1);
    forget(&with, 1);
    forget(&without, 1);
    free(all);
    runnel_engine_stop(guessing);
    runnel_engine_stop(plain);
}

/* Thoughts, n of them twice, were ended by that alone, most of their tokens were guessed, and some ends lay within a draft. */
static void assert_ended_within_drafts(const struct thoughts *thoughts, enum runnel_thought_end end,
                                       uint32_t n)
{
    assert_int_equal(thoughts->n_ends[end], 2 * n);
    assert_true(thoughts->n_steps < (RUNNEL_SANITIZED ? thoughts->n_tokens : thoughts->n_tokens * 3 / 4));
    assert_true(thoughts->n_within > 0 || RUNNEL_SANITIZED); /* rows are dear there, and drafts short */
}

/* A budget that ends anywhere, in the middle of a draft, too: the closing is forced, and guessed. */
static void with_a_budget_of_thoughts(void **state)
{
    (void)state;
    struct thoughts all = {.n_tokens = 0};
    for (int budget = 20; budget < 32; budget++) {
        runnel_request request = request_of(thinker, "What is it?", 80, 0.4f, 2);
        request.thinking_budget = budget;
        struct outcome outcome =
            compare(thinker, (runnel_engine_options){.n_context = 512, .n_parallel = 1}, &request, 1, 0);
        add_thoughts(&all, &outcome.thoughts);
    }
    assert_ended_within_drafts(&all, RUNNEL_THOUGHT_BUDGET, 12);
}

/* Past the soft budget a thought ends where a sentence does, which may be within a draft, with a message before the close. */
static void with_a_soft_budget(void **state)
{
    (void)state;
    static const runnel_logit_bias sentences[] = {
        {'a', 60}, {'b', 60}, {'.', 58}, {' ', 58}, {TINY_TOKEN_R1_END, -100}, {TINY_TOKEN_ENDOFTEXT, -100}};
    struct thoughts all = {.n_tokens = 0};
    for (unsigned seed = 0; seed < 8; seed++) {
        runnel_request request = request_of(thinker, "What is it?", 200, 0.7f, seed);
        own_sampling(thinker, &request)->logit_bias = sentences;
        own_sampling(thinker, &request)->n_logit_bias = sizeof sentences / sizeof *sentences;
        request.soft_thinking_budget = 40 + (int)seed;
        request.thinking_message = "That is enough.";
        struct outcome outcome =
            compare(thinker, (runnel_engine_options){.n_context = 512, .n_parallel = 1}, &request, 1, 0);
        add_thoughts(&all, &outcome.thoughts);
    }
    assert_ended_within_drafts(&all, RUNNEL_THOUGHT_SOFT_BUDGET, 8);
}

/* What is kept for the answer begins anywhere. */
static void with_a_reserve(void **state)
{
    (void)state;
    struct thoughts all = {.n_tokens = 0};
    for (int reserve = 20; reserve < 32; reserve++) {
        runnel_request request = request_of(thinker, "What is it?", 90, 0.4f, 2);
        request.answer_reserve = reserve;
        struct outcome outcome =
            compare(thinker, (runnel_engine_options){.n_context = 512, .n_parallel = 1}, &request, 1, 0);
        add_thoughts(&all, &outcome.thoughts);
    }
    assert_ended_within_drafts(&all, RUNNEL_THOUGHT_RESERVE, 12);
}

/* What makes a loop of a thought is its latest tokens, which are guessed, as they came before. */
static void with_a_loop(void **state)
{
    (void)state;
    static const char *const prompts[] = {"What is it?", "What was it?", "aaaaaaaaaaaaaaaa", "Is it?"};
    static const runnel_logit_bias again[] = {
        {'a', 80}, {TINY_TOKEN_R1_END, -100}, {TINY_TOKEN_ENDOFTEXT, -100}};
    struct thoughts all = {.n_tokens = 0};
    for (unsigned i = 0; i < 4; i++) {
        runnel_request request = request_of(thinker, prompts[i], 200, 0.5f, i);
        own_sampling(thinker, &request)->logit_bias = again;
        own_sampling(thinker, &request)->n_logit_bias = sizeof again / sizeof *again;
        struct outcome outcome =
            compare(thinker, (runnel_engine_options){.n_context = 512, .n_parallel = 1}, &request, 1, 0);
        add_thoughts(&all, &outcome.thoughts);
    }
    assert_ended_within_drafts(&all, RUNNEL_THOUGHT_LOOP, 4);
}

/* The model ends its answer in the thought: what closes that is taken instead, and no row behind it stands. */
static void with_an_end_token_in_a_thought(void **state)
{
    (void)state;
    static const runnel_logit_bias ending[] = {
        {'a', 60}, {'b', 60}, {'c', 59}, {TINY_TOKEN_R1_END, 62}, {TINY_TOKEN_ENDOFTEXT, -100}};
    struct thoughts all = {.n_tokens = 0};
    for (unsigned seed = 0; seed < 8; seed++) {
        runnel_request request = request_of(thinker, "What is it?", 400, 0.8f, seed);
        own_sampling(thinker, &request)->logit_bias = ending;
        own_sampling(thinker, &request)->n_logit_bias = sizeof ending / sizeof *ending;
        request.min_tokens = 40 + (int)seed; /* of thought and answer */
        struct outcome outcome =
            compare(thinker, (runnel_engine_options){.n_context = 512, .n_parallel = 1}, &request, 1, 0);
        add_thoughts(&all, &outcome.thoughts);
    }
    assert_ended_within_drafts(&all, RUNNEL_THOUGHT_END_TOKEN, 8);
}

/* An answer that would end at once may not before it has so many tokens, which may be within a draft. */
static void with_fewest_tokens(void **state)
{
    (void)state;
    static const runnel_logit_bias ending[] = {
        {'a', 60}, {'b', 60}, {'c', 59}, {TINY_TOKEN_IM_END, 62}, {TINY_TOKEN_ENDOFTEXT, -100}};
    uint64_t n_accepted = 0;
    for (int i = 0; i < 8; i++) {
        runnel_request request = request_of(model, "What is it?", 200, 0.5f, 3);
        own_sampling(model, &request)->logit_bias = ending;
        own_sampling(model, &request)->n_logit_bias = sizeof ending / sizeof *ending;
        request.min_tokens = 60 + i;
        struct outcome outcome =
            compare(model, (runnel_engine_options){.n_context = 512, .n_parallel = 1}, &request, 1, 0);
        assert_in_range(outcome.n_tokens, 2 * (60 + i), 2 * 199);
        n_accepted += outcome.n_accepted;
    }
    assert_true(n_accepted > 100);
}

/* Calls, whose names and form are forced. */
static void with_tools(void **state)
{
    (void)state;
    static const runnel_message messages[] = {{.role = "user", .content = "What is the weather?"}};
    static const char tools[] = "[{\"type\":\"function\",\"function\":{\"name\":\"get_the_weather\","
                                "\"parameters\":{\"type\":\"object\","
                                "\"additionalProperties\":false,\"properties\":{\"city\":{\"enum\":[\"Ulm\","
                                "\"Bonn\"]},\"days\":{\"type\":\"integer\","
                                "\"minimum\":1,\"maximum\":7}},\"required\":[\"city\",\"days\"]}}}]";
    struct outcome all = {0};
    for (unsigned seed = 0; seed < 4; seed++) {
        runnel_request request = request_of(thinker, NULL, 300, 0.8f, seed);
        own_sampling(thinker, &request)->logit_bias = NULL;
        own_sampling(thinker, &request)->n_logit_bias = 0;
        request.messages = messages;
        request.n_messages = 1;
        request.no_thinking = true;
        request.tools = tools;
        request.must_call = true;
        request.max_calls = 2;
        struct outcome outcome =
            compare(thinker, (runnel_engine_options){.n_context = 1024, .n_parallel = 1}, &request, 1, 0);
        all.n_accepted += outcome.n_accepted;
        all.n_calls += outcome.n_calls;
    }
    assert_true(all.n_calls >= 2 * 4 && all.n_accepted > 100);
}

/* A limit or a stop text that ends the answer in the middle of a draft: what was drawn behind it never was. */
static void ends_within_a_draft(void **state)
{
    (void)state;
    static const char *const stops[][2] = {{"aab"}, {"dd"}, {"ba", "ccc"}, {"ab", "ea"}};
    uint64_t n_accepted = 0;
    for (int i = 0; i < 16; i++) {
        runnel_request request = request_of(model, "What is it?", 90 + i, 0.4f, 4);
        if (i % 2) {
            request.stop = stops[i / 2 % 4];
            request.n_stop = stops[i / 2 % 4][1] ? 2 : 1;
        }
        n_accepted +=
            compare(model, (runnel_engine_options){.n_context = 512, .n_parallel = 1}, &request, 1, 0)
                .n_accepted;
    }
    assert_true(n_accepted > 100);
}

/* Who does not want to hear more hears no more. */
static void ends_where_nobody_listens(void **state)
{
    (void)state;
    for (size_t n_wanted = 30; n_wanted < 42; n_wanted++) {
        runnel_request request = request_of(model, "What is it?", 200, 0, 1);
        struct outcome outcome =
            compare(model, (runnel_engine_options){.n_context = 512, .n_parallel = 1}, &request, 1, n_wanted);
        assert_int_equal(outcome.n_tokens, 2 * n_wanted);
    }
}

/* The context ends an answer, and drafts do not reach past it. */
static void at_the_end_of_the_context(void **state)
{
    (void)state;
    runnel_request request = request_of(model, "What is it?", 0, 0, 1);
    struct outcome outcome =
        compare(model, (runnel_engine_options){.n_context = 160, .n_parallel = 1}, &request, 1, 0);
    assert_true(outcome.n_accepted > 50);
}

/* The same question again, by the same key: most of the answer is guessed. By another one: nothing of it. */
static void histories_are_apart_by_key(void **state)
{
    (void)state;
    static struct heard heard;
    static const uint64_t keys[] = {1, 1, 2, 2};
    uint32_t n_accepted[4];
    runnel_engine *engine =
        tiny_engine_start(model, (runnel_engine_options){.n_context = 512, .n_parallel = 1, .n_threads = 1});
    for (int i = 0; i < 4; i++) {
        runnel_request request = request_of(model, "What is it?", 200, 1, 1);
        own_sampling(model, &request)->logit_bias =
            few + 6; /* any token but an end: nothing repeats itself */
        own_sampling(model, &request)->n_logit_bias = N_FEW - 6;
        request.key = keys[i];
        ask(engine, &request, 1, &heard);
        n_accepted[i] = heard.response.n_draft_accepted;
        forget(&heard, 1);
    }
    runnel_engine_stop(engine);
    assert_true(n_accepted[0] < 40);
    assert_true(n_accepted[1] > (RUNNEL_SANITIZED ? n_accepted[0] : 120)); /* rows are dear with sanitizers */
    assert_true(n_accepted[2] < 40);
    assert_true(n_accepted[3] > (RUNNEL_SANITIZED ? n_accepted[2] : 120));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(greedy_and_with_seeds),
        cmocka_unit_test(beside_others),
        cmocka_unit_test(where_a_prompt_comes_meanwhile),
        cmocka_unit_test(with_penalties),
        cmocka_unit_test(with_logprobs),
        cmocka_unit_test(with_a_schema),
        cmocka_unit_test(in_a_window),
        cmocka_unit_test(after_preemption),
        cmocka_unit_test(over_cache_hits),
        cmocka_unit_test(a_conversation_goes_on_over_the_cache),
        cmocka_unit_test(with_a_budget_of_thoughts),
        cmocka_unit_test(with_a_soft_budget),
        cmocka_unit_test(with_a_reserve),
        cmocka_unit_test(with_a_loop),
        cmocka_unit_test(with_an_end_token_in_a_thought),
        cmocka_unit_test(with_fewest_tokens),
        cmocka_unit_test(with_tools),
        cmocka_unit_test(ends_within_a_draft),
        cmocka_unit_test(ends_where_nobody_listens),
        cmocka_unit_test(at_the_end_of_the_context),
        cmocka_unit_test(histories_are_apart_by_key),
    };
    return cmocka_run_group_tests(tests, open_models, close_models);
}
