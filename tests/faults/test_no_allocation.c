/* test_no_allocation.c: a step of requests that are already running takes nothing from the system: no memory, no
 * maps, no threads. Calls are counted below everything that the library links, on all threads. */
#include "faults/faults.h"
#include "helpers/tiny_model.h"
#include "runnel.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

enum {
    N_REQUESTS = 5,
    N_TOKENS = 150,  /* past several pages, and past a power of two of text and of ids */
    N_CALLING = 400, /* of the one that calls tools, whose calls are mostly foreseen and so come faster */
    N_STARTED = 8,   /* events of each request before counting begins */
    N_THOUGHT = 40,  /* tokens, of one whose thought is ended */
    N_THREADS = 2,
};

/* Requests, by what they are kept to. */
enum { PLAIN, BY_PATTERN, BY_GRAMMAR, BY_SCHEMA, CALLING };

static char path[] = "/tmp/runnel-allocation-XXXXXX";

/* Tokens that a call is made of. */
static const char *const pieces[] = {"<｜tool▁calls▁begin｜>",
                                     "<｜tool▁call▁begin｜>function",
                                     "<｜tool▁sep｜>f\n",
                                     "```json\n",
                                     "{\"a\":",
                                     "1}",
                                     "\n```",
                                     "<｜tool▁call▁end｜>",
                                     "<｜tool▁calls▁end｜>",
                                     NULL};
static const char tools[] = "[{\"type\":\"function\",\"function\":{\"name\":\"f\",\"parameters\":"
                            "{\"type\":\"object\",\"properties\":{\"a\":{\"enum\":[1]}},\"required\":[\"a\"],"
                            "\"additionalProperties\":false}}}]";
/* One call after the other, without white space that need not be, and without an end. */
static const runnel_logit_bias call_biases[] = {{TINY_MODEL_TOKENS + 0, 100},
                                                {TINY_MODEL_TOKENS + 1, 100},
                                                {TINY_MODEL_TOKENS + 2, 100},
                                                {TINY_MODEL_TOKENS + 3, 100},
                                                {TINY_MODEL_TOKENS + 4, 100},
                                                {TINY_MODEL_TOKENS + 5, 100},
                                                {TINY_MODEL_TOKENS + 6, 100},
                                                {TINY_MODEL_TOKENS + 7, 100},
                                                {TINY_MODEL_TOKENS + 8, -100},
                                                {'<', -100},
                                                {' ', -100},
                                                {'\t', -100},
                                                {'\r', -100}};

/* Changed on the engine's thread alone, read after the requests have ended. */
struct watch {
    unsigned n_events[N_REQUESTS];
    bool ended;                     /* some request has finished */
    bool counting;                  /* all have started, none has finished */
    unsigned first_call, last_call; /* allocations at the first and at the latest event while counting */
    unsigned n_steady_events;
};

struct watched {
    struct watch *watch;
    unsigned index;
};

static bool on_event(void *user, const runnel_event *event)
{
    struct watched *watched = user;
    struct watch *watch = watched->watch;
    watch->n_events[watched->index]++;
    if (event->kind == RUNNEL_EVENT_FINISH)
        watch->ended = true;
    bool started = true;
    for (unsigned i = 0; i < N_REQUESTS; i++)
        started = started && watch->n_events[i] >= N_STARTED;
    if (watch->ended || !started)
        return true;
    if (!watch->counting)
        watch->first_call = faults_n_calls();
    watch->counting = true;
    watch->last_call = faults_n_calls();
    watch->n_steady_events++;
    return true;
}

static unsigned n_tokens_of(unsigned i)
{
    return i == CALLING ? N_CALLING : N_TOKENS;
}

/* What request i is kept to; none of it has an end before its tokens have. */
static void constrain(unsigned i, runnel_request *request, runnel_sampling *sampling)
{
    static const runnel_message question = {"user", "q", 0};
    static const int32_t ids[] = {'a', 'b', 'c'};
    switch (i) {
    case BY_PATTERN:
        request->constraint = RUNNEL_CONSTRAINT_REGEX;
        request->constraint_text = "([a-z]|[0-9]{2})*";
        break;
    case BY_GRAMMAR: /* nests without an end; behind a thought */
        request->constraint = RUNNEL_CONSTRAINT_GRAMMAR;
        request->constraint_text = "root ::= (\"<\" root \">\" | [a-z])+";
        break;
    case BY_SCHEMA:
        request->constraint = RUNNEL_CONSTRAINT_SCHEMA;
        request->constraint_text =
            "{\"type\":\"object\",\"properties\":{\"list\":{\"type\":\"array\",\"items\":"
            "{\"type\":\"string\",\"maxLength\":8},\"minItems\":200}},\"required\":[\"list\"]}";
        request->no_thinking = true;
        break;
    case CALLING:
        request->prompt = NULL;
        request->messages = &question;
        request->n_messages = 1;
        request->prompt_ids = ids; /* a short one: the template's would be longer than the context */
        request->n_prompt_ids = sizeof ids / sizeof *ids;
        request->encoded = true;
        request->tools = tools;
        request->must_call = true;
        request->no_thinking = true;
        sampling->logit_bias = call_biases;
        sampling->n_logit_bias = sizeof call_biases / sizeof *call_biases;
        break;
    default:
        break;
    }
}

