/* amx_matmul.c: products of Q4_K, Q5_K and Q6_K by the tiles of AMX. The integers are those of AVX-512 and plain C, and so are the
 * floats, bit for bit; so the choice between them is free in every call.
 *
 * A group of pack.h (4 inputs of 16 rows in 64 bytes) already is a row of a tile of weights, 16 of them are 64 inputs. Sums of a
 * whole block of 256 inputs stay in a tile, which wants the scales of sub-blocks in the weights: weight times scale, cut into two
 * bytes, gives two planes of weights, each with sums of its own.
 *     Q4_K, Q5_K: the 6-bit scale s is cut: w * (s & 7) and w * (s >> 3), at most 31 * 7; sum = 8 * high + low
 *     Q6_K: scale * (w - 32) is cut: a signed high and an unsigned low byte;              sum = 256 * high + low
 * Mins of Q4_K and Q5_K (times the sums of 32 activations) are one product of bf16, which is exact: a sum is hi (a multiple of 32,
 * at most 127 of them) + lo (0 to 31), both of at most 8 bits, and all sums are whole numbers below 2^24.
 *
 * For a chunk of rows (amx_rows.h), two tiles of weights at a time, block after block: the block of each is unpacked to L1, then
 * meets all groups of rows, two groups at a time; their sums are flushed into floats one step later, while the tiles go on.
 * Owns nothing; any thread; about 240 KB of stack. */
#include "kernels/x86/amx.h"
#include "kernels/x86/amx_rows.h"

enum {
    PLANES = 2,
    STEPS = ACT_BLOCK / 64, /* tiles of weights a block and plane */
    MIN_BYTES = 32, /* of a block and row of activations: a pair of bf16 (hi, lo) for each of 8 sums */

    /* Rows times blocks of a chunk: bounds what is prepared on the stack. 128 rows of 10,240 inputs. */
    CHUNK_BLOCKS = 5120,
};

/* From so many rows on tiles are faster. Measured by a prototype (Emerald Rapids, two virtual cores, weights from memory,
 * 2026-11-27), AVX-512 -> AMX in GMAC/s, at 12 and 16 rows: Q4_K [8960 x 1536] 342 -> 387, 394 -> 480, [1536 x 8960] 308 -> 374,
 * 360 -> 464; Q6_K [1536 x 8960] 221 -> 269, 252 -> 348; at 8 rows 0.8 x. Q5_K was not measured; it is built like Q4_K. */
static const uint32_t fewest_rows[TILE_KINDS] = {[TILE_Q4_K] = 12, [TILE_Q5_K] = 12, [TILE_Q6_K] = 12};

/* A block of a tile, ready for tile products. */
struct unpacked {
    _Alignas(64) uint8_t planes[PLANES][STEPS][16][64]; /* low, high */
    /* Rows 8 to 15: the mins of sub-block row - 8 as pairs of the same bf16; others zero. Two blocks of activations share a tile
     * row: those of even blocks meet the mins if the tile begins at row 8, those of odd ones if it begins at row 0. */
    uint8_t mins[24][64];
    float d[TILE_ROWS], dmin[TILE_ROWS];
};

/* What is prepared of the activations of a chunk. */
struct chunk {
    const uint8_t *acts; /* of its first row */
    size_t act_stride;
    struct chunk_rows rows;
    _Alignas(64) uint8_t
        sums[(CHUNK_BLOCKS + CHUNK_ROWS) / 2 * 2 * MIN_BYTES]; /* [n_blocks / 2][n_rows][2][MIN_BYTES] */
    float d[CHUNK_BLOCKS];                                     /* [n_blocks][n_rows] */
};

/* How the kinds differ; a constant wherever it is used. */
struct kind {
    int high_bits; /* how many the high plane is shifted by */
    bool high_is_signed;
    bool has_mins;
    /* block: block b of a tile; ahead: how far away the weights are that will be wanted next. */
    void (*unpack)(const uint8_t *tile, size_t header_bytes, uint32_t b, size_t ahead, struct unpacked *out);
};

/* Unpacking. The functions are not inlined: twice the code for two tiles leaves the instruction cache. */

INLINE void fetch(const uint8_t *p, size_t ahead)
{
    _mm_prefetch((const char *)p + ahead, _MM_HINT_T1);
}

