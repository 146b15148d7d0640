/* test_params.c: bodies that are refused, with the field that is named. test_params_values.c has what good ones become. */
#include "helpers/params_check.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* JSON itself --------------------------------------------------------------------------------------------- */

static void test_bad_json(void **state)
{
    (void)state;
    static const char *const bodies[] = {
        "",
        " ",
        "{",
        "{\"prompt\":\"SECRET\"",
        "{\"prompt\":\"a\"} x",
        "{\"prompt\":\"a\"}{}",
        "{\"prompt\":\"a\",\"prompt\":\"b\"}",
        "{\"a\":{\"b\":1,\"b\":2},\"prompt\":\"a\"}",
        "{\"prompt\":\"a\",\"temperature\":NaN}",
        "{\"prompt\":\"a\",\"temperature\":Infinity}",
        "{\"prompt\":\"a\",\"temperature\":1e999}",
        "{\"prompt\":\"a\",\"temperature\":01}",
        "{\"prompt\":\"\xff\"}",
        "{\"prompt\":\"\xc0\xaf\"}",
        "{\"prompt\":\"\xed\xa0\x80\"}",
        "{\"prompt\":\"\\ud800\"}",
        "{\"prompt\":\"\\udc00x\"}",
        "{\"prompt\":\"a\",\"\\u0000\":1}",
        "{'prompt':'SECRET'}",
        "{\"prompt\":\"a\",}",
        "// x\n{}",
        "[]",
        "null",
        "3",
        "\"SECRET\"",
    };
    for (size_t i = 0; i < sizeof bodies / sizeof *bodies; i++)
        check_refused(params_read_completion, bodies[i], strlen(bodies[i]), "");
    const char zero[] = "{\"prompt\":\"a\"}\0";
    check_refused(params_read_completion, zero, sizeof zero - 1, "");
}

/* {"prompt":"a","x":[[...]]} with so many levels in all. */
static char *nest(size_t depth)
{
    char *text = malloc(2 * depth + 64), *at = text;
    assert_non_null(text);
    at += sprintf(at, "{\"prompt\":\"a[[[[\\\"[[{{\",\"x\":");
    memset(at, '[', depth - 1);
    at += depth - 1;
    memset(at, ']', depth - 1);
    strcpy(at + depth - 1, "}");
    return text;
}

static void test_nesting(void **state)
{
    (void)state;
    char *text = nest(JSON_MAX_DEPTH);
    struct params params;
    check_accepted(params_read_completion, text, &params);
    params_free(&params);
    free(text);
    text = nest(JSON_MAX_DEPTH + 1);
    check_refused(params_read_completion, text, strlen(text), "");
    free(text);
    text = nest(1000000);
    check_refused(params_read_completion, text, strlen(text), "");
    free(text);
}

/* Fields -------------------------------------------------------------------------------------------------- */

