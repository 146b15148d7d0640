/* attention_body.h: attention over one block of 256 positions. The body of avx2_attention.c and of
 * avx512_attention.c, which say before including it how many query rows go together (GROUP_ROWS) and how many
 * vectors of 16 positions a tile of scores has (1 or 2, SCORE_VECTORS); GROUP_ROWS * SCORE_VECTORS is the
 * number of sums in registers.
 *
 * Scores: lanes are positions; queries and keys are whole numbers (shared.h), their sums exact, so that the
 * order does not matter; f32 keys are one chain of fused multiply-adds over ascending dimensions. Values:
 * lanes are dimensions; weights (exponentials times the values' scales) are whole numbers too, summed exactly
 * page by page. Rows of a group may see different positions: what a row does not see has weight 0 and adds
 * nothing. Same results as ref.c. */
#include "kernels/x86/vector16.h"

struct group {
    const struct kv_shape *shape;
    const void *const *pages, *const *next_pages;
    size_t k_bytes, k_scales_at, v_scales_at;
    uint32_t padded; /* head_dim up to 16s */
    const float *q;  /* first row */
    size_t q_stride;
    float scale;
    struct attn_span visible[GROUP_ROWS];
    uint32_t least, most;                   /* of all rows' positions; the first one of its page */
    float q_scale[GROUP_ROWS];              /* what a one of q_whole is worth, times scale */
    struct attn_state partials[GROUP_ROWS]; /* of this block */
    struct act_scale weight_scales[GROUP_ROWS];
    _Alignas(64) int16_t q_whole[KV_HEAD_DIM_MAX / SCORE_CHUNK][GROUP_ROWS][SCORE_CHUNK];
    _Alignas(64) float p[GROUP_ROWS][ATTN_BLOCK]; /* scores, then their exponentials */
    _Alignas(64) int16_t weights[GROUP_ROWS][ATTN_BLOCK];
};

INLINE struct act_scale find_scale(const float *x, uint32_t n, int steps)
{
    vector16 largest = v_set(0.0f);
    for (uint32_t i = 0; i < n; i += 16)
        largest = v_max_bits(v_load_n(x + i, n - i), largest);
    return whole_scale_of(v_largest_bits(largest), steps);
}

/* n values to whole numbers, zeros up to a multiple of 16. */
INLINE void round_values(const float *x, uint32_t n, float inverse, int16_t *whole)
{
    for (uint32_t i = 0; i < n; i += 16)
        v_store_i16(whole + i, inverse != 0.0f ? v_mul(v_load_n(x + i, n - i), v_set(inverse)) : v_set(0.0f));
}

static void round_queries(struct group *g, int m)
{
    uint32_t head_dim = g->shape->head_dim;
    for (int i = 0; i < m; i++) {
        const float *q = g->q + (size_t)i * g->q_stride;
        struct act_scale scale = find_scale(q, head_dim, QUERY_STEPS);
        g->q_scale[i] = scale.d * g->scale;
        for (uint32_t d = 0, chunk = 0; d < head_dim; d += SCORE_CHUNK, chunk++)
            round_values(q + d, head_dim - d < SCORE_CHUNK ? head_dim - d : SCORE_CHUNK, scale.inverse,
                         g->q_whole[chunk][i]);
    }
}

INLINE void prefetch(const uint8_t *p)
{
    _mm_prefetch((const char *)p, _MM_HINT_T1);
}

/* Asks for what the loops over keys and values do not fetch ahead: scales, of this block's values and of the next block's
 * keys. */
static void prefetch_scales(const struct group *g)
{
    const size_t n_bytes = KV_PAGE * sizeof(float);
    for (uint32_t page = g->least / KV_PAGE; page * KV_PAGE < g->most; page++)
        for (size_t at = 0; at < n_bytes; at += 64) {
            if (g->pages[page])
                prefetch((const uint8_t *)g->pages[page] + g->v_scales_at + at);
            if (g->next_pages && g->next_pages[page])
                prefetch((const uint8_t *)g->next_pages[page] + g->k_scales_at + at);
        }
}