/* The lower (upper) half of each lane in both its halves. */
INLINE __m512i both_halves(__m512i lanes, bool upper)
{
    const int place = upper ? 0x0302 : 0x0100, both = place | place << 16;
    const __m512i pattern = _mm512_add_epi32(
        _mm512_set1_epi32(both), _mm512_set4_epi32(0x0c0c0c0c, 0x08080808, 0x04040404, 0x00000000));
    return _mm512_shuffle_epi8(lanes, pattern);
}

INLINE void store_group(void *p, __m512i v)
{
    _mm512_store_si512(p, v);
}

/* Whole numbers up to 255 as pairs of the same bf16. */
INLINE __m512i bf16_pairs(__m512i numbers)
{
    __m512i bits = _mm512_castps_si512(_mm512_cvtepi32_ps(numbers));
    return _mm512_or_si512(bits, _mm512_srli_epi32(bits, 16));
}

INLINE void unpack_k_scales(const uint8_t *block, struct q4k_scales *s, struct unpacked *out)
{
    q4k_unpack_scales(block, s);
    _mm512_storeu_ps(out->d, load_f16(block));
    _mm512_storeu_ps(out->dmin, load_f16(block + Q4K_DMIN));
    for (int p = 0; p < 4; p++) {
        __m512i pair = s->min_pairs[p];
        store_group(out->mins[8 + 2 * p], bf16_pairs(_mm512_and_si512(pair, _mm512_set1_epi32(0xffff))));
        store_group(out->mins[9 + 2 * p], bf16_pairs(_mm512_srli_epi32(pair, 16)));
    }
}

/* The two parts of the scale of a sub-block in every half lane, shifted. */
struct cut_scale {
    __m512i low, high;
};

INLINE struct cut_scale cut_scale_of(__m512i scale_pair, bool odd, unsigned shift)
{
    __m512i scale = both_halves(scale_pair, odd);
    return (struct cut_scale){
        _mm512_slli_epi16(_mm512_and_si512(scale, _mm512_set1_epi16(7)), shift),
        _mm512_slli_epi16(_mm512_srli_epi16(scale, 3), shift),
    };
}

/* Two weights are multiplied at once: neither product leaves its byte. Weights 2^n too large (odd sub-blocks, as they lie) times
 * scales 2^(16 - n) too large come out in the upper half of the product. */
INLINE void store_low_products(struct unpacked *out, int step, int row, __m512i w, struct cut_scale scale)
{
    store_group(out->planes[0][step][row], _mm512_mullo_epi16(w, scale.low));
    store_group(out->planes[1][step][row], _mm512_mullo_epi16(w, scale.high));
}

INLINE void store_high_products(struct unpacked *out, int step, int row, __m512i w, struct cut_scale scale)
{
    store_group(out->planes[0][step][row], _mm512_mulhi_epu16(w, scale.low));
    store_group(out->planes[1][step][row], _mm512_mulhi_epu16(w, scale.high));
}

static __attribute__((noinline)) void unpack_q4_k(const uint8_t *tile, size_t header_bytes, uint32_t b,
                                                  size_t ahead, struct unpacked *out)
{
    const __m512i low = _mm512_set1_epi8(0x0f), high = _mm512_set1_epi8((char)0xf0);
    const uint8_t *block = tile + header_bytes + (size_t)b * Q4K_BLOCK_BYTES;
    struct q4k_scales s;
    for (int i = 0; i < 4; i++)
        fetch(block + 64 * i, ahead);
    unpack_k_scales(block, &s, out);
    for (int p = 0; p < 4; p++) {
        struct cut_scale even = cut_scale_of(s.scale_pairs[p], false, 0);
        struct cut_scale odd = cut_scale_of(s.scale_pairs[p], true, 12);
        for (int g = 0; g < 8; g++) {
            const uint8_t *vector = block + Q4K_NIBBLES + 64 * (8 * p + g);
            __m512i w = load(vector);
            fetch(vector, ahead);
            store_low_products(out, p, g, _mm512_and_si512(w, low), even);
            store_high_products(out, p, 8 + g, _mm512_and_si512(w, high), odd);
        }
    }
}

static __attribute__((noinline)) void unpack_q5_k(const uint8_t *tile, size_t header_bytes, uint32_t b,
                                                  size_t ahead, struct unpacked *out)
{
    const uint8_t *block = tile + header_bytes + (size_t)b * Q5K_BLOCK_BYTES;
    struct q4k_scales s;
    for (int i = 0; i < Q5K_BLOCK_BYTES / 64; i++)
        fetch(block + 64 * i, ahead);
    unpack_k_scales(block, &s, out);
    for (int p = 0; p < 4; p++) {
        const uint8_t *nibbles = block + Q4K_NIBBLES + 512 * p, *bits = block + Q5K_BITS + 128 * p;
        struct cut_scale even = cut_scale_of(s.scale_pairs[p], false, 0);
        struct cut_scale odd = cut_scale_of(s.scale_pairs[p], true, 13);
        UNROLL
        for (int g = 0; g < 8; g++) {
            store_low_products(out, p, g, q5k_group(nibbles, load(bits), 0, g), even);
            store_high_products(out, p, 8 + g, q5k_group(nibbles, load(bits + 64), 1, g), odd);
        }
    }
}

