/* pack.c: see pack.h for the layouts. Each tile kind has a function that packs one row's block into its place
 * and one that takes it out again as the bytes of the file: what comes out is decoded by quant_decode, so a
 * packed row cannot differ. */
#include "kernels/pack.h"

#include <string.h>

enum {
    Q4K_FILE_SCALES = 4, /* offsets in a block of the file: d, dmin, scales[12], qs[128] */
    Q4K_FILE_NIBBLES = 16,
    Q4K_FILE_BYTES = 144,

    Q5K_FILE_BITS = 16, /* as Q4_K, but with 32 bytes of fifth bits in front of the nibbles */
    Q5K_FILE_NIBBLES = 48,

    Q2K_FILE_VALUES = 16, /* scales[16], qs[64], d, dmin */
    Q2K_FILE_D = 80,
    Q2K_FILE_BYTES = 84,

    Q3K_FILE_PAIRS = 32, /* third bits[32], qs[64], scales[12], d */
    Q3K_FILE_SCALES = 96,
    Q3K_FILE_D = 108,
    Q3K_FILE_BYTES = 110,

    IQ4XS_FILE_HIGH = 2, /* d, upper bits of scales (u16), their lower bits[4], qs[128] */
    IQ4XS_FILE_LOW = 4,
    IQ4XS_FILE_NIBBLES = 8,
    IQ4XS_FILE_BYTES = 136,

    Q6K_FILE_HIGH = 128, /* ql[128], qh[64], scales[16], d */
    Q6K_FILE_SCALES = 192,
    Q6K_FILE_D = 208,
    Q6K_FILE_BYTES = 210,
};

static uint32_t load_u32(const uint8_t *p)
{
    uint32_t value;
    memcpy(&value, p, sizeof value);
    return value;
}

static void store_u32(uint8_t *p, uint32_t value)
{
    memcpy(p, &value, sizeof value);
}

static size_t round_up_64(size_t n)
{
    return (n + 63) / 64 * 64;
}

enum tile_kind pack_kind(enum tensor_type type)
{
    switch (type) {
    case TENSOR_Q2_K:
        return TILE_Q2_K;
    case TENSOR_Q3_K:
        return TILE_Q3_K;
    case TENSOR_Q4_K:
        return TILE_Q4_K;
    case TENSOR_Q5_K:
        return TILE_Q5_K;
    case TENSOR_Q6_K:
        return TILE_Q6_K;
    case TENSOR_IQ4_XS:
        return TILE_IQ4_XS;
    case TENSOR_Q8_0:
    case TENSOR_Q4_0:
    case TENSOR_Q4_1:
    case TENSOR_Q5_0:
    case TENSOR_Q5_1:
    case TENSOR_IQ4_NL:
    case TENSOR_MXFP4:
        return TILE_32;
    case TENSOR_F32:
    case TENSOR_F16:
    case TENSOR_BF16:
        break;
    }
    return TILE_FLOAT;
}

static size_t file_row_bytes(enum tensor_type type, uint32_t n_columns)
{
    const struct quant_info *info = quant_find(type);
    return (size_t)(n_columns / info->block_values) * info->block_bytes;
}

size_t pack_header_bytes(enum tensor_type type, uint32_t n_columns)
{
    switch (pack_kind(type)) {
    case TILE_Q3_K:
    case TILE_Q6_K:
    case TILE_IQ4_XS:
        return round_up_64((size_t)(n_columns / ACT_BLOCK) * 32);
    default:
        return 0;
    }
}

/* Bytes of a block of 256 columns in a tile; of TILE_32 and TILE_FLOAT, which have none, 0. */
static size_t k_block_bytes(enum tile_kind kind)
{
    switch (kind) {
    case TILE_Q2_K:
        return Q2K_BLOCK_BYTES;
    case TILE_Q3_K:
        return Q3K_BLOCK_BYTES;
    case TILE_Q4_K:
        return Q4K_BLOCK_BYTES;
    case TILE_Q5_K:
        return Q5K_BLOCK_BYTES;
    case TILE_Q6_K:
        return Q6K_BLOCK_BYTES;
    case TILE_IQ4_XS:
        return IQ4XS_BLOCK_BYTES;
    default:
        return 0;
    }
}

