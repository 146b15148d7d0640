/* test_params_values.c: what good bodies become. test_params.c has those that are refused. */
#include "helpers/params_check.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static void test_defaults(void **state)
{
    (void)state;
    struct params params;
    check_accepted(params_read_chat,
                   "{" CHAT_START ",\"temperature\":null,\"stop\":null,"
                   "\"tools\":[],\"response_format\":{\"type\":\"text\"},"
                   "\"what\":{\"is\":[\"this\"]},\"max_tokens\":null}",
                   &params);
    assert_int_equal(params.request.max_tokens, 4096);
    assert_true(params.sampling.temperature == 0.6f);
    assert_true(params.sampling.top_p == 0.95f);
    assert_int_equal(params.sampling.penalty_window, 0);
    assert_int_equal(params.sampling.seed, 5);
    assert_false(params.has_seed);
    assert_false(params.stream);
    assert_true(params.split_reasoning);
    assert_false(params.request.no_thinking);
    assert_int_equal(params.request.n_logprobs, -1);
    assert_int_equal(params.n_choices, 1);
    params_free(&params);
    check_accepted(params_read_generate, "{\"prompt\":\"a\"}", &params);
    assert_int_equal(params.request.max_tokens, GENERATE_MAX_TOKENS);
    assert_false(params.request.raw);
    assert_null(params.name);
    params_free(&params);
}

/* Without the nulls, and in the order in which they came. */
static void test_tools(void **state)
{
    (void)state;
    struct params params;
    check_accepted(
        params_read_chat,
        "{" CHAT_START ",\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"b\",\"description\":null,"
        "\"parameters\":{\"type\":\"object\",\"properties\":{\"z\":{\"default\":null},\"a\":{\"maximum\":0.1}"
        "}},"
        "\"strict\":false}},{\"type\":null,\"function\":{\"name\":\"a\",\"description\":\"\u00fc\","
        "\"parameters\":null,\"strict\":null}}],\"parallel_tool_calls\":false}",
        &params);
    assert_string_equal(
        params.request.tools,
        "[{\"type\":\"function\",\"function\":{\"name\":\"b\",\"parameters\":{\"type\":\"object\","
        "\"properties\":{\"z\":{\"default\":null},\"a\":{\"maximum\":0.1}}}}},"
        "{\"type\":\"function\",\"function\":{\"name\":\"a\",\"description\":\"\u00fc\"}}]");
    assert_int_equal(params.request.max_calls, 1);
    params_free(&params);
    check_accepted(params_read_chat,
                   "{" CHAT_START ",\"tools\":[{\"function\":{\"name\":\"b\"}}],\"tool_choice\":\"auto\"}",
                   &params);
    assert_non_null(params.request.tools);
    assert_int_equal(params.request.max_calls, 0);
    assert_false(params.request.must_call);
    params_free(&params);
    check_accepted(
        params_read_chat,
        "{" CHAT_START
        ",\"tools\":[{\"function\":{\"name\":\"b\",\"strict\":true}}],\"tool_choice\":\"required\"}",
        &params);
    assert_true(params.request.must_call);
    assert_null(params.request.must_call_name);
    assert_int_equal(params.request.max_calls, 0);
    params_free(&params);
    check_accepted(params_read_chat,
                   "{" CHAT_START
                   ",\"tools\":[{\"function\":{\"name\":\"b\"}}],\"tool_choice\":{\"type\":\"function\","
                   "\"function\":{\"name\":\"b\"}}}",
                   &params);
    assert_true(params.request.must_call);
    assert_string_equal(params.request.must_call_name, "b");
    assert_int_equal(params.request.max_calls, 1);
    params_free(&params);
    check_accepted(params_read_chat, "{" CHAT_START ",\"tools\":[{\"function\":3}],\"tool_choice\":\"none\"}",
                   &params);
    assert_null(params.request.tools); /* the model is told of none */
    params_free(&params);
}

static void check_constraint(const char *fields, enum runnel_constraint kind, const char *text)
{
    struct params params;
    char body[1024];
    snprintf(body, sizeof body, "{\"prompt\":\"a\",%s}", fields);
    check_accepted(params_read_generate, body, &params);
    assert_int_equal(params.request.constraint, kind);
    if (text)
        assert_string_equal(params.request.constraint_text, text);
    else
        assert_null(params.request.constraint_text);
    params_free(&params);
}