/* Sub-block k of chunk c. */
INLINE void unpack_q6_k_sub_block(const uint8_t *block, int c, const int k, struct unpacked *out)
{
    const __m512i odd_bytes_only = _mm512_set1_epi16(k % 2 ? 0x003f : 0x00ff);
    __m512i word = load(block + 64 * c);
    __m512i pair = _mm512_srai_epi16(k / 2 ? word : _mm512_slli_epi16(word, 8), 8);
    __m512i scale = both_halves(pair, k % 2), start = _mm512_slli_epi16(scale, 5);
    UNROLL
    for (int j = 0; j < 4; j++) {
        __m512i w = q6k_group(block + Q6K_CHUNKS + Q6K_CHUNK_BYTES * c, k, j);
        /* Weights at even bytes, and those at odd ones; odd sub-blocks come 4 times too large. */
        __m512i even = _mm512_and_si512(k % 2 ? _mm512_srli_epi16(w, 2) : w, odd_bytes_only);
        __m512i odd = _mm512_srli_epi16(w, k % 2 ? 10 : 8);
        even = _mm512_sub_epi16(_mm512_mullo_epi16(even, scale), start);
        odd = _mm512_sub_epi16(_mm512_mullo_epi16(odd, scale), start);
        const __mmask64 at_odd = 0xaaaaaaaaaaaaaaaa;
        store_group(out->planes[0][c][4 * k + j],
                    _mm512_mask_blend_epi8(at_odd, even, _mm512_slli_epi16(odd, 8)));
        store_group(out->planes[1][c][4 * k + j],
                    _mm512_mask_blend_epi8(at_odd, _mm512_srli_epi16(even, 8), odd));
    }
}

static __attribute__((noinline)) void unpack_q6_k(const uint8_t *tile, size_t header_bytes, uint32_t b,
                                                  size_t ahead, struct unpacked *out)
{
    const uint8_t *block = tile + header_bytes + (size_t)b * Q6K_BLOCK_BYTES;
    for (int i = 0; i < Q6K_BLOCK_BYTES / 64; i++)
        fetch(block + 64 * i, ahead);
    _mm512_storeu_ps(out->d, load_f16(tile + 32 * (size_t)b));
    for (int c = 0; c < 4; c++) {
        unpack_q6_k_sub_block(block, c, 0, out);
        unpack_q6_k_sub_block(block, c, 1, out);
        unpack_q6_k_sub_block(block, c, 2, out);
        unpack_q6_k_sub_block(block, c, 3, out);
    }
}

/* The chunk. */

/* Sums of 32 activations as pairs (hi, lo) of bf16. */
INLINE void store_sums_bf16(const struct act_q8_256 *a, uint8_t *p)
{
    __m256i sums = _mm256_cvtepi16_epi32(_mm_loadu_si128((const __m128i *)a->sum32));
    __m256i lo = _mm256_and_si256(sums, _mm256_set1_epi32(31)), hi = _mm256_sub_epi32(sums, lo);
    hi = _mm256_srli_epi32(_mm256_castps_si256(_mm256_cvtepi32_ps(hi)), 16);
    lo = _mm256_castps_si256(_mm256_cvtepi32_ps(lo)); /* its lower halves are zero */
    _mm256_store_si256((__m256i *)p, _mm256_or_si256(hi, lo));
}

INLINE uint8_t *sums_of(struct chunk *c, uint32_t b, uint32_t row)
{
    return c->sums + ((size_t)(b / 2) * c->rows.n + row) * 2 * MIN_BYTES + b % 2 * MIN_BYTES;
}

INLINE void prepare_chunk(struct chunk *c, uint32_t n_blocks, bool has_mins)
{
    for (uint32_t row = 0; row < c->rows.n; row++) {
        const struct act_q8_256 *blocks = (const struct act_q8_256 *)(c->acts + row * c->act_stride);
        for (uint32_t b = 0; b < n_blocks; b++) {
            c->d[(size_t)b * c->rows.n + row] = blocks[b].d;
            if (has_mins)
                store_sums_bf16(&blocks[b], sums_of(c, b, row));
        }
        if (has_mins && n_blocks % 2) /* they meet mins of zero, but may be no NaN */
            memset(sums_of(c, n_blocks, row), 0, MIN_BYTES);
    }
}

