/* test_constrain.c: texts that a grammar, a pattern or a choice takes and refuses, with the masks on the way. */
#include "constrain/gbnf.h"
#include "constrain/regex.h"
#include "helpers/constrain_check.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static const struct constrain_limits limits = CONSTRAIN_LIMITS;

static int read_gbnf(const char *what, struct grammar **grammar, runnel_error *error)
{
    return gbnf_grammar(&limits, what, strlen(what), grammar, error);
}

static int read_regex(const char *what, struct grammar **grammar, runnel_error *error)
{
    return regex_grammar(&limits, what, strlen(what), grammar, error);
}

/* A pattern of JSON Schema, on the text of a JSON string without its quotes. */
static int read_pattern(const char *what, struct grammar **grammar, runnel_error *error)
{
    static const struct regex_options options = {.form = CHAR_JSON};
    uint32_t expr;
    int code = grammar_create(&limits, grammar, error);
    if (code)
        return code;
    code = regex_expr((*grammar)->exprs, what, strlen(what), &options, &expr, error);
    if (code) {
        grammar_free(*grammar);
        return code;
    }
    (*grammar)->start = grammar_rule(*grammar, NULL, 0);
    grammar_define(*grammar, (*grammar)->start, grammar_terminal(*grammar, expr));
    return 0;
}

static const struct constrain_case regexes[] = {
    {"", {""}, {"a"}},
    {"abc", {"abc"}, {"", "ab", "abcd", "bc"}},
    {"a|bc|", {"a", "bc", ""}, {"abc", "b"}},
    {"(ab)*c+", {"c", "ababcc"}, {"abac", "ab"}},
    {"[a-cx-]{2,3}", {"ab", "x-c"}, {"a", "abcx", "d"}},
    {"[^a-c]", {"d", "é", "漢", "😀", "\n"}, {"a", "", "dd", "\xc3", "\xed\xa0\x80", "\xff"}},
    {"\\d{4}-\\d\\d", {"2026-11"}, {"202-11", "2026-1x"}},
    {"\\w+\\s\\S\\D", {"a_9 !x"}, {"a_9  x", "a_9 !1"}},
    {"^a$|^b", {"a", "b"}, {"ab", "^a"}},
    {"a.c", {"abc", "a漢c"}, {"a\nc", "ac"}},
    {"(?:a|(?<name>b))+?", {"a", "bab"}, {"", "c"}},
    {"x{", {"x{"}, {"x"}},
    {"\\u00e9\\x41\\u{1F600}", {"éA😀"}, {"eA"}},
    {"(?!ab)[a-c]*", {"", "aab", "ba", "ac"}, {"ab", "abc"}},
    {"(?=.*\\d)(?=.*[a-z]).{2,4}", {"a1", "1xx", "a22b"}, {"aa", "11", "a", "a1234"}},
    {"[\\w.-]+@[\\w-]+(\\.[\\w-]+)+", {"a.b@c.de", "x@y-z.a.b"}, {"a@b", "@a.b", "a@.b"}},
    {"([a-z]*[0-9]?){3}", {"", "ab1c2", "1a1b"}, {"1234", "1a1b1c", "!"}},
};

static const struct constrain_case patterns[] = {
    {"b", {"abc", "b", "\\u0062", "x\\nb"}, {"", "a\"b", "a\\b", "\\u0063"}},
    {"^b", {"bc", "b"}, {"ab", ""}},
    {"b$", {"ab", "b"}, {"bc", ""}},
    {"^$", {""}, {"a"}},
    {"(^a|b$)", {"ax", "xb", "a", "b"}, {"xa", "bx", ""}},
    {"^a|c$", {"ab", "bc"}, {"b"}},
    {"^[^\"]$",
     {"a", "\\\\", "\\n", "é", "\\u00e9", "\\ud83d\\ude00", "😀"},
     {"\\\"", "\"", "\\u0022", "\\ud83d", "\\q"}},
    {"^\"/\n$", {"\\\"/\\n", "\\u0022\\/\\u000A"}, {"\"/\\n", "\\\"/\n"}},
    {"^(?!foo$).*$", {"fo", "foox", "", "xfoo"}, {"foo", "f\\u006fo"}},
    {"^(?!.*admin)[a-z]+$", {"adm", "user"}, {"admin", "xadminx", ""}},
};