/* The same under several names; members and numbers as they came. */
static void test_constraints(void **state)
{
    (void)state;
    struct params params;
    check_constraint("\"response_format\":{\"type\":\"text\"}", RUNNEL_CONSTRAINT_NONE, NULL);
    check_constraint("\"response_format\":{\"type\":\"json_object\"}", RUNNEL_CONSTRAINT_JSON, NULL);
    check_constraint("\"structured_outputs\":{\"json_object\":true,\"regex\":null}", RUNNEL_CONSTRAINT_JSON,
                     NULL);
    check_constraint("\"response_format\":{\"type\":\"json_object\",\"schema\":{\"type\":\"null\"}}",
                     RUNNEL_CONSTRAINT_SCHEMA, "{\"type\":\"null\"}");
    check_constraint("\"response_format\":{\"type\":\"json_schema\",\"json_schema\":{\"name\":\"n\","
                     "\"strict\":true,\"schema\":{}}}",
                     RUNNEL_CONSTRAINT_SCHEMA, "{}");
    check_constraint("\"json_schema\":{\"z\":[1,-2.5,1e300,0.1,true,null],\"a\":{\"\\\"\\n\":\"\u00fc\"}}",
                     RUNNEL_CONSTRAINT_SCHEMA,
                     "{\"z\":[1,-2.5,1e+300,0.1,true,null],\"a\":{\"\\\"\\n\":\"\u00fc\"}}");
    check_constraint("\"json_schema\":{\"enum\":[9223372036854775807,100000000000000000000,1e22]}",
                     RUNNEL_CONSTRAINT_SCHEMA, "{\"enum\":[9223372036854775807,1e+20,1e+22]}");
    check_constraint("\"guided_json\":\"{}\"", RUNNEL_CONSTRAINT_SCHEMA, "{}");
    check_constraint("\"json_schema\":{}", RUNNEL_CONSTRAINT_SCHEMA, "{}");
    check_constraint("\"guided_json\":{}", RUNNEL_CONSTRAINT_SCHEMA, "{}");
    check_constraint("\"structured_outputs\":{\"json\":{}}", RUNNEL_CONSTRAINT_SCHEMA, "{}");
    check_constraint("\"structured_outputs\":{},\"json_schema\":null", RUNNEL_CONSTRAINT_NONE, NULL);
    check_constraint("\"json_schema\":false,\"guided_json\":{\"a\":1},\"grammar\":\"\"",
                     RUNNEL_CONSTRAINT_SCHEMA, "{\"a\":1}");
    check_constraint("\"grammar\":\"root ::= 3\"", RUNNEL_CONSTRAINT_GRAMMAR, "root ::= 3");
    check_constraint("\"structured_outputs\":{\"grammar\":\"g\"}", RUNNEL_CONSTRAINT_GRAMMAR, "g");
    check_constraint("\"guided_regex\":\"a+\"", RUNNEL_CONSTRAINT_REGEX, "a+");
    check_constraint("\"structured_outputs\":{\"regex\":\"b\",\"disable_fallback\":true}",
                     RUNNEL_CONSTRAINT_REGEX, "b");
    check_constraint("\"guided_decoding_backend\":\"x\"", RUNNEL_CONSTRAINT_NONE, NULL);
    check_accepted(params_read_native, "{\"prompt\":\"a\",\"guided_choice\":[\"x\",\"\"]}", &params);
    assert_int_equal(params.request.constraint, RUNNEL_CONSTRAINT_CHOICE);
    assert_int_equal(params.request.n_choices, 2);
    assert_string_equal(params.request.choices[0], "x");
    assert_string_equal(params.request.choices[1], "");
    params_free(&params);
}