/* Returns how many tokens of the request that nothing forces were guessed and came true. */
static unsigned run(const runnel_model *model, runnel_engine *engine, struct watch *watch)
{
    unsigned n_accepted = 0;
    static const char *const stops[] = {"a text that does not come"};
    static const char *const prompts[N_REQUESTS] = {"one", "another one", "a third one, which is longer",
                                                    "a fourth one", ""};
    struct watched watched[N_REQUESTS];
    runnel_request requests[N_REQUESTS];
    runnel_sampling samplings[N_REQUESTS];
    runnel_response responses[N_REQUESTS] = {{.size = sizeof *responses}};
    runnel_error error;
    for (unsigned i = 0; i < N_REQUESTS; i++) {
        watched[i] = (struct watched){watch, i};
        runnel_request_init(&requests[i]);
        requests[i].prompt = prompts[i];
        requests[i].max_tokens = (int)n_tokens_of(i);
        requests[i].ignore_eos = true;
        requests[i].min_tokens = i == BY_PATTERN ? N_TOKENS : 5;
        requests[i].thinking_budget = i == BY_GRAMMAR ? N_THOUGHT : -1;
        requests[i].soft_thinking_budget = i == PLAIN ? N_THOUGHT / 2 : -1;
        requests[i].thinking_message = "Enough of that.";
        runnel_sampling_init(model, &samplings[i]);
        samplings[i].temperature = 1.0f;
        samplings[i].repetition_penalty = 1.1f;
        samplings[i].seed = i;
        requests[i].sampling = &samplings[i];
        constrain(i, &requests[i], &samplings[i]);
        requests[i].stop = stops;
        requests[i].n_stop = 1;
        requests[i].n_logprobs = 5;
        requests[i].wants_sampled_probs = i == BY_PATTERN;
        requests[i].wants_progress = true;
        requests[i].on_event = on_event;
        requests[i].user = &watched[i];
    }
    if (runnel_respond_many(engine, requests, N_REQUESTS, responses, &error))
        fail_msg("%s", error.message);
    for (unsigned i = 0; i < N_REQUESTS; i++) {
        assert_int_equal(responses[i].n_tokens, n_tokens_of(i));
        if (i == BY_GRAMMAR)
            assert_int_equal(responses[i].n_reasoning_tokens, N_THOUGHT);
        if (i == CALLING)
            assert_true(responses[i].n_calls > 10);
        if (i == PLAIN)
            n_accepted = responses[i].n_draft_accepted;
        runnel_response_free(&responses[i]);
    }
    return n_accepted;
}

static void steady_steps_allocate_nothing(void **state)
{
    (void)state;
    runnel_error error;
    runnel_model *model;
    runnel_engine *engine;
    runnel_model_options model_options;
    runnel_engine_options options;
    runnel_model_options_init(&model_options);
    model_options.n_threads = N_THREADS;
    runnel_engine_options_init(&options);
    options.n_parallel = N_REQUESTS;
    options.n_context = 512;
    if (runnel_model_open(path, &model_options, &model, &error))
        fail_msg("%s", error.message);
    if (runnel_engine_start(model, &options, &engine, &error))
        fail_msg("%s", error.message);

    struct watch warm = {0}, watch = {0};
    run(model, engine, &warm); /* the pool of requests reaches its size */
    faults_count();
    assert_true(run(model, engine, &watch) > 0); /* what was answered before is guessed */
    assert_true(faults_n_calls() > 0);           /* starting a request does allocate: the counter counts */
    faults_disarm();
    assert_true(watch.counting);
    assert_true(watch.n_steady_events > N_REQUESTS * N_TOKENS / 2);
    assert_int_equal(watch.last_call - watch.first_call, 0);

    runnel_engine_stop(engine);
    runnel_model_close(model);
}

/* What the first and the latest call saw; all on the engine's thread. */
struct listening {
    unsigned first_call, last_call;
    size_t n;
};

static bool on_inputs(void *user, const runnel_inputs *inputs)
{
    (void)inputs;
    struct listening *listening = user;
    if (listening->n++ == 0)
        listening->first_call = faults_n_calls();
    listening->last_call = faults_n_calls();
    return true;
}

static void inputs_are_told_without_allocating(void **state)
{
    (void)state;
    runnel_error error;
    runnel_model *model = NULL;
    runnel_engine *engine = NULL;
    runnel_model_options options;
    struct listening listening = {0};
    int32_t ids[N_TOKENS];
    for (int i = 0; i < N_TOKENS; i++)
        ids[i] = i;
    runnel_model_options_init(&options);
    options.n_threads = N_THREADS;
    if (runnel_model_open(path, &options, &model, &error) ||
        runnel_engine_start(model, NULL, &engine, &error))
        fail_msg("%s", error.message);
    faults_count();
    if (runnel_inputs_each(engine, ids, N_TOKENS, 40, on_inputs, &listening, &error))
        fail_msg("%s", error.message);
    faults_disarm();
    assert_true(listening.n == N_TOKENS * 9); /* two layers with four places each, and the output's */
    assert_int_equal(listening.last_call, listening.first_call);
    runnel_engine_stop(engine);
    runnel_model_close(model);
}

int main(void)
{
    struct tiny_model_options options;
    runnel_error error;
    int fd = mkstemp(path);
    tiny_model_defaults(&options);
    options.pre = "deepseek-r1-qwen"; /* it thinks */
    options.chat = "r1";
    options.words = pieces;
    if (fd < 0 || tiny_model_write(&options, path, &error)) {
        fprintf(stderr, "no model: %s\n", error.message);
        return 1;
    }
    close(fd);
    const struct CMUnitTest tests[] = {cmocka_unit_test(steady_steps_allocate_nothing),
                                       cmocka_unit_test(inputs_are_told_without_allocating)};
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    unlink(path);
    return failed;
}