/* Adds a chunk's sums to those of the chunks before (begin: there are some), and scales them after the last. */
INLINE void store_scores(float *out, vector16 sums, bool begin, bool last, float q_scale,
                         const float *k_scales)
{
    if (begin)
        sums = v_add(v_load(out), sums);
    if (last)
        sums = v_mul(sums, v_mul(v_set(q_scale), v_load(k_scales)));
    v_store(out, sums);
}

/* Scores of m rows at SCORE_VECTORS * 16 positions of a page, from slot on, with whole keys. ahead: what will
 * be read next, a line for each vector of keys. (Sums in two plain arrays and loops one deep: nested ones the
 * compiler leaves in memory.) */
INLINE void score_whole(struct group *g, const uint8_t *page, uint32_t slot, float *p, const uint8_t *ahead,
                        const int m)
{
    const bool two = SCORE_VECTORS == 2;
    const int16_t *k = (const int16_t *)page + 2 * slot;
    const float *k_scales = (const float *)(page + g->k_scales_at) + slot;
    uint32_t head_dim = g->shape->head_dim;
    for (uint32_t begin = 0, chunk = 0; begin < head_dim; begin += SCORE_CHUNK, chunk++) {
        whole16 low[GROUP_ROWS], high[GROUP_ROWS];
        UNROLL
        for (int i = 0; i < m; i++)
            low[i] = high[i] = w_zero();
        uint32_t n = head_dim - begin < SCORE_CHUNK ? head_dim - begin : SCORE_CHUNK;
        const int16_t *q = g->q_whole[chunk][0], *end = q + n;
        for (; q < end; q += 2, k += 2 * KV_PAGE, ahead += 64 * SCORE_VECTORS) {
            whole16 low_keys = w_load(k), high_keys = two ? w_load(k + 32) : low_keys;
            prefetch(ahead);
            if (two)
                prefetch(ahead + 64);
            UNROLL
            for (int i = 0; i < m; i++) {
                whole16 pair = w_pair(q + i * SCORE_CHUNK);
                low[i] = w_dot(low[i], low_keys, pair);
                if (two)
                    high[i] = w_dot(high[i], high_keys, pair);
            }
        }
        const bool last = begin + n == head_dim;
        UNROLL
        for (int i = 0; i < m; i++) {
            float *out = p + i * ATTN_BLOCK;
            store_scores(out, v_whole(low[i]), begin, last, g->q_scale[i], k_scales);
            if (two)
                store_scores(out + 16, v_whole(high[i]), begin, last, g->q_scale[i], k_scales + 16);
        }
    }
}

/* The same with f32 keys. */
INLINE void score_f32(struct group *g, const uint8_t *page, uint32_t slot, float *p, const int m)
{
    const bool two = SCORE_VECTORS == 2;
    const float *k = (const float *)page + slot;
    vector16 low[GROUP_ROWS], high[GROUP_ROWS];
    UNROLL
    for (int i = 0; i < m; i++)
        low[i] = high[i] = v_set(0.0f);
    for (uint32_t d = 0; d < g->shape->head_dim; d++, k += KV_PAGE) {
        vector16 low_keys = v_load(k), high_keys = two ? v_load(k + 16) : low_keys;
        UNROLL
        for (int i = 0; i < m; i++) {
            vector16 q = v_set(g->q[(size_t)i * g->q_stride + d]);
            low[i] = v_fma(q, low_keys, low[i]);
            if (two)
                high[i] = v_fma(q, high_keys, high[i]);
        }
    }
    UNROLL
    for (int i = 0; i < m; i++) {
        v_store(p + i * ATTN_BLOCK, v_mul(low[i], v_set(g->scale)));
        if (two)
            v_store(p + i * ATTN_BLOCK + 16, v_mul(high[i], v_set(g->scale)));
    }
}

