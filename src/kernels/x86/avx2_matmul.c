/* avx2_matmul.c: products of Q4_K and Q6_K without VNNI. A group (16 rows x 4 inputs) is two ymm of
 * unsigned bytes; `vpmaddubsw` multiplies one with 4 activations broadcast to all lanes and adds pairs to
 * 16 bits; lanes of 32 bits are rows, and nothing is shuffled.
 *
 * Products of a sub-block are added in 16 bits, two for each lane, which holds them exactly (bounds are at
 * each place, for activations of -127 .. 127, which is what quantising gives); then one `vpmaddwd`
 * multiplies them with the sub-block's scale, adds the two and widens to 32 bits.
 *
 * The loops, from the outside: up to TILES_AT_ONCE tiles; up to ROWS_OF_PASS rows of activations; blocks
 * of 256 inputs; those tiles, whose block is unpacked once to L1; groups of up to ROWS_OF_GROUP rows,
 * whose sums in 16 bits for the 16 rows of the tile are registers. Float sums are in L1. */
#include "kernels/x86/avx2_vectors.h"

enum {
    ROWS_OF_GROUP = 6,
    GROUPS_OF_PASS = 4,
    ROWS_OF_PASS = ROWS_OF_GROUP * GROUPS_OF_PASS,
    Q6K_SUBS = 16,
};

/* Lines of weights that will be wanted later are fetched into L2 a few at each step of a group: all at once
 * they would fill the buffers for what is missing in L1, and everything would wait. */
struct fetch {
    const uint8_t *next;
    uint32_t lines_of_step;
};

INLINE void fetch_step(struct fetch *fetch)
{
    for (uint32_t i = 0; i < fetch->lines_of_step; i++, fetch->next += 64)
        _mm_prefetch((const char *)fetch->next, _MM_HINT_T1);
}

/* A block of a tile, ready for many rows of activations: the halves are 8 rows each. */
struct q4k_unpacked {
    struct q4k_scales scales[2];
    __m256 d[2], dmin[2];
    const uint8_t *nibbles;
    struct fetch fetch;
};

struct q6k_unpacked {
    __m256i scale[Q6K_SUBS][2];
    __m256i w[Q6K_SUBS][4][2]; /* 0 .. 63 */
    __m256 d[2];
    struct fetch fetch;
};

/* What a row's block of activations starts each sub-block of Q6_K from, see q6k_starts. */
typedef int32_t starts_of_row[Q6K_SUBS];

static void q4k_unpack(const uint8_t *block, struct q4k_unpacked *u)
{
    UNROLL
    for (int half = 0; half < 2; half++) {
        q4k_unpack_scales(block + Q4K_SCALES + 32 * half, &u->scales[half]);
        u->d[half] = load_8_f16(block + 16 * half);
        u->dmin[half] = load_8_f16(block + Q4K_DMIN + 16 * half);
    }
    u->nibbles = block + Q4K_NIBBLES;
}

INLINE const struct act_q8_256 *act_of_row(const uint8_t *act, size_t stride, int i)
{
    return (const struct act_q8_256 *)(act + (size_t)i * stride);
}

/* dots += w * 4 activations in every lane: two products in each 16 bits, for both halves of a tile. In
 * assembly, as GCC 12 would put the products of all groups on the stack and add them in another order. */
