/* avx512_attention.c: attention over one block of 256 positions.
 *
 * Up to 8 query rows go together, so that keys and values are loaded and converted once for all. Scores:
 * lanes are positions, one chain of fused multiply-adds over ascending dimensions, 32 positions (a page) at a
 * time. Values: lanes are dimensions, 32 at a time, ascending positions. Rows of a group may see different
 * positions: values up to the fewest are added for all together, the others row by row, so that a row never
 * meets what it must not see. Same operations as ref.c. */
#include "kernels/avx512.h"

enum {
    ROWS_AT_ONCE = 8,
    NEAREST = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC,
};

struct group {
    const struct kv_shape *shape;
    const void *const *pages;
    size_t k_bytes, v_stride; /* bytes of a page's keys; values between two positions */
    const float *q;           /* first row */
    size_t q_stride;
    uint32_t n_visible[ROWS_AT_ONCE];
    uint32_t fewest, most;
    _Alignas(64) float p[ROWS_AT_ONCE][ATTN_BLOCK]; /* scores, then their exponentials */
};

INLINE __m512 load_k(const struct group *g, const uint8_t *page, size_t at)
{
    if (g->shape->k_f32)
        return _mm512_load_ps((const float *)page + at);
    return _mm512_cvtph_ps(_mm256_load_si256((const __m256i *)((const uint16_t *)page + at)));
}

INLINE void score_rows(struct group *g, float scale, const int m)
{
    for (uint32_t page = 0; page * KV_PAGE < g->most; page++) {
        const uint8_t *k = g->pages[page];
        __m512 dot[ROWS_AT_ONCE][2];
        if (!k)
            continue;
        UNROLL
        for (int i = 0; i < m; i++)
            dot[i][0] = dot[i][1] = _mm512_setzero_ps();
        for (uint32_t d = 0; d < g->shape->head_dim; d++) {
            __m512 k0 = load_k(g, k, d * KV_PAGE), k1 = load_k(g, k, d * KV_PAGE + 16);
            UNROLL
            for (int i = 0; i < m; i++) {
                __m512 q = _mm512_set1_ps(g->q[(size_t)i * g->q_stride + d]);
                dot[i][0] = _mm512_fmadd_ps(q, k0, dot[i][0]);
                dot[i][1] = _mm512_fmadd_ps(q, k1, dot[i][1]);
            }
        }
        UNROLL
        for (int i = 0; i < m; i++)
            for (int half = 0; half < 2; half++)
                _mm512_store_ps(g->p[i] + page * KV_PAGE + 16 * half,
                                _mm512_mul_ps(dot[i][half], _mm512_set1_ps(scale)));
    }
}

/* Scores of one row to exponentials; its largest score and their sum. Positions it does not see are not
 * touched. */
static struct attn_state soften(struct group *g, int row)
{
    float *p = g->p[row];
    uint32_t n = g->n_visible[row];
    __m512 largest = _mm512_set1_ps(-INFINITY), total = _mm512_setzero_ps();
    for (uint32_t i = 0; i < n; i += 16)
        if (g->pages[i / KV_PAGE])
            largest = _mm512_mask_max_ps(largest, first_lanes(n - i), _mm512_load_ps(p + i), largest);
    float m = _mm512_reduce_max_ps(largest);
    for (uint32_t i = 0; i < n; i += 16)
        if (g->pages[i / KV_PAGE]) {
            __m512 e = exp_vector(_mm512_sub_ps(_mm512_load_ps(p + i), _mm512_set1_ps(m)));
            total = _mm512_mask_add_ps(total, first_lanes(n - i), total, e);
            _mm512_store_ps(p + i, e);
        }
    return (struct attn_state){m, sum_vector(total)};
}

/* values[row] += p * V over positions [begin, end) for dimensions d .. d+15 (and the next 16 if wide), m rows
 * from `first`. */
INLINE void add_values(const struct group *g, uint32_t d, uint32_t begin, uint32_t end, int first,
                       const int m, const bool wide, __m512 values[][2])
{
    while (begin < end) {
        const uint8_t *page = g->pages[begin / KV_PAGE];
        uint32_t stop = (begin / KV_PAGE + 1) * KV_PAGE;
        stop = stop < end ? stop : end;
        const uint16_t *v = (const uint16_t *)(page + g->k_bytes) + (begin % KV_PAGE) * g->v_stride + d;
        for (; page && begin < stop; begin++, v += g->v_stride) {
            __m512 v0 = _mm512_cvtph_ps(_mm256_load_si256((const __m256i *)v));
            __m512 v1 = wide ? _mm512_cvtph_ps(_mm256_load_si256((const __m256i *)(v + 16))) : v0;
            UNROLL
            for (int i = 0; i < m; i++) {
                __m512 p = _mm512_set1_ps(g->p[first + i][begin]);
                values[i][0] = _mm512_fmadd_ps(p, v0, values[i][0]);
                if (wide)
                    values[i][1] = _mm512_fmadd_ps(p, v1, values[i][1]);
            }
        }
        begin = stop;
    }
}

