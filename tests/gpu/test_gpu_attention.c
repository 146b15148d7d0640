/* test_gpu_attention.c: rotation, storing keys and values, and attention over pages on a device against the CPU's plain table, bit for
 * bit: any even head size, heads that are normalised, windows, dropped pages, several sequences in a step, partial results in many launches. */
#include "device_check.h"
#include "helpers/random_matrix.h"
#include "kernels/act.h"
#include "kernels/pack.h"

#include <math.h>

struct shape {
    uint32_t n_heads, n_kv_heads, head_dim, n_rot, window;
    bool k_f32, interleaved, norm;
    uint32_t n_positions; /* of each of two sequences */
    uint32_t n_together;  /* rows for whose partial results there is room; 0: for all */
};

enum { SEQUENCES = 2, PAGES = 64, HEAD_MAX = 512 };

/* A step in which each row of two sequences is a position, on both sides. */
struct world {
    struct shape shape;
    uint32_t n_rows;
    struct gpu_row *rows;
    uint32_t pages[PAGES]; /* of the second sequence from PAGES / 2 on */
    float *q, *k, *v, *cosine, *sine, *q_norm, *k_norm;
    uint8_t *blocks; /* the CPU's */
    size_t block_bytes;
    struct gpu_rows on_device;
    struct gpu_cache cache;
    struct gpu_queries queries;
};

static float *make_floats(size_t n)
{
    float *x = malloc((n + 1) * sizeof *x);
    assert_non_null(x);
    random_floats(x, n);
    return x;
}

static uint8_t *block_of(const struct world *world, uint32_t head, uint32_t page)
{
    return world->blocks + ((size_t)head * PAGES + page) * world->block_bytes;
}

/* Pages of both sequences in a random order of the pool. */
static void deal_pages(struct world *world)
{
    uint32_t numbers[PAGES];
    for (uint32_t i = 0; i < PAGES; i++) {
        uint32_t other = random_below(i + 1);
        numbers[i] = i;
        numbers[i] = numbers[other];
        numbers[other] = i;
    }
    memcpy(world->pages, numbers, sizeof numbers);
}

static struct world make_world(const struct shape *shape)
{
    struct world w = {.shape = *shape, .n_rows = SEQUENCES * shape->n_positions};
    uint32_t n = w.n_rows, dim = shape->head_dim;
    w.rows = calloc(n, sizeof *w.rows);
    assert_non_null(w.rows);
    for (uint32_t row = 0; row < n; row++)
        w.rows[row] =
            (struct gpu_row){row % shape->n_positions, row / shape->n_positions * (PAGES / 2), row, 0};
    deal_pages(&w);
    w.q = make_floats((size_t)n * shape->n_heads * dim);
    w.k = make_floats((size_t)n * shape->n_kv_heads * dim);
    w.v = make_floats((size_t)n * shape->n_kv_heads * dim);
    w.cosine = make_floats((size_t)n * shape->n_rot / 2);
    w.sine = make_floats((size_t)n * shape->n_rot / 2);
    w.q_norm = make_floats(dim);
    w.k_norm = make_floats(dim);
    const struct kv_shape kv = {dim, shape->k_f32};
    w.block_bytes = kv_block_bytes(&kv);
    size_t n_bytes = w.block_bytes * PAGES * shape->n_kv_heads;
    w.blocks = allocate(n_bytes);
    memset(w.blocks, 0xff, n_bytes);
    w.on_device = (struct gpu_rows){upload(w.rows, n * sizeof *w.rows), upload(w.pages, sizeof w.pages), n};
    w.cache = (struct gpu_cache){make_place(n_bytes), PAGES, shape->n_kv_heads, dim, shape->k_f32};
    size_t n_q = (size_t)n * shape->n_heads * dim;
    w.queries = (struct gpu_queries){upload(w.q, n_q * sizeof(float)), make_place(n_q * sizeof(int16_t)),
                                     make_place((size_t)n * shape->n_heads * sizeof(float)), shape->n_heads};
    return w;
}