/* Products. */

struct unit_sums {
    _Alignas(64) int32_t planes[UNIT_GROUPS][PLANES][GROUP_ROWS][TILE_ROWS];
    float mins[UNIT_GROUPS][GROUP_ROWS][TILE_ROWS];
};

INLINE void multiply_unit(struct chunk *c, uint32_t b, const struct unit *u, const struct unpacked *w,
                          struct unit_sums *out, const struct kind kind)
{
    const uint8_t *a[UNIT_GROUPS];
    const bool two = u->n_groups == 2;
    for (uint32_t i = 0; i < UNIT_GROUPS; i++)
        a[i] = c->acts + u->groups[i].begin * c->act_stride + b * sizeof(struct act_q8_256);
    tile_zero(0);
    tile_zero(1);
    tile_zero(2);
    tile_zero(3);
    for (int step = 0; step < STEPS; step++) {
        tile_load(6, w->planes[0][step], 64);
        tile_load(4, a[0] + 64 * step, c->act_stride);
        tile_add_signed_unsigned(0, 4, 6);
        tile_load(7, w->planes[1][step], 64);
        kind.high_is_signed ? tile_add_signed_signed(1, 4, 7) : tile_add_signed_unsigned(1, 4, 7);
        if (two) {
            tile_load(5, a[1] + 64 * step, c->act_stride);
            tile_add_signed_unsigned(2, 5, 6);
            kind.high_is_signed ? tile_add_signed_signed(3, 5, 7) : tile_add_signed_unsigned(3, 5, 7);
        }
    }
    tile_store(0, out->planes[0][0], 64);
    tile_store(1, out->planes[0][1], 64);
    if (two) {
        tile_store(2, out->planes[1][0], 64);
        tile_store(3, out->planes[1][1], 64);
    }
    if (!kind.has_mins)
        return;
    tile_load(6, w->mins[b % 2 ? 0 : 8], 64);
    tile_zero(0);
    tile_load(4, sums_of(c, b & ~1u, u->groups[0].begin), 2 * MIN_BYTES);
    tile_add_bf16(0, 4, 6);
    tile_store(0, out->mins[0], 64);
    if (two) {
        tile_zero(2);
        tile_load(5, sums_of(c, b & ~1u, u->groups[1].begin), 2 * MIN_BYTES);
        tile_add_bf16(2, 5, 6);
        tile_store(2, out->mins[1], 64);
    }
}

INLINE void flush_unit(const struct chunk *c, uint32_t b, const struct unit *u, const struct unpacked *w,
                       const struct unit_sums *sums, float (*chunk_acc)[TILE_ROWS], const struct kind kind)
{
    const __m512 d = _mm512_loadu_ps(w->d);
    const __m512 dmin = kind.has_mins ? _mm512_loadu_ps(w->dmin) : _mm512_setzero_ps();
    const uint32_t n_rows = group_rows(c->rows.n);
    for (uint32_t g = 0; g < u->n_groups; g++) {
        const float *d_acts = c->d + (size_t)b * c->rows.n + u->groups[g].begin;
        float(*acc)[TILE_ROWS] = chunk_acc + u->groups[g].begin;
        for (uint32_t i = u->groups[g].n_again; i < n_rows; i++) {
            __m512i isum = _mm512_slli_epi32(load(sums->planes[g][1][i]), (unsigned)kind.high_bits);
            isum = _mm512_add_epi32(isum, load(sums->planes[g][0][i]));
            __m512 d_act = _mm512_set1_ps(d_acts[i]), sum = _mm512_load_ps(acc[i]);
            sum = _mm512_fmadd_ps(_mm512_mul_ps(d, d_act), _mm512_cvtepi32_ps(isum), sum);
            if (kind.has_mins)
                sum = _mm512_fnmadd_ps(_mm512_mul_ps(dmin, d_act), _mm512_load_ps(sums->mins[g][i]), sum);
            _mm512_store_ps(acc[i], sum);
        }
    }
}