size_t pack_tile_bytes(enum tensor_type type, uint32_t n_columns)
{
    enum tile_kind kind = pack_kind(type);
    switch (kind) {
    case TILE_32:
        return pack_32_pairs(n_columns) * pack_32_pair_bytes(type);
    case TILE_FLOAT:
        return round_up_64(TILE_ROWS * file_row_bytes(type, n_columns));
    default:
        return pack_header_bytes(type, n_columns) + n_columns / ACT_BLOCK * k_block_bytes(kind);
    }
}

/* Exchanges bytes 1 and 2; its own inverse. */
static uint32_t swap_middle(uint32_t word)
{
    return (word & 0xff0000ff) | (word & 0x0000ff00) << 8 | (word & 0x00ff0000) >> 8;
}

/* What the blocks of Q4_K and Q5_K start with. */
static void pack_k_scales(const uint8_t *file, uint32_t row, uint8_t *block)
{
    memcpy(block + 2 * row, file, 2);
    memcpy(block + Q4K_DMIN + 2 * row, file + 2, 2);
    for (int i = 0; i < 3; i++)
        store_u32(block + Q4K_SCALES + 64 * i + 4 * row,
                  swap_middle(load_u32(file + Q4K_FILE_SCALES + 4 * i)));
}

static void unpack_k_scales(const uint8_t *block, uint32_t row, uint8_t *file)
{
    memcpy(file, block + 2 * row, 2);
    memcpy(file + 2, block + Q4K_DMIN + 2 * row, 2);
    for (int i = 0; i < 3; i++)
        store_u32(file + Q4K_FILE_SCALES + 4 * i,
                  swap_middle(load_u32(block + Q4K_SCALES + 64 * i + 4 * row)));
}

static void pack_q4_k(const uint8_t *file, uint32_t row, uint8_t *block)
{
    pack_k_scales(file, row, block);
    for (int i = 0; i < 32; i++)
        memcpy(block + Q4K_NIBBLES + 64 * i + 4 * row, file + Q4K_FILE_NIBBLES + 4 * i, 4);
}

static void unpack_q4_k(const uint8_t *block, uint32_t row, uint8_t *file)
{
    unpack_k_scales(block, row, file);
    for (int i = 0; i < 32; i++)
        memcpy(file + Q4K_FILE_NIBBLES + 4 * i, block + Q4K_NIBBLES + 64 * i + 4 * row, 4);
}

/* Byte i of the nibbles: values 32 apart, of sub-blocks 2p and 2p + 1; bits 2p and 2p + 1 of byte i % 32 are their
 * fifth bits. */
static void pack_q5_k(const uint8_t *file, uint32_t row, uint8_t *block)
{
    pack_k_scales(file, row, block);
    for (uint32_t i = 0; i < 128; i++) {
        uint32_t p = i / 32, group = i % 32 / 4, at = 4 * row + i % 4;
        int nibbles = file[Q5K_FILE_NIBBLES + i], fifth = file[Q5K_FILE_BITS + i % 32] >> (2 * p);
        int odd = nibbles >> 4 | (fifth >> 1 & 1) << 4;
        uint8_t *bits = block + Q5K_BITS + 128 * p + at;
        block[Q4K_NIBBLES + 64 * (8 * p + group) + at] = (uint8_t)((nibbles & 15) | odd >> 1 << 4);
        bits[0] |= (uint8_t)((fifth & 1) << group);
        bits[64] |= (uint8_t)((odd & 1) << group);
    }
}

static void unpack_q5_k(const uint8_t *block, uint32_t row, uint8_t *file)
{
    unpack_k_scales(block, row, file);
    memset(file + Q5K_FILE_BITS, 0, 32);
    for (uint32_t i = 0; i < 128; i++) {
        uint32_t p = i / 32, group = i % 32 / 4, at = 4 * row + i % 4;
        const uint8_t *bits = block + Q5K_BITS + 128 * p + at;
        int nibbles = block[Q4K_NIBBLES + 64 * (8 * p + group) + at];
        int odd = nibbles >> 4 << 1 | (bits[64] >> group & 1);
        file[Q5K_FILE_NIBBLES + i] = (uint8_t)((nibbles & 15) | (odd & 15) << 4);
        file[Q5K_FILE_BITS + i % 32] |=
            (uint8_t)((bits[0] >> group & 1) << (2 * p) | odd >> 4 << (2 * p + 1));
    }
}