static void free_world(struct world *w)
{
    void *const memory[] = {w->rows, w->q, w->k, w->v, w->cosine, w->sine, w->q_norm, w->k_norm, w->blocks};
    for (size_t i = 0; i < sizeof memory / sizeof *memory; i++)
        free(memory[i]);
    release(&w->on_device.rows);
    release(&w->on_device.pages);
    release(&w->cache.blocks);
    release(&w->queries.values);
    release(&w->queries.whole);
    release(&w->queries.worth);
}

static void normalise(const struct world *w, float *x, uint32_t n_heads, const float *weight)
{
    for (uint32_t head = 0; w->shape.norm && head < n_heads; head++)
        tables[0].rms_norm(x + head * w->shape.head_dim, weight, w->shape.head_dim, 1e-6f,
                           x + head * w->shape.head_dim);
}

static void store_on_cpu(struct world *w)
{
    const struct shape *s = &w->shape;
    const struct kv_shape kv = {s->head_dim, s->k_f32};
    for (uint32_t row = 0; row < w->n_rows; row++) {
        float *q = w->q + (size_t)row * s->n_heads * s->head_dim,
              *k = w->k + (size_t)row * s->n_kv_heads * s->head_dim;
        const float *v = w->v + (size_t)row * s->n_kv_heads * s->head_dim;
        const float *cosine = w->cosine + row * s->n_rot / 2, *sine = w->sine + row * s->n_rot / 2;
        normalise(w, q, s->n_heads, w->q_norm);
        normalise(w, k, s->n_kv_heads, w->k_norm);
        tables[0].rope(q, s->n_heads, s->head_dim, s->n_rot, cosine, sine, s->interleaved);
        tables[0].rope(k, s->n_kv_heads, s->head_dim, s->n_rot, cosine, sine, s->interleaved);
        uint32_t position = w->rows[row].position,
                 page = w->pages[w->rows[row].first_page + position / KV_PAGE];
        for (uint32_t head = 0; head < s->n_kv_heads; head++)
            tables[0].kv_store(&kv, block_of(w, head, page), position % KV_PAGE, k + head * s->head_dim,
                               v + head * s->head_dim);
    }
}

static void store_on_device(struct world *w)
{
    const struct shape *s = &w->shape;
    size_t kv_bytes = (size_t)w->n_rows * s->n_kv_heads * s->head_dim * 4,
           rot_bytes = (size_t)w->n_rows * s->n_rot / 2 * 4;
    struct gpu_storing storing = {
        .rows = w->on_device,
        .q = w->queries,
        .k = upload(w->k, kv_bytes),
        .v = upload(w->v, kv_bytes),
        .q_norm = s->norm ? upload(w->q_norm, s->head_dim * 4) : nowhere,
        .k_norm = s->norm ? upload(w->k_norm, s->head_dim * 4) : nowhere,
        .epsilon = 1e-6f,
        .cosine = upload(w->cosine, rot_bytes),
        .sine = upload(w->sine, rot_bytes),
        .n_rot = s->n_rot,
        .interleaved = s->interleaved,
        .cache = w->cache,
    };
    MUST(gpu_rotate_store(test_gpu, &storing, &test_error));
    MUST(gpu_finish(test_gpu, TEST_TIMEOUT_MS, &test_error));
    release(&storing.k);
    release(&storing.v);
    release(&storing.q_norm);
    release(&storing.k_norm);
    release(&storing.cosine);
    release(&storing.sine);
}

static void check_stored(const struct world *w)
{
    size_t n_bytes = w->block_bytes * PAGES * w->shape.n_kv_heads,
           n_q = (size_t)w->n_rows * w->shape.n_heads * w->shape.head_dim;
    uint8_t *got = allocate(n_bytes);
    float *q = malloc(n_q * sizeof *q);
    assert_non_null(q);
    download(w->cache.blocks, got, n_bytes);
    for (size_t i = 0; i < n_bytes; i++)
        if (got[i] != w->blocks[i])
            fail_msg("heads of %u: byte %zu of block %zu is %d, not %d", w->shape.head_dim,
                     i % w->block_bytes, i / w->block_bytes, got[i], w->blocks[i]);
    download(w->queries.values, q, n_q * sizeof *q);
    CHECK_SAME(q, w->q, n_q, "queries of %u", w->shape.head_dim);
    free(got);
    free(q);
}

