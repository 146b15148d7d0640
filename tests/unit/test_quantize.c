/* test_quantize.c: encoding of every tensor type: how near it comes to the best codes that there are (found by trying all, in
 * double precision), what it does with extreme values, and that all instruction sets and neighbours give the same bytes. */
#include "kernels/quantize.h"

#include <float.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "helpers/chance.h"
#include "kernels/ops.h"

enum { ROW = 768 }; /* values of a row in these tests: whole blocks of every type */

/* Types with scales, and the largest root mean square error of normal values, of their deviation: what this encoder reaches and
 * 3 % more. */
static const struct {
    enum tensor_type type;
    double largest_error;
} scaled_types[] = {
    {TENSOR_Q8_0, 0.0049}, {TENSOR_Q6_K, 0.0173}, {TENSOR_Q5_K, 0.0354},   {TENSOR_Q5_1, 0.0350},
    {TENSOR_Q5_0, 0.0418}, {TENSOR_Q4_K, 0.0717}, {TENSOR_Q4_1, 0.0717},   {TENSOR_Q4_0, 0.0842},
    {TENSOR_Q3_K, 0.1489}, {TENSOR_Q2_K, 0.2672}, {TENSOR_IQ4_NL, 0.0761}, {TENSOR_IQ4_XS, 0.0764},
};
enum { N_SCALED = sizeof scaled_types / sizeof *scaled_types };

static float
    ones[ROW]; /* an importance that is the same everywhere, as all these tests measure; filled in main */

static double normal(void)
{
    return sqrt(-2 * log(chance_uniform())) * cos(2 * M_PI * chance_uniform());
}

static void fill_normal(float *values, size_t n, double deviation)
{
    for (size_t i = 0; i < n; i++)
        values[i] = (float)(normal() * deviation);
}

static double weighted_error(const float *a, const float *b, const float *importance, size_t n)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += (importance ? (double)importance[i] : 1) * pow((double)a[i] - (double)b[i], 2);
    return sum;
}

/* Encodes and decodes; behind the last byte a guard. */
static void round_trip(enum tensor_type type, const float *values, size_t n, const float *importance,
                       float *decoded)
{
    const struct quant_info *info = quant_find((uint32_t)type);
    size_t n_bytes = n / info->block_values * info->block_bytes;
    uint8_t *blocks = malloc(n_bytes + 1);
    blocks[n_bytes] = 0xa5;
    quantize_encode(type, values, n, importance, blocks);
    assert_int_equal(blocks[n_bytes], 0xa5);
    quant_decode(type, blocks, n, decoded);
    free(blocks);
}

/* Single values ------------------------------------------------------------------------------------------- */

static void floats_are_rounded_to_nearest(void **state)
{
    (void)state;
    float values[4] = {1.0f + 0x1p-9f, 1.0f + 0x1p-8f, -3.0f, 0x1p-140f}, decoded[4];
    round_trip(TENSOR_F32, values, 4, NULL, decoded);
    assert_memory_equal(decoded, values, sizeof values);
    round_trip(TENSOR_BF16, values, 4, NULL, decoded); /* 7 bits: the second is half way, and goes to even */
    assert_true(decoded[0] == 1 && decoded[1] == 1 && decoded[2] == -3);
    values[1] = 1.0f + 3 * 0x1p-8f;
    round_trip(TENSOR_BF16, values, 4, NULL, decoded);
    assert_true(decoded[1] == 1.0f + 0x1p-6f);
    round_trip(TENSOR_F16, values, 4, NULL, decoded); /* 10 bits */
    assert_true(decoded[0] == 1.0f + 0x1p-9f && decoded[2] == -3 && decoded[3] == 0);
}

