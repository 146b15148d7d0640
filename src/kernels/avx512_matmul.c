/* avx512_matmul.c: products with VNNI. One zmm holds a group (16 rows x 4 inputs) of unsigned weights;
 * `vpdpbusd` multiplies it with 4 activations broadcast to all lanes, so that lanes are rows and nothing is
 * ever shuffled.
 *
 * A tile meets up to 8 rows of activations at once, all sums in registers. Weights are unpacked in registers
 * again for each such group of rows: the ports that unpack have nothing else to do while the multipliers
 * work. A call goes through 4 tiles at a time, so that a group of activation rows, once in L1, is used 4
 * times, and the tiles stay in L2. Lanes of rows past n_rows compute on zeros and are not stored. */
#include "kernels/avx512.h"
#include "kernels/matmul_product.h"

enum {
    TILES_AT_ONCE = 4,
    ROWS_AT_ONCE = 8,
};

INLINE __m512i load(const void *p)
{
    return _mm512_loadu_si512(p);
}

INLINE __m512 load_f16(const uint8_t *p)
{
    return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)p));
}

/* 4 bytes in every lane. */
INLINE __m512i broadcast(const void *p)
{
    int32_t value;
    memcpy(&value, p, sizeof value);
    return _mm512_set1_epi32(value);
}

INLINE void store_sums(const struct product *p, uint32_t tile, uint32_t row, int m, const __m512 *sums)
{
    UNROLL
    for (int i = 0; i < m; i++)
        store_sum(p, tile, row + (uint32_t)i, sums[i]);
}

/* The 6-bit scales and mins of a block as the dot products want them. */
struct q4k_scales {
    __m512i scale[8]; /* by sub-block; those of even ones 16 times, because odd sub-blocks are used 16 times
                         too large */
    __m512i min_pairs[4]; /* 16-bit pairs of sub-blocks 2p and 2p+1 */
};

INLINE void q4k_unpack_scales(const uint8_t *block, struct q4k_scales *s)
{
    const __m512i six = _mm512_set1_epi8(0x3f), four = _mm512_set1_epi8(0x0f), high = _mm512_set1_epi8(0x30);
    const __m512i even_bytes = _mm512_set1_epi16(0x00ff);
    __m512i word0 = load(block + Q4K_SCALES), word1 = load(block + Q4K_SCALES + 64);
    __m512i word2 = load(block + Q4K_SCALES + 128);
    __m512i scales[2], mins[2];
    scales[0] = _mm512_and_si512(word0, six);
    mins[0] = _mm512_and_si512(word1, six);
    scales[1] =
        _mm512_or_si512(_mm512_and_si512(word2, four), _mm512_and_si512(_mm512_srli_epi16(word0, 2), high));
    mins[1] = _mm512_or_si512(_mm512_and_si512(_mm512_srli_epi16(word2, 4), four),
                              _mm512_and_si512(_mm512_srli_epi16(word1, 2), high));
    UNROLL
    for (int i = 0; i < 2; i++) {
        __m512i pairs[2] = {_mm512_and_si512(scales[i], even_bytes), _mm512_srli_epi16(scales[i], 8)};
        UNROLL
        for (int j = 0; j < 2; j++) {
            s->scale[4 * i + 2 * j] = _mm512_srli_epi32(_mm512_slli_epi32(pairs[j], 16), 12);
            s->scale[4 * i + 2 * j + 1] = _mm512_srli_epi32(pairs[j], 16);
        }
        s->min_pairs[2 * i] = _mm512_and_si512(mins[i], even_bytes);
        s->min_pairs[2 * i + 1] = _mm512_srli_epi16(mins[i], 8);
    }
}