/* What a row sees of the block of positions from `start` on; and its pages there, NULL where a window dropped them. */
static struct attn_span find_visible(const struct world *w, const struct gpu_row *row, uint32_t start,
                                     uint32_t head, const void *pages[ATTN_BLOCK_PAGES])
{
    uint32_t window = w->shape.window, end = row->position + 1;
    uint32_t first = window && row->position >= window ? row->position - window + 1 : 0;
    struct attn_span span = {first > start ? first - start : 0, end > start ? end - start : 0};
    span.end = span.end > ATTN_BLOCK ? ATTN_BLOCK : span.end;
    for (uint32_t i = 0; i < ATTN_BLOCK_PAGES; i++) {
        uint32_t begin = start + i * KV_PAGE;
        pages[i] = begin < end && begin + KV_PAGE > first
                       ? block_of(w, head, w->pages[row->first_page + begin / KV_PAGE])
                       : NULL;
    }
    return span.begin < span.end ? span : (struct attn_span){0, 0};
}

static void attend_on_cpu(const struct world *w, uint32_t row, float *out)
{
    const struct shape *s = &w->shape;
    const struct kv_shape kv = {s->head_dim, s->k_f32};
    float acc[HEAD_MAX];
    for (uint32_t head = 0; head < s->n_heads; head++) {
        struct attn_state state = {-INFINITY, 0};
        const float *q = w->q + ((size_t)row * s->n_heads + head) * s->head_dim;
        memset(acc, 0, sizeof acc);
        for (uint32_t start = 0; start <= w->rows[row].position; start += ATTN_BLOCK) {
            const void *pages[ATTN_BLOCK_PAGES];
            struct attn_span span =
                find_visible(w, &w->rows[row], start, head / (s->n_heads / s->n_kv_heads), pages);
            tables[0].attention(&kv, pages, NULL, q, s->head_dim, &span, 1, 0.3f, &state, acc, HEAD_MAX);
        }
        tables[0].attention_finish(&state, acc, s->head_dim, out + head * s->head_dim);
    }
}

static void check_attended(struct world *w)
{
    const struct shape *s = &w->shape;
    uint32_t n_columns = s->n_heads * s->head_dim, n_blocks = (s->n_positions + 255) / 256;
    size_t n_bytes = (size_t)w->n_rows * n_columns * 4, act_bytes = act_row_bytes(ACT_Q8_256, n_columns);
    size_t room =
        gpu_partials_bytes(s->n_together ? s->n_together : w->n_rows, n_blocks, s->n_heads, s->head_dim);
    struct gpu_attention attention = {
        .rows = w->on_device,
        .q = w->queries,
        .cache = w->cache,
        .window = s->window,
        .n_blocks = n_blocks,
        .scale = 0.3f,
        .partials = make_place(room),
        .partials_bytes = room,
        .attended = make_place(n_bytes),
        .out = {{make_place(w->n_rows * act_bytes), nowhere, nowhere}},
    };
    float *got = malloc(n_bytes), *expected = malloc(n_columns * 4);
    uint8_t *acts = allocate(w->n_rows * act_bytes), *expected_acts = allocate(act_bytes);
    assert_true(got && expected);
    MUST(gpu_attend(test_gpu, &attention, &test_error));
    download(attention.attended, got, n_bytes);
    download(attention.out.of[0], acts, w->n_rows * act_bytes);
    for (uint32_t row = 0; row < w->n_rows; row += 1 + random_below(5)) {
        attend_on_cpu(w, row, expected);
        CHECK_SAME(got + (size_t)row * n_columns, expected, n_columns, "heads of %u, row %u, window %u",
                   s->head_dim, row, s->window);
        tables[0].quantize[ACT_Q8_256](expected, n_columns, expected_acts);
        assert_memory_equal(acts + row * act_bytes, expected_acts, act_bytes);
    }
    attention.partials_bytes = gpu_partials_bytes(1, n_blocks, s->n_heads, s->head_dim) - 1;
    assert_int_equal(gpu_attend(test_gpu, &attention, &test_error), RUNNEL_EINVAL);
    release(&attention.partials);
    release(&attention.attended);
    release(&attention.out.of[0]);
    free(got);
    free(expected);
    free(acts);
    free(expected_acts);
}

