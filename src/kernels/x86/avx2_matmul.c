/* avx2_matmul.c: products of Q4_K and Q6_K without VNNI. A group (16 rows x 4 inputs) is two ymm of
 * unsigned bytes; `vpmaddubsw` multiplies one with 4 activations broadcast to all lanes and adds pairs to
 * 16 bits; lanes of 32 bits are rows, and nothing is shuffled.
 *
 * Products of a sub-block are added in 16 bits, two for each lane, which holds them exactly (bounds are at
 * each place, for activations of -127 .. 127, which is what quantising gives); then one `vpmaddwd`
 * multiplies them with the sub-block's scale, adds the two and widens to 32 bits. */
#include "kernels/x86/avx2.h"
#include "kernels/x86/avx2_dots.h"
#include "kernels/x86/matmul_k_256.h"

/* A block of a tile, ready for many rows of activations: the halves are 8 rows each. */
struct q4k_unpacked {
    __m256i scale[8][2], min_pairs[2][4];
    __m256 d[2], dmin[2];
    const uint8_t *nibbles;
    struct fetch fetch;
};

struct q6k_unpacked {
    __m256i scale[Q6K_SUBS][2];
    struct q6k_weights weights;
    struct fetch fetch;
};

static void q4k_unpack(const uint8_t *block, struct q4k_unpacked *u)
{
    UNROLL
    for (int half = 0; half < 2; half++) {
        const struct six_bits bytes = unpack_six_bits(block + Q4K_SCALES + 32 * half);
        UNROLL
        for (int i = 0; i < 8; i++)
            u->scale[i][half] = byte_of_lanes(bytes.scales[i / 4], i % 4, DOT_SCALES_ARE_TWICE);
        pairs_of_bytes(bytes.mins, u->min_pairs[half]);
        u->d[half] = load_8_f16(block + 16 * half);
        u->dmin[half] = load_8_f16(block + Q4K_DMIN + 16 * half);
    }
    u->nibbles = block + Q4K_NIBBLES;
}

INLINE void q4k_group(struct q4k_unpacked *u, const uint8_t *act, size_t stride, const int m,
                      __m256 (*sums)[2])
{
    const __m256i low = _mm256_set1_epi8(0x0f);
    __m256i isum[ROWS_OF_GROUP][2];
    for (int i = 0; i < m; i++)
        isum[i][0] = isum[i][1] = _mm256_setzero_si256();
    const uint8_t *nibbles = u->nibbles, *q = act;
    for (int sub = 0; sub < 8; sub += 2, nibbles += 512) {
        fetch_step(&u->fetch);
        UNROLL
        for (int odd = 0; odd < 2; odd++, q += 32) {
            __m256i dot0[ROWS_OF_GROUP], dot1[ROWS_OF_GROUP];
            UNROLL
            for (int g = 0; g < 8; g++) { /* 16 bits hold 8 groups: 8 * 2 * 15 * 127 = 30480 */
                __m256i w0 = load(nibbles + 64 * g), w1 = load(nibbles + 64 * g + 32);
                w0 = _mm256_and_si256(odd ? _mm256_srli_epi16(w0, 4) : w0, low);
                w1 = _mm256_and_si256(odd ? _mm256_srli_epi16(w1, 4) : w1, low);
                UNROLL
                for (int i = 0; i < m; i++) {
                    const uint8_t *four = q + (size_t)i * stride + 4 * g;
                    if (g > 0) {
                        dot_both(&dot0[i], &dot1[i], w0, w1, four);
                        continue;
                    }
                    dot0[i] = _mm256_maddubs_epi16(w0, broadcast(four));
                    dot1[i] = _mm256_maddubs_epi16(w1, broadcast(four));
                }
            }
            UNROLL
            for (int i = 0; i < m; i++) {
                isum[i][0] = dot_add_scaled(isum[i][0], dot0[i], u->scale[sub + odd][0]);
                isum[i][1] = dot_add_scaled(isum[i][1], dot1[i], u->scale[sub + odd][1]);
            }
            __asm__ volatile("" : "+m"(isum)); /* not in registers: those are for dot products */
        }
    }
    for (int i = 0; i < m; i++) {
        UNROLL
        for (int half = 0; half < 2; half++)
            sums[i][half] = add_block(sums[i][half], isum[i][half], u->d[half], u->dmin[half],
                                      u->min_pairs[half], act_of_row(act, stride, i));
    }
}

