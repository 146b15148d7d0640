/* test_chat.c: that chat templates give what their Jinja gives, and what is found out about the models from them. */
#include "model/chat.h"

#include <jansson.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static const struct chat_tokens r1_tokens = {
    {"<｜begin▁of▁sentence｜>", sizeof "<｜begin▁of▁sentence｜>" - 1}, {"", 0}, true};
static const struct chat_tokens plain_tokens = {{"<s>", 3}, {"</s>", 4}, false};

static json_t *load(const char *name)
{
    char path[512];
    json_error_t error;
    snprintf(path, sizeof path, "%s/%s", TEST_DATA, name);
    json_t *root = json_load_file(path, JSON_ALLOW_NUL, &error);
    if (!root)
        fail_msg("%s:%d: %s", path, error.line, error.text);
    return root;
}

/* Renders conversation["messages"] without the thought that is opened for R1 and compares with
 * conversation["text"]. */
static void check_conversation(const struct chat_template *template, json_t *conversation)
{
    runnel_message messages[16] = {{0}};
    json_t *list = json_object_get(conversation, "messages");
    size_t n = json_array_size(list);
    assert_in_range(n, 1, 16);
    for (size_t i = 0; i < n; i++) {
        messages[i].role = json_string_value(json_object_get(json_array_get(list, i), "role"));
        messages[i].content = json_string_value(json_object_get(json_array_get(list, i), "content"));
    }
    struct chat_prompt prompt;
    runnel_error error;
    if (chat_render(template, messages, n, CHAT_THINKING, &prompt, &error))
        fail_msg("%s", error.message);
    assert_int_equal(strlen(prompt.text), prompt.len);
    size_t expected_len = json_string_length(json_object_get(conversation, "text"));
    if (template->thinks && prompt.len > expected_len) {
        const char *opened = prompt.text + prompt.len - strlen("<think>\n");
        assert_string_equal(opened, "<think>\n");
        prompt.text[prompt.len - strlen("<think>\n")] = '\0';
    }
    assert_string_equal(prompt.text, json_string_value(json_object_get(conversation, "text")));
    chat_prompt_free(&prompt);
}

/* The template of an entry of chat-templates.json, opened with the tokens of its model. */
static struct chat_template open_entry(json_t *entry)
{
    json_t *jinja = json_object_get(entry, "template");
    const char *name = json_string_value(json_object_get(entry, "name"));
    struct chat_template template;
    runnel_error error = {0};
    if (chat_open(json_string_value(jinja), json_string_length(jinja),
                  strncmp(name, "r1", 2) == 0 ? &r1_tokens : &plain_tokens, &template, &error))
        fail_msg("%s: %s", name, error.message);
    return template;
}

static void test_templates_of_every_kind(void **state)
{
    (void)state;
    json_t *root = load("chat-templates.json"), *entry, *conversation;
    size_t i, k, n_rendered = 0;
    json_array_foreach(root, i, entry)
    {
        if (!json_is_true(json_object_get(entry, "known")))
            continue;
        struct chat_template template = open_entry(entry);
        json_array_foreach(json_object_get(entry, "conversations"), k, conversation)
            check_conversation(&template, conversation);
        n_rendered++;
        chat_close(&template);
    }
    assert_int_equal(n_rendered, 14);
    json_decref(root);
}

/* What is not in the language, or refuses a plain question, is refused with its line and the way out. */
static void test_templates_that_cannot_be_run(void **state)
{
    (void)state;
    static const struct {
        const char *jinja, *named;
    } cases[] = {
        {"a\n{% if x %}", "line 2: expected elif"},
        {"{% include 'x' %}", "line 1: expected a statement that is known"},
        {"{{ 1 | nothing }}", "line 1: the filter \"nothing\" is not known"},
        {"{{ 1 | nothing }}", "expected one of abs, attr, "},
        {"{{ 1 | nothing }}", ", upper, wordcount): choose"},
        {"{{ 1 is nothing }}", "line 1: the test \"nothing\" is not known, expected one of boolean, "},
        {"{% if messages %}{{ 1 | nothing }}{% endif %}",
         "the filter nothing is not known, expected one of abs"},
        {"\n\n{{ raise_exception('no, ' + messages[0].content) }}", "line 3: no, ..."}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct chat_template template, before;
        runnel_error error = {0};
        memset(&template, 0xaa, sizeof template);
        before = template;
        assert_int_equal(chat_open(cases[i].jinja, strlen(cases[i].jinja), &plain_tokens, &template, &error),
                         RUNNEL_EUNSUPPORTED);
        if (!strstr(error.message, cases[i].named))
            fail_msg("%s: \"%s\" expected", error.message, cases[i].named);
        assert_non_null(strstr(error.message, "choose another with chat_template (r1, chatml)"));
        assert_null(strstr(error.message, "--"));
        assert_memory_equal(&template, &before, sizeof template);
    }
}

