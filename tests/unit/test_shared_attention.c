/* test_shared_attention.c: sequences with the same pages are attended together: their pages are read once, and no bit of any
 * row is another one than alone with pages of its own. On every instruction set of this machine. */
#include "backend/cpu.h"
#include "engine/engine.h"
#include "helpers/tiny_engine.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* A table that counts the calls of attention() of one of ours. */

static struct {
    const struct kernels *real;
    atomic_uint n_calls, n_rows;
    uint32_t
        plant_from_rows; /* in a call of so many rows or more, the values of the last one are a bit larger; 0: never */
} spy;

static void count_attention(const struct kv_shape *shape, const void *const pages[ATTN_BLOCK_PAGES],
                            const void *const *next_pages, const float *q, size_t q_stride,
                            const struct attn_span *visible, uint32_t n_q, float scale,
                            struct attn_state *states, float *acc, size_t acc_stride)
{
    spy.real->attention(shape, pages, next_pages, q, q_stride, visible, n_q, scale, states, acc, acc_stride);
    atomic_fetch_add(&spy.n_calls, 1);
    atomic_fetch_add(&spy.n_rows, n_q);
    for (uint32_t i = 0; i < shape->head_dim && spy.plant_from_rows && n_q >= spy.plant_from_rows; i++)
        acc[(n_q - 1) * acc_stride + i] = nextafterf(acc[(n_q - 1) * acc_stride + i], INFINITY);
}

/* Sequences ----------------------------------------------------------------------------------------------- */

enum {
    N_LAYERS = 3,
    N_SEQUENCES = 20,
    N_LAST_MAX = 11,
    N_PAGES = 20 * 26,
    N_POSITIONS = 800,
    N_CHUNK = 100,
    N_ROWS = N_SEQUENCES + N_LAST_MAX + 8,
};

/* Sequences of the same prefix have the same tokens up to n_prefix; those of another one differ from the first on, or, where
 * it has a parent, from the end of the parent's on. */
static const struct {
    uint32_t n_prefix;
    int32_t parent;
} prefixes[] = {{600, -1}, {700, 4}, {520, -1}, {90, -1}, {300, -1}};

/* Standing in a step as they stand here: those of one prefix are not neighbours. */
static const struct sequence {
    uint32_t prefix, n_before; /* positions that are computed before the last step */
    uint32_t n_last;           /* rows in the last step */
} sequences[N_SEQUENCES] = {
    {0, 610, 1}, {1, 720, 1}, {0, 601, 1}, {2, 530, 1}, {3, 100, 1}, {0, 780, 1}, {1, 703, 3},
    {0, 605, 1}, {4, 310, 1}, {0, 606, 1}, {3, 40, 1},  {4, 320, 1}, {0, 640, 1}, {2, 521, N_LAST_MAX},
    {0, 641, 1}, {0, 602, 1}, {1, 760, 1}, {0, 603, 2}, {0, 604, 1}, {3, 0, 1},
};

static int32_t token_of(uint32_t s, uint32_t position)
{
    uint32_t prefix = sequences[s].prefix;
    if (position >= prefixes[prefix].n_prefix)
        return (int32_t)((position * 37 + s * 11 + 5) % 256);
    if (prefixes[prefix].parent >= 0 && position < prefixes[prefixes[prefix].parent].n_prefix)
        prefix = (uint32_t)prefixes[prefix].parent;
    return (int32_t)((position * 31 + prefix * 7) % 256);
}

struct world {
    struct team *team;
    struct kvcache *cache;
    struct forward *forward;
    int sequences[N_SEQUENCES];
    uint32_t n_vocab;
};

static void start(struct world *world, const runnel_model *model, unsigned n_threads)
{
    static struct kernels table;
    table = *spy.real;
    table.attention = count_attention;
    const struct forward_part all = {&cpu_backend, N_LAYERS};
    const struct kvcache_options options = {
        .n_pages = N_PAGES, .n_sequences = N_SEQUENCES, .n_positions = N_POSITIONS};
    runnel_error error;
    world->n_vocab = model->weights->config.n_vocab;
    assert_int_equal(team_create(n_threads, &world->team, &error), RUNNEL_OK);
    assert_int_equal(kvcache_create(&options, &world->cache, &error), RUNNEL_OK);
    const struct forward_options forward = {
        .parts = &all,
        .n_parts = 1,
        .weights = model->weights,
        .kernels = &table,
        .team = world->team,
        .cache = world->cache,
        .n_pages = N_PAGES,
        .n_rows_max = N_CHUNK,
        .n_logits_max = N_ROWS,
    };
    assert_int_equal(forward_create(&forward, &world->forward, &error), RUNNEL_OK);
}