/* Every bf16 and f16 that is finite stays what it is. */
static void what_has_the_type_already_stays(void **state)
{
    (void)state;
    for (uint32_t bits = 0; bits < 65536; bits++) {
        uint16_t half = (uint16_t)bits, encoded;
        float value = f16_to_f32(half);
        if (isfinite(value)) {
            quantize_encode(TENSOR_F16, &value, 1, NULL, &encoded);
            assert_int_equal(encoded, half);
        }
        value = bf16_to_f32(half);
        if (isfinite(value)) {
            quantize_encode(TENSOR_BF16, &value, 1, NULL, &encoded);
            assert_int_equal(encoded, half);
        }
    }
}

static void misfits_are_found(void **state)
{
    (void)state;
    float values[5] = {0, -65504, 65504, 1e-40f, 5};
    static const enum tensor_type types[] = {TENSOR_F32, TENSOR_BF16, TENSOR_F16, TENSOR_Q4_K};
    for (size_t t = 0; t < sizeof types / sizeof *types; t++) {
        bool wide = types[t] == TENSOR_F32 || types[t] == TENSOR_BF16;
        assert_int_equal(quantize_find_misfit(types[t], values, 5), 5);
        values[4] = 65536;
        assert_int_equal(quantize_find_misfit(types[t], values, 5), wide ? 5 : 4);
        values[4] = FLT_MAX;
        assert_int_equal(quantize_find_misfit(types[t], values, 5), types[t] == TENSOR_F32 ? 5 : 4);
        values[3] = NAN;
        assert_int_equal(quantize_find_misfit(types[t], values, 5), 3);
        values[1] = -INFINITY;
        assert_int_equal(quantize_find_misfit(types[t], values, 5), 1);
        values[1] = -65504;
        values[3] = 1e-40f;
        values[4] = 5;
    }
    assert_true(quantize_is_possible(TENSOR_Q2_K));
    assert_false(quantize_is_possible(TENSOR_MXFP4));
    assert_false(quantize_is_possible((enum tensor_type)99));
}

/* Nearness ------------------------------------------------------------------------------------------------ */

static void errors_of_normal_values_are_small(void **state)
{
    (void)state;
    float values[ROW], decoded[ROW];
    for (size_t t = 0; t < N_SCALED; t++) {
        double error = 0;
        for (int row = 0; row < 20; row++) {
            fill_normal(values, ROW, 0.02);
            round_trip(scaled_types[t].type, values, ROW, ones, decoded);
            error += weighted_error(values, decoded, NULL, ROW) / (20 * ROW * 0.02 * 0.02);
        }
        if (!(sqrt(error) < scaled_types[t].largest_error &&
              sqrt(error) > 0.9 * scaled_types[t].largest_error))
            fail_msg("%s: expected an error of at most %g and near it, found %g",
                     quant_find((uint32_t)scaled_types[t].type)->name, scaled_types[t].largest_error,
                     sqrt(error));
    }
}

/* Which values a block of 32 with one scale can hold, in units of it. */
static size_t units_of(enum tensor_type type, double *units)
{
    size_t n = 0;
    if (type == TENSOR_IQ4_NL) {
        for (; n < 16; n++)
            units[n] = quant_codebook(type)[n];
        return n;
    }
    int low = type == TENSOR_Q4_0   ? -8
              : type == TENSOR_Q5_0 ? -16
                                    : -127,
        high = type == TENSOR_Q8_0 ? 127 : -low - 1;
    for (int q = low; q <= high; q++)
        units[n++] = q;
    return n;
}

/* The least error that any f16 as the scale leaves. */
static double best_of_all_scales(enum tensor_type type, const float *values, const float *importance)
{
    double units[256], best = INFINITY;
    size_t n = units_of(type, units);
    for (uint32_t half = 0; half < 65536; half++) {
        double d = (double)f16_to_f32((uint16_t)half), error = 0;
        if (!isfinite(d) || fabs(d) > 0.1 || (fabs(d) < 1e-5 && d != 0))
            continue;
        for (int i = 0; i < 32 && error < best; i++) {
            double nearest = INFINITY, x = (double)values[i];
            if (type == TENSOR_IQ4_NL) {
                for (size_t k = 0; k < n; k++)
                    nearest = fmin(nearest, fabs(x - d * units[k]));
            } else {
                double q = d == 0 ? 0 : fmin(units[n - 1], fmax(units[0], rint(x / d)));
                nearest = fabs(x - d * q);
            }
            error += (importance ? (double)importance[i] : 1) * nearest * nearest;
        }
        best = fmin(best, error);
    }
    return best;
}

