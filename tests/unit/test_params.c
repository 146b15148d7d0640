/* test_params.c: bodies that are refused, with the field that is named, and what good ones become. */
#include "server/params.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

typedef int (*reader)(json_t *, const struct params_limits *, struct params *, struct refusal *);

static struct params_limits make_limits(void)
{
    struct params_limits limits = {.n_vocab = 1000, .n_choices = 4, .split_reasoning = true};
    limits.defaults = (runnel_request){.size = sizeof limits.defaults, .max_tokens = 4096, .n_logprobs = -1};
    limits.defaults.sampling = (runnel_sampling){
        .temperature = 0.6f, .top_k = 40, .top_p = 0.95f, .min_p = 0.05f, .repetition_penalty = 1, .seed = 5};
    return limits;
}

/* Reads a body; on refusal *params stays as it is. */
static int read_text(reader read_params, const char *text, size_t len, struct params *params,
                     struct refusal *refusal)
{
    const struct params_limits limits = make_limits();
    json_t *root;
    *refusal = (struct refusal){0};
    if (json_read(text, len, &root, refusal))
        return -1;
    int failure = read_params(root, &limits, params, refusal);
    json_decref(root);
    return failure;
}

/* The body must be refused with 400, for this field ("": none), without touching the params or repeating the body. */
static void check_refused(reader read_params, const char *text, size_t len, const char *param)
{
    struct params params, before;
    struct refusal refusal;
    memset(&params, 0x5a, sizeof params);
    before = params;
    if (!read_text(read_params, text, len, &params, &refusal))
        fail_msg("accepted: %.200s", text);
    if (strcmp(refusal.param, param) != 0)
        fail_msg("%.200s: expected param \"%s\", found \"%s\"", text, param, refusal.param);
    assert_int_equal(refusal.status, 400);
    assert_true(refusal.message[0]);
    assert_null(strstr(refusal.message, "SECRET"));
    assert_memory_equal(&params, &before, sizeof params);
}

static struct params check_accepted(reader read_params, const char *text)
{
    struct params params;
    struct refusal refusal;
    if (read_text(read_params, text, strlen(text), &params, &refusal))
        fail_msg("refused: %.200s: %s", text, refusal.message);
    return params;
}

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
    struct params params = check_accepted(params_read_completion, text);
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

struct bad_field {
    const char *fields, *param;
};

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
    {"\"stop\":\"\"", "stop"},
    {"\"stop\":[\"a\",\"\"]", "stop"},
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
    {"\"tools\":[{\"type\":\"function\"}]", "tools"},
    {"\"functions\":[{}]", "functions"},
    {"\"tool_choice\":\"required\"", "tool_choice"},
    {"\"function_call\":{\"name\":\"SECRET\"}", "function_call"},
    {"\"grammar\":\"SECRET\"", "grammar"},
    {"\"json_schema\":{\"type\":\"object\"}", "json_schema"},
    {"\"json_schema\":{}", "json_schema"},
    {"\"guided_regex\":\"SECRET\"", "guided_regex"},
    {"\"stop_token_ids\":[1]", "stop_token_ids"},
    {"\"include_stop_str_in_output\":true", "include_stop_str_in_output"},
    {"\"use_beam_search\":true", "use_beam_search"},
    {"\"n_indent\":4", "n_indent"},
    {"\"response_format\":{\"type\":\"json_object\"}", "response_format"},
    {"\"response_format\":{}", "response_format"},
    {"\"response_format\":\"text\"", "response_format"},
    {"\"modalities\":[\"text\",\"audio\"]", "modalities"},
};

static void check_bad_fields(reader read_params, const char *start, const struct bad_field *fields, size_t n)
{
    char text[2048];
    for (size_t i = 0; i < n; i++) {
        snprintf(text, sizeof text, "{%s,%s}", start, fields[i].fields);
        check_refused(read_params, text, strlen(text), fields[i].param);
    }
}

#define CHAT_START   "\"messages\":[{\"role\":\"user\",\"content\":\"SECRET\"}]"
#define COUNT(array) (sizeof(array) / sizeof *(array))

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
        {"{\"messages\":[{\"role\":\"tool\",\"content\":\"a\"}]}", "messages[0].role"},
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
            struct params params = check_accepted(params_read_completion, text);
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

