/* test_constrain_threads.c: several threads follow texts with matchers of one automaton and of one trie, and compile others on that trie
 * meanwhile. Each mask is that which one thread alone finds; the thread sanitizer watches the rest. */
#include "constrain/schema.h"
#include "helpers/constrain_check.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { N_THREADS = 3, N_TURNS = 12, MAX_TEXT = 160 };

static const char schema[] = "{\"type\":\"object\",\"properties\":{\"a\":{\"type\":\"string\",\"maxLength\":"
                             "20},\"b\":{\"type\":\"array\","
                             "\"items\":{\"$ref\":\"#\"}}},\"additionalProperties\":{\"type\":\"number\"}}";
static const char *const texts[N_THREADS] = {
    "{\"a\": \"some text\", \"b\": [{}, {\"b\": [{\"b\": []}]}], \"c\": 1.5}",
    "{\"b\": [{\"a\":\"\\u00e9\\n\"},{\"z\":-10}], \"yy\": 12e3}",
    "{ \"a\" : \"0123456789\" , \"q\" : 1 , \"r\" : 2 }",
};

struct follower {
    struct automaton *automaton;
    const struct trie *trie;
    const char *text;
    uint32_t *masks; /* [MAX_TEXT, words of a mask] what one thread alone found; NULL: this is that one */
    uint32_t *found;
    bool is_right;
};

/* Small, so that states and masks are forgotten while others stand there. */
static int compile(const struct trie *trie, struct automaton **automaton)
{
    struct constrain_limits limits = CONSTRAIN_LIMITS;
    struct grammar *grammar;
    runnel_error error;
    limits.n_states = 300;
    limits.n_masks = limits.n_insides = 3;
    limits.n_exprs = 1u << 14;
    limits.n_scans = 1u << 12;
    int code = schema_grammar(&limits, schema, strlen(schema), &grammar, &error);
    return code ? code : automaton_create(grammar, trie, automaton, &error);
}

static bool take_text(struct follower *self, struct matcher *matcher)
{
    uint32_t n_words = trie_mask_words(self->trie);
    for (size_t i = 0; self->text[i]; i++) {
        uint32_t *mask = self->found + i * n_words;
        if (matcher_mask(matcher, mask, NULL) ||
            (self->masks && memcmp(mask, self->masks + i * n_words, n_words * sizeof *mask)))
            return false;
        if (matcher_accept(matcher, (unsigned char)self->text[i], NULL))
            return false;
    }
    bool is_complete = matcher_is_complete(matcher);
    matcher_undo(matcher, 1);
    return is_complete && !matcher_is_complete(matcher);
}

static void *follow(void *argument)
{
    struct follower *self = argument;
    self->is_right = true;
    for (unsigned turn = 0; turn < N_TURNS && self->is_right; turn++) {
        struct automaton *own = NULL;
        struct matcher *matcher, *copy;
        self->is_right = !matcher_create(self->automaton, &matcher, NULL);
        if (!self->is_right)
            break;
        self->is_right = !matcher_copy(matcher, &copy, NULL);
        if (self->is_right) {
            self->is_right = take_text(self, matcher) && take_text(self, copy);
            matcher_free(copy);
        }
        matcher_free(matcher);
        if (turn % 4 == 0) {
            self->is_right = self->is_right && !compile(self->trie, &own);
            automaton_release(own);
        }
    }
    automaton_release(self->automaton);
    return NULL;
}

static void test_threads_share_an_automaton(void **state)
{
    struct trie *trie = constrain_vocabulary(texts, N_THREADS);
    struct follower followers[N_THREADS];
    struct automaton *automaton;
    pthread_t threads[N_THREADS];
    size_t size = MAX_TEXT * trie_mask_words(trie) * sizeof(uint32_t);
    (void)state;
    for (unsigned i = 0; i < N_THREADS; i++) {
        struct follower *self = &followers[i];
        *self = (struct follower){.trie = trie, .text = texts[i], .found = malloc(size)};
        assert_true(self->found && strlen(self->text) < MAX_TEXT);
        assert_int_equal(compile(trie, &self->automaton), 0);
        follow(self);
        assert_true(self->is_right);
        self->masks = self->found;
        self->found = malloc(size);
        assert_non_null(self->found);
    }
    assert_int_equal(compile(trie, &automaton), 0);
    for (unsigned i = 0; i < N_THREADS; i++) {
        followers[i].automaton = automaton_acquire(automaton);
        assert_int_equal(pthread_create(&threads[i], NULL, follow, &followers[i]), 0);
    }
    automaton_release(automaton);
    for (unsigned i = 0; i < N_THREADS; i++) {
        pthread_join(threads[i], NULL);
        assert_true(followers[i].is_right);
        free(followers[i].masks);
        free(followers[i].found);
    }
    trie_free(trie);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_threads_share_an_automaton),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
