/* test_tool_calls.c: calls of tools in answers: for every form and every way to cut the text into pieces the same events; what
 * only looks like a call is text; what is held back, and what becomes of an answer that is cut. */
#include "engine/output.h"
#include "engine/sampler.h" /* for its random numbers */

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { CAP = 4096 };

#define COUNT(array) (sizeof(array) / sizeof *(array))

/* What came out: [text] (thought) {index name|arguments} with a ! where a call was not told to be complete. */
struct record {
    char text[CAP];
    char open; /* what the latest bracket was; 0: none is open */
};

static void add(struct record *r, const char *bytes, size_t len)
{
    size_t n = strlen(r->text);
    assert_true(n + len < CAP);
    memcpy(r->text + n, bytes, len);
    r->text[n + len] = 0;
}

static void close_open(struct record *r)
{
    const char *close = r->open == '[' ? "]" : r->open == '(' ? ")" : r->open == '{' ? "!}" : "";
    add(r, close, strlen(close));
    r->open = 0;
}

static void open_text(struct record *r, char bracket)
{
    if (r->open == bracket)
        return;
    close_open(r);
    add(r, &bracket, 1);
    r->open = bracket;
}

static bool on_event(void *user, const runnel_event *event)
{
    struct record *r = user;
    char head[TOOL_NAME_MAX + 32];
    assert_int_equal(event->text[event->text_len], 0);
    switch (event->kind) {
    case RUNNEL_EVENT_ANSWER:
        open_text(r, '[');
        break;
    case RUNNEL_EVENT_THOUGHT:
        open_text(r, '(');
        break;
    case RUNNEL_EVENT_CALL:
        close_open(r);
        snprintf(head, sizeof head, "{%u ", event->call);
        add(r, head, strlen(head));
        add(r, event->text, event->text_len);
        add(r, "|", 1);
        r->open = '{';
        return true;
    case RUNNEL_EVENT_ARGUMENTS:
        assert_int_equal(r->open, '{');
        break;
    case RUNNEL_EVENT_CALL_END:
        assert_int_equal(r->open, '{');
        assert_int_equal(event->text_len, 0);
        r->open = 0;
        add(r, "}", 1);
        return true;
    default:
        fail_msg("an event of kind %d", event->kind);
    }
    assert_true(event->text_len > 0);
    add(r, event->text, event->text_len);
    return true;
}

static const char *const given[] = {"get_weather", "get", "sucht-ü", "get_weather_of"};
static struct tool_names names;

static int make_names(void **state)
{
    (void)state;
    return tool_names_create(given, COUNT(given), &names, NULL);
}

static int free_names(void **state)
{
    (void)state;
    tool_names_free(&names);
    return 0;
}

static const struct tool_form *form_named(const char *name)
{
    size_t n;
    const struct tool_form *forms = tool_forms(&n);
    for (size_t i = 0; i < n; i++)
        if (!strcmp(forms[i].name, name))
            return &forms[i];
    fail_msg("no form %s", name);
    return NULL;
}

/* Pushes text in pieces that end where cuts(user, i) says so for byte i. */
static enum output_state run(const struct output_options *options, const char *text, size_t len,
                             bool (*cuts)(uint64_t user, size_t i), uint64_t user, bool is_cut,
                             struct record *r)
{
    struct output *o;
    enum output_state state = OUTPUT_GOING_ON;
    *r = (struct record){0};
    assert_int_equal(output_create(options, &o, NULL), 0);
    for (size_t begin = 0, i = 0; i < len && state == OUTPUT_GOING_ON; i++) {
        if (!cuts(user, i) && i + 1 < len)
            continue;
        char *token = malloc(i + 1 - begin); /* of its exact size, so that reading past it is noticed */
        memcpy(token, text + begin, i + 1 - begin);
        state = output_push(o, token, i + 1 - begin, on_event, r);
        free(token);
        begin = i + 1;
    }
    state = output_finish(o, is_cut, on_event, r);
    output_free(o);
    close_open(r);
    return state;
}

static bool cuts_at_two(uint64_t user, size_t i)
{
    return i + 1 == user >> 32 || i + 1 == (user & UINT32_MAX);
}

