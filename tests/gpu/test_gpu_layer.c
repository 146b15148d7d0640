/* test_gpu_layer.c: what a layer does on a device beside its products and its attention, against the CPU's plain table, bit for bit: norms,
 * activation rows, activations, copies of pages, the best logit. */
#include "device_check.h"
#include "engine/sampler.h"
#include "kernels/act.h"

#include <math.h>

enum { ROWS = 3, WIDEST = 8960 };

/* Floats as layers have them, and now and then a row with none but zeros, tiny ones, or one that is not finite. */
static void fill_row(float *x, uint32_t n, int which)
{
    static const float scales[] = {1, 1e-3f, 300, 0, 1e-29f, 1e-38f};
    for (uint32_t i = 0; i < n; i++)
        x[i] = random_float() * scales[which % 6];
    if (which % 7 == 6)
        x[random_below(n)] = random_below(2) ? NAN : INFINITY;
}

static struct gpu_acts make_acts(uint32_t n_rows, uint32_t n_columns, unsigned kinds)
{
    struct gpu_acts acts = {{nowhere, nowhere, nowhere}};
    for (int kind = 0; kind < GPU_ACT_KINDS; kind++)
        if (kinds >> kind & 1)
            acts.of[kind] = make_place(n_rows * gpu_act_row_bytes((enum gpu_act_kind)kind, n_columns));
    return acts;
}

/* NaN as d, and what follows from it, is any NaN. */
static void make_nans_equal(uint8_t *bytes, size_t n)
{
    for (size_t at = 0; at < n; at += 4) {
        float value;
        memcpy(&value, bytes + at, 4);
        if (isnan(value))
            memset(bytes + at, 0x7f, 4);
    }
}

/* Activation rows against those that the CPU makes of x [n_rows, n_columns]. */
static void check_acts(struct gpu_acts *acts, const float *x, uint32_t n_rows, uint32_t n_columns,
                       const char *what)
{
    for (enum act_kind kind = 0; kind < ACT_KINDS; kind++) {
        size_t n_bytes = act_row_bytes(kind, n_columns);
        uint8_t *expected = allocate(n_bytes), *got = allocate(n_bytes);
        for (uint32_t row = 0; row < n_rows && acts->of[kind].buffer.handle; row++) {
            tables[0].quantize[kind](x + (size_t)row * n_columns, n_columns, expected);
            download(gpu_at(acts->of[kind].buffer, acts->of[kind].offset + row * n_bytes), got, n_bytes);
            make_nans_equal(expected, n_bytes);
            make_nans_equal(got, n_bytes);
            for (size_t i = 0; i < n_bytes; i++)
                if (expected[i] != got[i])
                    fail_msg("%s: %u columns, row %u, kind %d: byte %zu is %d, not %d", what, n_columns, row,
                             kind, i, got[i], expected[i]);
        }
        free(expected);
        free(got);
        release(&acts->of[kind]);
    }
}

static void check_preparation(uint32_t n_columns, unsigned kinds, bool norm, bool which)
{
    static float x[ROWS][WIDEST], rows[ROWS][WIDEST], weight[WIDEST];
    static const uint32_t order[ROWS] = {2, 0, 2};
    static int filled;
    random_floats(weight, n_columns);
    float *dense = &x[0][0];
    for (int row = 0; row < ROWS; row++)
        fill_row(dense + (size_t)row * n_columns, n_columns, filled++);
    struct gpu_preparation preparation = {
        .x = upload(x, (size_t)ROWS * n_columns * sizeof(float)),
        .which = which ? upload(order, sizeof order) : nowhere,
        .n_rows = ROWS,
        .n_columns = n_columns,
        .norm_weight = norm ? upload(weight, n_columns * sizeof(float)) : nowhere,
        .epsilon = 1e-6f,
        .out = make_acts(ROWS, n_columns, kinds),
    };
    MUST(gpu_prepare_rows(test_gpu, &preparation, &test_error));
    for (uint32_t row = 0; row < ROWS; row++) {
        const float *from = dense + (size_t)(which ? order[row] : row) * n_columns;
        float *to = &rows[0][0] + (size_t)row * n_columns;
        memcpy(to, from, n_columns * sizeof *to);
        if (norm)
            tables[0].rms_norm(from, weight, n_columns, 1e-6f, to);
    }
    check_acts(&preparation.out, &rows[0][0], ROWS, n_columns, norm ? "norm" : "rows");
    release(&preparation.x);
    release(&preparation.which);
    release(&preparation.norm_weight);
}

