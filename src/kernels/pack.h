/* pack.h: from rows as they lie in a file to tiles of 16 rows, without losing a bit.
 *
 * Columns come in blocks (256 for the K types, 32 for TILE_U8), ascending. A group is 4 consecutive inputs of
 * 16 rows in 64 bytes, input i of row r in byte 4*r + i, so that one 512-bit register (or two of 256) feeds a
 * byte dot product whose 32-bit lanes are rows. Every vector of 64 bytes below starts at a multiple of 64.
 *
 * TILE_Q4_K: a block of 2304 bytes each 256 columns (8 sub-blocks of 32: 8 groups each)
 *       0  f16 d[16]
 *      32  f16 dmin[16]
 *      64  3 vectors: the file's 12 bytes of 6-bit scales and mins a row, as 3 words of 4 bytes; in each word
 * bytes 1 and 2 have changed places, so that the even bytes of a word are sub-blocks 0 and 1 (or 4 and 5),
 * ready as 16-bit pairs 256  32 vectors: vector 8*p + g holds group g of sub-block 2p in its low nibbles and
 * of 2p+1 in its high ones Sub-block 2p+1 is used where it lies: 16 times too large, which the kernels even
 * out in the scales.
 *
 * TILE_Q6_K: f16 d[n_blocks][16], padded to 64; then a block of 3328 bytes each 256 columns (16 sub-blocks of
 * 16: 4 groups) 0  4 vectors: vector c holds the int8 scales of sub-blocks 4c .. 4c+3, row r's at 4*r, in the
 * order 0 2 1 3 256  4 chunks c of 12 vectors (768 bytes), for sub-blocks 4c+k, k = 0..3, and groups j = 0..3
 * of 6-bit values w: vectors 0-3 (k 0, 1) and 4-7 (k 2, 3):  bits 0-3: w & 15 of the even k;  bits 4-7: w >>
 * 2 of the odd k vectors 8-11: bits 4-5: w >> 4 of k 0;  6-7: w >> 4 of k 2;  2-3: w & 3 of k 1;  0-1: w & 3
 * of k 3 Values are unsigned, 32 too high. Odd sub-blocks come out 4 times too large, evened out in the
 * scales.
 *
 * TILE_U8: f16 d[n_blocks][16] (Q4_1 and Q5_1: d[16] then m[16], for each block), padded to 64; then 512
 * bytes, 8 groups, each 32 columns. weight = d * (u - zero) + m; zero is 128 for Q8_0, 8 for Q4_0, 16 for
 * Q5_0, else 0.
 *
 * TILE_FLOAT: the 16 rows as in the file, one after the other, padded to 64.
 *
 * Owns nothing; any thread. */
#ifndef RUNNEL_KERNELS_PACK_H
#define RUNNEL_KERNELS_PACK_H

#include "kernels/ops.h"

enum {
    Q4K_DMIN = 32, /* offsets in a block */
    Q4K_SCALES = 64,
    Q4K_NIBBLES = 256,
    Q4K_BLOCK_BYTES = 2304,

    Q6K_CHUNKS = 256, /* offset in a block */
    Q6K_CHUNK_BYTES = 768,
    Q6K_BLOCK_BYTES = 3328,

    U8_BLOCK_VALUES = 32,
    U8_BLOCK_BYTES = 512,
};

enum tile_kind pack_kind(enum tensor_type type);
size_t pack_tile_bytes(enum tensor_type type, uint32_t n_columns);

/* Packs n_rows (1 .. 16) rows of n_columns values (whole blocks of type), row_bytes apart; missing rows
 * become zeros. */
void pack_tile(enum tensor_type type, const void *rows, size_t row_bytes, uint32_t n_rows, uint32_t n_columns,
               uint8_t *tile);

/* One row of a packed matrix as f32[n_columns]: exactly what quant_decode gives for the row in the file. */
void pack_row_f32(const struct packed_matrix *matrix, uint32_t row, float *out);

/* For the kernels. Bytes in front of the blocks of a tile (0 for TILE_Q4_K and TILE_FLOAT). */
size_t pack_header_bytes(enum tensor_type type, uint32_t n_columns);
/* TILE_U8: whether blocks have an m, and what u is for a weight of m. */
static inline bool pack_u8_has_m(enum tensor_type type)
{
    return type == TENSOR_Q4_1 || type == TENSOR_Q5_1;
}
static inline int pack_u8_zero(enum tensor_type type)
{
    return type == TENSOR_Q8_0 ? 128 : type == TENSOR_Q4_0 ? 8 : type == TENSOR_Q5_0 ? 16 : 0;
}

#endif
