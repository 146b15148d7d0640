/* avx2_matmul_q23k.c: products of Q2_K and Q3_K for AVX2; built like avx2_matmul.c. Owns nothing; any thread.
 *
 * Values of Q3_K are 4 too high, which is as if a sub-block's scale were its min, too. */
#include "kernels/x86/avx2.h"
#include "kernels/x86/avx2_dots.h"
#include "kernels/x86/matmul_256.h"

/* Of the 16 sub-blocks of a block, 8 rows, as 16-bit pairs of sub-blocks 2p and 2p+1. */
struct scales {
    __m256i scale_pairs[8], min_pairs[8];
};

INLINE void q2k_unpack_scales(const uint8_t *words, struct scales *s)
{
    const __m256i four = _mm256_set1_epi8(0x0f);
    UNROLL
    for (int c = 0; c < 4; c++) {
        __m256i word = load(words + 64 * c);
        unsigned_pairs(_mm256_and_si256(word, four), s->scale_pairs + 2 * c);
        unsigned_pairs(_mm256_and_si256(_mm256_srli_epi16(word, 4), four), s->min_pairs + 2 * c);
    }
}

INLINE void q3k_unpack_scales(const uint8_t *words, struct scales *s)
{
    const __m256i four = _mm256_set1_epi8(0x0f), two = _mm256_set1_epi8(0x30);
    __m256i word0 = load(words), word1 = load(words + 64), high = load(words + 128);
    const __m256i low[4] = {word0, word1, _mm256_srli_epi16(word0, 4), _mm256_srli_epi16(word1, 4)};
    const __m256i upper[4] = {_mm256_slli_epi16(high, 4), _mm256_slli_epi16(high, 2), high,
                              _mm256_srli_epi16(high, 2)};
    UNROLL
    for (int c = 0; c < 4; c++) {
        __m256i bytes = _mm256_or_si256(_mm256_and_si256(low[c], four), _mm256_and_si256(upper[c], two));
        bytes = _mm256_sub_epi8(bytes, _mm256_set1_epi8(32));
        signed_pairs(bytes, s->scale_pairs + 2 * c);
    }
}

/* Group j of sub-block 2 * pair + odd, 8 rows. */
INLINE __m256i q2k_group(const uint8_t *block, int pair, int odd, int j)
{
    __m256i w = load(block + Q2K_VALUES + 256 * (pair / 2) + 64 * j);
    const int place = odd ? (pair % 2 ? 4 : 6) : (pair % 2 ? 2 : 0);
    return _mm256_and_si256(place ? _mm256_srli_epi16(w, place) : w, _mm256_set1_epi8(0x03));
}

INLINE __m256i q3k_group(const uint8_t *block, int pair, int odd, int j)
{
    const uint8_t *a = block + Q3K_VALUES + Q3K_PAIR_BYTES * pair, *b = a + 64, *c = a + 128;
    if (j < 3) {
        __m256i w = load(a + 64 * j);
        return _mm256_and_si256(odd ? _mm256_srli_epi16(w, 5) : w, _mm256_set1_epi8(0x07));
    }
    __m256i two = odd ? _mm256_srli_epi16(load(a), 2) : _mm256_srli_epi16(load(c), 3);
    __m256i one = _mm256_srli_epi16(load(b), odd ? 3 : 2);
    return _mm256_or_si256(_mm256_and_si256(two, _mm256_set1_epi8(odd ? 0x06 : 0x03)),
                           _mm256_and_si256(one, _mm256_set1_epi8(odd ? 0x01 : 0x04)));
}

/* Adds the scaled dot products of sub-block 2 * pair + odd with m rows of activations. */
INLINE void add_sub_block(const uint8_t *block, int pair, const int odd, __m256i scale, const uint8_t *q,
                          size_t stride, const int m, const int bits, __m256i *isum)
{
    __m256i dot[ROWS_AT_ONCE];
    UNROLL
    for (int j = 0; j < 4; j++) { /* 16 bits hold all 4 groups: 4 * 2 * 7 * 128 = 7168 */
        __m256i w = bits == 3 ? q3k_group(block, pair, odd, j) : q2k_group(block, pair, odd, j);
        UNROLL
        for (int i = 0; i < m; i++) {
            __m256i products = _mm256_maddubs_epi16(w, broadcast(q + (size_t)i * stride + 16 * odd + 4 * j));
            dot[i] = j == 0 ? products : _mm256_add_epi16(dot[i], products);
        }
    }
    UNROLL
    for (int i = 0; i < m; i++)
        isum[i] = _mm256_add_epi32(isum[i], _mm256_madd_epi16(dot[i], scale));
}

