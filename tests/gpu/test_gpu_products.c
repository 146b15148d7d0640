/* test_gpu_products.c: products, also those that make their inputs, and embeddings on a device against the CPU's plain table, bit for bit, for every type. Do the numbers of
 * layout.h agree with the CPU's? */
#include "device_check.h"
#include "helpers/random_matrix.h"
#include "kernels/act.h"
#include "kernels/pack.h"

#include <math.h>

static void test_layouts_agree(void **state)
{
    (void)state;
    for (int t = 0; t < N_TYPES; t++) {
        enum tensor_type type = all_types[t];
        assert_true(gpu_knows_type(type));
        assert_int_equal(gpu_act_kind_of(type), act_kind_of(pack_kind(type)));
        for (uint32_t n = 256; n <= 8960; n += 256)
            assert_int_equal(gpu_tile_bytes(type, n), pack_tile_bytes(type, n));
        for (uint32_t n = 32; quant_find(type)->block_values < 256 && n <= 1024; n += 32)
            assert_int_equal(gpu_tile_bytes(type, n), pack_tile_bytes(type, n));
    }
    for (enum act_kind kind = 0; kind < ACT_KINDS; kind++)
        for (uint32_t n = 1; n < 1000; n += 31)
            assert_int_equal(gpu_act_row_bytes((enum gpu_act_kind)kind, n), act_row_bytes(kind, n));
    for (uint32_t dim = 2; dim < 300; dim += 2)
        for (int k_f32 = 0; k_f32 < 2; k_f32++) {
            const struct kv_shape shape = {dim, k_f32};
            assert_int_equal(gpu_kv_k_bytes(dim, k_f32), kv_k_bytes(&shape));
            assert_int_equal(gpu_kv_block_bytes(dim, k_f32), kv_block_bytes(&shape));
        }
    assert_false(gpu_knows_type(12345));
}

/* One of up to three matrices of a launch, and what the CPU makes of it. */
struct tried {
    struct matrix m;
    struct gpu_place tiles, bias, out;
    float *bias_values, *expected;
};

static struct tried make_tried(enum tensor_type type, uint32_t n_rows, uint32_t n_columns, enum fill fill,
                               bool has_bias, uint32_t n_acts)
{
    struct tried t = {.m = make_matrix(type, n_rows, n_columns, fill)};
    size_t n_out = (size_t)n_acts * n_rows;
    t.bias_values = malloc(n_rows * sizeof(float));
    t.expected = malloc(n_out * sizeof(float));
    assert_true(t.bias_values && t.expected);
    random_floats(t.bias_values, n_rows);
    random_floats(t.expected, n_out); /* the old values, which may be added to */
    t.tiles = upload(t.m.packed.data, t.m.packed.n_tiles * t.m.packed.tile_bytes);
    t.bias = has_bias ? upload(t.bias_values, n_rows * sizeof(float)) : nowhere;
    t.out = upload(t.expected, n_out * sizeof(float));
    return t;
}

static void free_tried(struct tried *t)
{
    free_matrix(&t->m);
    free(t->bias_values);
    free(t->expected);
    release(&t->tiles);
    release(&t->bias);
    release(&t->out);
}

static void multiply_on_cpu(struct tried *t, const struct gpu_product *product, const uint8_t *acts,
                            size_t stride)
{
    const struct matmul_args args = {.w = &t->m.packed,
                                     .acts = acts,
                                     .act_stride = stride,
                                     .n_acts = product->n_acts,
                                     .out = t->expected,
                                     .out_stride = t->m.packed.n_rows,
                                     .bias = t->bias.buffer.handle ? t->bias_values : NULL,
                                     .add = product->add};
    tables[0].matmul[t->m.packed.kind](&args, 0, t->m.packed.n_tiles);
}

static uint8_t *make_acts(enum act_kind kind, uint32_t n_acts, uint32_t n_columns)
{
    size_t stride = act_row_bytes(kind, n_columns);
    uint8_t *acts = allocate(n_acts * stride);
    float *x = malloc(n_columns * sizeof *x);
    assert_non_null(x);
    for (uint32_t i = 0; i < n_acts; i++) {
        random_floats(x, n_columns);
        tables[0].quantize[kind](x, n_columns, acts + i * stride);
    }
    free(x);
    return acts;
}

