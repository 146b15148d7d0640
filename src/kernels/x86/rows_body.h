/* rows_body.h: what is done to single rows: quantisation, norm, rotation, SiLU and GELU. The body of avx2.c and of
 * avx512.c, each compiled for its own vectors; same operations in the same order as ref.c. */
#include "kernels/x86/vector16.h"

INLINE uint32_t largest_bits(const float *x, uint32_t n)
{
    vector16 largest = v_set(0.0f);
    for (uint32_t i = 0; i < n; i += 16)
        largest = v_max_bits(v_load_n(x + i, n - i), largest);
    return v_largest_bits(largest);
}

/* Quantises 16 values (those past n are zero) and returns their sum. */
INLINE int quantize_16(const float *x, uint32_t n, float inverse, int8_t *q)
{
    vector16 values = v_set(0.0f);
    if (inverse != 0.0f)
        values = v_mul(v_load_n(x, n), v_set(inverse));
    return v_store_i8(q, values);
}

/* The largest sum of |q| over 16 of 256 values: 16 and 16 sums of 8 bytes each. */
static uint16_t largest_sum16(const int8_t *q)
{
    const __m256i zero = _mm256_setzero_si256();
    __m256i largest = zero;
    for (int i = 0; i < ACT_BLOCK; i += 32) {
        __m256i sums = _mm256_sad_epu8(_mm256_abs_epi8(_mm256_loadu_si256((const __m256i *)(q + i))), zero);
        sums = _mm256_add_epi32(sums, _mm256_shuffle_epi32(sums, 0x4e));
        largest = _mm256_max_epi32(largest, sums);
    }
    __m128i two = _mm_max_epi32(_mm256_castsi256_si128(largest), _mm256_extracti128_si256(largest, 1));
    return (uint16_t)_mm_cvtsi128_si32(two);
}

static void quantize_q8_256(const float *x, uint32_t n, void *row)
{
    struct act_q8_256 *block = row;
    for (uint32_t begin = 0; begin < n; begin += ACT_BLOCK, block++) {
        uint32_t n_here = n - begin < ACT_BLOCK ? n - begin : ACT_BLOCK;
        struct act_scale scale = act_scale_of(largest_bits(x + begin, n_here));
        memset(block, 0, sizeof *block);
        for (uint32_t i = 0; 16 * i < n_here; i++)
            block->sum16[i] =
                (int16_t)quantize_16(x + begin + 16 * i, n_here - 16 * i, scale.inverse, block->q + 16 * i);
        for (int i = 0; i < 8; i++)
            block->sum32[i] = (int16_t)(block->sum16[2 * i] + block->sum16[2 * i + 1]);
        block->d = scale.d;
        block->largest_sum16 = largest_sum16(block->q);
    }
}

static void quantize_q8_32(const float *x, uint32_t n, void *row)
{
    struct act_q8_32 *block = row;
    for (uint32_t begin = 0; begin < n; begin += ACT_BLOCK, block++) {
        memset(block, 0, sizeof *block);
        for (uint32_t i = 0; i < 8 && begin + 32 * i < n; i++) {
            const float *x_here = x + begin + 32 * i;
            uint32_t n_here = n - begin - 32 * i < 32 ? n - begin - 32 * i : 32;
            struct act_scale scale = act_scale_of(largest_bits(x_here, n_here));
            int sum = quantize_16(x_here, n_here, scale.inverse, block->q + 32 * i);
            if (n_here > 16)
                sum += quantize_16(x_here + 16, n_here - 16, scale.inverse, block->q + 32 * i + 16);
            block->d[i] = scale.d;
            block->d_sum[i] = scale.d * (float)sum;
            block->offset[i] = -128 * sum;
        }
    }
}

/* In NORM_LANES lanes, added halves onto halves. */
INLINE float sum_of_squares(const float *x, uint32_t n)
{
    vector16 lanes[NORM_LANES / 16];
    uint32_t begin = 0;
    UNROLL
    for (uint32_t j = 0; j < NORM_LANES / 16; j++)
        lanes[j] = v_set(0.0f);
    for (; n - begin >= NORM_LANES; begin += NORM_LANES) {
        UNROLL
        for (uint32_t j = 0; j < NORM_LANES / 16; j++) {
            vector16 v = v_load(x + begin + 16 * j);
            lanes[j] = v_fma(v, v, lanes[j]);
        }
    }
    UNROLL
    for (uint32_t j = 0; j < NORM_LANES / 16; j++)
        if (begin + 16 * j < n) {
            vector16 v = v_load_n(x + begin + 16 * j, n - begin - 16 * j);
            lanes[j] = v_fma(v, v, lanes[j]);
        }
    return v_sum(v_add(v_add(lanes[0], lanes[2]), v_add(lanes[1], lanes[3])));
}
_Static_assert(NORM_LANES == 64, "sum_of_squares adds four vectors");

static void rms_norm(const float *x, const float *weight, uint32_t n, float epsilon, float *out)
{
    vector16 scale = v_set(1.0f / sqrtf(sum_of_squares(x, n) / (float)n + epsilon));
    uint32_t i = 0;
    for (; n - i >= 16; i += 16)
        v_store(out + i, v_mul(v_mul(v_load(x + i), scale), v_load(weight + i)));
    if (i < n)
        v_store_n(out + i, v_mul(v_mul(v_load_n(x + i, n - i), scale), v_load_n(weight + i, n - i)), n - i);
}

static void silu_mul(const float *gate, const float *up, uint32_t n, float *out)
{
    for (uint32_t i = 0; i < n; i += 16) {
        vector16 x = v_load_n(gate + i, n - i);
        vector16 silu = v_div(x, v_add(v_set(1.0f), v_exp(v_negative(x))));
        v_store_n(out + i, v_mul(silu, v_load_n(up + i, n - i)), n - i);
    }
}

static void gelu_mul(const float *gate, const float *up, uint32_t n, float *out)
{
    for (uint32_t i = 0; i < n; i += 16) {
        vector16 x = v_load_n(gate + i, n - i);
        vector16 t = v_fma(v_mul(x, x), v_set(GELU_SQUARE), v_set(GELU_ONE));
        vector16 gelu = v_div(x, v_add(v_set(1.0f), v_exp(v_negative(v_mul(x, t)))));
        v_store_n(out + i, v_mul(gelu, v_load_n(up + i, n - i)), n - i);
    }
}

static void rope(float *x, uint32_t n_heads, uint32_t head_dim, uint32_t n_rot, const float *cosine,
                 const float *sine, bool interleaved)
{
    uint32_t half = n_rot / 2;
    if (interleaved) {
        rope_plain(x, n_heads, head_dim, n_rot, cosine, sine, true);
        return;
    }
    for (uint32_t head = 0; head < n_heads; head++, x += head_dim)
        for (uint32_t i = 0; i < half; i += 16) {
            uint32_t n = half - i;
            vector16 a = v_load_n(x + i, n), b = v_load_n(x + half + i, n);
            vector16 c = v_load_n(cosine + i, n), s = v_load_n(sine + i, n);
            v_store_n(x + i, v_fma(a, c, v_negative(v_mul(b, s))), n);
            v_store_n(x + half + i, v_fma(a, s, v_mul(b, c)), n);
        }
}

static void fill_rows(struct kernels *kernels)
{
    kernels->quantize[ACT_Q8_256] = quantize_q8_256;
    kernels->quantize[ACT_Q8_32] = quantize_q8_32;
    kernels->rms_norm = rms_norm;
    kernels->rope = rope;
    kernels->silu_mul = silu_mul;
    kernels->gelu_mul = gelu_mul;
}
