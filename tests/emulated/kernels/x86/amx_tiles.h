/* amx_tiles.h: stands in for src/kernels/x86/amx_tiles.h where the kernels for AMX are compiled for tests: the same functions on
 * the emulation of emulated/amx_emulation.h. Owns nothing; any thread. */
#ifndef RUNNEL_KERNELS_X86_AMX_TILES_H
#define RUNNEL_KERNELS_X86_AMX_TILES_H

#include "emulated/amx_emulation.h"

struct tiles_config {
    uint8_t palette;
    uint8_t start_row;
    uint8_t reserved[14];
    uint16_t row_bytes[16];
    uint8_t n_rows[16];
};
_Static_assert(sizeof(struct tiles_config) == 64, "as LDTILECFG reads it");

static inline void tiles_configure(const struct tiles_config *config)
{
    emulated_ldtilecfg(config);
}

static inline void tiles_release(void)
{
    emulated_tilerelease();
}

static inline void tile_zero(int tile)
{
    emulated_tilezero(tile);
}

static inline void tile_load(int tile, const void *p, size_t stride)
{
    emulated_tileloadd(tile, p, stride);
}

static inline void tile_store(int tile, void *p, size_t stride)
{
    emulated_tilestored(tile, p, stride);
}

static inline void tile_add_signed_unsigned(int sum, int a, int b)
{
    emulated_tdpbsud(sum, a, b);
}

static inline void tile_add_signed_signed(int sum, int a, int b)
{
    emulated_tdpbssd(sum, a, b);
}

static inline void tile_add_bf16(int sum, int a, int b)
{
    emulated_tdpbf16ps(sum, a, b);
}

#endif
