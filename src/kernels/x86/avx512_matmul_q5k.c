/* avx512_matmul_q5k.c: products of Q5_K for AVX-512 VNNI; built like avx512_matmul.c. Owns nothing; any thread.
 *
 * Values of odd sub-blocks are used where they lie, 8 times too large, which the scales of even ones even out. */
#include "kernels/x86/avx512_vectors.h"

/* isum: 8 times the scaled sums of a block. */
INLINE void q5k_block(const uint8_t *block, const uint8_t *const acts[], size_t at,
                      const struct q4k_scales *s, const int m, __m512i *isum)
{
    UNROLL
    for (int i = 0; i < m; i++)
        isum[i] = _mm512_setzero_si512();
    for (int p = 0; p < 4; p++) {
        const uint8_t *nibbles = block + Q4K_NIBBLES + 512 * p;
        UNROLL
        for (int i = 0; i < 11; i++) {
            const uint8_t *line = block + 704 * p + 64 * i;
            if (m <= 2)
                fetch_in_order(line, 8);
            else
                fetch_ahead(line);
        }
        UNROLL
        for (int odd = 0; odd < 2; odd++) {
            __m512i dot[ROWS_AT_ONCE], bits = load(block + Q5K_BITS + 128 * p + 64 * odd);
            __m512i scale = odd ? _mm512_srli_epi32(s->scale_pairs[p], 16)
                                : _mm512_srli_epi32(_mm512_slli_epi32(s->scale_pairs[p], 16), 13);
            UNROLL
            for (int i = 0; i < m; i++)
                dot[i] = _mm512_setzero_si512();
            UNROLL
            for (int g = 0; g < 8; g++) {
                __m512i w = q5k_group(nibbles, bits, odd, g);
                UNROLL
                for (int i = 0; i < m; i++)
                    dot[i] = dot4(dot[i], w, acts[i] + at + 64 * (size_t)p + 32 * odd + 4 * g);
            }
            UNROLL
            for (int i = 0; i < m; i++)
                isum[i] = _mm512_add_epi32(isum[i], _mm512_mullo_epi32(dot[i], scale));
        }
    }
}

INLINE void q5k_rows(const struct product *p, uint32_t tile, uint32_t row, const int m)
{
    const uint8_t *block = product_tile(p, tile), *acts[ROWS_AT_ONCE];
    __m512 sums[ROWS_AT_ONCE];
    UNROLL
    for (int i = 0; i < m; i++) {
        sums[i] = _mm512_setzero_ps();
        acts[i] = p->acts + (row + (uint32_t)i) * p->act_stride;
        KEEP_IN_REGISTER(acts[i]);
    }
    for (uint32_t b = 0; b < p->n_blocks; b++, block += Q5K_BLOCK_BYTES) {
        const size_t at = b * sizeof(struct act_q8_256);
        struct q4k_scales s;
        __m512i isum[ROWS_AT_ONCE];
        q4k_unpack_scales(block, &s);
        q5k_block(block, acts, at, &s, m, isum);
        __m512 d = load_f16(block), dmin = load_f16(block + Q4K_DMIN);
        UNROLL
        for (int i = 0; i < m; i++) {
            const struct act_q8_256 *a = (const struct act_q8_256 *)(acts[i] + at);
            __m512i msum = _mm512_setzero_si512();
            UNROLL
            for (int j = 0; j < 4; j++)
                msum = _mm512_dpwssd_epi32(msum, s.min_pairs[j], broadcast(&a->sum32[2 * j]));
            __m512 d_act = _mm512_set1_ps(a->d);
            __m512 isum_f32 = _mm512_cvtepi32_ps(_mm512_srai_epi32(isum[i], 3));
            sums[i] = _mm512_fmadd_ps(_mm512_mul_ps(d, d_act), isum_f32, sums[i]);
            sums[i] = _mm512_fnmadd_ps(_mm512_mul_ps(dmin, d_act), _mm512_cvtepi32_ps(msum), sums[i]);
        }
    }
    store_sums(p, tile, row, m, sums);
}

ROWS_FUNCTIONS(q5k, q5k_rows)

#include "kernels/x86/matmul_body.h"

MATMUL_FUNCTION(avx512_matmul_q5_k, ACT_BLOCK, q5k)

void avx512_fill_matmul_q5k(struct kernels *kernels)
{
    kernels->matmul[TILE_Q5_K] = avx512_matmul_q5_k;
}
