/* test_called.c: answers that call tools: where one must be called, whatever the model would draw, and within free text, where only
 * the arguments of a call are kept to what its tool wants; in each form. */
#include "constrain/json_tree.h"
#include "engine/answer.h"
#include "helpers/tiny_engine.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

enum { N_TOKENS = 700, N_SEEDS = 10, N_FORMS = 3 };

#define TOOL(name, properties, required)                                                                     \
    "{\"type\":\"function\",\"function\":{\"name\":\"" name                                                  \
    "\",\"parameters\":{\"type\":\"object\",\"additionalProperties\":false,\"properties\":{" properties      \
    "},\"required\":[" required "]}}}"

static const char tools[] = "[" TOOL(
    "get_weather",
    "\"city\":{\"enum\":[\"Ulm\",\"Bonn\"]},\"days\":{\"type\":\"integer\",\"minimum\":1,\"maximum\":7}",
    "\"city\",\"days\"") "," TOOL("get_time", "", "") "]";

static const char templates[N_FORMS][400] = {
    "", /* the model's own, R1's */
    "{{ tools|tojson }}{% for m in messages %}{{ m.role }}:{{ m.content }}{% for c in m.tool_calls or [] "
    "%}<tool_call>\n"
    "{\"name\": \"{{ c.function.name }}\", \"arguments\": {{ c.function.arguments|tojson }}}\n</tool_call>"
    "{% endfor %}\n{% endfor %}A:",
    "{{ tools|tojson }}{% for m in messages %}{{ m.role }}:{{ m.content }}{% for c in m.tool_calls or [] %}"
    "{{ '\\n' }}{\"name\": \"{{ c.function.name }}\", \"parameters\": {{ c.function.arguments|tojson }}}"
    "{% endfor %}\n{% endfor %}A:",
};

/* What a call begins with, up to its name. */
static const char *const beginnings[N_FORMS] = {
    "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>", "<tool_call>\n{\"name\": \"",
    "{\"name\": \""};
/* ... and from there to its arguments; without a tag before it, it is none before these have begun. */
static const char *const middles[N_FORMS] = {"\n```json\n", "\", \"arguments\": ", "\", \"parameters\": {"};

static runnel_model *models[N_FORMS];

static runnel_model *open_form(const char *text)
{
    char path[] = "/tmp/runnel-tiny-XXXXXX";
    struct tiny_model_options options = tiny_engine_model();
    runnel_model_options model_options = tiny_engine_options();
    runnel_model *model = NULL;
    runnel_error error;
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    close(fd);
    options.pre = "deepseek-r1-qwen";
    options.chat = "r1";
    model_options.chat_template_text = *text ? text : NULL;
    int failure = tiny_model_write(&options, path, &error);
    if (!failure)
        failure = runnel_model_open(path, &model_options, &model, &error);
    unlink(path);
    if (failure)
        fail_msg("%s", error.message);
    return model;
}

static int open_models(void **state)
{
    (void)state;
    for (unsigned form = 0; form < N_FORMS; form++)
        models[form] = open_form(templates[form]);
    return 0;
}

static int close_models(void **state)
{
    (void)state;
    for (unsigned form = 0; form < N_FORMS; form++)
        runnel_model_close(models[form]);
    return 0;
}

/* With tools, at a temperature at which a model draws anything. */
static runnel_request asking(unsigned form, uint64_t seed)
{
    static const runnel_message messages[] = {{.role = "user", .content = "What is the weather?"}};
    runnel_request request;
    runnel_request_init(&request);
    request.messages = messages;
    request.n_messages = 1;
    request.tools = tools;
    request.no_thinking = form == 0;
    request.max_tokens = N_TOKENS;
    runnel_sampling *sampling = own_sampling(models[form], &request);
    sampling->temperature = 3;
    sampling->top_k = 0;
    sampling->top_p = 1;
    sampling->min_p = 0;
    sampling->seed = seed;
    return request;
}

static runnel_response ask(runnel_engine *engine, const runnel_request *request)
{
    runnel_response response = {.size = sizeof response};
    runnel_error error;
    if (runnel_respond(engine, request, &response, &error))
        fail_msg("%s", error.message);
    return response;
}

