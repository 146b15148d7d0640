/* test_constrain_hostile.c: schemas, grammars and patterns that are made to take an engine's time and memory. Each is refused with an error that
 * says what is too much, or compiled and followed for some tokens, with the limits that the engine has. */
#include "constrain/gbnf.h"
#include "constrain/regex.h"
#include "constrain/schema.h"
#include "helpers/constrain_check.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

#include <cmocka.h>

enum {
    N_TOKENS = 300,
    MAX_SECONDS = 60,     /* of the CPU, for each: a hundredth of it is usual */
    MAX_MEGABYTES = 1024, /* of the whole test */
    MAX_TEXT = 4 << 20,
};

static const struct constrain_limits limits = CONSTRAIN_LIMITS;

typedef int reader(const struct constrain_limits *limits, const char *text, size_t len,
                   struct grammar **grammar, runnel_error *error);

/* text n times, with commas if between is ','. Where it says '@' stands the number of that time, '~' that of the next one. */
struct piece {
    const char *text;
    unsigned n;
    char between;
};

struct hostile {
    reader *read;
    const char *what, *refusal; /* refusal: what the error says; NULL: it is taken; "": either */
    struct piece pieces[8];     /* the last one has no text */
};

#define BOTH(i, name) "{\"anyOf\":[{\"required\":[\"a" i "\"]},{\"required\":[\"" name i "\"]}]}"

