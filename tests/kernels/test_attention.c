/* test_attention.c: attention in every instruction set that this machine has: against sums in double, ref bit
 * for bit, and a row alone against the row in company. `test_attention --bench` measures instead
 * (helpers/attention_bench.c). */
#include "helpers/attention_bench.h"
#include "helpers/kernel_check.h"
#include "kernels/quants.h"

#include <math.h>
#include <stdlib.h>

enum { N_Q = 19, HEAD_DIM_TESTED = 258 };

struct attention_case {
    struct kv_shape shape;
    uint32_t n_pages, padded;
    void *pages[ATTN_BLOCK_PAGES];
    float *k, *v; /* [256, head_dim], as given to kv_store */
    float *q;
    float size; /* of q: scores grow with it, and so does what rounding does to their exponentials */
    struct attn_span visible[N_Q];
};

/* Whether there is a page of what the row may see. */
static bool sees_something(const struct attention_case *c, int row)
{
    for (uint32_t i = c->visible[row].begin; i < c->visible[row].end; i++)
        if (c->pages[i / KV_PAGE])
            return true;
    return false;
}

/* Lets a row see no positions before a chosen one, if it then still sees some. */
static void begin_later(struct attention_case *c, int row, uint32_t begin)
{
    uint32_t before = c->visible[row].begin;
    c->visible[row].begin = begin;
    if (!sees_something(c, row))
        c->visible[row].begin = before;
}

static struct attention_case make_attention(uint32_t head_dim, bool k_f32, bool holes, bool windows,
                                            float size)
{
    struct attention_case c = {.shape = {head_dim, k_f32}, .padded = (head_dim + 15) / 16 * 16, .size = size};
    c.k = malloc(ATTN_BLOCK * head_dim * sizeof *c.k);
    c.v = malloc(ATTN_BLOCK * head_dim * sizeof *c.v);
    c.q = malloc(N_Q * head_dim * sizeof *c.q);
    assert_true(c.k && c.v && c.q);
    random_floats(c.k, ATTN_BLOCK * head_dim);
    random_floats(c.v, ATTN_BLOCK * head_dim);
    for (uint32_t i = 0; i < N_Q * head_dim; i++)
        c.q[i] = random_float() * size;
    uint32_t last = random_below(ATTN_BLOCK);
    size_t n_bytes = kv_block_bytes(&c.shape);
    for (uint32_t page = 0; page <= last / KV_PAGE; page++) {
        if (holes && page > 0 && random_below(3) == 0)
            continue;
        c.pages[page] = allocate(n_bytes + GUARD);
        memset(c.pages[page], 0xff, n_bytes + GUARD); /* NaN wherever nothing is stored */
        for (uint32_t slot = 0; slot < KV_PAGE && page * KV_PAGE + slot <= last; slot++) {
            uint32_t at = (page * KV_PAGE + slot) * head_dim;
            tables[0].kv_store(&c.shape, c.pages[page], slot, c.k + at, c.v + at);
        }
    }
    for (int i = 0; i < N_Q; i++)
        c.visible[i].end = i % 7 == 3 ? 0 : i % 4 ? 1 + random_below(last + 1) : last + 1;
    for (int i = 0; i < N_Q && windows; i++)
        begin_later(&c, i, i % 5 == 2 && c.visible[i].end ? c.visible[i].end - 1 : random_below(last + 1));
    return c;
}

static void free_attention(struct attention_case *c)
{
    for (int i = 0; i < ATTN_BLOCK_PAGES; i++)
        free(c->pages[i]);
    free(c->k);
    free(c->v);
    free(c->q);
}

/* What n values of x become as whole numbers of up to `steps`, and what a one is worth. */
static double rounded(const float *x, uint32_t n, float steps, double *out)
{
    float largest = 0.0f;
    for (uint32_t i = 0; i < n; i++)
        largest = fmaxf(largest, fabsf(x[i]));
    for (uint32_t i = 0; i < n; i++)
        out[i] = rintf(x[i] * (steps / largest)) * (largest / steps);
    return largest / steps;
}

/* The sums in double, with queries, keys and values rounded as the kernels may; their weights are rounded
 * to half a step at most. */