static bool cuts_everywhere(uint64_t user, size_t i)
{
    (void)user;
    (void)i;
    return true;
}

static bool cuts_at_random(uint64_t user, size_t i)
{
    return sampler_random(user, i) % 3 == 0;
}

/* Every split into up to three pieces, all bytes alone, and random ones. */
static void check(const struct output_options *options, const char *text, const char *expected)
{
    struct record r;
    size_t len = strlen(text);
    for (uint64_t first = 0; first <= len; first++)
        for (uint64_t second = first; second <= len; second += second < 90 || second + 9 > len ? 1 : 9) {
            run(options, text, len, cuts_at_two, first << 32 | second, false, &r);
            assert_string_equal(r.text, expected);
        }
    run(options, text, len, cuts_everywhere, 0, false, &r);
    assert_string_equal(r.text, expected);
    for (uint64_t seed = 0; seed < 50; seed++) {
        run(options, text, len, cuts_at_random, seed, false, &r);
        assert_string_equal(r.text, expected);
    }
}

struct sample {
    const char *form, *text, *expected;
};

static void check_samples(const struct sample *samples, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        const struct output_options options = {.tool_form = form_named(samples[i].form),
                                               .tool_names = &names};
        check(&options, samples[i].text, samples[i].expected);
    }
}

/* Calls ----------------------------------------------------------------------------------------------------- */

#define R1_CALL(name, arguments)                                                                             \
    "<｜tool▁call▁begin｜>function<｜tool▁sep｜>" name "\n```json\n" arguments "\n```<｜tool▁call▁end｜>"

static void test_calls(void **state)
{
    (void)state;
    static const struct sample samples[] = {
        {"hermes", "<tool_call>\n{\"name\": \"get\", \"arguments\": {\"a\": [1, \"}\\\"\"]}}\n</tool_call>",
         "{0 get|{\"a\": [1, \"}\\\"\"]}}"},
        {"hermes",
         "Let me see. \n<tool_call>\n{\"name\": \"get_weather\", \"arguments\": {\"city\": \"Köln\"}}\n"
         "</tool_call>\n<tool_call>\n{\"name\":\"get_weather_of\",\"arguments\":{}}\n</tool_call>\n",
         "[Let me see.]{0 get_weather|{\"city\": \"Köln\"}}{1 get_weather_of|{}}"},
        {"hermes",
         "<tool_call>{\"name\":\"sucht-ü\",\"parameters\":{\"x\":{\"y\":[[]]}}, \"id\": \"a}b\", \"n\": [{}]}"
         "</tool_call> and on",
         "{0 sucht-ü|{\"x\":{\"y\":[[]]}}}[ and on]"},
        {"hermes", "```json\n{\"name\": \"get\", \"arguments\": {}}\n```", "{0 get|{}}"},
        {"hermes", "{\"name\": \"get\", \"arguments\": {}}", "{0 get|{}}"},
        {"hermes",
         "\n\n  {\"name\": \"get\", \"arguments\": {}}\n\n{\"name\": \"get\", \"arguments\": {\"b\":1}} ",
         "{0 get|{}}{1 get|{\"b\":1}}"},
        {"hermes", "<tools>\n{\"name\": \"get\", \"arguments\": {}}\n</tools>ok", "{0 get|{}}[ok]"},
        {"hermes", "```xml\n<tool_call>\n{\"name\": \"get\", \"arguments\": {}}\n</tool_call>\n```\n.",
         "{0 get|{}}[\n.]"},
        {"hermes", "<tool_call>\n{{\"name\": \"get\", \"arguments\": {\"a\":1}}}\n</tool_call>",
         "{0 get|{\"a\":1}}"},
        {"hermes", "<tool_call>\n{{\"name\": \"get\", \"arguments\": {\"a\":1}}\n</tool_call>",
         "{0 get|{\"a\":1}}"},
        {"hermes",
         "<tool_call>{\"name\": \"get\", \"arguments\": {}}<tool_call>{\"name\": \"get\", \"arguments\": {}}",
         "{0 get|{}}{1 get|{}}"},
        {"hermes", "<tool_call>\n<tool_call>\n{\"name\": \"get\", \"arguments\": {}}",
         "[<tool_call>\n]{0 get|{}}"},
        {"llama3", "{\"name\": \"get\", \"parameters\": {\"q\": \"{\"}}", "{0 get|{\"q\": \"{\"}}"},
        {"llama3", "<|python_tag|>{\"type\": \"function\", \"name\": \"get\", \"parameters\": {}}",
         "{0 get|{}}"},
        {"llama3",
         "{\"name\": \"get\", \"parameters\": {}}; {\"name\": \"get_weather\", \"parameters\": {\"a\":0}}",
         "{0 get|{}}{1 get_weather|{\"a\":0}}"},
        {"r1", "<｜tool▁calls▁begin｜>" R1_CALL("get", "{\"a\":1}") "<｜tool▁calls▁end｜>",
         "{0 get|{\"a\":1}}"},
        {"r1",
         "I look.\n<｜tool▁calls▁begin｜>" R1_CALL("get", "{}") "\n" R1_CALL(
             "get_weather", "{\"city\":\n\"x\"}") "<｜tool▁calls▁end｜>",
         "[I look.]{0 get|{}}{1 get_weather|{\"city\":\n\"x\"}}"},
        {"r1", "<｜tool▁call▁begin｜>function<｜tool▁sep｜>get\n{\"a\": 2}", "{0 get|{\"a\": 2}}"},
    };
    check_samples(samples, COUNT(samples));
}

