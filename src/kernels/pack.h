// clang-format off
/* pack.h: from rows as they lie in a file to tiles of 16 rows, without losing a bit.
 *
 * Columns come in blocks (256 for the K types, 32 for TILE_32), ascending. A group is 4 consecutive inputs of
 * 16 rows in 64 bytes, input i of row r in byte 4*r + i, so that one 512-bit register (or two of 256) feeds a
 * byte dot product whose 32-bit lanes are rows. Every vector of 64 bytes below starts at a multiple of 64.
 *
 * TILE_Q4_K: a block of 2304 bytes each 256 columns (8 sub-blocks of 32: 8 groups each)
 *        0  f16 d[16]
 *       32  f16 dmin[16]
 *       64  3 vectors: the file's 12 bytes of 6-bit scales and mins of a row, as 3 words of 4 bytes; in each word bytes
 *           1 and 2 have changed places, so that the even bytes of a word are sub-blocks 0 and 1 (or 4 and 5), ready as
 *           16-bit pairs
 *      256  32 vectors: vector 8*p + g holds group g of sub-block 2p in its low nibbles and of 2p+1 in its high ones
 * Sub-block 2p+1 is used where it lies: 16 times too large, which the kernels even out in the scales.
 *
 * TILE_Q6_K: f16 d[n_blocks][16], padded to 64; then a block of 3328 bytes each 256 columns (16 sub-blocks of 16: 4 groups)
 *        0  4 vectors: vector c holds the int8 scales of sub-blocks 4c .. 4c+3, row r's at 4*r, in the order 0 2 1 3
 *      256  4 chunks c of 12 vectors (768 bytes), for sub-blocks 4c+k, k = 0..3, and groups j = 0..3 of 6-bit values w
 *           vectors 0-3 (k 0, 1) and 4-7 (k 2, 3), one for each j:
 *                bits 0-3: w & 15 of the even k      bits 4-7: w >> 2 of the odd k
 *           vectors 8-11, one for each j:
 *                bits 4-5: w >> 4 of k 0             bits 6-7: w >> 4 of k 2
 *                bits 2-3: w & 3 of k 1              bits 0-1: w & 3 of k 3
 * Values are unsigned, 32 too high. Odd sub-blocks come out 4 times too large, evened out in the scales.
 *
 * TILE_32: a pair of 32-blocks at a time, 64 columns; what an odd last block lacks is zero
 *        0  f16 d[16] of the first block, d[16] of the second (MXFP4: bf16, which holds every power of two that there is)
 *           Q4_1, Q5_1: then f16 m[16] of the first, m[16] of the second
 *     then  Q8_0: 16 vectors: vector 8*e + g holds group g of block e as unsigned bytes, 128 too high
 *           Q4_0, Q4_1, IQ4_NL, MXFP4: 8 vectors: vector g holds group g of the first block in its low nibbles and of the
 *           second in its high ones
 *           Q5_0, Q5_1: likewise 8 vectors with the lower 4 bits of the first block's and the *upper* 4 bits of the
 *           second block's values; then 2 vectors: bit g of vector e is the bit that is missing in group g of block e
 * Kernels may use nibbles where they lie, 8 or 16 times too large, with smaller scales. weight = d * (u - zero) + m; zero is
 * 128 for Q8_0, 8 for Q4_0, 16 for Q5_0, else 0. IQ4_NL, MXFP4: u is what quant_codebook has for a nibble, 128 too high, and
 * zero 128.
 *
 * TILE_Q5_K: a block of 2816 bytes each 256 columns
 *        0  as a block of TILE_Q4_K, with the lower 4 bits of the values of even sub-blocks and the *upper* 4 bits of those
 *           of odd ones
 *     2304  8 vectors: bit g of vector s is the bit that is missing in group g of sub-block s
 *
 * TILE_Q2_K: a block of 1344 bytes each 256 columns (16 sub-blocks of 16: 4 groups each)
 *        0  f16 d[16]
 *       32  f16 dmin[16]
 *       64  4 vectors: vector c holds the scales of sub-blocks 4c .. 4c+3 in its low nibbles and their mins in the high ones,
 *           row r's at 4*r, in the order 0 2 1 3
 *      320  16 vectors: vector 4*c + j holds group j of sub-blocks 4c+k: bits 0-1 of k 0, bits 2-3 of k 2, bits 4-5 of k 3,
 *           bits 6-7 of k 1
 * The sub-blocks in the upper four bits are used where they lie, 16 and 64 times too large, evened out in the scales.
 *
 * TILE_Q3_K: f16 d[n_blocks][16], padded to 64; then a block of 1728 bytes each 256 columns (16 sub-blocks of 16: 4 groups)
 *        0  3 vectors: the file's 12 bytes of 6-bit scales of a row, as TILE_Q4_K has them
 *      192  8 times 3 vectors A, B, C, for sub-blocks 2p and 2p+1, of 3-bit values e[j] and o[j] of their groups j
 *           A: bits 0-2: e[0]   bits 5-7: o[0]   bits 3-4: the upper two bits of o[3]
 *           B: bits 0-2: e[1]   bits 5-7: o[1]   bit 3: the lowest bit of o[3]   bit 4: the highest bit of e[3]
 *           C: bits 0-2: e[2]   bits 5-7: o[2]   bits 3-4: the lower two bits of e[3]
 * Values are unsigned, 4 too high. Odd sub-blocks come out 32 times too large, evened out in the scales.
 *
 * TILE_IQ4_XS: f16 d[n_blocks][16], padded to 64; then a block of 2176 bytes each 256 columns (8 sub-blocks of 32: 8 groups)
 *        0  2 vectors: vector c holds the scales of sub-blocks 4c .. 4c+3, less 32, as int8, row r's at 4*r, in the order 0 2 1 3
 *      128  32 vectors of nibbles, as TILE_Q4_K has them
 *
 * TILE_FLOAT: for each column the 16 rows' values, as in the file; padded to 64.
 *
 * Owns nothing; any thread. */
