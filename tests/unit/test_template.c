/* test_template.c: chat templates: what jinja2 renders from small ones, where each byte comes from, and the bounds. */
#include "model/template/template.h"

#include <jansson.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* Renders with the inputs of a JSON text. */
static int render(const char *template, size_t len, const char *inputs, const struct template_limits *limits,
                  time_t now, struct template_output *output, runnel_error *error)
{
    struct template_arena arena;
    struct template *compiled = NULL;
    struct value root;
    struct tm broken_down;
    gmtime_r(&now, &broken_down);
    template_arena_init(&arena, limits->memory_bytes);
    int code = template_read_json(&arena, inputs, strlen(inputs), &root, error);
    assert_int_equal(code, RUNNEL_OK);
    code = template_compile(template, len, &compiled, error);
    if (!code)
        code = template_render(compiled, &arena, limits, root.dict, &broken_down, output, error);
    template_free(compiled);
    template_arena_free(&arena);
    return code;
}

static void test_what_jinja2_renders(void **state)
{
    (void)state;
    char path[512];
    json_error_t error;
    snprintf(path, sizeof path, "%s/templates.json", TEST_DATA);
    json_t *root = json_load_file(path, 0, &error), *entry;
    assert_non_null(root);
    char *inputs = json_dumps(json_object_get(root, "inputs"), 0);
    time_t now = (time_t)json_integer_value(json_object_get(root, "now"));
    size_t i, n_rendered = 0, n_refused = 0;
    json_array_foreach(json_object_get(root, "cases"), i, entry)
    {
        json_t *template = json_object_get(entry, "template"), *text = json_object_get(entry, "text");
        const char *source = json_string_value(template);
        struct template_output output = {0};
        runnel_error why = {0};
        int code = render(source, json_string_length(template), inputs, &template_default_limits, now,
                          &output, &why);
        if (json_is_null(text)) {
            if (!code)
                fail_msg("%s: rendered \"%s\", a refusal expected", source, output.text);
            assert_non_null(strstr(why.message, "line "));
            n_refused++;
        } else {
            if (code)
                fail_msg("%s: %s", source, why.message);
            if (output.len != json_string_length(text) ||
                memcmp(output.text, json_string_value(text), output.len) != 0)
                fail_msg("%s: rendered \"%s\", \"%s\" expected", source, output.text,
                         json_string_value(text));
            n_rendered++;
        }
        template_output_free(&output);
    }
    assert_true(n_rendered > 400 && n_refused > 100);
    free(inputs);
    json_decref(root);
}

/* expected_origins: T for a byte of the template, . for one from elsewhere. */
static void check_origins(const char *template, const char *expected_text, const char *expected_origins)
{
    static const char inputs[] = "{\"s\": \"Out\", \"l\": [\"x\", \"y\"], \"d\": {\"k\": \"v\"}, \"n\": 12}";
    struct template_output output;
    runnel_error error;
    if (render(template, strlen(template), inputs, &template_default_limits, 0, &output, &error))
        fail_msg("%s: %s", template, error.message);
    char origins[256];
    assert_true(output.len < sizeof origins);
    memset(origins, '.', sizeof origins);
    for (size_t i = 0; i < output.n_own; i++) {
        assert_true(output.own[i].begin < output.own[i].end && output.own[i].end <= output.len);
        assert_true(!i || output.own[i].begin > output.own[i - 1].end);
        memset(origins + output.own[i].begin, 'T', output.own[i].end - output.own[i].begin);
    }
    origins[output.len] = '\0';
    assert_string_equal(output.text, expected_text);
    if (strcmp(origins, expected_origins) != 0)
        fail_msg("%s: origins %s, expected %s", template, origins, expected_origins);
    template_output_free(&output);
}

