/* test_tensors.c: the list of a model's tensors against files that have another one: a tensor renamed, so that one is
 * missing and one is left over; two that changed places, so that shapes are wrong; and an architecture without a trait. */
#include "helpers/memory_file.h"
#include "helpers/tiny_model.h"
#include "model/tensors.h"

#include <fcntl.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

enum { N_LAYERS = 2, N_MATRICES = 7, N_VECTORS = 5 /* of a layer, biases included */ };

/* The bytes of a tiny model's file. */
struct file {
    uint8_t *bytes;
    size_t n;
};

static struct file read_tiny_model(const struct tiny_model_options *options)
{
    char path[] = "/tmp/runnel-test-XXXXXX";
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    close(fd);
    runnel_error error;
    if (tiny_model_write(options, path, &error)) /* puts another file in its place */
        fail_msg("%s", error.message);
    fd = open(path, O_RDONLY);
    assert_true(fd >= 0);
    struct file file = {.n = (size_t)lseek(fd, 0, SEEK_END)};
    file.bytes = malloc(file.n);
    assert_non_null(file.bytes);
    assert_int_equal(pread(fd, file.bytes, file.n, 0), file.n);
    close(fd);
    unlink(path);
    return file;
}

/* Gives a tensor another name, as long as its own. */
static void rename_tensor(struct file *file, const char *from, const char *to)
{
    assert_int_equal(strlen(from), strlen(to));
    uint8_t *name = memmem(file->bytes, file->n, from, strlen(from));
    assert_non_null(name);
    memcpy(name, to, strlen(to));
}

/* Binds the file's tensors, as if it were of the architecture (NULL: of its own), and counts them. The layers' table is
 * freed again: what is left in weights are numbers. */
static int bind(const struct file *file, const struct architecture *architecture, struct weights *weights,
                size_t *n_bound, runnel_error *error)
{
    char path[MEMORY_FILE_PATH];
    int fd = memory_file_create(file->bytes, file->n, path);
    assert_true(fd >= 0);
    struct gguf *gguf;
    assert_int_equal(gguf_open(path, &gguf, error), RUNNEL_OK);
    close(fd);
    *weights = (struct weights){.n_parameters = 0};
    assert_int_equal(model_config_read(gguf, &weights->config, error), RUNNEL_OK);
    if (architecture)
        weights->config.architecture = architecture;
    weights->layers = calloc(weights->config.n_layers, sizeof *weights->layers);
    assert_non_null(weights->layers);
    struct tensor_list list;
    int failure = tensors_bind(gguf, weights, &list, error);
    *n_bound = 0;
    if (failure) {
        assert_null(list.slots);
    } else {
        for (size_t i = 0; i < list.n; i++)
            *n_bound += list.slots[i].tensor != NULL;
        tensors_count(&list, weights);
        tensors_free(&list);
    }
    free(weights->layers);
    weights->layers = NULL;
    gguf_close(gguf);
    return failure;
}

static void refused(const struct file *file, const struct architecture *architecture, int code,
                    const char *message)
{
    struct weights weights;
    size_t n_bound;
    runnel_error error;
    int found = bind(file, architecture, &weights, &n_bound, &error);
    if (found != code || strcmp(error.message, message))
        fail_msg("expected code %d and \"%s\", found %d \"%s\"", code, message, found, error.message);
}

static void whole_files_are_bound(void **state)
{
    (void)state;
    for (int i = 0; i < 4; i++) {
        struct tiny_model_options options;
        tiny_model_defaults(&options);
        options.architecture = i & 1 ? "llama" : "qwen2";
        options.biases = i & 2;
        options.tied = i & 2;
        struct file file = read_tiny_model(&options);
        struct weights weights;
        size_t n_bound, n_vectors = options.biases ? N_VECTORS : N_VECTORS - 3;
        runnel_error error;
        if (bind(&file, NULL, &weights, &n_bound, &error))
            fail_msg("%s", error.message);
        assert_int_equal(n_bound, N_LAYERS * (N_MATRICES + n_vectors) + (options.tied ? 2 : 3));
        uint64_t n_hidden = options.n_hidden, n_kv = n_hidden / options.n_heads * options.n_kv_heads;
        uint64_t n_of_a_layer = 2 * n_hidden * n_hidden + 2 * n_hidden * n_kv + 3 * n_hidden * options.n_ffn;
        uint64_t n_of_vectors = 2 * n_hidden + (options.biases ? n_hidden + 2 * n_kv : 0);
        assert_int_equal(weights.n_layer_weights, N_LAYERS * n_of_a_layer);
        assert_int_equal(weights.n_parameters,
                         N_LAYERS * (n_of_a_layer + n_of_vectors) + n_hidden +
                             (options.tied ? 1 : 2) * n_hidden * (uint64_t)TINY_MODEL_TOKENS);
        free(file.bytes);
    }
}

