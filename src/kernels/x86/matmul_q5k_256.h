/* matmul_q5k_256.h: products of Q5_K with 256-bit vectors. The body of avx2_matmul_q5k.c and of avxvnni_matmul_q5k.c, which
 * say before including it how dot products are made (avx2_dots.h, avxvnni_dots.h). */
#include "kernels/x86/matmul_256.h"

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

/* Of both halves of a tile's block: scales of sub-blocks in each lane, mins as pairs. */
struct block_scales {
    __m256i scale[8][2], min_pairs[2][4];
};

INLINE void unpack_scales(const uint8_t *block, struct block_scales *s)
{
    for (int half = 0; half < 2; half++) {
        const struct six_bits bytes = unpack_six_bits(block + Q4K_SCALES + 32 * half);
        UNROLL
        for (int i = 0; i < 8; i++)
            s->scale[i][half] = byte_of_lanes(bytes.scales[i / 4], i % 4, DOT_SCALES_ARE_TWICE);
        pairs_of_bytes(bytes.mins, s->min_pairs[half]);
    }
}

/* isum += the scaled dot products of a sub-block of both halves of a tile and m rows of activations. */
INLINE void add_sub_block(const uint8_t *nibbles, const uint8_t *bits, const int odd, const uint8_t *q,
                          size_t stride, const int m, const __m256i scale[2], __m256i (*isum)[2])
{
    __m256i dot0[ROWS_AT_ONCE], dot1[ROWS_AT_ONCE], bits0 = load(bits), bits1 = load(bits + 32);
    UNROLL
    for (int i = 0; i < m; i++)
        dot0[i] = dot1[i] = _mm256_setzero_si256();
    UNROLL
    for (int g = 0; g < 8; g++) {
        __m256i w0 = group_of(nibbles, bits0, odd, g), w1 = group_of(nibbles + 32, bits1, odd, g);
        UNROLL
        for (int i = 0; i < m; i++) {
            dot_both(&dot0[i], &dot1[i], w0, w1, q + (size_t)i * stride + 4 * g);
            if ((g + 1) % DOT_GROUPS_OF_5_BITS == 0) {
                isum[i][0] = dot_add_scaled(isum[i][0], dot0[i], scale[0]);
                isum[i][1] = dot_add_scaled(isum[i][1], dot1[i], scale[1]);
                dot0[i] = dot1[i] = _mm256_setzero_si256();
            }
        }
    }
}

INLINE void q5k_rows(const struct product *p, uint32_t tile, uint32_t row, const int m)
{
    const uint8_t *block = product_tile(p, tile);
    const uint8_t *act = p->acts + row * p->act_stride;
    const size_t stride = p->act_stride;
    tile_sums sums;
    clear_sums(sums);
    for (uint32_t b = 0; b < p->n_blocks; b++, block += Q5K_BLOCK_BYTES, act += sizeof(struct act_q8_256)) {
        struct block_scales s;
        __m256i isum[ROWS_AT_ONCE][2];
        unpack_scales(block, &s);
        for (int i = 0; i < m; i++)
            isum[i][0] = isum[i][1] = _mm256_setzero_si256();
        for (int sub = 0; sub < 8; sub += 2) {
            const uint8_t *nibbles = block + Q4K_NIBBLES + 256 * sub, *bits = block + Q5K_BITS + 64 * sub;
            for (int i = 0; i < 11; i++)
                fetch_ahead(block + 352 * sub + 64 * i);
            add_sub_block(nibbles, bits, 0, act + 32 * sub, stride, m, s.scale[sub], isum);
            add_sub_block(nibbles, bits + 64, 1, act + 32 * sub + 32, stride, m, s.scale[sub + 1], isum);
            __asm__ volatile("" : "+m"(isum)); /* not in registers: those are for dot products */
        }
        for (int half = 0; half < 2; half++) {
            __m256 d = load_8_f16(block + 16 * half), dmin = load_8_f16(block + Q4K_DMIN + 16 * half);
            UNROLL
            for (int i = 0; i < m; i++)
                sums[half][i] = add_block(sums[half][i], isum[i][half], d, dmin, s.min_pairs[half],
                                          (const struct act_q8_256 *)(act + (size_t)i * stride));
        }
    }
    store_sums(p, tile, row, m, sums);
}

ROWS_FUNCTIONS(q5k, q5k_rows)

#include "kernels/x86/matmul_body.h"

MATMUL_ENTRY(matmul_q5_k, ACT_BLOCK, q5k)