static void one_scale_is_nearly_the_best_of_all(void **state)
{
    (void)state;
    static const enum tensor_type types[] = {TENSOR_Q4_0, TENSOR_Q5_0, TENSOR_Q8_0, TENSOR_IQ4_NL};
    float values[32], importance[32], decoded[32];
    for (size_t t = 0; t < sizeof types / sizeof *types; t++)
        for (int weighted = 0; weighted < 2; weighted++) {
            double found = 0, best = 0;
            for (int block = 0; block < 6; block++) {
                fill_normal(values, 32, 0.02);
                for (int i = 0; i < 32; i++)
                    importance[i] = (float)exp(normal());
                round_trip(types[t], values, 32, weighted ? importance : ones, decoded);
                double of_block = weighted_error(values, decoded, weighted ? importance : NULL, 32);
                double of_best = best_of_all_scales(types[t], values, weighted ? importance : NULL);
                assert_true(of_block > 0.999 * of_best);
                found += of_block;
                best += of_best;
            }
            if (!(found < 1.15 * best))
                fail_msg("%s: expected an error of at most 1.15 times the least that is possible, found %g",
                         quant_find((uint32_t)types[t])->name, found / best);
        }
}

/* The error of the nearest whole numbers from 0 to top for a step and a base. */
static double error_of(const float *values, int n, double step, double base, int top)
{
    double error = 0;
    for (int i = 0; i < n; i++) {
        double q = step > 0 ? fmin(top, fmax(0, rint(((double)values[i] - base) / step))) : 0;
        error += pow((double)values[i] - base - step * q, 2);
    }
    return error;
}

/* Among 300 x 300 steps and bases, as finely as matters. */
static void a_scale_and_a_minimum_are_nearly_the_best_of_many(void **state)
{
    (void)state;
    for (int top = 15; top <= 31; top += 16) {
        double found = 0, best = 0;
        float values[32], decoded[32];
        for (int block = 0; block < 6; block++) {
            fill_normal(values, 32, 0.02);
            float low = values[0], high = values[0];
            for (int i = 1; i < 32; i++) {
                low = fminf(low, values[i]);
                high = fmaxf(high, values[i]);
            }
            double width = (double)high - (double)low, least = INFINITY;
            for (int i = 0; i < 300; i++)
                for (int j = 0; j < 300; j++)
                    least = fmin(least, error_of(values, 32, width / top * (0.7 + i * 0.0012),
                                                 (double)low + width * (j * 0.001 - 0.1), top));
            round_trip(top == 15 ? TENSOR_Q4_1 : TENSOR_Q5_1, values, 32, ones, decoded);
            found += weighted_error(values, decoded, NULL, 32);
            best += least;
        }
        if (!(found < 1.2 * best))
            fail_msg("%d codes: expected an error of at most 1.2 times the least that was found, found %g",
                     top + 1, found / best);
    }
}

