/* avx512_matmul_iq4xs.c: products of IQ4_XS for AVX-512 VNNI; built like avx512_matmul.c. Owns nothing; any thread.
 *
 * Weights are looked up by their nibbles, 128 too high, so that they are unsigned; what that adds too much is scales times the
 * sums of activations times 128. */
#include "kernels/x86/avx512_vectors.h"

/* isum += the scaled dot products of sub-blocks 2p and 2p+1 with m rows of activations. */
INLINE void add_pair(const uint8_t *nibbles, __m512i listed, __m512i scales, const uint8_t *q, size_t stride,
                     const int m, __m512i *isum)
{
    UNROLL
    for (int odd = 0; odd < 2; odd++) {
        __m512i dot[ROWS_AT_ONCE];
        __m512i scale = _mm512_srai_epi32(odd ? scales : _mm512_slli_epi32(scales, 16), 16);
        UNROLL
        for (int i = 0; i < m; i++)
            dot[i] = _mm512_setzero_si512();
        UNROLL
        for (int g = 0; g < 8; g++) {
            __m512i w = load(nibbles + 64 * g);
            w = _mm512_and_si512(odd ? _mm512_srli_epi16(w, 4) : w, _mm512_set1_epi8(0x0f));
            w = _mm512_shuffle_epi8(listed, w);
            UNROLL
            for (int i = 0; i < m; i++)
                dot[i] = dot4(dot[i], w, q + (size_t)i * stride + 32 * odd + 4 * g);
        }
        UNROLL
        for (int i = 0; i < m; i++)
            isum[i] = _mm512_add_epi32(isum[i], _mm512_mullo_epi32(dot[i], scale));
    }
}

INLINE void iq4xs_rows(const struct product *p, uint32_t tile, uint32_t row, const int m)
{
    const __m512i listed = _mm512_xor_si512(listed_weights(TENSOR_IQ4_XS), _mm512_set1_epi8((char)0x80));
    const uint8_t *d_of_blocks = product_tile(p, tile), *block = d_of_blocks + p->header_bytes;
    const uint8_t *act = p->acts + row * p->act_stride;
    const size_t stride = p->act_stride;
    __m512 sums[ROWS_AT_ONCE];
    UNROLL
    for (int i = 0; i < m; i++)
        sums[i] = _mm512_setzero_ps();
    for (uint32_t b = 0; b < p->n_blocks; b++, block += IQ4XS_BLOCK_BYTES, act += sizeof(struct act_q8_256)) {
        __m512i scales[4], isum[ROWS_AT_ONCE];
        signed_pairs(load(block), scales);
        signed_pairs(load(block + 64), scales + 2);
        UNROLL
        for (int i = 0; i < m; i++)
            isum[i] = _mm512_setzero_si512();
        for (int pair = 0; pair < 4; pair++) {
            UNROLL
            for (int i = 0; i < 9 && m >= 3; i++) /* with fewer rows the hardware does better alone */
                fetch_ahead(block + 576 * pair + 64 * i);
            add_pair(block + IQ4XS_NIBBLES + 512 * pair, listed, scales[pair], act + 64 * pair, stride, m,
                     isum);
        }
        __m512 d = load_f16(d_of_blocks + 32 * (size_t)b);
        UNROLL
        for (int i = 0; i < m; i++) {
            const struct act_q8_256 *a = (const struct act_q8_256 *)(act + (size_t)i * stride);
            __m512i too_much = _mm512_setzero_si512();
            UNROLL
            for (int j = 0; j < 4; j++)
                too_much = _mm512_dpwssd_epi32(too_much, scales[j], broadcast(&a->sum32[2 * j]));
            isum[i] = _mm512_sub_epi32(isum[i], _mm512_slli_epi32(too_much, 7));
            sums[i] =
                _mm512_fmadd_ps(_mm512_mul_ps(d, _mm512_set1_ps(a->d)), _mm512_cvtepi32_ps(isum[i]), sums[i]);
        }
    }
    store_sums(p, tile, row, m, sums);
}

ROWS_FUNCTIONS(iq4xs, iq4xs_rows)

#include "kernels/x86/matmul_body.h"

MATMUL_ENTRY(matmul_iq4_xs, ACT_BLOCK, iq4xs)

void avx512_fill_matmul_iq4xs(struct kernels *kernels)
{
    kernels->matmul[TILE_IQ4_XS] = matmul_iq4_xs;
}