/* Each operation carries the origin of each byte; what a function makes is nobody's literal. */
static void test_where_bytes_come_from(void **state)
{
    (void)state;
    check_origins("a{{ s }}b", "aOutb", "T...T");
    check_origins("{{ 'a' + s + 'b' }}", "aOutb", "T...T");
    check_origins("{{ 'a' ~ s ~ 1 }}", "aOut1", "T....");
    check_origins("{{ ('ab' ~ s)[1:4] }}", "bOu", "T..");
    check_origins("{{ ('ab' ~ s)[::-1] }}", "tuOba", "...TT");
    check_origins("{{ ('ab' ~ s)[2] }}{{ ('ab' ~ s)[0] }}", "Oa", ".T");
    check_origins("{{ ('a ' ~ s ~ ' b').split(' ')[1] }}{{ ('a ' ~ s).split(' ')[0] }}", "Outa", "...T");
    check_origins("{{ (' ' ~ s ~ 'b ').strip() }}", "Outb", "...T");
    check_origins("{{ s.replace('u', 'UU') }}{{ 'abc'.replace('b', s) }}", "OUUtaOutc", ".TT.T...T");
    check_origins("{{ l|join('-') }}{{ '+'.join(l) }}", "x-yx+y", ".T..T.");
    check_origins("{{ ('a' ~ s)|upper }}{{ s|lower }}{{ 'ab'.title() }}", "AOUToutAb", "T......TT");
    check_origins("{{ ('a' ~ s)|tojson }}", "\"aOut\"", ".T....");
    check_origins("{{ d|tojson }}", "{\"k\": \"v\"}", "..........");
    check_origins("{{ {'q': s} }}", "{'q': 'Out'}", "..T.........");
    check_origins("{% macro m(x) %}<{{ x }}>{% endmacro %}{{ m(s) }}{{ m('t') }}", "<Out><t>", "T...TTTT");
    check_origins("{% set ns = namespace(x='a') %}{% set ns.x = ns.x ~ s %}{{ ns.x }}", "aOut", "T...");
    check_origins("{% set v %}a{{ s }}{% endset %}{{ v }}", "aOut", "T...");
    check_origins("{% filter trim %} a{{ s }} {% endfilter %}", "aOut", "T...");
    check_origins("{{ 'a{}b{}'.format(s, 't') }}{{ 'a%sb' % s }}", "aOutbtaOutb", "T...TTT...T");
    check_origins("{% for k, v in d.items() %}{{ k }}={{ v }}{% endfor %}", "k=v", ".T.");
    check_origins("{{ n }}{{ s|length }}{{ true }}", "123True", ".......");
    check_origins("{{ s|indent(2, true) }}{{ 'a'|indent(1, true) }}", "  Out a", "......T");
    check_origins("{{ 'a'|default(s) }}{{ q|default(s) }}{{ q|default('b') }}", "aOutb", "T...T");
    check_origins("{{ s|list|first }}{{ 'ab'|list|last }}{{ [s, 'a']|sort|join }}", "ObaOut", ".TT...");
    check_origins("{{ '<b>'|safe + '<' + s }}", "<b>&lt;Out", "TTT.......");
    check_origins("{{ 'a' * 3 }}{{ s * 2 }}", "aaaOutOut", "TTT......");
    check_origins("{{ l|map('upper')|join('|') }}{{ 'xy'|map('upper')|join }}", "X|YXY", ".T.TT");
}

