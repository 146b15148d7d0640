/* amx_emulation.c: see amx_emulation.h. */
#include "emulated/amx_emulation.h"

#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    N_TILES = 8,
    MAX_ROWS = 16,
    MAX_ROW_BYTES = 64,

    CONFIG_BYTES = 64, /* of LDTILECFG; where its fields lie */
    CONFIG_RESERVED = 2,
    CONFIG_ROW_BYTES = 16,
    CONFIG_ROWS = 48,
    CONFIG_TILES = 16, /* that it has room for; this palette has 8 */
};

struct tile {
    unsigned n_rows, row_bytes;
    uint8_t data[MAX_ROWS][MAX_ROW_BYTES];
};

struct unit {
    bool configured;
    struct tile tiles[N_TILES];
    uint64_t n_stores;
    uint64_t stores_to_spoil; /* spoil the one at which this falls to 0; 0: none */
};

static _Thread_local struct unit unit;

static void require(bool right, const char *instruction, const char *what)
{
    if (right)
        return;
    fprintf(stderr, "AMX emulation: %s: %s\n", instruction, what);
    abort();
}

static struct tile *tile_of(int number, const char *instruction)
{
    require(unit.configured, instruction, "no tiles are configured");
    require(number >= 0 && number < N_TILES, instruction, "there are tiles 0 to 7");
    require(unit.tiles[number].n_rows > 0, instruction, "the tile has no shape");
    return &unit.tiles[number];
}

void emulated_ldtilecfg(const void *config)
{
    static const char name[] = "LDTILECFG";
    uint8_t bytes[CONFIG_BYTES];
    memcpy(bytes, config, sizeof bytes);
    memset(unit.tiles, 0, sizeof unit.tiles);
    unit.configured = bytes[0] != 0;
    require(bytes[0] <= 1, name, "palettes are 0 and 1");
    require(bytes[1] == 0, name, "a start row is only for what was interrupted");
    for (int i = CONFIG_RESERVED; i < CONFIG_ROW_BYTES; i++)
        require(bytes[i] == 0, name, "reserved bytes are zero");
    for (int i = 0; i < CONFIG_TILES; i++) {
        uint16_t row_bytes;
        memcpy(&row_bytes, bytes + CONFIG_ROW_BYTES + 2 * i, 2);
        unsigned n_rows = bytes[CONFIG_ROWS + i];
        require(i < N_TILES || (row_bytes == 0 && n_rows == 0), name, "there are tiles 0 to 7");
        require(row_bytes <= MAX_ROW_BYTES && n_rows <= MAX_ROWS, name,
                "a tile has at most 16 rows of 64 bytes");
        require((row_bytes == 0) == (n_rows == 0), name, "a tile has rows and bytes, or neither");
        if (i < N_TILES) {
            unit.tiles[i].n_rows = n_rows;
            unit.tiles[i].row_bytes = row_bytes;
        }
    }
}

void emulated_tilerelease(void)
{
    memset(unit.tiles, 0, sizeof unit.tiles);
    unit.configured = false;
}

void emulated_tilezero(int number)
{
    struct tile *tile = tile_of(number, "TILEZERO");
    memset(tile->data, 0, sizeof tile->data);
}

void emulated_tileloadd(int number, const void *p, size_t stride)
{
    struct tile *tile = tile_of(number, "TILELOADD");
    memset(tile->data, 0, sizeof tile->data);
    for (unsigned row = 0; row < tile->n_rows; row++)
        memcpy(tile->data[row], (const uint8_t *)p + row * stride, tile->row_bytes);
}

void emulated_tilestored(int number, void *p, size_t stride)
{
    struct tile *tile = tile_of(number, "TILESTORED");
    for (unsigned row = 0; row < tile->n_rows; row++)
        memcpy((uint8_t *)p + row * stride, tile->data[row], tile->row_bytes);
    unit.n_stores++;
    if (unit.stores_to_spoil > 0 && --unit.stores_to_spoil == 0)
        *((uint8_t *)p + (tile->n_rows - 1) * stride + 1) ^= 0x10;
}