static const struct constrain_case grammars[] = {
    {"root ::= \"yes\" | \"no\"", {"yes", "no"}, {"", "ye", "yesno", "maybe"}},
    {"# a list\nroot ::= item (\",\" item)*  # more\nitem ::=\n  [0-9]+ |\n  \"x\"\n",
     {"1", "12,x,3"},
     {"", ",", "1,", "1x"}},
    {"root ::= \"(\" root \")\" | \"a\"", {"a", "((a))"}, {"((a)", "a)", "()"}},
    {"root ::= root \"+\" t | t\nt ::= t \"*\" f | f\nf ::= \"(\" root \")\" | [0-9]+",
     {"1", "1+2*3", "(1+22)*3", "((1))+(2*3)+4"},
     {"", "1+", "+1", "(1", "1)", "1**2"}},
    {"root ::= a \"x\" | \"s\"\na ::= b \"y\" | \"t\"\nb ::= root \"z\" | \"u\"", /* a ring of three */
     {"s", "tx", "uyx", "szyx", "szyxzyx", "uyxzyx"},
     {"t", "u", "sz", "sx", "szyxx"}},
    {"root ::= root root | \"a\" | \"b\"", {"a", "abab", "aaaaaaaaaaaa"}, {"", "abc"}},
    {"root ::= \"a\" root \"a\" | \"b\" root \"b\" | \"\" ", {"", "abba", "aabbaa"}, {"ab", "aba"}},
    {"root ::= e\ne ::= e [-+] e | [0-9]", {"1", "1+2-3+4"}, {"1+", "-1", "12"}},
    {"root ::= opt opt \"x\"\nopt ::= (\"a\" opt)?", {"x", "aax"}, {"a", "xa"}},
    {"root ::= [a-z]{1, 3} \"0\"{ 2 } (\"1\"{\n1 ,\n}) \"2\" { ,1}",
     {"a001", "abc0011112"},
     {"0011", "abcd001", "a01", "a00", "a00122"}},
    {"root ::= [a-c]{2} [^\\x00-\\x7f]? .{0,2}", {"ab", "abé", "abéxy", "cc\nx"}, {"a", "abéxyz", "dd"}},
    {"root ::= \"\\\"\" ([^\"\\\\] | \"\\\\\" [\"\\\\nt])* \"\\\"\" [ \\t]*",
     {"\"\"", "\"a\\\"b\" ", "\"\\n\""},
     {"\"", "\"\\x\"", "\"a\"b"}},
    {"root ::= v\nv ::= \"[\" ws (v (\",\" ws v)*)? \"]\" ws | \"{\" ws (s \":\" ws v (\",\" ws s \":\" ws "
     "v)*)? \"}\" ws | s | [0-9]+ ws\n"
     "s ::= \"\\\"\" [^\"]* \"\\\"\" ws\nws ::= [ \\n]*",
     {"[]", "{ \"a\": [1, 2],\n\"b\":{}}", "\"x y\"", "[[[ ]]]", "17"},
     {"[", "[1,]", "{\"a\"}", "{\"a\":}", "[}", "\"x"}},
    {"root ::= (a | b){2,3}\na ::= \"a\" (root \"!\")?\nb ::= \"b\"",
     {"ab", "bbb", "aab!b", "aa"},
     {"a", "bbbb"}},
    {"root ::= dead | \"x\"\ndead ::= \"y\" dead", {"x"}, {"", "y"}},
};

#define CHECK_ALL(name, cases, read)                                                                         \
    static void name(void **state)                                                                           \
    {                                                                                                        \
        (void)state;                                                                                         \
        for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)                                            \
            constrain_check(&cases[i], read);                                                                \
    }

CHECK_ALL(test_regexes, regexes, read_regex)
CHECK_ALL(test_patterns, patterns, read_pattern)
CHECK_ALL(test_grammars, grammars, read_gbnf)

static void check_refusal(const char *what,
                          int (*read)(const char *what, struct grammar **grammar, runnel_error *error),
                          const char *expected)
{
    const char *found = constrain_refusal(what, read);
    if (!found || !strstr(found, expected))
        fail_msg("%s: expected '%s', found '%s'", what, expected, found ? found : "that it is taken");
}

