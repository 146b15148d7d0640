/* test_quants.c: decoding of every tensor type against fixtures that an independent decoder made
 * (data/quants/make.py), conversions of half floats exhaustively. */
#include "kernels/quants.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* The whole of a fixture; the caller frees it. */
static unsigned char *load_fixture(const char *name, size_t *n_bytes)
{
    char path[512];
    snprintf(path, sizeof path, "%s/quants/%s.bin", TEST_DATA, name);
    FILE *file = fopen(path, "rb");
    assert_non_null(file);
    assert_int_equal(fseek(file, 0, SEEK_END), 0);
    *n_bytes = (size_t)ftell(file);
    rewind(file);
    unsigned char *bytes = malloc(*n_bytes);
    assert_non_null(bytes);
    assert_int_equal(fread(bytes, 1, *n_bytes, file), *n_bytes);
    fclose(file);
    return bytes;
}

static uint32_t bits_of(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

static const struct {
    enum tensor_type type;
    const char *name;
} all_types[] = {
    {TENSOR_F32, "F32"},   {TENSOR_F16, "F16"},       {TENSOR_BF16, "BF16"},     {TENSOR_Q8_0, "Q8_0"},
    {TENSOR_Q4_0, "Q4_0"}, {TENSOR_Q4_1, "Q4_1"},     {TENSOR_Q5_0, "Q5_0"},     {TENSOR_Q5_1, "Q5_1"},
    {TENSOR_Q4_K, "Q4_K"}, {TENSOR_Q5_K, "Q5_K"},     {TENSOR_Q6_K, "Q6_K"},     {TENSOR_Q2_K, "Q2_K"},
    {TENSOR_Q3_K, "Q3_K"}, {TENSOR_IQ4_NL, "IQ4_NL"}, {TENSOR_IQ4_XS, "IQ4_XS"}, {TENSOR_MXFP4, "MXFP4"},
};
enum { N_TYPES = sizeof all_types / sizeof *all_types };

static void decoding_equals_the_independent_decoder(void **state)
{
    (void)state;
    for (size_t t = 0; t < N_TYPES; t++) {
        size_t n_bytes;
        unsigned char *fixture = load_fixture(all_types[t].name, &n_bytes);
        uint32_t head[4]; /* type, values a block, bytes a block, blocks */
        memcpy(head, fixture, sizeof head);
        const struct quant_info *info = quant_find(head[0]);
        assert_non_null(info);
        assert_int_equal(info->type, all_types[t].type);
        assert_string_equal(info->name, all_types[t].name);
        assert_int_equal(info->block_values, head[1]);
        assert_int_equal(info->block_bytes, head[2]);
        size_t n = (size_t)head[1] * head[3], block_bytes = (size_t)head[2] * head[3];
        assert_true(n >= 64);
        assert_int_equal(n_bytes, sizeof head + block_bytes + n * sizeof(float));

        /* At an odd address: blocks in a file need not be aligned. Behind the last value a guard. */
        unsigned char *blocks = malloc(block_bytes + 1);
        float *decoded = malloc((n + 1) * sizeof *decoded);
        memcpy(blocks + 1, fixture + sizeof head, block_bytes);
        decoded[n] = 12345;
        quant_decode(info->type, blocks + 1, n, decoded);
        assert_true(decoded[n] == 12345);
        for (size_t i = 0; i < n; i++) {
            float expected;
            memcpy(&expected, fixture + sizeof head + block_bytes + i * sizeof expected, sizeof expected);
            /* Equal in value; a zero may differ in sign. */
            if (!(decoded[i] == expected))
                fail_msg("%s value %zu: expected %.9g, found %.9g", info->name, i, (double)expected,
                         (double)decoded[i]);
        }
        free(decoded);
        free(blocks);
        free(fixture);
    }
}

static void only_known_types_are_found(void **state)
{
    (void)state;
    size_t n_found = 0;
    for (uint32_t type = 0; type < 300; type++) {
        const struct quant_info *info = quant_find(type);
        if (!info)
            continue;
        n_found++;
        assert_int_equal(info->type, type);
        assert_non_null(strstr(quant_known_names(), info->name));
    }
    assert_int_equal(n_found, N_TYPES);
    assert_null(quant_find(UINT32_MAX));
}

static void half_floats_widen_exactly(void **state)
{
    (void)state;
    size_t n_bytes;
    unsigned char *fixture = load_fixture("f16", &n_bytes);
    assert_int_equal(n_bytes, 65536 * sizeof(float));
    for (uint32_t half = 0; half < 65536; half++) {
        float expected, found = f16_to_f32((uint16_t)half);
        memcpy(&expected, fixture + half * sizeof expected, sizeof expected);
        if (isnan(expected))
            assert_true(isnan(found));
        else
            assert_int_equal(bits_of(found), bits_of(expected));
    }
    free(fixture);
}

static void half_floats_survive_a_round_trip(void **state)
{
    (void)state;
    for (uint32_t half = 0; half < 65536; half++) {
        float wide = f16_to_f32((uint16_t)half);
        uint16_t back = f32_to_f16(wide);
        if (isnan(wide)) {
            assert_true(isnan(f16_to_f32(back)));
            assert_int_equal(back & 0x8000, half & 0x8000);
        } else
            assert_int_equal(back, half);
    }
}

static void narrowing_rounds_to_nearest_even(void **state)
{
    (void)state;
    size_t n_bytes;
    unsigned char *fixture = load_fixture("half", &n_bytes);
    uint32_t n;
    memcpy(&n, fixture, sizeof n);
    assert_true(n > 10000);
    assert_int_equal(n_bytes, 4 + (size_t)n * 6);
    for (size_t i = 0; i < n; i++) {
        float value;
        uint16_t expected;
        memcpy(&value, fixture + 4 + i * 4, sizeof value);
        memcpy(&expected, fixture + 4 + (size_t)n * 4 + i * 2, sizeof expected);
        if (f32_to_f16(value) != expected)
            fail_msg("%a: expected %04x, found %04x", (double)value, expected, f32_to_f16(value));
    }
    free(fixture);
}

static void brain_floats_are_the_upper_half(void **state)
{
    (void)state;
    for (uint32_t value = 0; value < 65536; value++) {
        float wide = bf16_to_f32((uint16_t)value);
        assert_int_equal(bits_of(wide), value << 16);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(decoding_equals_the_independent_decoder),
        cmocka_unit_test(only_known_types_are_found),
        cmocka_unit_test(half_floats_widen_exactly),
        cmocka_unit_test(half_floats_survive_a_round_trip),
        cmocka_unit_test(narrowing_rounds_to_nearest_even),
        cmocka_unit_test(brain_floats_are_the_upper_half),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
