/* ref.c: the kernels in plain C. They run anywhere and say what the other instruction sets must compute;
 * clear first, fast second. Owns nothing; any thread. */
#include "kernels/levels.h"
#include "kernels/shared.h"

/* Activations. */

static uint32_t largest_bits(const float *x, uint32_t n)
{
    uint32_t largest = 0;
    for (uint32_t i = 0; i < n; i++) {
        uint32_t bits;
        memcpy(&bits, &x[i], sizeof bits);
        bits &= 0x7fffffffu;
        largest = bits > largest ? bits : largest;
    }
    return largest;
}

/* Quantises n of up to `whole` values; the rest are zero. Returns d. */
static float quantize_values(const float *x, uint32_t n, uint32_t whole, int8_t *q)
{
    struct act_scale scale = act_scale_of(largest_bits(x, n));
    memset(q, 0, whole);
    if (scale.inverse != 0.0f)
        for (uint32_t i = 0; i < n; i++)
            q[i] = (int8_t)rintf(x[i] * scale.inverse);
    return scale.d;
}

static int16_t sum_values(const int8_t *q, int n)
{
    int sum = 0;
    for (int i = 0; i < n; i++)
        sum += q[i];
    return (int16_t)sum;
}

static uint16_t sum_magnitudes(const int8_t *q, int n)
{
    int sum = 0;
    for (int i = 0; i < n; i++)
        sum += q[i] < 0 ? -q[i] : q[i];
    return (uint16_t)sum;
}

static void quantize_q8_256(const float *x, uint32_t n, void *row)
{
    struct act_q8_256 *block = row;
    for (uint32_t begin = 0; begin < n; begin += ACT_BLOCK, block++) {
        uint32_t n_here = n - begin < ACT_BLOCK ? n - begin : ACT_BLOCK;
        memset(block, 0, sizeof *block);
        block->d = quantize_values(x + begin, n_here, ACT_BLOCK, block->q);
        for (int i = 0; i < 16; i++) {
            block->sum16[i] = sum_values(block->q + 16 * i, 16);
            uint16_t magnitudes = sum_magnitudes(block->q + 16 * i, 16);
            block->largest_sum16 = magnitudes > block->largest_sum16 ? magnitudes : block->largest_sum16;
        }
        for (int i = 0; i < 8; i++)
            block->sum32[i] = sum_values(block->q + 32 * i, 32);
    }
}

static void quantize_q8_32(const float *x, uint32_t n, void *row)
{
    struct act_q8_32 *block = row;
    for (uint32_t begin = 0; begin < n; begin += ACT_BLOCK, block++) {
        memset(block, 0, sizeof *block);
        for (uint32_t i = 0; i < 8 && begin + 32 * i < n; i++) {
            uint32_t n_left = n - begin - 32 * i;
            block->d[i] =
                quantize_values(x + begin + 32 * i, n_left < 32 ? n_left : 32, 32, block->q + 32 * i);
            int sum = sum_values(block->q + 32 * i, 32);
            block->d_sum[i] = block->d[i] * (float)sum;
            block->offset[i] = -128 * sum;
        }
    }
}

/* The rest of a layer. */

static void rms_norm(const float *x, const float *weight, uint32_t n, float epsilon, float *out)
{
    float lanes[NORM_LANES] = {0};
    for (uint32_t i = 0; i < n; i++)
        lanes[i % NORM_LANES] = fmaf(x[i], x[i], lanes[i % NORM_LANES]);
    float scale = 1.0f / sqrtf(sum_lanes(lanes, NORM_LANES) / (float)n + epsilon);
    for (uint32_t i = 0; i < n; i++)
        out[i] = x[i] * scale * weight[i];
}

static void rope(float *x, uint32_t n_heads, uint32_t head_dim, uint32_t n_rot, const float *cosine,
                 const float *sine, bool interleaved)
{
    rope_plain(x, n_heads, head_dim, n_rot, cosine, sine, interleaved);
}

static void silu_mul(const float *gate, const float *up, uint32_t n, float *out)
{
    for (uint32_t i = 0; i < n; i++)
        out[i] = gate[i] / (1.0f + exp_f32(-gate[i])) * up[i];
}