static runnel_engine *start(unsigned form)
{
    runnel_engine_options options;
    runnel_engine_options_init(&options);
    options.n_parallel = 2;
    options.n_context = 2048;
    return tiny_engine_start(models[form], options);
}

/* Calls ----------------------------------------------------------------------------------------------------- */

static bool is_weather(const struct json *root)
{
    const struct json *city = root->items, *days = root->items + 1;
    return root->kind == JSON_OBJECT && root->n == 2 && !strcmp(city->name, "city") &&
           (json_tree_is(city, "Ulm") || json_tree_is(city, "Bonn")) && !strcmp(days->name, "days") &&
           days->kind == JSON_NUMBER && strlen(days->text) == 1 && *days->text >= '1' && *days->text <= '7';
}

static void check_call(const char *name, const char *arguments, size_t len)
{
    struct json_text json;
    bool is_time = !strcmp(name, "get_time");
    if (json_tree_read(arguments, len, &json, NULL))
        fail_msg("%s: '%s' is no JSON", name, arguments);
    if (!is_time)
        assert_string_equal(name, "get_weather");
    if (is_time ? json.root.kind != JSON_OBJECT || json.root.n : !is_weather(&json.root))
        fail_msg("%s: '%s'", name, arguments);
    json_tree_free(&json);
}

/* All of them, but one that was cut. */
static void check_calls(const runnel_response *response)
{
    bool is_cut = response->finish_reason == RUNNEL_FINISH_LENGTH;
    for (uint32_t i = 0; i < response->n_calls; i++)
        if (i + 1 < response->n_calls || !is_cut)
            check_call(response->calls[i].name, response->calls[i].arguments,
                       response->calls[i].arguments_len);
    if (is_cut)
        return;
    assert_true(response->n_calls > 0);
    assert_true(response->calls[response->n_calls - 1].complete);
    assert_string_equal(response->text, "");
}

static void calls_must_be_made(void **state)
{
    (void)state;
    uint32_t n_calls = 0, n_several = 0;
    for (unsigned form = 0; form < N_FORMS; form++) {
        runnel_engine *engine = start(form);
        for (uint64_t seed = 0; seed < N_SEEDS; seed++) {
            runnel_request request = asking(form, seed);
            request.must_call = true;
            runnel_response response = ask(engine, &request);
            check_calls(&response);
            n_calls += response.n_calls;
            n_several += response.n_calls > 1;
            runnel_response_free(&response);
        }
        runnel_engine_stop(engine);
    }
    assert_true(n_several > 0 && n_several < n_calls);
}

static void only_one_may_be_called(void **state)
{
    (void)state;
    for (unsigned form = 0; form < N_FORMS; form++) {
        runnel_engine *engine = start(form);
        for (uint64_t seed = 0; seed < N_SEEDS; seed++) {
            runnel_request request = asking(form, seed);
            request.must_call = true;
            request.must_call_name = seed % 2 ? "get_weather" : "get_time";
            request.max_calls = 1;
            runnel_response response = ask(engine, &request);
            check_calls(&response);
            assert_int_equal(response.finish_reason, RUNNEL_FINISH_STOP);
            assert_int_equal(response.n_calls, 1);
            assert_string_equal(response.calls[0].name, request.must_call_name);
            runnel_response_free(&response);
        }
        runnel_engine_stop(engine);
    }
}

static void thoughts_before_calls_are_free(void **state)
{
    (void)state;
    size_t n_thoughts = 0;
    runnel_engine *engine = start(0);
    for (uint64_t seed = 0; seed < N_SEEDS; seed++) {
        runnel_request request = asking(0, seed);
        request.no_thinking = false;
        request.thinking_budget = 9;
        request.must_call = true;
        runnel_response response = ask(engine, &request);
        check_calls(&response);
        n_thoughts += response.reasoning_len;
        runnel_response_free(&response);
    }
    runnel_engine_stop(engine);
    assert_true(n_thoughts > 0);
}

