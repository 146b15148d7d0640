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

/* One block of 8 rows of a tile. */
INLINE void q5k_block(const uint8_t *block, int half, const uint8_t *act, size_t stride, const int m,
                      __m256 *sums)
{
    const struct six_bits bytes = unpack_six_bits(block + Q4K_SCALES + 32 * half);
    __m256i min_pairs[4], scales[8];
    __m256i isum[ROWS_AT_ONCE], dot[ROWS_AT_ONCE];
    pairs_of_bytes(bytes.mins, min_pairs);
    UNROLL
    for (int i = 0; i < 8; i++)
        scales[i] = byte_of_lanes(bytes.scales[i / 4], i % 4, DOT_SCALES_ARE_TWICE);
    UNROLL
    for (int i = 0; i < m; i++)
        isum[i] = _mm256_setzero_si256();
    for (int sub = 0; sub < 8; sub++) {
        const uint8_t *nibbles = block + Q4K_NIBBLES + 256 * (sub & ~1) + 32 * half, *q = act + 32 * sub;
        __m256i bits = load(block + Q5K_BITS + 64 * sub + 32 * half);
        UNROLL
        for (int g = 0; g < 8; g++) {
            __m256i w = sub % 2 ? group_of(nibbles, bits, 1, g) : group_of(nibbles, bits, 0, g);
            UNROLL
            for (int i = 0; i < m; i++) {
                __m256i a = broadcast(q + (size_t)i * stride + 4 * g);
                dot[i] = g % DOT_GROUPS_OF_5_BITS == 0 ? dot_first(w, a) : dot_next(dot[i], w, a);
                if ((g + 1) % DOT_GROUPS_OF_5_BITS == 0)
                    isum[i] = dot_add_scaled(isum[i], dot[i], scales[sub]);
            }
        }
    }
    __m256 d = load_8_f16(block + 16 * half), dmin = load_8_f16(block + Q4K_DMIN + 16 * half);
    UNROLL
    for (int i = 0; i < m; i++)
        sums[i] = add_block(sums[i], isum[i], d, dmin, min_pairs,
                            (const struct act_q8_256 *)(act + (size_t)i * stride));
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