/* Another key and value where a row's are on the device. */
static void spoil_stored(const struct world *w, uint32_t row)
{
    const struct shape *s = &w->shape;
    const struct kv_shape kv = {s->head_dim, s->k_f32};
    float *other = make_floats(s->head_dim);
    uint8_t *block = allocate(w->block_bytes);
    uint32_t position = w->rows[row].position, page = w->pages[w->rows[row].first_page + position / KV_PAGE];
    for (uint32_t head = 0; head < s->n_kv_heads; head++) {
        memcpy(block, block_of(w, head, page), w->block_bytes);
        tables[0].kv_store(&kv, block, position % KV_PAGE, other, other);
        MUST(gpu_write(test_gpu,
                       gpu_at(w->cache.blocks.buffer,
                              w->cache.blocks.offset + ((size_t)head * PAGES + page) * w->block_bytes),
                       block, w->block_bytes, &test_error));
        MUST(gpu_finish(test_gpu, TEST_TIMEOUT_MS, &test_error));
    }
    free(other);
    free(block);
}

static void check_blocks(const struct world *w, uint32_t row)
{
    size_t n_bytes = w->block_bytes * PAGES * w->shape.n_kv_heads;
    uint8_t *got = allocate(n_bytes);
    download(w->cache.blocks, got, n_bytes);
    if (memcmp(got, w->blocks, n_bytes))
        fail_msg("heads of %u, row %u alone: other keys or values are stored", w->shape.head_dim, row);
    free(got);
}

