/* test_architectures.c: each architecture, and each way of scaling rotation, in several shapes: the logits of random models in F32
 * against the same model in double precision (helpers/dense_model.h), and their bits in steps of 1, 37 and 64 tokens and on every
 * instruction set of this machine. */
#include "helpers/dense_model.h"
#include "helpers/tiny_engine.h"
#include "kernels/ops.h"
#include "model/gguf.h"

#include <fcntl.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

enum { N_IDS = 300 /* more than an attention block */, N_STEPS = 3 };

static const size_t steps[N_STEPS] = {64, 1, 37};

/* What a file says of scaling; type NULL: nothing. */
struct scaling {
    const char *type;
    float factor;
    uint32_t n_original;
};

static const struct shape {
    const char *name, *architecture;
    uint32_t n_layers, n_hidden, n_heads, n_kv_heads, head_dim, n_ffn, n_rot;
    uint32_t window;
    struct scaling scaling;
    bool tied, rope_factors;
} shapes[] = {
    {"llama", "llama", 2, 128, 4, 2, .n_ffn = 256},
    {"llama with factors, tied", "llama", 2, 90, 3, 1, .n_ffn = 150, .tied = true, .rope_factors = true},
    {"llama with factors, rotated in part", "llama", 2, 256, 4, 4, .n_ffn = 300, .n_rot = 32,
     .rope_factors = true},
    {"llama, linear", "llama", 2, 96, 4, 2, .n_ffn = 200, .scaling = {"linear", .factor = 4}},
    {"qwen2, yarn", "qwen2", 2, 96, 4, 2, .n_ffn = 200, .scaling = {"yarn", 4, 64}},
    {"qwen2, yarn that stretches little", "qwen2", 2, 64, 2, 1, .head_dim = 80, .n_ffn = 100, .n_rot = 40,
     .tied = true, .scaling = {"yarn", 1.5f, 200}},
    {"qwen3", "qwen3", 2, 128, 4, 2, .head_dim = 64, .n_ffn = 256},
    {"qwen3, odd and tied", "qwen3", 2, 90, 3, 1, .head_dim = 22, .n_ffn = 130, .tied = true},
    {"gemma3", "gemma3", 7, 96, 4, 2, .head_dim = 32, .n_ffn = 160, .window = 64, .tied = true},
    {"gemma3, odd", "gemma3", 8, 90, 3, 1, .head_dim = 22, .n_ffn = 130, .window = 37, .tied = true},
    {"gemma3, linear, a window of a block and more", "gemma3", 6, 64, 4, 1, .head_dim = 64, .n_ffn = 100,
     .window = 257, .tied = true, .scaling = {"linear", .factor = 8}},
    {"gemma3, every row sees itself alone", "gemma3", 7, 60, 2, 2, .head_dim = 30, .n_ffn = 100, .window = 1},
    {"qwen3, yarn", "qwen3", 2, 96, 4, 2, .head_dim = 32, .n_ffn = 200, .scaling = {"yarn", 4, 64}},
};

enum { N_SHAPES = sizeof shapes / sizeof *shapes };

static void add_scaling(struct gguf_writer *writer, void *user)
{
    const struct shape *shape = user;
    char key[96];
    if (!shape->scaling.type)
        return;
    snprintf(key, sizeof key, "%s.rope.scaling.type", shape->architecture);
    gguf_writer_add_string(writer, key, shape->scaling.type);
    snprintf(key, sizeof key, "%s.rope.scaling.factor", shape->architecture);
    gguf_writer_add_f32(writer, key, shape->scaling.factor);
    snprintf(key, sizeof key, "%s.rope.scaling.original_context_length", shape->architecture);
    if (shape->scaling.n_original)
        gguf_writer_add_u32(writer, key, shape->scaling.n_original);
}