/* One block of 8 rows of a tile, which block and d start at. */
INLINE void small_block(const uint8_t *block, const uint8_t *d_of_rows, const uint8_t *act, size_t stride,
                        const int m, const int bits, __m256 *sums)
{
    struct scales s;
    __m256i isum[ROWS_AT_ONCE];
    if (bits == 3)
        q3k_unpack_scales(block, &s);
    else
        q2k_unpack_scales(block + Q2K_SCALES, &s);
    UNROLL
    for (int i = 0; i < m; i++)
        isum[i] = _mm256_setzero_si256();
    for (int c = 0; c < 4; c++) {
        const uint8_t *chunk = block + (bits == 3 ? 2 * Q3K_PAIR_BYTES : 256) * c;
        UNROLL
        for (int k = 0; k < 2; k++) {
            __m256i pair = s.scale_pairs[2 * c + k]; /* each scale twice in a lane */
            __m256i even = _mm256_blend_epi16(pair, _mm256_slli_epi32(pair, 16), 0xaa);
            __m256i odd = _mm256_blend_epi16(pair, _mm256_srli_epi32(pair, 16), 0x55);
            add_sub_block(chunk, k, 0, even, act + 64 * c + 32 * k, stride, m, bits, isum);
            add_sub_block(chunk, k, 1, odd, act + 64 * c + 32 * k, stride, m, bits, isum);
        }
    }
    __m256 d = load_8_f16(d_of_rows), dmin = bits == 3 ? d : load_8_f16(d_of_rows + Q4K_DMIN);
    UNROLL
    for (int i = 0; i < m; i++) {
        const struct act_q8_256 *a = (const struct act_q8_256 *)(act + (size_t)i * stride);
        __m256i msum = _mm256_setzero_si256();
        UNROLL
        for (int p = 0; p < 8; p++)
            msum = _mm256_add_epi32(msum, _mm256_madd_epi16(bits == 3 ? s.scale_pairs[p] : s.min_pairs[p],
                                                            broadcast(&a->sum16[2 * p])));
        if (bits == 3)
            isum[i] = _mm256_sub_epi32(isum[i], _mm256_slli_epi32(msum, 2));
        __m256 d_act = _mm256_set1_ps(a->d);
        sums[i] = _mm256_fmadd_ps(_mm256_mul_ps(d, d_act), _mm256_cvtepi32_ps(isum[i]), sums[i]);
        if (bits == 2)
            sums[i] = _mm256_fnmadd_ps(_mm256_mul_ps(dmin, d_act), _mm256_cvtepi32_ps(msum), sums[i]);
    }
}

INLINE void small_rows(const struct product *p, uint32_t tile, uint32_t row, const int m, const int bits)
{
    const int block_bytes = bits == 3 ? Q3K_BLOCK_BYTES : Q2K_BLOCK_BYTES;
    const uint8_t *d_of_blocks = product_tile(p, tile), *block = d_of_blocks + p->header_bytes;
    const uint8_t *act = p->acts + row * p->act_stride;
    tile_sums sums;
    clear_sums(sums);
    for (uint32_t b = 0; b < p->n_blocks; b++, block += block_bytes, act += sizeof(struct act_q8_256)) {
        for (int i = 0; i < block_bytes; i += 64)
            fetch_ahead(block + i);
        const uint8_t *d = bits == 3 ? d_of_blocks + 32 * (size_t)b : block;
        for (int half = 0; half < 2; half++)
            small_block(block + 32 * half, d + 16 * half, act, p->act_stride, m, bits, sums[half]);
    }
    store_sums(p, tile, row, m, sums);
}

ROWS_FUNCTIONS(q2k, small_rows, 2)
ROWS_FUNCTIONS(q3k, small_rows, 3)

#include "kernels/x86/matmul_body.h"

MATMUL_ENTRY(matmul_q2_k, ACT_BLOCK, q2k)
MATMUL_ENTRY(matmul_q3_k, ACT_BLOCK, q3k)

void avx2_fill_matmul_q23k(struct kernels *kernels)
{
    kernels->matmul[TILE_Q2_K] = matmul_q2_k;
    kernels->matmul[TILE_Q3_K] = matmul_q3_k;
}