static void test_calls_and_results(void **state)
{
    (void)state;
    struct params params;
    check_accepted(params_read_chat,
                   "{\"messages\":[{\"role\":\"user\",\"content\":\"q\",\"tool_calls\":null},"
                   "{\"role\":\"assistant\",\"content\":null,\"tool_calls\":[{\"id\":null,\"type\":"
                   "\"function\",\"function\":{"
                   "\"name\":\"f\",\"arguments\":\"{\\\"a\\\": "
                   "1}\"}},{\"id\":\"c\",\"function\":{\"name\":\"g\",\"arguments\":"
                   "{\"b\":[]}}},{\"id\":\"d\",\"function\":{\"name\":\"h\",\"arguments\":null}}]},"
                   "{\"role\":\"tool\",\"content\":null,\"tool_call_id\":null},"
                   "{\"role\":\"tool\",\"content\":[{\"type\":\"text\",\"text\":\"r\"}],\"tool_call_id\":"
                   "\"c\",\"name\":\"g\"}]}",
                   &params);
    const runnel_request *request = &params.request;
    assert_int_equal(request->n_messages, 4);
    assert_null(request->message_tools[0].calls);
    assert_string_equal(
        request->message_tools[1].calls,
        "[{\"type\":\"function\",\"function\":{\"name\":\"f\",\"arguments\":\"{\\\"a\\\": 1}\"}},"
        "{\"id\":\"c\",\"type\":\"function\",\"function\":{\"name\":\"g\",\"arguments\":\"{\\\"b\\\": "
        "[]}\"}},"
        "{\"id\":\"d\",\"type\":\"function\",\"function\":{\"name\":\"h\",\"arguments\":\"{}\"}}]");
    assert_string_equal(request->messages[2].role, "tool");
    assert_string_equal(request->messages[2].content, "");
    assert_null(request->message_tools[2].call_id);
    assert_string_equal(request->messages[3].content, "r");
    assert_string_equal(request->message_tools[3].call_id, "c");
    assert_string_equal(request->message_tools[3].name, "g");
    params_free(&params);
}

/* Numbers in tools and in arguments that came as an object are written as they came. */
static void test_numbers_of_tools(void **state)
{
    (void)state;
    struct params params;
    check_accepted(params_read_chat,
                   "{\"messages\":[{\"role\":\"assistant\",\"tool_calls\":[{\"function\":{\"name\":\"f\","
                   "\"arguments\":{\"a\":0.1,\"b\":[2,0.3]}}}]},{\"role\":\"tool\",\"content\":\"r\"}],"
                   "\"tools\":[{\"function\":{\"name\":\"f\",\"parameters\":{\"multipleOf\":0.1}}}]}",
                   &params);
    assert_string_equal(params.request.message_tools[0].calls,
                        "[{\"type\":\"function\",\"function\":{\"name\":\"f\",\"arguments\":"
                        "\"{\\\"a\\\": 0.1, \\\"b\\\": [2, 0.3]}\"}}]");
    assert_string_equal(
        params.request.tools,
        "[{\"type\":\"function\",\"function\":{\"name\":\"f\",\"parameters\":{\"multipleOf\":0.1}}}]");
    params_free(&params);
}

static void test_chat_values(void **state)
{
    (void)state;
    struct params params;
    check_accepted(
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
        "\"reasoning_format\":\"none\"}",
        &params);
    const runnel_request *request = &params.request;
    assert_int_equal(request->n_messages, 4);
    assert_string_equal(request->messages[0].role, "system");
    assert_string_equal(request->messages[1].content, "one\ntwo");
    assert_string_equal(request->messages[2].content, "");
    assert_string_equal(request->messages[3].content, "\xf0\x9f\x98\x80\xf0\x9f\x98\x80");
    assert_int_equal(request->max_tokens, 9);
    assert_true(request->sampling->temperature == 0);
    assert_true(request->sampling->top_p > 0 && request->sampling->top_p < 0.001f);
    assert_int_equal(request->sampling->top_k, 0);
    assert_int_equal(request->sampling->penalty_window, -1);
    assert_true(params.has_seed);
    assert_int_equal(request->sampling->seed, (uint64_t)-7);
    assert_int_equal(request->n_stop, 2);
    assert_string_equal(request->stop[1], "yy");
    assert_int_equal(params.n_choices, 4);
    assert_int_equal(request->n_logprobs, 20);
    assert_int_equal(request->sampling->n_logit_bias, 2);
    float bias_of_999 = 0;
    for (size_t i = 0; i < 2; i++)
        bias_of_999 +=
            request->sampling->logit_bias[i].token == 999 ? request->sampling->logit_bias[i].bias : 0;
    assert_true(bias_of_999 == -100);
    assert_true(request->ignore_eos && params.stream && params.include_usage && request->no_thinking);
    assert_false(params.split_reasoning);
    params_free(&params);
}

