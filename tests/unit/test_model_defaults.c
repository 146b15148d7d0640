/* test_model_defaults.c: sampling values of a model's file become the defaults of requests, unless no request could have
 * them: then they are left out, and the model says so. */
#include "helpers/tiny_engine.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

struct key {
    const char *name;
    enum { FLOAT, WHOLE } kind;
    double value;
};

static void add_key(struct gguf_writer *writer, void *user)
{
    const struct key *key = user;
    char name[64];
    snprintf(name, sizeof name, "general.sampling.%s", key->name);
    if (key->kind == FLOAT)
        gguf_writer_add_f32(writer, name, (float)key->value);
    else
        gguf_writer_add_i32(writer, name, (int32_t)key->value);
}

/* The defaults of requests to a model whose file has this key; warning is what the model says. */
static runnel_sampling read_defaults(struct key *key, char warning[512])
{
    struct tiny_model_options options = tiny_engine_model();
    options.add_keys = key->name ? add_key : NULL;
    options.user = key;
    runnel_model *model = tiny_engine_open(&options);
    runnel_model_info info = {.size = sizeof info};
    runnel_model_get_info(model, &info);
    runnel_sampling sampling;
    runnel_sampling_init(model, &sampling);
    snprintf(warning, 512, "%s", info.warning);
    runnel_model_close(model);
    return sampling;
}

static void test_left_out(void **state)
{
    struct key bad[] = {{"temp", FLOAT, (double)INFINITY},
                        {"temp", FLOAT, (double)NAN},
                        {"temp", FLOAT, -1},
                        {"temp", FLOAT, 1e30},
                        {"temp", WHOLE, 1},
                        {"top_p", FLOAT, 0},
                        {"top_p", FLOAT, 1.5},
                        {"top_p", FLOAT, (double)NAN},
                        {"min_p", FLOAT, -0.1},
                        {"min_p", FLOAT, (double)INFINITY},
                        {"top_k", WHOLE, -5},
                        {"top_k", FLOAT, 40}};
    struct key none = {0};
    char warning[512];
    (void)state;
    runnel_sampling usual = read_defaults(&none, warning);
    assert_string_equal(warning, "");
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        runnel_sampling found = read_defaults(&bad[i], warning);
        assert_true(found.temperature == usual.temperature && found.top_p == usual.top_p);
        assert_true(found.min_p == usual.min_p && found.top_k == usual.top_k);
        assert_non_null(strstr(warning, bad[i].name));
        assert_non_null(strstr(warning, "expected"));
        assert_non_null(strstr(warning, "found"));
    }
}

static void test_followed(void **state)
{
    struct key good[] = {{"temp", FLOAT, 0},  {"temp", FLOAT, 2},  {"top_p", FLOAT, 1},
                         {"min_p", FLOAT, 0}, {"top_k", WHOLE, 0}, {"top_k", WHOLE, 7}};
    char warning[512];
    (void)state;
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        runnel_sampling found = read_defaults(&good[i], warning);
        double value = good[i].name[0] == 'm'   ? (double)found.min_p
                       : good[i].name[1] == 'e' ? (double)found.temperature
                       : good[i].name[4] == 'p' ? (double)found.top_p
                                                : found.top_k;
        assert_true(value == good[i].value);
        assert_string_equal(warning, "");
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_left_out),
        cmocka_unit_test(test_followed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