static void a_value_may_stand_instead(void **state)
{
    (void)state;
    for (unsigned form = 0; form < N_FORMS; form++) {
        runnel_engine *engine = start(form);
        unsigned n_values = 0, n_called = 0;
        for (uint64_t seed = 0; seed < 4 * N_SEEDS; seed++) {
            runnel_request request = asking(form, seed);
            request.constraint = RUNNEL_CONSTRAINT_SCHEMA;
            request.constraint_text = "{\"enum\":[\"fine\",17]}";
            runnel_response response = ask(engine, &request);
            const char *value = response.text + strspn(response.text, " \t\r\n");
            bool is_value = !strcmp(value, "17") || !strcmp(value, "\"fine\"");
            n_values += is_value;
            n_called += response.n_calls > 0;
            if (is_value)
                assert_int_equal(response.n_calls, 0);
            else
                check_calls(&response);
            runnel_response_free(&response);
        }
        assert_true(n_values > 0 && n_called > 0);
        runnel_engine_stop(engine);
    }
}

/* Calls within text ----------------------------------------------------------------------------------------- */

/* What is heard of an answer: its calls' arguments, with their names. */
struct heard {
    bool is_free; /* the calls are of other tools, and not looked at */
    char name[64], arguments[2048];
    size_t n_calls, n_complete, n_text;
};

static bool hear(void *user, const runnel_event *event)
{
    struct heard *heard = user;
    switch (event->kind) {
    case RUNNEL_EVENT_CALL:
        heard->n_calls++;
        heard->arguments[0] = 0;
        snprintf(heard->name, sizeof heard->name, "%s", event->text);
        break;
    case RUNNEL_EVENT_ARGUMENTS:
        assert_true(strlen(heard->arguments) + event->text_len < sizeof heard->arguments);
        strncat(heard->arguments, event->text, event->text_len);
        break;
    case RUNNEL_EVENT_CALL_END:
        heard->n_complete++;
        if (!heard->is_free)
            check_call(heard->name, heard->arguments, strlen(heard->arguments));
        break;
    case RUNNEL_EVENT_ANSWER:
        heard->n_text += event->text_len;
        break;
    default:
        break;
    }
    return true;
}

struct drawing {
    struct pool *pool;
    struct answer answer;
    struct answer_scratch *scratch;
    struct answer_draw drawn;
    struct answer_outcome outcome;
};

/* Made-up logits, of which one is the highest; -1: none is. The ends are the lowest: text goes on. */
static void draw(struct drawing *d, uint64_t salt, int32_t wanted)
{
    float logits[TINY_MODEL_TOKENS];
    size_t position = d->answer.tokens.n;
    for (uint32_t i = 0; i < TINY_MODEL_TOKENS; i++)
        logits[i] = (float)(sampler_random(position * 64 + salt, i) >> 40) * 0x1p-22f;
    logits[TINY_TOKEN_R1_END] = -1000;
    if (wanted >= 0)
        logits[wanted] = 10000;
    answer_draw(&d->answer, d->scratch, logits, &d->drawn);
    if (d->drawn.failure)
        fail_msg("%s", d->drawn.error.message);
    if (wanted >= 0)
        assert_int_equal(d->drawn.token, wanted);
}

/* The next token, drawn after n_undone others that are taken back. */
static void tell_next(struct drawing *d, uint64_t salt, int32_t wanted, unsigned n_undone)
{
    unsigned n = 0;
    while (n < n_undone) {
        draw(d, salt + 1 + n % 3, n ? -1 : wanted);
        n++;
    }
    answer_undo(&d->answer, n);
    draw(d, salt, wanted);
    d->outcome = answer_tell(&d->answer, &d->drawn);
}

/* The model says this text. */
static void say(struct drawing *d, uint64_t salt, const char *text, unsigned n_undone)
{
    for (; *text; text++)
        tell_next(d, salt, (int32_t)(uint8_t)*text, n_undone);
}

static void begin(struct drawing *d, unsigned form, const runnel_request *request, bool splits,
                  struct heard *heard)
{
    int32_t ids[] = {1, 2, 3};
    const struct token_list prompt = {.ids = ids, .n = 3};
    *d = (struct drawing){.pool = NULL};
    runnel_error error;
    assert_int_equal(pool_create(4 << 20, &d->pool, NULL), 0);
    assert_int_equal(answer_scratch_create(TINY_MODEL_TOKENS, &d->scratch, NULL), 0);
    const struct answer_options options = {.pool = d->pool,
                                           .prompt = &prompt,
                                           .max_tokens = N_TOKENS,
                                           .splits_thoughts = splits,
                                           .tool_form = models[form]->chat.calls.form,
                                           .on_event = hear,
                                           .user = heard};
    if (answer_create(&d->answer, models[form], request, &options, &error))
        fail_msg("%s", error.message);
}

