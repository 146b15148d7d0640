/* avx2_matmul_32.c: products of the types with blocks of 32 values, for AVX2; built like avx2_matmul.c. Owns
 * nothing; any thread. */
#include "kernels/x86/avx2_vectors.h"

/* Bits a weight; whether blocks have an m; what weights are looked up in a list by their nibbles: signed ones of IQ4_NL, those of
 * MXFP4 12 too high. */
struct shape {
    int bits;
    bool has_m;
    enum tensor_type listed; /* IQ4_NL or MXFP4; TENSOR_F32: none */
};

/* Weights are signed bytes, unlike those of other types. */
INLINE bool is_signed(const struct shape shape)
{
    return shape.bits == 8 || shape.listed == TENSOR_IQ4_NL;
}

/* 8 upper halves of floats. */
INLINE __m256 load_8_bf16(const uint8_t *p)
{
    __m256i wide = _mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)p));
    return _mm256_castsi256_ps(_mm256_slli_epi32(wide, 16));
}

/* The 16 weights of nibbles, in each 128 bits. */
INLINE __m256i listed_weights(const struct shape shape)
{
    if (shape.listed == TENSOR_F32)
        return _mm256_setzero_si256();
    __m256i listed =
        _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)quant_codebook(shape.listed)));
    return shape.listed == TENSOR_MXFP4 ? _mm256_add_epi8(listed, _mm256_set1_epi8(12)) : listed;
}

/* Group g of block `second` of a pair, 8 rows: whole numbers as in the file, but signed bytes of Q8_0 and of the
 * listed types. */
INLINE __m256i group_of(const uint8_t *values, int second, int g, const struct shape shape, __m256i listed)
{
    if (shape.bits == 8)
        return _mm256_xor_si256(load(values + 512 * second + 64 * g), _mm256_set1_epi8((char)0x80));
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

/* How many groups' products 16 bits hold: one of 2 * 128 * 127, 4 of 4 * 2 * 31 * 128 = 31744, 8 of 8 * 2 * 15 * 128 = 30720. */
INLINE int groups_in_16_bits(const struct shape shape)
{
    if (shape.bits == 8 || shape.listed == TENSOR_IQ4_NL)
        return 1;
    return shape.bits == 5 || shape.listed == TENSOR_MXFP4 ? 4 : 8; /* MXFP4: 4 * 2 * 24 * 128 = 24576 */
}

/* 32 inputs of 8 rows and m rows of activations. */
INLINE void block_dots(const uint8_t *values, int second, const uint8_t *q, size_t stride, const int m,
                       const struct shape shape, __m256i listed, __m256i *dot)
{
    const __m256i ones = _mm256_set1_epi16(1);
    const int groups = groups_in_16_bits(shape);
    __m256i pairs[ROWS_AT_ONCE];
    UNROLL
    for (int i = 0; i < m; i++)
        dot[i] = pairs[i] = _mm256_setzero_si256();
    UNROLL
    for (int g = 0; g < 8; g++) {
        __m256i w = group_of(values, second, g, shape, listed);
        UNROLL
        for (int i = 0; i < m; i++) {
            __m256i a = broadcast(q + (size_t)i * stride + 4 * g);
            /* Signed weights: |w| * (a with w's sign) */
            __m256i products = is_signed(shape)
                                   ? _mm256_maddubs_epi16(_mm256_abs_epi8(w), _mm256_sign_epi8(a, w))
                                   : _mm256_maddubs_epi16(w, a);
            pairs[i] = g == 0 ? products : _mm256_add_epi16(pairs[i], products);
            if (g % groups == groups - 1) {
                dot[i] = _mm256_add_epi32(dot[i], _mm256_madd_epi16(pairs[i], ones));
                pairs[i] = _mm256_setzero_si256();
            }
        }
    }
}

/* One block of a pair, 8 rows of a tile: `pair` and `values` start at the first of the 8. */
INLINE void block_rows(const uint8_t *pair, const uint8_t *values, int second, int half, const uint8_t *act,
                       uint32_t block, size_t stride, const int m, const struct shape shape, __m256i listed,
                       __m256 *sums)
{
    __m256i dot[ROWS_AT_ONCE];
    block_dots(values + 32 * half, second, act + 32 * block, stride, m, shape, listed, dot);
    const uint8_t *scales = pair + 32 * second + 16 * half;
    __m256 d = shape.listed == TENSOR_MXFP4 ? load_8_bf16(scales) : load_8_f16(scales);
    __m256 offset = shape.has_m ? load_8_f16(scales + PAIR_M) : d;
    UNROLL
    for (int i = 0; i < m; i++) {
        const struct act_q8_32 *a = (const struct act_q8_32 *)(act + (size_t)i * stride);
        if (!is_signed(shape) && !shape.has_m) {
            /* offset / 128 times what weights are too high by */
            __m256i offset_of = broadcast(&a->offset[block]);
            __m256i too_much = _mm256_srai_epi32(offset_of, 8 - shape.bits);
            if (shape.listed == TENSOR_MXFP4) /* 8 and 4 */
                too_much = _mm256_add_epi32(too_much, _mm256_srai_epi32(offset_of, 5));
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
    const uint8_t *pair = product_tile(p, tile);
    const uint8_t *acts = p->acts + row * p->act_stride;
    const __m256i listed = listed_weights(shape);
    tile_sums sums;
    clear_sums(sums);
    for (uint32_t b = 0; b < p->n_blocks; b++, pair += pair_bytes) {
        const uint8_t *act = acts + b / 4 * sizeof(struct act_q8_32);
        for (size_t at = 0; at < pair_bytes; at += 64)
            fetch_ahead(pair + at);
        UNROLL
        for (int second = 0; second < 2; second++)
            for (int half = 0; half < 2; half++)
                block_rows(pair, pair + values_at, second, half, act, b % 4 * 2 + (uint32_t)second,
                           p->act_stride, m, shape, listed, sums[half]);
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

void avx2_fill_matmul_32(struct kernels *kernels)
{
    kernels->matmul[TILE_32] = matmul_32;
}