INLINE void score_rows(struct group *g, const int m)
{
    for (uint32_t position = g->least; position < g->most; position += 16 * SCORE_VECTORS) {
        const uint8_t *page = g->pages[position / KV_PAGE];
        uint32_t slot = position % KV_PAGE;
        if (!page)
            continue;
        if (g->shape->k_f32)
            score_f32(g, page, slot, g->p[0] + position, m);
        else /* a page's values are as many bytes as its keys */
            score_whole(g, page, slot, g->p[0] + position,
                        page + g->k_bytes + (size_t)slot * g->shape->head_dim * sizeof(int16_t), m);
    }
}

/* The lanes of positions from i on that are not in [begin, end) become `unseen`. */
INLINE vector16 keep_seen(vector16 x, vector16 unseen, uint32_t i, uint32_t begin, uint32_t end)
{
    if (i < begin)
        x = v_first(unseen, x, begin - i);
    return end - i < 16 ? v_first(x, unseen, end - i) : x;
}

/* Scores to weights in three steps, each for all m rows: the maximum and the sums of a row are ready late, and the next
 * row begins meanwhile. Where what a row sees begins within 16 positions, these are done before the loop, which so compares nothing
 * for it: `begin` is the first position seen there, and 0 in the loop. First the largest scores. */
INLINE vector16 larger_scores(const struct group *g, int row, uint32_t i, uint32_t begin, vector16 largest)
{
    if (!g->pages[i / KV_PAGE])
        return largest;
    vector16 scores = v_load(g->p[row] + i);
    return v_max(keep_seen(scores, v_set(-INFINITY), i, begin, g->visible[row].end), largest);
}

static void find_largest(struct group *g, int m)
{
    for (int row = 0; row < m; row++) {
        const struct attn_span span = g->visible[row];
        vector16 largest = v_set(-INFINITY);
        uint32_t i = span.begin / 16 * 16;
        if (i < span.begin) {
            largest = larger_scores(g, row, i, span.begin, largest);
            i += 16;
        }
        for (; i < span.end; i += 16)
            largest = larger_scores(g, row, i, 0, largest);
        g->partials[row].m = v_largest(largest);
    }
}

/* Then exponentials and their sums, and from the largest weight the scale of all. */
struct exponentials {
    vector16 total, largest_weight;
};

INLINE void exponentiate_scores(struct group *g, int row, uint32_t i, uint32_t begin, vector16 largest,
                                struct exponentials *sums)
{
    const uint8_t *page = g->pages[i / KV_PAGE];
    if (!page)
        return;
    const vector16 zero = v_set(0.0f);
    uint32_t end = g->visible[row].end;
    vector16 e = v_exp(v_sub(v_load(g->p[row] + i), largest));
    vector16 weight = v_mul(e, v_load((const float *)(page + g->v_scales_at) + i % KV_PAGE));
    e = keep_seen(e, zero, i, begin, end);
    weight = keep_seen(weight, zero, i, begin, end);
    sums->total = v_add(sums->total, e);
    sums->largest_weight = v_max_bits(weight, sums->largest_weight);
    v_store(g->p[row] + i, weight);
}

static void exponentiate(struct group *g, int m)
{
    for (int row = 0; row < m; row++) {
        const struct attn_span span = g->visible[row];
        vector16 largest = v_set(g->partials[row].m);
        struct exponentials sums = {v_set(0.0f), v_set(0.0f)};
        uint32_t i = span.begin / 16 * 16;
        if (i < span.begin) {
            exponentiate_scores(g, row, i, span.begin, largest, &sums);
            i += 16;
        }
        for (; i < span.end; i += 16)
            exponentiate_scores(g, row, i, 0, largest, &sums);
        g->partials[row].l = v_sum(sums.total);
        g->weight_scales[row] = whole_scale_of(v_largest_bits(sums.largest_weight), WEIGHT_STEPS);
    }
}