INLINE void merge_vector(enum merge_case merge_case, float *acc, __m512 later, float keep, float take)
{
    if (merge_case == MERGE_COPY)
        _mm512_storeu_ps(acc, later);
    else if (merge_case == MERGE_BOTH)
        _mm512_storeu_ps(acc, _mm512_fmadd_ps(_mm512_loadu_ps(acc), _mm512_set1_ps(keep),
                                              _mm512_mul_ps(later, _mm512_set1_ps(take))));
}

struct merge {
    enum merge_case merge_case;
    float keep, take;
};

INLINE void value_columns(const struct group *g, uint32_t d, const int m, const bool wide,
                          const struct merge *merges, float *const *acc)
{
    __m512 values[ROWS_AT_ONCE][2];
    UNROLL
    for (int i = 0; i < m; i++)
        values[i][0] = values[i][1] = _mm512_setzero_ps();
    add_values(g, d, 0, g->fewest, 0, m, wide, values);
    UNROLL
    for (int i = 0; i < m; i++) {
        if (g->n_visible[i] > g->fewest)
            add_values(g, d, g->fewest, g->n_visible[i], i, 1, wide, values + i);
        merge_vector(merges[i].merge_case, acc[i] + d, values[i][0], merges[i].keep, merges[i].take);
        if (wide)
            merge_vector(merges[i].merge_case, acc[i] + d + 16, values[i][1], merges[i].keep, merges[i].take);
    }
}

INLINE void attend_rows(struct group *g, float scale, struct attn_state *states, float *acc,
                        size_t acc_stride, const int m)
{
    struct merge merges[ROWS_AT_ONCE];
    float *acc_rows[ROWS_AT_ONCE];
    uint32_t padded = (uint32_t)g->v_stride, d = 0;
    score_rows(g, scale, m);
    for (int i = 0; i < m; i++) {
        struct attn_state partial = soften(g, i);
        merges[i].merge_case = merge_states(&states[i], &partial, &merges[i].keep, &merges[i].take);
        acc_rows[i] = acc + (size_t)i * acc_stride;
    }
    for (; d + 32 <= padded; d += 32)
        value_columns(g, d, m, true, merges, acc_rows);
    if (d < padded)
        value_columns(g, d, m, false, merges, acc_rows);
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
ATTEND(7)
ATTEND(8)

static void attention(const struct kv_shape *shape, const void *const pages[ATTN_BLOCK_PAGES], const float *q,
                      size_t q_stride, const uint32_t *n_visible, uint32_t n_q, float scale,
                      struct attn_state *states, float *acc, size_t acc_stride)
{
    static void (*const attend[ROWS_AT_ONCE])(struct group *, float, struct attn_state *, float *, size_t) = {
        attend_1, attend_2, attend_3, attend_4, attend_5, attend_6, attend_7, attend_8};
    struct group g = {.shape = shape, .pages = pages, .k_bytes = kv_k_bytes(shape), .q_stride = q_stride};
    g.v_stride = (shape->head_dim + 15) / 16 * 16;
    for (uint32_t i = 0; i < n_q;) {
        uint32_t first = i;
        g.fewest = ATTN_BLOCK;
        g.most = 0;
        for (; i < n_q && i - first < ROWS_AT_ONCE && n_visible[i] > 0; i++) {
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
        __mmask16 mask = first_lanes(shape->head_dim - i);
        _mm256_store_si256((__m256i *)(v_row + i),
                           _mm512_cvtps_ph(_mm512_maskz_loadu_ps(mask, v + i), NEAREST));
        _Alignas(32) uint16_t halves[16];
        _mm256_store_si256((__m256i *)halves, _mm512_cvtps_ph(_mm512_maskz_loadu_ps(mask, k + i), NEAREST));
        for (uint32_t j = 0; j < 16 && i + j < shape->head_dim; j++)
            if (shape->k_f32)
                ((float *)block)[(i + j) * KV_PAGE + slot] = k[i + j];
            else
                ((uint16_t *)block)[(i + j) * KV_PAGE + slot] = halves[j];
    }
}

void avx512_fill_attention(struct kernels *kernels)
{
    kernels->attention = attention;
    kernels->attention_merge = attention_merge;
    kernels->kv_store = kv_store;
}
