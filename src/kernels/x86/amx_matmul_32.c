/* amx_matmul_32.c: products of the types with blocks of 32 values by the tiles of AMX; built like amx_matmul.c, simpler: each
 * block has its own scales on both sides, so a product of tiles is 32 inputs, and every block is flushed into floats. Weights are made
 * signed bytes of their true size, so nothing is to be corrected. Owns nothing; any thread; about 30 KB of stack. */
#include "kernels/x86/amx.h"
#include "kernels/x86/amx_rows.h"

enum {
    /* From so many rows on tiles are used. Not measured but counted, a pair of blocks, 16 rows of weights, 16 of activations: AVX-512
     * 256 dot products, two a cycle, and 128 other operations: about 190 cycles; here 32 cycles of tile products, 26 of their
     * stores, and 96 operations for floats that mostly fit beside them: 100 to 130. Below 32 rows unpacking takes too large a share. */
    FEWEST_ROWS = 32,
    BLOCK_BYTES = 32,
};

/* A pair of blocks of a tile of weights. */
struct unpacked {
    _Alignas(64) int8_t values[2][8][64];
    float d[2][TILE_ROWS], m[2][TILE_ROWS];
};

/* How the types differ; a constant wherever it is used. */
struct shape {
    int bits;
    bool has_m;
    enum tensor_type listed; /* IQ4_NL or MXFP4: nibbles look weights up in a list; TENSOR_F32: they do not */
};

/* Group g of block `second` of a pair. */
INLINE __m512i group_of(const uint8_t *values, const int second, const int g, const struct shape shape)
{
    if (shape.bits == 8)
        return _mm512_xor_si512(load(values + 512 * second + 64 * g), _mm512_set1_epi8((char)0x80));
    __m512i w = load(values + 64 * g);
    w = _mm512_and_si512(second ? _mm512_srli_epi16(w, 4) : w, _mm512_set1_epi8(0x0f));
    if (shape.listed != TENSOR_F32)
        return _mm512_shuffle_epi8(listed_weights(shape.listed), w);
    if (shape.bits == 5) {
        const int place = second ? 0 : 4; /* where bit g of a byte has to go */
        __m512i fifth = load(values + PAIR_BITS_VECTOR + 64 * second);
        fifth = g > place ? _mm512_srli_epi16(fifth, (unsigned)(g - place))
                          : _mm512_slli_epi16(fifth, (unsigned)(place - g));
        fifth = _mm512_and_si512(fifth, _mm512_set1_epi8((char)(1 << place)));
        w = _mm512_or_si512(second ? _mm512_slli_epi16(w, 1) : w, fifth);
    }
    const char zero = (char)(shape.has_m ? 0 : 1 << (shape.bits - 1));
    return _mm512_sub_epi8(w, _mm512_set1_epi8(zero));
}

/* ahead: how far away the weights are that will be wanted next. */
INLINE void unpack_values(const uint8_t *tile, uint32_t b, size_t ahead, struct unpacked *out,
                          const struct shape shape)
{
    const size_t values_at = shape.has_m ? 128 : 64, pair_bytes = values_at + 128 * (size_t)shape.bits;
    const uint8_t *pair = tile + b * pair_bytes;
    for (size_t at = 0; at < pair_bytes; at += 64)
        _mm_prefetch((const char *)pair + at + ahead, _MM_HINT_T1);
    UNROLL
    for (int second = 0; second < 2; second++) {
        _mm512_storeu_ps(out->d[second], shape.listed == TENSOR_MXFP4 ? load_bf16(pair + 32 * second)
                                                                      : load_f16(pair + 32 * second));
        if (shape.has_m)
            _mm512_storeu_ps(out->m[second], load_f16(pair + PAIR_M + 32 * second));
        UNROLL
        for (int g = 0; g < 8; g++)
            _mm512_store_si512(out->values[second][g], group_of(pair + values_at, second, g, shape));
    }
}

typedef void unpack_function(const uint8_t *tile, uint32_t b, size_t ahead, struct unpacked *out);