/* The file's quarter q (0..3) of half h holds inputs 128 h + 32 q ..: nibbles and bit pairs of 4 inputs in a
 * word. */
static uint32_t q6_k_group(const uint8_t *file, int group)
{
    int half = group / 32, quarter = group / 8 % 4, place = group % 8 * 4;
    uint32_t low = load_u32(file + 64 * half + 32 * (quarter % 2) + place) >> (quarter / 2 * 4);
    uint32_t high = load_u32(file + Q6K_FILE_HIGH + 32 * half + place) >> (2 * quarter);
    return (low & 0x0f0f0f0f) | (high & 0x03030303) << 4;
}

static void pack_q6_k(const uint8_t *file, uint32_t row, uint8_t *d, uint8_t *block)
{
    memcpy(d + 2 * row, file + Q6K_FILE_D, 2);
    for (int c = 0; c < 4; c++)
        store_u32(block + 64 * c + 4 * row, swap_middle(load_u32(file + Q6K_FILE_SCALES + 4 * c)));
    for (int c = 0; c < 4; c++) {
        uint8_t *chunk = block + Q6K_CHUNKS + Q6K_CHUNK_BYTES * c + 4 * row;
        for (int j = 0; j < 4; j++) {
            uint32_t w0 = q6_k_group(file, 16 * c + j), w1 = q6_k_group(file, 16 * c + 4 + j);
            uint32_t w2 = q6_k_group(file, 16 * c + 8 + j), w3 = q6_k_group(file, 16 * c + 12 + j);
            store_u32(chunk + 64 * j, (w0 & 0x0f0f0f0f) | (w1 << 2 & 0xf0f0f0f0));
            store_u32(chunk + 64 * (4 + j), (w2 & 0x0f0f0f0f) | (w3 << 2 & 0xf0f0f0f0));
            store_u32(chunk + 64 * (8 + j), (w0 & 0x30303030) | (w1 << 2 & 0x0c0c0c0c) |
                                                (w2 << 2 & 0xc0c0c0c0) | (w3 & 0x03030303));
        }
    }
}

static void unpack_q6_k(const uint8_t *d, const uint8_t *block, uint32_t row, uint8_t *file)
{
    memset(file, 0, Q6K_FILE_BYTES);
    memcpy(file + Q6K_FILE_D, d + 2 * row, 2);
    for (int c = 0; c < 4; c++)
        store_u32(file + Q6K_FILE_SCALES + 4 * c, swap_middle(load_u32(block + 64 * c + 4 * row)));
    for (int group = 0; group < 64; group++) {
        const uint8_t *chunk = block + Q6K_CHUNKS + Q6K_CHUNK_BYTES * (group / 16) + 4 * row;
        int k = group / 4 % 4, j = group % 4;
        uint32_t nibbles = load_u32(chunk + 64 * (k / 2 * 4 + j)), pairs = load_u32(chunk + 64 * (8 + j)), w;
        if (k % 2 == 0)
            w = (nibbles & 0x0f0f0f0f) | ((k == 0 ? pairs : pairs >> 2) & 0x30303030);
        else
            w = (nibbles >> 2 & 0x3c3c3c3c) | ((k == 1 ? pairs >> 2 : pairs) & 0x03030303);
        int half = group / 32, quarter = group / 8 % 4, place = group % 8 * 4;
        uint8_t *low = file + 64 * half + 32 * (quarter % 2) + place;
        uint8_t *high = file + Q6K_FILE_HIGH + 32 * half + place;
        store_u32(low, load_u32(low) | (w & 0x0f0f0f0f) << (quarter / 2 * 4));
        store_u32(high, load_u32(high) | (w >> 4 & 0x03030303) << (2 * quarter));
    }
}

/* Group g (0 .. 63) of a Q2_K or Q3_K block's bit pairs: inputs 4g .. 4g+3, bit pair (g / 8 % 4) of 4 bytes. */
static uint32_t pairs_group(const uint8_t *pairs, int g)
{
    return load_u32(pairs + g / 32 * 32 + g % 8 * 4) >> (g / 8 % 4 * 2) & 0x03030303;
}

static void store_pairs_group(uint8_t *pairs, int g, uint32_t group)
{
    uint8_t *place = pairs + g / 32 * 32 + g % 8 * 4;
    store_u32(place, load_u32(place) | group << (g / 8 % 4 * 2));
}

