/* test_kernels.c: each function of the kernel table, in every instruction set that this machine has, on
 * random and extreme inputs and every tail. ref is compared with sums in double; the others must equal ref
 * bit for bit, and a row must not depend on its neighbours. `test_kernels --bench` measures instead
 * (helpers/kernel_bench.c); `--level NAME` compares that instruction set alone (status 77: this machine has it not). */
#include "helpers/kernel_bench.h"
#include "helpers/kernel_check.h"
#include "helpers/random_matrix.h"
#include "kernels/pack.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* Matrices. */

static void test_pack_keeps_every_bit(void **state)
{
    (void)state;
    static float expected[1024], got[1024];
    for (int t = 0; t < N_TYPES; t++)
        for (enum fill fill = 0; fill < FILLS; fill++)
            for (uint32_t n_rows = 1; n_rows <= 37; n_rows += 9) {
                uint32_t n_columns = quant_find(all_types[t])->block_values == 256 ? 768 : 416;
                struct matrix m = make_matrix(all_types[t], n_rows, n_columns, fill);
                for (uint32_t row = 0; row < n_rows; row++) {
                    quant_decode(all_types[t], m.file + row * m.row_bytes, n_columns, expected);
                    pack_row_f32(&m.packed, row, got);
                    CHECK_SAME(got, expected, n_columns, "%s row %u", quant_find(all_types[t])->name, row);
                }
                free_matrix(&m);
            }
}

/* MXFP4's scales lie in a tile as the upper halves of floats. */
static void test_pack_keeps_every_exponent(void **state)
{
    (void)state;
    enum { COLUMNS = 512 }; /* 16 blocks in each of 16 rows */
    float expected[COLUMNS], got[COLUMNS];
    struct matrix m = make_matrix(TENSOR_MXFP4, TILE_ROWS, COLUMNS, FILL_RANDOM);
    for (uint32_t block = 0; block < 256; block++)
        m.file[block * quant_find(TENSOR_MXFP4)->block_bytes] = (uint8_t)block;
    pack_tile(TENSOR_MXFP4, m.file, m.row_bytes, TILE_ROWS, COLUMNS, m.packed.data);
    for (uint32_t row = 0; row < TILE_ROWS; row++) {
        quant_decode(TENSOR_MXFP4, m.file + row * m.row_bytes, COLUMNS, expected);
        pack_row_f32(&m.packed, row, got);
        CHECK_SAME(got, expected, COLUMNS, "row %u", row);
    }
    free_matrix(&m);
}

/* Products. */

struct product {
    const struct matrix *m;
    uint8_t *acts;
    size_t act_stride;
    uint32_t n_acts;
    const float *bias;
    bool add;
};

/* Runs a product on tiles [begin, end) and checks that nothing around the outputs is touched. Returns
 * [n_acts, n_rows]. */
static void run_product(const struct kernels *kernels, const struct product *p, uint32_t begin, uint32_t end,
                        float *out)
{
    const struct packed_matrix *w = &p->m->packed;
    size_t stride = w->n_rows + 7, n = stride * p->n_acts + 2 * GUARD;
    float *guarded = malloc(n * sizeof *guarded);
    assert_non_null(guarded);
    for (size_t i = 0; i < n; i++)
        guarded[i] = 1000.0f + (float)(i % 77);
    const struct matmul_args args = {.w = w,
                                     .acts = p->acts,
                                     .act_stride = p->act_stride,
                                     .n_acts = p->n_acts,
                                     .out = guarded + GUARD,
                                     .out_stride = stride,
                                     .bias = p->bias,
                                     .add = p->add};
    kernels->matmul[w->kind](&args, begin, end);
    for (size_t i = 0; i < n; i++) {
        size_t row = i < GUARD ? p->n_acts : (i - GUARD) / stride,
               column = i < GUARD ? 0 : (i - GUARD) % stride;
        bool inside =
            row < p->n_acts && column < w->n_rows && column >= begin * TILE_ROWS && column < end * TILE_ROWS;
        if (inside)
            out[row * w->n_rows + column] = guarded[i];
        else if (guarded[i] != 1000.0f + (float)(i % 77))
            fail_msg("%s matmul writes outside of its outputs", kernels->name);
    }
    free(guarded);
}

