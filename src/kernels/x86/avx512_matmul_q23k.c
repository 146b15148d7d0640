/* avx512_matmul_q23k.c: products of Q2_K and Q3_K for AVX-512 VNNI; built like avx512_matmul.c. Owns nothing; any thread.
 *
 * The dot products of two sub-blocks of 16 always fit 16 bits each (16 * 7 * 127 = 14224): they become the two halves of a lane,
 * and one `vpdpwssd` applies both scales. Values of Q3_K are 4 too high, which is as if a sub-block's scale were its min, too. */
#include "kernels/x86/avx512_vectors.h"

/* Of the 16 sub-blocks of a block, as 16-bit pairs of sub-blocks 2p and 2p+1. */
struct scales {
    __m512i scale_pairs[8], min_pairs[8];
};

INLINE void q2k_unpack_scales(const uint8_t *block, struct scales *s)
{
    const __m512i four = _mm512_set1_epi8(0x0f);
    UNROLL
    for (int c = 0; c < 4; c++) {
        __m512i word = load(block + Q2K_SCALES + 64 * c);
        unsigned_pairs(_mm512_and_si512(word, four), s->scale_pairs + 2 * c);
        unsigned_pairs(_mm512_and_si512(_mm512_srli_epi16(word, 4), four), s->min_pairs + 2 * c);
    }
}

INLINE void q3k_unpack_scales(const uint8_t *block, struct scales *s)
{
    const __m512i four = _mm512_set1_epi8(0x0f), two = _mm512_set1_epi8(0x30);
    __m512i word0 = load(block), word1 = load(block + 64), high = load(block + 128);
    const __m512i low[4] = {word0, word1, _mm512_srli_epi16(word0, 4), _mm512_srli_epi16(word1, 4)};
    const __m512i upper[4] = {_mm512_slli_epi16(high, 4), _mm512_slli_epi16(high, 2), high,
                              _mm512_srli_epi16(high, 2)};
    UNROLL
    for (int c = 0; c < 4; c++) {
        __m512i bytes = _mm512_or_si512(_mm512_and_si512(low[c], four), _mm512_and_si512(upper[c], two));
        bytes = _mm512_sub_epi8(bytes, _mm512_set1_epi8(32));
        signed_pairs(bytes, s->scale_pairs + 2 * c);
    }
}

/* Group j of sub-block 2 * pair + odd; odd ones are 16 or 64 times too large. */
INLINE __m512i q2k_group(const uint8_t *block, int pair, int odd, int j)
{
    __m512i w = load(block + Q2K_VALUES + 256 * (pair / 2) + 64 * j);
    if (odd)
        return _mm512_and_si512(w, _mm512_set1_epi8(pair % 2 ? 0x30 : (char)0xc0));
    return _mm512_and_si512(pair % 2 ? _mm512_srli_epi16(w, 2) : w, _mm512_set1_epi8(0x03));
}

/* Likewise; odd ones are 32 times too large. */
INLINE __m512i q3k_group(const uint8_t *block, int pair, int odd, int j)
{
    const uint8_t *a = block + Q3K_VALUES + Q3K_PAIR_BYTES * pair, *b = a + 64, *c = a + 128;
    if (j < 3)
        return _mm512_and_si512(load(a + 64 * j), _mm512_set1_epi8(odd ? (char)0xe0 : 0x07));
    __m512i two = odd ? _mm512_slli_epi16(load(a), 3) : _mm512_srli_epi16(load(c), 3);
    __m512i one = odd ? _mm512_slli_epi16(load(b), 2) : _mm512_srli_epi16(load(b), 2);
    two = _mm512_and_si512(two, _mm512_set1_epi8(odd ? (char)0xc0 : 0x03));
    /* two | (one & mask) */
    return _mm512_ternarylogic_epi32(two, one, _mm512_set1_epi8(odd ? 0x20 : 0x04), 0xf8);
}

/* The two dot products of a pair of sub-blocks with m rows of activations (q: of the first), as halves of lanes. */
INLINE void pair_dots(const uint8_t *block, int pair, const uint8_t *q, size_t stride, const int m,
                      const int bits, __m512i *dots)
{
    const unsigned up = bits == 3 ? 11 : pair % 2 ? 12 : 10; /* an odd sub-block's place in the upper half */
    __m512i odd[ROWS_AT_ONCE];
    UNROLL
    for (int i = 0; i < m; i++)
        odd[i] = dots[i] = _mm512_setzero_si512();
    UNROLL
    for (int j = 0; j < 4; j++) {
        __m512i w = bits == 3 ? q3k_group(block, pair, 1, j) : q2k_group(block, pair, 1, j);
        UNROLL
        for (int i = 0; i < m; i++)
            odd[i] = dot4(odd[i], w, q + (size_t)i * stride + 16 + 4 * j);
    }
    UNROLL
    for (int j = 0; j < 4; j++) {
        __m512i w = bits == 3 ? q3k_group(block, pair, 0, j) : q2k_group(block, pair, 0, j);
        UNROLL
        for (int i = 0; i < m; i++)
            dots[i] = dot4(dots[i], w, q + (size_t)i * stride + 4 * j);
    }
    UNROLL
    for (int i = 0; i < m; i++)
        dots[i] = _mm512_mask_blend_epi16(0xaaaaaaaa, dots[i], _mm512_slli_epi32(odd[i], up));
}

