/* test_params_names.c: fields by the names of other servers: those that mean what is there already, those that are refused
 * by name, and those that change nothing. */
#include "helpers/params_check.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static const struct {
    unsigned route;
    reader read;
    const char *start;
} routes[] = {{PARAMS_CHAT, params_read_chat, CHAT_START},
              {PARAMS_COMPLETION, params_read_completion, "\"prompt\":\"a\""},
              {PARAMS_NATIVE, params_read_native, "\"prompt\":\"a\""},
              {PARAMS_GENERATE, params_read_generate, "\"prompt\":\"a\""}};

/* Every name of a budget, with chat and without. */
static void test_budgets(void **state)
{
    (void)state;
    static const struct bad_field names[] = {
        {"\"thinking_budget_tokens\":%d", "thinking_budget_tokens"},
        {"\"reasoning_budget_tokens\":%d", "reasoning_budget_tokens"},
        {"\"reasoning_budget\":%d", "reasoning_budget"},
        {"\"thinking_token_budget\":%d", "thinking_token_budget"},
        {"\"max_thinking_tokens\":%d", "max_thinking_tokens"},
        {"\"reasoning_max_tokens\":%d", "reasoning_max_tokens"},
        {"\"thinking_budget\":%d", "thinking_budget"},
        {"\"custom_params\":{\"thinking_budget\":%d}", "custom_params.thinking_budget"},
        {"\"thinking\":{\"type\":\"enabled\",\"budget_tokens\":%d}", "thinking.budget_tokens"},
        {"\"reasoning\":{\"max_tokens\":%d}", "reasoning.max_tokens"},
        {"\"chat_template_kwargs\":{\"thinking_budget\":%d}", "chat_template_kwargs.thinking_budget"},
        {"\"logits_processors_args\":{\"thinking_budget\":%d}", "logits_processors_args.thinking_budget"},
    };
    for (size_t i = 0; i < COUNT(names); i++) {
        static const int budgets[] = {-1, 0, 77, -2};
        char field[128], text[512];
        for (size_t b = 0; b < COUNT(budgets); b++) {
            struct params params;
            snprintf(field, sizeof field, names[i].fields, budgets[b]);
            snprintf(text, sizeof text, "{%s,%s}", CHAT_START, field);
            if (budgets[b] == -2) {
                check_refused(params_read_chat, text, strlen(text), names[i].param);
                continue;
            }
            check_accepted(params_read_chat, text, &params);
            assert_int_equal(params.request.thinking_budget, budgets[b]);
            assert_false(params.request.no_thinking);
            params_free(&params);
        }
        snprintf(field, sizeof field, names[i].fields, 77);
        snprintf(text, sizeof text, "{\"prompt\":\"a\",\"raw\":true,%s}", field);
        check_refused(params_read_generate, text, strlen(text), names[i].param);
        snprintf(text, sizeof text, "{\"prompt\":\"a\",%s}", field);
        if (!strchr(names[i].param, '.')) {
            check_refused(params_read_completion, text, strlen(text), names[i].param);
            check_refused(params_read_native, text, strlen(text), names[i].param);
        }
    }
}

/* Two budgets that differ, or two efforts: the refusal names both. */
static void test_contradictions(void **state)
{
    (void)state;
    static const struct {
        const char *fields, *param, *other;
    } cases[] = {
        {"\"thinking_budget_tokens\":5,\"max_thinking_tokens\":6", "max_thinking_tokens",
         "thinking_budget_tokens"},
        {"\"thinking\":{\"budget_tokens\":5},\"thinking_budget\":6", "thinking_budget",
         "thinking.budget_tokens"},
        {"\"reasoning_effort\":\"high\",\"reasoning\":{\"effort\":\"none\"}", "reasoning.effort",
         "reasoning_effort"},
        {"\"reasoning_format\":\"none\",\"separate_reasoning\":true", "separate_reasoning",
         "reasoning_format"},
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        const struct params_limits limits = make_limits();
        struct refusal refusal;
        struct params params;
        json_t *root;
        char text[512];
        snprintf(text, sizeof text, "{%s,%s}", CHAT_START, cases[i].fields);
        check_refused(params_read_chat, text, strlen(text), cases[i].param);
        assert_int_equal(json_read(text, strlen(text), &root, &refusal), 0);
        assert_int_equal(params_read_chat(root, &limits, &params, &refusal), -1);
        assert_non_null(strstr(refusal.message, cases[i].other));
        json_decref(root);
    }
    struct params params;
    check_accepted(params_read_chat,
                   "{" CHAT_START ",\"thinking_budget_tokens\":5,\"thinking_budget\":5,"
                   "\"reasoning_effort\":\"low\",\"reasoning\":{\"effort\":\"low\"}}",
                   &params);
    assert_int_equal(params.request.thinking_budget, 5);
    params_free(&params);
}

