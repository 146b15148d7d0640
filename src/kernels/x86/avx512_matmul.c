/* avx512_matmul.c: products of Q4_K and Q6_K with VNNI. One zmm holds a group (16 rows x 4 inputs) of unsigned
 * weights; `vpdpbusd` multiplies it with 4 activations broadcast to all lanes, so that lanes are rows and
 * nothing is ever shuffled. Multiplications of all kinds want the same ports, of which a block has little to
 * spare: two sub-blocks are scaled by one.
 *
 * A tile meets up to 8 rows of activations at once, all sums in registers. Weights are unpacked in registers
 * again for each such group of rows: the ports that unpack have nothing else to do while the multipliers
 * work. A call goes through 4 tiles at a time, so that a group of activation rows, once in L1, is used 4
 * times, and the tiles stay in L2. Lanes of rows past n_rows compute on zeros and are not stored. */
#include "kernels/x86/avx512_vectors.h"

/* The dot products of two sub-blocks become the two 16-bit halves of a lane, so that one `vpdpwssd` applies both
 * scales. That wants dot products within 16 bits, which is so whenever the activations of a block are not all
 * large; the others take the slow way (`*_wide`): the same integers. */
enum {
    Q4K_NARROW_SUM16 = 32767 / (2 * 15), /* largest sum of |q| over 16 inputs for 32 products with 0 .. 15 */
    Q6K_NARROW_SUM16 = 32767 / 32,       /* and for 16 products with -32 .. 31 */
};

typedef __m512i wide_function(const uint8_t *block, const struct act_q8_256 *a);

/* Does again what went wrong because a dot product did not fit. Seldom needed. */
INLINE void redo_wide(const uint8_t *block, const uint8_t *act, size_t stride, int m, uint32_t limit,
                      wide_function *wide, __m512i *isum)
{
    UNROLL
    for (int i = 0; i < m; i++) {
        const struct act_q8_256 *a = (const struct act_q8_256 *)(act + (size_t)i * stride);
        if (__builtin_expect(a->largest_sum16 > limit, 0))
            isum[i] = wide(block, a);
    }
}

/* fetch_ahead, which stays where it is written. */
INLINE void fetch(const uint8_t *p)
{
    __asm__ volatile("prefetcht1 %0" ::"m"(p[8 * Q4K_BLOCK_BYTES]));
}

/* Lanes of the lower half of one and the upper half of the other. */
INLINE __m512i halves(__m512i low, __m512i high)
{
    return _mm512_mask_blend_epi16(0xaaaaaaaa, low, high);
}

/* The scaled sum of a block and a row of activations of any size. */
static __attribute__((noinline)) __m512i q4k_wide(const uint8_t *block, const struct act_q8_256 *a)
{
    const __m512i low = _mm512_set1_epi8(0x0f);
    struct q4k_scales s;
    __m512i sum = _mm512_setzero_si512();
    q4k_unpack_scales(block, &s);
    UNROLL
    for (int sub = 0; sub < 8; sub++) {
        const uint8_t *nibbles = block + Q4K_NIBBLES + 256 * (sub & ~1);
        __m512i dot = _mm512_setzero_si512(), pair = s.scale_pairs[sub / 2];
        for (int g = 0; g < 8; g++) {
            __m512i w = load(nibbles + 64 * g);
            w = _mm512_and_si512(sub % 2 ? _mm512_srli_epi16(w, 4) : w, low);
            dot = _mm512_dpbusd_epi32(dot, w, broadcast(a->q + 32 * sub + 4 * g));
        }
        __m512i scale = _mm512_srli_epi32(sub % 2 ? pair : _mm512_slli_epi32(pair, 16), 16);
        sum = _mm512_add_epi32(sum, _mm512_mullo_epi32(dot, scale));
    }
    return sum;
}