/* Matrices of these types in one call. */
static void check_product_by(int (*multiply)(struct gpu *gpu, const struct gpu_product *product,
                                             runnel_error *error),
                             const enum tensor_type *types, uint32_t n_types, uint32_t n_rows,
                             uint32_t n_columns, uint32_t n_acts, enum fill fill, bool add)
{
    struct tried tried[GPU_PRODUCTS_MAX];
    struct gpu_product product = {
        .n_acts = n_acts, .n_columns = n_columns, .n_matrices = n_types, .add = add};
    uint8_t *acts[ACT_KINDS];
    for (enum act_kind kind = 0; kind < ACT_KINDS; kind++) {
        acts[kind] = make_acts(kind, n_acts, n_columns);
        product.acts.of[kind] = upload(acts[kind], n_acts * act_row_bytes(kind, n_columns));
    }
    for (uint32_t i = 0; i < n_types; i++) {
        tried[i] = make_tried(types[i], n_rows + 7 * i, n_columns, fill, random_below(2), n_acts);
        product.matrices[i] =
            (struct gpu_matrix){tried[i].tiles, types[i], n_rows + 7 * i, tried[i].bias, tried[i].out};
    }
    MUST(multiply(test_gpu, &product, &test_error));
    for (uint32_t i = 0; i < n_types; i++) {
        size_t n_out = (size_t)n_acts * tried[i].m.packed.n_rows;
        float *out = malloc(n_out * sizeof *out);
        assert_non_null(out);
        enum act_kind kind = act_kind_of(tried[i].m.packed.kind);
        multiply_on_cpu(&tried[i], &product, acts[kind], act_row_bytes(kind, n_columns));
        download(tried[i].out, out, n_out * sizeof *out);
        CHECK_SAME(out, tried[i].expected, n_out, "%s [%u, %u] x %u, fill %d, matrix %u",
                   quant_find(types[i])->name, tried[i].m.packed.n_rows, n_columns, n_acts, fill, i);
        free(out);
        free_tried(&tried[i]);
    }
    for (enum act_kind kind = 0; kind < ACT_KINDS; kind++) {
        free(acts[kind]);
        release(&product.acts.of[kind]);
    }
}

static void check_product(const enum tensor_type *types, uint32_t n_types, uint32_t n_rows,
                          uint32_t n_columns, uint32_t n_acts, enum fill fill, bool add)
{
    check_product_by(gpu_multiply, types, n_types, n_rows, n_columns, n_acts, fill, add);
}

static int multiply_on_matrix_units(struct gpu *gpu, const struct gpu_product *product, runnel_error *error)
{
    int code = gpu_prepare(gpu, GPU_FUNCTION_PRODUCT_Q4_K_MATRIX, error);
    code = code ? code : gpu_prepare(gpu, GPU_FUNCTION_PRODUCT_Q6_K_MATRIX, error);
    code = code ? code : gpu_multiply_matrix(gpu, product, GPU_Q4_K, error);
    return code ? code : gpu_multiply_matrix(gpu, product, GPU_Q6_K, error);
}

/* Device code for matrix units, on them or on what stands for them. */
static void test_products_on_matrix_units(void **state)
{
    (void)state;
    static const enum tensor_type types[] = {TENSOR_Q4_K, TENSOR_Q6_K, TENSOR_Q4_K};
    assert_true(gpu_has_matrix_function(TENSOR_Q4_K) && gpu_has_matrix_function(TENSOR_Q6_K) &&
                !gpu_has_matrix_function(TENSOR_Q5_K));
    for (enum fill fill = 0; fill < FILLS; fill++)
        for (int t = 0; t < 2; t++)
            check_product_by(multiply_on_matrix_units, &types[t], 1, 1 + random_below(90),
                             256 * (1 + random_below(4)), 1 + random_below(40), fill, fill % 2);
    check_product_by(multiply_on_matrix_units, types, 3, 50, 512, 70, FILL_RANDOM, true);
}

static void test_products_of_every_type(void **state)
{
    (void)state;
    static const uint32_t n_acts[] = {1, 3, 8, 11};
    for (int t = 0; t < N_TYPES; t++)
        for (enum fill fill = 0; fill < FILLS; fill++) {
            bool is_k = quant_find(all_types[t])->block_values == 256;
            for (int i = 0; i < 4; i++)
                check_product(&all_types[t], 1, 1 + random_below(40),
                              is_k ? 256 * (1 + random_below(19)) : 32 * (1 + random_below(40)), n_acts[i],
                              fill, random_below(2));
        }
}

