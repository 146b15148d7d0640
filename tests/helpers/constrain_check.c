/* constrain_check.c: see constrain_check.h. */
#include "helpers/constrain_check.h"
#include "helpers/chance.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum {
    MAX_PIECE = 5,
    MAX_TOKENS = 4096,
    N_CUTS = 3,
};

struct trie *constrain_vocabulary(const char *const *texts, size_t n)
{
    static char bytes[256];
    struct trie_token *tokens = calloc(MAX_TOKENS, sizeof *tokens);
    uint32_t n_tokens = 0;
    struct trie *trie;
    runnel_error error;
    assert_non_null(tokens);
    for (unsigned i = 0; i < 256; i++) {
        bytes[i] = (char)i;
        tokens[n_tokens++] = (struct trie_token){&bytes[i], 1};
    }
    for (size_t i = 0; i < n && texts[i]; i++)
        for (size_t at = 0, len = strlen(texts[i]); at < len; at++)
            for (size_t size = 2; size <= MAX_PIECE && at + size <= len && n_tokens < MAX_TOKENS - 2; size++)
                if ((at + size) % 3 != 0) /* not all of them, and some twice */
                    tokens[n_tokens++] = (struct trie_token){texts[i] + at, size};
    tokens[n_tokens++] = (struct trie_token){NULL, 0};
    int32_t end = (int32_t)n_tokens++;
    assert_int_equal(trie_create(tokens, n_tokens, &end, 1, &trie, &error), 0);
    free(tokens);
    return trie;
}

static struct matcher *matcher_of(struct automaton *automaton)
{
    struct matcher *matcher;
    runnel_error error = {0};
    if (matcher_create(automaton, &matcher, &error))
        fail_msg("%s", error.message);
    return matcher;
}

static bool takes_bytes(struct automaton *automaton, const char *text)
{
    struct matcher *matcher = matcher_of(automaton);
    bool fits = true;
    for (size_t i = 0; text[i] && fits; i++)
        fits = !matcher_accept_bytes(matcher, text + i, 1, NULL);
    fits = fits && matcher_is_complete(matcher);
    matcher_free(matcher);
    return fits;
}

static bool is_set(const uint32_t *words, int32_t token)
{
    return words[token / 32] >> (token % 32) & 1;
}

/* The mask says of each token what trying it says. */
static void check_mask(struct matcher *matcher, const struct trie *trie, const uint32_t *words)
{
    for (int32_t token = 0; token < (int32_t)trie->n_tokens; token++) {
        bool fits = !matcher_accept(matcher, token, NULL);
        if (fits)
            matcher_undo(matcher, 1);
        if (fits != is_set(words, token))
            fail_msg("token %d '%.*s': the mask says %d, trying it %d", token, (int)trie->tokens[token].len,
                     trie->tokens[token].bytes, is_set(words, token), fits);
    }
}

/* A token with which this text can begin. */
static int32_t cut(const struct trie *trie, const char *text)
{
    int32_t chosen = (unsigned char)*text;
    for (int32_t token = 256; token < (int32_t)trie->n_tokens; token++)
        if (trie->tokens[token].len && !strncmp(text, trie->tokens[token].bytes, trie->tokens[token].len) &&
            chance_below(2))
            chosen = token;
    return chosen;
}

static bool takes_tokens(struct automaton *automaton, const struct trie *trie, const char *text,
                         bool checks_masks)
{
    struct matcher *matcher = matcher_of(automaton);
    uint32_t *words = calloc(trie_mask_words(trie) * 2, sizeof *words),
             *again = words + trie_mask_words(trie);
    int32_t end = (int32_t)trie->n_tokens - 1;
    bool fits = true;
    assert_non_null(words);
    while (*text && fits) {
        int32_t token = cut(trie, text);
        assert_int_equal(matcher_mask(matcher, words, NULL), 0);
        if (checks_masks)
            check_mask(matcher, trie, words);
        assert_int_equal(is_set(words, end), matcher_is_complete(matcher));
        fits = is_set(words, token);
        assert_int_equal(matcher_accept(matcher, token, NULL) == 0, fits);
        if (fits) {
            matcher_undo(matcher, 1);
            assert_int_equal(matcher_mask(matcher, again, NULL), 0);
            assert_memory_equal(words, again, trie_mask_words(trie) * sizeof *words);
            assert_int_equal(matcher_accept(matcher, token, NULL), 0);
        }
        text += trie->tokens[token].len;
    }
    if (fits) {
        struct matcher *copy;
        assert_int_equal(matcher_copy(matcher, &copy, NULL), 0);
        fits = !matcher_accept(copy, end, NULL);
        assert_int_equal(fits, matcher_is_complete(matcher));
        if (fits)
            assert_true(matcher_is_over(copy));
        matcher_free(copy);
    }
    matcher_free(matcher);
    free(words);
    return fits;
}

bool constrain_takes(struct automaton *automaton, const struct trie *trie, const char *text)
{
    bool fits = takes_bytes(automaton, text);
    for (unsigned i = 0; i < N_CUTS; i++)
        if (takes_tokens(automaton, trie, text, i == 0) != fits)
            fail_msg("'%s' is %s byte by byte, and not so in tokens", text, fits ? "taken" : "refused");
    return fits;
}

void constrain_check(const struct constrain_case *one,
                     int (*read)(const char *what, struct grammar **grammar, runnel_error *error))
{
    struct grammar *grammar;
    struct automaton *automaton;
    runnel_error error = {0};
    struct trie *trie = constrain_vocabulary(one->good, sizeof one->good / sizeof *one->good);
    if (read(one->what, &grammar, &error) || automaton_create(grammar, trie, &automaton, &error))
        fail_msg("%s: %s", one->what, error.message);
    for (size_t i = 0; i < sizeof one->good / sizeof *one->good && one->good[i]; i++)
        if (!constrain_takes(automaton, trie, one->good[i]))
            fail_msg("%s: refused is '%s'", one->what, one->good[i]);
    for (size_t i = 0; i < sizeof one->bad / sizeof *one->bad && one->bad[i]; i++)
        if (constrain_takes(automaton, trie, one->bad[i]))
            fail_msg("%s: taken is '%s'", one->what, one->bad[i]);
    automaton_release(automaton);
    trie_free(trie);
}

const char *constrain_refusal(const char *what,
                              int (*read)(const char *what, struct grammar **grammar, runnel_error *error))
{
    static runnel_error error;
    struct grammar *grammar;
    struct automaton *automaton = NULL;
    struct trie *trie = constrain_vocabulary(NULL, 0);
    error = (runnel_error){0};
    int code = read(what, &grammar, &error);
    if (!code)
        code = automaton_create(grammar, trie, &automaton, &error);
    automaton_release(automaton);
    trie_free(trie);
    return code ? error.message : NULL;
}
