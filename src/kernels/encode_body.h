/* encode_body.h: the encoders of all types with scales, from the search of encode_search.h and the layouts of encode_pack.h.
 * The including file is compiled for one instruction set and gives the name of the function that it fills in. Private to
 * src/kernels. */
#ifndef RUNNEL_KERNELS_ENCODE_BODY_H
#define RUNNEL_KERNELS_ENCODE_BODY_H

#include "kernels/encode_pack.h"
#include "kernels/encode_search.h"
#include "kernels/quants.h"

#include <string.h>

/* The nearest f16 that is finite and, unless the value is 0, not 0: a block of small values would be lost with its scale. */
static float round_to_f16(float value)
{
    float rounded = f16_to_f32(f32_to_f16(fminf(65504, fmaxf(-65504, value))));
    return rounded == 0 && value != 0 ? copysignf(0x1p-24f, value) : rounded;
}

static float sum_lanes(lanes value, int first, int n)
{
    float sum = 0;
    for (int l = first; l < first + n; l++)
        sum += value[l];
    return sum;
}

/* Weights ------------------------------------------------------------------------------------------------- */

/* What the error of each of n values, a multiple of LANES, weighs; only the proportions matter. A column whose importance is 0
 * weighs a little all the same, or its codes would be anything. Where no importance is known, large values weigh more: in real
 * models they tend to stand in columns with large inputs (measured on SmolLM2-135M). */
static void weigh(const float *x, const float *importance, int n, float *w)
{
    lanes largest_by_lane = lanes_of(0), squares = lanes_of(0), value;
    for (int i = 0; i < n; i += LANES) {
        memcpy(&value, x + i, sizeof value);
        squares += value * value;
        if (importance) {
            memcpy(&value, importance + i, sizeof value);
            largest_by_lane = lanes_higher(largest_by_lane, value);
        }
    }
    float largest = 0;
    for (int l = 0; l < LANES; l++)
        largest = largest_by_lane[l] > largest ? largest_by_lane[l] : largest;
    float per_largest = 1 / largest, deviation = sqrtf(sum_lanes(squares, 0, LANES) / (float)n);
    float per_deviation = deviation > 0 ? 1 / deviation : 0;
    bool known = largest > 0 && per_largest < INFINITY;
    for (int i = 0; i < n; i += LANES) {
        memcpy(&value, (known ? importance : x) + i, sizeof value);
        value = known ? value * per_largest + 1e-5f : lanes_abs(value) * per_deviation + 4;
        memcpy(w + i, &value, sizeof value);
    }
}

/* The lanes from `first` on get sub-blocks of n values. */
static void load_lanes(struct group *group, int first, int n_lanes, int n, const float *x, const float *w)
{
    float *gx = (float *)group->x, *gw = (float *)group->w;
    for (int l = 0; l < n_lanes; l++)
        for (int j = 0; j < n; j++) {
            gx[j * LANES + first + l] = x[l * n + j];
            gw[j * LANES + first + l] = w[l * n + j];
        }
}

/* The index of the code of each value, sub-block after sub-block. */
SEARCH void store_codes(const struct group *group, int first, int n_lanes, int n,
                        const struct code_range range, lanes step, lanes base, uint8_t *codes)
{
    lanes inverse = lanes_inverse(step), shift = base * inverse;
    for (int j = 0; j < n; j++) {
        lanes_mask index =
            __builtin_convertvector(code_index(range, group->x[j] * inverse - shift), lanes_mask);
        for (int l = 0; l < n_lanes; l++)
            codes[l * n + j] = (uint8_t)index[first + l];
    }
}

/* Blocks of 32 with a scale, or a scale and a minimum ----------------------------------------------------- */

static const float shares_4[] = {1.06f, 1.0f, 0.94f, 0.88f, 0.82f, 0.74f};
static const float shares_3[] = {1.1f, 1.0f, 0.92f, 0.85f, 0.78f, 0.7f, 0.62f, 0.54f};
static const float shares_8[] = {1.0039f, 1.0f, 0.996f, 0.992f, 0.988f, 0.984f, 0.98f, 0.976f};
#define N_SHARES(shares) ((int)(sizeof(shares) / sizeof *(shares)))

