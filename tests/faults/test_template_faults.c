/* test_template_faults.c: the n-th allocation fails, once and from then on, for every n, while chat templates are compiled
 * and run: it is said so, nothing leaks, and the next run is as if nothing had happened. */
#include "faults/faults.h"
#include "model/chat.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { MORE_THAN_ENOUGH = 1000 };

/* Enough values that several blocks of memory are needed. */
static const char program[] =
    "{% macro line(a, b='x') %}{{ a ~ b }}{% endmacro %}{% set ns = namespace(l=[]) %}"
    "{% for i in range(400) %}{% set ns.l = [i, i|string, {'k': i}] %}{{ line(i)|upper }}{{ ns.l|tojson }}{% "
    "endfor %}"
    "{% for m in messages %}[{{ m.role }}]{{ m.content.split('</think>')|last|replace('q', 'r')|title }}"
    "{{ m.content[::-1] }}{{ m|dictsort|list }}{% endfor %}{% filter trim %} {{ '{}'.format(1) }} {% "
    "endfilter %}";

static int render_all(size_t *len, runnel_error *error)
{
    static const struct chat_tokens tokens = {{"<s>", 3}, {"</s>", 4}, true};
    static const runnel_message messages[] = {{"user", "q", 0}, {"assistant", "<think>\nx</think>\nq", 0}};
    struct chat_template template;
    struct chat_prompt prompt;
    int code = chat_open(program, sizeof program - 1, &tokens, &template, error);
    if (code)
        return code;
    code = chat_render(&template, messages, 2, CHAT_CONTINUING, &prompt, error);
    if (!code) {
        *len = prompt.len;
        chat_prompt_free(&prompt);
    }
    chat_close(&template);
    return code;
}

static const char tool_program[] = "{{ tools|tojson }}{% for m in messages %}{{ m.role }}{{ m.content }}{% "
                                   "for c in m.tool_calls %}<tool_call>"
                                   "{\"name\": \"{{ c.function.name }}\", \"arguments\": {{ "
                                   "c.function.arguments|tojson }}}</tool_call>{% endfor %}{% endfor %}";

/* The same with tools, whose names are read, too. */
static int render_tools(size_t *len, runnel_error *error)
{
    static const struct chat_tokens tokens = {{"<s>", 3}, {"</s>", 4}, false};
    static const runnel_message messages[] = {{"user", "q", 0}, {"assistant", "", 0}, {"tool", "r", 0}};
    static const runnel_message_tools of_messages[] = {
        {0},
        {.calls = "[{\"function\":{\"name\":\"f\",\"arguments\":\"{\\\"a\\\":[1]}\"}}]"},
        {.call_id = "x"}};
    static const char tools[] = "[{\"function\":{\"name\":\"f\"}},{\"function\":{\"name\":\"g\"}}]";
    const struct chat_conversation conversation = {messages, 3, of_messages, tools, strlen(tools)};
    struct chat_template template;
    struct chat_prompt prompt;
    struct tool_names names;
    int code = chat_open(tool_program, sizeof tool_program - 1, &tokens, &template, error);
    if (code)
        return code;
    assert_non_null(template.calls.form);
    code = chat_render_conversation(&template, &conversation, CHAT_ANSWERING, &prompt, error);
    if (!code) {
        *len = prompt.len;
        chat_prompt_free(&prompt);
        code = chat_tools_read_names(tools, strlen(tools), &names, error);
    }
    if (!code)
        tool_names_free(&names);
    chat_close(&template);
    return code;
}

static void check(int (*render)(size_t *len, runnel_error *error), unsigned n_failing)
{
    size_t expected = 0, len = 0;
    unsigned n_failed = 0;
    assert_int_equal(render(&expected, NULL), RUNNEL_OK);
    for (unsigned first = 1; first < MORE_THAN_ENOUGH; first++) {
        runnel_error error = {0};
        size_t before = faults_live_pieces();
        faults_arm(FAULT_MEMORY, first, n_failing);
        int code = render(&len, &error);
        unsigned n = faults_disarm();
        assert_int_equal(faults_live_pieces(), before);
        if (!n) {
            assert_int_equal(code, RUNNEL_OK);
            assert_int_equal(len, expected);
            assert_true(n_failed > 20);
            return;
        }
        n_failed++;
        if (code != RUNNEL_ENOMEM || !strstr(error.message, "memory"))
            fail_msg("allocation %u: %d %s", first, code, error.message);
    }
    fail_msg("more than %d allocations", MORE_THAN_ENOUGH);
}

static void test_one_allocation_fails(void **state)
{
    (void)state;
    check(render_all, 1);
    check(render_tools, 1);
}

static void test_all_allocations_fail_from_then_on(void **state)
{
    (void)state;
    check(render_all, 0);
    check(render_tools, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_one_allocation_fails),
        cmocka_unit_test(test_all_allocations_fail_from_then_on),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