/* Activations with chosen integers. EXTREME_ENDS: all 127 or all -127, beyond which quantising never goes.
 * EXTREME_EDGES: sums of |q| over 16 inputs about where products of two sub-blocks no longer fit 16 bits
 * each. */
enum extreme { EXTREME_NONE, EXTREME_ENDS, EXTREME_EDGES, EXTREMES };

static void fill_edge(int8_t *q)
{
    static const int sums[] = {1022, 1023, 1024, 1091, 1092, 1093, 700, 2032};
    int sum = sums[random_below(8)], sign = random_below(2) ? 1 : -1;
    for (int i = 0; i < ACT_BLOCK; i++) {
        int magnitude = sum / 16 + (i % 16 < sum % 16);
        q[i] = (int8_t)(sign * magnitude);
        if (i % 64 == 63)
            sign = random_below(2) ? 1 : -1;
    }
}

static void make_extreme(enum act_kind kind, enum extreme extreme, uint8_t *row, uint32_t n_columns,
                         int value)
{
    for (uint32_t b = 0; b * ACT_BLOCK < n_columns; b++) {
        struct act_q8_256 *large = (struct act_q8_256 *)row + b;
        struct act_q8_32 *small = (struct act_q8_32 *)row + b;
        int8_t *q = kind == ACT_Q8_256 ? large->q : small->q;
        if (kind == ACT_Q8_256)
            memset(large, 0, sizeof *large);
        else
            memset(small, 0, sizeof *small);
        memset(q, value, ACT_BLOCK);
        if (extreme == EXTREME_EDGES)
            fill_edge(q);
        for (int i = 0; i < 8; i++) {
            int halves[2] = {0, 0};
            for (int j = 0; j < 32; j++)
                halves[j / 16] += q[32 * i + j];
            if (kind == ACT_Q8_32) {
                small->d[i] = 1.0f;
                small->d_sum[i] = (float)(halves[0] + halves[1]);
                small->offset[i] = -128 * (halves[0] + halves[1]);
                continue;
            }
            large->sum32[i] = (int16_t)(halves[0] + halves[1]);
            for (int j = 0; j < 2; j++) { /* all of one sign */
                large->sum16[2 * i + j] = (int16_t)halves[j];
                if (abs(halves[j]) > large->largest_sum16)
                    large->largest_sum16 = (uint16_t)abs(halves[j]);
            }
        }
        if (kind == ACT_Q8_256)
            large->d = 1.0f;
    }
}

static float *dequantised(enum act_kind kind, const uint8_t *row, uint32_t n_columns)
{
    float *x = malloc((n_columns + ACT_BLOCK) * sizeof *x);
    assert_non_null(x);
    for (uint32_t i = 0; i < n_columns; i++) {
        const struct act_q8_256 *large = (const struct act_q8_256 *)row + i / ACT_BLOCK;
        const struct act_q8_32 *small = (const struct act_q8_32 *)row + i / ACT_BLOCK;
        if (kind == ACT_F32)
            x[i] = ((const float *)row)[i];
        else if (kind == ACT_Q8_256)
            x[i] = large->d * large->q[i % ACT_BLOCK];
        else
            x[i] = small->d[i % ACT_BLOCK / 32] * small->q[i % ACT_BLOCK];
    }
    return x;
}

