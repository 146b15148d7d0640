/* test_string_tokens.c: which tokens stay in a JSON string, with how many characters, and which end it. */
#include "constrain/string_tokens.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

enum { NOWHERE, WITHIN, CLOSING, BEHIND };

static const struct {
    const char *text;
    int place, n_chars;
} cases[] = {
    {"a", WITHIN, 1},
    {"ab", WITHIN, 2},
    {"\xc3\xa9", WITHIN, 1},
    {"x\xc3", WITHIN, 2}, /* one is begun */
    {"\xa9", NOWHERE, 0},
    {"\\", WITHIN, 1},
    {"\\n\\\"", WITHIN, 2},
    {"\\u00e", WITHIN, 1},
    {"\\u00e9\\ud83d", WITHIN, 2},
    {"\\ud83d\\ude00", WITHIN, 1}, /* a pair is one character */
    {"\\ud83dx", NOWHERE, 0},
    {"\\x", NOWHERE, 0},
    {"a\n", NOWHERE, 0},
    {"", NOWHERE, 0},
    {"\"", CLOSING, 0},
    {"ab\"", CLOSING, 2},
    {"\",", BEHIND, 0},
    {"a\", \"", BEHIND, 1},
    {"\\\",\"", CLOSING, 2}, /* the first quote is escaped */
    {"0123456789abcdef", WITHIN, 16},
    {"0123456789abcdef0123456789", WITHIN, 26},
    {"0123456789abcdefg", WITHIN, 17},
};
enum { N = sizeof cases / sizeof *cases };

static bool is_set(const uint32_t *words, size_t token)
{
    return words[token / 32] >> (token % 32) & 1;
}

static bool is_among(const int32_t *tokens, uint32_t n, size_t token)
{
    for (uint32_t i = 0; i < n; i++)
        if (tokens[i] == (int32_t)token)
            return true;
    return false;
}

static void create(struct string_tokens *strings)
{
    struct trie_token tokens[N];
    for (size_t i = 0; i < N; i++)
        tokens[i] = (struct trie_token){cases[i].text, strlen(cases[i].text)};
    assert_true(string_tokens_create(tokens, N, strings));
}

static void tokens_have_their_place(void **state)
{
    struct string_tokens strings;
    (void)state;
    create(&strings);
    for (size_t i = 0; i < N; i++) {
        assert_int_equal(is_set(strings.all, i), cases[i].place == WITHIN);
        assert_int_equal(is_among(strings.closing, strings.n_closing, i), cases[i].place == CLOSING);
        assert_int_equal(is_among(strings.behind.order, strings.behind.n_order, i), cases[i].place == BEHIND);
        if (cases[i].place != NOWHERE)
            assert_int_equal(strings.n_chars[i], cases[i].n_chars);
    }
    string_tokens_free(&strings);
}

static void no_more_characters_than_are_left(void **state)
{
    struct string_tokens strings;
    (void)state;
    create(&strings);
    for (uint32_t n = 0; n < 30; n++) {
        uint32_t words[(N + 31) / 32] = {0};
        string_tokens_add_within(&strings, n, words);
        for (size_t i = 0; i < N; i++)
            assert_int_equal(is_set(words, i), cases[i].place == WITHIN && cases[i].n_chars <= (int)n);
    }
    string_tokens_free(&strings);
}

/* What is behind the quote is a trie: "," is there once for both tokens that go on with it. */
static void what_is_behind_is_shared(void **state)
{
    struct string_tokens strings;
    (void)state;
    create(&strings);
    assert_int_equal(strings.behind.n_nodes, strlen(", \""));
    assert_int_equal(strings.behind.nodes[0].byte, ',');
    string_tokens_free(&strings);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tokens_have_their_place),
        cmocka_unit_test(no_more_characters_than_are_left),
        cmocka_unit_test(what_is_behind_is_shared),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
