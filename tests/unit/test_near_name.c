/* test_near_name.c: which name is suggested for one that is not there, and that none is where none is near. */
#include "base/near_name.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

static const char *const names[] = {"run",  "serve",  "tokenize", "list",  "rm",       "n-tokens",
                                    "temp", "top-p",  "no-think", "n",     "Coder-7B", "chat-template-file",
                                    "?",    "rename", "Q6_K",     "Q4_K_M"};

static const char *nearest(const char *wanted)
{
    static struct near_name near;
    near = near_name_begin(wanted, strlen(wanted));
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        near_name_consider(&near, names[i], strlen(names[i]));
    return near.nearest;
}

static void test_near(void **state)
{
    (void)state;
    static const struct {
        const char *wanted, *name;
    } cases[] = {
        {"srve", "serve"}, /* a letter is missing */
        {"runn", "run"},   /* one too many */
        {"lost", "list"},  /* a wrong one */
        {"rnu", "run"},    /* two that are swapped, which count as one */
        {"SERVE", "serve"},
        {"coder-7b", "Coder-7B"}, /* capital letters do not count */
        {"token", "tokenize"},    /* a beginning */
        {"renam", "rename"},      /* not rm, which is farther */
        {"to", "tokenize"},       /* of two beginnings the first */
        {"q4-k", "Q4_K_M"},       /* a beginning, not Q6_K, where one letter is wrong */
        {"top_p", "top-p"},
        {"no-thinking", "no-think"},
        {"chat-tmplate-fil", "chat-template-file"},
        /* words of other programs */
        {"ls", "list"},
        {"LS", "list"},
        {"remove", "rm"},
        {"max_tokens", "n-tokens"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        if (strcmp(nearest(cases[i].wanted), cases[i].name) != 0)
            fail_msg("'%s': expected '%s', found '%s'", cases[i].wanted, cases[i].name,
                     nearest(cases[i].wanted));
}

static void test_far(void **state)
{
    (void)state;
    static const char *const cases[] = {
        "",        "x", "zz", "foo", "frobnicate", "sxxvx", "tokenizexxxx",
        "download"}; /* the last is another program's word for a name that is not here */
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        if (*nearest(cases[i]))
            fail_msg("'%s': expected nothing, found '%s'", cases[i], nearest(cases[i]));
}

/* A name that does not fit is near to none, and is none's nearest. */
static void test_long(void **state)
{
    (void)state;
    char wanted[NEAR_NAME_MAX + 2];
    memset(wanted, 'a', sizeof wanted);
    struct near_name near = near_name_begin(wanted, NEAR_NAME_MAX);
    near_name_consider(&near, wanted, NEAR_NAME_MAX + 1);
    assert_string_equal(near.nearest, "");
    near_name_consider(&near, wanted, NEAR_NAME_MAX - 1);
    assert_int_equal(strlen(near.nearest), NEAR_NAME_MAX - 1);
    near = near_name_begin(wanted, NEAR_NAME_MAX + 1);
    near_name_consider(&near, wanted, NEAR_NAME_MAX);
    assert_string_equal(near.nearest, "");
}

/* Only as many bytes count as were named: `--top_p=1`. */
static void test_lengths(void **state)
{
    (void)state;
    struct near_name near = near_name_begin("top_p=1", 5);
    near_name_consider(&near, "top-p.gguf", 5);
    assert_string_equal(near.nearest, "top-p");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_near),
        cmocka_unit_test(test_far),
        cmocka_unit_test(test_long),
        cmocka_unit_test(test_lengths),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
