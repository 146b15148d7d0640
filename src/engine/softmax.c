/* softmax.c: see softmax.h. Vectors are written out, as this is most of a draw's time, and so that all machines compute
 * the same: products and sums are rounded one by one. */
#include "engine/softmax.h"

#include <math.h>
#include <string.h>

/* A 53-bit uniform number times a sum cannot reach weights that all together are less than 2^-53 of it: below
 * this scaled distance from the likeliest token, n_vocab of them are (for vocabularies up to 2^22). */
#define NEGLIGIBLE (-52.0f)

enum { LANES = 4 };

typedef float lanes __attribute__((vector_size(LANES * sizeof(float))));
typedef int32_t int_lanes __attribute__((vector_size(LANES * sizeof(int32_t))));

struct softmax_scale softmax_scale_of(float max, float temperature)
{
    /* Bounded, so that 0 * inverse is 0 at temperatures next to 0. */
    return (struct softmax_scale){max, fminf(1 / temperature, 1e30f)};
}

/* LANES weights; NEGLIGIBLE ones are 0: exp(x) = 2^n * exp(r), n = round(x / ln 2), r = x - n ln 2 (ln 2 in two parts),
 * exp(r) by its Taylor series: |r| <= 0.35 leaves an error of 5e-9. */
static inline lanes exp_weights(lanes logits, struct softmax_scale scale)
{
    static const float ROUND = 0x1.8p23f; /* adding and subtracting it rounds to whole numbers */
    lanes x = (logits - scale.max) * scale.inverse_temperature;
    int_lanes counts = x >= NEGLIGIBLE;
    x = (lanes)((int_lanes)x & counts);
    lanes n = x * 0x1.715476p0f + ROUND - ROUND;
    lanes r = x - n * 0x1.62e4p-1f - n * 0x1.7f7d1cp-20f;
    lanes e = r * (1.0f / 5040) + 1.0f / 720;
    e = e * r + 1.0f / 120;
    e = e * r + 1.0f / 24;
    e = e * r + 1.0f / 6;
    e = e * r + 0.5f;
    e = e * r + 1.0f;
    e = e * r + 1.0f;
    lanes power = (lanes)((__builtin_convertvector(n, int_lanes) + 127) << 23);
    return (lanes)((int_lanes)(e * power) & counts);
}

static float exp_weight(float logit, struct softmax_scale scale)
{
    return exp_weights((lanes){logit, logit, logit, logit}, scale)[0];
}

void softmax_weigh(const float *logits, uint32_t n, struct softmax_scale scale, float *weights)
{
    uint32_t i = 0;
    for (; n - i >= LANES; i += LANES) {
        lanes x;
        memcpy(&x, logits + i, sizeof x);
        x = exp_weights(x, scale);
        memcpy(weights + i, &x, sizeof x);
    }
    for (; i < n; i++)
        weights[i] = exp_weight(logits[i], scale);
}

float softmax_sum_block(const float weights[LOGIT_BLOCK])
{
    lanes sums[16 / LANES] = {{0}};
    for (uint32_t i = 0; i < LOGIT_BLOCK; i += 16)
        for (uint32_t j = 0; j < 16 / LANES; j++) {
            lanes w;
            memcpy(&w, weights + i + LANES * j, sizeof w);
            sums[j] += w;
        }
    lanes four = (sums[0] + sums[2]) + (sums[1] + sums[3]);
    return (four[0] + four[2]) + (four[1] + four[3]);
}

double softmax_sum(const float *logits, uint32_t n_vocab, struct softmax_scale scale)
{
    float weights[LOGIT_BLOCK];
    double sum = 0;
    for (uint32_t begin = 0; begin < n_vocab; begin += LOGIT_BLOCK) {
        uint32_t n = n_vocab - begin < LOGIT_BLOCK ? n_vocab - begin : LOGIT_BLOCK;
        softmax_weigh(logits + begin, n, scale, weights);
        memset(weights + n, 0, (LOGIT_BLOCK - n) * sizeof *weights);
        sum += (double)softmax_sum_block(weights);
    }
    return sum;
}
