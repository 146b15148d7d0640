/* avx512_matmul_32.c: products of the types with blocks of 32 values, for AVX-512 VNNI; built like
 * avx512_matmul.c. Owns nothing; any thread.
 *
 * Weights without an m are made so large that they are 128 too high, whatever the type: then all sums of dot
 * products start at the activations' `offset` and need no other correction. */
#include "kernels/x86/avx512_vectors.h"

enum {
    ACT_D = offsetof(struct act_q8_32, d),
    ACT_D_SUM = offsetof(struct act_q8_32, d_sum),
    ACT_OFFSET = offsetof(struct act_q8_32, offset),
};

INLINE __m512 broadcast_f32(const void *p)
{
    return _mm512_castsi512_ps(broadcast(p));
}

/* Bits a weight; how many bits too large the weights of the two blocks of a pair are used; what weights are looked up in a list
 * by their nibbles, and then are 128 too high. */
struct shape {
    int bits;
    bool has_m;
    int shift[2];
    enum tensor_type listed; /* IQ4_NL or MXFP4; TENSOR_F32: none */
};

/* The weights that nibbles look up, 128 too high. */
INLINE __m512i listed_of_shape(const struct shape shape)
{
    if (shape.listed == TENSOR_F32)
        return _mm512_setzero_si512();
    return _mm512_xor_si512(listed_weights(shape.listed), _mm512_set1_epi8((char)0x80));
}

/* Group g of block `second` of a pair. */
INLINE __m512i group_of(const uint8_t *values, int second, int g, const struct shape shape, __m512i listed)
{
    if (shape.bits == 8)
        return load(values + 512 * second + 64 * g);
    const int shift = second ? 0 : shape.shift[0]; /* the second block's nibbles are used where they lie */
    __m512i nibbles = load(values + 64 * g);
    if (shape.listed != TENSOR_F32) {
        nibbles = second ? _mm512_srli_epi16(nibbles, 4) : nibbles;
        return _mm512_shuffle_epi8(listed, _mm512_and_si512(nibbles, _mm512_set1_epi8(0x0f)));
    }
    if (shift > 0)
        nibbles = _mm512_slli_epi16(nibbles, (unsigned)shift);
    nibbles = _mm512_and_si512(nibbles, _mm512_set1_epi8((char)(second ? 0xf0 : 0x0f << shift)));
    if (shape.bits == 4)
        return nibbles;
    __m512i fifth = load(values + PAIR_BITS_VECTOR + 64 * second);
    const int place = second ? 3 : 4 + shift; /* where bit g of a byte has to go */
    if (g > place)
        fifth = _mm512_srli_epi16(fifth, (unsigned)(g - place));
    if (g < place)
        fifth = _mm512_slli_epi16(fifth, (unsigned)(place - g));
    /* nibbles | (fifth & mask) */
    return _mm512_ternarylogic_epi32(nibbles, fifth, _mm512_set1_epi8((char)(1 << place)), 0xf8);
}

INLINE void pair_rows(const struct product *p, uint32_t tile, uint32_t row, const int m,
                      const struct shape shape)
{
    const int fetching_rows = shape.bits == 8 ? 5 : 3; /* with fewer the hardware does better alone */
    const size_t values_at = shape.has_m ? 128 : 64, pair_bytes = values_at + 128 * (size_t)shape.bits;
    const uint8_t *pair = product_tile(p, tile), *acts[ROWS_AT_ONCE];
    const __m512i listed = listed_of_shape(shape);
    __m512 sums[ROWS_AT_ONCE];
    UNROLL
    for (int i = 0; i < m; i++) {
        sums[i] = _mm512_setzero_ps();
        acts[i] = p->acts + (row + (uint32_t)i) * p->act_stride;
        KEEP_IN_REGISTER(acts[i]);
    }
    for (uint32_t b = 0; b < p->n_blocks; b++, pair += pair_bytes) {
        const uint8_t *values = pair + values_at;
        const size_t block = b / 4 * sizeof(struct act_q8_32), q = block + 64 * (b % 4),
                     scales = block + 8 * (b % 4);
        UNROLL
        for (size_t at = 0; at < pair_bytes && m >= fetching_rows; at += 64)
            fetch_ahead(pair + at);
        UNROLL
        for (int second = 0; second < 2; second++) {
            __m512i dot[ROWS_AT_ONCE];
            UNROLL
            for (int i = 0; i < m; i++)
                dot[i] = shape.has_m ? _mm512_setzero_si512()
                                     : broadcast(acts[i] + scales + ACT_OFFSET + 4 * second);
            UNROLL
            for (int g = 0; g < 8; g++) {
                __m512i w = group_of(values, second, g, shape, listed);
                UNROLL
                for (int i = 0; i < m; i++)
                    dot[i] = dot4(dot[i], w, acts[i] + q + 32 * second + 4 * g);
            }
            __m512 d =
                shape.listed == TENSOR_MXFP4 ? load_bf16(pair + 32 * second) : load_f16(pair + 32 * second);
            if (shape.shift[second] > 0)
                d = _mm512_mul_ps(d, _mm512_set1_ps(1.0f / (float)(1 << shape.shift[second])));
            __m512 offset = shape.has_m ? load_f16(pair + PAIR_M + 32 * second) : d;
            UNROLL
            for (int i = 0; i < m; i++) {
                __m512 scale = _mm512_mul_ps(d, broadcast_f32(acts[i] + scales + ACT_D + 4 * second));
                sums[i] = _mm512_fmadd_ps(scale, _mm512_cvtepi32_ps(dot[i]), sums[i]);
                if (shape.has_m)
                    sums[i] = _mm512_fmadd_ps(
                        offset, broadcast_f32(acts[i] + scales + ACT_D_SUM + 4 * second), sums[i]);
            }
        }
    }
    store_sums(p, tile, row, m, sums);
}

ROWS_FUNCTIONS(q8_0, pair_rows, (struct shape){8, false, {0, 0}, TENSOR_F32})
ROWS_FUNCTIONS(q4_0, pair_rows, (struct shape){4, false, {4, 4}, TENSOR_F32})
ROWS_FUNCTIONS(q4_1, pair_rows, (struct shape){4, true, {0, 4}, TENSOR_F32})
ROWS_FUNCTIONS(q5_0, pair_rows, (struct shape){5, false, {3, 3}, TENSOR_F32})
ROWS_FUNCTIONS(q5_1, pair_rows, (struct shape){5, true, {0, 3}, TENSOR_F32})
ROWS_FUNCTIONS(iq4_nl, pair_rows, (struct shape){4, false, {0, 0}, TENSOR_IQ4_NL})
ROWS_FUNCTIONS(mxfp4, pair_rows, (struct shape){4, false, {0, 0}, TENSOR_MXFP4})

#include "kernels/x86/matmul_32_body.h"

void avx512_matmul_32(const struct matmul_args *args, uint32_t tile_begin, uint32_t tile_end)
{
    matmul_32(args, tile_begin, tile_end);
}

void avx512_fill_matmul_32(struct kernels *kernels)
{
    kernels->matmul[TILE_32] = avx512_matmul_32;
}