/* What traits bring beyond biases: norms of heads, norms of what is added, factors of rotation. */
static void norms_and_factors_are_bound(void **state)
{
    (void)state;
    static const struct {
        const char *architecture;
        bool rope_factors;
        uint32_t n_head_norms, n_wide_norms; /* of a layer */
    } cases[] = {{"qwen3", false, 2, 2}, {"gemma3", false, 2, 4}, {"llama", true, 0, 2}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct tiny_model_options options;
        tiny_model_defaults(&options);
        options.architecture = cases[i].architecture;
        options.rope_factors = cases[i].rope_factors;
        options.head_dim = 128;
        options.window = 64;
        options.biases = false;
        options.tied = true;
        struct file file = read_tiny_model(&options);
        struct weights weights;
        size_t n_bound;
        runnel_error error;
        if (bind(&file, NULL, &weights, &n_bound, &error))
            fail_msg("%s", error.message);
        uint32_t n_norms = cases[i].n_head_norms + cases[i].n_wide_norms;
        assert_int_equal(n_bound, N_LAYERS * (N_MATRICES + n_norms) + 2 + cases[i].rope_factors);
        assert_int_equal(weights.n_parameters,
                         weights.n_layer_weights + options.n_hidden * (uint64_t)(TINY_MODEL_TOKENS + 1) +
                             (cases[i].rope_factors ? options.head_dim / 2 : 0) +
                             N_LAYERS * ((uint64_t)cases[i].n_head_norms * options.head_dim +
                                         (uint64_t)cases[i].n_wide_norms * options.n_hidden));
        free(file.bytes);
    }
}

/* A norm of another width than a head's, and factors where the architecture has none. */
static void norms_and_factors_have_shapes(void **state)
{
    (void)state;
    struct tiny_model_options options;
    tiny_model_defaults(&options);
    options.architecture = "qwen3";
    options.biases = false;
    options.head_dim = 128;
    struct file file = read_tiny_model(&options);
    rename_tensor(&file, "blk.0.attn_q_norm.weight", "blk.0.attn_?_norm.weight");
    refused(&file, NULL, RUNNEL_EFORMAT,
            "tensor blk.0.attn_q_norm.weight: not in the file, expected [128, 1]");
    free(file.bytes);
    options.rope_factors = true;
    file = read_tiny_model(&options);
    refused(&file, NULL, RUNNEL_EUNSUPPORTED,
            "tensor rope_freqs.weight: not part of a qwen3 model as it is known here");
    free(file.bytes);
}

static void other_lists_are_refused(void **state)
{
    (void)state;
    static const struct {
        const char *from, *to;
        int code;
        const char *message;
    } cases[] = {
        {"blk.0.attn_k.weight", "blk.9.attn_k.weight", RUNNEL_EFORMAT,
         "tensor blk.0.attn_k.weight: not in the file, expected [256, 128]"},
        {"blk.1.ffn_norm.weight", "blk.1.ffn_nork.weight", RUNNEL_EFORMAT,
         "tensor blk.1.ffn_norm.weight: not in the file, expected [256, 1]"},
        {"output_norm.weight", "output_nork.weight", RUNNEL_EFORMAT,
         "tensor output_norm.weight: not in the file, expected [256, 1]"},
        {"blk.0.attn_q.bias", "blk.0.attn_z.bias", RUNNEL_EUNSUPPORTED,
         "tensor blk.0.attn_z.bias: not part of a qwen2 model as it is known here"},
        {"blk.0.attn_q.bias", "blk.7.attn_q.bias", RUNNEL_EFORMAT,
         "tensor blk.7.attn_q.bias: the file announces 2 layers"},
    };
    struct tiny_model_options options;
    tiny_model_defaults(&options);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct file file = read_tiny_model(&options);
        rename_tensor(&file, cases[i].from, cases[i].to);
        refused(&file, NULL, cases[i].code, cases[i].message);
        free(file.bytes);
    }
    struct file file = read_tiny_model(&options);
    rename_tensor(&file, "blk.1.attn_q.weight", "blk.1.attn_?.weight");
    rename_tensor(&file, "blk.1.attn_k.weight", "blk.1.attn_q.weight");
    rename_tensor(&file, "blk.1.attn_?.weight", "blk.1.attn_k.weight");
    refused(&file, NULL, RUNNEL_EFORMAT,
            "tensor blk.1.attn_q.weight: shape [256, 128, 1, 1], expected [256, 256]");
    free(file.bytes);
}

