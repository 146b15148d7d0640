/* attention_body.h: attention over one block of 256 positions. The body of avx2_attention.c and of
 * avx512_attention.c, which say before including it how many query rows go together (GROUP_ROWS) and how many
 * vectors of 16 positions or dimensions (1 or 2, GROUP_VECTORS): their product is the number of sums in
 * registers.
 *
 * Keys and values are loaded and converted once for the rows of a group. Scores: lanes are positions, one
 * chain of fused multiply-adds over ascending dimensions. Values: lanes are dimensions, ascending positions.
 * Rows of a group may see different positions: values up to the fewest are added for all together, the others
 * row by row, so that a row never meets what it must not see. Same operations as ref.c. */
#include "kernels/vector16.h"

struct group {
    const struct kv_shape *shape;
    const void *const *pages;
    size_t k_bytes, v_stride; /* bytes of a page's keys; values between two positions */
    const float *q;           /* first row */
    size_t q_stride;
    uint32_t n_visible[GROUP_ROWS];
    uint32_t fewest, most;
    _Alignas(64) float p[GROUP_ROWS][ATTN_BLOCK]; /* scores, then their exponentials */
};

INLINE vector16 load_k(const uint8_t *page, size_t at, const bool k_f32)
{
    return k_f32 ? v_load((const float *)page + at) : v_load_f16((const uint16_t *)page + at);
}

/* Scores of m rows at GROUP_VECTORS * 16 positions of a page, from slot on. */
INLINE void score_positions(struct group *g, const uint8_t *page, uint32_t slot, float *p, float scale,
                            const int m, const bool k_f32)
{
    vector16 dot[GROUP_ROWS][GROUP_VECTORS];
    UNROLL
    for (int i = 0; i < m; i++)
        UNROLL
    for (int j = 0; j < GROUP_VECTORS; j++)
        dot[i][j] = v_set(0.0f);
    for (uint32_t d = 0; d < g->shape->head_dim; d++) {
        vector16 k[GROUP_VECTORS];
        UNROLL
        for (int j = 0; j < GROUP_VECTORS; j++)
            k[j] = load_k(page, (size_t)d * KV_PAGE + slot + 16 * (uint32_t)j, k_f32);
        UNROLL
        for (int i = 0; i < m; i++) {
            vector16 q = v_set(g->q[(size_t)i * g->q_stride + d]);
            UNROLL
            for (int j = 0; j < GROUP_VECTORS; j++)
                dot[i][j] = v_fma(q, k[j], dot[i][j]);
        }
    }
    UNROLL
    for (int i = 0; i < m; i++)
        UNROLL
    for (int j = 0; j < GROUP_VECTORS; j++)
        v_store(p + i * ATTN_BLOCK + 16 * j, v_mul(dot[i][j], v_set(scale)));
}

INLINE void score_rows(struct group *g, float scale, const int m)
{
    for (uint32_t position = 0; position < g->most; position += 16 * GROUP_VECTORS) {
        const uint8_t *page = g->pages[position / KV_PAGE];
        uint32_t slot = position % KV_PAGE;
        if (page && g->shape->k_f32)
            score_positions(g, page, slot, g->p[0] + position, scale, m, true);
        else if (page)
            score_positions(g, page, slot, g->p[0] + position, scale, m, false);
    }
}

/* Scores of one row to exponentials; its largest score and their sum. Positions it does not see are not
 * touched. */
static struct attn_state soften(struct group *g, int row)
{
    float *p = g->p[row];
    uint32_t n = g->n_visible[row];
    vector16 largest = v_set(-INFINITY), total = v_set(0.0f);
    for (uint32_t i = 0; i < n; i += 16)
        if (g->pages[i / KV_PAGE])
            largest = v_first(v_max(v_load(p + i), largest), largest, n - i);
    float m = v_largest(largest);
    for (uint32_t i = 0; i < n; i += 16)
        if (g->pages[i / KV_PAGE]) {
            vector16 e = v_exp(v_sub(v_load(p + i), v_set(m)));
            total = v_first(v_add(total, e), total, n - i);
            v_store(p + i, e);
        }
    return (struct attn_state){m, v_sum(total)};
}

/* values[row] += p * V over positions [begin, end) for n vectors of dimensions from d on; m rows from
 * `first`. */
INLINE void add_values(const struct group *g, uint32_t d, uint32_t begin, uint32_t end, int first,
                       const int m, const int n, vector16 values[][GROUP_VECTORS])
{
    while (begin < end) {
        const uint8_t *page = g->pages[begin / KV_PAGE];
        uint32_t stop = (begin / KV_PAGE + 1) * KV_PAGE;
        stop = stop < end ? stop : end;
        if (page) {
            const uint16_t *v = (const uint16_t *)(page + g->k_bytes) + (begin % KV_PAGE) * g->v_stride + d;
            for (; begin < stop; begin++, v += g->v_stride) {
                vector16 here[GROUP_VECTORS];
                UNROLL
                for (int j = 0; j < n; j++)
                    here[j] = v_load_f16(v + 16 * j);
                UNROLL
                for (int i = 0; i < m; i++) {
                    vector16 p = v_set(g->p[first + i][begin]);
                    UNROLL
                    for (int j = 0; j < n; j++)
                        values[i][j] = v_fma(p, here[j], values[i][j]);
                }
            }
        }
        begin = stop;
    }
}