/* Loads up to 16 blocks; the lanes past the last one repeat nothing: zeros. */
static int load_blocks(struct group *group, const float *x, const float *importance, size_t n_left)
{
    int n_blocks = n_left < LANES * 32 ? (int)(n_left / 32) : LANES;
    float w[32];
    if (n_blocks < LANES)
        memset(group, 0, sizeof *group);
    for (int l = 0; l < n_blocks; l++) {
        weigh(x + 32 * l, importance ? importance + 32 * l : NULL, 32, w);
        load_lanes(group, l, 1, 32, x + 32 * l, w);
    }
    return n_blocks;
}

SEARCH void encode_scaled(const struct code_range range, const float *shares, int n_shares, const float *x,
                          size_t n, const float *importance, uint8_t *out, size_t block_bytes,
                          void (*pack)(uint8_t *, float, const uint8_t *))
{
    struct group group;
    uint8_t codes[LANES * 32];
    for (size_t at = 0; at < n; at += LANES * 32) {
        int n_blocks = load_blocks(&group, x + at, importance ? importance + at : NULL, n - at);
        lanes step = find_step(&group, 32, range, shares, n_shares);
        for (int l = 0; l < n_blocks; l++)
            step[l] = round_to_f16(step[l]);
        store_codes(&group, 0, n_blocks, 32, range, step, lanes_of(0), codes);
        for (int l = 0; l < n_blocks; l++)
            pack(out + (at / 32 + (size_t)l) * block_bytes, step[l], codes + 32 * l);
    }
}

SEARCH void encode_with_minimum(const struct code_range range, const float *shares, int n_shares,
                                const float *x, size_t n, const float *importance, uint8_t *out,
                                size_t block_bytes, void (*pack)(uint8_t *, float, float, const uint8_t *))
{
    struct group group;
    uint8_t codes[LANES * 32];
    for (size_t at = 0; at < n; at += LANES * 32) {
        int n_blocks = load_blocks(&group, x + at, importance ? importance + at : NULL, n - at);
        struct affine found = find_affine(&group, 32, range, false, shares, n_shares);
        for (int l = 0; l < n_blocks; l++) {
            found.step[l] = round_to_f16(found.step[l]);
            found.base[l] = round_to_f16(found.base[l]);
        }
        store_codes(&group, 0, n_blocks, 32, range, found.step, found.base, codes);
        for (int l = 0; l < n_blocks; l++)
            pack(out + (at / 32 + (size_t)l) * block_bytes, found.step[l], found.base[l], codes + 32 * l);
    }
}

/* Blocks of 256 whose sub-blocks have whole-number scales ------------------------------------------------- */

struct scaled_block {
    float d;
    lanes scales;
    float error;
};

/* The best scales near a guess, of both signs, for a given d. */
SEARCH lanes search_scales(const struct group *group, int n, const struct code_range range, float low,
                           float high, float d, lanes guess, int radius, bool both, lanes at_zero,
                           lanes *error)
{
    lanes best = lanes_of(0);
    *error = at_zero;
    for (int k = -radius; k <= radius; k++)
        for (int sign = 0; sign < (both ? 2 : 1); sign++) {
            lanes scale = lanes_between(lanes_of(low), (sign ? -guess : guess) + (float)k, lanes_of(high));
            lanes tried = group_error(group, n, range, scale * d, lanes_of(0));
            lanes_mask better = tried < *error;
            *error = lanes_select(better, tried, *error);
            best = lanes_select(better, scale, best);
        }
    return best;
}

SEARCH struct scaled_block find_scaled_block(const struct group *group, int n, int n_subs,
                                             const struct code_range range, float low, float high,
                                             const float *shares, int n_shares, const float *d_shares,
                                             int n_d_shares, int radius)
{
    lanes step = find_step(group, n, range, shares, n_shares);
    struct sums sums;
    sum_values(group, n, &sums);
    float extreme = 0;
    for (int l = 0; l < n_subs; l++)
        extreme = fabsf(step[l]) > fabsf(extreme) ? step[l] : extreme;
    struct scaled_block best = {.d = 0, .error = sum_lanes(sums.wxx, 0, n_subs)};
    for (int k = 0; k < n_d_shares; k++) {
        float d = round_to_f16(extreme / (low * d_shares[k]));
        for (int round = 0; round < 3 && d != 0; round++) {
            lanes error, guess = round ? best.scales : lanes_nearest(step * (1 / d));
            lanes scales = search_scales(group, n, range, low, high, d, guess, round ? 1 : radius, !round,
                                         sums.wxx, &error);
            float total = sum_lanes(error, 0, n_subs);
            if (total < best.error)
                best = (struct scaled_block){.d = d, .scales = scales, .error = total};
            else if (round)
                break;
            else
                continue;
            sum_codes(group, n, range, lanes_inverse(scales * d), lanes_of(0), &sums);
            float up = sum_lanes(scales * sums.wxq, 0, n_subs),
                  down = sum_lanes(scales * scales * sums.wqq, 0, n_subs);
            d = down > 0 ? round_to_f16(up / down) : 0;
        }
    }
    return best;
}