static struct tiny_model_options options_of(const struct shape *shape)
{
    struct tiny_model_options options;
    tiny_model_defaults(&options);
    tiny_model_set_types(&options, TENSOR_F32);
    options.architecture = shape->architecture;
    options.n_context = 512;
    options.n_layers = shape->n_layers;
    options.n_hidden = shape->n_hidden;
    options.n_heads = shape->n_heads;
    options.n_kv_heads = shape->n_kv_heads;
    options.head_dim = shape->head_dim;
    options.n_ffn = shape->n_ffn;
    options.rope_dimension_count = shape->n_rot;
    options.rope_base = 1000; /* so that positions of the test turn slow pairs, too */
    options.tied = shape->tied;
    options.biases = !strcmp(shape->architecture, "qwen2");
    options.rope_factors = shape->rope_factors;
    options.window = shape->window;
    options.window_rope_base = shape->window ? 100 : 0;
    options.add_keys = add_scaling;
    options.user = (void *)(uintptr_t)shape;
    return options;
}

/* A model in a file of its own, and tokens. */
struct fixture {
    char path[32];
    int32_t ids[N_IDS];
    size_t n_vocab;
};

static struct fixture make_fixture(const struct shape *shape)
{
    struct fixture fixture = {.path = "/tmp/runnel-test-XXXXXX", .n_vocab = TINY_MODEL_TOKENS};
    struct tiny_model_options options = options_of(shape);
    runnel_error error;
    int fd = mkstemp(fixture.path);
    assert_true(fd >= 0);
    close(fd);
    if (tiny_model_write(&options, fixture.path, &error))
        fail_msg("%s: %s", shape->name, error.message);
    for (int i = 0; i < N_IDS; i++)
        fixture.ids[i] = (i * 37 + i * i % 91 + 11) % TINY_MODEL_TOKENS;
    return fixture;
}

struct destination {
    float *logits;
    size_t n_vocab;
};

static bool keep_logits(void *user, size_t index, const float *logits)
{
    const struct destination *to = user;
    memcpy(to->logits + index * to->n_vocab, logits, to->n_vocab * sizeof *logits);
    return true;
}

/* The logits of the ids, in steps of n_chunk; float [N_IDS, n_vocab], to be freed. */
static float *compute_logits(const struct shape *shape, const struct fixture *fixture, size_t n_chunk)
{
    struct destination to = {.n_vocab = fixture->n_vocab};
    runnel_model *model = NULL;
    runnel_engine *engine = NULL;
    runnel_error error;
    to.logits = malloc(N_IDS * to.n_vocab * sizeof *to.logits);
    assert_non_null(to.logits);
    const runnel_model_options opening = tiny_engine_options();
    if (runnel_model_open(fixture->path, &opening, &model, &error) ||
        runnel_engine_start(model, NULL, &engine, &error) ||
        runnel_logits_each(engine, fixture->ids, N_IDS, n_chunk, keep_logits, &to, &error))
        fail_msg("%s: %s", shape->name, error.message);
    runnel_engine_stop(engine);
    runnel_model_close(model);
    return to.logits;
}

/* The KL divergence of one position's logits from the expected ones. */
static double divergence(const double *expected, const float *logits, size_t n)
{
    double largest = -INFINITY, total = 0, other_largest = -INFINITY, other_total = 0, sum = 0;
    for (size_t i = 0; i < n; i++) {
        largest = fmax(largest, expected[i]);
        other_largest = fmax(other_largest, (double)logits[i]);
    }
    for (size_t i = 0; i < n; i++) {
        total += exp(expected[i] - largest);
        other_total += exp((double)logits[i] - other_largest);
    }
    for (size_t i = 0; i < n; i++) {
        double p = expected[i] - largest - log(total),
               q = (double)logits[i] - other_largest - log(other_total);
        sum += exp(p) * (p - q);
    }
    return sum;
}

/* The likeliest token is the expected one, wherever that leads by more than what rounding keys and values to 12 bits does. */
static void check_likeliest(const char *name, size_t index, const double *expected, const float *logits,
                            size_t n)
{
    size_t first = 0, found = 0;
    double second = -INFINITY;
    for (size_t i = 1; i < n; i++) {
        first = expected[i] > expected[first] ? i : first;
        found = logits[i] > logits[found] ? i : found;
    }
    for (size_t i = 0; i < n; i++)
        if (i != first)
            second = fmax(second, expected[i]);
    if (found != first && expected[first] - second > 5e-3)
        fail_msg("%s: after token %zu the likeliest is %zu, expected %zu", name, index, found, first);
}