/* Not inlined: twice the code for two tiles would leave the instruction cache. */
#define UNPACK(name, ...)                                                                                    \
    static __attribute__((noinline)) void name(const uint8_t *tile, uint32_t b, size_t ahead,                \
                                               struct unpacked *out)                                         \
    {                                                                                                        \
        unpack_values(tile, b, ahead, out, (struct shape){__VA_ARGS__});                                     \
    }
UNPACK(unpack_q8_0, 8, false, TENSOR_F32)
UNPACK(unpack_q4_0, 4, false, TENSOR_F32)
UNPACK(unpack_q4_1, 4, true, TENSOR_F32)
UNPACK(unpack_q5_0, 5, false, TENSOR_F32)
UNPACK(unpack_q5_1, 5, true, TENSOR_F32)
UNPACK(unpack_iq4_nl, 4, false, TENSOR_IQ4_NL)
UNPACK(unpack_mxfp4, 4, false, TENSOR_MXFP4)

static unpack_function *unpack_of(enum tensor_type type)
{
    switch (type) {
    case TENSOR_Q4_0:
        return unpack_q4_0;
    case TENSOR_Q4_1:
        return unpack_q4_1;
    case TENSOR_Q5_0:
        return unpack_q5_0;
    case TENSOR_Q5_1:
        return unpack_q5_1;
    case TENSOR_IQ4_NL:
        return unpack_iq4_nl;
    case TENSOR_MXFP4:
        return unpack_mxfp4;
    default:
        return unpack_q8_0;
    }
}

struct chunk {
    const uint8_t *acts; /* of its first row */
    size_t act_stride;
    struct chunk_rows rows;
};

/* Sums by group and block of the pair. */
struct unit_sums {
    _Alignas(64) int32_t blocks[UNIT_GROUPS][2][GROUP_ROWS][TILE_ROWS];
};

INLINE const uint8_t *act_block(const struct chunk *c, uint32_t row, uint32_t b)
{
    return c->acts + row * c->act_stride + b / 4 * sizeof(struct act_q8_32);
}

INLINE void multiply_unit(const struct chunk *c, uint32_t b, const struct unit *u, const struct unpacked *w,
                          struct unit_sums *out)
{
    const bool two = u->n_groups == 2;
    const uint8_t *a0 = act_block(c, u->groups[0].begin, b) + PAIR_VALUES * (b % 4);
    const uint8_t *a1 = act_block(c, u->groups[1].begin, b) + PAIR_VALUES * (b % 4);
    tile_load(6, w->values[0], 64);
    tile_load(7, w->values[1], 64);
    tile_zero(0);
    tile_zero(1);
    tile_load(4, a0, c->act_stride);
    tile_add_signed_signed(0, 4, 6);
    tile_load(5, a0 + BLOCK_BYTES, c->act_stride);
    tile_add_signed_signed(1, 5, 7);
    if (two) {
        tile_zero(2);
        tile_zero(3);
        tile_load(4, a1, c->act_stride);
        tile_add_signed_signed(2, 4, 6);
        tile_load(5, a1 + BLOCK_BYTES, c->act_stride);
        tile_add_signed_signed(3, 5, 7);
    }
    tile_store(0, out->blocks[0][0], 64);
    tile_store(1, out->blocks[0][1], 64);
    if (two) {
        tile_store(2, out->blocks[1][0], 64);
        tile_store(3, out->blocks[1][1], 64);
    }
}

