/* pack.h: from rows as they lie in a file to tiles of 16 rows, without losing a bit.
 *
 * Tile layouts, for 16 rows; one after the other for ascending 256-blocks of columns (32-blocks for TILE_U8). Groups are
 * 4 consecutive inputs of 16 rows, 64 bytes, so that one 512-bit register feeds a byte dot product: byte 4*row + i.
 *
 *   TILE_Q4_K, 2304 bytes a block: f16 d[16], f16 dmin[16]; then the 6-bit scales and mins as the kernels want them
 *     (192 bytes in all for 16 rows x 8 sub-blocks x 2); then 2048 bytes of nibbles: for sub-block pair p and group g a
 *     64-byte vector whose low nibbles are group g of sub-block 2p and whose high ones are that of 2p+1.
 *   TILE_Q6_K, 3360 bytes a block: f16 d[16]; int8 scales [16 sub-blocks][16 rows]; a 4-bit plane of 2048 bytes and a
 *     2-bit plane of 1024 bytes. Values are unsigned, 32 too high.
 *   TILE_U8, 576 or 640 bytes a 32-block: f16 d[16], offset [16]; 512 bytes of groups. weight = d * (u - zero) + m.
 *   TILE_FLOAT: the 16 rows as in the file, one after the other.
 *
 * Owns nothing; any thread. */
#ifndef RUNNEL_KERNELS_PACK_H
#define RUNNEL_KERNELS_PACK_H

#include "kernels/ops.h"

enum tile_kind pack_kind(enum tensor_type type);
size_t pack_tile_bytes(enum tensor_type type, uint32_t n_columns);

/* Packs n_rows (1 .. 16) rows of n_columns values (whole blocks of type), row_bytes apart; missing rows become zeros. */
void pack_tile(enum tensor_type type, const void *rows, size_t row_bytes, uint32_t n_rows, uint32_t n_columns,
               uint8_t *tile);

/* One row of a packed matrix as f32[n_columns]: exactly what quant_decode gives for the row in the file. */
void pack_row_f32(const struct packed_matrix *matrix, uint32_t row, float *out);

#endif