/* What products make their inputs of: one row, and what it is normalised with. */
struct one_row {
    float *x, *norm, *inputs; /* inputs: what the CPU makes of it */
    struct gpu_preparation preparation;
};

/* factor: 0 and tiny ones are rows that count as zeros. */
static struct one_row make_row(uint32_t n_columns, bool is_normalised, float factor)
{
    struct one_row row = {malloc(n_columns * 4), malloc(n_columns * 4), malloc(n_columns * 4), {.n_rows = 1}};
    assert_true(row.x && row.norm && row.inputs);
    random_floats(row.x, n_columns);
    random_floats(row.norm, n_columns);
    for (uint32_t i = 0; i < n_columns; i++)
        row.inputs[i] = row.x[i] *= factor;
    if (is_normalised)
        tables[0].rms_norm(row.x, row.norm, n_columns, 1e-6f, row.inputs);
    row.preparation.x = upload(row.x, n_columns * 4);
    row.preparation.norm_weight = is_normalised ? upload(row.norm, n_columns * 4) : nowhere;
    row.preparation.epsilon = 1e-6f;
    row.preparation.n_columns = n_columns;
    for (enum act_kind kind = 0; kind < ACT_KINDS; kind++)
        row.preparation.out.of[kind] = make_place(act_row_bytes(kind, n_columns));
    return row;
}

static void free_row(struct one_row *row)
{
    release(&row->preparation.x);
    release(&row->preparation.norm_weight);
    for (enum act_kind kind = 0; kind < ACT_KINDS; kind++)
        release(&row->preparation.out.of[kind]);
    free(row->x);
    free(row->norm);
    free(row->inputs);
}

/* What the CPU makes of a row of inputs, into t->expected. */
static void multiply_row_on_cpu(struct tried *t, const struct gpu_product *product, const float *inputs)
{
    enum act_kind kind = act_kind_of(t->m.packed.kind);
    uint8_t *acts = allocate(act_row_bytes(kind, product->n_columns));
    tables[0].quantize[kind](inputs, product->n_columns, acts);
    multiply_on_cpu(t, product, acts, act_row_bytes(kind, product->n_columns));
    free(acts);
}

static void check_output(struct tried *t, uint32_t n_columns, const char *what)
{
    float *out = malloc(t->m.packed.n_rows * sizeof *out);
    assert_non_null(out);
    download(t->out, out, t->m.packed.n_rows * sizeof *out);
    CHECK_SAME(out, t->expected, t->m.packed.n_rows, "%s, %u columns, kind %d", what, n_columns,
               t->m.packed.kind);
    free(out);
}

static struct gpu_matrix matrix_of(const struct tried *t, enum tensor_type type)
{
    return (struct gpu_matrix){t->tiles, type, t->m.packed.n_rows, t->bias, t->out};
}

static void check_prepared(const enum tensor_type *types, uint32_t n_types, uint32_t n_rows,
                           uint32_t n_columns, enum fill fill, bool is_normalised, float factor, bool add)
{
    struct tried tried[GPU_PRODUCTS_MAX];
    struct one_row row = make_row(n_columns, is_normalised, factor);
    struct gpu_product product = {
        .acts = row.preparation.out, .n_acts = 1, .n_columns = n_columns, .n_matrices = n_types, .add = add};
    for (uint32_t i = 0; i < n_types; i++) {
        tried[i] = make_tried(types[i], n_rows + 7 * i, n_columns, fill, random_below(2), 1);
        product.matrices[i] = matrix_of(&tried[i], types[i]);
    }
    MUST(gpu_multiply_prepared(test_gpu, &row.preparation, &product, &test_error));
    for (uint32_t i = 0; i < n_types; i++) {
        multiply_row_on_cpu(&tried[i], &product, row.inputs);
        check_output(&tried[i], n_columns, is_normalised ? "norm" : "row");
        free_tried(&tried[i]);
    }
    free_row(&row);
}