INLINE void merge_vector(enum merge_case merge_case, float *acc, vector16 later, float keep, float take)
{
    if (merge_case == MERGE_COPY)
        v_store(acc, later);
    else if (merge_case == MERGE_BOTH)
        v_store(acc, v_fma(v_load(acc), v_set(keep), v_mul(later, v_set(take))));
}

struct merge {
    enum merge_case merge_case;
    float keep, take;
};

INLINE void value_columns(const struct group *g, uint32_t d, const int m, const int n,
                          const struct merge *merges, float *const *acc)
{
    vector16 values[GROUP_ROWS][GROUP_VECTORS];
    UNROLL
    for (int i = 0; i < m; i++)
        UNROLL
    for (int j = 0; j < n; j++)
        values[i][j] = v_set(0.0f);
    add_values(g, d, 0, g->fewest, 0, m, n, values);
    UNROLL
    for (int i = 0; i < m; i++) {
        if (g->n_visible[i] > g->fewest)
            add_values(g, d, g->fewest, g->n_visible[i], i, 1, n, values + i);
        UNROLL
        for (int j = 0; j < n; j++)
            merge_vector(merges[i].merge_case, acc[i] + d + 16 * j, values[i][j], merges[i].keep,
                         merges[i].take);
    }
}

INLINE void attend_rows(struct group *g, float scale, struct attn_state *states, float *acc,
                        size_t acc_stride, const int m)
{
    struct merge merges[GROUP_ROWS];
    float *acc_rows[GROUP_ROWS];
    uint32_t padded = (uint32_t)g->v_stride, d = 0;
    score_rows(g, scale, m);
    for (int i = 0; i < m; i++) {
        struct attn_state partial = soften(g, i);
        merges[i].merge_case = merge_states(&states[i], &partial, &merges[i].keep, &merges[i].take);
        acc_rows[i] = acc + (size_t)i * acc_stride;
    }
    for (; d + 16 * GROUP_VECTORS <= padded; d += 16 * GROUP_VECTORS)
        value_columns(g, d, m, GROUP_VECTORS, merges, acc_rows);
    for (; d < padded; d += 16)
        value_columns(g, d, m, 1, merges, acc_rows);
}

#define ATTEND(m)                                                                                            \
    static void attend_##m(struct group *g, float scale, struct attn_state *states, float *acc,              \
                           size_t acc_stride)                                                                \
    {                                                                                                        \
        attend_rows(g, scale, states, acc, acc_stride, m);                                                   \
    }
ATTEND(1)
ATTEND(2)
ATTEND(3)
ATTEND(4)
ATTEND(5)
ATTEND(6)
#if GROUP_ROWS == 8
ATTEND(7)
ATTEND(8)
#endif

static void attention(const struct kv_shape *shape, const void *const pages[ATTN_BLOCK_PAGES], const float *q,
                      size_t q_stride, const uint32_t *n_visible, uint32_t n_q, float scale,
                      struct attn_state *states, float *acc, size_t acc_stride)
{
    static void (*const attend[GROUP_ROWS])(struct group *, float, struct attn_state *, float *, size_t) = {
        attend_1,
        attend_2,
        attend_3,
        attend_4,
        attend_5,
        attend_6,
#if GROUP_ROWS == 8
        attend_7,
        attend_8,
#endif
    };
    struct group g = {.shape = shape, .pages = pages, .k_bytes = kv_k_bytes(shape), .q_stride = q_stride};
    g.v_stride = (shape->head_dim + 15) / 16 * 16;
    for (uint32_t i = 0; i < n_q;) {
        uint32_t first = i;
        g.fewest = ATTN_BLOCK;
        g.most = 0;
        for (; i < n_q && i - first < GROUP_ROWS && n_visible[i] > 0; i++) {
            g.n_visible[i - first] = n_visible[i];
            g.fewest = n_visible[i] < g.fewest ? n_visible[i] : g.fewest;
            g.most = n_visible[i] > g.most ? n_visible[i] : g.most;
        }
        g.q = q + first * q_stride;
        if (i > first)
            attend[i - first - 1](&g, scale, states + first, acc + first * acc_stride, acc_stride);
        else
            i++; /* a row that sees nothing */
    }
}

static void attention_merge(struct attn_state *state, float *acc, const struct attn_state *later,
                            const float *later_acc, uint32_t n)
{
    attention_merge_plain(state, acc, later, later_acc, n);
}

/* A row of values at a time; keys are scattered, one for each dimension. */
static void kv_store(const struct kv_shape *shape, void *block, uint32_t slot, const float *k, const float *v)
{
    uint32_t padded = (shape->head_dim + 15) / 16 * 16;
    uint16_t *v_row = (uint16_t *)((uint8_t *)block + kv_k_bytes(shape)) + (size_t)slot * padded;
    for (uint32_t i = 0; i < shape->head_dim; i += 16) {
        uint32_t n = shape->head_dim - i;
        uint16_t halves[16];
        v_store_f16(v_row + i, v_load_n(v + i, n));
        v_store_f16(halves, v_load_n(k + i, n));
        for (uint32_t j = 0; j < 16 && j < n; j++)
            if (shape->k_f32)
                ((float *)block)[(i + j) * KV_PAGE + slot] = k[i + j];
            else
                ((uint16_t *)block)[(i + j) * KV_PAGE + slot] = halves[j];
    }
}

static void fill_attention(struct kernels *kernels)
{
    kernels->attention = attention;
    kernels->attention_merge = attention_merge;
    kernels->kv_store = kv_store;
}
