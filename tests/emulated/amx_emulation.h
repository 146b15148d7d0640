/* amx_emulation.h: the tile instructions of AMX in plain C, as Intel's manual ("Software Developer's Manual", volume 2) describes
 * them. What the CPU would refuse (a shape out of bounds, tiles that do not fit each other, a tile before it is configured) ends the
 * program with a message. test_amx_tiles.c compares it with the instructions where the CPU has them.
 *
 * Each thread has its own tiles, as on the CPU. */
#ifndef TESTS_EMULATED_AMX_EMULATION_H
#define TESTS_EMULATED_AMX_EMULATION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

void emulated_ldtilecfg(const void *config); /* 64 bytes */
void emulated_tilerelease(void);
void emulated_tilezero(int tile);
void emulated_tileloadd(int tile, const void *p, size_t stride);
void emulated_tilestored(int tile, void *p, size_t stride);
void emulated_tdpbsud(int sum, int a, int b);
void emulated_tdpbssd(int sum, int a, int b);
void emulated_tdpbf16ps(int sum, int a, int b);

/* What tests ask and do beside. Of the calling thread: has it tiles that it has not released? How many stores has it made? */
bool emulated_tiles_are_configured(void);
uint64_t emulated_tiles_n_stores(void);

/* The n-th store of the calling thread from now on (0: the next one) writes one wrong bit. */
void emulated_tiles_spoil_store(uint64_t n);

#endif