/* Not a byte of it is lost. */
static void test_text(void **state)
{
    (void)state;
    static const char *const texts[] = {
        "plain text",
        "  \n\n white space  ",
        "<tool_call>",
        "a <tool_call> is a tag, and </tool_call> is one.",
        "<tool_call>\n{\"name\": \"got\", \"arguments\": {}}\n</tool_call>",
        "<tool_call>\n{\"name\": \"get_weath\", \"arguments\": {}}",
        "<tool_call>\n{\"name\": \"get_weather_in\", \"arguments\": {}}",
        "<tool_call>\n{\"name\": \"get\", \"arguments\": [1]}",
        "<tool_call>\n{\"name\": \"get\", \"arguments\": ",
        "<tool_call>\n{\"arguments\": {}, \"name\": \"get\"}",
        "so {\"name\": \"get\", \"arguments\": {}} would be one",
        "x ```json {\"name\": \"get\", \"arguments\": {}}",
        "```json\n{\"city\": 1}\n```",
        "````json\n{\"name\": 1}",
        "{\n  \"name\": \"me\"\n}",
        "{{{\"name\"",
        "<<tool_call><tool",
        "<|python_tag|>print(1)",
        "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>got\n",
        "<｜tool▁call▁begin｜>funktion",
        "<｜tool▁calls▁end｜>",
        "ü<€{\"ü",
    };
    size_t n;
    const struct tool_form *forms = tool_forms(&n);
    for (size_t f = 0; f < n; f++)
        for (size_t i = 0; i < COUNT(texts); i++) {
            const struct output_options options = {.tool_form = &forms[f], .tool_names = &names};
            char expected[CAP];
            snprintf(expected, sizeof expected, "[%s]", texts[i]);
            check(&options, texts[i], expected);
        }
}

/* A zero is no end of a name. */
static void test_zeros(void **state)
{
    (void)state;
    static const char text[] = "{\"name\": \"get\0\0\0\0\0\0\0\0\0\0\0\0\", \"arguments\": {}}";
    const struct output_options options = {.tool_form = form_named("hermes"), .tool_names = &names};
    struct record r;
    run(&options, text, sizeof text - 1, cuts_everywhere, 0, false, &r);
    assert_memory_equal(r.text, "[{\"name\": \"get", strlen("[{\"name\": \"get"));
}

/* However much white space there is, and however long a name. */
static void test_held_is_bounded(void **state)
{
    (void)state;
    const struct output_options options = {.tool_form = form_named("hermes"), .tool_names = &names};
    static char text[3000], expected[CAP];
    struct record r;
    for (int kind = 0; kind < 3; kind++) {
        const char *start = kind == 0   ? ""
                            : kind == 1 ? "<tool_call>"
                                        : "{\"name\": \"get\", \"arguments\": {}}";
        size_t n = strlen(start);
        memcpy(text, start, n);
        memset(text + n, ' ', sizeof text - n - 2);
        memcpy(text + sizeof text - 2, "x", 2);
        run(&options, text, strlen(text), cuts_everywhere, 0, false, &r);
        if (kind < 2)
            snprintf(expected, sizeof expected, "[%s]", text);
        else
            snprintf(expected, sizeof expected, "{0 get|{}}[%s]", text + n);
        assert_string_equal(r.text, expected);
    }
}

