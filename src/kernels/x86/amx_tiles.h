/* amx_tiles.h: the tile instructions of AMX, as functions. The only file that knows them: tests replace it by plain C
 * (tests/emulated), so that the products are tested on machines without AMX.
 *
 * Written as assembly: gcc 12's own functions do not tell the compiler which memory they read and write. No flag for AMX is
 * needed, but some optimisation. Tiles are numbered 0 to 7, by constants. Every function but tiles_configure may only be called between that and
 * tiles_release, by the same thread, in a process that the system has permitted to use tiles (amx_permission.h).
 * Owns nothing; any thread. */
#ifndef RUNNEL_KERNELS_X86_AMX_TILES_H
#define RUNNEL_KERNELS_X86_AMX_TILES_H

#include <stddef.h>
#include <stdint.h>

/* The shapes of the tiles, as LDTILECFG reads them. */
struct tiles_config {
    uint8_t palette; /* 1 */
    uint8_t start_row;
    uint8_t reserved[14];
    uint16_t row_bytes[16]; /* of tiles 0 to 7: at most 64 */
    uint8_t n_rows[16];     /* of tiles 0 to 7: at most 16; 0, with row_bytes 0: the tile is not used */
};
_Static_assert(sizeof(struct tiles_config) == 64, "as LDTILECFG reads it");

#define TILE_FUNCTION static inline __attribute__((always_inline))

/* All tiles are zero afterwards. */
TILE_FUNCTION void tiles_configure(const struct tiles_config *config)
{
    __asm__ volatile("ldtilecfg %0" ::"m"(*config) : "memory");
}

/* Until the next tiles_configure: then a switch of threads need not save the tiles, and the core may clock higher. */
TILE_FUNCTION void tiles_release(void)
{
    __asm__ volatile("tilerelease" ::: "memory");
}

TILE_FUNCTION void tile_zero(const int tile)
{
    __asm__ volatile("tilezero %%tmm%c0" ::"i"(tile));
}

/* Row i lies at p + i * stride. */
TILE_FUNCTION void tile_load(const int tile, const void *p, size_t stride)
{
    __asm__ volatile("tileloadd (%1,%2,1), %%tmm%c0" ::"i"(tile), "r"(p), "r"(stride) : "memory");
}

TILE_FUNCTION void tile_store(const int tile, void *p, size_t stride)
{
    __asm__ volatile("tilestored %%tmm%c0, (%1,%2,1)" ::"i"(tile), "r"(p), "r"(stride) : "memory");
}

/* sum[m][n] += a[m][k] * b[k][n], whole numbers: a holds signed bytes, b bytes; 4 consecutive k lie together in both, those of b in
 * row k / 4 at 4 * n. Sums are int32. */
TILE_FUNCTION void tile_add_signed_unsigned(const int sum, const int a, const int b)
{
    __asm__ volatile("tdpbsud %%tmm%c2, %%tmm%c1, %%tmm%c0" ::"i"(sum), "i"(a), "i"(b));
}

TILE_FUNCTION void tile_add_signed_signed(const int sum, const int a, const int b)
{
    __asm__ volatile("tdpbssd %%tmm%c2, %%tmm%c1, %%tmm%c0" ::"i"(sum), "i"(a), "i"(b));
}

/* The same with bf16, of which 2 consecutive k lie together, in row k / 2 of b at 2 * n; sums are f32. */
TILE_FUNCTION void tile_add_bf16(const int sum, const int a, const int b)
{
    __asm__ volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" ::"i"(sum), "i"(a), "i"(b));
}

#endif