static void models_in_f32_are_the_same(void **state)
{
    (void)state;
    for (int s = 0; s < N_SHAPES; s++) {
        struct fixture fixture = make_fixture(&shapes[s]);
        size_t n_vocab;
        double *all = dense_model_logits(fixture.path, fixture.ids, N_IDS, &n_vocab), sum = 0;
        double errors = 0, squares = 0; /* of all logits */
        float *logits = compute_logits(&shapes[s], &fixture, steps[0]);
        assert_non_null(all);
        assert_int_equal(n_vocab, fixture.n_vocab);
        for (size_t i = 0; i < N_IDS; i++) {
            const double *expected = all + i * n_vocab;
            sum += divergence(expected, logits + i * n_vocab, n_vocab);
            check_likeliest(shapes[s].name, i, expected, logits + i * n_vocab, n_vocab);
            for (size_t j = 0; j < n_vocab; j++) {
                double error = (double)logits[i * n_vocab + j] - expected[j];
                errors += error * error;
                squares += expected[j] * expected[j];
            }
        }
        if (!(sum / N_IDS < 1e-6))
            fail_msg("%s: mean KL %g", shapes[s].name, sum / N_IDS);
        if (!(sqrt(errors / squares) < 1e-3)) /* what the likeliest tokens alone do not tell */
            fail_msg("%s: relative error %g", shapes[s].name, sqrt(errors / squares));
        free(logits);
        free(all);
        unlink(fixture.path);
    }
}

/* All lengths on the best instruction set, one on each. */
static void steps_and_instruction_sets_change_no_bit(void **state)
{
    (void)state;
    const struct kernels *levels;
    size_t n_levels = kernels_possible(&levels);
    for (int s = 0; s < N_SHAPES; s++) {
        struct fixture fixture = make_fixture(&shapes[s]);
        size_t n_bytes = N_IDS * fixture.n_vocab * sizeof(float);
        setenv("RUNNEL_CPU", levels[0].name, 1);
        float *expected = compute_logits(&shapes[s], &fixture, steps[0]);
        for (size_t level = 0; level < n_levels; level++)
            for (int i = level + 1 < n_levels ? N_STEPS - 1 : 0; i < N_STEPS; i++) {
                setenv("RUNNEL_CPU", levels[level].name, 1);
                float *logits = compute_logits(&shapes[s], &fixture, steps[i]);
                if (memcmp(logits, expected, n_bytes))
                    fail_msg("%s: other bits with %s in steps of %zu", shapes[s].name, levels[level].name,
                             steps[i]);
                free(logits);
            }
        unsetenv("RUNNEL_CPU");
        free(expected);
        unlink(fixture.path);
    }
}

/* Refusals ------------------------------------------------------------------------------------------------ */

/* A key of a tiny model of llama, and what opening it ends with. */
static const struct refusal {
    const char *key, *text; /* of the text, or of the number */
    float number;
    int code;
    const char *message;
} refusals[] = {
    {"llama.rope.scaling.type", "longrope", 0, RUNNEL_EUNSUPPORTED,
     "key llama.rope.scaling.type: \"longrope\" is not supported, expected \"none\", \"linear\" or \"yarn\""},
    {"llama.rope.scaling.type", "yar", 0, RUNNEL_EUNSUPPORTED,
     "key llama.rope.scaling.type: \"yar\" is not supported, expected \"none\", \"linear\" or \"yarn\""},
    {"llama.rope.scaling.factor", NULL, -2, RUNNEL_EFORMAT,
     "key llama.rope.scaling.factor: -2, expected a finite number above 0"},
    {"llama.rope.scaling.factor", NULL, INFINITY, RUNNEL_EFORMAT,
     "key llama.rope.scaling.factor: inf, expected a finite number above 0"},
    {"llama.rope.scaling.attn_factor", NULL, 0, RUNNEL_EFORMAT,
     "key llama.rope.scaling.attn_factor: 0, expected a finite number above 0"},
    {"llama.final_logit_softcapping", NULL, 30, RUNNEL_EUNSUPPORTED,
     "key llama.final_logit_softcapping: 30 is not supported, expected 0"},
    {"llama.attn_logit_softcapping", NULL, 50, RUNNEL_EUNSUPPORTED,
     "key llama.attn_logit_softcapping: 50 is not supported, expected 0"},
};