/* In requests of every route. */
static const struct bad_field bad_fields[] = {
    {"\"temperature\":-0.1", "temperature"},
    {"\"temperature\":2.1", "temperature"},
    {"\"temperature\":\"SECRET\"", "temperature"},
    {"\"temperature\":true", "temperature"},
    {"\"top_p\":1.01", "top_p"},
    {"\"top_p\":-1", "top_p"},
    {"\"top_k\":-2", "top_k"},
    {"\"top_k\":1.5", "top_k"},
    {"\"min_p\":2", "min_p"},
    {"\"presence_penalty\":2.5", "presence_penalty"},
    {"\"frequency_penalty\":-2.5", "frequency_penalty"},
    {"\"repeat_penalty\":0", "repeat_penalty"},
    {"\"repetition_penalty\":[]", "repetition_penalty"},
    {"\"max_tokens\":0", "max_tokens"},
    {"\"max_tokens\":-2", "max_tokens"},
    {"\"max_tokens\":1.5", "max_tokens"},
    {"\"max_tokens\":\"10\"", "max_tokens"},
    {"\"max_completion_tokens\":0", "max_completion_tokens"},
    {"\"n_predict\":-2", "n_predict"},
    {"\"seed\":0.5", "seed"},
    {"\"seed\":\"SECRET\"", "seed"},
    {"\"n\":0", "n"},
    {"\"n\":5", "n"},
    {"\"n_cmpl\":5", "n_cmpl"},
    {"\"n\":99999999999999999999", "n"},
    {"\"best_of\":2", "best_of"},
    {"\"n\":2,\"best_of\":1", "best_of"},
    {"\"stop\":[\"a\",3]", "stop"},
    {"\"stop\":\"a\\u0000\"", "stop"},
    {"\"stop\":{}", "stop"},
    {"\"stop\":[\"1\",\"2\",\"3\",\"4\",\"5\",\"6\",\"7\",\"8\",\"9\",\"10\",\"11\",\"12\",\"13\",\"14\","
     "\"15\",\"16\",\"17\"]",
     "stop"},
    {"\"logit_bias\":3", "logit_bias"},
    {"\"logit_bias\":[1]", "logit_bias"},
    {"\"logit_bias\":[[1]]", "logit_bias"},
    {"\"logit_bias\":[[1,2,3]]", "logit_bias"},
    {"\"logit_bias\":[[1000,2]]", "logit_bias"},
    {"\"logit_bias\":[[-1,2]]", "logit_bias"},
    {"\"logit_bias\":[[\"SECRET\",2]]", "logit_bias"},
    {"\"logit_bias\":[[1,100.5]]", "logit_bias"},
    {"\"logit_bias\":[[1,true]]", "logit_bias"},
    {"\"logit_bias\":{\"1000\":1}", "logit_bias"},
    {"\"logit_bias\":{\"-1\":1}", "logit_bias"},
    {"\"logit_bias\":{\"SECRET\":1}", "logit_bias"},
    {"\"logit_bias\":{\"4294967297\":1}", "logit_bias"},
    {"\"logit_bias\":{\"\":1}", "logit_bias"},
    {"\"logit_bias\":{\"1\":100.5}", "logit_bias"},
    {"\"logit_bias\":{\"1\":-101}", "logit_bias"},
    {"\"logit_bias\":{\"1\":true}", "logit_bias"},
    {"\"ignore_eos\":1", "ignore_eos"},
    {"\"model\":3", "model"},
    {"\"functions\":[{}]", "functions"},
    {"\"tool_choice\":\"required\"", "tool_choice"},
    {"\"function_call\":{\"name\":\"SECRET\"}", "function_call"},
    {"\"grammar\":3", "grammar"},
    {"\"grammar\":{\"type\":\"SECRET\"}", "grammar"},
    {"\"json_schema\":[3]", "json_schema"},
    {"\"json_schema\":{\"type\":\"object\"},\"grammar\":\"SECRET\"", "grammar"},
    {"\"guided_json\":3", "guided_json"},
    {"\"guided_choice\":\"SECRET\"", "guided_choice"},
    {"\"guided_choice\":[\"a\",3]", "guided_choice"},
    {"\"guided_choice\":[\"a\\u0000\"]", "guided_choice"},
    {"\"guided_whitespace_pattern\":\"SECRET\"", "guided_whitespace_pattern"},
    {"\"structured_outputs\":\"SECRET\"", "structured_outputs"},
    {"\"structured_outputs\":{\"SECRET\":1}", "structured_outputs"},
    {"\"structured_outputs\":{\"json_object\":1}", "structured_outputs.json_object"},
    {"\"structured_outputs\":{\"regex\":[\"SECRET\"]}", "structured_outputs.regex"},
    {"\"structured_outputs\":{\"regex\":\"a\",\"choice\":[\"a\"]}", "structured_outputs.choice"},
    {"\"min_tokens\":-1", "min_tokens"},
    {"\"min_tokens\":1.5", "min_tokens"},
    {"\"max_tokens\":5,\"min_tokens\":6", "min_tokens"},
    {"\"max_tokens\":5,\"min_new_tokens\":6", "min_new_tokens"},
    {"\"guided_regex\":[\"SECRET\"]", "guided_regex"},
    {"\"stop_token_ids\":[1]", "stop_token_ids"},
    {"\"include_stop_str_in_output\":true", "include_stop_str_in_output"},
    {"\"use_beam_search\":true", "use_beam_search"},
    {"\"n_indent\":4", "n_indent"},
    {"\"response_format\":{\"type\":\"SECRET\"}", "response_format"},
    {"\"response_format\":{\"type\":\"json_object\"},\"guided_regex\":\"a\"", "guided_regex"},
    {"\"json_schema\":{\"maximum\":18446744073709551615}", "json_schema"},
    {"\"json_schema\":{\"enum\":[-12345678901234567890]}", "json_schema"},
    {"\"response_format\":{\"type\":\"json_object\",\"schema\":3}", "response_format.schema"},
    {"\"response_format\":{\"type\":\"json_object\",\"json_schema\":{\"schema\":{}}}",
     "response_format.json_schema"},
    {"\"response_format\":{\"type\":\"json_schema\"}", "response_format.json_schema"},
    {"\"response_format\":{\"type\":\"json_schema\",\"json_schema\":{\"name\":\"a\"}}",
     "response_format.json_schema"},
    {"\"response_format\":{\"type\":\"json_schema\",\"json_schema\":{\"schema\":[]}}",
     "response_format.json_schema.schema"},
    {"\"response_format\":{\"type\":\"json_schema\",\"json_schema\":{\"strict\":3,\"schema\":{}}}",
     "response_format.json_schema.strict"},
    {"\"response_format\":{}", "response_format"},
    {"\"response_format\":\"text\"", "response_format"},
    {"\"modalities\":[\"text\",\"audio\"]", "modalities"},
};