/* Where bit pairs of sub-block k of a chunk lie in TILE_Q2_K. */
static const int q2k_shift[4] = {0, 6, 2, 4};

static void pack_q2_k(const uint8_t *file, uint32_t row, uint8_t *block)
{
    memcpy(block + 2 * row, file + Q2K_FILE_D, 2);
    memcpy(block + Q4K_DMIN + 2 * row, file + Q2K_FILE_D + 2, 2);
    for (int c = 0; c < 4; c++) {
        store_u32(block + Q2K_SCALES + 64 * c + 4 * row, swap_middle(load_u32(file + 4 * c)));
        for (int j = 0; j < 4; j++) {
            uint32_t word = 0;
            for (int k = 0; k < 4; k++)
                word |= pairs_group(file + Q2K_FILE_VALUES, 16 * c + 4 * k + j) << q2k_shift[k];
            store_u32(block + Q2K_VALUES + 64 * (4 * c + j) + 4 * row, word);
        }
    }
}

static void unpack_q2_k(const uint8_t *block, uint32_t row, uint8_t *file)
{
    memset(file, 0, Q2K_FILE_BYTES);
    memcpy(file + Q2K_FILE_D, block + 2 * row, 2);
    memcpy(file + Q2K_FILE_D + 2, block + Q4K_DMIN + 2 * row, 2);
    for (int c = 0; c < 4; c++) {
        store_u32(file + 4 * c, swap_middle(load_u32(block + Q2K_SCALES + 64 * c + 4 * row)));
        for (int j = 0; j < 4; j++) {
            uint32_t word = load_u32(block + Q2K_VALUES + 64 * (4 * c + j) + 4 * row);
            for (int k = 0; k < 4; k++)
                store_pairs_group(file + Q2K_FILE_VALUES, 16 * c + 4 * k + j,
                                  word >> q2k_shift[k] & 0x03030303);
        }
    }
}

/* Group g of a Q3_K block's values, 4 too high. */
static uint32_t q3_k_group(const uint8_t *file, int g)
{
    uint32_t third = load_u32(file + g % 8 * 4) >> (g / 8) & 0x01010101;
    return pairs_group(file + Q3K_FILE_PAIRS, g) | third << 2;
}

static void pack_q3_k(const uint8_t *file, uint32_t row, uint8_t *d, uint8_t *block)
{
    memcpy(d + 2 * row, file + Q3K_FILE_D, 2);
    for (int i = 0; i < 3; i++)
        store_u32(block + 64 * i + 4 * row, swap_middle(load_u32(file + Q3K_FILE_SCALES + 4 * i)));
    for (int p = 0; p < 8; p++) {
        uint8_t *place = block + Q3K_VALUES + Q3K_PAIR_BYTES * p + 4 * row;
        uint32_t word[4], last_even = q3_k_group(file, 8 * p + 3), last_odd = q3_k_group(file, 8 * p + 7);
        for (int j = 0; j < 3; j++)
            word[j] = q3_k_group(file, 8 * p + j) | q3_k_group(file, 8 * p + 4 + j) << 5;
        store_u32(place, word[0] | (last_odd & 0x06060606) << 2);
        store_u32(place + 64, word[1] | (last_odd & 0x01010101) << 3 | (last_even & 0x04040404) << 2);
        store_u32(place + 128, word[2] | (last_even & 0x03030303) << 3);
    }
}

static void unpack_q3_k(const uint8_t *d, const uint8_t *block, uint32_t row, uint8_t *file)
{
    memset(file, 0, Q3K_FILE_BYTES);
    memcpy(file + Q3K_FILE_D, d + 2 * row, 2);
    for (int i = 0; i < 3; i++)
        store_u32(file + Q3K_FILE_SCALES + 4 * i, swap_middle(load_u32(block + 64 * i + 4 * row)));
    for (int p = 0; p < 8; p++) {
        const uint8_t *place = block + Q3K_VALUES + Q3K_PAIR_BYTES * p + 4 * row;
        uint32_t a = load_u32(place), b = load_u32(place + 64), c = load_u32(place + 128);
        const uint32_t groups[8] = {
            a,      b,      c,      (c >> 3 & 0x03030303) | (b >> 2 & 0x04040404),
            a >> 5, b >> 5, c >> 5, (a >> 2 & 0x06060606) | (b >> 3 & 0x01010101),
        };
        for (int j = 0; j < 8; j++) {
            int g = 8 * p + j;
            uint8_t *third = file + g % 8 * 4;
            store_pairs_group(file + Q3K_FILE_PAIRS, g, groups[j] & 0x03030303);
            store_u32(third, load_u32(third) | (groups[j] >> 2 & 0x01010101) << (g / 8));
        }
    }
}

