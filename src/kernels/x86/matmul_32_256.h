/* matmul_32_256.h: products of the types with blocks of 32 values, with 256-bit vectors. The body of avx2_matmul_32.c and of
 * avxvnni_matmul_32.c, which say before including it how dot products are made (avx2_dots.h, avxvnni_dots.h). */
#include "kernels/x86/matmul_256.h"

/* Bits a weight, and whether blocks have an m; what weights are looked up in a list by their nibbles. */
struct shape {
    int bits;
    bool has_m;
    enum tensor_type listed; /* IQ4_NL or MXFP4; TENSOR_F32: none */
};

/* Weights of all 8 bits, which are given 128 too high. Those of MXFP4 are small: 12 too high, they have 5 bits. */
INLINE bool is_wide(const struct shape shape)
{
    return shape.bits == 8 || shape.listed == TENSOR_IQ4_NL;
}

/* 8 upper halves of floats. */
INLINE __m256 load_8_bf16(const uint8_t *p)
{
    __m256i wide = _mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)p));
    return _mm256_castsi256_ps(_mm256_slli_epi32(wide, 16));
}

/* The weights that nibbles look up, as much too high. */
INLINE __m256i listed_of_shape(const struct shape shape)
{
    if (shape.listed == TENSOR_F32)
        return _mm256_setzero_si256();
    const char too_high = (char)(shape.listed == TENSOR_MXFP4 ? 12 : 0x80);
    return _mm256_add_epi8(listed_weights(shape.listed), _mm256_set1_epi8(too_high));
}

/* Group g of block `second` of a pair, 8 rows of a tile: whole numbers as in the file, but too high if wide or listed. */
INLINE __m256i group_of(const uint8_t *values, int second, int g, const struct shape shape, __m256i listed)
{
    if (shape.bits == 8)
        return load(values + 512 * second + 64 * g);
    __m256i nibbles = load(values + 64 * g);
    if (shape.bits == 4) {
        nibbles = _mm256_and_si256(second ? _mm256_srli_epi16(nibbles, 4) : nibbles, _mm256_set1_epi8(0x0f));
        return shape.listed == TENSOR_F32 ? nibbles : _mm256_shuffle_epi8(listed, nibbles);
    }
    if (second)
        nibbles = _mm256_srli_epi16(nibbles, 3);
    nibbles = _mm256_and_si256(nibbles, _mm256_set1_epi8(second ? 0x1e : 0x0f));
    __m256i fifth = load(values + PAIR_BITS_VECTOR + 64 * second);
    const int place = second ? 0 : 4; /* where bit g of a byte has to go */
    if (g > place)
        fifth = _mm256_srli_epi16(fifth, g - place);
    if (g < place)
        fifth = _mm256_slli_epi16(fifth, place - g);
    return _mm256_or_si256(nibbles, _mm256_and_si256(fifth, _mm256_set1_epi8((char)(1 << place))));
}

/* 32 inputs of both halves of a tile and m rows of activations. */
INLINE void block_dots(const uint8_t *values, int second, const uint8_t *q, size_t stride, const int m,
                       const struct shape shape, __m256i listed, __m256i *dot0, __m256i *dot1)
{
    const bool has_5_bits = shape.bits == 5 || shape.listed == TENSOR_MXFP4;
    const int n_groups = has_5_bits ? DOT_GROUPS_OF_5_BITS : 8; /* of one dot product */
    __m256i part0[ROWS_AT_ONCE], part1[ROWS_AT_ONCE];
    UNROLL
    for (int i = 0; i < m; i++)
        dot0[i] = dot1[i] = part0[i] = part1[i] = _mm256_setzero_si256();
    UNROLL
    for (int g = 0; g < 8; g++) {
        __m256i w0 = group_of(values, second, g, shape, listed);
        __m256i w1 = group_of(values + 32, second, g, shape, listed);
        UNROLL
        for (int i = 0; i < m; i++) {
            const uint8_t *four = q + (size_t)i * stride + 4 * g;
            if (is_wide(shape)) {
                __m256i a = broadcast(four);
                dot0[i] = dot_8_bits(dot0[i], w0, a);
                dot1[i] = dot_8_bits(dot1[i], w1, a);
                continue;
            }
            dot_both(&part0[i], &part1[i], w0, w1, four);
            if ((g + 1) % n_groups == 0) {
                dot0[i] = dot_add(dot0[i], part0[i]);
                dot1[i] = dot_add(dot1[i], part1[i]);
                part0[i] = part1[i] = _mm256_setzero_si256();
            }
        }
    }
}