/* Models write zeros; what they wrote comes back as history. */
static void test_zero_bytes(void **state)
{
    (void)state;
    struct params params;
    check_accepted(params_read_chat,
                   "{\"messages\":[{\"role\":\"system\",\"content\":\"a\\u0000\"},"
                   "{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"\\u0000b\"},"
                   "{\"type\":\"text\",\"text\":\"c\"}]}]}",
                   &params);
    assert_int_equal(params.request.messages[0].content_len, 2);
    assert_memory_equal(params.request.messages[0].content, "a", 2);
    assert_int_equal(params.request.messages[1].content_len, 4);
    assert_memory_equal(params.request.messages[1].content, "\0b\nc", 4);
    params_free(&params);
    check_accepted(params_read_completion, "{\"prompt\":[\"a\\u0000b\",\"c\"]}", &params);
    assert_int_equal(params.prompts[0].text_len, 3);
    assert_memory_equal(params.prompts[0].text, "a\0b", 3);
    params_free(&params);
    check_accepted(params_read_generate, "{\"prompt\":\"a\\u0000b\"}", &params);
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
        struct params params;
        check_accepted(params_read_chat, cases[i].body, &params);
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
        struct params params;
        check_accepted(params_read_chat, text, &params);
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
        {"\"return_progress\":1", "return_progress"},
    };
    check_bad_fields(params_read_native, "\"prompt\":\"a\"", fields, COUNT(fields));
    struct params params;
    check_accepted(params_read_native,
                   "{\"prompt\":\"a\",\"response_fields\":[\"content\"],"
                   "\"timings_per_token\":true,\"n_cmpl\":3}",
                   &params);
    assert_int_equal(json_array_size(params.response_fields), 1);
    assert_true(params.request.wants_counts);
    assert_int_equal(params.n_choices, 3);
    params_free(&params);
    check_accepted(params_read_native, "{\"prompt\":\"a\",\"response_fields\":[],\"return_progress\":true}",
                   &params);
    assert_null(params.response_fields);
    assert_false(params.request.wants_counts || params.request.wants_progress); /* nothing streams */
    params_free(&params);
    check_accepted(params_read_native, "{\"prompt\":\"a\",\"stream\":true,\"return_progress\":true}",
                   &params);
    assert_true(params.request.wants_progress);
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
        struct params params;
        check_accepted(params_read_completion, text, &params);
        assert_int_equal(params.request.max_tokens, INT32_MAX);
        params_free(&params);
    }
    struct params params;
    check_accepted(params_read_completion, "{\"prompt\":\"a\",\"max_tokens\":-1}", &params);
    assert_int_equal(params.request.max_tokens, 0);
    params_free(&params);
    /* beside them other integers stay integers, and texts as they are */
    check_accepted(params_read_completion,
                   "{\"x\":[9223372036854775808,-9223372036854775809,1E00000000000000000000001],"
                   "\"prompt\":[1,2],\"stop\":\"\\\\\\\"99999999999999999999,\",\"seed\":9223372036854775807,"
                   "\"max_tokens\":18446744073709551616}",
                   &params);
    assert_int_equal(params.prompts[0].n_ids, 2);
    assert_string_equal(params.request.stop[0], "\\\"99999999999999999999,");
    assert_true(params.sampling.seed == INT64_MAX);
    assert_int_equal(params.request.max_tokens, INT32_MAX);
    params_free(&params);
}