/* Where the scale of sub-block s (0 .. 7) lies in TILE_IQ4_XS. */
static uint32_t iq4xs_scale_at(uint32_t s, uint32_t row)
{
    static const uint32_t place[4] = {0, 2, 1, 3};
    return s / 4 * 64 + 4 * row + place[s % 4];
}

static void pack_iq4_xs(const uint8_t *file, uint32_t row, uint8_t *d, uint8_t *block)
{
    memcpy(d + 2 * row, file, 2);
    for (uint32_t s = 0; s < 8; s++) {
        int low = file[IQ4XS_FILE_LOW + s / 2] >> (s % 2 * 4) & 15;
        int high = file[IQ4XS_FILE_HIGH + s / 4] >> (s % 4 * 2) & 3;
        block[iq4xs_scale_at(s, row)] = (uint8_t)((low | high << 4) - 32);
    }
    for (uint32_t p = 0; p < 4; p++)
        for (uint32_t g = 0; g < 8;
             g++) { /* a sub-block's first 16 inputs are low nibbles, the others high ones */
            const uint8_t *even = file + IQ4XS_FILE_NIBBLES + 32 * p + g % 4 * 4, *odd = even + 16;
            uint32_t first = load_u32(even) >> (g / 4 * 4), second = load_u32(odd) >> (g / 4 * 4);
            store_u32(block + IQ4XS_NIBBLES + 64 * (8 * p + g) + 4 * row,
                      (first & 0x0f0f0f0f) | (second & 0x0f0f0f0f) << 4);
        }
}

static void unpack_iq4_xs(const uint8_t *d, const uint8_t *block, uint32_t row, uint8_t *file)
{
    memset(file, 0, IQ4XS_FILE_BYTES);
    memcpy(file, d + 2 * row, 2);
    for (uint32_t s = 0; s < 8; s++) {
        int scale = (int8_t)block[iq4xs_scale_at(s, row)] + 32;
        file[IQ4XS_FILE_LOW + s / 2] |= (uint8_t)((scale & 15) << (s % 2 * 4));
        file[IQ4XS_FILE_HIGH + s / 4] |= (uint8_t)(scale >> 4 << (s % 4 * 2));
    }
    for (uint32_t p = 0; p < 4; p++)
        for (uint32_t g = 0; g < 8; g++) {
            uint8_t *even = file + IQ4XS_FILE_NIBBLES + 32 * p + g % 4 * 4, *odd = even + 16;
            uint32_t nibbles = load_u32(block + IQ4XS_NIBBLES + 64 * (8 * p + g) + 4 * row);
            store_u32(even, load_u32(even) | (nibbles & 0x0f0f0f0f) << (g / 4 * 4));
            store_u32(odd, load_u32(odd) | (nibbles >> 4 & 0x0f0f0f0f) << (g / 4 * 4));
        }
}

/* Where the parts of a 32-block lie in the file: -1 if it has no such part. */
struct shape_32 {
    int m, high, quants;
};

static struct shape_32 shape_32_of(enum tensor_type type)
{
    switch (type) {
    case TENSOR_Q4_1:
        return (struct shape_32){2, -1, 4};
    case TENSOR_Q5_0:
        return (struct shape_32){-1, 2, 6};
    case TENSOR_Q5_1:
        return (struct shape_32){2, 4, 8};
    case TENSOR_MXFP4:
        return (struct shape_32){-1, -1, 1};
    default: /* Q8_0, Q4_0, IQ4_NL */
        return (struct shape_32){-1, -1, 2};
    }
}

