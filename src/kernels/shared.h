/* shared.h: plain C that every instruction set uses, each compiling its own copy. Private to src/kernels.
 *
 * What is written here with fmaf is written in ref.c and the folders of machines (x86/) with the same operations in the
 * same order, so that they agree bit for bit. Owns nothing; any thread. */
#ifndef RUNNEL_KERNELS_SHARED_H
#define RUNNEL_KERNELS_SHARED_H

#include "kernels/ops.h"

#include <math.h>
#include <string.h>

/* exp(x) = 2^n * exp(r), n = x / ln 2 rounded, |r| <= ln 2 / 2; the polynomial is that of the Cephes
 * library's expf (S. Moshier), relative error below 2e-7. x is clamped to [-87, 88], NaN stays NaN, exp(0) is
 * exactly 1. Adding EXP_ROUND rounds to a whole number and leaves it in the low bits. */
#define EXP_LOW   (-87.0f)
#define EXP_HIGH  88.0f
#define EXP_LOG2E 1.44269504f
#define EXP_ROUND 12582912.0f /* 1.5 * 2^23 */
#define EXP_LN2_A 0.693359375f
#define EXP_LN2_B (-2.12194440e-4f)
#define EXP_P0    1.9875691500e-4f
#define EXP_P1    1.3981999507e-3f
#define EXP_P2    8.3334519073e-3f
#define EXP_P3    4.1665795894e-2f
#define EXP_P4    1.6666665459e-1f
#define EXP_P5    5.0000001201e-1f

static inline float exp_f32(float x)
{
    x = x < EXP_LOW ? EXP_LOW : x;
    x = x > EXP_HIGH ? EXP_HIGH : x;
    float t = fmaf(x, EXP_LOG2E, EXP_ROUND);
    float n = t - EXP_ROUND;
    float r = fmaf(n, -EXP_LN2_A, x);
    r = fmaf(n, -EXP_LN2_B, r);
    float p = fmaf(EXP_P0, r, EXP_P1);
    p = fmaf(p, r, EXP_P2);
    p = fmaf(p, r, EXP_P3);
    p = fmaf(p, r, EXP_P4);
    p = fmaf(p, r, EXP_P5);
    p = fmaf(p, r * r, r) + 1.0f;
    uint32_t bits;
    memcpy(&bits, &t, sizeof bits);
    bits = (bits << 23) + 0x3f800000u;
    float power;
    memcpy(&power, &bits, sizeof power);
    return p * power;
}

/* x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))) / 2 = x / (1 + exp(-x (GELU_ONE + GELU_SQUARE x^2))). */
#define GELU_ONE    1.59576912f
#define GELU_SQUARE 0.0713548163f

/* Adds n lanes (a power of two) in the one order: halves onto halves. */
static inline float sum_lanes(float *lanes, int n)
{
    for (int half = n / 2; half > 0; half /= 2)
        for (int i = 0; i < half; i++)
            lanes[i] += lanes[i + half];
    return lanes[0];
}

/* Scales of a block of activations. largest: the bits of max |x|. Inputs below 1e-27 count as zero: then
 * 127 / x is finite, and d times a weight's scale is never denormal, so that a kernel may use weights 2^n times
 * too large, scales 2^n times too small, and still give the same bits. */
struct act_scale {
    float d, inverse; /* x = d * q, q = x * inverse rounded; inverse 0: all q are zero */
};

static inline struct act_scale act_scale_of(uint32_t largest_bits)
{
    float largest;
    memcpy(&largest, &largest_bits, sizeof largest);
    if (largest_bits >= 0x7f800000u) /* infinite or NaN */
        return (struct act_scale){NAN, 0.0f};
    if (largest < 1e-27f)
        return (struct act_scale){0.0f, 0.0f};
    return (struct act_scale){largest / 127.0f, 127.0f / largest};
}

/* Attention in whole numbers: queries, keys, exponentials and values are rounded to so many steps of the
 * largest of a row, and the sums of SCORE_CHUNK and VALUE_CHUNK products fit 32 bits: they are exact. */
enum {
    QUERY_STEPS = 4095,
    KEY_STEPS = 4095,
    SCORE_CHUNK = 128, /* dimensions */
    WEIGHT_STEPS = 16383,
    VALUE_STEPS = 4095,
    VALUE_CHUNK = KV_PAGE, /* positions */
};
_Static_assert((int64_t)QUERY_STEPS *KEY_STEPS *SCORE_CHUNK <= INT32_MAX, "scores fit");
_Static_assert((int64_t)WEIGHT_STEPS *VALUE_STEPS *VALUE_CHUNK <= INT32_MAX, "values fit");

/* x = d * whole number, up to `steps` of them. Likewise, inputs below 1e-30 count as zero. */
static inline struct act_scale whole_scale_of(uint32_t largest_bits, int steps)
{
    float largest;
    memcpy(&largest, &largest_bits, sizeof largest);
    if (largest_bits >= 0x7f800000u)
        return (struct act_scale){NAN, 0.0f};
    if (largest < 1e-30f)
        return (struct act_scale){0.0f, 0.0f};
    return (struct act_scale){largest / (float)steps, (float)steps / largest};
}