/* What a trait brings is not part of an architecture without it. */
static void traits_bring_tensors(void **state)
{
    (void)state;
    static const struct architecture plain = {.name = "plain"};
    struct tiny_model_options options;
    tiny_model_defaults(&options);
    struct file file = read_tiny_model(&options);
    refused(&file, &plain, RUNNEL_EUNSUPPORTED,
            "tensor blk.0.attn_q.bias: not part of a plain model as it is known here");
    free(file.bytes);
    options.biases = false;
    file = read_tiny_model(&options);
    struct weights weights;
    size_t n_bound;
    runnel_error error;
    if (bind(&file, &plain, &weights, &n_bound, &error))
        fail_msg("%s", error.message);
    free(file.bytes);
}

/* Scores of Gemma's largest model, known by its layers, are divided by another root. */
static void scores_of_62_layers_are_scaled_by_the_width(void **state)
{
    (void)state;
    for (uint32_t n_layers = 61; n_layers <= 63; n_layers++) {
        struct tiny_model_options options;
        tiny_model_defaults(&options);
        tiny_model_set_types(&options, TENSOR_F32);
        options.architecture = "gemma3";
        options.n_layers = n_layers;
        options.n_hidden = 64;
        options.n_ffn = 32;
        options.head_dim = 32;
        options.window = 8;
        options.biases = false;
        struct file file = read_tiny_model(&options);
        struct weights weights;
        size_t n_bound;
        runnel_error error;
        if (bind(&file, NULL, &weights, &n_bound, &error))
            fail_msg("%s", error.message);
        assert_true(weights.config.attention_scale == 1.0f / sqrtf(n_layers == 62 ? 64 / 4 : 32));
        assert_true(weights.config.embedding_scale == 8);
        assert_true(weights.config.window_rope.base == 10000);
        assert_int_equal(model_config_window(&weights.config, 4), 8);
        assert_int_equal(model_config_window(&weights.config, 5), 0);
        free(file.bytes);
    }
}

static void unknown_architectures_are_named(void **state)
{
    (void)state;
    struct tiny_model_options options;
    tiny_model_defaults(&options);
    options.architecture = "starfish";
    struct file file = read_tiny_model(&options);
    char path[MEMORY_FILE_PATH];
    int fd = memory_file_create(file.bytes, file.n, path);
    struct gguf *gguf;
    struct model_config config;
    runnel_error error;
    assert_int_equal(gguf_open(path, &gguf, &error), RUNNEL_OK);
    assert_int_equal(model_config_read(gguf, &config, &error), RUNNEL_EUNSUPPORTED);
    assert_string_equal(
        error.message,
        "key general.architecture: \"starfish\" is not known, expected qwen2, llama, qwen3 or gemma3");
    gguf_close(gguf);
    close(fd);
    free(file.bytes);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(whole_files_are_bound),
        cmocka_unit_test(norms_and_factors_are_bound),
        cmocka_unit_test(norms_and_factors_have_shapes),
        cmocka_unit_test(other_lists_are_refused),
        cmocka_unit_test(traits_bring_tensors),
        cmocka_unit_test(scores_of_62_layers_are_scaled_by_the_width),
        cmocka_unit_test(unknown_architectures_are_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