/* Where there are no conversations. */
static const struct bad_field bad_tools[] = {
    {"\"tools\":[{\"type\":\"function\"}]", "tools"},
    {"\"tools\":[{\"type\":\"function\"}],\"tool_choice\":\"auto\"", "tools"},
    {"\"tools\":[{\"type\":\"function\"}],\"function_call\":\"none\"", "tools"},
};

#define TOOL(more) "\"tools\":[{\"type\":\"function\",\"function\":{" more "}}]"
#define TOOL_F     TOOL("\"name\":\"f\"")

/* And where there are. */
static const struct bad_field bad_chat_tools[] = {
    {"\"tools\":3", "tools"},
    {"\"tools\":[3]", "tools[0].function"},
    {"\"tools\":[{\"type\":\"function\"}]", "tools[0].function"},
    {"\"tools\":[{\"type\":\"SECRET\",\"function\":{\"name\":\"f\"}}]", "tools[0].type"},
    {"\"tools\":[{\"type\":\"function\"}],\"function_call\":\"none\"", "tools[0].function"},
    {TOOL(""), "tools[0].function.name"},
    {TOOL("\"name\":\"\""), "tools[0].function.name"},
    {TOOL("\"name\":\"f\\u0000\""), "tools[0].function.name"},
    {TOOL("\"name\":\"f\",\"description\":3"), "tools[0].function.description"},
    {TOOL("\"name\":\"f\",\"parameters\":[]"), "tools[0].function.parameters"},
    {TOOL("\"name\":\"f\",\"parameters\":{\"a\":{\"const\":12345678901234567890}}"),
     "tools[0].function.parameters"},
    {TOOL("\"name\":\"f\",\"strict\":3"), "tools[0].function.strict"},
    {"\"tools\":[{\"function\":{\"name\":\"f\"}},{\"function\":{\"name\":\"f\"}}]", "tools[1].function.name"},
    {TOOL_F ",\"tool_choice\":\"SECRET\"", "tool_choice"},
    {TOOL_F ",\"guided_regex\":\"a\"", "guided_regex"},
    {TOOL_F ",\"tool_choice\":{\"type\":\"function\",\"function\":{\"name\":\"SECRET\"}}", "tool_choice"},
    {TOOL_F ",\"parallel_tool_calls\":3", "parallel_tool_calls"},
};