static void test_switches(void **state)
{
    (void)state;
    static const struct {
        const char *fields;
        bool no_thinking;
    } cases[] = {
        {"\"think\":false", true},
        {"\"think\":true", false},
        {"\"think\":\"high\"", false},
        {"\"think\":\"none\"", true},
        {"\"think\":null", false},
        {"\"thinking\":{\"type\":\"disabled\"}", true},
        {"\"thinking\":{\"type\":\"enabled\"}", false},
        {"\"thinking\":{\"type\":null,\"budget_tokens\":null}", false},
        {"\"thinking\":false", true},
        {"\"thinking\":null", false},
        {"\"reasoning\":{\"effort\":\"none\"}", true},
        {"\"reasoning\":{\"effort\":\"minimal\",\"exclude\":false}", false},
        {"\"reasoning\":{\"effort\":null}", false},
        {"\"reasoning\":{\"enabled\":false}", true},
        {"\"reasoning\":null", false},
        {"\"chat_template_kwargs\":{\"thinking\":false}", true},
        {"\"chat_template_kwargs\":{\"thinking\":null}", false},
        {"\"chat_template_kwargs\":{\"reasoning_effort\":\"none\"}", true},
        {"\"think\":true,\"enable_thinking\":false", true},
    };
    static const struct bad_field bad[] = {
        {"\"think\":1", "think"},
        {"\"thinking\":\"SECRET\"", "thinking"},
        {"\"thinking\":{\"type\":\"SECRET\"}", "thinking.type"},
        {"\"reasoning\":\"SECRET\"", "reasoning"},
        {"\"reasoning\":{\"effort\":3}", "reasoning.effort"},
        {"\"reasoning\":{\"effort\":\"SECRET\"}", "reasoning.effort"},
        {"\"reasoning_effort\":\"SECRET\"", "reasoning_effort"},
        {"\"reasoning_effort\":\"\"", "reasoning_effort"},
        {"\"think\":\"SECRET\"", "think"},
        {"\"chat_template_kwargs\":{\"reasoning_effort\":\"SECRET\"}",
         "chat_template_kwargs.reasoning_effort"},
        {"\"reasoning\":{\"exclude\":true}", "reasoning.exclude"},
        {"\"reasoning\":{\"enabled\":3}", "reasoning.enabled"},
        {"\"custom_params\":3", "custom_params"},
        {"\"chat_template_kwargs\":{\"thinking\":3}", "chat_template_kwargs.thinking"},
        {"\"include_reasoning\":false", "include_reasoning"},
        {"\"separate_reasoning\":3", "separate_reasoning"},
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        char text[512];
        struct params params;
        snprintf(text, sizeof text, "{%s,%s}", CHAT_START, cases[i].fields);
        check_accepted(params_read_chat, text, &params);
        if (params.request.no_thinking != cases[i].no_thinking)
            fail_msg("%s: no_thinking is %d", cases[i].fields, params.request.no_thinking);
        params_free(&params);
    }
    check_bad_fields(params_read_chat, CHAT_START, bad, COUNT(bad));
    struct params params;
    check_accepted(params_read_chat, "{" CHAT_START ",\"separate_reasoning\":false}", &params);
    assert_false(params.split_reasoning);
    params_free(&params);
    check_refused(params_read_generate, "{\"prompt\":\"a\",\"reasoning_format\":\"none\"}", 40,
                  "reasoning_format");
}

