/* test_params_thoughts.c: what ends a thought, as requests say it: efforts as budgets, a soft budget, a reserve for the answer, a
 * message; and whether it may be ended from outside. Names of budgets are test_params_names.c's. */
#include "helpers/params_check.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* As check_accepted, with limits of its own. */
static void read_with(const struct params_limits *limits, const char *fields, struct params *params)
{
    char text[512];
    struct refusal refusal;
    json_t *root;
    snprintf(text, sizeof text, "{%s%s%s}", CHAT_START, *fields ? "," : "", fields);
    assert_int_equal(json_read(text, strlen(text), &root, &refusal), 0);
    if (params_read_chat(root, limits, params, &refusal))
        fail_msg("refused: %s: %s", text, refusal.message);
    json_decref(root);
}

static void check_budgets(const struct params_limits *limits, const char *fields, int soft, int hard,
                          int reserve)
{
    struct params params;
    read_with(limits, fields, &params);
    if (params.request.soft_thinking_budget != soft || params.request.thinking_budget != hard ||
        params.request.answer_reserve != reserve)
        fail_msg("%s: expected soft %d, hard %d, reserve %d, found %d, %d, %d", fields, soft, hard, reserve,
                 params.request.soft_thinking_budget, params.request.thinking_budget,
                 params.request.answer_reserve);
    params_free(&params);
}

/* Shares of max_tokens, as docs/thoughts.md has them; where nobody says a limit, of the context. */
static void test_efforts(void **state)
{
    (void)state;
    struct params_limits limits = make_limits();
    check_budgets(&limits, "", -1, -1, -1);
    check_budgets(&limits, "\"reasoning_effort\":null", -1, -1, -1);
    check_budgets(&limits, "\"reasoning_effort\":\"minimal\"", 204, 409, -1);
    check_budgets(&limits, "\"reasoning_effort\":\"low\"", 614, 1024, -1);
    check_budgets(&limits, "\"reasoning_effort\":\"medium\"", 1228, 2048, -1);
    check_budgets(&limits, "\"reasoning_effort\":\"high\"", 2457, 3072, -1);
    check_budgets(&limits, "\"reasoning_effort\":\"minimal\",\"max_tokens\":300", 15, 30, -1);
    check_budgets(&limits, "\"reasoning\":{\"effort\":\"low\"},\"max_tokens\":300", 45, 75, -1);
    check_budgets(&limits, "\"think\":\"medium\",\"max_tokens\":300", 90, 150, -1);
    check_budgets(&limits, "\"chat_template_kwargs\":{\"reasoning_effort\":\"high\"},\"max_tokens\":300", 180,
                  225, -1);
    check_budgets(&limits, "\"reasoning_effort\":\"minimal\",\"max_tokens\":9", 0, 1, -1);
    check_budgets(&limits, "\"reasoning_effort\":\"high\",\"max_tokens\":1", 0, 1, -1);
    check_budgets(&limits, "\"reasoning_effort\":\"high\",\"max_tokens\":-1", -1, -1,
                  -1); /* of nothing known */
    limits.defaults.n_context = 1000;
    check_budgets(&limits, "\"reasoning_effort\":\"high\",\"max_tokens\":-1", 600, 750, -1);
    check_budgets(&limits, "\"reasoning_effort\":\"high\"", 600, 750, -1);
    check_budgets(&limits, "\"reasoning_effort\":\"high\",\"max_tokens\":300", 180, 225, -1);
}

/* "none", and switches that say no, leave nothing to be shared out. */
static void test_no_effort(void **state)
{
    (void)state;
    static const char *const fields[] = {"\"reasoning_effort\":\"none\"",
                                         "\"reasoning_effort\":\"low\",\"enable_thinking\":false"};
    const struct params_limits limits = make_limits();
    for (size_t i = 0; i < COUNT(fields); i++) {
        struct params params;
        check_budgets(&limits, fields[i], -1, -1, -1);
        read_with(&limits, fields[i], &params);
        assert_true(params.request.no_thinking);
        params_free(&params);
    }
}

