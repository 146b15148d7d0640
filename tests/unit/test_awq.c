/* test_awq.c: scales folded into a model change nothing that it computes, and make its rounded weights better; what must not be
 * scaled is left alone. On tiny models in F32, computed in double precision by helpers/dense_model. */
#include "model/awq.h"

#include "helpers/dense_model.h"
#include "helpers/tiny_model.h"
#include "model/gguf_write.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

enum { N_IDS = 20, BLOCK = 32 };

static char path[] = "/tmp/runnel-awq-XXXXXX", folded_path[] = "/tmp/runnel-awq-folded-XXXXXX",
            other_path[] = "/tmp/runnel-awq-other-XXXXXX";

/* Four bits a value, with a scale for each block. */
static void round_row(void *user, size_t tensor, const float *importance, float *values, void *scratch)
{
    const struct gguf *gguf = user;
    size_t n = (size_t)gguf_tensor_at(gguf, tensor)->dims[0];
    (void)importance;
    (void)scratch;
    for (size_t begin = 0; begin < n; begin += BLOCK) {
        size_t end = begin + BLOCK < n ? begin + BLOCK : n;
        float largest = 0;
        for (size_t i = begin; i < end; i++)
            largest = fmaxf(largest, fabsf(values[i]));
        float step = largest / 7;
        for (size_t i = begin; i < end && step > 0; i++)
            values[i] = rintf(values[i] / step) * step;
    }
}

static void round_nothing(void *user, size_t tensor, const float *importance, float *values, void *scratch)
{
    (void)user;
    (void)tensor;
    (void)importance;
    (void)values;
    (void)scratch;
}

/* A mean square for every matrix's inputs: a few are much larger than the others. Matrices that share inputs have the same. */
static float **make_importance(const struct gguf *gguf)
{
    float **importance = calloc(gguf_n_tensors(gguf), sizeof *importance);
    assert_non_null(importance);
    for (size_t i = 0; i < gguf_n_tensors(gguf); i++) {
        const struct gguf_tensor *tensor = gguf_tensor_at(gguf, i);
        if (tensor->n_dims != 2)
            continue;
        importance[i] = malloc((size_t)tensor->dims[0] * sizeof(float));
        assert_non_null(importance[i]);
        for (size_t j = 0; j < tensor->dims[0]; j++)
            importance[i][j] = (float)(j % 37 == 5   ? 900
                                       : j % 11 == 3 ? 16
                                                     : 0.5 + (double)(j * 7 % 13) / 10);
    }
    return importance;
}

static void free_importance(float **importance, const struct gguf *gguf)
{
    for (size_t i = 0; i < gguf_n_tensors(gguf); i++)
        free(importance[i]);
    free(importance);
}

static struct gguf *open_model(const char *name)
{
    struct gguf *gguf;
    runnel_error error;
    if (gguf_open(name, &gguf, &error))
        fail_msg("%s", error.message);
    return gguf;
}

/* All values of a tensor in F32. */
static float *read_tensor(const struct gguf *gguf, size_t i)
{
    const struct gguf_tensor *tensor = gguf_tensor_at(gguf, i);
    float *values = malloc((size_t)tensor->n_bytes);
    assert_non_null(values);
    assert_int_equal(tensor->type, TENSOR_F32);
    assert_int_equal(gguf_read(gguf, tensor->offset, values, (size_t)tensor->n_bytes, NULL), RUNNEL_OK);
    return values;
}

static uint64_t n_rows(const struct gguf_tensor *tensor)
{
    return tensor->dims[1] * tensor->dims[2] * tensor->dims[3];
}

static int fill(void *arg, uint64_t offset, void *buffer, size_t n, runnel_error *error)
{
    (void)error;
    memcpy(buffer, (const char *)arg + offset, n);
    return RUNNEL_OK;
}