/* Adds a block: d and dmin are those of its rows; Q3_K has no dmin. */
INLINE void add_block(const struct scales *s, const uint8_t *act, size_t stride, const int m, const int bits,
                      __m512 d, __m512 dmin, const __m512i *isum, __m512 *sums)
{
    UNROLL
    for (int i = 0; i < m; i++) {
        const struct act_q8_256 *a = (const struct act_q8_256 *)(act + (size_t)i * stride);
        __m512i msum = _mm512_setzero_si512(), dots = isum[i];
        UNROLL
        for (int p = 0; p < 8; p++)
            msum = _mm512_dpwssd_epi32(msum, bits == 3 ? s->scale_pairs[p] : s->min_pairs[p],
                                       broadcast(&a->sum16[2 * p]));
        if (bits == 3)
            dots = _mm512_sub_epi32(dots, _mm512_slli_epi32(msum, 2));
        __m512 d_act = _mm512_set1_ps(a->d);
        sums[i] = _mm512_fmadd_ps(_mm512_mul_ps(d, d_act), _mm512_cvtepi32_ps(dots), sums[i]);
        if (bits == 2)
            sums[i] = _mm512_fnmadd_ps(_mm512_mul_ps(dmin, d_act), _mm512_cvtepi32_ps(msum), sums[i]);
    }
}

INLINE void small_rows(const struct product *p, uint32_t tile, uint32_t row, const int m, const int bits)
{
    const int block_bytes = bits == 3 ? Q3K_BLOCK_BYTES : Q2K_BLOCK_BYTES, fetched = bits == 3 ? 7 : 6;
    const uint8_t *d_of_blocks = product_tile(p, tile), *block = d_of_blocks + p->header_bytes;
    const uint8_t *act = p->acts + row * p->act_stride;
    const size_t stride = p->act_stride;
    __m512 sums[ROWS_AT_ONCE];
    UNROLL
    for (int i = 0; i < m; i++)
        sums[i] = _mm512_setzero_ps();
    for (uint32_t b = 0; b < p->n_blocks; b++, block += block_bytes, act += sizeof(struct act_q8_256)) {
        struct scales s;
        __m512i isum[ROWS_AT_ONCE], dots[ROWS_AT_ONCE];
        if (bits == 3)
            q3k_unpack_scales(block, &s);
        else
            q2k_unpack_scales(block, &s);
        UNROLL
        for (int i = 0; i < m; i++)
            isum[i] = _mm512_setzero_si512();
        for (int c = 0; c < 4; c++) {
            UNROLL
            for (int i = 0; i < fetched && m >= 3; i++) /* with fewer rows the hardware does better alone */
                fetch_ahead(block + 64 * (fetched * c + i));
            UNROLL
            for (int k = 0; k < 2; k++) {
                const uint8_t *chunk = block + (bits == 3 ? 2 * Q3K_PAIR_BYTES : 256) * c;
                pair_dots(chunk, k, act + 64 * c + 32 * k, stride, m, bits, dots);
                UNROLL
                for (int i = 0; i < m; i++)
                    isum[i] = _mm512_dpwssd_epi32(isum[i], dots[i], s.scale_pairs[2 * c + k]);
            }
        }
        __m512 d = load_f16(bits == 3 ? d_of_blocks + 32 * (size_t)b : block);
        __m512 dmin = bits == 3 ? d : load_f16(block + Q4K_DMIN);
        add_block(&s, act, stride, m, bits, d, dmin, isum, sums);
    }
    store_sums(p, tile, row, m, sums);
}

ROWS_FUNCTIONS(q2k, small_rows, 2)
ROWS_FUNCTIONS(q3k, small_rows, 3)

#include "kernels/x86/matmul_body.h"

MATMUL_ENTRY(matmul_q2_k, ACT_BLOCK, q2k)
MATMUL_ENTRY(matmul_q3_k, ACT_BLOCK, q3k)

void avx512_fill_matmul_q23k(struct kernels *kernels)
{
    kernels->matmul[TILE_Q2_K] = matmul_q2_k;
    kernels->matmul[TILE_Q3_K] = matmul_q3_k;
}
