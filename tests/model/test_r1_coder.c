/* test_r1_coder.c: the path of R1, with its tokenizer and template over the weights of Qwen2.5-Coder-1.5B, which
 * make_r1_coder writes: what R1 itself would be asked, and when it would be heard to end. */
#include "helpers/tiny_engine.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

enum { SKIPPED = 77, N_VOCAB = 151936, N_TOKENS_MAX = 60 };

#define BEGIN     "<｜begin▁of▁sentence｜>"
#define END       "<｜end▁of▁sentence｜>"
#define USER      "<｜User｜>"
#define ASSISTANT "<｜Assistant｜>"

static const char question[] = "What is 2+2?";
static runnel_model *model;
static runnel_engine *engine;

static int32_t token_of(const char *text)
{
    int32_t *ids;
    size_t n;
    assert_int_equal(runnel_tokenize(model, text, strlen(text), true, &ids, &n, NULL), RUNNEL_OK);
    assert_int_equal(n, 1);
    int32_t id = ids[0];
    runnel_tokens_free(ids);
    return id;
}

static void ask(const runnel_request *request, runnel_response *response)
{
    runnel_error error;
    if (runnel_respond(engine, request, response, &error))
        fail_msg("%s", error.message);
}

static runnel_request greedy_request(void)
{
    runnel_request request;
    runnel_request_init(&request);
    request.prompt = question;
    request.max_tokens = N_TOKENS_MAX;
    own_sampling(model, &request)->temperature = 0;
    return request;
}

static void it_is_known_as_r1(void **state)
{
    (void)state;
    runnel_model_info info = {.size = sizeof info};
    runnel_sampling sampling;
    runnel_model_get_info(model, &info);
    runnel_sampling_init(model, &sampling);
    assert_string_equal(info.chat_template, "r1");
    assert_string_equal(info.architecture, "qwen2");
    assert_int_equal(info.n_vocab, N_VOCAB);
    assert_int_equal(info.eos_token, token_of(END));
    assert_float_equal(sampling.temperature, 0.6, 1e-6);
    assert_float_equal(sampling.top_p, 0.95, 1e-6);
}

static void the_prompt_opens_the_thought(void **state)
{
    (void)state;
    static const runnel_message messages[] = {{"user", "Hello", 0},
                                              {"assistant", "<think>\nA greeting.\n</think>\n\nHi!", 0},
                                              {"user", question, 0}};
    char *text;
    assert_int_equal(runnel_chat_format(model, &messages[2], 1, true, &text, NULL), RUNNEL_OK);
    assert_string_equal(text, BEGIN USER "What is 2+2?" ASSISTANT "<think>\n");
    runnel_text_free(text);
    /* Earlier thoughts are left out; what follows them stays as it is. */
    assert_int_equal(runnel_chat_format(model, messages, 3, true, &text, NULL), RUNNEL_OK);
    assert_string_equal(text,
                        BEGIN USER "Hello" ASSISTANT "\n\nHi!" END USER "What is 2+2?" ASSISTANT "<think>\n");
    runnel_text_free(text);
}

/* These weights never learnt to end a thought: they end all with it. */
static void the_end_token_ends_the_thought(void **state)
{
    (void)state;
    runnel_request request = greedy_request();
    runnel_response closed = {.size = sizeof closed}, longer = {.size = sizeof longer};
    ask(&request, &closed);
    assert_int_equal(closed.finish_reason, RUNNEL_FINISH_STOP);
    assert_int_equal(closed.thought_end, RUNNEL_THOUGHT_END_TOKEN);
    assert_in_range(closed.n_tokens, 2, N_TOKENS_MAX - 1);
    assert_non_null(strstr(closed.reasoning, "4"));
    assert_null(strstr(closed.reasoning, "end"));
    assert_true(closed.text_len > 0); /* an answer follows */
    /* It was the end token and nothing else. */
    request.ignore_eos = true;
    request.answer_reserve = 0;
    request.max_tokens = (int)closed.n_reasoning_tokens + 4;
    ask(&request, &longer);
    assert_int_equal(longer.finish_reason, RUNNEL_FINISH_LENGTH);
    assert_int_equal(longer.n_tokens, closed.n_reasoning_tokens + 4);
    assert_memory_equal(longer.reasoning, closed.reasoning, closed.reasoning_len - 1); /* and a newline */
    runnel_response_free(&closed);
    runnel_response_free(&longer);
}

