/* test_constrain_faults.c: the n-th allocation fails, once and from then on, for every n, while constraints are read, compiled and followed: it
 * is said so, nothing leaks, and the next time it is as if nothing had happened. What follows a text allocates nothing. */
#include "constrain/gbnf.h"
#include "constrain/matcher.h"
#include "constrain/regex.h"
#include "constrain/schema.h"
#include "faults/faults.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { MORE_THAN_ENOUGH = 3000, N_BYTES = 256, N_WORDS = (N_BYTES + 1 + 31) / 32 };

static const struct constrain_limits limits = {
    .n_exprs = 1u << 14,
    .n_scans = 1u << 10,
    .n_frames = 1u << 8,
    .n_states = 1u << 7,
    .n_masks = 4,
    .n_insides = 2,
    .n_rules = 1u << 10,
    .n_nodes = 1u << 14,
    .work = 1000000,
    .work_step = 100000,
};

typedef int reader(const struct constrain_limits *limits, const char *text, size_t len,
                   struct grammar **grammar, runnel_error *error);

struct fault_case {
    reader *read;
    const char *what, *text;
};

static const char classes[] =
    "([a-c\\d\\s]|[^\\wé-ü0-9A-F\\u0400-\\u04ff\\-_:;,.!?<>=%&/()\\[\\]+*~#']{2,3}|(?:x|y)+?)*";
static const char schema[] =
    "{\"$defs\":{\"n\":{\"type\":\"object\",\"properties\":{\"v\":{\"enum\":[1,\"a\",[true,{\"k\":null}]]},"
    "\"n\":"
    "{\"$ref\":\"#/$defs/"
    "n\"}},\"required\":[\"v\"],\"additionalProperties\":false}},\"type\":\"object\",\"properties\":"
    "{\"a\":{\"oneOf\":[{\"type\":\"integer\",\"minimum\":3,\"maximum\":10},{\"type\":\"string\","
    "\"maxLength\":3}]},\"b\":{"
    "\"$ref\":\"#/$defs/n\"},\"c\":{\"type\":\"array\",\"items\":{\"pattern\":\"^[a-c]+$\"},\"maxItems\":3}},"
    "\"patternProperties\":{\"^x\":{\"not\":{\"type\":\"string\"}}},\"propertyNames\":{\"enum\":[\"a\",\"b\","
    "\"c\",\"x1\"]},"
    "\"if\":{\"required\":[\"a\"]},\"then\":{\"required\":[\"c\"]},\"else\":{\"minProperties\":1}}";
static const char grammar[] = "root ::= expr\nexpr ::= expr \"+\" term | expr \"-\" term | term\nterm ::= "
                              "[0-9]{1,3} | \"(\" expr \")\"\n"
                              "r1 ::= \"a\"\nr2 ::= \"b\" r1\n";

static const struct fault_case cases[] = {
    {regex_grammar, classes, "abyyx"},
    {gbnf_grammar, grammar, "(1+(22-333))-4+5"},
    {schema_grammar, schema,
     "{\"b\": {\"v\": [true,{\"k\":null}], \"n\": {\"v\":1}}, \"c\": [\"abc\"], \"x1\": 7}"},
};

static struct trie *bytes_trie(runnel_error *error)
{
    static char bytes[N_BYTES];
    struct trie_token tokens[N_BYTES + 1] = {{0}};
    const int32_t end = N_BYTES;
    struct trie *trie = NULL;
    for (unsigned i = 0; i < N_BYTES; i++) {
        bytes[i] = (char)i;
        tokens[i] = (struct trie_token){&bytes[i], 1};
    }
    trie_create(tokens, N_BYTES + 1, &end, 1, &trie, error);
    return trie;
}

/* Reads the whole text; it must be complete then. */
static int follow(struct matcher *matcher, const char *text, runnel_error *error)
{
    uint32_t words[N_WORDS];
    int code = RUNNEL_OK;
    for (; *text && !code; text++) {
        code = matcher_mask(matcher, words, error);
        if (!code)
            code = matcher_accept(matcher, (unsigned char)*text, error);
    }
    assert_true(code || matcher_is_complete(matcher));
    return code;
}

static int run_matchers(struct automaton *automaton, const char *text, runnel_error *error)
{
    struct matcher *matcher, *copy;
    int code = matcher_create(automaton, &matcher, error);
    if (code)
        return code;
    code = matcher_copy(matcher, &copy, error);
    if (!code) {
        unsigned n = faults_n_calls();
        code = follow(matcher, text, error);
        assert_int_equal(faults_n_calls(), n);
        matcher_free(copy);
    }
    matcher_free(matcher);
    return code;
}

static int run(const struct fault_case *one, runnel_error *error)
{
    struct grammar *read;
    struct automaton *automaton;
    struct trie *trie = bytes_trie(error);
    if (!trie)
        return error->code;
    int code = one->read(&limits, one->what, strlen(one->what), &read, error);
    if (!code)
        code = automaton_create(read, trie, &automaton, error);
    if (!code) {
        code = run_matchers(automaton, one->text, error);
        automaton_release(automaton);
    }
    trie_free(trie);
    return code;
}

static void check(const struct fault_case *one, unsigned n_failing)
{
    runnel_error error = {0};
    unsigned n_failed = 0;
    if (run(one, &error))
        fail_msg("%s: %s", one->what, error.message);
    for (unsigned first = 1; first < MORE_THAN_ENOUGH; first++) {
        size_t before = faults_live_pieces();
        error = (runnel_error){0};
        faults_arm(FAULT_MEMORY, first, n_failing);
        int code = run(one, &error);
        unsigned n = faults_disarm();
        if (faults_live_pieces() != before)
            fail_msg("%s: allocation %u leaks", one->what, first);
        if (!n) {
            assert_int_equal(code, RUNNEL_OK);
            assert_true(n_failed > 40);
            return;
        }
        n_failed++;
        /* what a trie need not have, it does without: it is only made to fit */
        if (code && (code != RUNNEL_ENOMEM || !strstr(error.message, "memory")))
            fail_msg("%s: allocation %u: %d %s", one->what, first, code, error.message);
        if (!code && n_failing == 0)
            fail_msg("%s: allocation %u failed, and nobody said so", one->what, first);
    }
    fail_msg("%s: more than %d allocations", one->what, MORE_THAN_ENOUGH);
}

static void test_one_allocation_fails(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        check(&cases[i], 1);
}

static void test_all_allocations_fail_from_then_on(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        check(&cases[i], 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_one_allocation_fails),
        cmocka_unit_test(test_all_allocations_fail_from_then_on),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