/* Blocks of 256 whose sub-blocks have whole-number scales and minimums ------------------------------------ */

struct affine_block {
    float d, dmin;
    lanes scales, minimums;
    float error;
};

/* Scales and minimums, and the least error that they left so far. */
struct pairs {
    lanes scales, minimums, error;
};

SEARCH void keep_better(struct pairs *best, lanes scale, lanes minimum, lanes error)
{
    lanes_mask better = error < best->error;
    best->error = lanes_select(better, error, best->error);
    best->scales = lanes_select(better, scale, best->scales);
    best->minimums = lanes_select(better, minimum, best->minimums);
}

/* The best scales and minimums near a guess for given d and dmin, both by lane; of 2 min_radius + 1 minimums, rounded up to
 * threes. The values of a code's middle are kept where they are while the scale changes. */
SEARCH struct pairs search_pairs(const struct group *group, int n, const struct code_range range,
                                 float largest, lanes d, lanes dmin, struct pairs guess, int radius,
                                 int min_radius)
{
    struct pairs best = guess;
    lanes per_dmin = lanes_inverse(dmin);
    best.error = lanes_of(INFINITY);
    for (int k = -radius; k <= radius; k++) {
        lanes scale = lanes_between(lanes_of(1), guess.scales + (float)k, lanes_of(largest));
        lanes middle =
            guess.minimums + lanes_nearest((scale - guess.scales) * d * (range.high * 0.5f) * per_dmin);
        for (int i = -min_radius; i <= min_radius; i += 3) {
            lanes from = middle + (float)i;
            struct lanes_3 minimum = {lanes_between(lanes_of(0), from, lanes_of(largest)),
                                      lanes_between(lanes_of(0), from + 1, lanes_of(largest)),
                                      lanes_between(lanes_of(0), from + 2, lanes_of(largest))};
            struct lanes_3 base = {-(minimum.a * dmin), -(minimum.b * dmin), -(minimum.c * dmin)};
            struct lanes_3 error = group_errors(group, n, range, scale * d, base);
            keep_better(&best, scale, minimum.a, error.a);
            keep_better(&best, scale, minimum.b, error.b);
            keep_better(&best, scale, minimum.c, error.c);
        }
    }
    return best;
}

/* d and dmin of least squares for scales, minimums and the codes that go with them; false: they are not determined. */
static bool solve_block(const struct sums *sums, lanes scales, lanes minimums, int first, int n_subs,
                        float *d, float *dmin)
{
    double a = 0, b = 0, c = 0, u = 0, v = 0; /* a d - b dmin = u, -b d + c dmin = -v */
    for (int l = first; l < first + n_subs; l++) {
        double s = (double)scales[l], m = (double)minimums[l];
        a += s * s * (double)sums->wqq[l];
        b += s * m * (double)sums->wq[l];
        c += m * m * (double)sums->w[l];
        u += s * (double)sums->wxq[l];
        v += m * (double)sums->wx[l];
    }
    double determinant = a * c - b * b;
    if (!(determinant > 1e-9 * a * c))
        return false;
    *d = (float)((u * c - v * b) / determinant);
    *dmin = (float)((u * b - v * a) / determinant);
    return *d > 0 && *dmin >= 0;
}

/* What the search for scales and minimums costs and finds. */
struct affine_effort {
    const float *shares; /* of the width, with which find_affine begins */
    int n_shares, radius, min_radius;
};

