/* test_calls.c: tools through runnel.h: a tiny model with R1's template says a call, by biases on tokens that are its pieces. Events
 * as they come, the response's calls, and what is refused. */
#include "engine/calls.h"
#include "helpers/tiny_engine.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

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

enum { N_CALL = 9 };

static const char tools[] = "[{\"type\":\"function\",\"function\":{\"name\":\"f\"}}]";
static const runnel_message question = {"user", "q", 0};

static runnel_model *model;
static runnel_engine *engine;

static int start(void **state)
{
    struct tiny_model_options options = tiny_engine_model();
    runnel_engine_options engine_options;
    options.chat = "r1";
    options.pre = "deepseek-r1-qwen";
    options.words = pieces;
    options.epsilon = 1e6f; /* all logits are about 0, but for the biases */
    runnel_engine_options_init(&engine_options);
    *state = model = tiny_engine_open(&options);
    engine = tiny_engine_start(model, engine_options);
    return 0;
}

static int stop(void **state)
{
    runnel_engine_stop(engine);
    return tiny_engine_close(state);
}

/* The model says these tokens, each once, and ends. */
static runnel_request say(const int32_t *tokens, size_t n)
{
    runnel_request request;
    runnel_request_init(&request);
    request.messages = &question;
    request.n_messages = 1;
    request.tools = tools;
    request.no_thinking = true;
    request.max_tokens = 32;
    runnel_sampling *sampling = own_sampling(model, &request);
    runnel_logit_bias *biases = malloc((n + 1) * sizeof *biases);
    for (size_t i = 0; i <= n; i++)
        biases[i] = (runnel_logit_bias){i < n ? tokens[i] : TINY_TOKEN_R1_END, 100 - 5 * (float)i};
    sampling->temperature = 0;
    sampling->repetition_penalty = 100;
    sampling->penalty_window = (int)n + 1;
    sampling->logit_bias = biases;
    sampling->n_logit_bias = n + 1;
    return request;
}

static runnel_request say_call(void)
{
    int32_t tokens[N_CALL];
    for (int i = 0; i < N_CALL; i++)
        tokens[i] = TINY_MODEL_TOKENS + i;
    return say(tokens, N_CALL);
}

static void forget(runnel_request *request)
{
    free((void *)(uintptr_t)request->sampling->logit_bias);
}

static runnel_response respond(const runnel_request *request)
{
    runnel_response response = {.size = sizeof response};
    runnel_error error;
    if (runnel_respond(engine, request, &response, &error))
        fail_msg("%s", error.message);
    return response;
}

static void test_response(void **state)
{
    (void)state;
    runnel_request request = say_call();
    runnel_response response = respond(&request);
    assert_int_equal(response.finish_reason, RUNNEL_FINISH_STOP);
    assert_int_equal(response.n_calls, 1);
    assert_string_equal(response.calls[0].name, "f");
    assert_string_equal(response.calls[0].arguments, "{\"a\":1}");
    assert_int_equal(response.calls[0].arguments_len, 7);
    assert_true(response.calls[0].complete);
    assert_string_equal(response.text, "");
    runnel_response_free(&response);
    assert_null(response.calls);
    request.max_tokens = 5;
    response = respond(&request);
    assert_int_equal(response.finish_reason, RUNNEL_FINISH_LENGTH);
    assert_int_equal(response.n_calls, 1);
    assert_string_equal(response.calls[0].arguments, "{\"a\":");
    assert_false(response.calls[0].complete);
    runnel_response_free(&response);
    request.max_tokens = 32;
    request.tools = NULL;
    response = respond(&request);
    assert_int_equal(response.n_calls, 0);
    assert_null(response.calls);
    assert_non_null(strstr(response.text, "{\"a\":1}"));
    runnel_response_free(&response);
    forget(&request);
}

static void test_events(void **state)
{
    (void)state;
    static const struct {
        enum runnel_event_kind kind;
        const char *text;
    } expected[] = {
        {RUNNEL_EVENT_TAKEN, ""},       {RUNNEL_EVENT_CALL, "f"},    {RUNNEL_EVENT_ARGUMENTS, "{\"a\":"},
        {RUNNEL_EVENT_ARGUMENTS, "1}"}, {RUNNEL_EVENT_CALL_END, ""}, {RUNNEL_EVENT_FINISH, ""}};
    runnel_request request = say_call();
    runnel_future *future;
    runnel_event event = {.size = sizeof event};
    request.wants_events = true;
    assert_int_equal(runnel_submit(engine, &request, 1, &future, NULL), RUNNEL_OK);
    for (size_t i = 0; i < sizeof expected / sizeof *expected; i++) {
        assert_int_equal(runnel_next(future, &event, -1), RUNNEL_OK);
        assert_int_equal(event.kind, expected[i].kind);
        assert_string_equal(event.text, expected[i].text);
        assert_int_equal(event.call, 0);
    }
    assert_int_equal(event.counts->n_calls, 1);
    runnel_free(future); /* with a response that nobody took */
    forget(&request);
}