static void q6k_unpack(const uint8_t *d, const uint8_t *block, struct q6k_unpacked *u)
{
    for (int half = 0; half < 2; half++) {
        for (int c = 0; c < 4; c++) {
            __m256i pairs[2];
            q6k_unpack_scales(block, half, c, pairs);
            for (int k = 0; k < 4; k += 2) {
                __m256i pair = pairs[k / 2];
                u->scale[4 * c + k][half] = _mm256_blend_epi16(pair, _mm256_slli_epi32(pair, 16), 0xaa);
                u->scale[4 * c + k + 1][half] = _mm256_blend_epi16(pair, _mm256_srli_epi32(pair, 16), 0x55);
            }
        }
        q6k_unpack_weights(d, block, half, &u->weights);
    }
}

/* Weights are 32 too high. 16 bits hold the 4 products of a half lane as they should be (8 * 32 * 127 =
 * 32512) but not the unsigned ones, so sums start from -32 times the activations: what overflows between
 * comes back. */
INLINE void q6k_starts(const struct act_q8_256 *a, starts_of_row starts)
{
    const __m256i ones = _mm256_set1_epi8(1);
    UNROLL
    for (int i = 0; i < 8; i++) { /* 2 sub-blocks: the 128-bit halves */
        __m256i sums = _mm256_maddubs_epi16(ones, load(a->q + 32 * i));
        sums = _mm256_add_epi16(sums, _mm256_shuffle_epi32(sums, 0x4e));
        sums = _mm256_add_epi16(sums, _mm256_shuffle_epi32(sums, 0xb1));
        sums = _mm256_sub_epi16(_mm256_setzero_si256(), _mm256_slli_epi16(sums, 5));
        starts[2 * i] = _mm256_extract_epi32(sums, 0);
        starts[2 * i + 1] = _mm256_extract_epi32(sums, 4);
    }
}

INLINE void q6k_group(struct q6k_unpacked *u, const starts_of_row *starts, const uint8_t *act, size_t stride,
                      const int m, __m256 (*sums)[2])
{
    __m256i isum[ROWS_OF_GROUP][2];
    for (int i = 0; i < m; i++)
        isum[i][0] = isum[i][1] = _mm256_setzero_si256();
    const uint8_t *q = act;
    for (int sub = 0; sub < Q6K_SUBS; sub++, q += 16) {
        fetch_step(&u->fetch);
        __m256i dot0[ROWS_OF_GROUP], dot1[ROWS_OF_GROUP];
        UNROLL
        for (int i = 0; i < m; i++)
            dot0[i] = dot1[i] = broadcast(&starts[i][sub]);
        UNROLL
        for (int j = 0; j < 4; j++) {
            __m256i w0 = u->weights.w[sub][j][0], w1 = u->weights.w[sub][j][1];
            UNROLL
            for (int i = 0; i < m; i++)
                dot_both(&dot0[i], &dot1[i], w0, w1, q + (size_t)i * stride + 4 * j);
        }
        UNROLL
        for (int i = 0; i < m; i++) {
            isum[i][0] = dot_add_scaled(isum[i][0], dot0[i], u->scale[sub][0]);
            isum[i][1] = dot_add_scaled(isum[i][1], dot1[i], u->scale[sub][1]);
        }
        __asm__ volatile("" : "+m"(isum)); /* not in registers: those are for dot products */
    }
    for (int i = 0; i < m; i++) {
        __m256 d_act = _mm256_set1_ps(act_of_row(act, stride, i)->d);
        UNROLL
        for (int half = 0; half < 2; half++)
            sums[i][half] = q6k_add_block(sums[i][half], isum[i][half], u->weights.d[half], d_act);
    }
}

#include "kernels/x86/matmul_k_256_body.h"

void avx2_fill_matmul(struct kernels *kernels)
{
    fill_matmul_k(kernels);
}