INLINE void add_products(__m256i *dot0, __m256i *dot1, __m256i w0, __m256i w1, const void *q)
{
    const struct __attribute__((packed, may_alias)) {
        int32_t four;
    } *act = q;
    __m256i a, b;
    __asm__("vpbroadcastd %[q], %[a]\n\t"
            "vpmaddubsw %[a], %[w0], %[b]\n\t"
            "vpmaddubsw %[a], %[w1], %[a]\n\t"
            "vpaddw %[b], %[dot0], %[dot0]\n\t"
            "vpaddw %[a], %[dot1], %[dot1]"
            : [dot0] "+x"(*dot0), [dot1] "+x"(*dot1), [a] "=&x"(a), [b] "=&x"(b)
            : [w0] "x"(w0), [w1] "x"(w1), [q] "m"(*act));
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
                        add_products(&dot0[i], &dot1[i], w0, w1, four);
                        continue;
                    }
                    dot0[i] = _mm256_maddubs_epi16(w0, broadcast(four));
                    dot1[i] = _mm256_maddubs_epi16(w1, broadcast(four));
                }
            }
            UNROLL
            for (int i = 0; i < m; i++) {
                isum[i][0] =
                    _mm256_add_epi32(isum[i][0], _mm256_madd_epi16(dot0[i], u->scales[0].scale[sub + odd]));
                isum[i][1] =
                    _mm256_add_epi32(isum[i][1], _mm256_madd_epi16(dot1[i], u->scales[1].scale[sub + odd]));
            }
            __asm__ volatile("" : "+m"(isum)); /* not in registers: those are for dot products */
        }
    }
    for (int i = 0; i < m; i++) {
        const struct act_q8_256 *a = act_of_row(act, stride, i);
        __m256 d_act = _mm256_set1_ps(a->d);
        UNROLL
        for (int half = 0; half < 2; half++) {
            __m256i msum = _mm256_setzero_si256();
            UNROLL
            for (int j = 0; j < 4; j++)
                msum = _mm256_add_epi32(
                    msum, _mm256_madd_epi16(u->scales[half].min_pairs[j], broadcast(&a->sum32[2 * j])));
            __m256 sum = _mm256_fmadd_ps(_mm256_mul_ps(u->d[half], d_act), _mm256_cvtepi32_ps(isum[i][half]),
                                         sums[i][half]);
            sums[i][half] =
                _mm256_fnmadd_ps(_mm256_mul_ps(u->dmin[half], d_act), _mm256_cvtepi32_ps(msum), sum);
        }
    }
}

static void q6k_unpack(const uint8_t *d, const uint8_t *block, struct q6k_unpacked *u)
{
    const __m256i bits0_3 = _mm256_set1_epi8(0x0f), bits2_5 = _mm256_set1_epi8(0x3c),
                  bits4_5 = _mm256_set1_epi8(0x30), bits0_1 = _mm256_set1_epi8(0x03);
    for (int half = 0; half < 2; half++) {
        for (int c = 0; c < 4; c++) {
            const uint8_t *chunk = block + Q6K_CHUNKS + Q6K_CHUNK_BYTES * c + 32 * half;
            __m256i word = load(block + 64 * c + 32 * half);
            __m256i pairs[2] = {_mm256_srai_epi16(_mm256_slli_epi16(word, 8), 8),
                                _mm256_srai_epi16(word, 8)}; /* of sub-blocks 0 and 1, 2 and 3 */
            for (int k = 0; k < 4; k += 2) {
                __m256i pair = pairs[k / 2];
                u->scale[4 * c + k][half] = _mm256_blend_epi16(pair, _mm256_slli_epi32(pair, 16), 0xaa);
                u->scale[4 * c + k + 1][half] = _mm256_blend_epi16(pair, _mm256_srli_epi32(pair, 16), 0x55);
            }
            UNROLL
            for (int j = 0; j < 4; j++) {
                __m256i nibbles0 = load(chunk + 64 * j), nibbles1 = load(chunk + 64 * (4 + j));
                __m256i two = load(chunk + 64 * (8 + j)), lower = _mm256_srli_epi16(two, 2);
                __m256i(*w)[4][2] = u->w + 4 * c;
                w[0][j][half] =
                    _mm256_or_si256(_mm256_and_si256(nibbles0, bits0_3), _mm256_and_si256(two, bits4_5));
                w[1][j][half] = _mm256_or_si256(_mm256_and_si256(_mm256_srli_epi16(nibbles0, 2), bits2_5),
                                                _mm256_and_si256(lower, bits0_1));
                w[2][j][half] =
                    _mm256_or_si256(_mm256_and_si256(nibbles1, bits0_3), _mm256_and_si256(lower, bits4_5));
                w[3][j][half] = _mm256_or_si256(_mm256_and_si256(_mm256_srli_epi16(nibbles1, 2), bits2_5),
                                                _mm256_and_si256(two, bits0_1));
            }
        }
        u->d[half] = load_8_f16(d + 16 * half);
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
            __m256i w0 = u->w[sub][j][0], w1 = u->w[sub][j][1];
            UNROLL
            for (int i = 0; i < m; i++)
                add_products(&dot0[i], &dot1[i], w0, w1, q + (size_t)i * stride + 4 * j);
        }
        UNROLL
        for (int i = 0; i < m; i++) {
            isum[i][0] = _mm256_add_epi32(isum[i][0], _mm256_madd_epi16(dot0[i], u->scale[sub][0]));
            isum[i][1] = _mm256_add_epi32(isum[i][1], _mm256_madd_epi16(dot1[i], u->scale[sub][1]));
        }
        __asm__ volatile("" : "+m"(isum)); /* not in registers: those are for dot products */
    }
    for (int i = 0; i < m; i++) {
        __m256 d_act = _mm256_set1_ps(act_of_row(act, stride, i)->d);
        UNROLL
        for (int half = 0; half < 2; half++)
            sums[i][half] = _mm256_fmadd_ps(_mm256_mul_ps(u->d[half], d_act),
                                            _mm256_cvtepi32_ps(isum[i][half]), sums[i][half]);
    }
}

