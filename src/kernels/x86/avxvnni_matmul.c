/* avxvnni_matmul.c: products of Q4_K and Q6_K for AVX-VNNI: the loops of avx2_matmul.c (see matmul_k_256.h) with the
 * arithmetic of avx512_matmul.c. `vpdpbusd` adds 4 products to 32 bits, so that no dot product gets too wide; those of two
 * sub-blocks become the two 16-bit halves of a lane, and one `vpdpwssd` applies both scales. Where they do not fit 16 bits,
 * which is so only if the activations of a block are all large, the slow way (`*_wide`) gives the same integers. */
#include "kernels/x86/avxvnni.h"
#include "kernels/x86/avxvnni_dots.h"
#include "kernels/x86/matmul_k_256.h"

enum {
    Q4K_NARROW_SUM16 = 32767 / (2 * 15), /* largest sum of |q| over 16 inputs for 32 products with 0 .. 15 */
    Q6K_NARROW_SUM16 = 32767 / 32,       /* and for 16 products with -32 .. 31 */
};

/* A block of a tile, ready for many rows of activations: the halves are 8 rows each; scales and mins of two sub-blocks are
 * 16-bit pairs. */
struct q4k_unpacked {
    __m256i scale_pairs[2][4], min_pairs[2][4];
    __m256 d[2], dmin[2];
    const uint8_t *nibbles;
    struct fetch fetch;
};

struct q6k_unpacked {
    __m256i scale_pairs[2][Q6K_SUBS / 2];
    struct q6k_weights weights;
    struct fetch fetch;
};

/* Whole numbers of up to 6 rows and both halves of a tile. In memory: registers are for the dot products under way. */
typedef __m256i group_sums[ROWS_OF_GROUP][2];
#define KEEP_IN_MEMORY(sums) __asm__ volatile("" : "+m"(sums))

/* Dot products as 16-bit halves of a lane, with both scales. */
INLINE __m256i add_scaled_pair(__m256i sum, __m256i even, __m256i odd_in_upper_half, __m256i scale_pair)
{
    return vnni_dot_pairs(sum, _mm256_blend_epi16(even, odd_in_upper_half, 0xaa), scale_pair);
}

/* The scale of sub-block `sub` from its pair, as 32 bits. */
INLINE __m256i scale_of_pair(__m256i pair, int sub)
{
    return _mm256_srai_epi32(sub % 2 ? pair : _mm256_slli_epi32(pair, 16), 16);
}

static void q4k_unpack(const uint8_t *block, struct q4k_unpacked *u)
{
    UNROLL
    for (int half = 0; half < 2; half++) {
        const struct six_bits bytes = unpack_six_bits(block + Q4K_SCALES + 32 * half);
        pairs_of_bytes(bytes.scales, u->scale_pairs[half]);
        pairs_of_bytes(bytes.mins, u->min_pairs[half]);
        u->d[half] = load_8_f16(block + 16 * half);
        u->dmin[half] = load_8_f16(block + Q4K_DMIN + 16 * half);
    }
    u->nibbles = block + Q4K_NIBBLES;
}

/* The scaled sum of half a tile's block and a row of activations of any size. */
static __attribute__((noinline)) __m256i q4k_wide(const struct q4k_unpacked *u, int half,
                                                  const struct act_q8_256 *a)
{
    __m256i sum = _mm256_setzero_si256();
    for (int sub = 0; sub < 8; sub++) {
        const uint8_t *nibbles = u->nibbles + 512 * (sub / 2) + 32 * half;
        __m256i dot = _mm256_setzero_si256();
        for (int g = 0; g < 8; g++) {
            __m256i w = load(nibbles + 64 * g);
            w = _mm256_and_si256(sub % 2 ? _mm256_srli_epi16(w, 4) : w, _mm256_set1_epi8(0x0f));
            dot = vnni_dot_bytes(dot, w, broadcast(a->q + 32 * sub + 4 * g));
        }
        sum = dot_add_scaled(sum, dot, scale_of_pair(u->scale_pairs[half][sub / 2], sub));
    }
    return sum;
}

/* The 32 inputs of a sub-block, whose nibbles are the ones in `mask`: the upper ones come out 16 times too large. */
INLINE void q4k_dots(const uint8_t *nibbles, __m256i mask, const uint8_t *q, size_t stride, const int m,
                     __m256i *dot0, __m256i *dot1)
{
    UNROLL
    for (int i = 0; i < m; i++)
        dot0[i] = dot1[i] = _mm256_setzero_si256();
    UNROLL
    for (int g = 0; g < 8; g++) {
        __m256i w0 = _mm256_and_si256(load(nibbles + 64 * g), mask);
        __m256i w1 = _mm256_and_si256(load(nibbles + 64 * g + 32), mask);
        UNROLL
        for (int i = 0; i < m; i++)
            dot_both(&dot0[i], &dot1[i], w0, w1, q + (size_t)i * stride + 4 * g);
    }
}