static void check_attention_in_double(const struct attention_case *c, int row, float scale,
                                      const struct attn_state *state, const float *acc)
{
    double scores[ATTN_BLOCK], largest = -INFINITY, total = 0, q[HEAD_DIM_TESTED], k[HEAD_DIM_TESTED];
    static double v[ATTN_BLOCK][HEAD_DIM_TESTED];
    double v_step[ATTN_BLOCK], largest_weight = 0;
    uint32_t dim = c->shape.head_dim, begin = c->visible[row].begin, n = c->visible[row].end;
    const float *q_row = c->q + (uint32_t)row * dim;
    rounded(q_row, dim, 4095.0f, q);
    for (uint32_t i = begin; i < n; i++) {
        scores[i] = 0;
        rounded(c->k + i * dim, dim, 4095.0f, k);
        v_step[i] = rounded(c->v + i * dim, dim, 4095.0f, v[i]);
        for (uint32_t j = 0; j < dim; j++)
            scores[i] += (c->shape.k_f32 ? (double)q_row[j] * c->k[i * dim + j] : q[j] * k[j]) * scale;
        if (c->pages[i / KV_PAGE])
            largest = fmax(largest, scores[i]);
    }
    for (uint32_t i = begin; i < n; i++)
        if (c->pages[i / KV_PAGE]) {
            total += exp(scores[i] - largest);
            largest_weight = fmax(largest_weight, exp(scores[i] - largest) * v_step[i]);
        }
    for (uint32_t j = 0; j < dim; j++) {
        double sum = 0, error = 1e-9;
        for (uint32_t i = begin; i < n; i++)
            if (c->pages[i / KV_PAGE]) {
                double part = exp(scores[i] - largest) / total * v[i][j];
                sum += part;
                error += 1e-5 * (1.0 + c->size) * fabs(part) +
                         0.51 * largest_weight / 16383.0 / total * fabs(v[i][j]) / v_step[i];
            }
        if (!(fabs(acc[j] / state->l - sum) <= error))
            fail_msg("attention row %d value %u is %g, expected %g", row, j, (double)(acc[j] / state->l),
                     sum);
    }
    for (uint32_t j = dim; j < c->padded; j++)
        assert_true(acc[j] == 0.0f);
}

static void check_attention(const struct kernels *kernels, const struct attention_case *c)
{
    uint32_t dim = c->shape.head_dim, n = N_Q * c->padded;
    float scale = 1.0f / sqrtf((float)dim);
    const void *const *pages = (const void *const *)c->pages;
    struct attn_state states[N_Q], expected_states[N_Q], earlier[N_Q];
    float *acc = calloc(n + GUARD, sizeof *acc), *expected = calloc(n, sizeof *expected),
          *before = calloc(n, sizeof *before);
    assert_true(acc && expected && before);
    for (int i = 0; i < N_Q; i++)
        states[i] = expected_states[i] = (struct attn_state){-INFINITY, 0.0f};

    /* From scratch: right, and as ref has it. */
    tables[0].attention(&c->shape, pages, NULL, c->q, dim, c->visible, N_Q, scale, expected_states, expected,
                        c->padded);
    kernels->attention(&c->shape, pages, NULL, c->q, dim, c->visible, N_Q, scale, states, acc, c->padded);
    CHECK_SAME(acc, expected, n, "%s attention, head_dim %u", kernels->name, dim);
    for (int i = 0; i < GUARD; i++)
        assert_true(acc[n + (uint32_t)i] == 0.0f);
    for (int i = 0; i < N_Q; i++) {
        assert_true(states[i].m == expected_states[i].m && states[i].l == expected_states[i].l);
        if (sees_something(c, i))
            check_attention_in_double(c, i, scale, &states[i], acc + (uint32_t)i * c->padded);
        else
            assert_true(states[i].l == 0.0f);
    }

    /* Merged into something earlier: directly, or the partial afterwards, one row at a time. */
    random_floats(before, n);
    for (uint32_t i = 0; i < N_Q; i++) {
        earlier[i] = (struct attn_state){states[i].m + random_float() * 3, 1.0f + (float)random_below(9)};
        for (uint32_t j = dim; j < c->padded; j++)
            before[i * c->padded + j] = 0.0f;
    }
    for (uint32_t i = 0; i < N_Q; i++) {
        if (!sees_something(c, (int)i))
            continue;
        struct attn_state direct = earlier[i], merged = earlier[i], first = {-INFINITY, 0.0f};
        float *row_direct = calloc(3 * c->padded, sizeof *row_direct), *row_merged = row_direct + c->padded;
        assert_non_null(row_direct);
        memcpy(row_direct, before + i * c->padded, c->padded * sizeof *row_direct);
        memcpy(row_merged, before + i * c->padded, c->padded * sizeof *row_direct);
        kernels->attention(&c->shape, pages, NULL, c->q + i * dim, 0, &c->visible[i], 1, scale, &direct,
                           row_direct, 0);
        kernels->attention_merge(&merged, row_merged, &states[i], acc + i * c->padded, c->padded);
        CHECK_SAME(row_merged, row_direct, c->padded, "%s merged or direct, head_dim %u", kernels->name, dim);
        assert_memory_equal(&merged, &direct, sizeof merged);
        tables[0].attention_merge(&earlier[i], before + i * c->padded, &states[i], acc + i * c->padded,
                                  c->padded);
        CHECK_SAME(row_merged, before + i * c->padded, c->padded, "%s attention_merge", kernels->name);
        kernels->attention_merge(&first, row_merged + c->padded, &states[i], acc + i * c->padded, c->padded);
        assert_memory_equal(row_merged + c->padded, acc + i * c->padded, c->padded * sizeof *acc);
        assert_memory_equal(&first, &states[i], sizeof first);
        free(row_direct);
    }
    free(acc);
    free(expected);
    free(before);
}