static bool ends_at_call(void *user, const runnel_event *event)
{
    (void)user;
    return event->kind != RUNNEL_EVENT_CALL;
}

static void test_ended_by_the_caller(void **state)
{
    (void)state;
    runnel_request request = say_call();
    request.on_event = ends_at_call;
    runnel_response response = respond(&request);
    assert_int_equal(response.finish_reason, RUNNEL_FINISH_CANCELLED);
    assert_int_equal(response.n_calls, 1);
    assert_string_equal(response.calls[0].arguments, "");
    runnel_response_free(&response);
    forget(&request);
}

static void check_refused(const runnel_request *request, int code, const char *words)
{
    runnel_response response = {.size = sizeof response};
    runnel_error error;
    assert_int_equal(runnel_respond(engine, request, &response, &error), code);
    if (!strstr(error.message, words))
        fail_msg("%s", error.message);
}

static void test_refused(void **state)
{
    (void)state;
    runnel_request request;
    runnel_request_init(&request);
    request.prompt = "q";
    request.tools = tools;
    check_refused(&request, RUNNEL_EINVAL, "tools given, expected messages");
    request.prompt = NULL;
    request.messages = &question;
    request.n_messages = 1;
    request.tools = "[{\"function\":{\"name\":\"\"}}]";
    check_refused(&request, RUNNEL_EINVAL, "tools[0]: expected a name");
    request.tools = "{";
    check_refused(&request, RUNNEL_EINVAL, "tools: JSON");
    const runnel_message_tools calls = {.calls = "7"};
    request.tools = NULL;
    request.message_tools = &calls;
    check_refused(&request, RUNNEL_EINVAL, "calls: expected a JSON list");
}

static void add_event(struct calls *calls, enum runnel_event_kind kind, const char *text, size_t len)
{
    const runnel_event event = {.size = sizeof event, .kind = kind, .text = text, .text_len = len};
    calls_add(calls, &event);
}

/* Many calls, with zeros in them and without arguments, in more room than was foreseen and in less. */
static void test_collecting(void **state)
{
    enum { N = 60 };
    (void)state;
    for (int is_foreseen = 0; is_foreseen < 2; is_foreseen++) {
        struct calls calls = {0};
        calls_reserve(&calls, is_foreseen ? (size_t)N * CALLS_BYTES_LEAST : 3, 0);
        const size_t room = calls.written.cap;
        assert_null(calls_told(&calls));
        for (int i = 0; i < N; i++) {
            char name[16];
            int len = snprintf(name, sizeof name, "call %d", i);
            add_event(&calls, RUNNEL_EVENT_CALL, name, (size_t)len);
            if (i % 3)
                add_event(&calls, RUNNEL_EVENT_ARGUMENTS, "a\0b", 3);
            if (i % 3 == 2)
                add_event(&calls, RUNNEL_EVENT_ARGUMENTS, "c", 1);
            if (i + 1 < N)
                add_event(&calls, RUNNEL_EVENT_CALL_END, "", 0);
        }
        assert_true((calls.written.cap == room) == is_foreseen);
        assert_null(calls_told(&calls)); /* they are being written */
        calls_finish(&calls);
        calls_finish(&calls); /* the second one changes nothing */
        assert_false(calls.failed);
        assert_int_equal(calls.n, N);
        const runnel_call *told = calls_told(&calls);
        assert_non_null(told);
        for (int i = 0; i < N; i++) {
            char name[24];
            const size_t len = i % 3 ? (size_t)(2 + i % 3) : 0;
            snprintf(name, sizeof name, "call %d", i);
            assert_string_equal(told[i].name, name);
            assert_int_equal(told[i].arguments_len, len);
            assert_true(memcmp(told[i].arguments, "a\0bc", len) == 0);
            assert_int_equal(told[i].arguments[len], 0);
            assert_int_equal(told[i].complete, i + 1 < N);
        }
        calls_free(&calls);
    }
    struct calls none = {0};
    calls_reserve(&none, 1000, 4);
    assert_int_equal(none.cap, 4);
    calls_finish(&none); /* nobody called anything: nothing is left to be freed */
    assert_null(none.calls);
    assert_null(none.written.bytes);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_collecting), cmocka_unit_test(test_response),
        cmocka_unit_test(test_events),     cmocka_unit_test(test_ended_by_the_caller),
        cmocka_unit_test(test_refused),
    };
    return cmocka_run_group_tests(tests, start, stop);
}