/* What one block adds to the sums of half a tile; `scales` starts at those of the half. */
INLINE void add_dots(const uint8_t *scales, const uint8_t *act, uint32_t block, size_t stride, const int m,
                     const struct shape shape, __m256i *dot, __m256 *sums)
{
    __m256 d = shape.listed == TENSOR_MXFP4 ? load_8_bf16(scales) : load_8_f16(scales);
    __m256 offset = shape.has_m ? load_8_f16(scales + PAIR_M) : d;
    UNROLL
    for (int i = 0; i < m; i++) {
        const struct act_q8_32 *a = (const struct act_q8_32 *)(act + (size_t)i * stride);
        if ((!is_wide(shape) || DOT_8_BITS_TOO_HIGH > 0) && !shape.has_m) {
            const int n_bits = is_wide(shape) ? 8 : shape.bits;
            const __m256i of_128 = broadcast(&a->offset[block]);
            __m256i too_much = _mm256_srai_epi32(of_128, 8 - n_bits);
            if (shape.listed == TENSOR_MXFP4) /* 8 and 4 */
                too_much = _mm256_add_epi32(too_much, _mm256_srai_epi32(of_128, 5));
            dot[i] = _mm256_add_epi32(dot[i], too_much);
        }
        __m256 scale = _mm256_mul_ps(d, _mm256_set1_ps(a->d[block]));
        sums[i] = _mm256_fmadd_ps(scale, _mm256_cvtepi32_ps(dot[i]), sums[i]);
        if (shape.has_m)
            sums[i] = _mm256_fmadd_ps(offset, _mm256_set1_ps(a->d_sum[block]), sums[i]);
    }
}

INLINE void pair_rows(const struct product *p, uint32_t tile, uint32_t row, const int m,
                      const struct shape shape)
{
    const size_t values_at = shape.has_m ? 128 : 64, pair_bytes = values_at + 128 * (size_t)shape.bits;
    const size_t stride = p->act_stride;
    const uint8_t *pair = product_tile(p, tile);
    const uint8_t *acts = p->acts + row * stride;
    const __m256i listed = listed_of_shape(shape);
    tile_sums sums;
    clear_sums(sums);
    for (uint32_t b = 0; b < p->n_blocks; b++, pair += pair_bytes) {
        const uint8_t *act = acts + b / 4 * sizeof(struct act_q8_32);
        for (size_t at = 0; at < pair_bytes; at += 64)
            fetch_ahead(pair + at);
        UNROLL
        for (int second = 0; second < 2; second++) {
            const uint32_t block = b % 4 * 2 + (uint32_t)second;
            __m256i dot0[ROWS_AT_ONCE], dot1[ROWS_AT_ONCE];
            block_dots(pair + values_at, second, act + 32 * block, stride, m, shape, listed, dot0, dot1);
            add_dots(pair + 32 * second, act, block, stride, m, shape, dot0, sums[0]);
            add_dots(pair + 32 * second + 16, act, block, stride, m, shape, dot1, sums[1]);
        }
    }
    store_sums(p, tile, row, m, sums);
}

ROWS_FUNCTIONS(q8_0, pair_rows, (struct shape){8, false, TENSOR_F32})
ROWS_FUNCTIONS(q4_0, pair_rows, (struct shape){4, false, TENSOR_F32})
ROWS_FUNCTIONS(q4_1, pair_rows, (struct shape){4, true, TENSOR_F32})
ROWS_FUNCTIONS(q5_0, pair_rows, (struct shape){5, false, TENSOR_F32})
ROWS_FUNCTIONS(q5_1, pair_rows, (struct shape){5, true, TENSOR_F32})
ROWS_FUNCTIONS(iq4_nl, pair_rows, (struct shape){4, false, TENSOR_IQ4_NL})
ROWS_FUNCTIONS(mxfp4, pair_rows, (struct shape){4, false, TENSOR_MXFP4})

#include "kernels/x86/matmul_32_body.h"