/* Good ones ----------------------------------------------------------------------------------------------- */

static void test_defaults(void **state)
{
    (void)state;
    struct params params =
        check_accepted(params_read_chat, "{" CHAT_START ",\"temperature\":null,\"stop\":null,"
                                         "\"tools\":[],\"response_format\":{\"type\":\"text\"},"
                                         "\"what\":{\"is\":[\"this\"]},\"max_tokens\":null}");
    assert_int_equal(params.request.max_tokens, 4096);
    assert_true(params.request.sampling.temperature == 0.6f);
    assert_true(params.request.sampling.top_p == 0.95f);
    assert_int_equal(params.request.sampling.penalty_window, 0);
    assert_int_equal(params.request.sampling.seed, 5);
    assert_false(params.has_seed);
    assert_false(params.stream);
    assert_true(params.split_reasoning);
    assert_false(params.request.no_thinking);
    assert_int_equal(params.request.n_logprobs, -1);
    assert_int_equal(params.n_choices, 1);
    params_free(&params);
    params = check_accepted(params_read_generate, "{\"prompt\":\"a\"}");
    assert_int_equal(params.request.max_tokens, GENERATE_MAX_TOKENS);
    assert_false(params.request.raw);
    assert_null(params.name);
    params_free(&params);
}

static void test_chat_values(void **state)
{
    (void)state;
    struct params params = check_accepted(
        params_read_chat,
        "{\"messages\":[{\"role\":\"developer\",\"content\":\"be kind\"},{\"role\":\"user\",\"content\":"
        "[{\"type\":\"text\",\"text\":\"one\"},{\"type\":\"text\",\"text\":\"two\"}]},"
        "{\"role\":\"assistant\",\"content\":null,\"reasoning_content\":\"dropped\"},"
        "{\"role\":\"user\",\"content\":\"\xf0\x9f\x98\x80\\ud83d\\ude00\"}],"
        "\"max_tokens\":7,\"max_completion_tokens\":9,\"temperature\":0,\"top_p\":0,\"top_k\":-1,\"min_p\":0."
        "25,"
        "\"presence_penalty\":1,\"seed\":-7,\"stop\":[\"x\",\"yy\"],\"n\":4,\"logprobs\":true,\"top_"
        "logprobs\":20,"
        "\"logit_bias\":{\"999\":-100,\"0\":2.5},\"ignore_eos\":true,\"stream\":true,"
        "\"stream_options\":{\"include_usage\":true},\"chat_template_kwargs\":{\"enable_thinking\":false},"
        "\"reasoning_format\":\"none\"}");
    const runnel_request *request = &params.request;
    assert_int_equal(request->n_messages, 4);
    assert_string_equal(request->messages[0].role, "system");
    assert_string_equal(request->messages[1].content, "one\ntwo");
    assert_string_equal(request->messages[2].content, "");
    assert_string_equal(request->messages[3].content, "\xf0\x9f\x98\x80\xf0\x9f\x98\x80");
    assert_int_equal(request->max_tokens, 9);
    assert_true(request->sampling.temperature == 0);
    assert_true(request->sampling.top_p > 0 && request->sampling.top_p < 0.001f);
    assert_int_equal(request->sampling.top_k, 0);
    assert_int_equal(request->sampling.penalty_window, -1);
    assert_true(params.has_seed);
    assert_int_equal(request->sampling.seed, (uint64_t)-7);
    assert_int_equal(request->n_stop, 2);
    assert_string_equal(request->stop[1], "yy");
    assert_int_equal(params.n_choices, 4);
    assert_int_equal(request->n_logprobs, 20);
    assert_int_equal(request->sampling.n_logit_bias, 2);
    float bias_of_999 = 0;
    for (size_t i = 0; i < 2; i++)
        bias_of_999 +=
            request->sampling.logit_bias[i].token == 999 ? request->sampling.logit_bias[i].bias : 0;
    assert_true(bias_of_999 == -100);
    assert_true(request->ignore_eos && params.stream && params.include_usage && request->no_thinking);
    assert_false(params.split_reasoning);
    params_free(&params);
}