/* What all products ask: [m][k] times [k][n] gives [m][n]. */
static void check_shapes(const struct tile *sum, const struct tile *a, const struct tile *b, const char *name)
{
    require(sum != a && sum != b && a != b, name, "three different tiles");
    require(sum->row_bytes % 4 == 0 && a->row_bytes % 4 == 0 && b->row_bytes % 4 == 0, name,
            "rows of whole lanes");
    require(sum->n_rows == a->n_rows, name, "the sums have as many rows as a");
    require(sum->row_bytes == b->row_bytes, name, "the sums have as many columns as b");
    require(a->row_bytes / 4 == b->n_rows, name, "a has as many columns as b rows");
}

/* Floats, which compilers multiply well, hold the sum of a row exactly: 64 * 128 * 255 is below 2^24. What it is added to wraps. */
static void multiply_bytes(int sum_number, int a_number, int b_number, bool b_signed, const char *name)
{
    enum { LANES = MAX_ROW_BYTES / 4 };
    struct tile *sum = tile_of(sum_number, name);
    const struct tile *a = tile_of(a_number, name), *b = tile_of(b_number, name);
    check_shapes(sum, a, b, name);
    float weights[MAX_ROW_BYTES][LANES];
    for (unsigned k = 0; k < a->row_bytes; k++)
        for (unsigned n = 0; n < LANES; n++) {
            uint8_t byte = b->data[k / 4][4 * n + k % 4];
            weights[k][n] = b_signed ? (int8_t)byte : byte;
        }
    for (unsigned m = 0; m < sum->n_rows; m++) {
        float sums[LANES] = {0};
        for (unsigned k = 0; k < a->row_bytes; k++) {
            float value = (int8_t)a->data[m][k];
            for (unsigned n = 0; n < LANES; n++)
                sums[n] += value * weights[k][n];
        }
        for (unsigned n = 0; n < sum->row_bytes / 4; n++) {
            uint32_t lane;
            memcpy(&lane, sum->data[m] + 4 * n, sizeof lane);
            lane += (uint32_t)(int32_t)sums[n];
            memcpy(sum->data[m] + 4 * n, &lane, sizeof lane);
        }
    }
}

void emulated_tdpbsud(int sum, int a, int b)
{
    multiply_bytes(sum, a, b, false, "TDPBSUD");
}

void emulated_tdpbssd(int sum, int a, int b)
{
    multiply_bytes(sum, a, b, true, "TDPBSSD");
}

/* Denormals count as zero, those that come in and those that come out. */
static float without_denormals(float x)
{
    return fabsf(x) < FLT_MIN ? copysignf(0.0f, x) : x;
}

static float bf16_at(const uint8_t *p)
{
    uint16_t half;
    memcpy(&half, p, sizeof half);
    uint32_t bits = (uint32_t)half << 16;
    float value;
    memcpy(&value, &bits, sizeof value);
    return without_denormals(value);
}

/* Even and odd k are summed apart, each product fused onto its sum; then both together, then onto the tile. */
void emulated_tdpbf16ps(int sum_number, int a_number, int b_number)
{
    static const char name[] = "TDPBF16PS";
    struct tile *sum = tile_of(sum_number, name);
    const struct tile *a = tile_of(a_number, name), *b = tile_of(b_number, name);
    check_shapes(sum, a, b, name);
    for (unsigned m = 0; m < sum->n_rows; m++)
        for (unsigned n = 0; n < sum->row_bytes / 4; n++) {
            float parts[2] = {0.0f, 0.0f}, old;
            for (unsigned k = 0; k < b->n_rows; k++)
                for (unsigned i = 0; i < 2; i++) {
                    float x = bf16_at(a->data[m] + 4 * k + 2 * i), y = bf16_at(b->data[k] + 4 * n + 2 * i);
                    parts[i] = without_denormals(fmaf(x, y, parts[i]));
                }
            memcpy(&old, sum->data[m] + 4 * n, sizeof old);
            float all = without_denormals(without_denormals(old) + without_denormals(parts[0] + parts[1]));
            memcpy(sum->data[m] + 4 * n, &all, sizeof all);
        }
}

bool emulated_tiles_are_configured(void)
{
    return unit.configured;
}

uint64_t emulated_tiles_n_stores(void)
{
    return unit.n_stores;
}

void emulated_tiles_spoil_store(uint64_t n)
{
    unit.stores_to_spoil = n + 1;
}