static void test_refusals(void **state)
{
    (void)state;
    check_refusal("(a", read_regex, "expected ')'");
    check_refusal("a)", read_regex, "no '('");
    check_refusal("[a", read_regex, "expected ']'");
    check_refusal("*a", read_regex, "nothing to repeat");
    check_refusal("a{3,2}", read_regex, "upper bound");
    check_refusal("a{3}{2}", read_regex, "nothing to repeat");
    check_refusal("{3}", read_regex, "nothing to repeat");
    check_refusal("\\012", read_regex, "octal");
    check_refusal("[b-a]", read_regex, "ends before");
    check_refusal("(a)\\1", read_regex, "references back");
    check_refusal("\\bx", read_regex, "borders of words");
    check_refusal("\\p{L}", read_regex, "properties");
    check_refusal("(?<=a)b", read_regex, "lookbehind");
    check_refusal("(?i)b", read_regex, "flags");
    check_refusal("a{99999999}", read_regex, "million");
    check_refusal("a\xff", read_regex, "UTF-8");
    check_refusal("a(?!b)(?=b)", read_regex, "no text can fulfil it");
    check_refusal("root ::= x", read_gbnf, "rule 'x' is used, but not defined");
    check_refusal("x ::= \"a\"", read_gbnf, "rule 'root'");
    check_refusal("root ::= \"a", read_gbnf, "expected '\"'");
    check_refusal("root = \"a\"", read_gbnf, "expected '::='");
    check_refusal("root ::= \"a\"{1 2}", read_gbnf, "expected '{m}'");
    check_refusal("root ::= \"a\"{ , }", read_gbnf, "expected '{m}'");
    check_refusal("root ::= \"a\"{\n2}", read_gbnf, "expected '{m}'");
    check_refusal("root ::= \"a\" )", read_gbnf, "end of the rule");
    check_refusal("root ::= root", read_gbnf, "no text can fulfil it");
    check_refusal("root ::= \"a\" root", read_gbnf, "no text can fulfil it");
    check_refusal("root ::= <think>", read_gbnf, "tokens");
    check_refusal("root ::= n root \"a\" | \"b\"\nn ::= \"x\"? n2\nn2 ::= (\"(\" n \")\")?", read_gbnf,
                  "may be empty");
    check_refusal("root ::= (\"a\" root | \"b\"){99999}", read_gbnf, "repetitions");
}

/* Texts that make an engine work without end, or fill its memory: refused, or followed within the bounds. */
static void test_hostile(void **state)
{
    static const char *const hostile[] = {
        "((((((((((a{100}){100}){100}){100}){100}){100}){100}){100}){100}){100})",
        "(a?){1000}a{1000}",
        "(.*a.{500}|.*b.{500}|.*c.{500})*",
        "([ab]*a[ab]{30}|c){1,1000}",
        "(?=.*a.{20})(?=.*b.{25})(?=.*c.{30})(?!.*d.{22}).*",
    };
    (void)state;
    for (size_t i = 0; i < sizeof hostile / sizeof *hostile; i++) {
        struct trie *trie = constrain_vocabulary((const char *[]){"abcabcaabbcc"}, 1);
        struct grammar *grammar;
        struct automaton *automaton = NULL;
        struct matcher *matcher = NULL;
        uint32_t words[512];
        runnel_error error = {0};
        int code = read_regex(hostile[i], &grammar, &error);
        if (!code)
            code = automaton_create(grammar, trie, &automaton, &error);
        if (!code)
            code = matcher_create(automaton, &matcher, &error);
        for (unsigned k = 0; k < 600 && !code; k++) {
            code = matcher_mask(matcher, words, &error);
            if (!code)
                code = matcher_accept_bytes(matcher, &"aabcab"[k % 6], 1, &error);
        }
        assert_true(!code || error.message[0]);
        matcher_free(matcher);
        automaton_release(automaton);
        trie_free(trie);
    }
}

/* Few states are kept: they are forgotten again and again, and the masks stay right. */
static void test_forgetting(void **state)
{
    struct constrain_limits small = limits;
    struct grammar *grammar;
    struct automaton *automaton;
    static const char text[] = "[[1,[2,3]],[[[4]]],5,[6,[7,[8,[9]]]],[[],[[],[]]],10,11,12]";
    static const char what[] = "root ::= \"[\" (root (\",\" root)*)? \"]\" | [0-9]+";
    struct trie *trie = constrain_vocabulary((const char *[]){text}, 1);
    (void)state;
    small.n_states = 100;
    small.n_masks = 2;
    assert_int_equal(gbnf_grammar(&small, what, strlen(what), &grammar, NULL), 0);
    assert_int_equal(automaton_create(grammar, trie, &automaton, NULL), 0);
    assert_true(constrain_takes(automaton, trie, text));
    automaton_release(automaton);
    trie_free(trie);
}