static void gelu_mul(const float *gate, const float *up, uint32_t n, float *out)
{
    for (uint32_t i = 0; i < n; i++) {
        float t = fmaf(gate[i] * gate[i], GELU_SQUARE, GELU_ONE);
        out[i] = gate[i] / (1.0f + exp_f32(-(gate[i] * t))) * up[i];
    }
}

/* To whole numbers of up to `steps`. Returns d. */
static float round_to_steps(const float *x, uint32_t n, int steps, int16_t *whole)
{
    struct act_scale scale = whole_scale_of(largest_bits(x, n), steps);
    for (uint32_t i = 0; i < n; i++)
        whole[i] = scale.inverse != 0.0f ? (int16_t)rintf(x[i] * scale.inverse) : 0;
    return scale.d;
}

static void kv_store(const struct kv_shape *shape, void *block, uint32_t slot, const float *k, const float *v)
{
    uint32_t padded = (shape->head_dim + 15) / 16 * 16;
    uint8_t *bytes = block;
    int16_t whole[KV_HEAD_DIM_MAX] = {0};
    float v_scale = round_to_steps(v, shape->head_dim, VALUE_STEPS, whole);
    kv_scatter_v((int16_t *)(bytes + kv_k_bytes(shape)), slot, whole, padded);
    ((float *)(bytes + v_scales_at(shape)))[slot] = v_scale;
    if (shape->k_f32) {
        for (uint32_t i = 0; i < shape->head_dim; i++)
            ((float *)block)[i * KV_PAGE + slot] = k[i];
        return;
    }
    ((float *)(bytes + k_scales_at(shape)))[slot] = round_to_steps(k, shape->head_dim, KEY_STEPS, whole);
    kv_scatter_k(block, slot, whole, shape->head_dim);
}

/* q * k at one position, times scale. */
static float score_f32(const struct kv_shape *shape, const void *page, uint32_t slot, const float *q,
                       float scale)
{
    float dot = 0.0f;
    for (uint32_t i = 0; i < shape->head_dim; i++)
        dot = fmaf(q[i], ((const float *)page)[(size_t)i * KV_PAGE + slot], dot);
    return dot * scale;
}

/* The same in whole numbers: q_scale is what a one of q is worth, times scale. */
static float score_whole(const struct kv_shape *shape, const void *page, uint32_t slot, const int16_t *q,
                         float q_scale)
{
    float dot = 0.0f;
    for (uint32_t begin = 0; begin < shape->head_dim; begin += SCORE_CHUNK) {
        int32_t sum = 0;
        for (uint32_t i = begin; i < shape->head_dim && i < begin + SCORE_CHUNK; i++)
            sum += q[i] * ((const int16_t *)page)[k_at(i, slot)];
        dot += (float)sum;
    }
    float k_scale = ((const float *)((const uint8_t *)page + k_scales_at(shape)))[slot];
    return dot * (q_scale * k_scale);
}

/* weights * V at 16 dimensions from `begin` on; the weights of what is not visible are 0. */
static void add_values(const struct kv_shape *shape, const void *const pages[ATTN_BLOCK_PAGES],
                       const int16_t *weights, struct attn_span visible, uint32_t begin, float values[16])
{
    for (uint32_t page = 0; page * KV_PAGE < visible.end; page++) {
        int32_t sums[16] = {0};
        if (!pages[page])
            continue;
        const int16_t *v = (const int16_t *)((const uint8_t *)pages[page] + kv_k_bytes(shape));
        for (uint32_t slot = 0; slot < KV_PAGE && page * KV_PAGE + slot < visible.end; slot++)
            for (uint32_t j = 0; j < 16; j++)
                sums[j] += weights[page * KV_PAGE + slot] * v[v_at(begin + j, slot)];
        for (uint32_t j = 0; j < 16; j++)
            values[j] += (float)sums[j];
    }
}