/* Models write zeros; what they wrote comes back as history. */
static void test_zero_bytes(void **state)
{
    (void)state;
    struct params params = check_accepted(
        params_read_chat, "{\"messages\":[{\"role\":\"system\",\"content\":\"a\\u0000\"},"
                          "{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"\\u0000b\"},"
                          "{\"type\":\"text\",\"text\":\"c\"}]}]}");
    assert_int_equal(params.request.messages[0].content_len, 2);
    assert_memory_equal(params.request.messages[0].content, "a", 2);
    assert_int_equal(params.request.messages[1].content_len, 4);
    assert_memory_equal(params.request.messages[1].content, "\0b\nc", 4);
    params_free(&params);
    params = check_accepted(params_read_completion, "{\"prompt\":[\"a\\u0000b\",\"c\"]}");
    assert_int_equal(params.prompts[0].text_len, 3);
    assert_memory_equal(params.prompts[0].text, "a\0b", 3);
    params_free(&params);
    params = check_accepted(params_read_generate, "{\"prompt\":\"a\\u0000b\"}");
    assert_int_equal(params.request.prompt_len, 3);
    params_free(&params);
}

/* The last message, if the assistant has begun it, is gone on with. */
static void test_continued_answers(void **state)
{
    (void)state;
#define BEGUN(content) "{\"messages\":[{\"role\":\"user\",\"content\":\"q\"}," content "]}"
    static const struct {
        const char *body;
        bool continues;
        size_t n_messages;
    } cases[] = {
        {BEGUN("{\"role\":\"assistant\",\"content\":\"Sure\"}"), true, 2},
        {BEGUN("{\"role\":\"assistant\",\"content\":\"\"}"), false, 1},
        {BEGUN("{\"role\":\"assistant\"}"), false, 1},
        {BEGUN("{\"role\":\"user\",\"content\":\"r\"}"), false, 2},
        {"{\"messages\":[{\"role\":\"assistant\",\"content\":\"\"}]}", false, 1},
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct params params = check_accepted(params_read_chat, cases[i].body);
        assert_int_equal(params.request.continues, cases[i].continues);
        assert_int_equal(params.request.n_messages, cases[i].n_messages);
        params_free(&params);
    }
}

static void test_thinking_switches(void **state)
{
    (void)state;
    static const struct {
        const char *fields;
        bool no_thinking;
    } cases[] = {
        {"\"enable_thinking\":false", true},
        {"\"enable_thinking\":true", false},
        {"\"enable_thinking\":true,\"chat_template_kwargs\":{\"enable_thinking\":false}", true},
        {"\"reasoning_effort\":\"none\"", true},
        {"\"reasoning_effort\":\"low\"", false},
        {"\"reasoning_effort\":null", false},
    };
    char text[512];
    for (size_t i = 0; i < COUNT(cases); i++) {
        snprintf(text, sizeof text, "{%s,%s}", CHAT_START, cases[i].fields);
        struct params params = check_accepted(params_read_chat, text);
        assert_int_equal(params.request.no_thinking, cases[i].no_thinking);
        params_free(&params);
    }
}

static void test_native_fields(void **state)
{
    (void)state;
    static const struct bad_field fields[] = {
        {"\"response_fields\":\"content\"", "response_fields"},
        {"\"response_fields\":[1]", "response_fields"},
        {"\"response_fields\":[\"a\\u0000\"]", "response_fields"},
        {"\"timings_per_token\":\"yes\"", "timings_per_token"},
    };
    check_bad_fields(params_read_native, "\"prompt\":\"a\"", fields, COUNT(fields));
    struct params params =
        check_accepted(params_read_native, "{\"prompt\":\"a\",\"response_fields\":[\"content\"],"
                                           "\"timings_per_token\":true,\"n_cmpl\":3}");
    assert_int_equal(json_array_size(params.response_fields), 1);
    assert_true(params.request.wants_counts);
    assert_int_equal(params.n_choices, 3);
    params_free(&params);
    params = check_accepted(params_read_native, "{\"prompt\":\"a\",\"response_fields\":[]}");
    assert_null(params.response_fields);
    assert_false(params.request.wants_counts);
    params_free(&params);
}