static void stop(struct world *world)
{
    forward_free(world->forward);
    kvcache_free(world->cache);
    team_free(world->team);
}

/* Reserves n positions of a sequence and appends their rows. */
static uint32_t add_rows(struct world *world, uint32_t s, uint32_t n, struct forward_row *rows)
{
    uint32_t begin = kvcache_length(world->cache, world->sequences[s]);
    assert_int_equal(kvcache_reserve(world->cache, world->sequences[s], n), RUNNEL_OK);
    for (uint32_t i = 0; i < n; i++)
        rows[i] = (struct forward_row){world->sequences[s], begin + i, token_of(s, begin + i), true};
    return n;
}

/* Computes the rows; their logits, if they are asked for. */
static void compute(struct world *world, const struct forward_row *rows, uint32_t n, float *out)
{
    runnel_error error;
    uint32_t n_kept;
    float *logits;
    assert_int_equal(forward_begin(world->forward, rows, n, &n_kept, &error), RUNNEL_OK);
    if (out)
        forward_begin_logits(world->forward, 0, n);
    assert_int_equal(forward_wait(world->forward, &logits, &error), RUNNEL_OK);
    if (out)
        memcpy(out, logits, (size_t)n * world->n_vocab * sizeof *out);
}

static void commit(struct world *world, uint32_t s, uint32_t n)
{
    int32_t tokens[N_CHUNK];
    uint32_t begin = kvcache_length(world->cache, world->sequences[s]);
    for (uint32_t i = 0; i < n; i++)
        tokens[i] = token_of(s, begin + i);
    kvcache_commit(world->cache, world->sequences[s], tokens, n);
}

/* Computes all positions before the last step; with one salt, equal beginnings have the same pages. */
static void fill(struct world *world, bool shared)
{
    struct forward_row rows[N_CHUNK];
    for (uint32_t s = 0; s < N_SEQUENCES; s++) {
        int32_t tokens[N_POSITIONS];
        for (uint32_t i = 0; i < N_POSITIONS; i++)
            tokens[i] = token_of(s, i);
        world->sequences[s] = kvcache_open(world->cache, shared ? 0 : s, 0, 0);
        uint32_t n = sequences[s].n_before, done = 0;
        if (n > 0)
            done = kvcache_match(world->cache, world->sequences[s], tokens, n);
        for (uint32_t n_here; done < n; done += n_here) {
            n_here = n - done < N_CHUNK ? n - done : N_CHUNK;
            compute(world, rows, add_rows(world, s, n_here, rows), NULL);
            commit(world, s, n_here);
        }
    }
}

/* The logits of the last step's rows, which are computed all together, or each sequence in a step of its own. *n_calls: of
 * attention. */
static float *last_step(const runnel_model *model, bool shared, unsigned n_threads, uint32_t plant_from_rows,
                        unsigned *n_calls)
{
    struct world world;
    struct forward_row rows[N_ROWS];
    uint32_t n = 0;
    start(&world, model, n_threads);
    float *logits = calloc((size_t)N_ROWS * world.n_vocab, sizeof *logits);
    assert_non_null(logits);
    fill(&world, shared);
    spy.n_calls = spy.n_rows = 0;
    spy.plant_from_rows = plant_from_rows;
    for (uint32_t s = 0; s < N_SEQUENCES; s++) {
        uint32_t n_here = add_rows(&world, s, sequences[s].n_last, rows + n);
        if (!shared)
            compute(&world, rows + n, n_here, logits + (size_t)n * world.n_vocab);
        n += n_here;
    }
    if (shared)
        compute(&world, rows, n, logits);
    spy.plant_from_rows = 0;
    *n_calls = spy.n_calls;
    stop(&world);
    return logits;
}

/* Of both kinds of layers: with keys in f32 and in whole numbers. */
static void check_layers(const runnel_model *model)
{
    unsigned n_k_f32 = 0;
    for (int i = 0; i < N_LAYERS; i++)
        n_k_f32 += model->weights->kv_shapes[i].k_f32;
    assert_in_range(n_k_f32, 1, N_LAYERS - 1);
}

static runnel_model *open_model(void)
{
    struct tiny_model_options options = tiny_engine_model();
    options.n_layers = N_LAYERS;
    options.n_hidden = options.n_ffn = 96;
    tiny_model_set_types(&options, TENSOR_Q8_0);
    options.k_bias = 64.5f; /* about where keys in 16 bits become too coarse: layers differ */
    runnel_model *model = tiny_engine_open(&options);
    check_layers(model);
    return model;
}