/* ref against double sums of decoded weights. */
static void check_against_double(const struct product *p, const float *out)
{
    const struct packed_matrix *w = &p->m->packed;
    float *weights = malloc(w->n_columns * sizeof *weights);
    assert_non_null(weights);
    for (uint32_t i = 0; i < p->n_acts; i++) {
        float *x = dequantised(act_kind_of(w->kind), p->acts + i * p->act_stride, w->n_columns);
        for (uint32_t row = 0; row < w->n_rows; row++) {
            double sum = p->bias ? p->bias[row] : 0.0, magnitude = fabs(sum);
            quant_decode(w->type, p->m->file + row * p->m->row_bytes, w->n_columns, weights);
            for (uint32_t k = 0; k < w->n_columns; k++) {
                sum += (double)weights[k] * x[k];
                magnitude += fabs((double)weights[k] * x[k]);
            }
            double error = fabs(sum - out[i * w->n_rows + row]);
            if (!(error <= 1e-5 * magnitude + 1e-30))
                fail_msg("%s: row %u is %g, expected %g", quant_find(w->type)->name, row,
                         (double)out[i * w->n_rows + row], sum);
        }
        free(x);
    }
    free(weights);
}

static uint8_t *make_acts(const struct kernels *kernels, enum act_kind kind, uint32_t n_acts,
                          uint32_t n_columns, enum extreme extreme, size_t *stride)
{
    *stride = act_row_bytes(kind, n_columns);
    uint8_t *acts = allocate(n_acts * *stride);
    float *x = malloc(n_columns * sizeof *x);
    assert_non_null(x);
    for (uint32_t i = 0; i < n_acts; i++) {
        random_floats(x, n_columns);
        kernels->quantize[kind](x, n_columns, acts + i * *stride);
        if (extreme && kind != ACT_F32)
            make_extreme(kind, extreme, acts + i * *stride, n_columns, i % 2 ? 127 : -127);
    }
    free(x);
    return acts;
}

static void check_product(enum tensor_type type, uint32_t n_rows, uint32_t n_columns, uint32_t n_acts,
                          enum fill fill, enum extreme extreme)
{
    struct matrix m = make_matrix(type, n_rows, n_columns, fill);
    struct product p = {.m = &m, .n_acts = n_acts, .add = random_below(2)};
    size_t n_out = (size_t)n_acts * n_rows;
    float *bias = malloc(n_rows * sizeof *bias), *expected = malloc(n_out * sizeof *expected);
    float *out = malloc(n_out * sizeof *out);
    assert_true(bias && expected && out);
    p.acts = make_acts(&tables[0], act_kind_of(m.packed.kind), n_acts, n_columns, extreme, &p.act_stride);
    random_floats(bias, n_rows);
    p.bias = random_below(2) ? bias : NULL;

    for (int t = 0; t < n_tables; t++) {
        float *result = t == 0 ? expected : out;
        run_product(&tables[t], &p, 0, m.packed.n_tiles, result);
        CHECK_SAME(result, expected, n_out, "%s %s [%u, %u] x %u, fill %d", tables[t].name,
                   quant_find(type)->name, n_rows, n_columns, n_acts, fill);
        /* A row alone, one tile at a time, plus nothing: the same bits. */
        struct product one = p;
        uint32_t row = random_below(n_acts);
        one.acts += row * p.act_stride;
        one.n_acts = 1;
        one.add = false;
        p.add = false;
        run_product(&tables[t], &p, 0, m.packed.n_tiles, result);
        float *alone = malloc(n_rows * sizeof *alone);
        assert_non_null(alone);
        for (uint32_t tile = 0; tile < m.packed.n_tiles; tile++)
            run_product(&tables[t], &one, tile, tile + 1, alone);
        CHECK_SAME(alone, result + (size_t)row * n_rows, n_rows, "%s %s row %u of %u alone", tables[t].name,
                   quant_find(type)->name, row, n_acts);
        free(alone);
        if (t == 0)
            check_against_double(&p, expected);
        p.add = t % 2;
        run_product(&tables[0], &p, 0, m.packed.n_tiles, expected);
    }
    free(bias);
    free(expected);
    free(out);
    free(p.acts);
    free_matrix(&m);
}