/* One function for each number of rows, so that dot products are registers. */
typedef void q4k_function(struct q4k_unpacked *u, const uint8_t *act, size_t stride, __m256 (*sums)[2]);
typedef void q6k_function(struct q6k_unpacked *u, const starts_of_row *starts, const uint8_t *act,
                          size_t stride, __m256 (*sums)[2]);
#define GROUP_FUNCTIONS(m)                                                                                   \
    static void q4k_##m(struct q4k_unpacked *u, const uint8_t *act, size_t stride, __m256(*sums)[2])         \
    {                                                                                                        \
        q4k_group(u, act, stride, m, sums);                                                                  \
    }                                                                                                        \
    static void q6k_##m(struct q6k_unpacked *u, const starts_of_row *starts, const uint8_t *act,             \
                        size_t stride, __m256(*sums)[2])                                                     \
    {                                                                                                        \
        q6k_group(u, starts, act, stride, m, sums);                                                          \
    }
GROUP_FUNCTIONS(1)
GROUP_FUNCTIONS(2)
GROUP_FUNCTIONS(3)
GROUP_FUNCTIONS(4)
GROUP_FUNCTIONS(5)
GROUP_FUNCTIONS(6)
static q4k_function *const q4k[ROWS_OF_GROUP] = {q4k_1, q4k_2, q4k_3, q4k_4, q4k_5, q4k_6};
static q6k_function *const q6k[ROWS_OF_GROUP] = {q6k_1, q6k_2, q6k_3, q6k_4, q6k_5, q6k_6};

/* Some rows of activations with some tiles. */
struct pass {
    uint32_t tile, n_tiles;
    uint32_t row, n_rows;
    uint8_t n_groups, rows_of_group[GROUPS_OF_PASS];
};

typedef __m256 pass_sums[TILES_AT_ONCE][ROWS_OF_PASS][2];
typedef void pass_function(const struct product *p, const struct pass *pass, pass_sums sums);

/* What to fetch while block b of a tile is multiplied: the second block on of this tile, or at its end of
 * the tile that will be in its place. */
INLINE struct fetch fetch_of_block(const struct product *p, const struct pass *pass, const uint8_t *block,
                                   uint32_t b, uint32_t block_bytes, uint32_t steps_of_group)
{
    uint32_t n_steps = pass->n_groups * steps_of_group;
    block += 2 * block_bytes;
    if (b + 2 >= p->n_blocks)
        block += (TILES_AT_ONCE - 1) * p->w->tile_bytes + p->header_bytes;
    return (struct fetch){block, (block_bytes / 64 + n_steps - 1) / n_steps};
}

static void q4k_pass(const struct product *p, const struct pass *pass, pass_sums sums)
{
    struct q4k_unpacked u;
    for (uint32_t b = 0; b < p->n_blocks; b++) {
        const uint8_t *acts = p->acts + pass->row * p->act_stride + b * sizeof(struct act_q8_256);
        for (uint32_t t = 0; t < pass->n_tiles; t++) {
            const uint8_t *block = product_tile(p, pass->tile + t) + (size_t)b * Q4K_BLOCK_BYTES;
            q4k_unpack(block, &u);
            u.fetch = fetch_of_block(p, pass, block, b, Q4K_BLOCK_BYTES, 4);
            for (uint32_t group = 0, row = 0; group < pass->n_groups; group++) {
                uint32_t m = pass->rows_of_group[group];
                q4k[m - 1](&u, acts + row * p->act_stride, p->act_stride, sums[t] + row);
                row += m;
            }
        }
    }
}