/* Programs that shall not end, or fill the memory, stop at their bounds with an error that names them. */
static void test_hostile_templates(void **state)
{
    (void)state;
    static const struct {
        const char *template, *named;
    } cases[] = {
        {"{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}", "more than"},
        {"{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", "more than"},
        {"{% macro m(n) %}{{ m(n) }}{{ m(n) }}{% endmacro %}{{ m(1) }}", "more than"},
        {"{% set ns = namespace(s='x' * 1000) %}{% for i in range(40) %}{% set ns.s = ns.s ~ ns.s %}{% "
         "endfor %}",
         "more than"},
        {"{{ 'x' * 1000000000 }}", "more than"},
        {"{% set s = 'x' * 100000 %}{% for i in range(99999) %}{{ s }}{% endfor %}", "more than"},
        {"{% set ns = namespace(l=[1]) %}{% for i in range(60) %}{% set ns.l = [ns.l, ns.l] %}{% endfor %}{{ "
         "ns.l }}",
         "more than"},
        {"{% set ns = namespace(l=[1], m=[1]) %}{% for i in range(60) %}{% set ns.l = [ns.l, ns.l] %}"
         "{% set ns.m = [ns.m, ns.m] %}{% endfor %}{{ ns.l == ns.m }}",
         "too many steps"},
        {"{% set ns = namespace(l=[]) %}{% for i in range(99999) %}{% set ns.l = [ns.l] %}{% endfor %}{{ "
         "ns.l }}",
         "more than"},
        {"{% set ns = namespace(l=[]) %}{% for i in range(99999) %}{% set ns.l = [ns.l] %}{% endfor %}{{ "
         "ns.l|tojson }}",
         "more than"},
        {"{% set ns = namespace(l=[], m=[]) %}{% for i in range(9999) %}{% set ns.l = [ns.l] %}{% set ns.m = "
         "[ns.m] %}"
         "{% endfor %}{{ ns.l == ns.m }}",
         "too deep"},
        {"{% set ns = namespace(l=range(1000)|list) %}{% for i in range(40) %}{% set ns.l = ns.l + ns.l %}{% "
         "endfor %}",
         "more than"},
        {"{% for i in [[1]] recursive %}{{ loop([[1]]) }}{% endfor %}", "more than"},
        {"{{ '%1001d' % 1 }}", "not known"},
        {"{{ 10 ** 100 }}", "64 bits"},
        {"{{ 1000000000000 * 1000000000000 }}", "64 bits"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct template_output output;
        runnel_error error = {0};
        int code = render(cases[i].template, strlen(cases[i].template), "{}", &template_default_limits, 0,
                          &output, &error);
        bool is_bound = strstr(error.message, "more than") &&
                        (strstr(error.message, " bytes of ") || strstr(error.message, " steps"));
        if (code != (is_bound ? TEMPLATE_EBOUND : RUNNEL_EINVAL) || !strstr(error.message, cases[i].named))
            fail_msg("%s: %d %s, \"%s\" expected", cases[i].template, code, error.message, cases[i].named);
    }
}

/* Sources that nest without end. */
static void test_deep_sources(void **state)
{
    (void)state;
    static const char *const pieces[] = {
        "(", "[", "{1:", "not ", "-", "a[", "1 if ", "{% if a %}", "{% for a in b %}", "f("};
    for (size_t i = 0; i < sizeof pieces / sizeof *pieces; i++) {
        enum { REPEATS = 50000 };
        size_t len = strlen(pieces[i]);
        bool is_block = pieces[i][1] == '%';
        char *source = malloc(REPEATS * len + 8), *at = source;
        assert_non_null(source);
        if (!is_block)
            at = stpcpy(at, "{{ ");
        for (int k = 0; k < REPEATS; k++)
            at = stpcpy(at, pieces[i]);
        struct template *template = NULL;
        runnel_error error = {0};
        assert_int_equal(template_compile(source, (size_t)(at - source), &template, &error),
                         RUNNEL_EUNSUPPORTED);
        assert_non_null(strstr(error.message, "line 1"));
        free(source);
    }
}

/* Long chains are not deep in the source, but in the tree. */
static void test_long_chains(void **state)
{
    (void)state;
    enum { REPEATS = 20000 };
    char *source = malloc(REPEATS * 4 + 16), *at = source;
    struct template_output output;
    runnel_error error = {0};
    assert_non_null(source);
    at = stpcpy(at, "{{ 1");
    for (int i = 0; i < REPEATS; i++)
        at = stpcpy(at, " + 1");
    stpcpy(at, " }}");
    assert_int_equal(render(source, strlen(source), "{}", &template_default_limits, 0, &output, &error),
                     RUNNEL_EINVAL);
    assert_non_null(strstr(error.message, "levels"));
    free(source);
}

/* An error tells the template's words and none of the client's. */
static void test_errors_tell_nothing_from_outside(void **state)
{
    (void)state;
    static const char *const templates[] = {"\n{{ raise_exception('Bad role: ' ~ s ~ '!') }}",
                                            "\n{{ d[s].x }}",
                                            "\n{{ {}[s]() }}",
                                            "\n{{ s.format(1) }}",
                                            "\n{{ s % 'q' }}",
                                            "\n{{ s|int + s }}"};
    for (size_t i = 0; i < sizeof templates / sizeof *templates; i++) {
        struct template_output output;
        runnel_error error = {0};
        int code = render(templates[i], strlen(templates[i]), "{\"s\": \"SECRET %d {x}\", \"d\": {}}",
                          &template_default_limits, 0, &output, &error);
        assert_int_equal(code, RUNNEL_EINVAL);
        assert_null(strstr(error.message, "SECRET"));
        assert_non_null(strstr(error.message, "line 2"));
    }
}

static void test_json_that_is_refused(void **state)
{
    (void)state;
    static const char *const texts[] = {"",
                                        "{",
                                        "[1,]",
                                        "{\"a\":1,}",
                                        "{\"a\":1,\"a\":2}",
                                        "01",
                                        "1.",
                                        "-",
                                        "+1",
                                        "1 2",
                                        "\"\\x\"",
                                        "\"\\ud800\"",
                                        "\"\\ud800\\u0041\"",
                                        "\"\x01\"",
                                        "\"\xff\"",
                                        "\"a",
                                        "nul",
                                        "NaN",
                                        "99999999999999999999",
                                        "1e999",
                                        "'a'",
                                        "{1:2}",
                                        "[1 2]",
                                        "{\"a\" 1}"};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        struct template_arena arena;
        struct value value;
        runnel_error error = {0};
        template_arena_init(&arena, 1 << 20);
        if (template_read_json(&arena, texts[i], strlen(texts[i]), &value, &error) != RUNNEL_EINVAL)
            fail_msg("%s: read", texts[i]);
        assert_non_null(strstr(error.message, "expected"));
        template_arena_free(&arena);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_jinja2_renders),  cmocka_unit_test(test_where_bytes_come_from),
        cmocka_unit_test(test_hostile_templates),    cmocka_unit_test(test_deep_sources),
        cmocka_unit_test(test_long_chains),          cmocka_unit_test(test_errors_tell_nothing_from_outside),
        cmocka_unit_test(test_json_that_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