static void test_bad_tools(void **state)
{
    (void)state;
    check_bad_fields(params_read_completion, "\"prompt\":\"SECRET\"", bad_tools, COUNT(bad_tools));
    check_bad_fields(params_read_generate, "\"prompt\":\"SECRET\"", bad_tools, COUNT(bad_tools));
    check_bad_fields(params_read_native, "\"prompt\":\"SECRET\"", bad_tools, COUNT(bad_tools));
    check_bad_fields(params_read_chat, CHAT_START, bad_chat_tools, COUNT(bad_chat_tools));
}

static void test_bad_fields(void **state)
{
    (void)state;
    check_bad_fields(params_read_chat, CHAT_START, bad_fields, COUNT(bad_fields));
    check_bad_fields(params_read_completion, "\"prompt\":\"SECRET\"", bad_fields, COUNT(bad_fields));
    check_bad_fields(params_read_generate, "\"prompt\":\"SECRET\"", bad_fields, COUNT(bad_fields));
    check_bad_fields(params_read_native, "\"prompt\":\"SECRET\"", bad_fields, COUNT(bad_fields));
}

static void test_bad_chat(void **state)
{
    (void)state;
    static const struct bad_field fields[] = {
        {"\"stream\":1", "stream"},
        {"\"stream_options\":[]", "stream_options"},
        {"\"stream_options\":{\"include_usage\":\"SECRET\"}", "stream_options.include_usage"},
        {"\"timings_per_token\":1", "timings_per_token"},
        {"\"logprobs\":3", "logprobs"},
        {"\"top_logprobs\":2", "top_logprobs"},
        {"\"logprobs\":true,\"top_logprobs\":21", "top_logprobs"},
        {"\"logprobs\":true,\"top_logprobs\":-1", "top_logprobs"},
        {"\"chat_template_kwargs\":3", "chat_template_kwargs"},
        {"\"chat_template_kwargs\":{\"enable_thinking\":\"no\"}", "chat_template_kwargs.enable_thinking"},
        {"\"chat_template_kwargs\":{\"add_vision_id\":true}", "chat_template_kwargs.add_vision_id"},
        {"\"chat_template_kwargs\":{\"thinking\":true,\"tools\":false}", "chat_template_kwargs.tools"},
        {"\"chat_template_kwargs\":{\"SECRET name\":1}", "chat_template_kwargs"},
        {"\"enable_thinking\":\"no\"", "enable_thinking"},
        {"\"reasoning_effort\":3", "reasoning_effort"},
        {"\"thinking_budget_tokens\":-2", "thinking_budget_tokens"},
        {"\"reasoning_format\":\"SECRET\"", "reasoning_format"},
    };
    static const struct bad_field messages[] = {
        {"{}", "messages"},
        {"{\"messages\":[]}", "messages"},
        {"{\"messages\":\"SECRET\"}", "messages"},
        {"{\"messages\":[3]}", "messages[0]"},
        {"{\"messages\":[{\"content\":\"a\"}]}", "messages[0].role"},
        {"{\"messages\":[{\"role\":\"SECRET\",\"content\":\"a\"}]}", "messages[0].role"},
        {"{\"messages\":[{\"role\":\"user\\u0000\",\"content\":\"a\"}]}", "messages[0].role"},
        {"{\"messages\":[{\"role\":\"function\",\"content\":\"a\"}]}", "messages[0].role"},
        {"{\"messages\":[{\"role\":\"tool\",\"content\":3}]}", "messages[0].content"},
        {"{\"messages\":[{\"role\":\"tool\",\"content\":\"a\",\"tool_call_id\":3}]}",
         "messages[0].tool_call_id"},
        {"{\"messages\":[{\"role\":\"tool\",\"content\":\"a\",\"name\":3}]}", "messages[0].name"},
        {"{\"messages\":[{\"role\":\"user\"}]}", "messages[0].content"},
        {"{\"messages\":[{\"role\":\"user\",\"content\":null}]}", "messages[0].content"},
        {"{\"messages\":[{\"role\":\"assistant\",\"content\":3}]}", "messages[0].content"},
        {"{\"messages\":[{\"role\":\"user\",\"content\":[\"SECRET\"]}]}", "messages[0].content"},
        {"{\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"image_url\"}]}]}",
         "messages[0].content"},
        {"{\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"text\"}]}]}", "messages[0].content"},
        {"{\"messages\":[{\"role\":\"user\",\"content\":\"a\"},{\"role\":\"user\",\"content\":{}}]}",
         "messages[1].content"},
        {"{\"messages\":[{\"role\":\"assistant\",\"tool_calls\":[{}]}]}", "messages[0].tool_calls"},
        {"{\"messages\":[{\"role\":\"assistant\",\"tool_calls\":3}]}", "messages[0].tool_calls"},
        {"{\"messages\":[{\"role\":\"assistant\",\"tool_calls\":[{\"function\":{\"name\":\"\"}}]}]}",
         "messages[0].tool_calls"},
        {"{\"messages\":[{\"role\":\"assistant\",\"tool_calls\":[{\"function\":{\"name\":\"f\",\"arguments\":"
         "3}}]}]}",
         "messages[0].tool_calls"},
        {"{\"messages\":[{\"role\":\"assistant\",\"tool_calls\":[{\"id\":3,\"function\":{\"name\":\"f\"}}]}]"
         "}",
         "messages[0].tool_calls"},
        {"{\"messages\":[{\"role\":\"user\",\"content\":\"a\",\"tool_calls\":[{\"function\":{\"name\":\"f\"}}"
         "]}]}",
         "messages[0].tool_calls"},
        {"{\"messages\":[{\"role\":\"user\",\"content\":\"a\"},{\"role\":\"assistant\",\"tool_calls\":[{"
         "\"function\":{"
         "\"name\":\"f\"}}]}]}",
         "messages"},
        {"{\"messages\":[{\"role\":\"assistant\",\"function_call\":{\"name\":\"SECRET\"}}]}",
         "messages[0].function_call"},
        {"{\"messages\":[{\"role\":\"assistant\",\"content\":\"a\"}],\"continue_final_message\":false}",
         "continue_final_message"},
        {"{\"messages\":[{\"role\":\"user\",\"content\":\"a\"},{\"role\":\"assistant\",\"content\":\"a\"},"
         "{\"role\":\"assistant\",\"content\":\"b\"}]}",
         "messages"},
    };
    check_bad_fields(params_read_chat, CHAT_START, fields, COUNT(fields));
    for (size_t i = 0; i < COUNT(messages); i++)
        check_refused(params_read_chat, messages[i].fields, strlen(messages[i].fields), messages[i].param);
}