/* Writes the model with each row changed, and, if extra is a name, a vector of 8 values more. */
static void write_copy(const struct gguf *gguf, const char *to, const char *extra,
                       void (*change)(void *user, size_t i, uint64_t row, float *values), void *user)
{
    static float extra_values[8];
    struct gguf_writer *writer = gguf_writer_create();
    size_t n = gguf_n_tensors(gguf);
    float **values = calloc(n, sizeof *values);
    runnel_error error;
    for (size_t i = 0; i < gguf_n_keys(gguf); i++)
        if (strcmp(gguf_key_name(gguf, i), "general.alignment") != 0)
            gguf_writer_add_copy(writer, gguf, i);
    for (size_t i = 0; i < n; i++) {
        const struct gguf_tensor *tensor = gguf_tensor_at(gguf, i);
        values[i] = read_tensor(gguf, i);
        for (uint64_t row = 0; change && row < n_rows(tensor); row++)
            change(user, i, row, values[i] + row * tensor->dims[0]);
        gguf_writer_add_tensor(writer, tensor->name, TENSOR_F32, tensor->n_dims, tensor->dims, fill,
                               values[i]);
    }
    if (extra)
        gguf_writer_add_tensor(writer, extra, TENSOR_F32, 1, (uint64_t[]){8}, fill, extra_values);
    if (gguf_writer_save(writer, to, &error))
        fail_msg("%s", error.message);
    gguf_writer_free(writer);
    for (size_t i = 0; i < n; i++)
        free(values[i]);
    free(values);
}

/* Writes the model with other values everywhere, and another shape for one tensor. */
static void write_reshaped(const struct gguf *gguf, const char *to, const char *name, uint32_t n_dims,
                           const uint64_t *dims)
{
    static float values[1 << 16];
    uint32_t random = 1;
    for (size_t i = 0; i < sizeof values / sizeof *values; i++) {
        random = random * 1664525u + 1013904223u;
        values[i] = (float)random / (float)UINT32_MAX - 0.5f;
    }
    struct gguf_writer *writer = gguf_writer_create();
    runnel_error error;
    for (size_t i = 0; i < gguf_n_keys(gguf); i++)
        if (strcmp(gguf_key_name(gguf, i), "general.alignment") != 0)
            gguf_writer_add_copy(writer, gguf, i);
    for (size_t i = 0; i < gguf_n_tensors(gguf); i++) {
        const struct gguf_tensor *tensor = gguf_tensor_at(gguf, i);
        bool is_it = !strcmp(tensor->name, name);
        assert_true(tensor->n_bytes <= sizeof values);
        gguf_writer_add_tensor(writer, tensor->name, TENSOR_F32, is_it ? n_dims : tensor->n_dims,
                               is_it ? dims : tensor->dims, fill, values);
    }
    if (gguf_writer_save(writer, to, &error))
        fail_msg("%s", error.message);
    gguf_writer_free(writer);
}

static void fold(void *user, size_t i, uint64_t row, float *values)
{
    awq_change_row(user, i, row, values);
}

static double *logits_of(const char *name, size_t *n)
{
    int32_t ids[N_IDS];
    for (int i = 0; i < N_IDS; i++)
        ids[i] = (i * 37 + 11) % TINY_MODEL_TOKENS;
    double *logits = dense_model_logits(name, ids, N_IDS, n);
    assert_non_null(logits);
    *n *= N_IDS;
    return logits;
}

/* Relative root mean square difference of the logits of the folded model from those of the model. */
static double find_difference(void)
{
    size_t n, n_folded;
    double *expected = logits_of(path, &n), *found = logits_of(folded_path, &n_folded), off = 0, whole = 0;
    assert_int_equal(n, n_folded);
    for (size_t i = 0; i < n; i++) {
        off += (found[i] - expected[i]) * (found[i] - expected[i]);
        whole += expected[i] * expected[i];
    }
    free(expected);
    free(found);
    return sqrt(off / whole);
}

static struct awq *search(const struct gguf *gguf, float **importance, unsigned n_threads)
{
    struct awq *awq;
    runnel_error error;
    const struct awq_options options = {
        .from = gguf,
        .importance = (const float *const *)importance,
        .round_row = round_row,
        .user = (void *)(uintptr_t)gguf,
        .n_threads = n_threads,
    };
    if (awq_search(&options, &awq, &error))
        fail_msg("%s", error.message);
    return awq;
}

static void make_model(const struct tiny_model_options *options)
{
    runnel_error error;
    if (tiny_model_write(options, path, &error))
        fail_msg("%s", error.message);
}

static struct tiny_model_options options_of(const char *architecture)
{
    struct tiny_model_options options;
    tiny_model_defaults(&options);
    tiny_model_set_types(&options, TENSOR_F32);
    options.architecture = architecture;
    return options;
}