/* The 32 values of a block as unsigned bytes, and back. */
static void values_of_file(enum tensor_type type, const uint8_t *file, uint8_t u[32])
{
    struct shape_32 shape = shape_32_of(type);
    uint32_t high = shape.high >= 0 ? load_u32(file + shape.high) : 0; /* bit 4 of value i is bit i */
    const uint8_t *quants = file + shape.quants;
    for (int i = 0; i < 32; i++) {
        if (type == TENSOR_Q8_0)
            u[i] = quants[i] ^ 0x80; /* two's complement + 128 */
        else
            u[i] = (uint8_t)((i < 16 ? quants[i] & 15 : quants[i - 16] >> 4) | (high >> i & 1) << 4);
    }
}

static void values_to_file(enum tensor_type type, const uint8_t u[32], uint8_t *file)
{
    struct shape_32 shape = shape_32_of(type);
    uint32_t high = 0;
    for (int i = 0; i < 32; i++) {
        uint8_t *quant = file + shape.quants + (type == TENSOR_Q8_0 ? i : i % 16);
        if (type == TENSOR_Q8_0)
            *quant = u[i] ^ 0x80;
        else
            *quant = (uint8_t)(i < 16 ? u[i] & 15 : *quant | u[i] << 4);
        high |= (uint32_t)(u[i] >> 4 & 1) << i;
    }
    if (shape.high >= 0)
        store_u32(file + shape.high, high);
}

/* The d of a block in a tile: two bytes of the file; of MXFP4 a float's upper half in place of the exponent alone. */
static void pack_32_scale(enum tensor_type type, const uint8_t *file, uint8_t *d)
{
    if (type != TENSOR_MXFP4) {
        memcpy(d, file, 2);
        return;
    }
    float scale = e8m0_half_to_f32(*file);
    memcpy(d, (const uint8_t *)&scale + 2, 2);
}

static void unpack_32_scale(enum tensor_type type, const uint8_t *d, uint8_t *file)
{
    uint16_t bits;
    memcpy(&bits, d, 2);
    if (type != TENSOR_MXFP4)
        memcpy(file, d, 2);
    else /* 2^-128 and 2^-127 are subnormal */
        *file = (uint8_t)(bits < 0x80 ? bits / 0x40 : bits / 0x80 + 1);
}

/* Block b of a row of a tile. */
static void pack_32(enum tensor_type type, const uint8_t *file, uint32_t row, uint32_t b, uint8_t *tile)
{
    uint8_t *pair = tile + b / 2 * pack_32_pair_bytes(type), *values = pair + pack_32_values_at(type), u[32];
    int bits = pack_32_bits(type), second = b % 2;
    pack_32_scale(type, file, pair + 32 * second + 2 * row);
    if (pack_32_has_m(type))
        memcpy(pair + PAIR_M + 32 * second + 2 * row, file + shape_32_of(type).m, 2);
    values_of_file(type, file, u);
    for (uint32_t i = 0; i < 32; i++) {
        uint32_t at = i / 4 * 64 + 4 * row + i % 4;
        if (bits == 8)
            values[512 * second + at] = u[i];
        else if (!second)
            values[at] |= u[i] & 15;
        else
            values[at] |= (uint8_t)(u[i] >> (bits - 4) << 4);
        if (bits == 5)
            values[PAIR_BITS_VECTOR + 64 * second + at % 64] |=
                (uint8_t)((second ? u[i] & 1 : u[i] >> 4) << i / 4);
    }
}

static void unpack_32(enum tensor_type type, const uint8_t *tile, uint32_t row, uint32_t b, uint8_t *file)
{
    const uint8_t *pair = tile + b / 2 * pack_32_pair_bytes(type), *values = pair + pack_32_values_at(type);
    uint8_t u[32];
    int bits = pack_32_bits(type), second = b % 2;
    unpack_32_scale(type, pair + 32 * second + 2 * row, file);
    if (pack_32_has_m(type))
        memcpy(file + shape_32_of(type).m, pair + PAIR_M + 32 * second + 2 * row, 2);
    for (uint32_t i = 0; i < 32; i++) {
        uint32_t at = i / 4 * 64 + 4 * row + i % 4;
        if (bits == 8) {
            u[i] = values[512 * second + at];
            continue;
        }
        int nibble = second ? values[at] >> 4 : values[at] & 15;
        int bit = bits == 5 ? values[PAIR_BITS_VECTOR + 64 * second + at % 64] >> i / 4 & 1 : 0;
        u[i] = (uint8_t)(bits == 4 ? nibble : second ? nibble << 1 | bit : nibble | bit << 4);
    }
    values_to_file(type, u, file);
}