static void test_products_of_every_shape(void **state)
{
    (void)state;
    for (int t = 0; t < N_TYPES; t++) {
        uint32_t block = quant_find(all_types[t])->block_values;
        for (uint32_t n_acts = 1; n_acts <= 40; n_acts++) /* every number of rows beside each other */
            check_product(all_types[t], 1 + random_below(70),
                          block == 1 ? 200 : 2 * (block < 256 ? 160 : block), n_acts, FILL_RANDOM, 0);
        for (uint32_t n_columns = block < 32 ? 32 : block; n_columns <= 1024;
             n_columns += block < 32 ? 32 : block)
            check_product(all_types[t], 1 + random_below(40), n_columns, 1 + random_below(9), FILL_RANDOM, 0);
        if (block == 1)
            for (uint32_t n_columns = 1; n_columns < 40; n_columns++)
                check_product(all_types[t], 17, n_columns, 3, FILL_RANDOM, 0);
    }
}

/* Units that take many rows at once cut them into chunks and groups. */
static void test_products_of_many_rows(void **state)
{
    (void)state;
    static const enum tensor_type types[] = {TENSOR_Q4_K, TENSOR_Q5_K, TENSOR_Q6_K, TENSOR_Q8_0, TENSOR_Q5_1};
    for (int t = 0; t < 5; t++) {
        const uint32_t block = quant_find(types[t])->block_values;
        for (uint32_t n_acts = 41; n_acts <= 300; n_acts += n_acts < 70 || n_acts % 128 < 4 ? 1 : 7)
            check_product(types[t], 1 + random_below(40), block * (1 + random_below(768 / block)), n_acts,
                          FILL_RANDOM, 0);
    }
}

static void test_products_of_extremes(void **state)
{
    (void)state;
    for (int t = 0; t < N_TYPES; t++)
        for (enum fill fill = 0; fill < FILLS; fill++)
            for (enum extreme extreme = 0; extreme < EXTREMES; extreme++)
                for (uint32_t n_acts = 11; n_acts <= 33; n_acts += 22) /* few, and many */
                    check_product(all_types[t], 33, 1024, n_acts, fill, extreme);
}

static void test_not_finite_inputs_reach_the_output(void **state)
{
    (void)state;
    static const float bad[] = {NAN, INFINITY, -INFINITY};
    static const enum tensor_type types[] = {TENSOR_Q4_K, TENSOR_Q6_K,   TENSOR_Q8_0,   TENSOR_Q4_1,
                                             TENSOR_F16,  TENSOR_IQ4_NL, TENSOR_IQ4_XS, TENSOR_MXFP4,
                                             TENSOR_Q2_K, TENSOR_Q3_K};
    for (int t = 0; t < n_tables; t++)
        for (size_t i = 0; i < sizeof types / sizeof *types; i++)
            for (int j = 0; j < 3; j++) {
                struct matrix m = make_matrix(types[i], 20, 512, FILL_RANDOM);
                enum act_kind kind = act_kind_of(m.packed.kind);
                enum { N_ACTS = 35, BAD = 33 };
                const size_t stride = act_row_bytes(kind, 512);
                uint8_t *acts = allocate(N_ACTS * stride);
                float x[512], out[N_ACTS][20];
                for (int i_act = 0; i_act < N_ACTS; i_act++) {
                    random_floats(x, 512);
                    if (i_act == BAD)
                        x[300] = bad[j];
                    tables[t].quantize[kind](x, 512, acts + i_act * stride);
                }
                struct matmul_args args = {.w = &m.packed,
                                           .acts = acts,
                                           .act_stride = stride,
                                           .n_acts = N_ACTS,
                                           .out = out[0],
                                           .out_stride = 20};
                tables[t].matmul[m.packed.kind](&args, 0, 2);
                for (int row = 0; row < 20 * N_ACTS; row++)
                    assert_int_equal(isfinite(out[row / 20][row % 20]) != 0, row / 20 != BAD);
                args.acts = acts + BAD * stride;
                args.n_acts = 1;
                tables[t].matmul[m.packed.kind](&args, 0, 2);
                for (int row = 0; row < 20; row++)
                    assert_false(isfinite(out[0][row]));
                free(acts);
                free_matrix(&m);
            }
}

