/* avx2_matmul_q5k.c: products of Q5_K for AVX2; built like avx2_matmul.c. Owns nothing; any thread. */
#include "kernels/x86/avx2_vectors.h"

/* Group g of a sub-block, 8 rows. */
INLINE __m256i group_of(const uint8_t *nibbles, __m256i bits, int odd, int g)
{
    const int place = odd ? 0 : 4; /* where bit g of a byte has to go */
    __m256i w = load(nibbles + 64 * g);
    w = _mm256_and_si256(odd ? _mm256_srli_epi16(w, 3) : w, _mm256_set1_epi8(odd ? 0x1e : 0x0f));
    if (g > place)
        bits = _mm256_srli_epi16(bits, g - place);
    if (g < place)
        bits = _mm256_slli_epi16(bits, place - g);
    return _mm256_or_si256(w, _mm256_and_si256(bits, _mm256_set1_epi8((char)(1 << place))));
}

/* One block of 8 rows of a tile. */
INLINE void q5k_block(const uint8_t *block, int half, const uint8_t *act, size_t stride, const int m,
                      __m256 *sums)
{
    struct q4k_scales s;
    __m256i isum[ROWS_AT_ONCE], dot[ROWS_AT_ONCE];
    q4k_unpack_scales(block + Q4K_SCALES + 32 * half, &s);
    UNROLL
    for (int i = 0; i < m; i++)
        isum[i] = _mm256_setzero_si256();
    for (int sub = 0; sub < 8; sub++) {
        const uint8_t *nibbles = block + Q4K_NIBBLES + 256 * (sub & ~1) + 32 * half, *q = act + 32 * sub;
        __m256i bits = load(block + Q5K_BITS + 64 * sub + 32 * half);
        UNROLL
        for (int g = 0; g < 8; g++) { /* 16 bits hold 4 groups: 4 * 2 * 31 * 128 = 31744 */
            __m256i w = sub % 2 ? group_of(nibbles, bits, 1, g) : group_of(nibbles, bits, 0, g);
            UNROLL
            for (int i = 0; i < m; i++) {
                __m256i products = _mm256_maddubs_epi16(w, broadcast(q + (size_t)i * stride + 4 * g));
                dot[i] = g % 4 == 0 ? products : _mm256_add_epi16(dot[i], products);
                if (g % 4 == 3)
                    isum[i] = _mm256_add_epi32(isum[i], _mm256_madd_epi16(dot[i], s.scale[sub]));
            }
        }
    }
    __m256 d = load_8_f16(block + 16 * half), dmin = load_8_f16(block + Q4K_DMIN + 16 * half);
    UNROLL
    for (int i = 0; i < m; i++) {
        const struct act_q8_256 *a = (const struct act_q8_256 *)(act + (size_t)i * stride);
        __m256i msum = _mm256_setzero_si256();
        UNROLL
        for (int j = 0; j < 4; j++)
            msum = _mm256_add_epi32(msum, _mm256_madd_epi16(s.min_pairs[j], broadcast(&a->sum32[2 * j])));
        __m256 d_act = _mm256_set1_ps(a->d);
        sums[i] = _mm256_fmadd_ps(_mm256_mul_ps(d, d_act), _mm256_cvtepi32_ps(isum[i]), sums[i]);
        sums[i] = _mm256_fnmadd_ps(_mm256_mul_ps(dmin, d_act), _mm256_cvtepi32_ps(msum), sums[i]);
    }
}

INLINE void q5k_rows(const struct product *p, uint32_t tile, uint32_t row, const int m)
{
    const uint8_t *block = product_tile(p, tile);
    const uint8_t *act = p->acts + row * p->act_stride;
    tile_sums sums;
    clear_sums(sums);
    for (uint32_t b = 0; b < p->n_blocks; b++, block += Q5K_BLOCK_BYTES, act += sizeof(struct act_q8_256)) {
        for (int i = 0; i < Q5K_BLOCK_BYTES; i += 64)
            fetch_ahead(block + i);
        for (int half = 0; half < 2; half++)
            q5k_block(block, half, act, p->act_stride, m, sums[half]);
    }
    store_sums(p, tile, row, m, sums);
}

ROWS_FUNCTIONS(q5k, q5k_rows)

#include "kernels/x86/matmul_body.h"

MATMUL_ENTRY(matmul_q5_k, ACT_BLOCK, q5k)

void avx2_fill_matmul_q5k(struct kernels *kernels)
{
    kernels->matmul[TILE_Q5_K] = matmul_q5_k;
}
