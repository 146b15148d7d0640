/* avx512.c: the table for CPUs with AVX-512 VNNI, and its smaller functions. Same operations in the same
 * order as ref.c, 16 lanes at a time. Owns nothing; any thread. */
#include "kernels/avx512.h"

INLINE __m512 scaled(const float *x, __mmask16 mask, __m512 inverse)
{
    return _mm512_mul_ps(_mm512_maskz_loadu_ps(mask, x), inverse);
}

/* Bits of the largest |x| of n values: whole numbers order as the floats do, and NaN comes out largest. */
INLINE uint32_t largest_bits(const float *x, uint32_t n)
{
    __m512i largest = _mm512_setzero_si512();
    for (uint32_t i = 0; i < n; i += 16) {
        __m512i bits = _mm512_castps_si512(_mm512_maskz_loadu_ps(first_lanes(n - i), x + i));
        largest = _mm512_max_epu32(largest, _mm512_and_si512(bits, _mm512_set1_epi32(0x7fffffff)));
    }
    return _mm512_reduce_max_epu32(largest);
}

/* Quantises 16 values (those past n are zero) and returns their sum. */
INLINE int quantize_16(const float *x, uint32_t n, float inverse, int8_t *q)
{
    __m512i whole = _mm512_setzero_si512();
    if (inverse != 0.0f)
        whole = _mm512_cvtps_epi32(scaled(x, first_lanes(n), _mm512_set1_ps(inverse)));
    _mm_storeu_si128((__m128i *)q, _mm512_cvtepi32_epi8(whole));
    return _mm512_reduce_add_epi32(whole);
}

static void quantize_q8_256(const float *x, uint32_t n, void *row)
{
    struct act_q8_256 *block = row;
    for (uint32_t begin = 0; begin < n; begin += ACT_BLOCK, block++) {
        uint32_t n_here = n - begin < ACT_BLOCK ? n - begin : ACT_BLOCK;
        struct act_scale scale = act_scale_of(largest_bits(x + begin, n_here));
        for (uint32_t i = 0; i < 16; i++) {
            uint32_t n_left = 16 * i < n_here ? n_here - 16 * i : 0;
            block->sum16[i] =
                (int16_t)quantize_16(x + begin + 16 * i, n_left, scale.inverse, block->q + 16 * i);
        }
        for (int i = 0; i < 8; i++)
            block->sum32[i] = (int16_t)(block->sum16[2 * i] + block->sum16[2 * i + 1]);
        block->d = scale.d;
        memset(block->padding, 0, sizeof block->padding);
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
            block->sum32[i] = (int16_t)sum;
            block->d[i] = scale.d;
        }
    }
}

static void rms_norm(const float *x, const float *weight, uint32_t n, float epsilon, float *out)
{
    __m512 lanes = _mm512_setzero_ps();
    for (uint32_t i = 0; i < n; i += 16) {
        __m512 v = _mm512_maskz_loadu_ps(first_lanes(n - i), x + i);
        lanes = _mm512_fmadd_ps(v, v, lanes);
    }
    __m512 scale = _mm512_set1_ps(1.0f / sqrtf(sum_vector(lanes) / (float)n + epsilon));
    for (uint32_t i = 0; i < n; i += 16) {
        __mmask16 mask = first_lanes(n - i);
        _mm512_mask_storeu_ps(
            out + i, mask,
            _mm512_mul_ps(scaled(x + i, mask, scale), _mm512_maskz_loadu_ps(mask, weight + i)));
    }
}

static void silu_mul(const float *gate, const float *up, uint32_t n, float *out)
{
    const __m512 one = _mm512_set1_ps(1.0f), sign = _mm512_set1_ps(-0.0f);
    for (uint32_t i = 0; i < n; i += 16) {
        __mmask16 mask = first_lanes(n - i);
        __m512 x = _mm512_maskz_loadu_ps(mask, gate + i);
        __m512 silu = _mm512_div_ps(x, _mm512_add_ps(one, exp_vector(_mm512_xor_ps(x, sign))));
        _mm512_mask_storeu_ps(out + i, mask, _mm512_mul_ps(silu, _mm512_maskz_loadu_ps(mask, up + i)));
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
            __mmask16 mask = first_lanes(half - i);
            __m512 a = _mm512_maskz_loadu_ps(mask, x + i), b = _mm512_maskz_loadu_ps(mask, x + half + i);
            __m512 c = _mm512_maskz_loadu_ps(mask, cosine + i), s = _mm512_maskz_loadu_ps(mask, sine + i);
            _mm512_mask_storeu_ps(x + i, mask, _mm512_fmsub_ps(a, c, _mm512_mul_ps(b, s)));
            _mm512_mask_storeu_ps(x + half + i, mask, _mm512_fmadd_ps(a, s, _mm512_mul_ps(b, c)));
        }
}

bool kernels_fill_avx512(struct kernels *kernels)
{
    if (!cpu_has_avx512())
        return false;
    kernels->name = "avx512";
    kernels->quantize[ACT_Q8_256] = quantize_q8_256;
    kernels->quantize[ACT_Q8_32] = quantize_q8_32;
    kernels->rms_norm = rms_norm;
    kernels->rope = rope;
    kernels->silu_mul = silu_mul;
    avx512_fill_matmul(kernels);
    avx512_fill_attention(kernels);
    return true;
}