static void end(struct drawing *d)
{
    answer_finish(&d->answer, RUNNEL_FINISH_LENGTH);
    answer_free(&d->answer);
    answer_scratch_free(d->scratch);
    assert_int_equal(pool_free(d->pool, NULL), 0);
}

/* Something is said after some text, and what comes then is left to chance. */
static struct text say_once(unsigned form, const char *beginning, uint64_t salt, unsigned n_undone,
                            struct heard *heard)
{
    const runnel_request request = asking(form, 0);
    *heard = (struct heard){.n_calls = 0};
    struct drawing d;
    begin(&d, form, &request, false, heard);
    say(&d, salt, "Well, ", n_undone);
    tell_next(&d, salt, -1, n_undone); /* whatever */
    say(&d, salt, "\n", n_undone);
    say(&d, salt, beginning, n_undone);
    for (unsigned i = 0; i < 300 && !d.outcome.ended; i++)
        tell_next(&d, salt, -1, n_undone);
    struct text text = {0};
    text_add(&text, (const char *)(d.answer.tokens.ids + 3),
             (d.answer.tokens.n - 3) * sizeof *d.answer.tokens.ids);
    end(&d);
    return text;
}

/* A call is begun, and left to chance once its arguments come. */
static struct text call_once(unsigned form, const char *name, uint64_t salt, unsigned n_undone,
                             struct heard *heard)
{
    char beginning[256];
    snprintf(beginning, sizeof beginning, "%s%s%s", beginnings[form], name, middles[form]);
    return say_once(form, beginning, salt, n_undone, heard);
}

static void arguments_within_text_are_kept(void **state)
{
    (void)state;
    for (unsigned form = 0; form < N_FORMS; form++)
        for (uint64_t salt = 0; salt < N_SEEDS; salt++) {
            struct heard heard;
            struct text text = call_once(form, salt % 2 ? "get_weather" : "get_time", salt * 8, 0, &heard);
            if (!heard.n_complete)
                fail_msg("form %u, salt %u: %zu calls, '%s'", form, (unsigned)salt, heard.n_calls,
                         heard.arguments);
            assert_true(heard.n_text > 0);
            text_free(&text);
        }
}

/* Where a thought may still come, one within a call's arguments is none. */
static void arguments_may_speak_of_thoughts(void **state)
{
    static const char *const said[N_FORMS] = {
        "{\"query\": \"<think>a\"}\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
        "{\"query\": \"<think>a\"}}\n</tool_call>", "\"query\": \"<think>a\"}}"};
    (void)state;
    for (unsigned form = 0; form < N_FORMS; form++)
        for (unsigned n_undone = 0; n_undone < 3; n_undone++) {
            struct heard heard = {.is_free = true};
            runnel_request request = asking(form, 0);
            request.tools = "[" TOOL("search", "\"query\":{\"type\":\"string\"}", "\"query\"") "]";
            struct drawing d;
            begin(&d, form, &request, true, &heard);
            say(&d, 0, "\n", n_undone);
            say(&d, 0, beginnings[form], n_undone);
            say(&d, 0, "search", n_undone);
            say(&d, 0, middles[form], n_undone);
            say(&d, 0, said[form], n_undone);
            end(&d);
            assert_string_equal(heard.name, "search");
            assert_string_equal(heard.arguments, "{\"query\": \"<think>a\"}");
            assert_int_equal(heard.n_complete, 1);
        }
}

/* Behind a tag a name is one of a tool's. */
static void names_within_text_are_kept(void **state)
{
    (void)state;
    for (unsigned form = 0; form < 2; form++)
        for (uint64_t salt = 0; salt < N_SEEDS; salt++) {
            struct heard heard;
            struct text text = say_once(form, beginnings[form], salt * 8, 0, &heard);
            assert_true(heard.n_complete >= 1);
            text_free(&text);
        }
}