/* One query row: the block's partial from scratch, then the merge. Lanes of sums are positions modulo 16. */
static void attend(const struct kv_shape *shape, const void *const pages[ATTN_BLOCK_PAGES], const float *q,
                   struct attn_span visible, float scale, struct attn_state *state, float *acc)
{
    uint32_t padded = (shape->head_dim + 15) / 16 * 16;
    float p[ATTN_BLOCK] = {0}, lanes[16] = {0};
    int16_t q_whole[KV_HEAD_DIM_MAX], weights[ATTN_BLOCK];
    struct attn_state partial = {-INFINITY, 0.0f};
    float q_scale = round_to_steps(q, shape->head_dim, QUERY_STEPS, q_whole) * scale;
    for (uint32_t i = visible.begin; i < visible.end; i++) {
        const void *page = pages[i / KV_PAGE];
        if (!page)
            continue;
        p[i] = shape->k_f32 ? score_f32(shape, page, i % KV_PAGE, q, scale)
                            : score_whole(shape, page, i % KV_PAGE, q_whole, q_scale);
        partial.m = p[i] > partial.m ? p[i] : partial.m;
    }
    for (uint32_t i = visible.begin; i < visible.end; i++) {
        if (!pages[i / KV_PAGE])
            continue;
        const uint8_t *scales = (const uint8_t *)pages[i / KV_PAGE] + v_scales_at(shape);
        p[i] = exp_f32(p[i] - partial.m);
        lanes[i % 16] += p[i];
        p[i] *= ((const float *)scales)[i % KV_PAGE]; /* a value's scale joins its weight */
    }
    partial.l = sum_lanes(lanes, 16);
    float weight_scale = round_to_steps(p, visible.end, WEIGHT_STEPS, weights);

    float keep, take;
    enum merge_case merge_case = merge_states(state, &partial, &keep, &take);
    for (uint32_t begin = 0; begin < padded; begin += 16) {
        float values[16] = {0};
        add_values(shape, pages, weights, visible, begin, values);
        for (uint32_t j = 0; j < 16; j++)
            values[j] *= weight_scale;
        merge_values(merge_case, acc + begin, values, 16, keep, take);
    }
}

static void attention(const struct kv_shape *shape, const void *const pages[ATTN_BLOCK_PAGES],
                      const void *const *next_pages, const float *q, size_t q_stride,
                      const struct attn_span *visible, uint32_t n_q, float scale, struct attn_state *states,
                      float *acc, size_t acc_stride)
{
    (void)next_pages;
    for (uint32_t i = 0; i < n_q; i++)
        if (visible[i].begin < visible[i].end)
            attend(shape, pages, q + i * q_stride, visible[i], scale, &states[i], acc + i * acc_stride);
}

static void attention_merge(struct attn_state *state, float *acc, const struct attn_state *later,
                            const float *later_acc, uint32_t n)
{
    attention_merge_plain(state, acc, later, later_acc, n);
}

static uint64_t int8_peak(void)
{
    enum { N = 64, REPEATS = 100000 };
    uint8_t a[N];
    int8_t b[N];
    memset(a, 1, sizeof a);
    memset(b, 1, sizeof b);
    int32_t sum = 0;
    for (int i = 0; i < REPEATS; i++) {
        for (int j = 0; j < N; j++)
            sum += a[j] * b[j];
        __asm__ volatile("" : "+r"(sum) : "r"(a), "r"(b) : "memory"); /* or a step could be left out */
    }
    return (uint64_t)REPEATS * N;
}

static void attention_finish(const struct attn_state *state, const float *acc, uint32_t n, float *out)
{
    float scale = 1.0f / state->l;
    for (uint32_t i = 0; i < n; i++)
        out[i] = acc[i] * scale;
}

void kernels_fill_ref(struct kernels *kernels)
{
    *kernels = (struct kernels){
        .name = "ref",
        .n_rows_together = 8,
        .n_rows_prompt = 32, /* Zen 4: a row takes the same from 12 rows on, and slightly more past 96 */
        .int8_unit = "plain C",
        .int8_peak = int8_peak,
        .quantize =
            {[ACT_Q8_256] = quantize_q8_256, [ACT_Q8_32] = quantize_q8_32, [ACT_F32] = quantize_f32_plain},
        .rms_norm = rms_norm,
        .rope = rope,
        .silu_mul = silu_mul,
        .gelu_mul = gelu_mul,
        .kv_store = kv_store,
        .attention = attention,
        .attention_merge = attention_merge,
        .attention_finish = attention_finish,
    };
    kernels_fill_ref_products(kernels);
    kernels_fill_ref_encode(kernels);
}