static void test_huge_numbers(void **state)
{
    (void)state;
    static const char *const values[] = {"1e300", "99999999999999999999999", "2147483648",
                                         "9223372036854775807"};
    for (size_t i = 0; i < COUNT(values); i++) {
        char text[128];
        snprintf(text, sizeof text, "{\"prompt\":\"a\",\"max_tokens\":%s}", values[i]);
        struct params params = check_accepted(params_read_completion, text);
        assert_int_equal(params.request.max_tokens, INT32_MAX);
        params_free(&params);
    }
    struct params params = check_accepted(params_read_completion, "{\"prompt\":\"a\",\"max_tokens\":-1}");
    assert_int_equal(params.request.max_tokens, 0);
    params_free(&params);
    /* beside them other integers stay integers, and texts as they are */
    params = check_accepted(
        params_read_completion,
        "{\"x\":[9223372036854775808,-9223372036854775809,1E00000000000000000000001],"
        "\"prompt\":[1,2],\"stop\":\"\\\\\\\"99999999999999999999,\",\"seed\":9223372036854775807,"
        "\"max_tokens\":18446744073709551616}");
    assert_int_equal(params.prompts[0].n_ids, 2);
    assert_string_equal(params.request.stop[0], "\\\"99999999999999999999,");
    assert_true(params.request.sampling.seed == INT64_MAX);
    assert_int_equal(params.request.max_tokens, INT32_MAX);
    params_free(&params);
}

static void test_prompts(void **state)
{
    (void)state;
    struct params params = check_accepted(params_read_completion, "{\"prompt\":[1,2,999],\"logprobs\":0}");
    assert_int_equal(params.n_prompts, 1);
    assert_int_equal(params.prompts[0].n_ids, 3);
    assert_int_equal(params.prompts[0].ids[2], 999);
    assert_int_equal(params.request.n_logprobs, 0);
    assert_true(params.request.raw);
    params_free(&params);
    params = check_accepted(params_read_completion, "{\"prompt\":[\"a\",[5],\"b\",[6,7]]}");
    assert_int_equal(params.n_prompts, 4);
    assert_string_equal(params.prompts[2].text, "b");
    assert_null(params.prompts[2].ids);
    assert_int_equal(params.prompts[1].ids[0], 5);
    assert_int_equal(params.prompts[3].ids[1], 7);
    params_free(&params);
    params = check_accepted(params_read_generate, "{\"prompt\":\"a\",\"id\":\"job\",\"raw\":true}");
    assert_string_equal(json_string_value(params.name), "job");
    assert_true(params.request.raw);
    params_free(&params);
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
                struct params params = check_accepted(routes[i / n].read, text);
                params_free(&params);
            } else {
                check_refused(routes[i / n].read, text, strlen(text), field->name);
            }
            n_tried++;
        }
    }
    assert_true(n_tried > 200);
}

/* A letter a token, its id its code. */
static int encode_letters(void *user, const char *text, size_t len, int32_t **ids, size_t *n_ids,
                          runnel_error *error)
{
    (void)user;
    (void)error;
    *ids = malloc((len + 1) * sizeof **ids);
    assert_non_null(*ids);
    for (size_t i = 0; i < len; i++)
        (*ids)[i] = (unsigned char)text[i];
    *n_ids = len;
    return 0;
}

static struct params read_with_letters(const char *text, int32_t bos)
{
    struct params_limits limits = make_limits();
    struct params params;
    struct refusal refusal;
    json_t *root;
    limits.encode = encode_letters;
    limits.bos = bos;
    assert_int_equal(json_read(text, strlen(text), &root, &refusal), 0);
    if (params_read_native(root, &limits, &params, &refusal))
        fail_msg("refused: %s: %s", text, refusal.message);
    json_decref(root);
    return params;
}

static void check_ids(const struct params_prompt *prompt, const char *letters)
{
    assert_null(prompt->text);
    assert_int_equal(prompt->n_ids, strlen(letters));
    for (size_t i = 0; letters[i]; i++)
        assert_int_equal(prompt->ids[i], letters[i]);
}