INLINE void q4k_rows(const struct product *p, uint32_t tile, uint32_t row, const int m)
{
    const __m512i low = _mm512_set1_epi8(0x0f), high = _mm512_set1_epi8((char)0xf0);
    const uint8_t *block = product_tile(p, tile);
    const uint8_t *act = p->acts + row * p->act_stride;
    const size_t stride = p->act_stride;
    __m512 sums[ROWS_AT_ONCE];
    UNROLL
    for (int i = 0; i < m; i++)
        sums[i] = _mm512_setzero_ps();
    for (uint32_t b = 0; b < p->n_blocks; b++, block += Q4K_BLOCK_BYTES, act += sizeof(struct act_q8_256)) {
        struct q4k_scales s;
        __m512i isum[ROWS_AT_ONCE], dot[ROWS_AT_ONCE];
        q4k_unpack_scales(block, &s);
        UNROLL
        for (int i = 0; i < m; i++)
            isum[i] = _mm512_setzero_si512();
        for (int sub = 0; sub < 8; sub += 2) {
            const uint8_t *nibbles = block + Q4K_NIBBLES + 256 * sub, *q = act + 32 * sub;
            if (m >= 3) { /* with one row or two the hardware does better alone */
                fetch_ahead(block + 32 * sub);
                UNROLL
                for (int g = 0; g < 8; g++)
                    fetch_ahead(nibbles + 64 * g);
            }
            UNROLL
            for (int half = 0; half < 2; half++, q += 32) {
                UNROLL
                for (int i = 0; i < m; i++)
                    dot[i] = _mm512_setzero_si512();
                UNROLL
                for (int g = 0; g < 8; g++) {
                    __m512i w = _mm512_and_si512(load(nibbles + 64 * g), half ? high : low);
                    UNROLL
                    for (int i = 0; i < m; i++)
                        dot[i] = _mm512_dpbusd_epi32(dot[i], w, broadcast(q + (size_t)i * stride + 4 * g));
                }
                UNROLL
                for (int i = 0; i < m; i++)
                    isum[i] = _mm512_add_epi32(isum[i], _mm512_mullo_epi32(dot[i], s.scale[sub + half]));
            }
        }
        __m512 d = load_f16(block), dmin = load_f16(block + Q4K_DMIN);
        UNROLL
        for (int i = 0; i < m; i++) {
            const struct act_q8_256 *a = (const struct act_q8_256 *)(act + (size_t)i * stride);
            __m512i msum = _mm512_setzero_si512();
            UNROLL
            for (int j = 0; j < 4; j++)
                msum = _mm512_dpwssd_epi32(msum, s.min_pairs[j], broadcast(&a->sum32[2 * j]));
            __m512 d_act = _mm512_set1_ps(a->d);
            __m512 isum_f32 = _mm512_cvtepi32_ps(_mm512_srai_epi32(isum[i], 4));
            sums[i] = _mm512_fmadd_ps(_mm512_mul_ps(d, d_act), isum_f32, sums[i]);
            sums[i] = _mm512_fnmadd_ps(_mm512_mul_ps(dmin, d_act), _mm512_cvtepi32_ps(msum), sums[i]);
        }
    }
    store_sums(p, tile, row, m, sums);
}

/* Scales of a Q6_K block as 16-bit pairs of sub-blocks 2i and 2i+1. */
INLINE void q6k_unpack_scales(const uint8_t *block, __m512i pairs[8])
{
    UNROLL
    for (int c = 0; c < 4; c++) {
        __m512i word = load(block + 64 * c);
        pairs[2 * c] = _mm512_srai_epi16(_mm512_slli_epi16(word, 8), 8);
        pairs[2 * c + 1] = _mm512_srai_epi16(word, 8);
    }
}

/* Group j of sub-block k of a chunk; odd k: 4 times as large. */
INLINE __m512i q6k_group(const uint8_t *chunk, int k, int j)
{
    __m512i nibbles = load(chunk + 64 * (k / 2 * 4 + j)), pairs = load(chunk + 64 * (8 + j));
    if (k == 2)
        pairs = _mm512_srli_epi16(pairs, 2);
    if (k == 3)
        pairs = _mm512_slli_epi16(pairs, 2);
    nibbles = _mm512_and_si512(nibbles, _mm512_set1_epi8(k % 2 ? (char)0xf0 : 0x0f));
    /* nibbles | (pairs & mask) */
    return _mm512_ternarylogic_epi32(nibbles, pairs, _mm512_set1_epi8(k % 2 ? 0x0c : 0x30), 0xf8);
}

