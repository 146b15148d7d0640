/* amx.c: the table for CPUs with AMX: that of AVX-512, but that products of many rows are done by tiles. Owns nothing; any thread. */
#include "kernels/x86/amx.h"

#include "kernels/x86/amx_rows.h"

enum {
    PEAK_REPEATS = 25000,

    /* Of a prompt's step: 128 rows were 14-24 % faster than 64: a prototype on Emerald Rapids, two virtual cores, 2026-11-27. */
    ROWS_PROMPT = 128,
};

/* Four sums: enough to hide the latency of a product. */
static uint64_t int8_peak(void)
{
    configure_tiles(GROUP_ROWS, 64);
    for (int i = 0; i < PEAK_REPEATS; i++) {
        tile_add_signed_unsigned(0, 4, 6);
        tile_add_signed_unsigned(1, 4, 7);
        tile_add_signed_unsigned(2, 5, 6);
        tile_add_signed_unsigned(3, 5, 7);
    }
    tiles_release();
    return (uint64_t)PEAK_REPEATS * 4 * GROUP_ROWS * TILE_ROWS * 64;
}

void amx_fill(struct kernels *kernels)
{
    kernels->n_rows_together = GROUP_ROWS;
    kernels->n_rows_prompt = ROWS_PROMPT;
    kernels->int8_unit = "AMX";
    kernels->int8_peak = int8_peak;
    amx_fill_matmul(kernels);
    amx_fill_matmul_32(kernels);
}