static const struct shape {
    const char *architecture;
    uint32_t n_hidden, n_heads, n_kv_heads, head_dim, n_ffn;
    bool tied, biases, rope_factors;
    uint32_t window;
} shapes[] = {
    {"qwen2", 256, 4, 2, 0, 512, false, true, false, 0},  /* two heads share keys and values */
    {"qwen2", 96, 6, 1, 0, 160, true, true, false, 0},    /* all do */
    {"llama", 60, 3, 3, 0, 100, true, false, false, 0},   /* none do */
    {"llama", 96, 6, 2, 0, 160, false, true, true, 0},    /* with biases and a factor for each rotated pair */
    {"qwen2", 64, 2, 1, 80, 128, false, true, false, 0},  /* heads that are wider than their share */
    {"qwen3", 64, 4, 2, 32, 128, false, false, false, 0}, /* norms of heads between products and rotation */
    {"gemma3", 64, 4, 2, 32, 128, true, false, false, 8}, /* ... and of outputs; GELU */
};

static void make_shape(const struct shape *shape)
{
    struct tiny_model_options options = options_of(shape->architecture);
    options.n_hidden = shape->n_hidden;
    options.n_heads = shape->n_heads;
    options.n_kv_heads = shape->n_kv_heads;
    options.head_dim = shape->head_dim;
    options.n_ffn = shape->n_ffn;
    options.tied = shape->tied;
    options.biases = shape->biases;
    options.rope_factors = shape->rope_factors;
    options.window = shape->window;
    make_model(&options);
}

/* What is left is the rounding of the folded weights to f32. */
static void the_folded_model_computes_the_same(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        make_shape(&shapes[i]);
        struct gguf *gguf = open_model(path);
        float **importance = make_importance(gguf);
        struct awq *awq = search(gguf, importance, 2);
        struct awq_summary summary;
        awq_get_summary(awq, &summary);
        assert_int_equal(summary.n_places, 2 * 4);
        assert_int_equal(summary.n_scaled, summary.n_places); /* else nothing is tested */
        assert_true(summary.error < 0.9);
        write_copy(gguf, folded_path, NULL, fold, awq);
        double difference = find_difference();
        if (difference > 1e-6)
            fail_msg("shape %zu: relative difference %g", i, difference);
        awq_free(awq);
        free_importance(importance, gguf);
        gguf_close(gguf);
    }
}

/* Every place scales: its matrices, what comes before them, a bias; and nothing else. */
static void what_is_scaled(void **state)
{
    (void)state;
    static const char *const same[] = {"token_embd.weight", "output.weight", "output_norm.weight",
                                       "blk.0.attn_q.bias", "blk.1.attn_k.bias"};
    make_shape(&shapes[0]);
    struct gguf *gguf = open_model(path);
    float **importance = make_importance(gguf);
    struct awq *awq = search(gguf, importance, 1);
    size_t n_same = 0;
    for (size_t i = 0; i < gguf_n_tensors(gguf); i++) {
        const char *name = gguf_tensor_at(gguf, i)->name;
        bool is_same = strstr(name, "attn_q.bias") || strstr(name, "attn_k.bias");
        for (size_t j = 0; j < sizeof same / sizeof *same; j++)
            is_same = is_same || !strcmp(name, same[j]);
        if (awq_changes(awq, i) == is_same)
            fail_msg("%s: %s", name, is_same ? "changes" : "stays");
        n_same += is_same;
    }
    assert_int_equal(n_same, 3 + 2 * 2);
    awq_free(awq);
    free_importance(importance, gguf);
    gguf_close(gguf);
}

/* Sum over all matrices of importance * (what a row is after folding and rounding, unfolded - what it was)^2, relative. */
static double error_of(const struct gguf *gguf, const struct awq *awq, float **importance)
{
    double error = 0;
    for (size_t i = 0; i < gguf_n_tensors(gguf); i++) {
        const struct gguf_tensor *tensor = gguf_tensor_at(gguf, i);
        if (tensor->n_dims != 2 || strncmp(tensor->name, "blk.", 4) != 0)
            continue;
        size_t n = (size_t)tensor->dims[0];
        float *values = read_tensor(gguf, i), *row = malloc(n * sizeof *row),
              *scaled = malloc(n * sizeof *scaled);
        float *weight = malloc(n * sizeof *weight);
        double off = 0, whole = 0;
        memcpy(weight, importance[i], n * sizeof *weight);
        if (awq)
            awq_change_importance(awq, i, weight);
        for (uint64_t r = 0; r < tensor->dims[1]; r++) {
            memcpy(scaled, values + r * n, n * sizeof *scaled);
            if (awq)
                awq_change_row(awq, i, r, scaled);
            memcpy(row, scaled, n * sizeof *row);
            round_row((void *)(uintptr_t)gguf, i, NULL, row, NULL);
            for (size_t j = 0; j < n; j++) {
                off += (double)weight[j] * pow((double)row[j] - (double)scaled[j], 2);
                whole += (double)weight[j] * pow((double)scaled[j], 2);
            }
        }
        error += off / whole;
        free(values);
        free(row);
        free(scaled);
        free(weight);
    }
    return error;
}