/* Where things lie in a KV block (ops.h), in units of what is there. */
static inline size_t k_at(uint32_t dimension, uint32_t slot)
{
    return (size_t)(dimension / 2) * 2 * KV_PAGE + 2 * slot + dimension % 2;
}

static inline size_t v_at(uint32_t dimension, uint32_t slot)
{
    return (size_t)(dimension / 16) * 16 * KV_PAGE + slot / 2 * 32 + dimension % 16 * 2 + slot % 2;
}

static inline size_t k_scales_at(const struct kv_shape *shape)
{
    return kv_k_bytes(shape) - KV_PAGE * sizeof(float);
}

static inline size_t v_scales_at(const struct kv_shape *shape)
{
    return kv_block_bytes(shape) - KV_PAGE * sizeof(float);
}

/* Writes a position into a block. k, v: whole numbers, v padded with zeros to `padded` dimensions. Single
 * stores of 2 bytes: other threads write to the positions beside it. */
static inline void kv_scatter_k(int16_t *block, uint32_t slot, const int16_t *k, uint32_t head_dim)
{
    for (uint32_t i = 0; i < head_dim; i += 2)
        memcpy(block + k_at(i, slot), k + i, 2 * sizeof *k);
}

static inline void kv_scatter_v(int16_t *block, uint32_t slot, const int16_t *v, uint32_t padded)
{
    for (uint32_t i = 0; i < padded; i += 16, block += 16 * KV_PAGE)
        for (uint32_t j = 0; j < 16; j++)
            block[v_at(j, slot)] = v[i + j];
}

/* How a later partial joins a state: acc = keep * acc + take * later. */
enum merge_case { MERGE_NOTHING, MERGE_COPY, MERGE_BOTH };

static inline bool attn_state_is_empty(const struct attn_state *state)
{
    return state->m == -INFINITY && state->l == 0.0f;
}

static inline enum merge_case merge_states(struct attn_state *state, const struct attn_state *later,
                                           float *keep, float *take)
{
    *keep = *take = 1.0f;
    if (attn_state_is_empty(later))
        return MERGE_NOTHING;
    if (attn_state_is_empty(state)) {
        *state = *later;
        return MERGE_COPY;
    }
    float m = state->m > later->m ? state->m : later->m;
    *keep = exp_f32(state->m - m);
    *take = exp_f32(later->m - m);
    state->m = m;
    state->l = fmaf(state->l, *keep, later->l * *take);
    return MERGE_BOTH;
}

static inline void merge_values(enum merge_case merge_case, float *acc, const float *later, uint32_t n,
                                float keep, float take)
{
    if (merge_case == MERGE_COPY)
        memcpy(acc, later, n * sizeof *acc);
    else if (merge_case == MERGE_BOTH)
        for (uint32_t i = 0; i < n; i++)
            acc[i] = fmaf(acc[i], keep, later[i] * take);
}

/* One output of a product: the bias comes after the sum, the old value after the bias. */
static inline void store_output(float *out, float sum, const float *bias, bool add)
{
    if (bias)
        sum += *bias;
    *out = add ? sum + *out : sum;
}

/* x' = x cos - y sin, y' = x sin + y cos: the second product of each is rounded, then the first one fused
 * onto it. */
static inline void rotate_pair(float *x, float *y, float cosine, float sine)
{
    float old_x = *x, old_y = *y;
    *x = fmaf(old_x, cosine, -(old_y * sine));
    *y = fmaf(old_x, sine, old_y * cosine);
}

static inline void rope_plain(float *x, uint32_t n_heads, uint32_t head_dim, uint32_t n_rot,
                              const float *cosine, const float *sine, bool interleaved)
{
    uint32_t half = n_rot / 2;
    for (uint32_t head = 0; head < n_heads; head++, x += head_dim)
        for (uint32_t i = 0; i < half; i++)
            if (interleaved)
                rotate_pair(x + 2 * i, x + 2 * i + 1, cosine[i], sine[i]);
            else
                rotate_pair(x + i, x + half + i, cosine[i], sine[i]);
}

static inline void attention_merge_plain(struct attn_state *state, float *acc, const struct attn_state *later,
                                         const float *later_acc, uint32_t n)
{
    float keep, take;
    enum merge_case merge_case = merge_states(state, later, &keep, &take);
    merge_values(merge_case, acc, later_acc, n, keep, take);
}

/* Inputs as they are, zeros up to a whole block. */
static inline void quantize_f32_plain(const float *x, uint32_t n, void *row)
{
    memcpy(row, x, n * sizeof *x);
    memset((float *)row + n, 0, act_row_bytes(ACT_F32, n) - n * sizeof *x);
}

#endif