static void without_thinking_it_answers(void **state)
{
    (void)state;
    runnel_request request = greedy_request();
    runnel_response response = {.size = sizeof response};
    request.no_thinking = true;
    ask(&request, &response);
    assert_int_equal(response.finish_reason, RUNNEL_FINISH_STOP);
    assert_non_null(strstr(response.text, "4"));
    assert_string_equal(response.reasoning, "");
    assert_int_equal(response.n_reasoning_tokens, 0);
    runnel_response_free(&response);
}

/* The Coder is made to end its thought at once, by a bias that the penalty takes back from then on. */
static void the_answer_follows_the_thought(void **state)
{
    (void)state;
    const runnel_logit_bias bias = {token_of("</think>"), 100};
    runnel_request request = greedy_request();
    runnel_response response = {.size = sizeof response};
    request.max_tokens = 12;
    own_sampling(model, &request)->logit_bias = &bias;
    own_sampling(model, &request)->n_logit_bias = 1;
    own_sampling(model, &request)->presence_penalty = 100;
    ask(&request, &response);
    assert_string_equal(response.reasoning, "");
    assert_int_equal(response.n_reasoning_tokens, 1);
    assert_true(response.text_len > 0 && response.n_tokens > 1);
    assert_null(strstr(response.text, "think>"));
    runnel_response_free(&response);
}

/* With a budget the thought is cut there, and the answer comes. */
static void a_budget_closes_the_thought(void **state)
{
    (void)state;
    runnel_request request = greedy_request();
    runnel_response whole = {.size = sizeof whole}, cut = {.size = sizeof cut},
                    answered = {.size = sizeof answered};
    ask(&request, &whole);
    request.thinking_budget = 6;
    ask(&request, &cut);
    assert_int_equal(cut.n_reasoning_tokens, 6);
    assert_true(cut.reasoning_len > 4 && cut.reasoning_len < whole.reasoning_len);
    assert_memory_equal(cut.reasoning, whole.reasoning, cut.reasoning_len - 1); /* and a newline */
    request.thinking_budget = 1;
    ask(&request, &answered);
    assert_int_equal(answered.n_reasoning_tokens, 1);
    assert_non_null(strstr(answered.text, "4"));
    assert_null(strstr(answered.text, "think>"));
    assert_int_equal(answered.finish_reason, RUNNEL_FINISH_STOP);
    runnel_response_free(&whole);
    runnel_response_free(&cut);
    runnel_response_free(&answered);
}

static int set_up(void **state)
{
    (void)state;
    runnel_error error;
    runnel_engine_options options;
    char path[4096];
    const char *folder = getenv("RUNNEL_MODELS_DIR");
    snprintf(path, sizeof path, "%s/r1-coder-1.5b.gguf", folder ? folder : TEST_DATA "/../../models");
    if (access(path, F_OK)) {
        print_message("%s is not there\n", path);
        exit(SKIPPED);
    }
    runnel_engine_options_init(&options);
    options.n_context = 512;
    if (runnel_model_open(path, NULL, &model, &error) ||
        runnel_engine_start(model, &options, &engine, &error)) {
        print_error("%s\n", error.message);
        return -1;
    }
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    runnel_engine_stop(engine);
    runnel_model_close(model);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(it_is_known_as_r1),
        cmocka_unit_test(the_prompt_opens_the_thought),
        cmocka_unit_test(the_end_token_ends_the_thought),
        cmocka_unit_test(without_thinking_it_answers),
        cmocka_unit_test(the_answer_follows_the_thought),
        cmocka_unit_test(a_budget_closes_the_thought),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