static void test_what_goes_before_an_effort(void **state)
{
    (void)state;
    struct params_limits limits = make_limits();
    check_budgets(&limits, "\"reasoning_effort\":\"low\",\"thinking_budget_tokens\":100", -1, 100, -1);
    check_budgets(&limits, "\"reasoning_effort\":\"low\",\"thinking_budget_tokens\":-1", -1, -1, -1);
    check_budgets(&limits, "\"reasoning_effort\":\"low\",\"soft_thinking_budget_tokens\":40", 40, -1, -1);
    check_budgets(&limits, "\"reasoning_effort\":\"low\",\"answer_reserve\":5", 614, 1024, 5);
    check_budgets(&limits, "\"reasoning_effort\":\"low\",\"answer_reserve\":0", 614, 1024, 0);
}

/* Its budgets are shares of what the prompt may leave; the reserve is reckoned of what it does leave. */
static void test_an_effort_keeps_the_reserve(void **state)
{
    (void)state;
    static const struct {
        const char *fields;
        bool keeps;
    } cases[] = {
        {"", false},
        {"\"reasoning_effort\":\"low\"", true},
        {"\"reasoning_effort\":\"none\"", false},
        {"\"thinking_budget_tokens\":100", false},
        {"\"reasoning_effort\":\"low\",\"thinking_budget_tokens\":100", false},
    };
    const struct params_limits limits = make_limits();
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct params params;
        read_with(&limits, cases[i].fields, &params);
        assert_int_equal(params.request.keeps_reserve, cases[i].keeps);
        params_free(&params);
    }
}

static void test_soft_budget_and_reserve(void **state)
{
    (void)state;
    static const struct bad_field bad[] = {
        {"\"soft_thinking_budget_tokens\":-2", "soft_thinking_budget_tokens"},
        {"\"soft_thinking_budget_tokens\":1.5", "soft_thinking_budget_tokens"},
        {"\"soft_thinking_budget_tokens\":\"SECRET\"", "soft_thinking_budget_tokens"},
        {"\"soft_thinking_budget_tokens\":6,\"thinking_budget_tokens\":5", "soft_thinking_budget_tokens"},
        {"\"answer_reserve\":-2", "answer_reserve"},
        {"\"answer_reserve\":true", "answer_reserve"},
    };
    static const struct bad_field bad_raw[] = {
        {"\"soft_thinking_budget_tokens\":0", "soft_thinking_budget_tokens"},
        {"\"answer_reserve\":1", "answer_reserve"},
        {"\"reasoning_budget_message\":\"SECRET\"", "reasoning_budget_message"},
        {"\"think_stop_sentence\":\"SECRET\"", "think_stop_sentence"},
    };
    const struct params_limits limits = make_limits();
    check_budgets(&limits, "\"soft_thinking_budget_tokens\":5,\"thinking_budget_tokens\":5", 5, 5, -1);
    check_budgets(&limits, "\"soft_thinking_budget_tokens\":0,\"answer_reserve\":0", 0, -1, 0);
    check_budgets(&limits, "\"soft_thinking_budget_tokens\":1000000000000,\"answer_reserve\":1000000000000",
                  INT32_MAX, -1, INT32_MAX);
    check_bad_fields(params_read_chat, CHAT_START, bad, COUNT(bad));
    check_bad_fields(params_read_generate, "\"prompt\":\"a\",\"raw\":true", bad_raw, COUNT(bad_raw));
    struct params params;
    check_accepted(params_read_generate,
                   "{\"prompt\":\"a\",\"raw\":true,\"reasoning_effort\":\"high\",\"answer_reserve\":0,"
                   "\"reasoning_budget_message\":\"\"}",
                   &params);
    assert_int_equal(params.request.thinking_budget, -1);
    params_free(&params);
}

/* A token a byte. */
static int encode(void *user, const char *text, size_t len, int32_t **ids, size_t *n_ids, runnel_error *error)
{
    (void)user;
    (void)text;
    (void)error;
    *ids = NULL;
    *n_ids = len;
    return RUNNEL_OK;
}

static void check_message(const struct params_limits *limits, const char *fields, const char *message)
{
    struct params params;
    read_with(limits, fields, &params);
    if (message)
        assert_string_equal(params.request.thinking_message, message);
    else
        assert_null(params.request.thinking_message);
    params_free(&params);
}