INLINE void flush_unit(const struct chunk *c, uint32_t b, const struct unit *u, const struct unpacked *w,
                       const struct unit_sums *sums, float (*chunk_acc)[TILE_ROWS], const bool has_m)
{
    const uint32_t n_rows = group_rows(c->rows.n);
    for (uint32_t g = 0; g < u->n_groups; g++) {
        const uint8_t *act = act_block(c, u->groups[g].begin, b);
        float(*acc)[TILE_ROWS] = chunk_acc + u->groups[g].begin;
        for (uint32_t i = u->groups[g].n_again; i < n_rows; i++) {
            const struct act_q8_32 *a = (const struct act_q8_32 *)(act + i * c->act_stride);
            __m512 sum = _mm512_load_ps(acc[i]);
            UNROLL
            for (uint32_t second = 0; second < 2; second++) {
                const uint32_t of_act = b % 4 * 2 + second;
                __m512 d = _mm512_mul_ps(_mm512_loadu_ps(w->d[second]), _mm512_set1_ps(a->d[of_act]));
                sum = _mm512_fmadd_ps(d, _mm512_cvtepi32_ps(load(sums->blocks[g][second][i])), sum);
                if (has_m)
                    sum =
                        _mm512_fmadd_ps(_mm512_loadu_ps(w->m[second]), _mm512_set1_ps(a->d_sum[of_act]), sum);
            }
            _mm512_store_ps(acc[i], sum);
        }
    }
}

/* All groups of a chunk with pair b of the tiles of a panel. */
INLINE void multiply_pair(const struct chunk *c, uint32_t b, const struct unpacked *w, uint32_t n_tiles,
                          float (*acc)[CHUNK_ROWS][TILE_ROWS], const bool has_m)
{
    const uint32_t n_units = unit_count(c->rows.n, n_tiles);
    struct unit_sums sums[2];
    for (uint32_t n = 0; n <= n_units; n++) {
        if (n < n_units) {
            const struct unit unit = unit_at(c->rows.n, n_tiles, n);
            multiply_unit(c, b, &unit, &w[unit.tile], &sums[n % 2]);
        }
        if (n > 0) {
            const struct unit unit = unit_at(c->rows.n, n_tiles, n - 1);
            flush_unit(c, b, &unit, &w[unit.tile], &sums[(n - 1) % 2], acc[unit.tile], has_m);
        }
    }
}

INLINE void multiply_panel(const struct product *p, const struct chunk *c, uint32_t first, uint32_t n_tiles,
                           const bool has_m)
{
    _Alignas(64) float acc[PANEL_TILES][CHUNK_ROWS][TILE_ROWS];
    struct unpacked w[PANEL_TILES];
    unpack_function *unpack_pair = unpack_of(p->w->type);
    for (uint32_t t = 0; t < n_tiles; t++)
        memset(acc[t], 0, c->rows.n * sizeof acc[t][0]);
    for (uint32_t b = 0; b < p->n_blocks; b++) {
        for (uint32_t t = 0; t < n_tiles; t++)
            unpack_pair(product_tile(p, first + t), b, PANEL_TILES * p->w->tile_bytes, &w[t]);
        multiply_pair(c, b, w, n_tiles, acc, has_m);
    }
    for (uint32_t row = 0; row < c->rows.n; row++)
        for (uint32_t t = 0; t < n_tiles; t++)
            store_sum(p, first + t, c->rows.begin + row, v_load(acc[t][row]));
}

static void matmul_32(const struct matmul_args *args, uint32_t tile_begin, uint32_t tile_end)
{
    if (args->n_acts < FEWEST_ROWS) {
        avx512_matmul_32(args, tile_begin, tile_end);
        return;
    }
    const struct product p = product_of(args, PAIR_VALUES);
    const uint32_t n_chunks = chunk_count(args->n_acts, CHUNK_ROWS);
    for (uint32_t i = 0; i < n_chunks; i++) {
        struct chunk c = {.act_stride = p.act_stride, .rows = chunk_at(args->n_acts, n_chunks, i)};
        c.acts = p.acts + c.rows.begin * p.act_stride;
        configure_tiles(group_rows(c.rows.n), BLOCK_BYTES);
        for (uint32_t tile = tile_begin; tile < tile_end; tile += PANEL_TILES) {
            uint32_t n_tiles = tile_end - tile < PANEL_TILES ? tile_end - tile : PANEL_TILES;
            if (pack_32_has_m(p.w->type))
                multiply_panel(&p, &c, tile, n_tiles, true);
            else
                multiply_panel(&p, &c, tile, n_tiles, false);
        }
    }
    tiles_release();
}

void amx_fill_matmul_32(struct kernels *kernels)
{
    kernels->matmul[TILE_32] = matmul_32;
}