/* With the d and dmin that Q4_K chose, no other scale and minimum of a sub-block would have been much better. */
static void whole_number_scales_are_nearly_the_best_for_their_unit(void **state)
{
    (void)state;
    double found = 0, best = 0;
    for (int row = 0; row < 4; row++) {
        float values[256], decoded[256];
        uint8_t block[144];
        uint16_t half[2];
        fill_normal(values, 256, 0.02);
        quantize_encode(TENSOR_Q4_K, values, 256, ones, block);
        quant_decode(TENSOR_Q4_K, block, 256, decoded);
        memcpy(half, block, sizeof half);
        double d = (double)f16_to_f32(half[0]), dmin = (double)f16_to_f32(half[1]);
        found += weighted_error(values, decoded, NULL, 256);
        for (int sub = 0; sub < 8; sub++) {
            double least = INFINITY;
            for (int scale = 0; scale < 64; scale++)
                for (int minimum = 0; minimum < 64; minimum++)
                    least = fmin(least, error_of(values + 32 * sub, 32, d * scale, -dmin * minimum, 15));
            best += least;
        }
    }
    if (!(found < 1.06 * best))
        fail_msg("expected an error of at most 1.06 times the least of all scales and minimums, found %g",
                 found / best);
}

static void importance_moves_the_error_to_where_it_matters_least(void **state)
{
    (void)state;
    float values[ROW], importance[ROW], plain[ROW], weighted[ROW];
    for (size_t t = 0; t < N_SCALED; t++) {
        double error_plain = 0, error_weighted = 0;
        for (int row = 0; row < 8; row++) {
            fill_normal(values, ROW, 0.02);
            for (int i = 0; i < ROW; i++)
                importance[i] = (float)exp(2 * normal());
            round_trip(scaled_types[t].type, values, ROW, NULL, plain);
            round_trip(scaled_types[t].type, values, ROW, importance, weighted);
            error_plain += weighted_error(values, plain, importance, ROW);
            error_weighted += weighted_error(values, weighted, importance, ROW);
        }
        if (!(error_weighted < 0.93 * error_plain))
            fail_msg("%s: expected at most 0.93 of the error without importance, found %g",
                     quant_find((uint32_t)scaled_types[t].type)->name, error_weighted / error_plain);
    }
}

/* Only the proportions of importance matter; all zero is none, and so is all the same. */
static void importance_is_relative(void **state)
{
    (void)state;
    float values[ROW], importance[ROW], scaled[ROW], zeros[ROW] = {0};
    uint8_t a[ROW * 2], b[ROW * 2];
    fill_normal(values, ROW, 0.02);
    for (int i = 0; i < ROW; i++) {
        importance[i] = (float)exp(normal());
        scaled[i] = importance[i] * 0x1p-60f;
    }
    for (size_t t = 0; t < N_SCALED; t++) {
        const struct quant_info *info = quant_find((uint32_t)scaled_types[t].type);
        size_t n_bytes = ROW / info->block_values * info->block_bytes;
        quantize_encode(info->type, values, ROW, importance, a);
        quantize_encode(info->type, values, ROW, scaled, b);
        assert_memory_equal(a, b, n_bytes);
        quantize_encode(info->type, values, ROW, NULL, a);
        quantize_encode(info->type, values, ROW, zeros, b);
        assert_memory_equal(a, b, n_bytes);
    }
}

/* Extreme values ------------------------------------------------------------------------------------------ */

static void assert_all_within(const char *what, enum tensor_type type, const float *values,
                              const float *importance, double largest)
{
    float decoded[ROW];
    round_trip(type, values, ROW, importance, decoded);
    for (int i = 0; i < ROW; i++)
        if (!(fabs((double)decoded[i] - (double)values[i]) <= largest))
            fail_msg("%s, %s, value %d: expected %g within %g, found %g", quant_find((uint32_t)type)->name,
                     what, i, (double)values[i], largest, (double)decoded[i]);
}