static void test_rows_are_prepared(void **state)
{
    (void)state;
    static const uint32_t widths[] = {1536, 32, 64, 96, 256, 576, 896, 2, 8960, 300};
    for (int i = 0; i < 10; i++)
        for (int norm = 0; norm < 2; norm++)
            for (int which = 0; which < 2; which++)
                check_preparation(widths[i], 1 + random_below(7), norm, which);
    for (int i = 0; i < 7; i++)
        check_preparation(512, 7, i % 2, false);
}

static void test_activations(void **state)
{
    (void)state;
    static float gate[ROWS * WIDEST], up[ROWS * WIDEST], out[ROWS * WIDEST];
    static const uint32_t widths[] = {8960, 1536, 320, 256, 32};
    for (int i = 0; i < 10; i++) {
        uint32_t n = widths[i / 2];
        bool gelu = i % 2;
        for (uint32_t row = 0; row < ROWS; row++) {
            fill_row(gate + row * n, n, (int)row + i);
            fill_row(up + row * n, n, (int)row);
            (gelu ? tables[0].gelu_mul : tables[0].silu_mul)(gate + row * n, up + row * n, n, out + row * n);
        }
        struct gpu_activation activation = {.gate = upload(gate, (size_t)ROWS * n * 4),
                                            .up = upload(up, (size_t)ROWS * n * 4),
                                            .n_rows = ROWS,
                                            .n = n,
                                            .gelu = gelu,
                                            .out = make_acts(ROWS, n, 7)};
        MUST(gpu_activate(test_gpu, &activation, &test_error));
        check_acts(&activation.out, out, ROWS, n, gelu ? "gelu" : "silu");
        release(&activation.gate);
        release(&activation.up);
    }
}

static void test_normalised_rows_are_added(void **state)
{
    (void)state;
    static float x[ROWS * 1536], added[ROWS * 1536], weight[1536], norm[1536], got[ROWS * 1536];
    for (uint32_t n = 64; n <= 1536; n += 368) {
        random_floats(x, ROWS * n);
        random_floats(added, ROWS * n);
        random_floats(weight, n);
        struct gpu_addition addition = {.x = upload(x, ROWS * n * 4),
                                        .added = upload(added, ROWS * n * 4),
                                        .norm_weight = upload(weight, n * 4),
                                        .n_rows = ROWS,
                                        .n = n,
                                        .epsilon = 1e-5f};
        MUST(gpu_add_normalised(test_gpu, &addition, &test_error));
        download(addition.x, got, ROWS * n * 4);
        for (uint32_t row = 0; row < ROWS; row++) {
            tables[0].rms_norm(added + row * n, weight, n, 1e-5f, norm);
            for (uint32_t i = 0; i < n; i++)
                x[row * n + i] += norm[i];
        }
        CHECK_SAME(got, x, ROWS * n, "%u columns", n);
        release(&addition.x);
        release(&addition.added);
        release(&addition.norm_weight);
    }
}

