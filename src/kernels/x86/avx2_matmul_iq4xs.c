/* avx2_matmul_iq4xs.c: products of IQ4_XS for AVX2; built like avx2_matmul.c. Owns nothing; any thread. */
#include "kernels/x86/avx2.h"
#include "kernels/x86/avx2_dots.h"
#include "kernels/x86/matmul_256.h"

/* Adds the scaled dot products of a sub-block with m rows of activations: |w| * (a with w's sign). 2 * 127 * 127 fits 16 bits,
 * one group at a time. scale: twice in each lane. */
INLINE void add_sub_block(const uint8_t *nibbles, const int odd, __m256i listed, __m256i scale,
                          const uint8_t *q, size_t stride, const int m, __m256i *isum)
{
    UNROLL
    for (int g = 0; g < 8; g++) {
        __m256i w = load(nibbles + 64 * g);
        w = _mm256_and_si256(odd ? _mm256_srli_epi16(w, 4) : w, _mm256_set1_epi8(0x0f));
        w = _mm256_shuffle_epi8(listed, w);
        __m256i size = _mm256_abs_epi8(w);
        UNROLL
        for (int i = 0; i < m; i++) {
            __m256i a = broadcast(q + (size_t)i * stride + 4 * g);
            __m256i products = _mm256_maddubs_epi16(size, _mm256_sign_epi8(a, w));
            isum[i] = _mm256_add_epi32(isum[i], _mm256_madd_epi16(products, scale));
        }
    }
}

/* One block of 8 rows of a tile, which block and d start at. */
INLINE void iq4xs_block(const uint8_t *block, const uint8_t *d_of_rows, __m256i listed, const uint8_t *act,
                        size_t stride, const int m, __m256 *sums)
{
    __m256i isum[ROWS_AT_ONCE];
    UNROLL
    for (int i = 0; i < m; i++)
        isum[i] = _mm256_setzero_si256();
    for (int pair = 0; pair < 4; pair++) {
        const uint8_t *nibbles = block + IQ4XS_NIBBLES + 512 * pair, *q = act + 64 * pair;
        __m256i word = load(block + 64 * (pair / 2));
        word = _mm256_srai_epi16(pair % 2 ? word : _mm256_slli_epi16(word, 8), 8); /* both scales of a lane */
        __m256i even = _mm256_blend_epi16(word, _mm256_slli_epi32(word, 16), 0xaa);
        __m256i odd = _mm256_blend_epi16(word, _mm256_srli_epi32(word, 16), 0x55);
        add_sub_block(nibbles, 0, listed, even, q, stride, m, isum);
        add_sub_block(nibbles, 1, listed, odd, q + 32, stride, m, isum);
    }
    __m256 d = load_8_f16(d_of_rows);
    UNROLL
    for (int i = 0; i < m; i++) {
        const struct act_q8_256 *a = (const struct act_q8_256 *)(act + (size_t)i * stride);
        sums[i] =
            _mm256_fmadd_ps(_mm256_mul_ps(d, _mm256_set1_ps(a->d)), _mm256_cvtepi32_ps(isum[i]), sums[i]);
    }
}

INLINE void iq4xs_rows(const struct product *p, uint32_t tile, uint32_t row, const int m)
{
    const __m256i listed = listed_weights(TENSOR_IQ4_XS);
    const uint8_t *d_of_blocks = product_tile(p, tile), *block = d_of_blocks + p->header_bytes;
    const uint8_t *act = p->acts + row * p->act_stride;
    tile_sums sums;
    clear_sums(sums);
    for (uint32_t b = 0; b < p->n_blocks; b++, block += IQ4XS_BLOCK_BYTES, act += sizeof(struct act_q8_256)) {
        for (int i = 0; i < IQ4XS_BLOCK_BYTES; i += 64)
            fetch_ahead(block + i);
        for (int half = 0; half < 2; half++)
            iq4xs_block(block + 32 * half, d_of_blocks + 32 * (size_t)b + 16 * half, listed, act,
                        p->act_stride, m, sums[half]);
    }
    store_sums(p, tile, row, m, sums);
}

ROWS_FUNCTIONS(iq4xs, iq4xs_rows)

#include "kernels/x86/matmul_body.h"

MATMUL_ENTRY(matmul_iq4_xs, ACT_BLOCK, iq4xs)

void avx2_fill_matmul_iq4xs(struct kernels *kernels)
{
    kernels->matmul[TILE_IQ4_XS] = matmul_iq4_xs;
}