static void add_period(struct gguf_writer *writer, void *user)
{
    (void)user;
    gguf_writer_add_u32(writer, "gemma3.attention.sliding_window_pattern", N_LAYERS);
}

/* Of which all layers but the last see a window. */
static runnel_model *open_model_with_window(uint32_t window)
{
    struct tiny_model_options options = tiny_engine_model();
    options.architecture = "gemma3";
    options.n_layers = N_LAYERS;
    options.n_hidden = options.n_ffn = 96;
    options.biases = false;
    options.window = window;
    options.add_keys = add_period;
    tiny_model_set_types(&options, TENSOR_Q8_0);
    runnel_model *model = tiny_engine_open(&options);
    for (uint32_t i = 0; i < N_LAYERS; i++)
        assert_int_equal(model_config_window(&model->weights->config, i), i + 1 < N_LAYERS ? window : 0);
    return model;
}

static size_t bytes_of(const runnel_model *model)
{
    return (size_t)N_ROWS * model->weights->config.n_vocab * sizeof(float);
}

static void the_same_bits_and_fewer_readings(void **state)
{
    (void)state;
    const struct kernels *all;
    size_t n_levels = kernels_possible(&all);
    runnel_model *model = open_model();
    for (size_t i = 0; i < n_levels; i++) {
        spy.real = &all[i];
        unsigned n_alone, n_together, n_rows;
        float *alone = last_step(model, false, 2, 0, &n_alone);
        n_rows = spy.n_rows;
        unsigned most_threads = i + 1 == n_levels ? 3 : 1; /* the others take long enough as it is */
        for (unsigned n_threads = 1; n_threads <= most_threads; n_threads++) {
            float *together = last_step(model, true, n_threads, 0, &n_together);
            if (memcmp(together, alone, bytes_of(model)) != 0)
                fail_msg("%s, %u threads: logits are others together", all[i].name, n_threads);
            assert_int_equal(spy.n_rows, n_rows);
            if (n_together * 3 > n_alone * 2)
                fail_msg("%u calls of attention together, %u alone: pages are read again for each sequence",
                         n_together, n_alone);
            free(together);
        }
        free(alone);
    }
    runnel_model_close(model);
}

/* Rows of one task may see different parts of a block, and blocks that other rows do not see. */
static void windows_give_the_same_bits(void **state)
{
    (void)state;
    static const uint32_t windows[] = {40, 300};
    const struct kernels *all;
    size_t n_levels = kernels_possible(&all);
    spy.real = &all[n_levels - 1];
    for (size_t i = 0; i < sizeof windows / sizeof *windows; i++) {
        runnel_model *model = open_model_with_window(windows[i]);
        unsigned n_alone, n_together;
        float *alone = last_step(model, false, 2, 0, &n_alone),
              *together = last_step(model, true, 2, 0, &n_together);
        if (memcmp(together, alone, bytes_of(model)) != 0)
            fail_msg("window of %u: logits are others together", windows[i]);
        assert_true(n_together < n_alone);
        free(alone);
        free(together);
        runnel_model_close(model);
    }
}

/* The comparison above would tell if a row's result depended on the rows beside it in a bit. */
static void a_planted_bit_is_seen(void **state)
{
    (void)state;
    const struct kernels *all;
    size_t n_levels = kernels_possible(&all);
    runnel_model *model = open_model();
    uint32_t n_sharing = model->weights->config.n_heads / model->weights->config.n_kv_heads;
    unsigned n_calls;
    spy.real = &all[n_levels - 1];
    float *alone = last_step(model, false, 2, 0, &n_calls);
    float *together = last_step(model, true, 2, 3 * n_sharing + 1, &n_calls);
    assert_memory_not_equal(together, alone, bytes_of(model));
    free(alone);
    free(together);
    runnel_model_close(model);
}

/* Where there are more threads than tasks of whole groups, fewer rows go together, so that all threads have work. */
static void many_threads_have_work(void **state)
{
    (void)state;
    const struct kernels *all;
    size_t n_levels = kernels_possible(&all);
    runnel_model *model = open_model();
    spy.real = &all[n_levels - 1];
    unsigned n_few, n_many;
    free(last_step(model, true, 1, 0, &n_few));
    free(last_step(model, true, 6, 0, &n_many));
    assert_true(n_many > n_few);
    runnel_model_close(model);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_same_bits_and_fewer_readings),
        cmocka_unit_test(windows_give_the_same_bits),
        cmocka_unit_test(a_planted_bit_is_seen),
        cmocka_unit_test(many_threads_have_work),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