static const struct hostile cases[] = {
    {schema_grammar,
     "arrays in arrays",
     "nested too deep",
     {{"{\"items\":", 100000, 0}, {"{}", 1, 0}, {"}", 100000, 0}}},
    {schema_grammar, "a long way down", "", {{"{\"items\":", 199, 0}, {"{}", 1, 0}, {"}", 199, 0}}},
    {schema_grammar,
     "choices of lengths",
     "",
     {{"{\"allOf\":[", 1, 0}, {"{\"anyOf\":[{\"minLength\":@},{\"maxLength\":1@}]}", 40, ','}, {"]}", 1, 0}}},
    {schema_grammar,
     "choices of members",
     "",
     {{"{\"type\":\"object\",\"allOf\":[", 1, 0}, {BOTH("@", "b"), 40, ','}, {"]}", 1, 0}}},
    {schema_grammar,
     "one of many lengths",
     "",
     {{"{\"type\":\"string\",\"oneOf\":[", 1, 0}, {"{\"minLength\":@}", 400, ','}, {"]}", 1, 0}}},
    {schema_grammar,
     "one of many lists",
     "",
     {{"{\"oneOf\":[", 1, 0},
      {"{\"$ref\":\"#/$defs/a\"},{\"$ref\":\"#/$defs/b\"}", 200, ','},
      {"],\"$defs\":{\"a\":{\"enum\":[", 1, 0},
      {"\"a@\"", 8000, ','},
      {"]},\"b\":{\"enum\":[", 1, 0},
      {"\"b@\"", 8000, ','},
      {"]}}}", 1, 0}}},
    {schema_grammar,
     "conditions",
     "",
     {{"{\"allOf\":[", 1, 0},
      {"{\"if\":{\"required\":[\"a@\"]},\"then\":{\"required\":[\"b@\"]},\"else\":{\"required\":[\"c@\"]}}",
       50, ','},
      {"]}", 1, 0}}},
    {schema_grammar,
     "dependencies",
     "",
     {{"{\"dependentRequired\":{", 1, 0}, {"\"a@\":[\"b@\"]", 300, ','}, {"}}", 1, 0}}},
    {schema_grammar,
     "the opposite of much",
     "",
     {{"{\"type\":\"string\",\"not\":{", 1, 0}, {"\"minLength\":@", 3000, ','}, {"}}", 1, 0}}},
    {schema_grammar,
     "opposites of opposites",
     "",
     {{"{\"not\":{\"allOf\":[", 60, 0}, {"{}", 1, 0}, {",{\"maxLength\":3}]}}", 60, 0}}},
    {schema_grammar,
     "many items at most",
     "",
     {{"{\"items\":{\"type\":\"string\"},\"maxItems\":1000000000}", 1, 0}}},
    {schema_grammar, "many trees at most", "", {{"{\"items\":{\"$ref\":\"#\"},\"maxItems\":900000}", 1, 0}}},
    {schema_grammar,
     "many trees in trees",
     "",
     {{"{\"items\":{\"$ref\":\"#\"},\"maxItems\":900,\"minItems\":1}", 1, 0}}},
    {schema_grammar,
     "many items at least",
     "",
     {{"{\"items\":{\"type\":\"object\"},\"minItems\":1000000}", 1, 0}}},
    {schema_grammar, "more items than that", "minItems", {{"{\"minItems\":10000000}", 1, 0}}},
    {schema_grammar,
     "many first items",
     "",
     {{"{\"prefixItems\":[", 1, 0}, {"{\"const\":@}", 30000, ','}, {"]}", 1, 0}}},
    {schema_grammar,
     "long strings",
     "",
     {{"{\"type\":\"string\",\"minLength\":900000,\"maxLength\":1000000}", 1, 0}}},
    {schema_grammar,
     "long strings with a pattern",
     "",
     {{"{\"type\":\"string\",\"minLength\":9000,\"maxLength\":10000,\"pattern\":\"(a.{40}|b.*c)*[^x]{20,3000}"
       "$\"}",
       1, 0}}},
    {schema_grammar,
     "not within length",
     "",
     {{"{\"type\":\"string\",\"maxLength\":100000,\"not\":{\"pattern\":\"a.{30}b\"}}", 1, 0}}},
    {schema_grammar,
     "many members",
     "",
     {{"{\"properties\":{", 1, 0}, {"\"a@\":{\"type\":\"null\"}", 6000, ','}, {"}}", 1, 0}}},
    {schema_grammar,
     "members that are counted",
     "",
     {{"{\"maxProperties\":64,\"properties\":{", 1, 0},
      {"\"a@\":{\"type\":\"null\"}", 4000, ','},
      {"}}", 1, 0}}},
    {schema_grammar,
     "many members in many choices",
     "",
     {{"{\"properties\":{", 1, 0},
      {"\"a@\":{}", 4000, ','},
      {"},\"anyOf\":[", 1, 0},
      {"{\"required\":[\"a@\"]}", 4000, ','},
      {"]}", 1, 0}}},
    {schema_grammar,
     "names by patterns",
     "",
     {{"{\"patternProperties\":{", 1, 0}, {"\"a.{1@}b\":{\"minimum\":@}", 6, ','}, {"}}", 1, 0}}},
    {schema_grammar,
     "a loop of references",
     "",
     {{"{\"$ref\":\"#/$defs/a\",\"$defs\":{\"a\":{\"$ref\":\"#/$defs/b\"},\"b\":{\"$ref\":\"#/$defs/a\"}}}",
       1, 0}}},
    {schema_grammar,
     "itself, or itself",
     "no text can fulfil it",
     {{"{\"type\":\"object\",\"properties\":{\"a\":{\"$ref\":\"#\"}},\"required\":[\"a\"]}", 1, 0}}},
    {schema_grammar,
     "a chain of references",
     "",
     {{"{\"$ref\":\"#/$defs/a0\",\"$defs\":{", 1, 0},
      {"\"a@\":{\"$ref\":\"#/$defs/a~\"}", 4000, ','},
      {",\"a4000\":{}}}", 1, 0}}},
    {schema_grammar,
     "a chain of members",
     "",
     {{"{\"$ref\":\"#/$defs/a0\",\"$defs\":{", 1, 0},
      {"\"a@\":{\"properties\":{\"x\":{\"$ref\":\"#/$defs/a~\"}}}", 4000, ','},
      {",\"a4000\":{}}}", 1, 0}}},
    {schema_grammar,
     "names that are looked for",
     "",
     {{"{\"anyOf\":[", 1, 0},
      {"{\"$ref\":\"#n@\"}", 9000, ','},
      {"],\"$defs\":{", 1, 0},
      {"\"a@\":{\"$anchor\":\"n@\",\"const\":@}", 9000, ','},
      {"}}", 1, 0}}},
    {schema_grammar,
     "an enormous list",
     "",
     {{"{\"enum\":[", 1, 0}, {"\"text number @\"", 100000, ','}, {"]}", 1, 0}}},
    {schema_grammar,
     "a list of names",
     "",
     {{"{\"propertyNames\":{\"enum\":[", 1, 0}, {"\"text number @\"", 20000, ','}, {"]}}", 1, 0}}},
    {schema_grammar, "a long number", "minimum", {{"{\"minimum\":1", 1, 0}, {"0", 5000, 0}, {"}", 1, 0}}},
    {schema_grammar, "more values than fit", "more than", {{"[", 1, 0}, {"0", 1100000, ','}, {"]", 1, 0}}},
    {schema_grammar,
     "repeated patterns",
     "",
     {{"{\"pattern\":\"", 1, 0}, {"(", 60, 0}, {"a", 1, 0}, {"{9,99})", 60, 0}, {"\"}", 1, 0}}},
    {schema_grammar,
     "a long pattern",
     "",
     {{"{\"pattern\":\"", 1, 0}, {"[a-z]{2,9}x@", 5000, 0}, {"\"}", 1, 0}}},
    {regex_grammar, "groups in groups", "nested too deep", {{"(", 100000, 0}, {"a", 1, 0}, {")", 100000, 0}}},
    {regex_grammar, "counts of counts", "", {{"(", 100, 0}, {"a", 1, 0}, {"{2,500})", 100, 0}}},
    {regex_grammar, "loops of loops", "", {{"(", 150, 0}, {"a", 1, 0}, {"*b?)*", 150, 0}}},
    {regex_grammar, "a text from behind", "", {{"(a|b)*a(a|b){2000}", 1, 0}}},
    {regex_grammar, "many alternatives", "", {{"x@y|", 60000, 0}, {"z", 1, 0}}},
    {regex_grammar, "lookaheads", "", {{"(?=.*a.{3@})", 16, 0}, {".*", 1, 0}}},
    {regex_grammar, "too many lookaheads", "lookaheads", {{"(?=.*a.{3@})", 17, 0}, {".*", 1, 0}}},
    {regex_grammar, "a class of classes", "", {{"[", 1, 0}, {"\\u{@}-\\u{~}", 9000, 0}, {"]{5}", 1, 0}}},
    {gbnf_grammar,
     "groups in groups",
     "nested too deep",
     {{"root ::= ", 1, 0}, {"(", 100000, 0}, {"\"a\"", 1, 0}, {")", 100000, 0}}},
    {gbnf_grammar, "trees many times", "", {{"root ::= (\"(\" root \")\" | \"x\"){16000}", 1, 0}}},
    {gbnf_grammar,
     "trees many times, many times",
     "too large",
     {{"root ::= (((\"(\" root \")\" | \"x\"){900}){900}){900}", 1, 0}}},
    {gbnf_grammar,
     "a chain of rules",
     "",
     {{"root ::= r0\n", 1, 0}, {"r@ ::= \"a\" r~\n", 16000, 0}, {"r16000 ::= \"b\"", 1, 0}}},
    {gbnf_grammar,
     "many rules",
     "too large",
     {{"root ::= r0\n", 1, 0}, {"r@ ::= \"a\" r~\n", 40000, 0}, {"r40000 ::= \"b\"", 1, 0}}},
    {gbnf_grammar,
     "a ring of rules that begin with each other",
     "",
     {{"root ::= r0\n", 1, 0}, {"r@ ::= r~ \"a\" | \"b\"\n", 2000, 0}, {"r2000 ::= r0 \"c\"", 1, 0}}},
    {gbnf_grammar,
     "many ways to read a text",
     "",
     {{"root ::= root root root | root root | \"a\" | \"aa\" | \"b\" root", 1, 0}}},
    {gbnf_grammar,
     "ways that multiply",
     "",
     {{"root ::= r0\n", 1, 0},
      {"r@ ::= r~ r~ | \"a\" r~ \"b\"? | r~ \"a\"\n", 60, 0},
      {"r60 ::= [ab]?", 1, 0}}},
    {gbnf_grammar, "a long literal", "", {{"root ::= \"", 1, 0}, {"text @ ", 60000, 0}, {"\"", 1, 0}}},
};