static void rounded_weights_are_better(void **state)
{
    (void)state;
    make_shape(&shapes[0]);
    struct gguf *gguf = open_model(path);
    float **importance = make_importance(gguf);
    struct awq *awq = search(gguf, importance, 2);
    double with = error_of(gguf, awq, importance), without = error_of(gguf, NULL, importance);
    if (with > 0.8 * without)
        fail_msg("with scales %g, without %g", with, without);
    awq_free(awq);
    free_importance(importance, gguf);
    gguf_close(gguf);
}

/* Every fifth column of the matrices is much wider than the others. */
static void widen_columns(void *user, size_t i, uint64_t row, float *values)
{
    const struct gguf_tensor *tensor = gguf_tensor_at(user, i);
    (void)row;
    for (uint64_t j = 0; tensor->n_dims == 2 && j < tensor->dims[0]; j += 5)
        values[j] *= 8;
}

/* Inputs of one size say nothing, but wide columns make the steps of narrow ones beside them wide. */
static void columns_of_different_sizes_are_better(void **state)
{
    (void)state;
    make_shape(&shapes[0]);
    struct gguf *even = open_model(path);
    write_copy(even, other_path, NULL, widen_columns, even);
    struct gguf *gguf = open_model(other_path);
    float **importance = make_importance(gguf);
    for (size_t i = 0; i < gguf_n_tensors(gguf); i++)
        for (size_t j = 0; importance[i] && j < gguf_tensor_at(gguf, i)->dims[0]; j++)
            importance[i][j] = 2;
    struct awq *awq = search(gguf, importance, 2);
    double with = error_of(gguf, awq, importance), without = error_of(gguf, NULL, importance);
    if (with > 0.8 * without)
        fail_msg("with scales %g, without %g", with, without);
    awq_free(awq);
    free_importance(importance, gguf);
    gguf_close(gguf);
    gguf_close(even);
}

/* What is not known might read the same inputs. */
static void an_unknown_tensor_leaves_its_layer_alone(void **state)
{
    (void)state;
    make_shape(&shapes[0]);
    struct gguf *known = open_model(path);
    write_copy(known, other_path, "blk.0.attn_norm.bias", NULL, NULL);
    struct gguf *gguf = open_model(other_path);
    float **importance = make_importance(gguf);
    struct awq *awq = search(gguf, importance, 2);
    struct awq_summary summary;
    awq_get_summary(awq, &summary);
    assert_int_equal(summary.n_places, 4);
    assert_int_equal(summary.n_scaled, 4);
    for (size_t i = 0; i < gguf_n_tensors(gguf); i++)
        if (!strncmp(gguf_tensor_at(gguf, i)->name, "blk.0.", 6))
            assert_false(awq_changes(awq, i));
    awq_free(awq);
    free_importance(importance, gguf);
    gguf_close(gguf);
    gguf_close(known);
}

static bool is_changed(const struct gguf *gguf, const struct awq *awq, const char *name)
{
    size_t i = 0;
    while (strcmp(gguf_tensor_at(gguf, i)->name, name) != 0)
        i++;
    return awq_changes(awq, i);
}

/* No loader has looked at these tensors: a search must not go past their ends. */
static void another_shape_leaves_its_place_alone(void **state)
{
    static const struct {
        const char *name;
        uint32_t n_dims;
        uint64_t dims[4];
    } others[] = {
        {"blk.0.attn_v.bias", 1, {64, 1, 1, 1}},          /* more values than rows of the matrix */
        {"blk.0.attn_v.weight", 3, {96, 16, 2, 1}},       /* twice the rows */
        {"blk.0.attn_output.weight", 2, {100, 96, 1, 1}}, /* no whole number of heads */
    };
    (void)state;
    make_shape(&shapes[1]);
    struct gguf *known = open_model(path);
    for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
        write_reshaped(known, other_path, others[i].name, others[i].n_dims, others[i].dims);
        struct gguf *gguf = open_model(other_path);
        float **importance = make_importance(gguf);
        struct awq *awq = search(gguf, importance, 1);
        assert_false(is_changed(gguf, awq, "blk.0.attn_output.weight"));
        assert_true(is_changed(gguf, awq, "blk.1.attn_output.weight"));
        awq_free(awq);
        free_importance(importance, gguf);
        gguf_close(gguf);
    }
    gguf_close(known);
}