static void what_only_looks_like_a_call_is_free(void **state)
{
    static const char *const looks[N_FORMS] = {
        "<｜tool▁calls▁begin｜>function",
        "{\"name\": \"get_nothing\", \"arguments\": ", "{\"name\": \"get_nothing\", \"parameters\": "};
    (void)state;
    for (unsigned form = 0; form < N_FORMS; form++) {
        struct heard heard;
        struct text text = say_once(form, looks[form], 0, 0, &heard);
        assert_int_equal(heard.n_calls, 0);
        assert_true(heard.n_text > 200);
        text_free(&text);
    }
}

static void undone_draws_change_nothing(void **state)
{
    (void)state;
    for (unsigned form = 0; form < N_FORMS; form++)
        for (unsigned n = 1; n <= CONSTRAINT_UNDO_MAX; n *= 2) {
            struct heard heard, again;
            struct text plain = call_once(form, "get_weather", n * 8, 0, &heard),
                        undone = call_once(form, "get_weather", n * 8, n, &again);
            assert_int_equal(plain.len, undone.len);
            assert_memory_equal(plain.bytes, undone.bytes, plain.len);
            assert_true(heard.n_complete >= 1);
            text_free(&plain);
            text_free(&undone);
        }
}

/* Refusals -------------------------------------------------------------------------------------------------- */

static void check_refusal(const runnel_request *request, int code, const char *named)
{
    runnel_grammar *grammar = NULL;
    runnel_error error = {0};
    assert_int_equal(runnel_grammar_compile(models[1], request, &grammar, &error), code);
    if (!strstr(error.message, named))
        fail_msg("'%s' does not name '%s'", error.message, named);
    assert_null(grammar);
}

static void what_cannot_be_is_named(void **state)
{
    (void)state;
    runnel_request request = asking(1, 0);
    request.must_call = true;
    request.must_call_name = "get_nothing";
    check_refusal(&request, RUNNEL_EINVAL, "get_nothing");
    request.must_call = false;
    check_refusal(&request, RUNNEL_EINVAL, "must_call");
    request.must_call_name = NULL;
    request.constraint = RUNNEL_CONSTRAINT_REGEX;
    request.constraint_text = "a";
    check_refusal(&request, RUNNEL_EINVAL, "constraint");
    request.constraint = RUNNEL_CONSTRAINT_SCHEMA;
    request.constraint_text = "{\"type\":\"array\",\"items\":{\"type\":\"object\"},\"uniqueItems\":true}";
    check_refusal(&request, RUNNEL_EUNSUPPORTED, "uniqueItems");
    request.constraint = RUNNEL_CONSTRAINT_NONE;
    request.constraint_text = NULL;
    request.tools =
        "[{\"function\":{\"name\":\"f\",\"parameters\":{\"properties\":{\"a\":{\"type\":\"array\","
        "\"items\":{\"type\":\"object\"},\"uniqueItems\":true}}}}}]";
    check_refusal(&request, RUNNEL_EUNSUPPORTED, "f: ");
    check_refusal(&request, RUNNEL_EUNSUPPORTED, "uniqueItems");
    request.tools = "[{\"function\":{\"name\":\"f\",\"parameters\":{\"type\":\"string\"}}}]";
    check_refusal(&request, RUNNEL_EINVAL, "f: ");
    request.tools = NULL;
    request.must_call = true;
    check_refusal(&request, RUNNEL_EINVAL, "must_call");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(calls_must_be_made),
        cmocka_unit_test(only_one_may_be_called),
        cmocka_unit_test(thoughts_before_calls_are_free),
        cmocka_unit_test(a_value_may_stand_instead),
        cmocka_unit_test(arguments_within_text_are_kept),
        cmocka_unit_test(arguments_may_speak_of_thoughts),
        cmocka_unit_test(names_within_text_are_kept),
        cmocka_unit_test(what_only_looks_like_a_call_is_free),
        cmocka_unit_test(undone_draws_change_nothing),
        cmocka_unit_test(what_cannot_be_is_named),
    };
    return cmocka_run_group_tests(tests, open_models, close_models);
}