static void test_messages(void **state)
{
    (void)state;
    static const struct bad_field bad[] = {
        {"\"reasoning_budget_message\":3", "reasoning_budget_message"},
        {"\"reasoning_budget_message\":[\"SECRET\"]", "reasoning_budget_message"},
        {"\"reasoning_budget_message\":\"SECRET\\u0000\"", "reasoning_budget_message"},
        {"\"think_stop_sentence\":false", "think_stop_sentence"},
        {"\"think_stop_sentence\":\"SECRET</think>\"", "think_stop_sentence"},
        {"\"logits_processors_args\":\"SECRET\"", "logits_processors_args"},
        {"\"logits_processors_args\":{\"think_stop_sentence\":3}",
         "logits_processors_args.think_stop_sentence"},
        {"\"think_stop_sentence\":\"a\",\"reasoning_budget_message\":\"b\"", "reasoning_budget_message"},
        {"\"logits_processors_args\":{\"think_stop_sentence\":\"a\"},\"think_stop_sentence\":\"b\"",
         "think_stop_sentence"},
    };
    struct params_limits limits = make_limits();
    check_bad_fields(params_read_chat, CHAT_START, bad, COUNT(bad));
    check_message(&limits, "", NULL);
    check_message(&limits, "\"reasoning_budget_message\":\"\"", NULL);
    check_message(&limits, "\"reasoning_budget_message\":null,\"think_stop_sentence\":null", NULL);
    check_message(&limits, "\"reasoning_budget_message\":\"Enough.\"", "Enough.");
    check_message(&limits, "\"think_stop_sentence\":\"Enough.\",\"reasoning_budget_message\":\"Enough.\"",
                  "Enough.");
    check_message(&limits, "\"logits_processors_args\":{\"think_stop_sentence\":\"Enough.\",\"other\":1}",
                  "Enough.");
    limits.encode = encode;
    for (size_t n = RUNNEL_THINKING_MESSAGE_MAX; n <= RUNNEL_THINKING_MESSAGE_MAX + 1; n++) {
        char text[512];
        struct refusal refusal;
        struct params params;
        json_t *root;
        snprintf(text, sizeof text, "{%s,\"think_stop_sentence\":\"%0*d\"}", CHAT_START, (int)n, 0);
        assert_int_equal(json_read(text, strlen(text), &root, &refusal), 0);
        int failure = params_read_chat(root, &limits, &params, &refusal);
        json_decref(root);
        if (n <= RUNNEL_THINKING_MESSAGE_MAX) {
            assert_int_equal(failure, 0);
            params_free(&params);
            continue;
        }
        assert_int_equal(failure, -1);
        assert_string_equal(refusal.param, "think_stop_sentence");
        assert_non_null(strstr(refusal.message, "up to 256 tokens, found one of 257"));
    }
}

static void test_message_bytes(void **state)
{
    (void)state;
    static char text[PARAMS_MESSAGE_BYTES + 256];
    int len = snprintf(text, sizeof text, "{%s,\"think_stop_sentence\":\"%0*d\"}", CHAT_START,
                       PARAMS_MESSAGE_BYTES + 1, 0);
    check_refused(params_read_chat, text, (size_t)len, "think_stop_sentence");
    struct params params;
    snprintf(text, sizeof text, "{%s,\"think_stop_sentence\":\"%0*d\"}", CHAT_START, PARAMS_MESSAGE_BYTES, 0);
    check_accepted(params_read_chat, text, &params);
    params_free(&params);
}

static void test_control(void **state)
{
    (void)state;
    static const struct bad_field bad[] = {{"\"reasoning_control\":1", "reasoning_control"},
                                           {"\"reasoning_control\":\"SECRET\"", "reasoning_control"}};
    const struct params_limits limits = make_limits();
    for (int allows = 0; allows <= 1; allows++) {
        struct params params;
        read_with(&limits, allows ? "\"reasoning_control\":true" : "\"reasoning_control\":false", &params);
        assert_int_equal(params.allows_control, allows);
        params_free(&params);
    }
    check_bad_fields(params_read_chat, CHAT_START, bad, COUNT(bad));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_efforts),
        cmocka_unit_test(test_no_effort),
        cmocka_unit_test(test_what_goes_before_an_effort),
        cmocka_unit_test(test_an_effort_keeps_the_reserve),
        cmocka_unit_test(test_soft_budget_and_reserve),
        cmocka_unit_test(test_messages),
        cmocka_unit_test(test_message_bytes),
        cmocka_unit_test(test_control),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