/* Blocks of n_subs sub-blocks, one after the other in the lanes. */
SEARCH void find_affine_blocks(const struct group *group, int n, int n_subs, const struct code_range range,
                               float largest, struct affine_effort effort, struct affine_block *best)
{
    struct affine found = find_affine(group, n, range, true, effort.shares, effort.n_shares);
    struct sums sums;
    sum_values(group, n, &sums);
    lanes d = lanes_of(0), dmin = lanes_of(0);
    for (int b = 0; b < LANES / n_subs; b++) {
        float step = 0, base = 0;
        for (int l = b * n_subs; l < (b + 1) * n_subs; l++) {
            step = found.step[l] > step ? found.step[l] : step;
            base = found.base[l] < base ? found.base[l] : base;
        }
        best[b] = (struct affine_block){.error = INFINITY};
        if (step == 0) /* each sub-block holds one value only: a step that is small beside it */
            step = -base;
        for (int l = b * n_subs; l < (b + 1) * n_subs; l++) {
            d[l] = round_to_f16(step / largest);
            dmin[l] = round_to_f16(-base / largest);
        }
    }
    struct pairs pairs = {.scales = lanes_nearest(found.step * lanes_inverse(d)),
                          .minimums = lanes_nearest(-found.base * lanes_inverse(dmin))};
    for (int round = 0; round < 3; round++) {
        pairs = search_pairs(group, n, range, largest, d, dmin, pairs, round ? 1 : effort.radius,
                             round ? 1 : effort.min_radius);
        lanes inverse = lanes_inverse(pairs.scales * d);
        sum_codes(group, n, range, inverse, -(pairs.minimums * dmin) * inverse, &sums);
        for (int b = 0; b < LANES / n_subs; b++) {
            int first = b * n_subs;
            float total = sum_lanes(pairs.error, first, n_subs), new_d, new_dmin;
            if (total < best[b].error)
                best[b] = (struct affine_block){.d = d[first],
                                                .dmin = dmin[first],
                                                .scales = pairs.scales,
                                                .minimums = pairs.minimums,
                                                .error = total};
            if (!solve_block(&sums, pairs.scales, pairs.minimums, first, n_subs, &new_d, &new_dmin))
                continue;
            for (int l = first; l < first + n_subs; l++) {
                d[l] = round_to_f16(new_d);
                dmin[l] = round_to_f16(new_dmin);
            }
        }
    }
}

/* The types ----------------------------------------------------------------------------------------------- */

static const struct code_range range_q8_0 = {-127, 127, NULL};
static const float shares_affine[] = {1.06f, 1.03f, 1.0f, 0.97f, 0.93f, 0.88f, 0.82f};
static const float shares_k4[] = {1.06f, 1.0f, 0.94f, 0.88f, 0.82f};
static const struct affine_effort effort_q45_k = {shares_k4, N_SHARES(shares_k4), 2, 4};
static const struct affine_effort effort_q2_k = {shares_affine, N_SHARES(shares_affine), 3, 5};
static const float shares_6[] = {1.015f, 1.0f, 0.985f, 0.97f, 0.95f};
static const float d_shares[] = {1.0f, 0.95f, 0.9f};

/* Blocks of n_subs sub-blocks of n values with whole-number scales from low to high. */
SEARCH void encode_scaled_k(const struct code_range range, int n, int n_subs, float low, float high,
                            const float *shares, int n_shares, const float *d_parts, int n_d_parts,
                            int radius, const float *x, size_t n_values, const float *importance,
                            uint8_t *out, size_t block_bytes,
                            void (*pack)(uint8_t *, float, const float *, const uint8_t *))
{
    struct group group = {0};
    uint8_t codes[256];
    float w[256];
    for (size_t at = 0; at < n_values; at += 256, out += block_bytes) {
        weigh(x + at, importance ? importance + at : NULL, 256, w);
        load_lanes(&group, 0, n_subs, n, x + at, w);
        struct scaled_block block = find_scaled_block(&group, n, n_subs, range, low, high, shares, n_shares,
                                                      d_parts, n_d_parts, radius);
        store_codes(&group, 0, n_subs, n, range, block.scales * block.d, lanes_of(0), codes);
        pack(out, block.d, (const float *)&block.scales, codes);
    }
}

/* Blocks of n_subs sub-blocks of n values with whole-number scales and minimums up to `largest`; as many blocks at once as
 * have room in the lanes. */