/* A row by itself: stored, attended and multiplied. q, k: of all rows, as they were before they were rotated. */
static void check_multiplied(struct world *w, uint32_t row, const float *q, const float *k)
{
    enum { N_OUT = 21 };
    const struct shape *s = &w->shape;
    uint32_t n_columns = s->n_heads * s->head_dim, n_kv = s->n_kv_heads * s->head_dim,
             n_blocks = (s->n_positions + 255) / 256;
    size_t room = gpu_partials_bytes(1, n_blocks, s->n_heads, s->head_dim),
           rot_bytes = (size_t)w->n_rows * s->n_rot / 2 * 4;
    float expected[N_OUT] = {0}, got[N_OUT], *attended = malloc(n_columns * sizeof(float));
    uint8_t *acts = allocate(act_row_bytes(ACT_Q8_256, n_columns));
    struct matrix m = make_matrix(TENSOR_Q4_K, N_OUT, n_columns, FILL_RANDOM);
    assert_non_null(attended);
    struct gpu_storing storing = {
        .rows = {upload(&w->rows[row], sizeof *w->rows), w->on_device.pages, 1},
        .q = {upload(q + (size_t)row * n_columns, n_columns * 4), make_place(n_columns * sizeof(int16_t)),
              make_place(s->n_heads * sizeof(float)), s->n_heads},
        .k = upload(k + (size_t)row * n_kv, n_kv * 4),
        .v = upload(w->v + (size_t)row * n_kv, n_kv * 4),
        .q_norm = s->norm ? upload(w->q_norm, s->head_dim * 4) : nowhere,
        .k_norm = s->norm ? upload(w->k_norm, s->head_dim * 4) : nowhere,
        .epsilon = 1e-6f,
        .cosine = upload(w->cosine, rot_bytes),
        .sine = upload(w->sine, rot_bytes),
        .n_rot = s->n_rot,
        .interleaved = s->interleaved,
        .cache = w->cache,
    };
    struct gpu_attention attention = {
        .rows = storing.rows,
        .q = storing.q,
        .cache = w->cache,
        .window = s->window,
        .n_blocks = n_blocks,
        .scale = 0.3f,
        .partials = make_place(room),
        .partials_bytes = room,
        .out = {{make_place(act_row_bytes(ACT_Q8_256, n_columns)), nowhere, nowhere}},
    };
    struct gpu_product product = {
        .acts = attention.out,
        .n_acts = 1,
        .n_columns = n_columns,
        .matrices = {{upload(m.packed.data, m.packed.n_tiles * m.packed.tile_bytes), TENSOR_Q4_K, N_OUT,
                      nowhere, make_place(sizeof got)}},
        .n_matrices = 1,
    };
    spoil_stored(w, row);
    MUST(gpu_multiply_attended(test_gpu, &storing, &attention, &product, &test_error));
    download(product.matrices[0].out, got, sizeof got);
    attend_on_cpu(w, row, attended);
    tables[0].quantize[ACT_Q8_256](attended, n_columns, acts);
    const struct matmul_args args = {.w = &m.packed,
                                     .acts = acts,
                                     .act_stride = act_row_bytes(ACT_Q8_256, n_columns),
                                     .n_acts = 1,
                                     .out = expected,
                                     .out_stride = N_OUT};
    tables[0].matmul[m.packed.kind](&args, 0, m.packed.n_tiles);
    CHECK_SAME(got, expected, N_OUT, "heads of %u, row %u alone", s->head_dim, row);
    check_blocks(w, row);
    struct gpu_place *const places[] = {
        &storing.rows.rows,
        &storing.q.values,
        &storing.q.whole,
        &storing.q.worth,
        &storing.k,
        &storing.v,
        &storing.q_norm,
        &storing.k_norm,
        &storing.cosine,
        &storing.sine,
        &attention.partials,
        &attention.out.of[0],
        &product.matrices[0].tiles,
        &product.matrices[0].out,
    };
    for (size_t i = 0; i < sizeof places / sizeof *places; i++)
        release(places[i]);
    free_matrix(&m);
    free(attended);
    free(acts);
}

static float *copy_of(const float *x, size_t n)
{
    float *copy = malloc(n * sizeof *copy);
    assert_non_null(copy);
    memcpy(copy, x, n * sizeof *copy);
    return copy;
}

static void test_rows_alone(void **state)
{
    (void)state;
    static const struct shape shapes[] = {
        {12, 2, 128, 128, 0, false, false, false, 300, 0}, /* the target's */
        {8, 2, 64, 64, 300, false, true, true, 830, 0},
        {4, 4, 64, 32, 0, true, false, true, 530, 0},   /* keys that are floats */
        {32, 8, 40, 40, 0, false, false, false, 60, 0}, /* sizes that the product does not merge */
        {1, 1, 512, 512, 0, false, false, true, 40, 0}, /* ... and that attention does not store */
    };
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        struct world w = make_world(&shapes[i]);
        float *q = copy_of(w.q, (size_t)w.n_rows * shapes[i].n_heads * shapes[i].head_dim),
              *k = copy_of(w.k, (size_t)w.n_rows * shapes[i].n_kv_heads * shapes[i].head_dim);
        store_on_device(&w);
        store_on_cpu(&w);
        check_blocks(&w, 0);
        for (uint32_t row = 0; row < shapes[i].n_positions; row += 1 + random_below(130))
            check_multiplied(&w, row, q, k);
        check_multiplied(&w, shapes[i].n_positions - 1, q, k);
        free_world(&w);
        free(q);
        free(k);
    }
}

static void check_shape(const struct shape *shape)
{
    struct world w = make_world(shape);
    store_on_device(&w);
    store_on_cpu(&w);
    check_stored(&w);
    check_attended(&w);
    free_world(&w);
}

