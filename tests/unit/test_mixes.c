/* test_mixes.c: which type each tensor of a model gets: by layer, by matrix, by width; the same ones as in llama.cpp. */
#include "model/mixes.h"

#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

static struct gguf_tensor matrix(const char *name, uint64_t width)
{
    return (struct gguf_tensor){.name = name, .type = TENSOR_F32, .n_dims = 2, .dims = {width, 64, 1, 1}};
}

/* The type of blk.LAYER.NAME.weight in a model of n_layers. */
static enum tensor_type type_in(const char *mix, struct mix_model model, uint32_t layer, const char *name,
                                uint64_t width)
{
    char full[64];
    snprintf(full, sizeof full, "blk.%u.%s.weight", layer, name);
    struct gguf_tensor tensor = matrix(full, width);
    assert_non_null(mix_find(mix));
    return mix_type_of(mix_find(mix), &model, &tensor);
}

/* The layers, as a string of letters, in which a matrix gets `type`. */
static void assert_layers(const char *mix, struct mix_model model, const char *name, enum tensor_type type,
                          enum tensor_type other, const char *expected)
{
    char found[65] = "";
    for (uint32_t i = 0; i < model.n_layers; i++) {
        enum tensor_type of_layer = type_in(mix, model, i, name, 256);
        assert_true(of_layer == type || of_layer == other);
        found[i] = of_layer == type ? 'x' : '.';
    }
    assert_string_equal(found, expected);
}

static void layers_that_get_more_bits(void **state)
{
    (void)state;
    struct mix_model of_28 = {.n_layers = 28, .n_query_heads_per_kv = 6},
                     of_30 = {.n_layers = 30, .n_query_heads_per_kv = 3};
    static const char half_28[] = "xxx..x..x..x..x..x..x..xxxxx",
                      half_30[] = "xxx..x..x..x..x..x..x..x..xxxx";
    for (int i = 0; i < 2; i++) {
        const char *name = i ? "attn_v" : "ffn_down";
        assert_layers("Q4_K_M", of_28, name, TENSOR_Q6_K, TENSOR_Q4_K, half_28);
        assert_layers("Q5_K_M", of_28, name, TENSOR_Q6_K, TENSOR_Q5_K, half_28);
        assert_layers("Q4_K_M", of_30, name, TENSOR_Q6_K, TENSOR_Q4_K, half_30);
    }
    assert_layers("Q4_K_S", of_28, "attn_v", TENSOR_Q5_K, TENSOR_Q4_K, "xxxx........................");
    assert_layers("Q4_K_S", of_28, "ffn_down", TENSOR_Q5_K, TENSOR_Q4_K, "xxx.........................");
    assert_layers("Q3_K_M", of_28, "attn_v", TENSOR_Q5_K, TENSOR_Q4_K, "xx..........................");
    assert_layers("Q3_K_M", of_28, "ffn_down", TENSOR_Q5_K, TENSOR_Q4_K, "x...........................");
    assert_layers("Q4_K_M", of_28, "ffn_up", TENSOR_Q6_K, TENSOR_Q4_K, "............................");
}

static void shared_heads_and_importance_change_some(void **state)
{
    (void)state;
    struct mix_model shared = {.n_layers = 28, .n_query_heads_per_kv = 6},
                     own = {.n_layers = 28, .n_query_heads_per_kv = 1};
    assert_int_equal(type_in("Q2_K", shared, 9, "attn_v", 256), TENSOR_Q4_K);
    assert_int_equal(type_in("Q2_K", own, 9, "attn_v", 256), TENSOR_Q3_K);
    assert_int_equal(type_in("IQ4_XS", shared, 9, "attn_v", 256), TENSOR_Q5_K);
    assert_int_equal(type_in("IQ4_XS", own, 9, "attn_v", 256), TENSOR_IQ4_XS);
    for (int weighted = 0; weighted < 2; weighted++) {
        own.has_importance = weighted;
        assert_int_equal(type_in("IQ4_NL", own, 2, "ffn_down", 256), weighted ? TENSOR_IQ4_NL : TENSOR_Q5_K);
        assert_int_equal(type_in("Q4_0", own, 2, "ffn_down", 256), weighted ? TENSOR_Q4_1 : TENSOR_Q4_0);
        assert_int_equal(type_in("Q5_0", own, 2, "ffn_down", 256), weighted ? TENSOR_Q5_1 : TENSOR_Q5_0);
        assert_int_equal(type_in("Q4_0", own, 3, "ffn_down", 256), TENSOR_Q4_0);
    }
    struct mix_model large = {.n_layers = 80, .n_query_heads_per_kv = 8};
    assert_int_equal(type_in("Q4_K_M", large, 40, "attn_v", 256), TENSOR_Q5_K);
}

static void widths_that_do_not_fit_get_smaller_blocks(void **state)
{
    (void)state;
    struct mix_model model = {.n_layers = 24, .n_query_heads_per_kv = 7};
    static const struct {
        const char *mix;
        enum tensor_type expected;
    } narrow[] = {
        {"Q6_K", TENSOR_Q8_0},   {"Q5_K_M", TENSOR_Q5_1}, {"Q4_K_M", TENSOR_Q5_0}, {"IQ4_XS", TENSOR_IQ4_NL},
        {"Q3_K_M", TENSOR_Q4_0}, {"Q2_K", TENSOR_Q4_0},   {"Q8_0", TENSOR_Q8_0},   {"F16", TENSOR_F16},
    };
    for (size_t i = 0; i < sizeof narrow / sizeof *narrow; i++) {
        assert_int_equal(type_in(narrow[i].mix, model, 9, "ffn_up", 896), narrow[i].expected);
        assert_int_equal(type_in(narrow[i].mix, model, 9, "ffn_up", 80), TENSOR_F16);
    }
}