static void check_value(size_t route, const char *name, const char *value, bool is_taken)
{
    char text[256];
    struct params params;
    snprintf(text, sizeof text, "{%s,\"%s\":%s}", routes[route].start, name, value);
    if (!is_taken) {
        check_refused(routes[route].read, text, strlen(text), name);
        return;
    }
    check_accepted(routes[route].read, text, &params);
    params_free(&params);
}

/* Every name of the table that is refused, or has no effect, in every route that knows it. */
static void test_refused_and_harmless(void **state)
{
    (void)state;
    static const char *const nothing[] = {"null", "false", "\"\"", "[]", "{}"};
    static const char *const something[] = {"true", "\"SECRET\"", "[\"SECRET\"]", "{\"a\":1}"};
    size_t n, n_tried = 0;
    const struct params_field *fields = params_fields(&n);
    for (size_t i = 0; i < COUNT(routes) * n; i++) {
        const struct params_field *field = &fields[i % n];
        size_t route = i / n;
        char number[64];
        if (!(field->routes & routes[route].route))
            continue;
        if (field->kind == PARAMS_HARMLESS || field->kind == PARAMS_REFUSED)
            for (size_t v = 0; v < COUNT(nothing); v++)
                check_value(route, field->name, nothing[v], true);
        if (field->kind == PARAMS_HARMLESS || field->kind == PARAMS_REFUSED)
            for (size_t v = 0; v < COUNT(something); v++)
                check_value(route, field->name, something[v], field->kind == PARAMS_HARMLESS);
        if (field->kind == PARAMS_REFUSED) {
            snprintf(number, sizeof number, "%g", field->most + 1);
            check_value(route, field->name, number, false);
            snprintf(number, sizeof number, "%g", field->most);
            check_value(route, field->name, number, field->least <= field->most);
        }
        if (field->kind == PARAMS_ONLY_TRUE) {
            check_value(route, field->name, "true", true);
            check_value(route, field->name, "null", true);
            check_value(route, field->name, "false", false);
        }
        n_tried += field->kind >= PARAMS_REFUSED;
    }
    assert_true(n_tried > 300);
}

static void check_message(const char *text, const char *words)
{
    const struct params_limits limits = make_limits();
    struct refusal refusal;
    struct params params;
    json_t *root = NULL;
    int failure = json_read(text, strlen(text), &root, &refusal);
    if (!failure)
        failure = params_read_chat(root, &limits, &params, &refusal);
    assert_int_equal(failure, -1);
    if (!strstr(refusal.message, words))
        fail_msg("%s: expected \"%s\", found \"%s\"", text, words, refusal.message);
    json_decref(root);
}

/* What is not text, and what is half a character, is called what it is. */
static void test_words_of_refusals(void **state)
{
    (void)state;
#define WITH_PART(part)                                                                                      \
    "{\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"a\"}," part "]}]}"
    check_message(WITH_PART("{\"type\":\"image_url\",\"image_url\":{\"url\":\"x\"}}"), "images are not read");
    check_message(WITH_PART("{\"type\":\"input_image\"}"), "images are not read");
    check_message(WITH_PART("{\"type\":\"input_audio\"}"), "sounds are not read");
    check_message(WITH_PART("{\"type\":\"video_url\"}"), "videos are not read");
    check_message(WITH_PART("{\"type\":\"file\"}"), "files are not read");
    check_message(WITH_PART("{\"type\":\"other\"}"), "part 1 is none");
    check_message("{\"a\":\"\\ud83d\"}", "lone surrogate");
    check_message("{\"a\":\"\\ud83dx\"}", "lone surrogate");
    check_message("{\"a\":\"\\ud83d\\u0041\"}", "lone surrogate");
    check_message("{\"a\":\"\\ude00\"}", "lone surrogate");
    check_message("{\"\\ude00\":1}", "lone surrogate");
    check_message("{\"a\":\"\\x\"}", "not valid JSON");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_budgets),           cmocka_unit_test(test_contradictions),
        cmocka_unit_test(test_switches),          cmocka_unit_test(test_refused_and_harmless),
        cmocka_unit_test(test_words_of_refusals),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