static void threads_change_nothing(void **state)
{
    (void)state;
    make_shape(&shapes[1]);
    struct gguf *gguf = open_model(path);
    float **importance = make_importance(gguf);
    struct awq *one = search(gguf, importance, 1), *four = search(gguf, importance, 4);
    for (size_t i = 0; i < gguf_n_tensors(gguf); i++) {
        const struct gguf_tensor *tensor = gguf_tensor_at(gguf, i);
        float *a = read_tensor(gguf, i), *b = read_tensor(gguf, i);
        for (uint64_t row = 0; row < n_rows(tensor); row++) {
            awq_change_row(one, i, row, a + row * tensor->dims[0]);
            awq_change_row(four, i, row, b + row * tensor->dims[0]);
        }
        assert_memory_equal(a, b, (size_t)tensor->n_bytes);
        free(a);
        free(b);
    }
    awq_free(one);
    awq_free(four);
    free_importance(importance, gguf);
    gguf_close(gguf);
}

/* Where nothing is known of the inputs, or nothing is gained, all stays as it is. */
static void nothing_changes_without_a_reason(void **state)
{
    (void)state;
    make_shape(&shapes[0]);
    struct gguf *gguf = open_model(path);
    float **importance = make_importance(gguf), **none = calloc(gguf_n_tensors(gguf), sizeof *none);
    struct awq *unknown = search(gguf, none, 1), *exact;
    const struct awq_options options = {.from = gguf,
                                        .importance = (const float *const *)importance,
                                        .round_row = round_nothing,
                                        .n_threads = 1};
    assert_int_equal(awq_search(&options, &exact, NULL), RUNNEL_OK);
    for (size_t i = 0; i < gguf_n_tensors(gguf); i++) {
        for (size_t j = 0; importance[i] && j < gguf_tensor_at(gguf, i)->dims[0]; j++)
            importance[i][j] = 0;
        assert_false(awq_changes(unknown, i));
        assert_false(awq_changes(exact, i));
    }
    struct awq *dead = search(gguf, importance, 1); /* no input is ever anything but 0 */
    for (size_t i = 0; i < gguf_n_tensors(gguf); i++)
        assert_false(awq_changes(dead, i));
    awq_free(unknown);
    awq_free(exact);
    awq_free(dead);
    free_importance(importance, gguf);
    free(none);
    gguf_close(gguf);
}

static bool stop_at_second(void *user, uint64_t done, uint64_t total)
{
    (void)user;
    assert_int_equal(total, 8);
    return done < 2;
}

static void it_can_be_stopped(void **state)
{
    (void)state;
    make_shape(&shapes[1]);
    struct gguf *gguf = open_model(path);
    float **importance = make_importance(gguf);
    struct awq *awq = NULL;
    runnel_error error;
    const struct awq_options options = {
        .from = gguf,
        .importance = (const float *const *)importance,
        .round_row = round_row,
        .on_progress = stop_at_second,
        .user = gguf,
        .n_threads = 1,
    };
    assert_int_equal(awq_search(&options, &awq, &error), RUNNEL_ECANCELLED);
    assert_null(awq);
    free_importance(importance, gguf);
    gguf_close(gguf);
}

static int make_files(void **state)
{
    (void)state;
    int fd = mkstemp(path), folded = mkstemp(folded_path), other = mkstemp(other_path);
    return fd < 0 || folded < 0 || other < 0 || close(fd) || close(folded) || close(other);
}

static int remove_files(void **state)
{
    (void)state;
    return unlink(path) | unlink(folded_path) | unlink(other_path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_folded_model_computes_the_same),
        cmocka_unit_test(what_is_scaled),
        cmocka_unit_test(rounded_weights_are_better),
        cmocka_unit_test(columns_of_different_sizes_are_better),
        cmocka_unit_test(an_unknown_tensor_leaves_its_layer_alone),
        cmocka_unit_test(another_shape_leaves_its_place_alone),
        cmocka_unit_test(threads_change_nothing),
        cmocka_unit_test(nothing_changes_without_a_reason),
        cmocka_unit_test(it_can_be_stopped),
    };
    return cmocka_run_group_tests(tests, make_files, remove_files);
}