/* Random texts of pieces of calls: what comes out does not depend on the cuts, and text that is told is in the text. */
static void test_random_texts(void **state)
{
    (void)state;
    static const char *const pieces[] = {
        "<tool_call>",
        "</tool_call>",
        "{\"name\": \"get\", \"arguments\": {",
        "{\"name\": \"",
        "get_weather",
        "\", \"arguments\": {",
        "}",
        "}}",
        "\n",
        " ",
        "<",
        "<tool",
        "{",
        "\"",
        "```json\n",
        "```",
        ",",
        "ü",
        "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>get\n",
        "<｜tool▁call▁end｜>",
        "<｜tool▁calls▁end｜>",
        ";",
        "<|python_tag|>",
        "x"};
    const char *const stops[] = {"}}x", "\n\n", "<tool_call>\n"};
    uint64_t counter = 0;
#define PICK(n) (sampler_random(7, counter++) % (n))
    size_t n_forms;
    const struct tool_form *forms = tool_forms(&n_forms);
    for (int round = 0; round < 6000; round++) {
        char text[2048] = "";
        struct output_options options = {.tool_names = &names, .stop = stops};
        options.tool_form = &forms[PICK(n_forms)];
        options.split_thoughts = PICK(4) == 0;
        options.n_stop = PICK(4);
        options.max_calls = PICK(3) == 0;
        struct record one, other;
        for (size_t n = PICK(24); n > 0; n--)
            strcat(text, PICK(20) ? pieces[PICK(COUNT(pieces))] : PICK(2) ? "<think>" : "</think>");
        enum output_state state_one = run(&options, text, strlen(text), cuts_everywhere, 0, false, &one);
        enum output_state state_other =
            run(&options, text, strlen(text), cuts_at_random, (uint64_t)round, false, &other);
        assert_string_equal(one.text, other.text);
        assert_int_equal(state_one, state_other);
    }
}

/* Around calls ------------------------------------------------------------------------------------------------ */

static void test_cut_calls(void **state)
{
    (void)state;
    static const struct sample samples[] = {
        {"hermes", "Hm.\n<tool_call>\n{\"name\": \"get\", \"argum",
         "[Hm.\n<tool_call>\n{\"name\": \"get\", \"argum]"},
        {"hermes", "<tool_call>\n{\"name\": \"get\", \"arguments\": {\"a", "{0 get|{\"a!}"},
        {"hermes", "<tool_call>\n{\"name\": \"get\", \"arguments\": {\"a\":1}", "{0 get|{\"a\":1}}"},
        {"hermes", "<tool_call>\n{\"name\": \"get\", \"arguments\": {}}\n</tool", "{0 get|{}}"},
        {"hermes", "<tool_call>\n{\"name\": \"get\", \"arguments\": {}, \"x\": {", "{0 get|{}}"},
        {"hermes", "<tool_call>\n{\"name\": \"get\", \"arguments\": {}] so", "{0 get|{}}[] so]"},
        {"r1", "<｜tool▁call▁begin｜>function<｜tool▁sep｜>get\n```json\n{}\n``", "{0 get|{}}"},
    };
    check_samples(samples, COUNT(samples));
}

static void test_thoughts_are_no_calls(void **state)
{
    (void)state;
    const struct output_options inside = {.tool_form = form_named("hermes"),
                                          .tool_names = &names,
                                          .split_thoughts = true,
                                          .starts_in_thought = true},
                                before = {.tool_form = form_named("hermes"),
                                          .tool_names = &names,
                                          .split_thoughts = true};
    check(
        &inside,
        "{\"name\": \"get\", \"arguments\": {}}</think>\n\n<tool_call>{\"name\": \"get\", \"arguments\": {}}",
        "({\"name\": \"get\", \"arguments\": {}}){0 get|{}}");
    check(&before, "<tool_call>{\"name\"<think>a</think>{\"name\": \"get\", \"arguments\": {}}",
          "[<tool_call>{\"name\"](a){0 get|{}}");
    check(&before, "{\"name\": \"get\", \"arguments\": {\"t\": \"<think>\"}} b",
          "{0 get|{\"t\": \"<think>\"}}[ b]"); /* arguments may speak of thoughts */
}

