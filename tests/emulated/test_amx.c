/* test_amx.c: what is AMX's own, on a machine with it (levels.h): when tiles are used, that they are released, that one
 * wrong bit in a tile is seen, and a whole model. test_kernels compares its products with plain C in every shape. */
#include "emulated/amx_emulation.h"
#include "helpers/kernel_check.h"
#include "helpers/tiny_engine.h"
#include "kernels/act.h"
#include "kernels/pack.h"

#include <stdlib.h>

enum { N_ROWS = 40, N_COLUMNS = 768, N_ACTS_MAX = 300 };

static const struct kernels *amx;

static const struct {
    enum tensor_type type;
    uint32_t fewest_rows; /* for tiles */
} types[] = {
    {TENSOR_Q4_K, 12}, {TENSOR_Q5_K, 12}, {TENSOR_Q6_K, 12}, {TENSOR_Q8_0, 32},   {TENSOR_Q4_0, 32},
    {TENSOR_Q4_1, 32}, {TENSOR_Q5_0, 32}, {TENSOR_Q5_1, 32}, {TENSOR_IQ4_NL, 32}, {TENSOR_MXFP4, 32},
};
enum { N_TYPES = sizeof types / sizeof *types, N_K_TYPES = 3 };

static struct packed_matrix make_matrix(enum tensor_type type, uint32_t n_rows, uint32_t n_columns)
{
    struct packed_matrix w = {
        .type = type,
        .kind = pack_kind(type),
        .n_rows = n_rows,
        .n_columns = n_columns,
        .n_tiles = (n_rows + TILE_ROWS - 1) / TILE_ROWS,
        .tile_bytes = pack_tile_bytes(type, n_columns),
    };
    const struct quant_info *info = quant_find(type);
    size_t row_bytes = n_columns / info->block_values * info->block_bytes;
    uint8_t *rows = allocate(w.n_tiles * TILE_ROWS * row_bytes);
    tiny_model_random_blocks(type, 7, 0.1f, (size_t)w.n_tiles * TILE_ROWS * n_columns, rows);
    w.data = allocate(w.n_tiles * w.tile_bytes);
    for (uint32_t tile = 0; tile < w.n_tiles; tile++) {
        uint32_t n_left = n_rows - tile * TILE_ROWS;
        pack_tile(type, rows + tile * TILE_ROWS * row_bytes, row_bytes,
                  n_left < TILE_ROWS ? n_left : TILE_ROWS, n_columns, w.data + tile * w.tile_bytes);
    }
    free(rows);
    return w;
}

static uint8_t *make_acts(enum act_kind kind, uint32_t n_rows, uint32_t n_columns)
{
    float *x = allocate(n_columns * sizeof *x);
    uint8_t *acts = allocate(act_bytes(kind, n_rows, n_columns));
    for (uint32_t row = 0; row < n_rows; row++) {
        random_floats(x, n_columns);
        act_quantize(&tables[0], kind, acts, n_columns, row, 0, x, n_columns);
    }
    free(x);
    return acts;
}

static void multiply(const struct kernels *kernels, const struct packed_matrix *w, const void *acts,
                     uint32_t n_acts, float *out)
{
    const struct matmul_args args = act_product(w, acts, n_acts, out);
    kernels->matmul[w->kind](&args, 0, w->n_tiles);
}

/* What functions called next find on their stack if they read what they have not written: NaN, as f32 and as bf16. */
static __attribute__((noinline)) void fill_the_stack(void)
{
    uint8_t bytes[400 << 10];
    memset(bytes, 0xff, sizeof bytes);
    __asm__ volatile("" ::"r"(bytes) : "memory");
}

static void any_number_of_rows_is_right(void **state)
{
    (void)state;
    static float expected[N_ACTS_MAX * N_ROWS], got[N_ACTS_MAX * N_ROWS];
    for (int t = 0; t < N_TYPES; t++) {
        struct packed_matrix w = make_matrix(types[t].type, N_ROWS, N_COLUMNS);
        uint8_t *acts = make_acts(act_kind_of(w.kind), N_ACTS_MAX, N_COLUMNS);
        multiply(&tables[0], &w, acts, N_ACTS_MAX, expected);
        for (uint32_t n_acts = 1; n_acts <= N_ACTS_MAX; n_acts += t < N_K_TYPES ? 1 : 5) {
            memset(got, 0xff, sizeof got);
            fill_the_stack();
            multiply(amx, &w, acts, n_acts, got);
            CHECK_SAME(got, expected, (size_t)n_acts * N_ROWS, "%s x %u", quant_find(w.type)->name, n_acts);
            for (size_t i = (size_t)n_acts * N_ROWS; i < (size_t)N_ACTS_MAX * N_ROWS; i++)
                assert_true(got[i] != got[i]);
            assert_false(emulated_tiles_are_configured());
        }
        free(w.data);
        free(acts);
    }
}

static void few_rows_use_no_tiles(void **state)
{
    (void)state;
    static float out[N_ACTS_MAX * N_ROWS];
    for (int t = 0; t < N_TYPES; t++) {
        struct packed_matrix w = make_matrix(types[t].type, N_ROWS, N_COLUMNS);
        uint8_t *acts = make_acts(act_kind_of(w.kind), N_ACTS_MAX, N_COLUMNS);
        uint64_t before = emulated_tiles_n_stores();
        multiply(amx, &w, acts, types[t].fewest_rows - 1, out);
        assert_int_equal(emulated_tiles_n_stores(), before);
        multiply(amx, &w, acts, types[t].fewest_rows, out);
        assert_true(emulated_tiles_n_stores() > before);
        free(w.data);
        free(acts);
    }
}