/* Activations. */

static void check_quantize(enum act_kind kind, uint32_t n, float size)
{
    size_t n_bytes = act_row_bytes(kind, n);
    uint8_t *expected = allocate(n_bytes), *got = allocate(n_bytes + GUARD);
    float *x = malloc(n * sizeof *x);
    assert_non_null(x);
    for (uint32_t i = 0; i < n; i++)
        x[i] = random_float() * size;
    tables[0].quantize[kind](x, n, expected);
    float *back = dequantised(kind, expected, n);
    for (uint32_t i = 0; i < n; i++)
        if (fabsf(back[i] - x[i]) > (kind == ACT_F32 ? 0 : size * 7.0f / 127.0f * 0.51f) + 1e-27f)
            fail_msg("input %g is quantised to %g", (double)x[i], (double)back[i]);
    for (int t = 1; t < n_tables; t++) {
        memset(got, 0x55, n_bytes + GUARD);
        tables[t].quantize[kind](x, n, got);
        assert_memory_equal(got, expected, n_bytes);
        for (int i = 0; i < GUARD; i++)
            assert_int_equal(got[n_bytes + i], 0x55);
    }
    free(back);
    free(x);
    free(expected);
    free(got);
}

static void test_quantize(void **state)
{
    (void)state;
    static const float sizes[] = {1.0f, 0.0f, 1e-39f, 1e-36f, 1e-27f, 3e-27f, 1e-20f, 1e30f, 5e37f};
    for (enum act_kind kind = 0; kind < ACT_KINDS; kind++)
        for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
            for (uint32_t n = kind == ACT_Q8_256 ? 256 : 32; n <= 1024; n += kind == ACT_Q8_256 ? 256 : 32)
                check_quantize(kind, n, sizes[i]);
    for (uint32_t n = 1; n < 80; n++)
        check_quantize(ACT_F32, n, 1.0f);
}

/* Norm, rotation, SiLU. */

static void check_rms_norm(const struct kernels *kernels, uint32_t n, float *x, const float *weight)
{
    float *expected = malloc(n * sizeof *expected), *out = malloc((n + 1) * sizeof *out);
    assert_true(expected && out);
    double sum = 0;
    for (uint32_t i = 0; i < n; i++)
        sum += (double)x[i] * x[i];
    tables[0].rms_norm(x, weight, n, 1e-6f, expected);
    for (uint32_t i = 0; i < n; i++) {
        double right = x[i] / sqrt(sum / n + 1e-6) * weight[i];
        assert_true(fabs(expected[i] - right) <= 2e-6 * fabs(right) + 1e-30);
    }
    out[n] = 5.0f;
    kernels->rms_norm(x, weight, n, 1e-6f, out);
    CHECK_SAME(out, expected, n, "%s rms_norm %u", kernels->name, n);
    assert_true(out[n] == 5.0f);
    kernels->rms_norm(x, weight, n, 1e-6f, x);
    CHECK_SAME(x, expected, n, "%s rms_norm %u in place", kernels->name, n);
    free(expected);
    free(out);
}

static double silu(double x)
{
    return x / (1.0 + exp(-x));
}

static double gelu(double x)
{
    return 0.5 * x * (1.0 + tanh(sqrt(2.0 / M_PI) * (x + 0.044715 * x * x * x)));
}

typedef void activation_mul(const float *gate, const float *up, uint32_t n, float *out);

/* An activation of a table and of plain C, and what they are within rounding. tolerance: absolute, where the tanh of what is right
 * is so near to -1 that doubles no longer have the difference. */