static void test_prompts(void **state)
{
    (void)state;
    struct params params;
    check_accepted(params_read_completion, "{\"prompt\":[1,2,999],\"logprobs\":0}", &params);
    assert_int_equal(params.n_prompts, 1);
    assert_int_equal(params.prompts[0].n_ids, 3);
    assert_int_equal(params.prompts[0].ids[2], 999);
    assert_int_equal(params.request.n_logprobs, 0);
    assert_true(params.request.raw);
    params_free(&params);
    check_accepted(params_read_completion, "{\"prompt\":[\"a\",[5],\"b\",[6,7]]}", &params);
    assert_int_equal(params.n_prompts, 4);
    assert_string_equal(params.prompts[2].text, "b");
    assert_null(params.prompts[2].ids);
    assert_int_equal(params.prompts[1].ids[0], 5);
    assert_int_equal(params.prompts[3].ids[1], 7);
    params_free(&params);
    check_accepted(params_read_generate, "{\"prompt\":\"a\",\"id\":\"job\",\"raw\":true}", &params);
    assert_string_equal(json_string_value(params.name), "job");
    assert_true(params.request.raw);
    params_free(&params);
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

static void read_with_letters(const char *text, int32_t bos, struct params *params)
{
    struct params_limits limits = make_limits();
    struct refusal refusal;
    json_t *root;
    limits.encode = encode_letters;
    limits.bos = bos;
    assert_int_equal(json_read(text, strlen(text), &root, &refusal), 0);
    if (params_read_native(root, &limits, params, &refusal))
        fail_msg("refused: %s: %s", text, refusal.message);
    json_decref(root);
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
    struct params params;
    read_with_letters("{\"prompt\":[97,\"bc\",100,\"\",\"e\"]}", -1, &params);
    assert_int_equal(params.n_prompts, 1);
    check_ids(&params.prompts[0], "abcde");
    params_free(&params);
    read_with_letters("{\"prompt\":[\"ab\",[99,\"d\"],{\"prompt_string\":\"e\"}]}", -1, &params);
    assert_int_equal(params.n_prompts, 3);
    check_ids(&params.prompts[0], "ab");
    check_ids(&params.prompts[1], "cd");
    check_ids(&params.prompts[2], "e");
    params_free(&params);
    /* Where a model wants texts to begin with a token, it stands there once; token ids are left as they are. */
    read_with_letters("{\"prompt\":[\"ab\",[99,\"d\"],[\"x\",98],\"^b\"]}", '^', &params);
    check_ids(&params.prompts[0], "^ab");
    check_ids(&params.prompts[1], "cd");
    check_ids(&params.prompts[3], "^b");
    params_free(&params);
    read_with_letters("{\"prompt\":[\"x\",98]}", '^', &params);
    check_ids(&params.prompts[0], "^xb");
    params_free(&params);
}

static void test_native_values(void **state)
{
    (void)state;
    struct params params;
    read_with_letters(
        "{\"prompt\":\"a\",\"n_predict\":7,\"n_probs\":3,\"return_tokens\":true,\"cache_prompt\":false,"
        "\"logit_bias\":[[\"ab\",-1.5],[5,false]]}",
        -1, &params);
    const runnel_request *request = &params.request;
    assert_int_equal(request->max_tokens, 7);
    assert_int_equal(request->n_logprobs, 3);
    assert_true(request->wants_tokens && request->raw && !params.evaluates_only);
    assert_false(request->wants_sampled_probs);
    assert_int_equal(request->sampling->n_logit_bias, 3);
    assert_int_equal(request->sampling->logit_bias[1].token, 'b');
    assert_true(request->sampling->logit_bias[1].bias == -1.5f);
    assert_true(isinf(request->sampling->logit_bias[2].bias) && request->sampling->logit_bias[2].bias < 0);
    params_free(&params);
    read_with_letters("{\"prompt\":\"a\",\"n_predict\":0}", -1, &params);
    assert_true(params.evaluates_only && params.request.max_tokens == 1 && params.request.n_logprobs == -1);
    params_free(&params);
    static const char sampled[] = "{\"prompt\":\"a\",\"n_probs\":2,\"post_sampling_probs\":true}";
    read_with_letters(sampled, -1, &params);
    assert_true(params.request.wants_sampled_probs && params.request.n_logprobs == 2);
    params_free(&params);
    check_refused(params_read_native, "{\"prompt\":\"a\",\"max_tokens\":0}", 29, "max_tokens");
    static const char number[] = "{\"prompt\":\"a\",\"post_sampling_probs\":1}";
    check_refused(params_read_native, number, strlen(number), "post_sampling_probs");
    check_refused(params_read_native, "{\"prompt\":[1,\"a\"]}", 18, "prompt"); /* nothing encodes here */
}

/* Seeds and bounds of 64 bits, exactly. */
static void test_seeds(void **state)
{
    (void)state;
    struct params params;
    read_with_letters("{\"prompt\":\"a\",\"seed\":9223372036854775807}", -1, &params);
    assert_true(params.sampling.seed == INT64_MAX);
    params_free(&params);
    read_with_letters("{\"prompt\":\"a\",\"seed\":-9223372036854775808}", -1, &params);
    assert_true(params.sampling.seed == (uint64_t)INT64_MIN);
    params_free(&params);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_defaults),
        cmocka_unit_test(test_chat_values),
        cmocka_unit_test(test_huge_numbers),
        cmocka_unit_test(test_zero_bytes),
        cmocka_unit_test(test_continued_answers),
        cmocka_unit_test(test_thinking_switches),
        cmocka_unit_test(test_native_fields),
        cmocka_unit_test(test_prompts),
        cmocka_unit_test(test_mixed_prompts),
        cmocka_unit_test(test_native_values),
        cmocka_unit_test(test_tools),
        cmocka_unit_test(test_constraints),
        cmocka_unit_test(test_calls_and_results),
        cmocka_unit_test(test_numbers_of_tools),
        cmocka_unit_test(test_seeds),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