INLINE void q6k_rows(const struct product *p, uint32_t tile, uint32_t row, const int m)
{
    const uint8_t *d_of_blocks = product_tile(p, tile);
    const uint8_t *block = d_of_blocks + p->header_bytes;
    const uint8_t *act = p->acts + row * p->act_stride;
    const size_t stride = p->act_stride;
    __m512 sums[ROWS_AT_ONCE];
    UNROLL
    for (int i = 0; i < m; i++)
        sums[i] = _mm512_setzero_ps();
    for (uint32_t b = 0; b < p->n_blocks; b++, block += Q6K_BLOCK_BYTES, act += sizeof(struct act_q8_256)) {
        __m512i pairs[8], isum[ROWS_AT_ONCE], dot[ROWS_AT_ONCE];
        q6k_unpack_scales(block, pairs);
        UNROLL
        for (int i = 0; i < m; i++)
            isum[i] = _mm512_setzero_si512();
        for (int c = 0; c < 4; c++) {
            const uint8_t *chunk = block + Q6K_CHUNKS + Q6K_CHUNK_BYTES * c, *q = act + 64 * c;
            fetch_ahead(block + 64 * c);
            UNROLL
            for (int j = 0; j < 12; j++)
                fetch_ahead(chunk + 64 * j);
            UNROLL
            for (int k = 0; k < 4; k++, q += 16) {
                __m512i pair = pairs[2 * c + k / 2];
                __m512i scale =
                    k % 2 ? _mm512_srai_epi32(pair, 16) : _mm512_srai_epi32(_mm512_slli_epi32(pair, 16), 14);
                UNROLL
                for (int i = 0; i < m; i++)
                    dot[i] = _mm512_setzero_si512();
                UNROLL
                for (int j = 0; j < 4; j++) {
                    __m512i w = q6k_group(chunk, k, j);
                    UNROLL
                    for (int i = 0; i < m; i++)
                        dot[i] = _mm512_dpbusd_epi32(dot[i], w, broadcast(q + (size_t)i * stride + 4 * j));
                }
                UNROLL
                for (int i = 0; i < m; i++)
                    isum[i] = _mm512_add_epi32(isum[i], _mm512_mullo_epi32(dot[i], scale));
            }
        }
        __m512 d = load_f16(d_of_blocks + 32 * (size_t)b);
        UNROLL
        for (int i = 0; i < m; i++) {
            const struct act_q8_256 *a = (const struct act_q8_256 *)(act + (size_t)i * stride);
            __m512i offset = _mm512_setzero_si512();
            UNROLL
            for (int j = 0; j < 8; j++)
                offset = _mm512_dpwssd_epi32(offset, pairs[j], broadcast(&a->sum16[2 * j]));
            __m512i sum = _mm512_sub_epi32(_mm512_srai_epi32(isum[i], 2), _mm512_slli_epi32(offset, 5));
            sums[i] =
                _mm512_fmadd_ps(_mm512_mul_ps(d, _mm512_set1_ps(a->d)), _mm512_cvtepi32_ps(sum), sums[i]);
        }
    }
    store_sums(p, tile, row, m, sums);
}