static size_t build(const struct hostile *one, char *text)
{
    size_t len = 0;
    for (const struct piece *piece = one->pieces; piece->text; piece++)
        for (unsigned i = 0; i < piece->n; i++) {
            if (i && piece->between)
                text[len++] = piece->between;
            for (const char *c = piece->text; *c; c++) {
                if (*c != '@' && *c != '~')
                    text[len++] = *c;
                else
                    len += (size_t)snprintf(text + len, 12, "%u", i + (*c == '~'));
                assert_true(len < MAX_TEXT - 16);
            }
        }
    return len;
}

/* A token of the mask: another one each time. -1: there is none. */
static int32_t any_token(const uint32_t *words, uint32_t n_tokens, unsigned turn)
{
    for (uint32_t i = 0; i < n_tokens; i++) {
        uint32_t token = (turn * 37 + i) % n_tokens;
        if (words[token / 32] >> (token % 32) & 1)
            return (int32_t)token;
    }
    return -1;
}

static int follow(struct automaton *automaton, const struct trie *trie, runnel_error *error)
{
    struct matcher *matcher;
    uint32_t words[16];
    int code = matcher_create(automaton, &matcher, error);
    if (code)
        return code;
    assert_true(trie_mask_words(trie) <= sizeof words / sizeof *words);
    for (unsigned i = 0; i < N_TOKENS && !code; i++) {
        code = matcher_mask(matcher, words, error);
        int32_t token = code ? -1 : any_token(words, trie->n_tokens - 1, i);
        if (token < 0)
            break;
        code = matcher_accept(matcher, token, error);
    }
    matcher_free(matcher);
    return code;
}