SEARCH void encode_affine_k(const struct code_range range, int n, int n_subs, float largest,
                            struct affine_effort effort, const float *x, size_t n_values,
                            const float *importance, uint8_t *out, size_t block_bytes,
                            void (*pack)(uint8_t *, float, float, const float *, const float *,
                                         const uint8_t *))
{
    struct group group = {0};
    struct affine_block blocks[2];
    uint8_t codes[256];
    float w[256];
    for (size_t at = 0; at < n_values;) {
        int n_blocks = 0;
        for (; n_blocks < LANES / n_subs && at < n_values; n_blocks++, at += 256) {
            weigh(x + at, importance ? importance + at : NULL, 256, w);
            load_lanes(&group, n_blocks * n_subs, n_subs, n, x + at, w);
        }
        find_affine_blocks(&group, n, n_subs, range, largest, effort, blocks);
        for (int b = 0; b < n_blocks; b++, out += block_bytes) {
            const struct affine_block *best = &blocks[b];
            store_codes(&group, b * n_subs, n_subs, n, range, best->scales * best->d,
                        -(best->minimums * best->dmin), codes);
            pack(out, best->d, best->dmin, (const float *)&best->scales + b * n_subs,
                 (const float *)&best->minimums + b * n_subs, codes);
        }
    }
}

static void encode(enum tensor_type type, const float *x, size_t n, const float *importance, void *to)
{
    uint8_t *out = to;
    struct codebook book;
    if (quant_codebook(type))
        codebook_fill(quant_codebook(type), &book);
    switch (type) {
    case TENSOR_Q8_0:
        encode_scaled(range_q8_0, shares_8, N_SHARES(shares_8), x, n, importance, out, 34, encode_pack_q8_0);
        break;
    case TENSOR_Q4_0:
        encode_scaled((struct code_range){-8, 7, NULL}, shares_4, N_SHARES(shares_4), x, n, importance, out,
                      18, encode_pack_q4_0);
        break;
    case TENSOR_Q5_0:
        encode_scaled((struct code_range){-16, 15, NULL}, shares_4, N_SHARES(shares_4), x, n, importance, out,
                      22, encode_pack_q5_0);
        break;
    case TENSOR_IQ4_NL:
        encode_scaled((struct code_range){-127, 113, &book}, shares_4, N_SHARES(shares_4), x, n, importance,
                      out, 18, encode_pack_iq4_nl);
        break;
    case TENSOR_Q4_1:
        encode_with_minimum((struct code_range){0, 15, NULL}, shares_affine, N_SHARES(shares_affine), x, n,
                            importance, out, 20, encode_pack_q4_1);
        break;
    case TENSOR_Q5_1:
        encode_with_minimum((struct code_range){0, 31, NULL}, shares_affine, N_SHARES(shares_affine), x, n,
                            importance, out, 24, encode_pack_q5_1);
        break;
    case TENSOR_Q4_K:
        encode_affine_k((struct code_range){0, 15, NULL}, 32, 8, 63, effort_q45_k, x, n, importance, out, 144,
                        encode_pack_q4_k);
        break;
    case TENSOR_Q5_K:
        encode_affine_k((struct code_range){0, 31, NULL}, 32, 8, 63, effort_q45_k, x, n, importance, out, 176,
                        encode_pack_q5_k);
        break;
    case TENSOR_Q2_K:
        encode_affine_k((struct code_range){0, 3, NULL}, 16, 16, 15, effort_q2_k, x, n, importance, out, 84,
                        encode_pack_q2_k);
        break;
    case TENSOR_Q6_K:
        encode_scaled_k((struct code_range){-32, 31, NULL}, 16, 16, -128, 127, shares_6, N_SHARES(shares_6),
                        d_shares, 1, 4, x, n, importance, out, 210, encode_pack_q6_k);
        break;
    case TENSOR_Q3_K:
        encode_scaled_k((struct code_range){-4, 3, NULL}, 16, 16, -32, 31, shares_3, N_SHARES(shares_3),
                        d_shares, N_SHARES(d_shares), 6, x, n, importance, out, 110, encode_pack_q3_k);
        break;
    case TENSOR_IQ4_XS:
        encode_scaled_k((struct code_range){-127, 113, &book}, 32, 8, -32, 31, shares_4, N_SHARES(shares_4),
                        d_shares, N_SHARES(d_shares), 2, x, n, importance, out, 136, encode_pack_iq4_xs);
        break;
    default:
        break;
    }
}

#endif