static void test_shapes(void **state)
{
    (void)state;
    static const struct shape shapes[] = {
        {12, 2, 128, 128, 0, false, false, false, 300, 0}, /* the target's */
        {9, 3, 64, 64, 0, false, true, false, 40, 7},
        {14, 2, 64, 64, 0, true, false, false, 70, 0},
        {4, 4, 256, 64, 0, false, false, true, 33, 1},
        {10, 1, 80, 80, 0, false, false, true, 270, 11}, /* more than 8 heads share a KV head */
        {2, 1, 258, 130, 0, false, false, false, 35, 0},
        {3, 1, 2, 2, 0, false, true, true, 34, 0},
        {4, 2, 34, 32, 50, true, false, true, 290, 0},
        {6, 2, 48, 48, 300, false, false, false, 600, 100},
        /* few rows a launch: a group for each head */
        {12, 2, 128, 128, 0, false, false, false, 290, 5},
        {2, 1, 258, 130, 0, false, false, false, 35, 4},
        {4, 2, 34, 32, 50, true, false, true, 290, 3},
        {10, 1, 80, 80, 20, false, false, true, 60, 16},
        {3, 1, 2, 2, 0, false, true, true, 34, 2},
    };
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
        check_shape(&shapes[i]);
}

/* Pages that a row's window has left behind are gone from its table, and their numbers are never followed. */
static void test_dropped_pages(void **state)
{
    (void)state;
    const struct shape shape = {4, 2, 32, 32, 40, false, false, false, 330, 0};
    struct world w = make_world(&shape);
    uint32_t known[PAGES];
    store_on_device(&w);
    store_on_cpu(&w);
    memcpy(known, w.pages, sizeof known);
    for (uint32_t sequence = 0; sequence < SEQUENCES; sequence++)
        for (uint32_t page = 0; page < 8; page++)
            w.pages[sequence * PAGES / 2 + page] = GPU_NO_PAGE;
    release(&w.on_device.pages);
    w.on_device.pages = upload(w.pages, sizeof w.pages);
    memcpy(w.pages, known, sizeof known);
    uint32_t n_columns = shape.n_heads * shape.head_dim, last = shape.n_positions - 1;
    size_t room = gpu_partials_bytes(w.n_rows, 2, shape.n_heads, shape.head_dim);
    struct gpu_attention attention = {
        .rows = w.on_device,
        .q = w.queries,
        .cache = w.cache,
        .window = shape.window,
        .n_blocks = 2,
        .scale = 0.3f,
        .partials = make_place(room),
        .partials_bytes = room,
        .attended = make_place((size_t)w.n_rows * n_columns * 4),
        .out = {{nowhere, nowhere, nowhere}},
    };
    float *got = malloc((size_t)w.n_rows * n_columns * 4), expected[4 * 32];
    assert_non_null(got);
    MUST(gpu_attend(test_gpu, &attention, &test_error));
    download(attention.attended, got, (size_t)w.n_rows * n_columns * 4);
    for (uint32_t row = last - 30; row <= last; row += 6) {
        attend_on_cpu(&w, row, expected);
        CHECK_SAME(got + (size_t)row * n_columns, expected, n_columns, "row %u", row);
    }
    release(&attention.partials);
    release(&attention.attended);
    free(got);
    free_world(&w);
}

static int prepare(void **state)
{
    (void)state;
    static const uint32_t types[] = {TENSOR_Q4_K};
    MUST(gpu_prepare_all(test_gpu, types, 1, &test_error));
    return 0;
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_shapes),
        cmocka_unit_test(test_dropped_pages),
        cmocka_unit_test(test_rows_alone),
    };
    fill_tables();
    open_test_gpu();
    if (argc > 1)
        cmocka_set_test_filter(argv[1]);
    int failed = cmocka_run_group_tests(tests, prepare, NULL);
    gpu_close(test_gpu);
    return failed;
}