/* Then whole weights; those of what a row does not see are 0. */
static void round_weights(struct group *g, int m)
{
    for (int row = 0; row < m; row++) {
        const float *p = g->p[row];
        int16_t *weights = g->weights[row];
        vector16 inverse = v_set(g->weight_scales[row].inverse);
        uint32_t begin = g->visible[row].begin, i = g->least;
        uint32_t n = g->weight_scales[row].inverse != 0.0f ? g->visible[row].end : 0;
        for (; i + 16 <= begin; i += 16)
            v_store_i16(weights + i, v_set(0.0f));
        for (; i < n; i += 16)
            if (g->pages[i / KV_PAGE])
                v_store_i16(weights + i, v_mul(v_load(p + i), inverse));
        for (; i < g->most; i += 16)
            v_store_i16(weights + i, v_set(0.0f));
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

/* 16 dimensions of the results of m rows, from d on. */
INLINE void value_columns(const struct group *g, uint32_t d, const int m, const struct merge *merges,
                          float *const *acc)
{
    vector16 values[GROUP_ROWS];
    UNROLL
    for (int i = 0; i < m; i++)
        values[i] = v_set(0.0f);
    for (uint32_t position = g->least; position < g->most; position += KV_PAGE) {
        const uint8_t *page = g->pages[position / KV_PAGE];
        if (!page)
            continue;
        const uint8_t *next = g->next_pages ? g->next_pages[position / KV_PAGE] : NULL;
        const int16_t *v = (const int16_t *)(page + g->k_bytes) + (size_t)d * KV_PAGE;
        const uint8_t *ahead = next ? next + (size_t)d * KV_PAGE * 2 : (const uint8_t *)v;
        const int16_t *weights = g->weights[0] + position;
        uint32_t n = g->most - position < KV_PAGE ? g->most - position : KV_PAGE;
        whole16 sums[GROUP_ROWS];
        UNROLL
        for (int i = 0; i < m; i++)
            sums[i] = w_zero();
        for (uint32_t slot = 0; slot < n; slot += 2, v += 32, ahead += 64) {
            whole16 here = w_load(v);
            prefetch(ahead);
            UNROLL
            for (int i = 0; i < m; i++)
                sums[i] = w_dot_pair(sums[i], here, weights + i * ATTN_BLOCK + slot);
        }
        UNROLL
        for (int i = 0; i < m; i++)
            values[i] = v_add(values[i], v_whole(sums[i]));
    }
    UNROLL
    for (int i = 0; i < m; i++)
        merge_vector(merges[i].merge_case, acc[i] + d, v_mul(values[i], v_set(g->weight_scales[i].d)),
                     merges[i].keep, merges[i].take);
}

INLINE void attend_rows(struct group *g, struct attn_state *states, float *acc, size_t acc_stride,
                        const int m)
{
    struct merge merges[GROUP_ROWS];
    float *acc_rows[GROUP_ROWS];
    if (!g->shape->k_f32)
        round_queries(g, m);
    prefetch_scales(g);
    score_rows(g, m);
    find_largest(g, m);
    exponentiate(g, m);
    round_weights(g, m);
    for (int i = 0; i < m; i++) {
        merges[i].merge_case = merge_states(&states[i], &g->partials[i], &merges[i].keep, &merges[i].take);
        acc_rows[i] = acc + (size_t)i * acc_stride;
    }
    for (uint32_t d = 0; d < g->padded; d += 16)
        value_columns(g, d, m, merges, acc_rows);
}

#define ATTEND(m)                                                                                            \
    static void attend_##m(struct group *g, struct attn_state *states, float *acc, size_t acc_stride)        \
    {                                                                                                        \
        attend_rows(g, states, acc, acc_stride, m);                                                          \
    }
ATTEND(1)
ATTEND(2)
ATTEND(3)
ATTEND(4)
ATTEND(5)
ATTEND(6)
#if GROUP_ROWS == 12
ATTEND(7)
ATTEND(8)
ATTEND(9)
ATTEND(10)
ATTEND(11)
ATTEND(12)
#endif

static void attention(const struct kv_shape *shape, const void *const pages[ATTN_BLOCK_PAGES],
                      const void *const *next_pages, const float *q, size_t q_stride,
                      const struct attn_span *visible, uint32_t n_q, float scale, struct attn_state *states,
                      float *acc, size_t acc_stride)
{
    static void (*const attend[GROUP_ROWS])(struct group *, struct attn_state *, float *, size_t) = {
        attend_1,
        attend_2,
        attend_3,
        attend_4,
        attend_5,
        attend_6,
#if GROUP_ROWS == 12
        attend_7,
        attend_8,
        attend_9,
        attend_10,
        attend_11,
        attend_12,
#endif
    };
    struct group g;
    g.shape = shape;
    g.pages = pages;
    g.next_pages = next_pages;
    g.k_bytes = kv_k_bytes(shape);
    g.k_scales_at = k_scales_at(shape);
    g.v_scales_at = v_scales_at(shape);
    g.padded = (shape->head_dim + 15) / 16 * 16;
    g.q_stride = q_stride;
    g.scale = scale;
    for (uint32_t i = 0; i < n_q;) {
        uint32_t first = i;
        g.most = 0;
        g.least = ATTN_BLOCK;
        for (; i < n_q && i - first < GROUP_ROWS && visible[i].begin < visible[i].end; i++) {
            g.visible[i - first] = visible[i];
            g.least = visible[i].begin < g.least ? visible[i].begin : g.least;
            g.most = visible[i].end > g.most ? visible[i].end : g.most;
        }
        g.least -= g.least % KV_PAGE;
        g.q = q + first * q_stride;
        if (i > first)
            attend[i - first - 1](&g, states + first, acc + first * acc_stride, acc_stride);
        else
            i++; /* a row that sees nothing */
    }
}

static void attention_merge(struct attn_state *state, float *acc, const struct attn_state *later,
                            const float *later_acc, uint32_t n)
{
    attention_merge_plain(state, acc, later, later_acc, n);
}

static void attention_finish(const struct attn_state *state, const float *acc, uint32_t n, float *out)
{
    vector16 scale = v_set(1.0f / state->l);
    for (uint32_t i = 0; i < n; i += 16)
        v_store_n(out + i, v_mul(v_load_n(acc + i, n - i), scale), n - i);
}

static void kv_store(const struct kv_shape *shape, void *block, uint32_t slot, const float *k, const float *v)
{
    uint32_t padded = (shape->head_dim + 15) / 16 * 16;
    uint8_t *bytes = block;
    int16_t whole[KV_HEAD_DIM_MAX];
    struct act_scale scale = find_scale(v, shape->head_dim, VALUE_STEPS);
    round_values(v, shape->head_dim, scale.inverse, whole);
    kv_scatter_v((int16_t *)(bytes + kv_k_bytes(shape)), slot, whole, padded);
    ((float *)(bytes + v_scales_at(shape)))[slot] = scale.d;
    if (shape->k_f32) {
        for (uint32_t i = 0; i < shape->head_dim; i++)
            ((float *)block)[i * KV_PAGE + slot] = k[i];
        return;
    }
    scale = find_scale(k, shape->head_dim, KEY_STEPS);
    round_values(k, shape->head_dim, scale.inverse, whole);
    ((float *)(bytes + k_scales_at(shape)))[slot] = scale.d;
    kv_scatter_k(block, slot, whole, shape->head_dim);
}

static void fill_attention(struct kernels *kernels)
{
    kernels->attention = attention;
    kernels->attention_merge = attention_merge;
    kernels->attention_finish = attention_finish;
    kernels->kv_store = kv_store;
}