static void test_stops_and_limits(void **state)
{
    (void)state;
    const char *const stops[] = {"get", "\n"};
    struct output_options options = {
        .tool_form = form_named("hermes"), .tool_names = &names, .stop = stops, .n_stop = 2};
    static const char call[] =
        "<tool_call>\n{\"name\": \"get\", \"arguments\": {\"a\": \"get\\n\"}}\n</tool_call>";
    struct record r;
    char text[256];
    check(&options, call, "{0 get|{\"a\": \"get\\n\"}}"); /* calls are not searched */
    snprintf(text, sizeof text, "I get%s", call);
    check(&options, text, "[I ]");
    options = (struct output_options){.tool_form = options.tool_form, .tool_names = &names, .max_calls = 1};
    snprintf(text, sizeof text, "a %s%s", call, call);
    check(&options, text, "[a]{0 get|{\"a\": \"get\\n\"}}");
    assert_int_equal(run(&options, call, strlen(call), cuts_everywhere, 0, false, &r), OUTPUT_STOPPED);
    options.max_calls = 2;
    assert_int_equal(run(&options, call, strlen(call), cuts_everywhere, 0, false, &r), OUTPUT_GOING_ON);
}

static size_t n_told;

static bool count_bytes(void *user, const runnel_event *event)
{
    (void)user;
    n_told += event->text_len;
    return true;
}

/* A byte that can no more become a call is told with the byte that shows it. */
static void test_nothing_waits_longer_than_needed(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        size_t n_held;
    } samples[] = {{"a", 0},
                   {"a ", 1},
                   {"a b", 0},
                   {"a <", 2},
                   {"a <t", 3},
                   {"a <tx", 0},
                   {"{", 1},
                   {"{\"n", 3},
                   {"{\"nx", 0},
                   {"a {", 0},
                   {"<tool_call>", 11},
                   {"<tool_call>x", 0},
                   {"{\"name\": \"g", 11},
                   {"{\"name\": \"x", 0}};
    for (size_t i = 0; i < COUNT(samples); i++) {
        const struct output_options options = {.tool_form = form_named("hermes"), .tool_names = &names};
        struct output *o;
        assert_int_equal(output_create(&options, &o, NULL), 0);
        n_told = 0;
        output_push(o, samples[i].text, strlen(samples[i].text), count_bytes, NULL);
        assert_int_equal(strlen(samples[i].text) - n_told, samples[i].n_held);
        output_free(o);
    }
}

static void test_names(void **state)
{
    (void)state;
    static char longest[TOOL_NAME_MAX + 1];
    memset(longest, 'a', sizeof longest);
    assert_true(tool_name_is_fit("a.b/c-d_e ü", strlen("a.b/c-d_e ü")));
    assert_true(tool_name_is_fit(longest, TOOL_NAME_MAX));
    assert_false(tool_name_is_fit(longest, TOOL_NAME_MAX + 1));
    assert_false(tool_name_is_fit("", 0));
    assert_false(tool_name_is_fit("a\"b", 3));
    assert_false(tool_name_is_fit("a\\b", 3));
    assert_false(tool_name_is_fit("a\nb", 3));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_calls),
        cmocka_unit_test(test_text),
        cmocka_unit_test(test_zeros),
        cmocka_unit_test(test_held_is_bounded),
        cmocka_unit_test(test_random_texts),
        cmocka_unit_test(test_cut_calls),
        cmocka_unit_test(test_thoughts_are_no_calls),
        cmocka_unit_test(test_stops_and_limits),
        cmocka_unit_test(test_nothing_waits_longer_than_needed),
        cmocka_unit_test(test_names),
    };
    return cmocka_run_group_tests(tests, make_names, free_names);
}