/* The template of the given name in chat-templates.json. */
static struct chat_template open_named(const char *name)
{
    json_t *root = load("chat-templates.json"), *entry;
    struct chat_template template = {0};
    size_t i;
    json_array_foreach(root, i, entry)
    {
        if (strcmp(json_string_value(json_object_get(entry, "name")), name) == 0)
            template = open_entry(entry);
    }
    assert_non_null(template.template);
    json_decref(root);
    return template;
}

static struct chat_template open_built_in(const char *name)
{
    struct chat_template template;
    assert_int_equal(chat_open_by_name(name, &plain_tokens, &template, NULL), RUNNEL_OK);
    return template;
}

static void test_reference_conversations(void **state)
{
    (void)state;
    static const struct {
        const char *file, *name;
    } cases[] = {{"chat-r1.json", "r1"},
                 {"chat-r1.json", "r1 spread over lines"},
                 {"chat-qwen2.json", "qwen2.5-coder"},
                 {"chat-smollm2.json", "smollm2"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct chat_template template = open_named(cases[i].name);
        json_t *root = load(cases[i].file), *conversation;
        size_t k;
        assert_true(json_array_size(root) > 0);
        json_array_foreach(root, k, conversation) check_conversation(&template, conversation);
        json_decref(root);
        chat_close(&template);
    }
}

static void test_default_system_text(void **state)
{
    (void)state;
    static const struct {
        const char *name, *system;
    } cases[] = {
        {"qwen2.5-coder", "You are Qwen, created by Alibaba Cloud. You are a helpful assistant."},
        {"smollm2", "You are a helpful AI assistant named SmolLM, trained by Hugging Face"},
        {"qwen2.5, other system text",
         "You're \"Qwen\"\n, created by Alibaba Cloud. You are a helpful assistant."},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct chat_template template = open_named(cases[i].name);
        runnel_message message = {"user", "q", 0};
        struct chat_prompt prompt;
        char expected[512];
        assert_string_equal(template.name, "chatml");
        assert_false(template.thinks);
        assert_int_equal(chat_render(&template, &message, 1, CHAT_THINKING, &prompt, NULL), RUNNEL_OK);
        snprintf(expected, sizeof expected,
                 "<|im_start|>system\n%s<|im_end|>\n<|im_start|>user\nq<|im_end|>\n<|im_start|>assistant\n",
                 cases[i].system);
        assert_string_equal(prompt.text, expected);
        chat_prompt_free(&prompt);
        chat_close(&template);
    }
}

static void check_thinking(const struct chat_template *template, bool thinking, const char *expected)
{
    runnel_message message = {"user", "q", 0};
    struct chat_prompt prompt;
    assert_int_equal(
        chat_render(template, &message, 1, thinking ? CHAT_THINKING : CHAT_ANSWERING, &prompt, NULL),
        RUNNEL_OK);
    assert_string_equal(prompt.text, expected);
    chat_prompt_free(&prompt);
}

static void test_thinking_is_opened_once(void **state)
{
    (void)state;
#define R1_PROMPT "<｜begin▁of▁sentence｜><｜User｜>q<｜Assistant｜>"
    static const char *const names[] = {"r1", "r1 that opens the thought"};
    for (int i = 0; i < 2; i++) {
        struct chat_template template = open_named(names[i]);
        assert_string_equal(template.name, "r1");
        assert_true(template.thinks);
        check_thinking(&template, true, R1_PROMPT "<think>\n");
        check_thinking(&template, false, R1_PROMPT "<think>\n\n</think>\n\n");
        chat_close(&template);
    }
    struct chat_template chatml = open_built_in("chatml");
    check_thinking(&chatml, true, "<|im_start|>user\nq<|im_end|>\n<|im_start|>assistant\n");
    check_thinking(&chatml, false, "<|im_start|>user\nq<|im_end|>\n<|im_start|>assistant\n");
    chat_close(&chatml);
}

/* Thoughts are found from what a template renders, and from the vocabulary: not from names. */
static void test_whether_a_model_thinks(void **state)
{
    (void)state;
#define TURNS "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}"
    static const struct chat_tokens thinks = {{"", 0}, {"", 0}, true};
    static const struct {
        const char *jinja, *thinking, *answering;
        bool in_vocabulary, thinks;
    } cases[] = {
        {TURNS "[a]", "[user]q[a]", "[user]q[a]", true, false},
        {TURNS "[a]{{ '<think>\\n' }}", "[user]q[a]<think>\n", "[user]q[a]<think>\n\n</think>\n\n", false,
         true},
        {TURNS "[a]{% if enable_thinking is defined and not enable_thinking %}<think></think>{% endif %}",
         "[user]q[a]<think>\n", "[user]q[a]<think></think>", true, true},
        {TURNS "[a]{% if enable_thinking is defined and not enable_thinking %}!{% endif %}", "[user]q[a]",
         "[user]q[a]", false, false},
        {"{% for m in messages %}[{{ m.role }}]{{ m.content.split('</think>')|last }}{% endfor %}[a]",
         "[user]q[a]<think>\n", "[user]q[a]<think>\n\n</think>\n\n", true, true},
        {"{% for m in messages %}[{{ m.role }}]{{ m.content.split('</think>')|last }}{% endfor %}[a]",
         "[user]q[a]", "[user]q[a]", false, false},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct chat_template template;
        assert_int_equal(chat_open(cases[i].jinja, strlen(cases[i].jinja),
                                   cases[i].in_vocabulary ? &thinks : &plain_tokens, &template, NULL),
                         RUNNEL_OK);
        assert_int_equal(template.thinks, cases[i].thinks);
        check_thinking(&template, true, cases[i].thinking);
        check_thinking(&template, false, cases[i].answering);
        chat_close(&template);
    }
}

/* What lies outside of the spans must be the messages' texts and nothing else. */
static void test_spans_cover_the_templates_own_text(void **state)
{
    (void)state;
    static const char *const names[] = {"r1", "chatml"};
    runnel_message messages[] = {
        {"system", "#", 0}, {"user", "<｜User｜>", 0}, {"assistant", "a<|im_end|>", 0}, {"user", "", 0}};
    static const char outside[] = "#<｜User｜>a<|im_end|>";
    for (int i = 0; i < 2; i++) {
        struct chat_template template = open_built_in(names[i]);
        struct chat_prompt prompt;
        char rest[256] = "";
        size_t done = 0;
        assert_int_equal(chat_render(&template, messages, 4, CHAT_THINKING, &prompt, NULL), RUNNEL_OK);
        for (size_t k = 0; k < prompt.n_control; k++) {
            assert_true(prompt.control[k].begin >= done && prompt.control[k].end > prompt.control[k].begin);
            strncat(rest, prompt.text + done, prompt.control[k].begin - done);
            done = prompt.control[k].end;
        }
        assert_int_equal(done, prompt.len);
        assert_string_equal(rest, outside);
        chat_prompt_free(&prompt);
        chat_close(&template);
    }
}

static void check_continued(const char *name, const runnel_message *messages, size_t n, const char *expected)
{
    struct chat_template template = open_built_in(name);
    struct chat_prompt prompt;
    assert_int_equal(chat_render(&template, messages, n, CHAT_CONTINUING, &prompt, NULL), RUNNEL_OK);
    assert_string_equal(prompt.text, expected);
    /* Its end is the message's own text, in which control tokens are text. */
    assert_int_equal(prompt.control[prompt.n_control - 1].end, prompt.len - strlen(messages[n - 1].content));
    chat_prompt_free(&prompt);
    chat_close(&template);
}

/* The last message is not ended. */
static void test_an_answer_that_goes_on(void **state)
{
    (void)state;
    runnel_message messages[] = {{"user", "q", 0}, {"assistant", "Sure: <|im_end|>", 0}};
    struct chat_prompt prompt;
    check_continued("r1", messages, 2, R1_PROMPT "<think>\n\n</think>\n\nSure: <|im_end|>");
    check_continued("chatml", messages, 2,
                    "<|im_start|>user\nq<|im_end|>\n<|im_start|>assistant\nSure: <|im_end|>");
    check_continued("chatml", messages + 1, 1, "<|im_start|>assistant\nSure: <|im_end|>");
    assert_false(chat_continues_thought(&messages[1]));
    messages[1].content = "<think>\nhm";
    check_continued("r1", messages, 2, R1_PROMPT "<think>\nhm");
    assert_true(chat_continues_thought(&messages[1]));
    messages[1].content = "<think>hm</think>a";
    check_continued("r1", messages, 2, R1_PROMPT "<think>hm</think>a");
    assert_false(chat_continues_thought(&messages[1]));
    struct chat_template template = open_built_in("r1");
    assert_int_equal(chat_render(&template, messages, 1, CHAT_CONTINUING, &prompt, NULL), RUNNEL_EINVAL);
    chat_close(&template);
}

static void test_zero_bytes_in_messages(void **state)
{
    (void)state;
    const runnel_message messages[] = {
        {"system", "s\0t", 3}, {"user", "a\0b", 3}, {"assistant", "\0</think>\0c", 11}, {"user", "\0", 1}};
    static const char r1[] =
        "<｜begin▁of▁sentence｜>s\0t<｜User｜>a\0b<｜Assistant｜>\0c<｜end▁of▁sentence｜>"
        "<｜User｜>\0<｜Assistant｜><think>\n";
    struct chat_template template = open_built_in("r1");
    struct chat_prompt prompt;
    assert_int_equal(chat_render(&template, messages, 4, CHAT_THINKING, &prompt, NULL), RUNNEL_OK);
    assert_int_equal(prompt.len, sizeof r1 - 1);
    assert_memory_equal(prompt.text, r1, sizeof r1);
    chat_prompt_free(&prompt);
    chat_close(&template);
}

static void check_refused(const runnel_message *messages, size_t n, const char *named)
{
    struct chat_template template = open_built_in("chatml"); /* it has no calls of tools */
    struct chat_prompt prompt = {0};
    runnel_error error;
    assert_int_equal(chat_render(&template, messages, n, CHAT_THINKING, &prompt, &error), RUNNEL_EINVAL);
    chat_close(&template);
    assert_non_null(strstr(error.message, named));
    assert_null(prompt.text);
}

static void test_messages_that_no_template_renders(void **state)
{
    (void)state;
    runnel_message messages[] = {{"user", "q", 0}, {"tool", "x", 0}, {"user", NULL, 0},
                                 {NULL, "x", 0},   {"", "x", 0},     {"User", "", 0}};
    check_refused(messages, 0, "messages");
    check_refused(messages, 2, "messages[1].role: expected system, user or assistant, found \"tool\"");
    check_refused(messages + 2, 1, "messages[0]: content");
    check_refused(messages + 3, 1, "messages[0]: role");
    check_refused(messages + 4, 1, "messages[0].role");
    check_refused(messages + 5, 1, "messages[0].role");
}

static void test_names(void **state)
{
    (void)state;
    struct chat_template template, none = {.name = ""};
    struct chat_prompt prompt;
    runnel_error error;
    runnel_message message = {"user", "q", 0};
    assert_int_equal(chat_open_by_name("llama3", &plain_tokens, &template, &error), RUNNEL_EINVAL);
    assert_non_null(strstr(error.message, "llama3"));
    assert_non_null(strstr(error.message, chat_known_names()));
    assert_int_equal(chat_render(&none, &message, 1, CHAT_THINKING, &prompt, &error), RUNNEL_EUNSUPPORTED);
    assert_non_null(strstr(error.message, "choose one with chat_template (r1, chatml)"));
    assert_null(strstr(error.message, "--"));
}

/* What a template does with tools is found in what it renders. */
static void test_tools_are_found(void **state)
{
    (void)state;
    static const struct {
        const char *entry, *form;
        bool arguments_as_text, empty_content, apart, shows_tools;
    } expected[] = {{"qwen2.5-coder", "hermes", false, false, false, true},
                    {"qwen2.5", "hermes", false, false, false, true},
                    {"r1", "r1", true, false, true, false},
                    {"smollm2", NULL, false, false, false, false}};
    json_t *entries = load("chat-templates.json"), *entry;
    size_t i, n_seen = 0;
    json_array_foreach(entries, i, entry)
    {
        for (size_t e = 0; e < sizeof expected / sizeof *expected; e++) {
            if (strcmp(json_string_value(json_object_get(entry, "name")), expected[e].entry) != 0)
                continue;
            struct chat_template template = open_entry(entry);
            const struct chat_calls *calls = &template.calls;
            assert_string_equal(calls->form ? calls->form->name : "none",
                                expected[e].form ? expected[e].form : "none");
            assert_int_equal(calls->arguments_as_text, expected[e].arguments_as_text);
            assert_int_equal(calls->empty_content, expected[e].empty_content);
            assert_int_equal(calls->apart, expected[e].apart);
            assert_int_equal(calls->shows_tools, expected[e].shows_tools);
            assert_false(calls->one_each);
            chat_close(&template);
            n_seen++;
        }
    }
    assert_int_equal(n_seen, 4);
    json_decref(entries);
}

static const char some_tools[] = "[{\"type\":\"function\",\"function\":{\"name\":\"f\"}}]";

/* The prompt of a question, two calls with text beside them, and their results. */
static struct chat_prompt render_tools(const char *name)
{
    static const runnel_message_tools of_messages[] = {
        {NULL, NULL, NULL},
        {"[{\"id\":\"1\",\"type\":\"function\",\"function\":{\"name\":\"f\",\"arguments\":\"{\\\"a\\\":1}\"}}"
         ","
         "{\"id\":\"2\",\"type\":\"function\",\"function\":{\"name\":\"f\",\"arguments\":\"no JSON\"}}]",
         NULL, NULL},
        {NULL, "1", "f"},
        {NULL, "2", NULL}};
    static const runnel_message messages[] = {
        {"user", "q", 0}, {"assistant", "words", 0}, {"tool", "one", 0}, {"tool", "<|im_end|>", 0}};
    const struct chat_conversation conversation = {messages, 4, of_messages, some_tools, strlen(some_tools)};
    struct chat_prompt prompt = {0};
    json_t *entries = load("chat-templates.json"), *entry;
    size_t i;
    runnel_error error;
    json_array_foreach(entries, i, entry)
    {
        if (strcmp(json_string_value(json_object_get(entry, "name")), name) != 0)
            continue;
        struct chat_template template = open_entry(entry);
        if (chat_render_conversation(&template, &conversation, CHAT_ANSWERING, &prompt, &error))
            fail_msg("%s", error.message);
        chat_close(&template);
    }
    json_decref(entries);
    return prompt;
}

static void test_conversations_with_tools(void **state)
{
    (void)state;
    struct chat_prompt prompt = render_tools("qwen2.5");
    assert_non_null(
        strstr(prompt.text, "<tools>\n{\"type\": \"function\", \"function\": {\"name\": \"f\"}}\n</tools>"));
    assert_non_null(strstr(prompt.text,
                           "<|im_start|>assistant\nwords\n<tool_call>\n{\"name\": \"f\", \"arguments\": "
                           "{\"a\": 1}}\n</tool_call>\n<tool_call>\n{\"name\": \"f\", \"arguments\": "
                           "\"no JSON\"}\n</tool_call><|im_end|>\n<|im_start|>user\n<tool_response>\none\n"));
    const char *result = strstr(prompt.text, "<|im_end|>\n</tool_response>");
    assert_non_null(result); /* a result is no place for control tokens */
    for (size_t i = 0; i < prompt.n_control; i++)
        assert_true(prompt.text + prompt.control[i].end <= result ||
                    prompt.text + prompt.control[i].begin >= result + strlen("<|im_end|>"));
    chat_prompt_free(&prompt);
    prompt = render_tools("r1");
    assert_non_null(strstr(prompt.text, "Each is described by a JSON object:\n[{\"type\":"));
    assert_non_null(strstr(prompt.text, "<｜User｜>q<｜Assistant｜>words"));
    assert_non_null(
        strstr(prompt.text, "function<｜tool▁sep｜>f\n```json\n{\"a\":1}\n```<｜tool▁call▁end｜>"));
    assert_non_null(strstr(prompt.text, "<｜tool▁output▁begin｜>one<｜tool▁output▁end｜>"));
    chat_prompt_free(&prompt);
}

/* As some of Llama's templates are: one call in a message, or none at all. */
static const char one_call_text[] =
    "{% for m in messages %}{% if m.tool_calls %}{% if m.tool_calls|length != 1 %}"
    "{{ raise_exception('This model only supports single tool-calls at once!') }}{% endif %}"
    "{% set call = m.tool_calls[0].function %}"
    "A:{{ '\\n' }}{\"name\": \"{{ call.name }}\", \"parameters\": {{ call.arguments|tojson }}}{{ '\\n' }}"
    "{% else %}{{ m.role }}:{{ m.content }}{{ '\\n' }}{% endif %}{% endfor %}";
/* ... and one that has only the first of them. */
static const char first_call_text[] =
    "{% for m in messages %}{% if m.tool_calls %}{% set call = m.tool_calls[0].function %}"
    "A:{{ '\\n' }}{\"name\": \"{{ call.name }}\", \"parameters\": {{ call.arguments|tojson }}}{{ '\\n' }}"
    "{% else %}{{ m.role }}:{{ m.content }}{{ '\\n' }}{% endif %}{% endfor %}";

static void test_one_call_in_a_message(void **state)
{
    static const char *const texts[] = {one_call_text, first_call_text};
    static const runnel_message_tools of_messages[] = {
        {NULL, NULL, NULL},
        {"[{\"function\":{\"name\":\"f\",\"arguments\":\"{\\\"a\\\":1}\"}},{\"function\":{\"name\":\"g\","
         "\"arguments\":\"{\\\"a\\\":2}\"}}]",
         NULL, NULL},
        {NULL, "1", "f"},
        {NULL, "2", "g"}};
    static const runnel_message messages[] = {
        {"user", "q", 0}, {"assistant", "words", 0}, {"tool", "one", 0}, {"tool", "two", 0}};
    const struct chat_conversation conversation = {messages, 4, of_messages, NULL, 0};
    (void)state;
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        struct chat_template template;
        struct chat_prompt prompt;
        runnel_error error;
        assert_int_equal(chat_open(texts[i], strlen(texts[i]), &plain_tokens, &template, &error), RUNNEL_OK);
        assert_string_equal(template.calls.form->name, "llama3");
        assert_true(template.calls.one_each);
        if (chat_render_conversation(&template, &conversation, CHAT_ANSWERING, &prompt, &error))
            fail_msg("%s", error.message);
        assert_string_equal(prompt.text, "user:q\nassistant:words\n"
                                         "A:\n{\"name\": \"f\", \"parameters\": {\"a\": 1}}\n"
                                         "A:\n{\"name\": \"g\", \"parameters\": {\"a\": 2}}\n"
                                         "tool:one\ntool:two\n");
        chat_prompt_free(&prompt);
        chat_close(&template);
    }
}