/* States of terminals and their expressions are forgotten as well, where a pattern has more of them than there is room for. */
static void test_forgetting_terminals(void **state)
{
    struct constrain_limits small = limits;
    static const char what[] = "(?:(?:a|b)*a(?:a|b){8}c)+";
    char texts[3][200];
    struct grammar *grammar;
    struct automaton *automaton;
    (void)state;
    for (unsigned i = 0; i < 3; i++) {
        memset(texts[i], 0, sizeof texts[i]);
        for (unsigned k = 0, bits = 12345 + i; k < 150; k++, bits = bits * 1103515245u + 12345)
            texts[i][k] = k % 25 == 24 ? 'c' : k % 25 == 15 || bits >> 20 & 1 ? 'a' : 'b';
    }
    texts[1][100] = 'd';
    texts[2][3] = 'c';
    struct trie *trie = constrain_vocabulary((const char *[]){texts[0], texts[2]}, 2);
    small.n_scans = 300;
    small.n_exprs = 3000;
    assert_int_equal(regex_grammar(&small, what, strlen(what), &grammar, NULL), 0);
    assert_int_equal(automaton_create(grammar, trie, &automaton, NULL), 0);
    assert_true(constrain_takes(automaton, trie, texts[0]));
    assert_false(constrain_takes(automaton, trie, texts[1]));
    assert_false(constrain_takes(automaton, trie, texts[2]));
    assert_true(constrain_takes(automaton, trie, texts[0]));
    automaton_release(automaton);
    trie_free(trie);
}

/* What texts were nested in is forgotten, too: however many there are, the next one has room. */
static void test_forgetting_frames(void **state)
{
    struct constrain_limits small = limits;
    struct grammar *grammar;
    struct automaton *automaton;
    static const char what[] = "root ::= \"[\" root \"]\" | \"(\" root \")\" | \"x\"";
    struct trie *trie = constrain_vocabulary(NULL, 0);
    (void)state;
    small.n_frames = 100;
    assert_int_equal(gbnf_grammar(&small, what, strlen(what), &grammar, NULL), 0);
    assert_int_equal(automaton_create(grammar, trie, &automaton, NULL), 0);
    for (unsigned nesting = 0; nesting < 1u << 8; nesting++) {
        char text[18] = "";
        for (unsigned i = 0; i < 8; i++) {
            text[i] = nesting >> i & 1 ? '[' : '(';
            text[16 - i] = nesting >> i & 1 ? ']' : ')';
        }
        text[8] = 'x';
        assert_true(constrain_takes(automaton, trie, text));
        text[16] = text[16] == ')' ? ']' : ')';
        assert_false(constrain_takes(automaton, trie, text));
    }
    automaton_release(automaton);
    trie_free(trie);
}

/* Where only an end may come it is over, even if that takes a search: no word is in both "a" and "b". */
static void test_over(void **state)
{
    struct grammar *grammar;
    struct automaton *automaton;
    struct matcher *matcher;
    struct trie *trie = constrain_vocabulary(NULL, 0);
    (void)state;
    assert_int_equal(read_regex("x|!(?=a)b|", &grammar, NULL), 0);
    assert_int_equal(automaton_create(grammar, trie, &automaton, NULL), 0);
    assert_int_equal(matcher_create(automaton, &matcher, NULL), 0);
    assert_true(matcher_is_complete(matcher) && !matcher_is_over(matcher));
    assert_int_equal(matcher_accept(matcher, 'x', NULL), 0);
    assert_true(matcher_is_over(matcher));
    matcher_free(matcher);
    automaton_release(automaton);
    assert_int_equal(read_regex("!(?=a)b|", &grammar, NULL), 0);
    assert_int_equal(automaton_create(grammar, trie, &automaton, NULL), 0);
    assert_int_equal(matcher_create(automaton, &matcher, NULL), 0);
    assert_true(matcher_is_complete(matcher) && matcher_is_over(matcher));
    matcher_free(matcher);
    automaton_release(automaton);
    trie_free(trie);
}

