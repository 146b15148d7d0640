/* random_matrix.c: see random_matrix.h. */
#include "helpers/random_matrix.h"

#include "kernels/pack.h"

#include <stdlib.h>
#include <string.h>

static uint16_t random_f16(enum fill fill)
{
    uint16_t sign = (uint16_t)(random_below(2) << 15);
    switch (fill) {
    case FILL_ZERO_SCALES:
        return sign;
    case FILL_TINY_SCALES: /* denormal */
        return sign | (uint16_t)(1 + random_below(0x3ff));
    case FILL_HUGE_SCALES: /* the largest finite ones */
        return sign | (uint16_t)(0x7b00 + random_below(0x100));
    default:
        return sign | (uint16_t)(0x1800 + random_below(0x1800));
    }
}

/* The scale of MXFP4: an exponent. There is no zero. */
static uint8_t random_exponent(enum fill fill)
{
    switch (fill) {
    case FILL_ZERO_SCALES:
    case FILL_TINY_SCALES: /* 0 and 1: denormal */
        return (uint8_t)random_below(3);
    case FILL_HUGE_SCALES:
        return (uint8_t)(210 + random_below(10));
    default:
        return (uint8_t)(110 + random_below(20));
    }
}

/* Where the f16 fields of a block lie; -1: none. */
static void f16_fields(enum tensor_type type, int fields[2])
{
    fields[0] = 0;
    fields[1] = -1;
    switch (type) {
    case TENSOR_Q4_1:
    case TENSOR_Q5_1:
    case TENSOR_Q4_K:
    case TENSOR_Q5_K:
        fields[1] = 2;
        break;
    case TENSOR_Q2_K:
        fields[0] = 80;
        fields[1] = 82;
        break;
    case TENSOR_Q3_K:
        fields[0] = 108;
        break;
    case TENSOR_Q6_K:
        fields[0] = 208;
        break;
    case TENSOR_MXFP4:
        fields[0] = -1;
        break;
    default:
        break;
    }
}

static void fill_block(enum tensor_type type, enum fill fill, uint8_t *block)
{
    const struct quant_info *info = quant_find(type);
    if (info->block_values == 1) {
        float value = random_float();
        uint16_t half = fill == FILL_RANDOM || type == TENSOR_BF16 ? 0 : random_f16(fill);
        uint32_t bits;
        memcpy(&bits, &value, sizeof bits);
        if (type == TENSOR_BF16 || (type == TENSOR_F16 && half == 0))
            half = type == TENSOR_BF16 ? (uint16_t)(bits >> 16) : f32_to_f16(value);
        memcpy(block, type == TENSOR_F32 ? (void *)&value : (void *)&half, info->block_bytes);
        return;
    }
    for (uint32_t i = 0; i < info->block_bytes; i++)
        block[i] = fill == FILL_ONES ? 0xff : (uint8_t)random_u32();
    if (fill == FILL_LOWEST) /* weights; in Q6_K scales come after them */
        memset(block, 0, info->block_bytes < 192 ? info->block_bytes : 192);
    int fields[2];
    f16_fields(type, fields);
    for (int i = 0; i < 2; i++)
        if (fields[i] >= 0) {
            uint16_t half = random_f16(fill);
            memcpy(block + fields[i], &half, 2);
        }
    if (type == TENSOR_MXFP4)
        block[0] = random_exponent(fill);
    if (type == TENSOR_Q8_0 && fill == FILL_ONES) /* -1 is not extreme */
        for (int i = 0; i < 32; i++)
            block[2 + i] = random_below(2) ? 0x80 : 0x7f;
    if (type == TENSOR_Q6_K && fill == FILL_ONES)
        for (int i = 0; i < 16; i++)
            block[192 + i] = random_below(2) ? 0x80 : 0x7f;
}

struct matrix make_matrix(enum tensor_type type, uint32_t n_rows, uint32_t n_columns, enum fill fill)
{
    const struct quant_info *info = quant_find(type);
    struct matrix m = {0};
    m.row_bytes = (size_t)(n_columns / info->block_values) * info->block_bytes;
    m.file = malloc(n_rows * m.row_bytes);
    assert_non_null(m.file);
    for (size_t at = 0; at < n_rows * m.row_bytes; at += info->block_bytes)
        fill_block(type, fill, m.file + at);
    m.packed.type = type;
    m.packed.kind = pack_kind(type);
    m.packed.n_rows = n_rows;
    m.packed.n_columns = n_columns;
    m.packed.n_tiles = (n_rows + TILE_ROWS - 1) / TILE_ROWS;
    m.packed.tile_bytes = pack_tile_bytes(type, n_columns);
    assert_int_equal(m.packed.tile_bytes % 64, 0);
    m.packed.data = allocate(m.packed.n_tiles * m.packed.tile_bytes);
    for (uint32_t tile = 0; tile < m.packed.n_tiles; tile++) {
        uint32_t n_left = n_rows - tile * TILE_ROWS;
        pack_tile(type, m.file + tile * TILE_ROWS * m.row_bytes, m.row_bytes,
                  n_left < TILE_ROWS ? n_left : TILE_ROWS, n_columns,
                  m.packed.data + tile * m.packed.tile_bytes);
    }
    return m;
}

void free_matrix(struct matrix *m)
{
    free(m->file);
    free(m->packed.data);
}