// clang-format on
#ifndef RUNNEL_KERNELS_PACK_H
#define RUNNEL_KERNELS_PACK_H

#include "kernels/ops.h"

#include <string.h>

enum {
    Q4K_DMIN = 32, /* offsets in a block */
    Q4K_SCALES = 64,
    Q4K_NIBBLES = 256,
    Q4K_BLOCK_BYTES = 2304,

    Q5K_BITS = 2304,
    Q5K_BLOCK_BYTES = 2816,

    Q6K_CHUNKS = 256, /* offset in a block */
    Q6K_CHUNK_BYTES = 768,
    Q6K_BLOCK_BYTES = 3328,

    Q2K_SCALES = 64, /* offsets in a block */
    Q2K_VALUES = 320,
    Q2K_BLOCK_BYTES = 1344,

    Q3K_VALUES = 192, /* offset in a block */
    Q3K_PAIR_BYTES = 192,
    Q3K_BLOCK_BYTES = 1728,

    IQ4XS_NIBBLES = 128, /* offset in a block */
    IQ4XS_BLOCK_BYTES = 2176,

    PAIR_VALUES = 64,
    PAIR_M = 64,            /* offset in a pair of blocks, where there is an m */
    PAIR_BITS_VECTOR = 512, /* offset from the nibbles to the fifth bits */
};

enum tile_kind pack_kind(enum tensor_type type);
size_t pack_tile_bytes(enum tensor_type type, uint32_t n_columns);

/* Packs n_rows (1 .. 16) rows of n_columns values (whole blocks of type), row_bytes apart; missing rows
 * become zeros. */
void pack_tile(enum tensor_type type, const void *rows, size_t row_bytes, uint32_t n_rows, uint32_t n_columns,
               uint8_t *tile);

/* One row of a packed matrix as f32[n_columns]: exactly what quant_decode gives for the row in the file. */
void pack_row_f32(const struct packed_matrix *matrix, uint32_t row, float *out);

/* For the kernels. Bytes in front of the blocks of a tile (0 but for TILE_Q3_K, TILE_Q6_K and TILE_IQ4_XS). */
size_t pack_header_bytes(enum tensor_type type, uint32_t n_columns);

/* TILE_32: bits a weight (4, 5, 8), whether blocks have an m, what u is for a weight of m, the d at a place of a tile; where the
 * vectors of a pair of blocks start, and its bytes. */
static inline int pack_32_bits(enum tensor_type type)
{
    return type == TENSOR_Q8_0 ? 8 : type == TENSOR_Q5_0 || type == TENSOR_Q5_1 ? 5 : 4;
}
static inline bool pack_32_has_m(enum tensor_type type)
{
    return type == TENSOR_Q4_1 || type == TENSOR_Q5_1;
}
static inline int pack_32_zero(enum tensor_type type)
{
    if (quant_codebook(type))
        return 128;
    return pack_32_has_m(type) ? 0 : 1 << (pack_32_bits(type) - 1);
}
static inline float pack_32_d(enum tensor_type type, const uint8_t *d)
{
    uint16_t bits;
    memcpy(&bits, d, sizeof bits);
    return type == TENSOR_MXFP4 ? bf16_to_f32(bits) : f16_to_f32(bits);
}
static inline size_t pack_32_values_at(enum tensor_type type)
{
    return pack_32_has_m(type) ? 128 : 64;
}
static inline size_t pack_32_pair_bytes(enum tensor_type type)
{
    return pack_32_values_at(type) + 128 * (size_t)pack_32_bits(type);
}
static inline uint32_t pack_32_pairs(uint32_t n_columns)
{
    return (n_columns + PAIR_VALUES - 1) / PAIR_VALUES;
}

#endif