static void extreme_values_stay_near(void **state)
{
    (void)state;
    float values[ROW], importance[ROW];
    for (size_t t = 0; t < N_SCALED; t++) {
        enum tensor_type type = scaled_types[t].type;
        memset(values, 0, sizeof values);
        assert_all_within("zeros", type, values, NULL, 0);
        for (int i = 0; i < ROW; i++)
            values[i] = i < ROW / 2 ? 0.37f : -0.37f;
        assert_all_within("constants", type, values, NULL, 0.37 * 0.01);
        for (int i = 0; i < ROW; i++)
            values[i] = (i % 2 ? 1.0f : -1.0f) * 0x1p-140f * (float)(i % 7);
        assert_all_within("subnormals", type, values, NULL, 0x1p-130);
        for (int i = 0; i < ROW; i++)
            values[i] = i % 2 ? 65504 : -65504;
        assert_all_within("the largest", type, values, NULL, 65504 * 0.2);
        for (int i = 0; i < ROW; i++)
            values[i] = i == 300 ? 65504 : 1e-3f;
        assert_all_within("one outlier", type, values, NULL, 65504 * 0.04);
        fill_normal(values, ROW, 1e-6); /* scales below the smallest normal f16 */
        assert_all_within("near the smallest scale", type, values, NULL, 2.5e-6);
        fill_normal(values, ROW, 0.02);
        memset(importance, 0, sizeof importance);
        for (int i = 0; i < 64; i++)
            importance[i * 4] = 1e30f;
        assert_all_within("importance 0 beside 1e30", type, values, importance, 0.06);
    }
}

/* Independence -------------------------------------------------------------------------------------------- */

static void every_instruction_set_gives_the_same_bytes(void **state)
{
    (void)state;
    const struct kernels *all;
    size_t n = kernels_possible(&all);
    float values[ROW], importance[ROW];
    uint8_t expected[ROW * 2], found[ROW * 2];
    for (int row = 0; row < 12; row++) {
        fill_normal(values, ROW, row % 3 ? 0.02 : 1e-5);
        for (int i = 0; i < ROW; i++)
            importance[i] = (float)exp(3 * normal());
        for (size_t t = 0; t < N_SCALED; t++) {
            const struct quant_info *info = quant_find((uint32_t)scaled_types[t].type);
            size_t n_bytes = ROW / info->block_values * info->block_bytes;
            all[0].encode(info->type, values, ROW, row % 2 ? importance : NULL, expected);
            for (size_t k = 1; k < n; k++) {
                memset(found, 0, sizeof found);
                all[k].encode(info->type, values, ROW, row % 2 ? importance : NULL, found);
                if (memcmp(found, expected, n_bytes) != 0)
                    fail_msg("%s: %s and %s differ", info->name, all[0].name, all[k].name);
            }
        }
    }
}

/* A block is the same alone and in a row, wherever it stands there. */
static void blocks_do_not_depend_on_their_neighbours(void **state)
{
    (void)state;
    float values[ROW];
    uint8_t row[ROW * 2], alone[256 * 2];
    fill_normal(values, ROW, 0.02);
    for (size_t t = 0; t < N_SCALED; t++) {
        const struct quant_info *info = quant_find((uint32_t)scaled_types[t].type);
        quantize_encode(info->type, values, ROW, NULL, row);
        for (size_t at = 0; at < ROW; at += info->block_values) {
            quantize_encode(info->type, values + at, info->block_values, NULL, alone);
            assert_memory_equal(alone, row + at / info->block_values * info->block_bytes, info->block_bytes);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(floats_are_rounded_to_nearest),
        cmocka_unit_test(what_has_the_type_already_stays),
        cmocka_unit_test(misfits_are_found),
        cmocka_unit_test(errors_of_normal_values_are_small),
        cmocka_unit_test(one_scale_is_nearly_the_best_of_all),
        cmocka_unit_test(a_scale_and_a_minimum_are_nearly_the_best_of_many),
        cmocka_unit_test(whole_number_scales_are_nearly_the_best_for_their_unit),
        cmocka_unit_test(importance_moves_the_error_to_where_it_matters_least),
        cmocka_unit_test(importance_is_relative),
        cmocka_unit_test(extreme_values_stay_near),
        cmocka_unit_test(every_instruction_set_gives_the_same_bytes),
        cmocka_unit_test(blocks_do_not_depend_on_their_neighbours),
    };
    for (size_t i = 0; i < ROW; i++)
        ones[i] = 1;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