static void test_bad_prompts(void **state)
{
    (void)state;
    static const char *const bodies[] = {
        "{}",
        "{\"prompt\":null}",
        "{\"prompt\":\"\"}",
        "{\"prompt\":[]}",
        "{\"prompt\":3}",
        "{\"prompt\":{}}",
        "{\"prompt\":[\"a\",\"\"]}",
        "{\"prompt\":[[]]}",
        "{\"prompt\":[1,-1]}",
        "{\"prompt\":[1000]}",
        "{\"prompt\":[1.0]}",
        "{\"prompt\":[1,\"SECRET\"]}",
        "{\"prompt\":[[1],[2,\"SECRET\"]]}",
        "{\"prompt\":[[[1]]]}",
        "{\"prompt\":[\"a\",3]}",
        "{\"prompt\":[4294967296]}",
    };
    for (size_t i = 0; i < COUNT(bodies); i++)
        check_refused(params_read_completion, bodies[i], strlen(bodies[i]), "prompt");
    static const struct bad_field fields[] = {
        {"\"echo\":true", "echo"},
        {"\"suffix\":\"SECRET\"", "suffix"},
        {"\"logprobs\":true", "logprobs"},
        {"\"logprobs\":21", "logprobs"},
    };
    check_bad_fields(params_read_completion, "\"prompt\":\"a\"", fields, COUNT(fields));
    static const struct bad_field generate[] = {
        {"\"raw\":\"SECRET\"", "raw"}, {"\"id\":[]", "id"}, {"\"id\":1.5", "id"}, {"\"n\":2", "n"},
        {"\"n_cmpl\":2", "n"},
    };
    check_bad_fields(params_read_generate, "\"prompt\":\"a\"", generate, COUNT(generate));
    check_refused(params_read_generate, "{\"prompt\":[1]}", 14, "prompt");
}