static void test_products_that_make_their_inputs(void **state)
{
    (void)state;
    static const enum tensor_type types[][3] = {
        {TENSOR_Q4_K, TENSOR_Q4_K, TENSOR_Q4_K}, {TENSOR_Q6_K, TENSOR_Q6_K, TENSOR_Q6_K},
        {TENSOR_Q4_K, TENSOR_Q4_K, TENSOR_Q6_K}, {TENSOR_Q5_K, TENSOR_Q3_K, TENSOR_IQ4_XS},
        {TENSOR_Q2_K, TENSOR_Q2_K, TENSOR_Q2_K}, {TENSOR_Q4_K, TENSOR_Q8_0, TENSOR_F16},
    };
    static const uint32_t widths[] = {256, 1536, 2048, 4096, 4352, 8960};
    static const float factors[] = {1, 300, 1e-3f, 0, 1e-29f, NAN};
    for (int i = 0; i < 6; i++)
        for (int w = 0; w < 6; w++)
            check_prepared(types[i], 1 + (uint32_t)(i + w) % 3, 1 + random_below(50), widths[w],
                           (enum fill)((i + w) % FILLS), (i + w / 2) % 2, factors[(i * 5 + w) % 6], w % 2);
}

static void check_feed_forward(enum tensor_type gate, enum tensor_type up, enum tensor_type down, bool gelu,
                               uint32_t n_columns, uint32_t n, float factor)
{
    enum { N_OUT = 37 };
    struct one_row row = make_row(n_columns, true, factor), activated = make_row(n, false, 1);
    struct tried tried[3] = {make_tried(gate, n, n_columns, FILL_RANDOM, gelu, 1),
                             make_tried(up, n, n_columns, FILL_RANDOM, gelu, 1),
                             make_tried(down, N_OUT, n, FILL_RANDOM, false, 1)};
    const struct gpu_feed_forward feed = {
        .input = row.preparation,
        .gate_up = {.acts = row.preparation.out,
                    .n_acts = 1,
                    .n_columns = n_columns,
                    .matrices = {matrix_of(&tried[0], gate), matrix_of(&tried[1], up)},
                    .n_matrices = 2},
        .activation = {.gate = tried[0].out,
                       .up = tried[1].out,
                       .n_rows = 1,
                       .n = n,
                       .gelu = gelu,
                       .out = activated.preparation.out},
        .down = {.acts = activated.preparation.out,
                 .n_acts = 1,
                 .n_columns = n,
                 .matrices = {matrix_of(&tried[2], down)},
                 .n_matrices = 1,
                 .add = true},
    };
    MUST(gpu_feed_forward(test_gpu, &feed, &test_error));
    multiply_row_on_cpu(&tried[0], &feed.gate_up, row.inputs);
    multiply_row_on_cpu(&tried[1], &feed.gate_up, row.inputs);
    (gelu ? tables[0].gelu_mul : tables[0].silu_mul)(tried[0].expected, tried[1].expected, n,
                                                     activated.inputs);
    multiply_row_on_cpu(&tried[2], &feed.down, activated.inputs);
    check_output(&tried[2], n, gelu ? "gelu" : "silu");
    for (int i = 0; i < 3; i++)
        free_tried(&tried[i]);
    free_row(&row);
    free_row(&activated);
}

static void test_feed_forward(void **state)
{
    (void)state;
    check_feed_forward(TENSOR_Q4_K, TENSOR_Q4_K, TENSOR_Q4_K, false, 1536, 8960, 1);
    check_feed_forward(TENSOR_Q4_K, TENSOR_Q4_K, TENSOR_Q6_K, true, 256, 512, 1);
    check_feed_forward(TENSOR_Q6_K, TENSOR_Q6_K, TENSOR_Q5_K, false, 2304, 256, 30);
    check_feed_forward(TENSOR_Q5_K, TENSOR_Q6_K, TENSOR_Q8_0, true, 512, 768, 1);
    check_feed_forward(TENSOR_Q4_K, TENSOR_Q4_K, TENSOR_Q3_K, false, 512, 4352, 0);
    check_feed_forward(TENSOR_Q8_0, TENSOR_Q4_0, TENSOR_Q4_K, false, 320, 512, 1);
}