static void add_refused(struct gguf_writer *writer, void *user)
{
    const struct refusal *refusal = user;
    if (refusal->text)
        gguf_writer_add_string(writer, refusal->key, refusal->text);
    else
        gguf_writer_add_f32(writer, refusal->key, refusal->number);
}

/* Opening the file fails with a message that ends so: the file's name stands before it. */
static void refused(const char *path, int code, const char *message)
{
    runnel_model *model;
    runnel_error error;
    int found = runnel_model_open(path, NULL, &model, &error);
    size_t n = strlen(error.message), n_expected = strlen(message);
    if (found != code || n < n_expected || strcmp(error.message + n - n_expected, message))
        fail_msg("expected code %d and \"%s\", found %d \"%s\"", code, message, found, error.message);
}

static void model_is_refused(const struct tiny_model_options *options, int code, const char *message)
{
    char path[] = "/tmp/runnel-test-XXXXXX";
    runnel_error error;
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    close(fd);
    assert_int_equal(tiny_model_write(options, path, &error), RUNNEL_OK);
    refused(path, code, message);
    unlink(path);
}

static void unknown_scaling_is_refused(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof refusals / sizeof *refusals; i++) {
        struct tiny_model_options options = options_of(&shapes[0]);
        options.add_keys = add_refused;
        options.user = (void *)(uintptr_t)&refusals[i];
        model_is_refused(&options, refusals[i].code, refusals[i].message);
    }
}

static void add_ext_factor(struct gguf_writer *writer, void *user)
{
    add_scaling(writer, user);
    gguf_writer_add_f32(writer, "qwen2.rope.scaling.yarn_ext_factor", 0.5f);
}

static void half_of_yarn_is_refused(void **state)
{
    (void)state;
    struct shape shape = shapes[0];
    shape.architecture = "qwen2";
    shape.scaling = (struct scaling){"yarn", 4, 64};
    struct tiny_model_options options = options_of(&shape);
    options.add_keys = add_ext_factor;
    model_is_refused(&options, RUNNEL_EUNSUPPORTED,
                     "key qwen2.rope.scaling.yarn_ext_factor: 0.5 is not supported, expected 1");
}

static void windows_must_be_said(void **state)
{
    (void)state;
    struct shape shape = shapes[0];
    shape.architecture = "gemma3";
    struct tiny_model_options options = options_of(&shape);
    model_is_refused(&options, RUNNEL_EFORMAT, "key \"gemma3.attention.sliding_window\" is missing");
}

static void factors_are_numbers_above_zero(void **state)
{
    (void)state;
    static const float values[] = {0, -1, NAN, INFINITY};
    static const char *const shown[] = {"0", "-1", "nan", "inf"};
    for (size_t i = 0; i < sizeof values / sizeof *values; i++) {
        struct tiny_model_options options = options_of(&shapes[1]);
        char path[] = "/tmp/runnel-test-XXXXXX", message[128];
        runnel_error error;
        struct gguf *gguf;
        int fd = mkstemp(path);
        assert_true(fd >= 0);
        close(fd);
        assert_int_equal(tiny_model_write(&options, path, &error), RUNNEL_OK);
        assert_int_equal(gguf_open(path, &gguf, &error), RUNNEL_OK);
        const struct gguf_tensor *factors = gguf_find_tensor(gguf, "rope_freqs.weight");
        assert_non_null(factors);
        fd = open(path, O_WRONLY);
        assert_int_equal(pwrite(fd, &values[i], sizeof values[i], (off_t)factors->offset + 8),
                         sizeof values[i]);
        close(fd);
        gguf_close(gguf);
        snprintf(message, sizeof message,
                 "tensor rope_freqs.weight: value 2 is %s, expected a finite number above 0", shown[i]);
        refused(path, RUNNEL_EFORMAT, message);
        unlink(path);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(models_in_f32_are_the_same),
        cmocka_unit_test(steps_and_instruction_sets_change_no_bit),
        cmocka_unit_test(unknown_scaling_is_refused),
        cmocka_unit_test(half_of_yarn_is_refused),
        cmocka_unit_test(windows_must_be_said),
        cmocka_unit_test(factors_are_numbers_above_zero),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
