/* test_gpu_models.c: the logits of tiny models on a GPU (or PoCL's device) are the CPU's, bit for bit: with each type of tensor, each
 * architecture, in steps of several lengths, with all layers there and with some. Skipped where there is no device. */
#include "helpers/tiny_engine.h"
#include "kernels/quants.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

enum { SKIPPED = 77, N_IDS = 300 /* more than an attention block */ };

struct destination {
    float *logits;
    uint32_t n_vocab;
};

static bool keep(void *user, size_t index, const float *logits)
{
    struct destination *to = user;
    memcpy(to->logits + index * to->n_vocab, logits, to->n_vocab * sizeof *logits);
    return true;
}

/* float [N_IDS, n_vocab], to be freed. */
static float *compute(const char *path, const char *device, uint32_t n_layers, size_t n_chunk,
                      uint32_t *n_vocab)
{
    runnel_model_options opening;
    runnel_model_info info = {.size = sizeof info};
    runnel_model *model = NULL;
    runnel_engine *engine = NULL;
    runnel_error error;
    int32_t ids[N_IDS];
    runnel_model_options_init(&opening);
    opening.device = device;
    opening.gpu_layers = n_layers;
    if (runnel_model_open(path, &opening, &model, &error) ||
        runnel_engine_start(model, NULL, &engine, &error))
        fail_msg("%s", error.message);
    runnel_model_get_info(model, &info);
    struct destination to = {malloc((size_t)N_IDS * info.n_vocab * sizeof(float)), info.n_vocab};
    assert_non_null(to.logits);
    for (int i = 0; i < N_IDS; i++)
        ids[i] = (i * 37 + 11) % TINY_MODEL_TOKENS;
    if (runnel_logits_each(engine, ids, N_IDS, n_chunk, keep, &to, &error))
        fail_msg("%s", error.message);
    runnel_engine_stop(engine);
    runnel_model_close(model);
    *n_vocab = info.n_vocab;
    return to.logits;
}

static void check(const char *name, const char *path, uint32_t n_layers, size_t n_chunk,
                  const float *expected, uint32_t n_vocab)
{
    float *found = compute(path, "gpu", n_layers, n_chunk, &n_vocab);
    for (size_t i = 0; i < (size_t)N_IDS * n_vocab; i++)
        if (memcmp(&found[i], &expected[i], sizeof *found))
            fail_msg("%s, %u layers, steps of %zu: logit %zu of position %zu: %a on the GPU, %a on the CPU",
                     name, n_layers, n_chunk, i % n_vocab, i / n_vocab, (double)found[i],
                     (double)expected[i]);
    free(found);
}

/* With all layers in steps of 64, one and 37; and with the first one alone. */
static void check_model(const char *name, const struct tiny_model_options *options)
{
    char path[] = "/tmp/runnel-gpu-XXXXXX";
    runnel_error error;
    uint32_t n_vocab;
    int file = mkstemp(path);
    assert_true(file >= 0);
    close(file);
    if (tiny_model_write(options, path, &error))
        fail_msg("%s: %s", name, error.message);
    float *expected = compute(path, "cpu", 0, 64, &n_vocab);
    check(name, path, 0, 64, expected, n_vocab);
    check(name, path, 0, 1, expected, n_vocab);
    check(name, path, 1, 37, expected, n_vocab);
    free(expected);
    unlink(path);
}

static void every_type(void **state)
{
    (void)state;
    for (uint32_t type = 0; type < 64; type++) {
        struct tiny_model_options options = tiny_engine_model();
        if (!quant_find(type))
            continue;
        tiny_model_set_types(&options, (enum tensor_type)type);
        check_model(quant_find(type)->name, &options);
    }
}

static void every_architecture(void **state)
{
    (void)state;
    static const struct {
        const char *name, *architecture;
        uint32_t n_layers, n_hidden, n_heads, n_kv_heads, head_dim, n_ffn, window;
        float k_bias;
        bool tied, biases;
    } shapes[] = {
        {"mixed types", "qwen2", 2, 256, 4, 2, 0, 512, 0, 0, false, true},
        {"keys in floats", "qwen2", 2, 256, 4, 2, 0, 512, 0, 400, false, true},
        {"llama", "llama", 2, 256, 4, 1, 0, 512, 0, 0, true, false},
        {"qwen3", "qwen3", 2, 256, 4, 2, 128, 512, 0, 0, false, false},
        {"gemma3", "gemma3", 7, 256, 4, 2, 64, 256, 64, 0, true, false},
        {"gemma3, a window of a block and more", "gemma3", 6, 256, 4, 1, 64, 256, 257, 0, true, false},
    };
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        struct tiny_model_options options = tiny_engine_model();
        options.architecture = shapes[i].architecture;
        options.n_layers = shapes[i].n_layers;
        options.n_hidden = shapes[i].n_hidden;
        options.n_heads = shapes[i].n_heads;
        options.n_kv_heads = shapes[i].n_kv_heads;
        options.head_dim = shapes[i].head_dim;
        options.n_ffn = shapes[i].n_ffn;
        options.window = shapes[i].window;
        options.k_bias = shapes[i].k_bias;
        options.tied = shapes[i].tied;
        options.biases = shapes[i].biases;
        check_model(shapes[i].name, &options);
    }
}

/* Widths that are no whole blocks of 256, and a vocabulary that is no whole tiles. */
static void odd_widths(void **state)
{
    (void)state;
    struct tiny_model_options options = tiny_engine_model();
    tiny_model_set_types(&options, TENSOR_Q8_0);
    options.n_hidden = 96;
    options.n_heads = 3;
    options.n_kv_heads = 1;
    options.n_ffn = 160;
    options.n_vocab = TINY_MODEL_TOKENS + 7;
    check_model("Q8_0, odd", &options);
    tiny_model_set_types(&options, TENSOR_F16);
    options.n_hidden = 90;
    options.n_ffn = 150;
    check_model("F16, odd", &options);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_type),
        cmocka_unit_test(every_architecture),
        cmocka_unit_test(odd_widths),
    };
    if (!tiny_engine_has_gpu()) {
        puts("skipped: no driver shows a GPU, nor is PoCL installed (packages.txt)");
        return SKIPPED;
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