INLINE void q4k_group(struct q4k_unpacked *u, const uint8_t *act, size_t stride, const int m,
                      __m256 (*sums)[2])
{
    group_sums isum, odd;
    __m256i dot0[ROWS_OF_GROUP], dot1[ROWS_OF_GROUP];
    for (int i = 0; i < m; i++)
        isum[i][0] = isum[i][1] = _mm256_setzero_si256();
    const uint8_t *nibbles = u->nibbles, *q = act;
    for (int pair = 0; pair < 4; pair++, nibbles += 512, q += 64) {
        fetch_step(&u->fetch);
        q4k_dots(nibbles, _mm256_set1_epi8((char)0xf0), q + 32, stride, m, dot0, dot1);
        UNROLL
        for (int i = 0; i < m; i++) { /* 16 times too large already: up by 12 bits */
            odd[i][0] = _mm256_slli_epi32(dot0[i], 12);
            odd[i][1] = _mm256_slli_epi32(dot1[i], 12);
        }
        KEEP_IN_MEMORY(odd);
        q4k_dots(nibbles, _mm256_set1_epi8(0x0f), q, stride, m, dot0, dot1);
        UNROLL
        for (int i = 0; i < m; i++) {
            isum[i][0] = add_scaled_pair(isum[i][0], dot0[i], odd[i][0], u->scale_pairs[0][pair]);
            isum[i][1] = add_scaled_pair(isum[i][1], dot1[i], odd[i][1], u->scale_pairs[1][pair]);
        }
        KEEP_IN_MEMORY(isum);
    }
    for (int i = 0; i < m; i++) {
        const struct act_q8_256 *a = act_of_row(act, stride, i);
        const bool is_wide = __builtin_expect(a->largest_sum16 > Q4K_NARROW_SUM16, 0);
        UNROLL
        for (int half = 0; half < 2; half++)
            sums[i][half] = add_block(sums[i][half], is_wide ? q4k_wide(u, half, a) : isum[i][half],
                                      u->d[half], u->dmin[half], u->min_pairs[half], a);
    }
}

static void q6k_unpack(const uint8_t *d, const uint8_t *block, struct q6k_unpacked *u)
{
    for (int half = 0; half < 2; half++) {
        for (int c = 0; c < 4; c++)
            q6k_unpack_scales(block, half, c, u->scale_pairs[half] + 2 * c);
        q6k_unpack_weights(d, block, half, &u->weights);
    }
}

INLINE void q6k_starts(const struct act_q8_256 *a, starts_of_row starts)
{
    UNROLL
    for (int i = 0; i < Q6K_SUBS; i += 8) {
        __m256i sums = _mm256_cvtepi16_epi32(_mm_loadu_si128((const __m128i *)(a->sum16 + i)));
        sums = _mm256_sub_epi32(_mm256_setzero_si256(), _mm256_slli_epi32(sums, 5));
        _mm256_storeu_si256((__m256i *)(starts + i), sums);
    }
}

static __attribute__((noinline)) __m256i q6k_wide(const struct q6k_unpacked *u, int half,
                                                  const struct act_q8_256 *a)
{
    __m256i sum = _mm256_setzero_si256();
    for (int sub = 0; sub < Q6K_SUBS; sub++) {
        __m256i dot = _mm256_set1_epi32(-32 * a->sum16[sub]);
        for (int j = 0; j < 4; j++)
            dot = vnni_dot_bytes(dot, u->weights.w[sub][j][half], broadcast(a->q + 16 * sub + 4 * j));
        sum = dot_add_scaled(sum, dot, scale_of_pair(u->scale_pairs[half][sub / 2], sub));
    }
    return sum;
}

/* The 16 inputs of a sub-block. */
INLINE void q6k_dots(struct q6k_unpacked *u, const starts_of_row *starts, int sub, const uint8_t *act,
                     size_t stride, const int m, __m256i *dot0, __m256i *dot1)
{
    UNROLL
    for (int i = 0; i < m; i++)
        dot0[i] = dot1[i] = broadcast(&starts[i][sub]);
    UNROLL
    for (int j = 0; j < 4; j++) {
        __m256i w0 = u->weights.w[sub][j][0], w1 = u->weights.w[sub][j][1];
        UNROLL
        for (int i = 0; i < m; i++)
            dot_both(&dot0[i], &dot1[i], w0, w1, act + (size_t)i * stride + 16 * sub + 4 * j);
    }
}

INLINE void q6k_group(struct q6k_unpacked *u, const starts_of_row *starts, const uint8_t *act, size_t stride,
                      const int m, __m256 (*sums)[2])
{
    group_sums isum, odd;
    __m256i dot0[ROWS_OF_GROUP], dot1[ROWS_OF_GROUP];
    for (int i = 0; i < m; i++)
        isum[i][0] = isum[i][1] = _mm256_setzero_si256();
    for (int pair = 0; pair < Q6K_SUBS / 2; pair++) {
        fetch_step(&u->fetch);
        fetch_step(&u->fetch);
        q6k_dots(u, starts, 2 * pair + 1, act, stride, m, dot0, dot1);
        UNROLL
        for (int i = 0; i < m; i++) {
            odd[i][0] = _mm256_slli_epi32(dot0[i], 16);
            odd[i][1] = _mm256_slli_epi32(dot1[i], 16);
        }
        KEEP_IN_MEMORY(odd);
        q6k_dots(u, starts, 2 * pair, act, stride, m, dot0, dot1);
        UNROLL
        for (int i = 0; i < m; i++) {
            isum[i][0] = add_scaled_pair(isum[i][0], dot0[i], odd[i][0], u->scale_pairs[0][pair]);
            isum[i][1] = add_scaled_pair(isum[i][1], dot1[i], odd[i][1], u->scale_pairs[1][pair]);
        }
        KEEP_IN_MEMORY(isum);
    }
    for (int i = 0; i < m; i++) {
        const struct act_q8_256 *a = act_of_row(act, stride, i);
        const bool is_wide = __builtin_expect(a->largest_sum16 > Q6K_NARROW_SUM16, 0);
        __m256 d_act = _mm256_set1_ps(a->d);
        UNROLL
        for (int half = 0; half < 2; half++) {
            __m256i whole = is_wide ? q6k_wide(u, half, a) : isum[i][half];
            sums[i][half] = q6k_add_block(sums[i][half], whole, u->weights.d[half], d_act);
        }
    }
}

#include "kernels/x86/matmul_k_256_body.h"

void avxvnni_fill_matmul(struct kernels *kernels)
{
    fill_matmul_k(kernels);
}