/* The end of a row: one division, then products; another order (a division for each value) gives other bits. */
static void test_a_row_ends_in_the_agreed_order(void **state)
{
    (void)state;
    enum { LARGEST = 258 };
    static const uint32_t dims[] = {1, 2, 15, 16, 17, 33, 64, 80, 96, 128, LARGEST};
    static float acc[LARGEST], expected[LARGEST], divided[LARGEST], out[LARGEST + GUARD];
    uint32_t n_others = 0;
    for (size_t i = 0; i < sizeof dims / sizeof *dims; i++) {
        uint32_t n = dims[i];
        struct attn_state row = {.m = random_float(), .l = 1.0f + fabsf(random_float())};
        float inverse = 1.0f / row.l;
        random_floats(acc, n);
        for (uint32_t j = 0; j < n; j++) {
            expected[j] = acc[j] * inverse;
            divided[j] = acc[j] / row.l;
        }
        n_others += !same_floats(divided, expected, n);
        for (int t = 0; t < n_tables; t++) {
            memset(out, 0, sizeof out);
            tables[t].attention_finish(&row, acc, n, out);
            CHECK_SAME(out, expected, n, "%s attention_finish %u", tables[t].name, n);
            for (uint32_t j = n; j < n + GUARD; j++)
                assert_true(out[j] == 0.0f);
        }
    }
    assert_true(n_others > 5);
}

static void check_kv_store(const struct kernels *kernels, const struct attention_case *c)
{
    size_t n_bytes = kv_block_bytes(&c->shape);
    uint8_t *expected = allocate(n_bytes), *block = allocate(n_bytes + GUARD);
    memset(expected, 0x55, n_bytes);
    memset(block, 0x55, n_bytes + GUARD);
    for (uint32_t slot = 0; slot < KV_PAGE; slot += 3) {
        uint32_t at = slot * c->shape.head_dim;
        tables[0].kv_store(&c->shape, expected, slot, c->k + at, c->v + at);
        kernels->kv_store(&c->shape, block, slot, c->k + at, c->v + at);
    }
    assert_memory_equal(block, expected, n_bytes);
    for (int i = 0; i < GUARD; i++)
        assert_int_equal(block[n_bytes + (size_t)i], 0x55);
    free(expected);
    free(block);
}

static void test_attention(void **state)
{
    (void)state;
    static const uint32_t dims[] = {2, 6, 16, 30, 64, 80, 96, 128, 256, 258};
    for (int t = 0; t < n_tables; t++)
        for (size_t i = 0; i < sizeof dims / sizeof *dims; i++)
            for (int variant = 0; variant < 16; variant++) {
                struct attention_case c = make_attention(dims[i], variant & 1, variant & 2, variant & 8,
                                                         variant & 4 ? 30.0f : 1.0f);
                check_kv_store(&tables[t], &c);
                check_attention(&tables[t], &c);
                free_attention(&c);
            }
}

int main(int argc, char **argv)
{
    fill_tables();
    if (argc > 1 && strcmp(argv[1], "--bench") == 0)
        return attention_bench(tables, n_tables, argc > 2 ? argv[2] : "", argc > 3 ? atoi(argv[3]) : 0);
    if (!keep_tables_asked_for(argc, argv))
        return 77;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_attention),
        cmocka_unit_test(test_a_row_ends_in_the_agreed_order),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
