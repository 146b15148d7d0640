/* test_forward.c: what the engine computes, against the same model in double precision, for every shape that
 * loads. */
#include "helpers/dense_model.h"
#include "helpers/tiny_model.h"
#include "runnel.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

enum { N_IDS = 300 /* more than an attention block */ };

struct comparison {
    const double *expected;
    size_t n_vocab;
    double error_sum, magnitude_sum; /* of squares */
};

static bool compare(void *user, size_t index, const float *logits)
{
    struct comparison *comparison = user;
    for (size_t i = 0; i < comparison->n_vocab; i++) {
        double expected = comparison->expected[index * comparison->n_vocab + i];
        comparison->error_sum += (logits[i] - expected) * (logits[i] - expected);
        comparison->magnitude_sum += expected * expected;
    }
    return true;
}

/* Relative root mean square error of all logits of a tiny model. */
static double error_of(const struct tiny_model_options *options)
{
    char path[] = "/tmp/runnel-test-XXXXXX";
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    close(fd);
    runnel_error error;
    runnel_model *model;
    runnel_engine *engine;
    if (tiny_model_write(options, path, &error) || runnel_model_open(path, NULL, &model, &error) ||
        runnel_engine_start(model, NULL, &engine, &error))
        fail_msg("%s", error.message);
    int32_t ids[N_IDS];
    for (int i = 0; i < N_IDS; i++)
        ids[i] = (i * 37 + 11) % TINY_MODEL_TOKENS;
    struct comparison comparison = {0};
    double *expected = dense_model_logits(path, ids, N_IDS, &comparison.n_vocab);
    assert_non_null(expected);
    comparison.expected = expected;
    assert_int_equal(runnel_logits_each(engine, ids, N_IDS, 64, compare, &comparison, &error), RUNNEL_OK);
    free(expected);
    runnel_engine_stop(engine);
    runnel_model_close(model);
    unlink(path);
    assert_true(comparison.magnitude_sum > 0);
    return sqrt(comparison.error_sum / comparison.magnitude_sum);
}

static struct tiny_model_options options_of(enum tensor_type type)
{
    struct tiny_model_options options;
    tiny_model_defaults(&options);
    options.n_context = 512;
    tiny_model_set_types(&options, type);
    return options;
}

/* Weights in f32 meet no quantised activations: what is left is the f16 of the KV cache. */
static void float_models_are_exact(void **state)
{
    (void)state;
    static const struct shape {
        const char *architecture;
        uint32_t n_hidden, n_heads, n_kv_heads, head_dim, n_ffn, n_rot;
        bool tied, biases;
    } shapes[] = {
        {"qwen2", 256, 4, 2, 0, 512, 0, false, true},   {"llama", 256, 4, 2, 0, 512, 0, false, false},
        {"qwen2", 96, 6, 1, 0, 160, 0, true, true},     {"llama", 60, 3, 3, 0, 100, 0, true, false},
        {"qwen2", 64, 2, 1, 80, 128, 40, false, false}, {"llama", 128, 1, 1, 128, 64, 64, true, true},
        {"qwen2", 10, 5, 5, 0, 6, 0, true, true},       {"llama", 64, 14, 2, 64, 96, 0, false, false},
    };
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        struct tiny_model_options options = options_of(TENSOR_F32);
        options.architecture = shapes[i].architecture;
        options.n_hidden = shapes[i].n_hidden;
        options.n_heads = shapes[i].n_heads;
        options.n_kv_heads = shapes[i].n_kv_heads;
        options.head_dim = shapes[i].head_dim;
        options.n_ffn = shapes[i].n_ffn;
        options.rope_dimension_count = shapes[i].n_rot;
        options.tied = shapes[i].tied;
        options.biases = shapes[i].biases;
        double error = error_of(&options);
        if (error > 1e-3)
            fail_msg("shape %zu: relative error %g", i, error);
    }
}

/* Eight bits an activation, with a scale for every 32 or 256 of them, cost some percent. */
static void quantised_models_are_close(void **state)
{
    (void)state;
    static const enum tensor_type types[] = {TENSOR_F16,    TENSOR_BF16,   TENSOR_Q4_0, TENSOR_Q4_1,
                                             TENSOR_Q5_0,   TENSOR_Q5_1,   TENSOR_Q8_0, TENSOR_Q2_K,
                                             TENSOR_Q3_K,   TENSOR_Q4_K,   TENSOR_Q5_K, TENSOR_Q6_K,
                                             TENSOR_IQ4_NL, TENSOR_IQ4_XS, TENSOR_MXFP4};
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        struct tiny_model_options options = options_of(types[i]);
        double error = error_of(&options);
        if (error > 0.05)
            fail_msg("%s: relative error %g", quant_find(types[i])->name, error);
    }
}

/* A mixture, as files for small machines have it, with rows that fill no tile and blocks that are cut short.
 */
static void mixed_models_are_close(void **state)
{
    (void)state;
    struct tiny_model_options options = options_of(TENSOR_Q8_0);
    options.architecture = "llama";
    options.n_hidden = 96;
    options.n_heads = 3;
    options.n_kv_heads = 1;
    options.n_ffn = 288;
    options.gate = options.up = TENSOR_Q4_1;
    options.v = TENSOR_F16;
    options.biases = false;
    options.tied = true;
    assert_true(error_of(&options) < 0.05);
}

/* What files called Q3_K hold of a model whose width is no multiple of 256, and MXFP4 beside it. */
static void narrow_models_are_close(void **state)
{
    (void)state;
    struct tiny_model_options options = options_of(TENSOR_IQ4_NL);
    options.architecture = "llama";
    options.n_hidden = 160;
    options.n_heads = 5;
    options.n_kv_heads = 1;
    options.n_ffn = 768;
    options.down = TENSOR_Q3_K;
    options.up = TENSOR_MXFP4;
    options.v = TENSOR_Q5_0;
    options.output = TENSOR_Q8_0;
    options.biases = false;
    assert_true(error_of(&options) < 0.05);
}

/* The trap of Qwen2's K bias: keys that differ by little around a large constant. In f16 the differences are
 * lost. */
static void large_k_bias_loses_nothing(void **state)
{
    (void)state;
    struct tiny_model_options options = options_of(TENSOR_F32);
    options.biases = true;
    options.k_bias = 350;
    assert_true(error_of(&options) < 4e-3); /* 0.04 with keys in f16 */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(float_models_are_exact),     cmocka_unit_test(quantised_models_are_close),
        cmocka_unit_test(mixed_models_are_close),     cmocka_unit_test(narrow_models_are_close),
        cmocka_unit_test(large_k_bias_loses_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