/* Pairs one after the other: what the second one copies is what the first one wrote. */
static void test_pages_are_copied(void **state)
{
    (void)state;
    enum { PAGES = 5, KV_HEADS = 2, DIM = 48, PAIRS = 3 };
    static const uint32_t pairs[PAIRS][2] = {{0, 3}, {3, 1}, {2, 0}};
    for (int k_f32 = 0; k_f32 < 2; k_f32++) {
        size_t block = gpu_kv_block_bytes(DIM, k_f32), n_bytes = PAGES * KV_HEADS * block;
        uint8_t *bytes = allocate(n_bytes), *got = allocate(n_bytes);
        for (size_t i = 0; i < n_bytes; i++)
            bytes[i] = (uint8_t)random_u32();
        struct gpu_page_copies copies = {
            .cache = {upload(bytes, n_bytes), PAGES, KV_HEADS, DIM, k_f32},
            .pairs = upload(pairs, sizeof pairs),
            .n_pairs = PAIRS,
        };
        MUST(gpu_copy_pages(test_gpu, &copies, &test_error));
        for (int pair = 0; pair < PAIRS; pair++)
            for (int head = 0; head < KV_HEADS; head++)
                memcpy(bytes + (head * PAGES + pairs[pair][1]) * block,
                       bytes + (head * PAGES + pairs[pair][0]) * block, block);
        download(copies.cache.blocks, got, n_bytes);
        assert_memory_equal(got, bytes, n_bytes);
        free(bytes);
        free(got);
        release(&copies.cache.blocks);
        release(&copies.pairs);
    }
}

static struct gpu_best find_plainly(const float *logits, uint32_t n)
{
    struct gpu_best best = {0, 0, -INFINITY, 0};
    bool found = false;
    for (uint32_t i = 0; i < n; i++) {
        best.has_nan |= isnan(logits[i]);
        if (!isnan(logits[i]) && (!found || logits[i] > best.logit)) {
            best.id = i;
            best.logit = logits[i];
            found = true;
        }
    }
    return best;
}

/* What the CPU draws from the logits without a temperature: the same token, or nothing where they are not all numbers, of which one is
 * possible. */
static void check_draw(const struct gpu_best *best, const float *logits, uint32_t n, uint32_t row)
{
    const runnel_sampling greedy = {.size = sizeof greedy, .top_p = 1, .repetition_penalty = 1};
    const struct sampler_context nothing = {.n_tokens = 0};
    bool is_usable = !best->has_nan && best->logit < INFINITY && best->logit > -INFINITY;
    struct sampler *sampler;
    int32_t token = -1;
    MUST(sampler_create(n, &sampler, &test_error));
    assert_true(sampler_takes_best(&greedy));
    int failure = sampler_draw(sampler, &greedy, &nothing, logits, &token, NULL, &test_error);
    if (failure != (is_usable ? RUNNEL_OK : RUNNEL_ENUMERIC) || (is_usable && best->id != (uint32_t)token))
        fail_msg("%u logits, row %u: %u, %g, NaN %u; the CPU drew %d, status %d", n, row, best->id,
                 (double)best->logit, best->has_nan, token, failure);
    sampler_free(sampler);
}

static void test_best_logit(void **state)
{
    (void)state;
    enum { N_MAX = 151936, CASES = 7, BEHIND = 9 /* columns that do not count */ };
    static const uint32_t widths[] = {N_MAX - BEHIND, 1, 2048, 2049, 300};
    float *logits = malloc((size_t)CASES * N_MAX * sizeof *logits);
    assert_non_null(logits);
    for (int w = 0; w < 5; w++) {
        uint32_t n = widths[w], n_columns = n + BEHIND;
        struct gpu_best best[CASES];
        for (uint32_t row = 0; row < CASES; row++)
            /* row 1: many equal ones; 2: all NaN; 3: one NaN; 4: all -infinity; 5: zeros of both signs; 6: one +infinity */
            for (uint32_t i = 0; i < n_columns; i++)
                logits[row * n_columns + i] = i >= n     ? (row % 2 ? NAN : INFINITY)
                                              : row == 1 ? (float)random_below(5)
                                              : row == 2 ? NAN
                                              : row == 4 ? -INFINITY
                                              : row == 5 ? (i % 3 ? 0.0f : -0.0f)
                                                         : random_float();
        logits[3 * n_columns + random_below(n)] = NAN;
        logits[6 * n_columns + random_below(n)] = INFINITY;
        struct gpu_choice choice = {.logits = upload(logits, (size_t)CASES * n_columns * 4),
                                    .n_rows = CASES,
                                    .n_columns = n_columns,
                                    .n = n,
                                    .scratch = make_place(gpu_choice_bytes(CASES, n)),
                                    .best = make_place(sizeof best)};
        MUST(gpu_find_best(test_gpu, &choice, &test_error));
        download(choice.best, best, sizeof best);
        for (uint32_t row = 0; row < CASES; row++) {
            struct gpu_best expected = find_plainly(logits + row * n_columns, n);
            if (best[row].id != expected.id || best[row].has_nan != expected.has_nan ||
                best[row].logit != expected.logit)
                fail_msg("%u logits, row %u: %u, %g, NaN %u; expected %u, %g, NaN %u", n, row, best[row].id,
                         (double)best[row].logit, best[row].has_nan, expected.id, (double)expected.logit,
                         expected.has_nan);
            check_draw(&best[row], logits + row * n_columns, n, row);
        }
        release(&choice.logits);
        release(&choice.scratch);
        release(&choice.best);
    }
    free(logits);
}