static bool is_measured(void)
{
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
    return false;
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
    return false;
#endif
#endif
    return true;
}

static void check_bounds(const struct hostile *one, clock_t begin)
{
    struct rusage usage;
    double seconds = (double)(clock() - begin) / CLOCKS_PER_SEC;
    getrusage(RUSAGE_SELF, &usage);
    print_message("%s: %.3f s, at most %ld MB so far\n", one->what, seconds, usage.ru_maxrss >> 10);
    if (!is_measured())
        return;
    if (seconds > MAX_SECONDS)
        fail_msg("%s: it took %.1f s", one->what, seconds);
    if (usage.ru_maxrss >> 10 > MAX_MEGABYTES)
        fail_msg("%s: it took %ld MB", one->what, usage.ru_maxrss >> 10);
}

static void check(const struct hostile *one, const struct trie *trie, char *text)
{
    struct grammar *grammar;
    struct automaton *automaton;
    runnel_error error = {0};
    size_t len = build(one, text);
    clock_t begin = clock();
    int code = one->read(&limits, text, len, &grammar, &error);
    if (!code)
        code = automaton_create(grammar, trie, &automaton, &error);
    if (!code) {
        code = follow(automaton, trie, &error);
        if (code && code != RUNNEL_EUNSUPPORTED)
            fail_msg("%s: in the text: %s", one->what, error.message);
        automaton_release(automaton);
        code = 0;
    }
    check_bounds(one, begin);
    if (code && code != RUNNEL_EUNSUPPORTED && code != RUNNEL_EINVAL)
        fail_msg("%s: code %d: %s", one->what, code, error.message);
    if (code && (!error.message[0] || !one->refusal || !strstr(error.message, one->refusal)))
        fail_msg("%s: refused with '%s', expected was '%s'", one->what, error.message,
                 one->refusal ? one->refusal : "nothing");
    if (!code && one->refusal && one->refusal[0])
        fail_msg("%s: taken, expected was '%s'", one->what, one->refusal);
    if (code)
        print_message("    %s\n", error.message);
}

static void test_hostile_texts(void **state)
{
    struct trie *trie = constrain_vocabulary((const char *[]){"abba{\"a\": [1, 2]}"}, 1);
    char *text = malloc(MAX_TEXT);
    (void)state;
    assert_non_null(text);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        check(&cases[i], trie, text);
    free(text);
    trie_free(trie);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_hostile_texts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