/* The one that is chosen by its name. */
static void test_calls_of_r1_by_name(void **state)
{
    static const runnel_message_tools of_messages[] = {
        {NULL, NULL, NULL},
        {"[{\"function\":{\"name\":\"f\",\"arguments\":\"{}\"}},{\"function\":{\"name\":\"g\","
         "\"arguments\":\"{\\\"a\\\":2}\"}}]",
         NULL, NULL},
        {NULL, "1", "f"},
        {NULL, "2", "g"},
        {NULL, NULL, NULL},
        {NULL, NULL, NULL}};
    static const runnel_message messages[] = {{"user", "q", 0},       {"assistant", "words", 0},
                                              {"tool", "one", 0},     {"tool", "two", 0},
                                              {"assistant", "so", 0}, {"user", "r", 0}};
    static const char results[] =
        "<｜begin▁of▁sentence｜><｜User｜>q<｜Assistant｜>words"
        "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>f\n```json\n{}\n```<"
        "｜tool▁call▁end｜>\n"
        "<｜tool▁call▁begin｜>function<｜tool▁sep｜>g\n```json\n{\"a\":2}\n```<｜tool▁call▁end｜>"
        "<｜tool▁calls▁end｜><｜end▁of▁sentence｜><｜tool▁outputs▁begin｜>"
        "<｜tool▁output▁begin｜>one<｜tool▁output▁end｜>\n<｜tool▁output▁begin｜>two<｜tool▁output▁end｜>"
        "<｜tool▁outputs▁end｜>";
    struct chat_conversation conversation = {messages, 4, of_messages, NULL, 0};
    struct chat_template template;
    struct chat_prompt prompt;
    runnel_error error;
    (void)state;
    assert_int_equal(chat_open_by_name("r1", &plain_tokens, &template, &error), RUNNEL_OK);
    assert_string_equal(template.calls.form->name, "r1");
    assert_false(template.calls.apart || template.calls.shows_tools || template.calls.one_each);
    if (chat_render_conversation(&template, &conversation, CHAT_THINKING, &prompt, &error))
        fail_msg("%s", error.message);
    assert_memory_equal(prompt.text, results, strlen(results));
    assert_string_equal(prompt.text + strlen(results), "<think>\n");
    chat_prompt_free(&prompt);
    conversation.n_messages = 6;
    if (chat_render_conversation(&template, &conversation, CHAT_THINKING, &prompt, &error))
        fail_msg("%s", error.message);
    assert_memory_equal(prompt.text, results, strlen(results));
    assert_string_equal(prompt.text + strlen(results),
                        "so<｜end▁of▁sentence｜><｜User｜>r<｜Assistant｜><think>\n");
    chat_prompt_free(&prompt);
    chat_close(&template);
}