/* The device layer itself: what it refuses, and that failures name the device. */
static void test_places_are_checked(void **state)
{
    (void)state;
    runnel_error error;
    struct gpu_buffer buffer = {0, 0};
    uint8_t bytes[64] = {1, 2, 3}, got[64];
    uint64_t n_free, n_total;
    MUST(gpu_alloc(test_gpu, 64, &buffer, &test_error));
    MUST(gpu_zero(test_gpu, gpu_at(buffer, 0), 64, &test_error));
    MUST(gpu_write(test_gpu, gpu_at(buffer, 61), bytes, 3, &test_error));
    MUST(gpu_copy(test_gpu, gpu_at(buffer, 3), gpu_at(buffer, 61), 3, &test_error));
    download(gpu_at(buffer, 0), got, 64);
    assert_true(got[2] == 0 && got[3] == 1 && got[5] == 3 && got[6] == 0 && got[60] == 0 && got[63] == 3);
    assert_int_equal(gpu_write(test_gpu, gpu_at(buffer, 62), bytes, 3, &error), RUNNEL_EINVAL);
    assert_non_null(strstr(error.message, gpu_get_info(test_gpu)->name));
    assert_int_equal(gpu_read(test_gpu, gpu_at(buffer, 65), got, 0, &error), RUNNEL_EINVAL);
    assert_int_equal(gpu_read(test_gpu, nowhere, got, 1, &error), RUNNEL_EINVAL);
    assert_int_equal(gpu_alloc(test_gpu, (size_t)1 << 50, &buffer, &error), RUNNEL_ENOMEM);
    assert_false(gpu_is_lost(test_gpu));
    MUST(gpu_get_memory(test_gpu, &n_free, &n_total, &test_error));
    assert_true(n_total > 0 && n_free <= n_total);
    if (!gpu_get_info(test_gpu)->has_recordings)
        assert_int_equal(gpu_record_begin(test_gpu, &error), RUNNEL_EUNSUPPORTED);
    gpu_free(test_gpu, &buffer);
    assert_true(!buffer.handle);
}

static int prepare(void **state)
{
    (void)state;
    MUST(gpu_prepare_all(test_gpu, NULL, 0, &test_error));
    return 0;
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_places_are_checked), cmocka_unit_test(test_rows_are_prepared),
        cmocka_unit_test(test_activations),        cmocka_unit_test(test_normalised_rows_are_added),
        cmocka_unit_test(test_pages_are_copied),   cmocka_unit_test(test_best_logit),
    };
    fill_tables();
    open_test_gpu();
    if (argc > 1)
        cmocka_set_test_filter(argv[1]);
    int failed = cmocka_run_group_tests(tests, prepare, NULL);
    gpu_close(test_gpu);
    return failed;
}