static void test_mixed_prompts(void **state)
{
    (void)state;
    struct params params = read_with_letters("{\"prompt\":[97,\"bc\",100,\"\",\"e\"]}", -1);
    assert_int_equal(params.n_prompts, 1);
    check_ids(&params.prompts[0], "abcde");
    params_free(&params);
    params = read_with_letters("{\"prompt\":[\"ab\",[99,\"d\"],{\"prompt_string\":\"e\"}]}", -1);
    assert_int_equal(params.n_prompts, 3);
    check_ids(&params.prompts[0], "ab");
    check_ids(&params.prompts[1], "cd");
    check_ids(&params.prompts[2], "e");
    params_free(&params);
    /* Where a model wants texts to begin with a token, it stands there once; token ids are left as they are. */
    params = read_with_letters("{\"prompt\":[\"ab\",[99,\"d\"],[\"x\",98],\"^b\"]}", '^');
    check_ids(&params.prompts[0], "^ab");
    check_ids(&params.prompts[1], "cd");
    check_ids(&params.prompts[3], "^b");
    params_free(&params);
    params = read_with_letters("{\"prompt\":[\"x\",98]}", '^');
    check_ids(&params.prompts[0], "^xb");
    params_free(&params);
}

static void test_native_values(void **state)
{
    (void)state;
    struct params params = read_with_letters(
        "{\"prompt\":\"a\",\"n_predict\":7,\"n_probs\":3,\"return_tokens\":true,\"cache_prompt\":false,"
        "\"logit_bias\":[[\"ab\",-1.5],[5,false]]}",
        -1);
    const runnel_request *request = &params.request;
    assert_int_equal(request->max_tokens, 7);
    assert_int_equal(request->n_logprobs, 3);
    assert_true(request->wants_tokens && request->raw && !params.evaluates_only);
    assert_int_equal(request->sampling.n_logit_bias, 3);
    assert_int_equal(request->sampling.logit_bias[1].token, 'b');
    assert_true(request->sampling.logit_bias[1].bias == -1.5f);
    assert_true(isinf(request->sampling.logit_bias[2].bias) && request->sampling.logit_bias[2].bias < 0);
    params_free(&params);
    params = read_with_letters("{\"prompt\":\"a\",\"n_predict\":0}", -1);
    assert_true(params.evaluates_only && params.request.max_tokens == 1 && params.request.n_logprobs == -1);
    params_free(&params);
    check_refused(params_read_native, "{\"prompt\":\"a\",\"max_tokens\":0}", 29, "max_tokens");
    check_refused(params_read_native, "{\"prompt\":[1,\"a\"]}", 18, "prompt"); /* nothing encodes here */
}

/* Seeds and bounds of 64 bits, exactly. */
static void test_seeds(void **state)
{
    (void)state;
    struct params params = read_with_letters("{\"prompt\":\"a\",\"seed\":9223372036854775807}", -1);
    assert_true(params.request.sampling.seed == INT64_MAX);
    params_free(&params);
    params = read_with_letters("{\"prompt\":\"a\",\"seed\":-9223372036854775808}", -1);
    assert_true(params.request.sampling.seed == (uint64_t)INT64_MIN);
    params_free(&params);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bad_json),          cmocka_unit_test(test_nesting),
        cmocka_unit_test(test_bad_fields),        cmocka_unit_test(test_bad_chat),
        cmocka_unit_test(test_bad_prompts),       cmocka_unit_test(test_limits),
        cmocka_unit_test(test_defaults),          cmocka_unit_test(test_chat_values),
        cmocka_unit_test(test_huge_numbers),      cmocka_unit_test(test_zero_bytes),
        cmocka_unit_test(test_continued_answers), cmocka_unit_test(test_thinking_switches),
        cmocka_unit_test(test_native_fields),     cmocka_unit_test(test_prompts),
        cmocka_unit_test(test_table_bounds),      cmocka_unit_test(test_mixed_prompts),
        cmocka_unit_test(test_native_values),     cmocka_unit_test(test_seeds),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