static void check_activation(const char *name, activation_mul *tested, activation_mul *ref,
                             double (*right_of)(double), double tolerance, uint32_t n, const float *gate,
                             const float *up)
{
    float *expected = malloc(n * sizeof *expected), *out = malloc((n + 1) * sizeof *out);
    assert_true(expected && out);
    ref(gate, up, n, expected);
    for (uint32_t i = 0; i < n; i++) {
        double right = right_of(gate[i]) * up[i];
        if (!(fabs(expected[i] - right) <= 1e-6 * fabs(right) + tolerance))
            fail_msg("%s(%g) * %g is %g, expected %g", name, (double)gate[i], (double)up[i],
                     (double)expected[i], right);
    }
    out[n] = 5.0f;
    tested(gate, up, n, out);
    CHECK_SAME(out, expected, n, "%s %u", name, n);
    assert_true(out[n] == 5.0f);
    memcpy(out, gate, n * sizeof *out);
    tested(out, up, n, out);
    CHECK_SAME(out, expected, n, "%s %u in place", name, n);
    free(expected);
    free(out);
}

static void check_not_finite(activation_mul *tested)
{
    float gate[3] = {NAN, INFINITY, -INFINITY}, up[3] = {1.0f, 1.0f, 1.0f}, out[3];
    tested(gate, up, 3, out);
    assert_true(isnan(out[0]) && isinf(out[1]) && !isfinite(out[2]));
}

static void test_norm_and_activations(void **state)
{
    (void)state;
    static float a[1600], b[1600];
    for (int t = 0; t < n_tables; t++)
        for (uint32_t n = 1; n <= 1536; n += n < 70 ? 1 : 41) {
            random_floats(a, n);
            random_floats(b, n);
            check_rms_norm(&tables[t], n, a, b);
            for (uint32_t i = 0; i < n; i++)
                a[i] = random_float() * (i % 5 == 0 ? 30.0f : 2.0f);
            check_activation("silu", tables[t].silu_mul, tables[0].silu_mul, silu, 1e-30, n, a, b);
            check_activation("gelu", tables[t].gelu_mul, tables[0].gelu_mul, gelu, 1e-9, n, a, b);
        }
    for (int t = 0; t < n_tables; t++) {
        check_not_finite(tables[t].silu_mul);
        check_not_finite(tables[t].gelu_mul);
    }
}

/* The norm by the order that ops.h writes down, with n_lanes lanes instead of NORM_LANES. */
static void norm_as_agreed(const float *x, const float *weight, uint32_t n, uint32_t n_lanes, float *out)
{
    float lanes[NORM_LANES] = {0};
    for (uint32_t i = 0; i < n; i++)
        lanes[i % n_lanes] = fmaf(x[i], x[i], lanes[i % n_lanes]);
    for (uint32_t half = n_lanes / 2; half > 0; half /= 2)
        for (uint32_t lane = 0; lane < half; lane++)
            lanes[lane] += lanes[lane + half];
    float scale = 1.0f / sqrtf(lanes[0] / (float)n + 1e-6f);
    for (uint32_t i = 0; i < n; i++)
        out[i] = x[i] * scale * weight[i];
}

/* Every instruction set, plain C too, adds a norm's squares in the order of ops.h, which any device can keep. That another
 * order shows is seen with other numbers of lanes: they give other bits, if not for every row. */
static void test_norms_add_in_the_agreed_order(void **state)
{
    (void)state;
    enum { LARGEST = 8960 };
    static const uint32_t sizes[] = {1,   2,   15,   16,   17,   31,   33,      47,  48,
                                     49,  63,  64,   65,   127,  128,  129,     576, 896,
                                     897, 961, 1023, 1535, 1536, 1537, LARGEST, 3333};
    static float x[LARGEST], weight[LARGEST], expected[LARGEST], out[LARGEST];
    uint32_t n_others = 0;
    for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++)
        for (int repeat = 0; repeat < 4; repeat++) {
            uint32_t n = sizes[s];
            random_floats(x, n);
            random_floats(weight, n);
            norm_as_agreed(x, weight, n, NORM_LANES, expected);
            for (int t = 0; t < n_tables; t++) {
                tables[t].rms_norm(x, weight, n, 1e-6f, out);
                CHECK_SAME(out, expected, n, "%s rms_norm %u", tables[t].name, n);
            }
            for (uint32_t n_lanes = 8; n > NORM_LANES && n_lanes < NORM_LANES; n_lanes *= 2) {
                norm_as_agreed(x, weight, n, n_lanes, out);
                n_others += !same_floats(out, expected, n);
            }
        }
    assert_true(n_others > 10); /* of 168: the square root hides most differences of the last bit */
}