static void q6k_pass(const struct product *p, const struct pass *pass, pass_sums sums)
{
    struct q6k_unpacked u;
    starts_of_row starts[ROWS_OF_PASS];
    for (uint32_t b = 0; b < p->n_blocks; b++) {
        const uint8_t *acts = p->acts + pass->row * p->act_stride + b * sizeof(struct act_q8_256);
        for (uint32_t i = 0; i < pass->n_rows; i++)
            q6k_starts((const struct act_q8_256 *)(acts + i * p->act_stride), starts[i]);
        for (uint32_t t = 0; t < pass->n_tiles; t++) {
            const uint8_t *tile = product_tile(p, pass->tile + t);
            const uint8_t *block = tile + p->header_bytes + (size_t)b * Q6K_BLOCK_BYTES;
            q6k_unpack(tile + 32 * (size_t)b, block, &u);
            u.fetch = fetch_of_block(p, pass, block, b, Q6K_BLOCK_BYTES, Q6K_SUBS);
            for (uint32_t group = 0, row = 0; group < pass->n_groups; group++) {
                uint32_t m = pass->rows_of_group[group];
                q6k[m - 1](&u, starts + row, acts + row * p->act_stride, p->act_stride, sums[t] + row);
                row += m;
            }
        }
    }
}

/* Groups of nearly equal size, as many as a pass takes. */
static void plan_pass(struct pass *pass, uint32_t row, uint32_t n_acts)
{
    uint32_t n_groups = (n_acts - row + ROWS_OF_GROUP - 1) / ROWS_OF_GROUP, n_left = n_acts - row;
    pass->row = row;
    pass->n_rows = 0;
    pass->n_groups = (uint8_t)(n_groups < GROUPS_OF_PASS ? n_groups : GROUPS_OF_PASS);
    for (uint32_t group = 0; group < pass->n_groups; group++, n_groups--) {
        uint32_t m = (n_left + n_groups - 1) / n_groups;
        pass->rows_of_group[group] = (uint8_t)m;
        pass->n_rows += m;
        n_left -= m;
    }
}

INLINE void matmul_passes(const struct product *p, uint32_t tile_begin, uint32_t tile_end, uint32_t n_acts,
                          pass_function *function)
{
    pass_sums sums;
    struct pass pass;
    for (uint32_t tile = tile_begin; tile < tile_end; tile += pass.n_tiles) {
        pass.tile = tile;
        pass.n_tiles = tile_end - tile < TILES_AT_ONCE ? tile_end - tile : TILES_AT_ONCE;
        for (uint32_t row = 0; row < n_acts; row += pass.n_rows) {
            plan_pass(&pass, row, n_acts);
            for (uint32_t t = 0; t < pass.n_tiles; t++)
                for (uint32_t i = 0; i < pass.n_rows; i++)
                    sums[t][i][0] = sums[t][i][1] = _mm256_setzero_ps();
            function(p, &pass, sums);
            for (uint32_t t = 0; t < pass.n_tiles; t++)
                for (uint32_t i = 0; i < pass.n_rows; i++)
                    store_sum(p, tile + t, row + i, v_pair(sums[t][i][0], sums[t][i][1]));
        }
    }
}

static void matmul_q4_k(const struct matmul_args *args, uint32_t tile_begin, uint32_t tile_end)
{
    const struct product p = product_of(args, ACT_BLOCK);
    matmul_passes(&p, tile_begin, tile_end, args->n_acts, q4k_pass);
}

static void matmul_q6_k(const struct matmul_args *args, uint32_t tile_begin, uint32_t tile_end)
{
    const struct product p = product_of(args, ACT_BLOCK);
    matmul_passes(&p, tile_begin, tile_end, args->n_acts, q6k_pass);
}

void avx2_fill_matmul(struct kernels *kernels)
{
    kernels->matmul[TILE_Q4_K] = matmul_q4_k;
    kernels->matmul[TILE_Q6_K] = matmul_q6_k;
}
