/* amx.c: the table for CPUs with AMX: that of AVX-512, but that products of many rows are done by tiles. Owns nothing; any thread. */
#include "kernels/x86/amx.h"

enum {
    /* Steps of 128 rows of a prompt were 14-24 % faster than those of 64: a prototype on Emerald Rapids, two virtual cores,
     * 2026-11-27. */
    PREFERRED_ROWS = 128,
};

void amx_fill(struct kernels *kernels)
{
    kernels->prefers_rows = PREFERRED_ROWS;
    amx_fill_matmul(kernels);
}