static void the_output_gets_more_bits(void **state)
{
    (void)state;
    struct mix_model own = {.n_layers = 4}, tied = {.n_layers = 4, .tied = true};
    struct gguf_tensor output = matrix("output.weight", 256), embedding = matrix("token_embd.weight", 256);
    assert_int_equal(mix_type_of(mix_find("Q4_K_M"), &own, &output), TENSOR_Q6_K);
    assert_int_equal(mix_type_of(mix_find("Q4_K_M"), &own, &embedding), TENSOR_Q4_K);
    assert_int_equal(mix_type_of(mix_find("Q4_K_M"), &tied, &embedding), TENSOR_Q6_K);
    assert_int_equal(mix_type_of(mix_find("Q4_0"), &tied, &embedding), TENSOR_Q6_K);
    assert_int_equal(mix_type_of(mix_find("Q8_0"), &tied, &embedding), TENSOR_Q8_0);
    assert_int_equal(mix_type_of(mix_find("BF16"), &tied, &embedding), TENSOR_BF16);
    embedding.dims[0] = 576;
    assert_int_equal(mix_type_of(mix_find("Q4_0"), &tied, &embedding), TENSOR_Q8_0);
}

static void vectors_norms_and_gates_of_experts_stay(void **state)
{
    (void)state;
    struct gguf_tensor norm = matrix("blk.0.attn_q_norm.weight", 256),
                       gate = matrix("blk.0.ffn_gate_inp.weight", 256);
    struct gguf_tensor bias = matrix("blk.0.attn_q.bias", 256), vector = matrix("rope_freqs.weight", 64);
    struct gguf_tensor covered = matrix("blk.0.attn_q.weight", 256);
    vector.dims[1] = 1;
    assert_true(mix_covers(&covered));
    assert_false(mix_covers(&norm) || mix_covers(&gate) || mix_covers(&bias) || mix_covers(&vector));
}

static void names_are_found_in_any_case(void **state)
{
    (void)state;
    assert_ptr_equal(mix_find("q4_k_m"), mix_find("Q4_K_M"));
    assert_null(mix_find("Q4_K"));
    size_t n = 0;
    for (; mix_at(n); n++)
        assert_ptr_equal(mix_find(mix_at(n)->name), mix_at(n));
    assert_int_equal(n, 16);
}

/* A matrix of a model in a mix, as a line of mixes.txt has it. */
struct line {
    struct mix_model model;
    char mix[16], matrix[64], types[1024];
    uint64_t width;
};

static bool read_line(FILE *file, struct line *line)
{
    unsigned tied, has_importance;
    *line = (struct line){0};
    int n = fscanf(file, "%*s %" SCNu32 " %" SCNu32 " %u %15s %u %63s %" SCNu64 " %1023s",
                   &line->model.n_layers, &line->model.n_query_heads_per_kv, &tied, line->mix,
                   &has_importance, line->matrix, &line->width, line->types);
    if (n != 8)
        return false;
    line->model.tied = tied;
    line->model.has_importance = has_importance;
    return true;
}

static void compare_type(const struct line *line, uint32_t layer, const char *expected)
{
    char name[128];
    const char *of_layer = strstr(line->matrix, "blk.*") ? line->matrix + strlen("blk.*.") : NULL;
    if (of_layer)
        snprintf(name, sizeof name, "blk.%u.%s", layer, of_layer);
    else
        snprintf(name, sizeof name, "%s", line->matrix);
    struct gguf_tensor tensor = matrix(name, line->width);
    assert_true(mix_covers(&tensor));
    enum tensor_type found = mix_type_of(mix_find(line->mix), &line->model, &tensor);
    if (strcmp(quant_find((uint32_t)found)->name, expected) != 0)
        fail_msg("%s, %s importance, %s: expected %s, found %s", line->mix,
                 line->model.has_importance ? "with" : "without", name, expected,
                 quant_find((uint32_t)found)->name);
}

/* The dry runs of data/make_mixes.py. */
static void types_are_those_of_llama_cpp(void **state)
{
    (void)state;
    FILE *file = fopen(TEST_DATA "/mixes.txt", "r");
    struct line line;
    size_t n_lines = 0;
    assert_non_null(file);
    for (; read_line(file, &line); n_lines++) {
        uint32_t layer = 0, n;
        char type[16];
        for (const char *run = line.types; run; run = strchr(run, ',')) {
            run += *run == ',';
            assert_int_equal(sscanf(run, "%15[^*]*%" SCNu32, type, &n), 2);
            for (; n > 0; n--)
                compare_type(&line, layer++, type);
        }
        assert_int_equal(layer, strstr(line.matrix, "blk.*") ? line.model.n_layers : 1);
    }
    assert_true(feof(file) && n_lines > 400);
    fclose(file);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(layers_that_get_more_bits),
        cmocka_unit_test(shared_heads_and_importance_change_some),
        cmocka_unit_test(widths_that_do_not_fit_get_smaller_blocks),
        cmocka_unit_test(the_output_gets_more_bits),
        cmocka_unit_test(vectors_norms_and_gates_of_experts_stay),
        cmocka_unit_test(names_are_found_in_any_case),
        cmocka_unit_test(types_are_those_of_llama_cpp),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