static void test_choice(void **state)
{
    static const char *const texts[] = {"red", "green", "green tea", "漢"};
    struct grammar *grammar;
    struct automaton *automaton;
    struct trie *trie = constrain_vocabulary(texts, 4);
    runnel_error error;
    (void)state;
    assert_int_equal(choice_grammar(&limits, texts, 4, &grammar, NULL), 0);
    assert_int_equal(automaton_create(grammar, trie, &automaton, NULL), 0);
    for (size_t i = 0; i < 4; i++)
        assert_true(constrain_takes(automaton, trie, texts[i]));
    assert_false(constrain_takes(automaton, trie, "greenish"));
    assert_false(constrain_takes(automaton, trie, ""));
    automaton_release(automaton);
    trie_free(trie);
    assert_int_equal(choice_grammar(&limits, texts, 0, &grammar, &error), RUNNEL_EINVAL);
}

/* As many tokens back as can be undone, and on another way from there; and not one more. */
static void test_undo(void **state)
{
    struct grammar *grammar;
    struct automaton *automaton;
    struct matcher *matcher;
    struct trie *trie = constrain_vocabulary(NULL, 0);
    (void)state;
    assert_int_equal(read_gbnf("root ::= \"(\" root \")\" | \"x\"", &grammar, NULL), 0);
    assert_int_equal(automaton_create(grammar, trie, &automaton, NULL), 0);
    assert_int_equal(matcher_create(automaton, &matcher, NULL), 0);
    matcher_undo(matcher, 1); /* there is nothing to undo */
    for (unsigned i = 0; i < 40; i++)
        assert_int_equal(matcher_accept(matcher, '(', NULL), 0);
    assert_int_equal(matcher_accept(matcher, ')', NULL), RUNNEL_EINVAL);
    matcher_undo(matcher, MATCHER_UNDO_MAX);
    assert_int_equal(matcher_accept(matcher, 'x', NULL), 0);
    for (unsigned i = 0; i < 40 - MATCHER_UNDO_MAX; i++) {
        assert_false(matcher_is_complete(matcher));
        assert_int_equal(matcher_accept(matcher, ')', NULL), 0);
    }
    assert_true(matcher_is_over(matcher));
    assert_int_equal(matcher_accept(matcher, (int32_t)trie->n_tokens - 1, NULL), 0);
    assert_int_equal(matcher_accept(matcher, ')', NULL), RUNNEL_EINVAL);
    matcher_undo(matcher, 2); /* the end, too */
    assert_false(matcher_is_complete(matcher));
    matcher_free(matcher);
    automaton_release(automaton);
    trie_free(trie);
}

/* More than there is room for if each one made all before it once more: as a pattern, in a rule, and each one a rule. */
static void test_many_alternatives(void **state)
{
    enum { N = 3000, ONE_MAX = 32 };
    char *texts[3];
    int (*const reads[])(const char *, struct grammar **, runnel_error *) = {read_regex, read_gbnf,
                                                                             read_gbnf};
    (void)state;
    for (int k = 0; k < 3; k++) {
        size_t len = 0;
        texts[k] = malloc(2 * N * ONE_MAX);
        assert_non_null(texts[k]);
        len += (size_t)sprintf(texts[k], "%s", k ? "root ::= " : "");
        for (unsigned i = 0; i < N; i++)
            len += (size_t)sprintf(texts[k] + len,
                                   k == 0   ? "%sw%04u"
                                   : k == 1 ? "%s\"w%04u\""
                                            : "%srule%04u",
                                   i ? "|" : "", i);
        for (unsigned i = 0; i < N && k == 2; i++)
            len += (size_t)sprintf(texts[k] + len, "\nrule%04u ::= \"w%04u\"", i, i);
        const struct constrain_case one = {
            texts[k], {"w0000", "w1234", "w2999"}, {"w", "w3000", "w123", "w12345", "x0001"}};
        constrain_check(&one, reads[k]);
        free(texts[k]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_regexes),
        cmocka_unit_test(test_patterns),
        cmocka_unit_test(test_grammars),
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_many_alternatives),
        cmocka_unit_test(test_hostile),
        cmocka_unit_test(test_forgetting),
        cmocka_unit_test(test_forgetting_frames),
        cmocka_unit_test(test_over),
        cmocka_unit_test(test_forgetting_terminals),
        cmocka_unit_test(test_choice),
        cmocka_unit_test(test_undo),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