static void test_rope(void **state)
{
    (void)state;
    static const uint32_t dims[] = {2, 6, 64, 80, 96, 128, 256};
    for (int t = 0; t < n_tables; t++)
        for (int i = 0; i < 7; i++)
            for (int interleaved = 0; interleaved < 2; interleaved++) {
                uint32_t dim = dims[i], n_rot = i % 2 ? dim : (dim / 2 + 1) / 2 * 2;
                float cosine[128], sine[128], x[3 * 256 + 1], expected[3 * 256 + 1];
                random_floats(x, 3 * dim + 1);
                for (uint32_t j = 0; j < n_rot / 2; j++) {
                    float angle = random_float() * 10;
                    cosine[j] = cosf(angle);
                    sine[j] = sinf(angle);
                }
                memcpy(expected, x, sizeof x);
                for (uint32_t head = 0; head < 3; head++)
                    for (uint32_t j = 0; j < n_rot / 2; j++) {
                        float *one = expected + head * dim + (interleaved ? 2 * j : j);
                        float *two = expected + head * dim + (interleaved ? 2 * j + 1 : j + n_rot / 2);
                        double old_one = *one, old_two = *two;
                        *one = (float)(old_one * cosine[j] - old_two * sine[j]);
                        *two = (float)(old_one * sine[j] + old_two * cosine[j]);
                    }
                float by_ref[3 * 256 + 1];
                memcpy(by_ref, x, sizeof x);
                tables[0].rope(by_ref, 3, dim, n_rot, cosine, sine, interleaved);
                tables[t].rope(x, 3, dim, n_rot, cosine, sine, interleaved);
                for (uint32_t j = 0; j < 3 * dim + 1; j++)
                    assert_true(fabsf(x[j] - expected[j]) < 2e-6f);
                CHECK_SAME(x, by_ref, 3 * dim + 1, "%s rope %u", tables[t].name, dim);
            }
}

static void test_the_table_is_chosen(void **state)
{
    (void)state;
    char message[200] = "";
    assert_int_equal(setenv("RUNNEL_CPU", "ref", 1), 0);
    assert_string_equal(kernels_get(message, sizeof message)->name, "ref");
    assert_int_equal(setenv("RUNNEL_CPU", "386", 1), 0);
    assert_null(kernels_get(message, sizeof message));
    assert_non_null(strstr(message, "386"));
    assert_non_null(strstr(message, "ref"));
    assert_int_equal(unsetenv("RUNNEL_CPU"), 0);
    const struct kernels *all;
    size_t n = kernels_possible(&all);
    assert_string_equal(kernels_get(message, sizeof message)->name, all[n - 1].name);
}

int main(int argc, char **argv)
{
    fill_tables();
    if (argc > 1 && strcmp(argv[1], "--bench") == 0)
        return kernel_bench(tables, n_tables, argc > 2 ? argv[2] : "", argc > 3 ? argv[3] : "",
                            argc > 4 ? (uint32_t)atoi(argv[4]) : 0);
    if (!keep_tables_asked_for(argc, argv))
        return 77;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_pack_keeps_every_bit),
        cmocka_unit_test(test_pack_keeps_every_exponent),
        cmocka_unit_test(test_quantize),
        cmocka_unit_test(test_products_of_every_shape),
        cmocka_unit_test(test_products_of_many_rows),
        cmocka_unit_test(test_products_of_extremes),
        cmocka_unit_test(test_not_finite_inputs_reach_the_output),
        cmocka_unit_test(test_norm_and_activations),
        cmocka_unit_test(test_norms_add_in_the_agreed_order),
        cmocka_unit_test(test_rope),
        cmocka_unit_test(test_the_table_is_chosen),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
