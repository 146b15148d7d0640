/* amx_rows.h: how the rows of a product are cut for tiles: into chunks, whose activations stay in L2 and whose sums in L1 while all
 * weights pass, and these into groups of the 16 rows of a tile. Private to amx_*.c.
 *
 * The last group of a chunk ends with its last row and so may overlap the one before: then its first rows are computed once more
 * and thrown away. All groups of a chunk are of one size, so one configuration of tiles serves it. Owns nothing; any thread. */
#ifndef RUNNEL_KERNELS_X86_AMX_ROWS_H
#define RUNNEL_KERNELS_X86_AMX_ROWS_H

#include "kernels/x86/avx512_vectors.h"

#include "kernels/x86/amx_tiles.h"

enum {
    GROUP_ROWS = 16, /* of a tile */
    CHUNK_ROWS =
        128, /* at most: more activations of 8,960 inputs would leave L2 (measured by the prototype, see amx.c) */
};

/* Rows [begin, begin + n) of a product are the next chunk. Chunks are of nearly equal size. */
struct chunk_rows {
    uint32_t begin, n;
};

INLINE uint32_t chunk_count(uint32_t n_rows, uint32_t n_most)
{
    return (n_rows + n_most - 1) / n_most;
}

INLINE struct chunk_rows chunk_at(uint32_t n_rows, uint32_t n_chunks, uint32_t i)
{
    uint32_t smaller = n_rows / n_chunks, n_larger = n_rows % n_chunks;
    return (struct chunk_rows){smaller * i + (i < n_larger ? i : n_larger), smaller + (i < n_larger)};
}

/* Of a chunk of n rows: rows in each group, and how many groups. */
INLINE uint32_t group_rows(uint32_t n)
{
    return n < GROUP_ROWS ? n : GROUP_ROWS;
}

INLINE uint32_t group_count(uint32_t n)
{
    return (n + GROUP_ROWS - 1) / GROUP_ROWS;
}

/* Group i computes rows begin .. of its chunk, of which the first n_again belong to the group before. */
struct group {
    uint32_t begin, n_again;
};

INLINE struct group group_at(uint32_t n, uint32_t i)
{
    uint32_t begin = GROUP_ROWS * i, last = n - group_rows(n);
    return begin <= last ? (struct group){begin, 0} : (struct group){last, begin - last};
}

/* A unit of work is one tile of weights of a panel (1 or 2 of them) and up to two groups of rows. Weights change faster than rows. */
enum { UNIT_GROUPS = 2, PANEL_TILES = 2 };

struct unit {
    uint32_t tile; /* of the panel */
    uint32_t n_groups;
    struct group groups[UNIT_GROUPS];
};

INLINE uint32_t unit_count(uint32_t n_rows, uint32_t n_tiles)
{
    return (group_count(n_rows) + UNIT_GROUPS - 1) / UNIT_GROUPS * n_tiles;
}

/* Unit i of a chunk of n_rows and a panel of n_tiles. */
INLINE struct unit unit_at(uint32_t n_rows, uint32_t n_tiles, uint32_t i)
{
    const uint32_t first = (n_tiles == PANEL_TILES ? i / PANEL_TILES : i) * UNIT_GROUPS;
    const bool two = first + 1 < group_count(n_rows);
    return (struct unit){
        .tile = n_tiles == PANEL_TILES ? i % PANEL_TILES : 0,
        .n_groups = two ? 2 : 1,
        .groups = {group_at(n_rows, first), group_at(n_rows, two ? first + 1 : first)},
    };
}

/* Tiles 0 to 3 hold sums, 4 and 5 activations (a_bytes a row), 6 and 7 weights. */
enum { TILE_SUM, TILE_A = 4, TILE_B = 6 };

INLINE void configure_tiles(uint32_t n_group_rows, uint32_t a_bytes)
{
    struct tiles_config config = {.palette = 1};
    for (int i = 0; i < 8; i++) {
        config.row_bytes[i] = (uint16_t)(i >= TILE_A && i < TILE_B ? a_bytes : 64);
        config.n_rows[i] = (uint8_t)(i >= TILE_B ? a_bytes / 4 : n_group_rows);
    }
    tiles_configure(&config);
}

#endif