/* What is prepared of the activations on the stack bounds the rows of a chunk; very wide matrices are left to AVX-512. */
static void wide_matrices_have_the_same_bits(void **state)
{
    (void)state;
    enum { N_ACTS = 40 };
    static const struct {
        uint32_t n_columns;
        bool uses_tiles;
    } widths[] = {{256 * 171, true}, {256 * 300, true}, {256 * 321, false}};
    static float expected[N_ACTS * N_ROWS], got[N_ACTS * N_ROWS];
    for (int t = 0; t < N_K_TYPES; t++)
        for (int i = 0; i < 3; i++) {
            struct packed_matrix w = make_matrix(types[t].type, TILE_ROWS, widths[i].n_columns);
            uint8_t *acts = make_acts(act_kind_of(w.kind), N_ACTS, widths[i].n_columns);
            uint64_t before = emulated_tiles_n_stores();
            multiply(&tables[n_tables - 2], &w, acts, N_ACTS, expected);
            multiply(amx, &w, acts, N_ACTS, got);
            CHECK_SAME(got, expected, N_ACTS * TILE_ROWS, "%s, %u columns", quant_find(w.type)->name,
                       widths[i].n_columns);
            assert_int_equal(emulated_tiles_n_stores() > before, widths[i].uses_tiles);
            free(w.data);
            free(acts);
        }
}

static void one_wrong_bit_is_seen(void **state)
{
    (void)state;
    static float expected[N_ACTS_MAX * N_ROWS], got[N_ACTS_MAX * N_ROWS];
    enum { N_ACTS = 45 };
    for (int t = 0; t < N_TYPES; t++) {
        struct packed_matrix w = make_matrix(types[t].type, N_ROWS, N_COLUMNS);
        uint8_t *acts = make_acts(act_kind_of(w.kind), N_ACTS_MAX, N_COLUMNS);
        multiply(amx, &w, acts, N_ACTS, expected);
        uint64_t n_stores = emulated_tiles_n_stores();
        multiply(amx, &w, acts, N_ACTS, got);
        n_stores = emulated_tiles_n_stores() - n_stores;
        assert_true(n_stores > 0);
        for (uint64_t store = 0; store < n_stores; store++) {
            emulated_tiles_spoil_store(store);
            multiply(amx, &w, acts, N_ACTS, got);
            if (same_floats(got, expected, N_ACTS * N_ROWS))
                fail_msg("%s: a wrong bit in store %d of %d is not seen", quant_find(w.type)->name,
                         (int)store, (int)n_stores);
        }
        multiply(amx, &w, acts, N_ACTS, got);
        CHECK_SAME(got, expected, N_ACTS * N_ROWS, "%s after all", quant_find(w.type)->name);
        free(w.data);
        free(acts);
    }
}

/* A whole model. */

enum { N_IDS = 150 };

struct logits {
    float *values;
    size_t n_vocab;
};

static bool keep_logits(void *user, size_t index, const float *logits)
{
    struct logits *kept = user;
    memcpy(kept->values + index * kept->n_vocab, logits, kept->n_vocab * sizeof *logits);
    return true;
}

static struct logits logits_with(const char *cpu, enum tensor_type type)
{
    struct tiny_model_options options = tiny_engine_model();
    runnel_error error;
    tiny_model_set_types(&options, type);
    assert_int_equal(setenv("RUNNEL_CPU", cpu, 1), 0);
    runnel_model *model = tiny_engine_open(&options);
    runnel_model_info info = {.size = sizeof info};
    runnel_model_get_info(model, &info);
    assert_string_equal(info.cpu, cpu);
    runnel_engine_options engine_options;
    runnel_engine_options_init(&engine_options);
    runnel_engine *engine = tiny_engine_start(model, engine_options);
    int32_t ids[N_IDS];
    for (int i = 0; i < N_IDS; i++)
        ids[i] = (i * 37 + 11) % TINY_MODEL_TOKENS;
    struct logits logits = {.n_vocab = (size_t)info.n_vocab};
    logits.values = calloc(N_IDS * logits.n_vocab, sizeof *logits.values);
    assert_non_null(logits.values);
    assert_int_equal(runnel_logits_each(engine, ids, N_IDS, 64, keep_logits, &logits, &error), RUNNEL_OK);
    runnel_engine_stop(engine);
    runnel_model_close(model);
    assert_int_equal(unsetenv("RUNNEL_CPU"), 0);
    return logits;
}

static void a_model_has_the_same_logits(void **state)
{
    (void)state;
    for (int t = 0; t < N_TYPES; t++) {
        struct logits expected = logits_with("ref", types[t].type), got = logits_with("amx", types[t].type);
        assert_int_equal(got.n_vocab, expected.n_vocab);
        CHECK_SAME(got.values, expected.values, N_IDS * expected.n_vocab, "%s",
                   quant_find(types[t].type)->name);
        free(expected.values);
        free(got.values);
    }
}

static void it_is_taken_where_nobody_asks(void **state)
{
    (void)state;
    char message[256];
    assert_ptr_equal(kernels_get(message, sizeof message), amx);
    assert_int_equal(amx->n_rows_prompt, 128);
    assert_null(kernels_refused());
}

int main(void)
{
    fill_tables();
    amx = &tables[n_tables - 1];
    if (strcmp(amx->name, "amx") != 0) {
        printf("skipped: the kernels for AMX want AVX-512, too\n");
        return 77;
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(it_is_taken_where_nobody_asks), cmocka_unit_test(any_number_of_rows_is_right),
        cmocka_unit_test(few_rows_use_no_tiles),         cmocka_unit_test(wide_matrices_have_the_same_bits),
        cmocka_unit_test(one_wrong_bit_is_seen),         cmocka_unit_test(a_model_has_the_same_logits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