/* Block b of a row; n_columns are those of the row. */
static void pack_block(enum tensor_type type, const uint8_t *file, uint32_t row, uint32_t b,
                       uint32_t n_columns, uint8_t *tile)
{
    enum tile_kind kind = pack_kind(type);
    uint8_t *d = tile + 32 * (size_t)b; /* of the kinds that have a header of these */
    uint8_t *block = tile + pack_header_bytes(type, n_columns) + b * k_block_bytes(kind);
    switch (kind) {
    case TILE_Q2_K:
        pack_q2_k(file, row, block);
        break;
    case TILE_Q3_K:
        pack_q3_k(file, row, d, block);
        break;
    case TILE_Q4_K:
        pack_q4_k(file, row, block);
        break;
    case TILE_Q5_K:
        pack_q5_k(file, row, block);
        break;
    case TILE_Q6_K:
        pack_q6_k(file, row, d, block);
        break;
    case TILE_IQ4_XS:
        pack_iq4_xs(file, row, d, block);
        break;
    default:
        pack_32(type, file, row, b, tile);
    }
}

/* Likewise, back to the bytes of the file. */
static void unpack_block(enum tensor_type type, const uint8_t *tile, uint32_t row, uint32_t b,
                         uint32_t n_columns, uint8_t *file)
{
    enum tile_kind kind = pack_kind(type);
    const uint8_t *d = tile + 32 * (size_t)b;
    const uint8_t *block = tile + pack_header_bytes(type, n_columns) + b * k_block_bytes(kind);
    switch (kind) {
    case TILE_Q2_K:
        unpack_q2_k(block, row, file);
        break;
    case TILE_Q3_K:
        unpack_q3_k(d, block, row, file);
        break;
    case TILE_Q4_K:
        unpack_q4_k(block, row, file);
        break;
    case TILE_Q5_K:
        unpack_q5_k(block, row, file);
        break;
    case TILE_Q6_K:
        unpack_q6_k(d, block, row, file);
        break;
    case TILE_IQ4_XS:
        unpack_iq4_xs(d, block, row, file);
        break;
    default:
        unpack_32(type, tile, row, b, file);
    }
}

void pack_tile(enum tensor_type type, const void *rows, size_t row_bytes, uint32_t n_rows, uint32_t n_columns,
               uint8_t *tile)
{
    enum tile_kind kind = pack_kind(type);
    uint32_t n_blocks = n_columns / (kind == TILE_32 ? 32 : ACT_BLOCK);
    size_t file_block_bytes = quant_find(type)->block_bytes;

    memset(tile, 0, pack_tile_bytes(type, n_columns));

    for (uint32_t row = 0; row < n_rows; row++) {
        const uint8_t *file = (const uint8_t *)rows + row * row_bytes;
        if (kind == TILE_FLOAT) {
            for (uint32_t i = 0; i < n_columns; i++)
                memcpy(tile + (i * TILE_ROWS + row) * file_block_bytes, file + i * file_block_bytes,
                       file_block_bytes);
            continue;
        }
        for (uint32_t b = 0; b < n_blocks; b++, file += file_block_bytes)
            pack_block(type, file, row, b, n_columns, tile);
    }
}

void pack_row_f32(const struct packed_matrix *matrix, uint32_t row, float *out)
{
    enum tensor_type type = matrix->type;
    const uint8_t *tile = matrix->data + row / TILE_ROWS * matrix->tile_bytes;
    uint8_t file[Q6K_FILE_BYTES]; /* the largest block */
    row %= TILE_ROWS;

    if (matrix->kind == TILE_FLOAT) {
        uint32_t n_bytes = quant_find(type)->block_bytes;
        for (uint32_t i = 0; i < matrix->n_columns; i++)
            quant_decode(type, tile + ((size_t)i * TILE_ROWS + row) * n_bytes, 1, out + i);
        return;
    }
    uint32_t n_values = matrix->kind == TILE_32 ? 32 : ACT_BLOCK;
    for (uint32_t b = 0; b < matrix->n_columns / n_values; b++) {
        unpack_block(type, tile, row, b, matrix->n_columns, file);
        quant_decode(type, file, n_values, out + (size_t)b * n_values);
    }
}