INLINE void q4k_fetch(const uint8_t *line, const int m)
{
    if (m == 1)
        fetch_in_order(line, 5);
    else if (m >= 3) /* with two rows the hardware does better alone */
        fetch(line);
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
        __m512i isum[ROWS_AT_ONCE], even[ROWS_AT_ONCE], odd[ROWS_AT_ONCE];
        q4k_unpack_scales(block, &s);
        UNROLL
        for (int i = 0; i < m; i++)
            isum[i] = _mm512_setzero_si512();
        for (int pair = 0; pair < 4; pair++) {
            const uint8_t *nibbles = block + Q4K_NIBBLES + 512 * pair, *q = act + 64 * pair;
            q4k_fetch(block + 64 * pair, m);
            UNROLL
            for (int i = 0; i < m; i++)
                odd[i] = _mm512_setzero_si512();
            UNROLL
            for (int g = 0; g < 8; g++) {
                __m512i w = _mm512_and_si512(load(nibbles + 64 * g), high);
                q4k_fetch(nibbles + 64 * g, m);
                UNROLL
                for (int i = 0; i < m; i++)
                    odd[i] = dot4(odd[i], w, q + (size_t)i * stride + 32 + 4 * g);
            }
            UNROLL
            for (int i = 0; i < m; i++)
                even[i] = _mm512_setzero_si512();
            UNROLL
            for (int g = 0; g < 8; g++) {
                __m512i w = _mm512_and_si512(load(nibbles + 64 * g), low);
                UNROLL
                for (int i = 0; i < m; i++)
                    even[i] = dot4(even[i], w, q + (size_t)i * stride + 4 * g);
            }
            /* The odd sub-block is used where it lies, 16 times too large, and so moves up by 12 bits. */
            UNROLL
            for (int i = 0; i < m; i++)
                isum[i] = _mm512_dpwssd_epi32(isum[i], halves(even[i], _mm512_slli_epi32(odd[i], 12)),
                                              s.scale_pairs[pair]);
        }
        redo_wide(block, act, stride, m, Q4K_NARROW_SUM16, q4k_wide, isum);
        __m512 d = load_f16(block), dmin = load_f16(block + Q4K_DMIN);
        UNROLL
        for (int i = 0; i < m; i++) {
            const struct act_q8_256 *a = (const struct act_q8_256 *)(act + (size_t)i * stride);
            __m512i msum = _mm512_setzero_si512();
            UNROLL
            for (int j = 0; j < 4; j++)
                msum = _mm512_dpwssd_epi32(msum, s.min_pairs[j], broadcast(&a->sum32[2 * j]));
            __m512 d_act = _mm512_set1_ps(a->d);
            sums[i] = _mm512_fmadd_ps(_mm512_mul_ps(d, d_act), _mm512_cvtepi32_ps(isum[i]), sums[i]);
            sums[i] = _mm512_fnmadd_ps(_mm512_mul_ps(dmin, d_act), _mm512_cvtepi32_ps(msum), sums[i]);
        }
    }
    store_sums(p, tile, row, m, sums);
}

/* Scales of a Q6_K block as 16-bit pairs of sub-blocks 2i and 2i+1. */
INLINE void q6k_unpack_scales(const uint8_t *block, __m512i pairs[8])
{
    UNROLL
    for (int c = 0; c < 4; c++)
        signed_pairs(load(block + 64 * c), pairs + 2 * c);
}

/* The scaled sum of a block and a row of activations of any size. */
static __attribute__((noinline)) __m512i q6k_wide(const uint8_t *block, const struct act_q8_256 *a)
{
    __m512i pairs[8], sum = _mm512_setzero_si512();
    q6k_unpack_scales(block, pairs);
    UNROLL
    for (int sub = 0; sub < 16; sub++) {
        __m512i dot = _mm512_setzero_si512(), pair = pairs[sub / 2];
        UNROLL
        for (int j = 0; j < 4; j++) {
            __m512i w = q6k_group(block + Q6K_CHUNKS + Q6K_CHUNK_BYTES * (sub / 4), sub % 4, j);
            dot = _mm512_dpbusd_epi32(dot, w, broadcast(a->q + 16 * sub + 4 * j));
        }
        if (sub % 2)
            dot = _mm512_srai_epi32(dot, 2);
        dot = _mm512_sub_epi32(dot, _mm512_set1_epi32(32 * a->sum16[sub]));
        __m512i scale = _mm512_srai_epi32(sub % 2 ? pair : _mm512_slli_epi32(pair, 16), 16);
        sum = _mm512_add_epi32(sum, _mm512_mullo_epi32(dot, scale));
    }
    return sum;
}

/* What the sums of sub-blocks 2i and 2i+1 start from: minus what weights that are 32 too high add. Of the even ones
 * the lower 16 bits count; of the odd ones 18, as they come out 4 times too large. */
struct q6k_starts {
    _Alignas(32) int32_t even[8], odd[8];
};

INLINE void q6k_starts(const struct act_q8_256 *a, struct q6k_starts *starts)
{
    __m256i sums = _mm256_loadu_si256((const __m256i *)a->sum16);
    sums = _mm256_sub_epi16(_mm256_setzero_si256(), _mm256_slli_epi16(sums, 5));
    _mm256_store_si256((__m256i *)starts->even, sums);
    _mm256_store_si256((__m256i *)starts->odd, _mm256_slli_epi32(_mm256_srli_epi32(sums, 16), 2));
}