/* All groups of a chunk with block b of the tiles of a panel. */
INLINE void multiply_block(struct chunk *c, uint32_t b, const struct unpacked *w, uint32_t n_tiles,
                           float (*acc)[CHUNK_ROWS][TILE_ROWS], const struct kind kind)
{
    const uint32_t n_units = unit_count(c->rows.n, n_tiles);
    struct unit_sums sums[2];
    for (uint32_t n = 0; n <= n_units; n++) {
        if (n < n_units) {
            const struct unit unit = unit_at(c->rows.n, n_tiles, n);
            multiply_unit(c, b, &unit, &w[unit.tile], &sums[n % 2], kind);
        }
        if (n > 0) {
            const struct unit unit = unit_at(c->rows.n, n_tiles, n - 1);
            flush_unit(c, b, &unit, &w[unit.tile], &sums[(n - 1) % 2], acc[unit.tile], kind);
        }
    }
}

INLINE void multiply_panel(const struct product *p, struct chunk *c, uint32_t first, uint32_t n_tiles,
                           struct unpacked *w, const struct kind kind)
{
    _Alignas(64) float acc[PANEL_TILES][CHUNK_ROWS][TILE_ROWS];
    for (uint32_t t = 0; t < n_tiles; t++)
        memset(acc[t], 0, c->rows.n * sizeof acc[t][0]);
    for (uint32_t b = 0; b < p->n_blocks; b++) {
        for (uint32_t t = 0; t < n_tiles; t++)
            kind.unpack(product_tile(p, first + t), p->header_bytes, b, PANEL_TILES * p->w->tile_bytes,
                        &w[t]);
        multiply_block(c, b, w, n_tiles, acc, kind);
    }
    for (uint32_t row = 0; row < c->rows.n; row++)
        for (uint32_t t = 0; t < n_tiles; t++)
            store_sum(p, first + t, c->rows.begin + row, v_load(acc[t][row]));
}

typedef void matmul_function(const struct matmul_args *args, uint32_t tile_begin, uint32_t tile_end);

INLINE void matmul(const struct matmul_args *args, uint32_t tile_begin, uint32_t tile_end,
                   matmul_function *few_rows, const struct kind kind)
{
    const struct product p = product_of(args, ACT_BLOCK);
    const uint32_t n_most = CHUNK_BLOCKS / p.n_blocks < CHUNK_ROWS ? CHUNK_BLOCKS / p.n_blocks : CHUNK_ROWS;
    if (args->n_acts < fewest_rows[args->w->kind] || n_most < GROUP_ROWS) {
        few_rows(args, tile_begin, tile_end);
        return;
    }
    struct unpacked w[PANEL_TILES];
    struct chunk c; /* large: filled as far as it is used */
    c.act_stride = p.act_stride;
    memset(w[0].mins, 0, sizeof w[0].mins);
    memset(w[1].mins, 0, sizeof w[1].mins);
    const uint32_t n_chunks = chunk_count(args->n_acts, n_most);
    for (uint32_t i = 0; i < n_chunks; i++) {
        c.rows = chunk_at(args->n_acts, n_chunks, i);
        c.acts = p.acts + c.rows.begin * p.act_stride;
        prepare_chunk(&c, p.n_blocks, kind.has_mins);
        configure_tiles(group_rows(c.rows.n), 64);
        for (uint32_t tile = tile_begin; tile < tile_end; tile += PANEL_TILES)
            multiply_panel(&p, &c, tile, tile_end - tile < PANEL_TILES ? tile_end - tile : PANEL_TILES, w,
                           kind);
    }
    tiles_release();
}

static void matmul_q4_k(const struct matmul_args *args, uint32_t tile_begin, uint32_t tile_end)
{
    const struct kind kind = {3, false, true, unpack_q4_k};
    matmul(args, tile_begin, tile_end, avx512_matmul_q4_k, kind);
}

static void matmul_q5_k(const struct matmul_args *args, uint32_t tile_begin, uint32_t tile_end)
{
    const struct kind kind = {3, false, true, unpack_q5_k};
    matmul(args, tile_begin, tile_end, avx512_matmul_q5_k, kind);
}

static void matmul_q6_k(const struct matmul_args *args, uint32_t tile_begin, uint32_t tile_end)
{
    const struct kind kind = {8, true, false, unpack_q6_k};
    matmul(args, tile_begin, tile_end, avx512_matmul_q6_k, kind);
}

void amx_fill_matmul(struct kernels *kernels)
{
    kernels->matmul[TILE_Q4_K] = matmul_q4_k;
    kernels->matmul[TILE_Q5_K] = matmul_q5_k;
    kernels->matmul[TILE_Q6_K] = matmul_q6_k;
}