static void check_tools_refused(const struct chat_template *template,
                                const struct chat_conversation *conversation, enum chat_opening opening,
                                int code, const char *words)
{
    struct chat_prompt prompt;
    runnel_error error;
    assert_int_equal(chat_render_conversation(template, conversation, opening, &prompt, &error), code);
    if (!strstr(error.message, words))
        fail_msg("%s", error.message);
}

static void test_refused_tools(void **state)
{
    (void)state;
    static const char *const bad_tools[] = {"[", "{}", "[{\"function\":{}}]",
                                            "[{\"function\":{\"name\":\"a\\n\"}}]", "[3]"};
    static const runnel_message question = {"user", "q", 0}, answer = {"assistant", "a", 0};
    static const runnel_message_tools calls = {"[{\"function\":{\"name\":\"f\"}}]", NULL, NULL},
                                      bad = {"[3]", NULL, NULL};
    struct chat_template chatml, hermes;
    json_t *entries = load("chat-templates.json");
    json_t *qwen = json_object_get(json_array_get(entries, 6), "template");
    assert_int_equal(chat_open_by_name("chatml", &plain_tokens, &chatml, NULL), RUNNEL_OK);
    assert_int_equal(
        chat_open(json_string_value(qwen), json_string_length(qwen), &plain_tokens, &hermes, NULL),
        RUNNEL_OK);
    struct chat_conversation conversation = {&question, 1, NULL, some_tools, strlen(some_tools)};
    check_tools_refused(&chatml, &conversation, CHAT_ANSWERING, RUNNEL_EUNSUPPORTED, "tools: ");
    for (size_t i = 0; i < sizeof bad_tools / sizeof *bad_tools; i++) {
        conversation.tools = bad_tools[i];
        conversation.tools_len = strlen(bad_tools[i]);
        check_tools_refused(&hermes, &conversation, CHAT_ANSWERING, RUNNEL_EINVAL, "tools");
    }
    conversation = (struct chat_conversation){&answer, 1, &calls, NULL, 0};
    check_tools_refused(&chatml, &conversation, CHAT_ANSWERING, RUNNEL_EUNSUPPORTED, "tools: ");
    check_tools_refused(&hermes, &conversation, CHAT_CONTINUING, RUNNEL_EINVAL, "to be continued");
    conversation.message_tools = &bad;
    check_tools_refused(&hermes, &conversation, CHAT_ANSWERING, RUNNEL_EINVAL,
                        "calls[0]: expected an object");
    chat_close(&chatml);
    chat_close(&hermes);
    json_decref(entries);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_tools_are_found),
        cmocka_unit_test(test_conversations_with_tools),
        cmocka_unit_test(test_one_call_in_a_message),
        cmocka_unit_test(test_calls_of_r1_by_name),
        cmocka_unit_test(test_refused_tools),
        cmocka_unit_test(test_templates_of_every_kind),
        cmocka_unit_test(test_templates_that_cannot_be_run),
        cmocka_unit_test(test_reference_conversations),
        cmocka_unit_test(test_default_system_text),
        cmocka_unit_test(test_thinking_is_opened_once),
        cmocka_unit_test(test_whether_a_model_thinks),
        cmocka_unit_test(test_spans_cover_the_templates_own_text),
        cmocka_unit_test(test_an_answer_that_goes_on),
        cmocka_unit_test(test_zero_bytes_in_messages),
        cmocka_unit_test(test_messages_that_no_template_renders),
        cmocka_unit_test(test_names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