/* A stop of exactly the limit, and one past it; the same for entries of logit_bias. */
static void test_limits(void **state)
{
    (void)state;
    char *text = malloc(65536), *at;
    assert_non_null(text);
    for (int past = 0; past < 2; past++) {
        at = text + sprintf(text, "{\"prompt\":\"a\",\"stop\":\"");
        memset(at, 'x', PARAMS_STOP_BYTES + past);
        strcpy(at + PARAMS_STOP_BYTES + past, "\"}");
        if (past) {
            check_refused(params_read_completion, text, strlen(text), "stop");
        } else {
            struct params params;
            check_accepted(params_read_completion, text, &params);
            assert_int_equal(params.request.n_stop, 1);
            params_free(&params);
        }
    }
    struct params_limits limits = make_limits();
    limits.n_vocab = 5000;
    for (int past = 0; past < 2; past++) {
        json_t *root = json_pack("{s:s, s:o}", "prompt", "a", "logit_bias", json_object());
        struct params params;
        struct refusal refusal;
        for (int i = 0; i < PARAMS_LOGIT_BIASES + past; i++) {
            char key[16];
            snprintf(key, sizeof key, "%d", i);
            json_object_set_new(json_object_get(root, "logit_bias"), key, json_integer(i % 100));
        }
        assert_int_equal(params_read_completion(root, &limits, &params, &refusal), past ? -1 : 0);
        if (past)
            assert_string_equal(refusal.param, "logit_bias");
        else
            params_free(&params);
        json_decref(root);
    }
    free(text);
}

/* Every field of the table that has bounds: at them it is taken, one past them it is refused, or counts as the bound. */
static void test_table_bounds(void **state)
{
    (void)state;
    static const struct {
        unsigned route;
        reader read;
        const char *start;
    } routes[] = {{PARAMS_CHAT, params_read_chat, CHAT_START ",\"logprobs\":true"},
                  {PARAMS_COMPLETION, params_read_completion, "\"prompt\":\"a\""},
                  {PARAMS_NATIVE, params_read_native, "\"prompt\":\"a\""},
                  {PARAMS_GENERATE, params_read_generate, "\"prompt\":\"a\""}};
    size_t n, n_tried = 0;
    const struct params_field *fields = params_fields(&n);
    for (size_t i = 0; i < COUNT(routes) * n; i++) {
        const struct params_field *field = &fields[i % n];
        char text[256];
        bool is_number = field->kind == PARAMS_NUMBER, clamps = field->kind == PARAMS_WHOLE_CLAMPED;
        if (!(field->routes & routes[i / n].route) || !(is_number || clamps || field->kind == PARAMS_WHOLE))
            continue;
        double most = isinf(field->most) ? make_limits().n_choices : field->most;
        const double bounds[] = {field->least, most, field->least - (is_number ? 0.01 : 1),
                                 most + (is_number ? 0.01 : 1)};
        for (int b = 0; b < 4; b++) {
            if (!is_number && fabs(bounds[b]) >= 0x1p62)
                continue; /* a seed is any number of 64 bits */
            snprintf(text, sizeof text, "{%s,\"%s\":%.*f}", routes[i / n].start, field->name,
                     is_number ? 3 : 0, bounds[b]);
            if (b < 2 || (b == 3 && clamps)) {
                struct params params;
                check_accepted(routes[i / n].read, text, &params);
                params_free(&params);
            } else {
                check_refused(routes[i / n].read, text, strlen(text), field->name);
            }
            n_tried++;
        }
    }
    assert_true(n_tried > 200);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bad_json),   cmocka_unit_test(test_nesting),
        cmocka_unit_test(test_bad_fields), cmocka_unit_test(test_bad_tools),
        cmocka_unit_test(test_bad_chat),   cmocka_unit_test(test_bad_prompts),
        cmocka_unit_test(test_limits),     cmocka_unit_test(test_table_bounds),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
