/* avx2_matmul.c: products of Q4_K and Q6_K without VNNI. A group (16 rows x 4 inputs) is two ymm of unsigned bytes;
 * `vpmaddubsw` multiplies one with 4 activations broadcast to all lanes and adds pairs to 16 bits; lanes of
 * 32 bits are rows, and nothing is shuffled.
 *
 * Sums stay exact: where 16 bits can hold several groups' pairs they are added first (bounds are at each
 * place, for activations of -128 .. 127; for Q8_0 -127 .. 127, which is what quantising gives), then
 * `vpmaddwd` multiplies them with the sub-block's scale into 32 bits. A tile meets up to 4 rows of
 * activations at once, 8 of its rows at a time. */
#include "kernels/avx2_vectors.h"

/* One block of 8 rows of a tile. */
INLINE void q4k_block(const uint8_t *block, int half, const uint8_t *act, size_t stride, const int m,
                      __m256 *sums)
{
    const __m256i low = _mm256_set1_epi8(0x0f);
    struct q4k_scales s;
    __m256i isum[ROWS_AT_ONCE], dot[ROWS_AT_ONCE];
    q4k_unpack_scales(block + Q4K_SCALES + 32 * half, &s);
    UNROLL
    for (int i = 0; i < m; i++)
        isum[i] = _mm256_setzero_si256();
    for (int sub = 0; sub < 8; sub += 2) {
        const uint8_t *nibbles = block + Q4K_NIBBLES + 256 * sub + 32 * half, *q = act + 32 * sub;
        UNROLL
        for (int odd = 0; odd < 2; odd++, q += 32) {
            UNROLL
            for (int i = 0; i < m; i++)
                dot[i] = _mm256_setzero_si256();
            UNROLL
            for (int g = 0; g < 8; g++) { /* 16 bits hold 8 groups: 8 * 2 * 15 * 128 = 30720 */
                __m256i w = load(nibbles + 64 * g);
                w = _mm256_and_si256(odd ? _mm256_srli_epi16(w, 4) : w, low);
                UNROLL
                for (int i = 0; i < m; i++) {
                    __m256i pairs = _mm256_maddubs_epi16(w, broadcast(q + (size_t)i * stride + 4 * g));
                    dot[i] = _mm256_add_epi16(dot[i], pairs);
                }
            }
            UNROLL
            for (int i = 0; i < m; i++)
                isum[i] = _mm256_add_epi32(isum[i], _mm256_madd_epi16(dot[i], s.scale[sub + odd]));
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

/* Group j of sub-block k of a chunk, 8 rows. */
INLINE __m256i q6k_group(const uint8_t *chunk, int k, int j)
{
    __m256i nibbles = load(chunk + 64 * (k / 2 * 4 + j)), pairs = load(chunk + 64 * (8 + j));
    if (k % 2) {
        nibbles = _mm256_and_si256(_mm256_srli_epi16(nibbles, 2), _mm256_set1_epi8(0x3c));
        pairs = _mm256_and_si256(k == 1 ? _mm256_srli_epi16(pairs, 2) : pairs, _mm256_set1_epi8(0x03));
    } else {
        nibbles = _mm256_and_si256(nibbles, _mm256_set1_epi8(0x0f));
        pairs = _mm256_and_si256(k == 2 ? _mm256_srli_epi16(pairs, 2) : pairs, _mm256_set1_epi8(0x30));
    }
    return _mm256_or_si256(nibbles, pairs);
}

INLINE void q6k_block(const uint8_t *d_of_rows, const uint8_t *block, int half, const uint8_t *act,
                      size_t stride, const int m, __m256 *sums)
{
    __m256i isum[ROWS_AT_ONCE];
    UNROLL
    for (int i = 0; i < m; i++)
        isum[i] = _mm256_setzero_si256();
    for (int c = 0; c < 4; c++) {
        const uint8_t *chunk = block + Q6K_CHUNKS + Q6K_CHUNK_BYTES * c + 32 * half, *q = act + 64 * c;
        /* 16-bit pairs of sub-blocks 0 and 1, 2 and 3 of this chunk */
        __m256i word = load(block + 64 * c + 32 * half);
        __m256i scale_pairs[2] = {_mm256_srai_epi16(_mm256_slli_epi16(word, 8), 8),
                                  _mm256_srai_epi16(word, 8)};
        UNROLL
        for (int k = 0; k < 4; k++, q += 16) {
            /* both halves of a lane are to hold this sub-block's */
            __m256i pair = scale_pairs[k / 2];
            __m256i scale = k % 2 ? _mm256_blend_epi16(pair, _mm256_srli_epi32(pair, 16), 0x55)
                                  : _mm256_blend_epi16(pair, _mm256_slli_epi32(pair, 16), 0xaa);
            UNROLL
            for (int j = 0; j < 4; j += 2) { /* 16 bits hold 2 groups: 2 * 2 * 63 * 128 = 32256 */
                __m256i w0 = q6k_group(chunk, k, j), w1 = q6k_group(chunk, k, j + 1);
                UNROLL
                for (int i = 0; i < m; i++) {
                    const uint8_t *q_row = q + (size_t)i * stride + 4 * j;
                    __m256i dot = _mm256_add_epi16(_mm256_maddubs_epi16(w0, broadcast(q_row)),
                                                   _mm256_maddubs_epi16(w1, broadcast(q_row + 4)));
                    isum[i] = _mm256_add_epi32(isum[i], _mm256_madd_epi16(dot, scale));
                }
            }
        }
        UNROLL
        for (int i = 0; i < m; i++) {
            const struct act_q8_256 *a = (const struct act_q8_256 *)(act + (size_t)i * stride);
            __m256i offset =
                _mm256_add_epi32(_mm256_madd_epi16(scale_pairs[0], broadcast(&a->sum16[4 * c])),
                                 _mm256_madd_epi16(scale_pairs[1], broadcast(&a->sum16[4 * c + 2])));
            isum[i] = _mm256_sub_epi32(isum[i], _mm256_slli_epi32(offset, 5));
        }
    }
    __m256 d = load_8_f16(d_of_rows + 16 * half);
    UNROLL
    for (int i = 0; i < m; i++) {
        const struct act_q8_256 *a = (const struct act_q8_256 *)(act + (size_t)i * stride);
        sums[i] =
            _mm256_fmadd_ps(_mm256_mul_ps(d, _mm256_set1_ps(a->d)), _mm256_cvtepi32_ps(isum[i]), sums[i]);
    }
}

INLINE void q4k_rows(const struct product *p, uint32_t tile, uint32_t row, const int m)
{
    const uint8_t *block = product_tile(p, tile);
    const uint8_t *act = p->acts + row * p->act_stride;
    tile_sums sums;
    clear_sums(sums);
    for (uint32_t b = 0; b < p->n_blocks; b++, block += Q4K_BLOCK_BYTES, act += sizeof(struct act_q8_256)) {
        for (int i = 0; i < Q4K_BLOCK_BYTES; i += 64)
            fetch_ahead(block + i);
        for (int half = 0; half < 2; half++)
            q4k_block(block, half, act, p->act_stride, m, sums[half]);
    }
    store_sums(p, tile, row, m, sums);
}

INLINE void q6k_rows(const struct product *p, uint32_t tile, uint32_t row, const int m)
{
    const uint8_t *d_of_blocks = product_tile(p, tile), *block = d_of_blocks + p->header_bytes;
    const uint8_t *act = p->acts + row * p->act_stride;
    tile_sums sums;
    clear_sums(sums);
    for (uint32_t b = 0; b < p->n_blocks; b++, block += Q6K_BLOCK_BYTES, act += sizeof(struct act_q8_256)) {
        for (int i = 0; i < Q6K_BLOCK_BYTES; i += 64)
            fetch_ahead(block + i);
        for (int half = 0; half < 2; half++)
            q6k_block(d_of_blocks + 32 * (size_t)b, block, half, act, p->act_stride, m, sums[half]);
    }
    store_sums(p, tile, row, m, sums);
}

ROWS_FUNCTIONS(q4k, q4k_rows)
ROWS_FUNCTIONS(q6k, q6k_rows)
#include "kernels/matmul_body.h"

static void matmul_q4_k(const struct packed_matrix *w, uint32_t tile_begin, uint32_t tile_end,
                        const void *acts, size_t act_stride, uint32_t n_acts, float *out, size_t out_stride,
                        const float *bias, bool add)
{
    const struct product p = product_of(w, ACT_BLOCK, acts, act_stride, out, out_stride, bias, add);
    matmul_tiles(&p, tile_begin, tile_end, n_acts, q4k);
}

static void matmul_q6_k(const struct packed_matrix *w, uint32_t tile_begin, uint32_t tile_end,
                        const void *acts, size_t act_stride, uint32_t n_acts, float *out, size_t out_stride,
                        const float *bias, bool add)
{
    const struct product p = product_of(w, ACT_BLOCK, acts, act_stride, out, out_stride, bias, add);
    matmul_tiles(&p, tile_begin, tile_end, n_acts, q6k);
}

void avx2_fill_matmul(struct kernels *kernels)
{
    kernels->matmul[TILE_Q4_K] = matmul_q4_k;
    kernels->matmul[TILE_Q6_K] = matmul_q6_k;
}