INLINE void u8_rows(const struct product *p, uint32_t tile, uint32_t row, const int m, const bool has_m)
{
    const uint8_t *d_of_blocks = product_tile(p, tile);
    const uint8_t *block = d_of_blocks + p->header_bytes;
    const uint8_t *acts = p->acts + row * p->act_stride;
    const size_t stride = p->act_stride, d_bytes = has_m ? 64 : 32;
    /* A pair of sums is broadcast; one of the two is wanted. */
    const __m512i zero_first = _mm512_set1_epi32(-pack_u8_zero(p->w->type) & 0xffff);
    const __m512i zero_second = _mm512_slli_epi32(zero_first, 16);
    __m512 sums[ROWS_AT_ONCE];
    UNROLL
    for (int i = 0; i < m; i++)
        sums[i] = _mm512_setzero_ps();
    for (uint32_t b = 0; b < p->n_blocks; b++, block += U8_BLOCK_BYTES) {
        const uint8_t *act = acts + b / 8 * sizeof(struct act_q8_32), *q = act + 32 * (b % 8);
        const __m512i zero = b % 2 ? zero_second : zero_first;
        __m512i dot[ROWS_AT_ONCE];
        UNROLL
        for (int g = 0; g < 8; g++)
            fetch_ahead(block + 64 * g);
        UNROLL
        for (int i = 0; i < m; i++) {
            const struct act_q8_32 *a = (const struct act_q8_32 *)(act + (size_t)i * stride);
            dot[i] = _mm512_setzero_si512();
            if (!has_m)
                dot[i] = _mm512_dpwssd_epi32(dot[i], zero, broadcast(&a->sum32[b % 8 & ~1u]));
        }
        UNROLL
        for (int g = 0; g < 8; g++) {
            __m512i w = load(block + 64 * g);
            UNROLL
            for (int i = 0; i < m; i++)
                dot[i] = _mm512_dpbusd_epi32(dot[i], w, broadcast(q + (size_t)i * stride + 4 * g));
        }
        __m512 d = load_f16(d_of_blocks + d_bytes * b);
        __m512 offset = has_m ? load_f16(d_of_blocks + d_bytes * b + 32) : d;
        UNROLL
        for (int i = 0; i < m; i++) {
            const struct act_q8_32 *a = (const struct act_q8_32 *)(act + (size_t)i * stride);
            float d_act = a->d[b % 8];
            sums[i] =
                _mm512_fmadd_ps(_mm512_mul_ps(d, _mm512_set1_ps(d_act)), _mm512_cvtepi32_ps(dot[i]), sums[i]);
            if (has_m)
                sums[i] = _mm512_fmadd_ps(offset, _mm512_set1_ps(d_act * (float)a->sum32[b % 8]), sums[i]);
        }
    }
    store_sums(p, tile, row, m, sums);
}

/* One function for each number of rows, so that sums are registers. */
#define ROWS_FUNCTION(name, body, m, ...)                                                                    \
    static void name##_##m(const struct product *p, uint32_t tile, uint32_t row)                             \
    {                                                                                                        \
        body(p, tile, row, m, ##__VA_ARGS__);                                                                \
    }
#define ROWS_FUNCTIONS(name, body, ...)                                                                      \
    ROWS_FUNCTION(name, body, 1, ##__VA_ARGS__)                                                              \
    ROWS_FUNCTION(name, body, 2, ##__VA_ARGS__)                                                              \
    ROWS_FUNCTION(name, body, 3, ##__VA_ARGS__)                                                              \
    ROWS_FUNCTION(name, body, 4, ##__VA_ARGS__)                                                              \
    ROWS_FUNCTION(name, body, 5, ##__VA_ARGS__)                                                              \
    ROWS_FUNCTION(name, body, 6, ##__VA_ARGS__)                                                              \
    ROWS_FUNCTION(name, body, 7, ##__VA_ARGS__)                                                              \
    ROWS_FUNCTION(name, body, 8, ##__VA_ARGS__)                                                              \
    static rows_function *const name[ROWS_AT_ONCE] = {name##_1, name##_2, name##_3, name##_4,                \
                                                      name##_5, name##_6, name##_7, name##_8};

ROWS_FUNCTIONS(q4k, q4k_rows)
ROWS_FUNCTIONS(q6k, q6k_rows)
ROWS_FUNCTIONS(u8_zero, u8_rows, false)
ROWS_FUNCTIONS(u8_m, u8_rows, true)

static rows_function *const *u8_functions(enum tensor_type type)
{
    return pack_u8_has_m(type) ? u8_m : u8_zero;
}

#include "kernels/matmul_body.h"

void avx512_fill_matmul(struct kernels *kernels)
{
    fill_matmul(kernels);
}