/* As the target has them. */
static void test_large_products(void **state)
{
    (void)state;
    static const enum tensor_type types[] = {TENSOR_Q4_K, TENSOR_Q6_K};
    for (int t = 0; t < 2; t++)
        for (uint32_t n_acts = 1; n_acts <= 8; n_acts += 7) {
            check_product(&types[t], 1, 1536, 8960, n_acts, FILL_RANDOM, true);
            check_product(&types[t], 1, 8960, 1536, n_acts, FILL_RANDOM, false);
        }
}

static void test_products_side_by_side(void **state)
{
    (void)state;
    static const enum tensor_type types[][3] = {
        {TENSOR_Q4_K, TENSOR_Q4_K, TENSOR_Q6_K},    {TENSOR_Q4_K, TENSOR_Q4_K, TENSOR_Q4_K},
        {TENSOR_Q2_K, TENSOR_Q3_K, TENSOR_Q5_K},    {TENSOR_IQ4_XS, TENSOR_Q5_K, TENSOR_Q3_K},
        {TENSOR_Q5_0, TENSOR_Q5_0, TENSOR_Q8_0},    {TENSOR_Q8_0, TENSOR_Q8_0, TENSOR_Q8_0},
        {TENSOR_Q4_1, TENSOR_MXFP4, TENSOR_IQ4_NL}, {TENSOR_F32, TENSOR_BF16, TENSOR_F16},
        {TENSOR_Q4_K, TENSOR_Q8_0, TENSOR_F16},     {TENSOR_Q5_1, TENSOR_Q6_K, TENSOR_Q4_0},
    };
    for (size_t i = 0; i < sizeof types / sizeof *types; i++)
        for (uint32_t n = 2; n <= 3; n++)
            for (uint32_t n_acts = 1; n_acts <= 9; n_acts += 4)
                check_product(types[i], n, 16 * random_below(2) + 17, 512, n_acts, FILL_RANDOM, i % 2);
}

static void check_embedding(enum tensor_type type, enum fill fill, float scale)
{
    enum { ROWS = 37, COLUMNS = 768, N = 5 };
    static float expected[N][COLUMNS], out[N][COLUMNS];
    struct matrix m = make_matrix(type, ROWS, COLUMNS, fill);
    struct gpu_row rows[N] = {{0}};
    for (int i = 0; i < N; i++) {
        rows[i].token = (int32_t)random_below(ROWS);
        pack_row_f32(&m.packed, (uint32_t)rows[i].token, expected[i]);
        for (int j = 0; j < COLUMNS && scale != 1; j++)
            expected[i][j] *= scale;
    }
    struct gpu_embedding embedding = {.rows = {upload(rows, sizeof rows), nowhere, N},
                                      .matrix = upload(m.packed.data, m.packed.n_tiles * m.packed.tile_bytes),
                                      .type = type,
                                      .n_columns = COLUMNS,
                                      .scale = scale,
                                      .out = make_place(sizeof out)};
    MUST(gpu_embed(test_gpu, &embedding, &test_error));
    download(embedding.out, out, sizeof out);
    CHECK_SAME(out[0], expected[0], N * COLUMNS, "%s, fill %d", quant_find(type)->name, fill);
    release(&embedding.rows.rows);
    release(&embedding.matrix);
    release(&embedding.out);
    free_matrix(&m);
}

static void test_embeddings(void **state)
{
    (void)state;
    for (int t = 0; t < N_TYPES; t++)
        for (enum fill fill = 0; fill < FILLS; fill++)
            check_embedding(all_types[t], fill, fill == FILL_ONES ? 27.7f : 1);
}

static int prepare(void **state)
{
    (void)state;
    uint32_t types[N_TYPES];
    for (int t = 0; t < N_TYPES; t++)
        types[t] = all_types[t];
    MUST(gpu_prepare_all(test_gpu, types, N_TYPES, &test_error));
    return 0;
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_layouts_agree),
        cmocka_unit_test(test_embeddings),
        cmocka_unit_test(test_products_of_every_type),
        cmocka_unit_test(test_products_side_by_side),
        cmocka_unit_test(test_large_products),
        cmocka_unit_test(test_products_on_matrix_units),
        cmocka_unit_test(test_products_that_make_their_inputs),
        cmocka_unit_test(test_feed_forward),
    };
    fill_tables();
    open_test_gpu();
    if (argc > 1)
        cmocka_set_test_filter(argv[1]);
    int failed = cmocka_run_group_tests(tests, prepare, NULL);
    gpu_close(test_gpu);
    return failed;
}