/* A line that will be wanted: called for the lines of a block as they lie. */
INLINE void q6k_fetch(const uint8_t *line, const int m)
{
    if (m == 1)
        fetch_in_order(line, 8);
    else
        fetch(line);
}

INLINE void q6k_rows(const struct product *p, uint32_t tile, uint32_t row, const int m)
{
    const uint8_t *d_of_blocks = product_tile(p, tile);
    const uint8_t *block = d_of_blocks + p->header_bytes;
    const uint8_t *act = p->acts + row * p->act_stride;
    const size_t stride = p->act_stride;
    struct q6k_starts starts[ROWS_AT_ONCE];
    __m512 sums[ROWS_AT_ONCE];
    UNROLL
    for (int i = 0; i < m; i++)
        sums[i] = _mm512_setzero_ps();
    for (uint32_t b = 0; b < p->n_blocks; b++, block += Q6K_BLOCK_BYTES, act += sizeof(struct act_q8_256)) {
        __m512i isum[ROWS_AT_ONCE], even[ROWS_AT_ONCE], odd[ROWS_AT_ONCE];
        UNROLL
        for (int i = 0; i < m; i++) {
            isum[i] = _mm512_setzero_si512();
            q6k_starts((const struct act_q8_256 *)(act + (size_t)i * stride), &starts[i]);
        }
        for (int c = 0; c < 4; c++) {
            const uint8_t *chunk = block + Q6K_CHUNKS + Q6K_CHUNK_BYTES * c, *q = act + 64 * c;
            __m512i word = load(block + 64 * c);
            q6k_fetch(block + 64 * c, m);
            UNROLL
            for (int k = 0; k < 4; k += 2, q += 32) {
                UNROLL
                for (int i = 0; i < m; i++)
                    odd[i] = broadcast(&starts[i].odd[2 * c + k / 2]);
                UNROLL
                for (int j = 0; j < 4; j++) {
                    __m512i w = q6k_group(chunk, k + 1, j);
                    q6k_fetch(chunk + 64 * (6 * (k / 2) + j), m);
                    UNROLL
                    for (int i = 0; i < m; i++)
                        odd[i] = dot4(odd[i], w, q + (size_t)i * stride + 16 + 4 * j);
                }
                UNROLL
                for (int i = 0; i < m; i++)
                    even[i] = broadcast(&starts[i].even[2 * c + k / 2]);
                UNROLL
                for (int j = 0; j < 4; j++) {
                    __m512i w = q6k_group(chunk, k, j);
                    if (j < 2)
                        q6k_fetch(chunk + 64 * (6 * (k / 2) + 4 + j), m);
                    UNROLL
                    for (int i = 0; i < m; i++)
                        even[i] = dot4(even[i], w, q + (size_t)i * stride + 4 * j);
                }
                __m512i pair = _mm512_srai_epi16(k ? word : _mm512_slli_epi16(word, 8), 8);
                /* The odd sub-block comes out 4 times too large, and so moves up by 14 bits. */
                UNROLL
                for (int i = 0; i < m; i++)
                    isum[i] =
                        _mm512_dpwssd_epi32(isum[i], halves(even[i], _mm512_slli_epi32(odd[i], 14)), pair);
            }
        }
        redo_wide(block, act, stride, m, Q6K_NARROW_SUM16, q6k_wide, isum);
        __m512 d = load_f16(d_of_blocks + 32 * (size_t)b);
        UNROLL
        for (int i = 0; i < m; i++) {
            const struct act_q8_256 *a = (const struct act_q8_256 *)(act + (size_t)i * stride);
            sums[i] =
                _mm512_fmadd_ps(_mm512_mul_ps(d, _mm512_set1_ps(a->d)), _mm512_cvtepi32_ps(isum[i]), sums[i]);
        }
    }
    store_sums(p, tile, row, m, sums);
}

ROWS_FUNCTIONS(q4k, q4k_rows)
ROWS_FUNCTIONS(q6k, q6k_rows)

#include "kernels/x86/matmul_body.h"

MATMUL_FUNCTION(avx512_matmul_q4_k, ACT_BLOCK, q4k)
MATMUL_FUNCTION(avx512_matmul_q6_k, ACT_BLOCK, q6k)

void avx512_fill_matmul(struct kernels *kernels)
{
    kernels->matmul[TILE_Q4_K] = avx512_matmul_q4_k;
    kernels->matmul[TILE_Q6_K] = avx512_matmul_q6_k;
}
