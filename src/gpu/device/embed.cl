/* embed.cl: a row of a packed matrix as floats, exactly as the file's format decodes it. */

/* Input `column` (0 .. 63) of a chunk. */
FUNCTION int weight_of(struct chunk chunk, uint column)
{
    uint k = column / 16, j = column % 16 / 4;
    uint4 words = k == 0 ? chunk.a : k == 1 ? chunk.b : k == 2 ? chunk.c : chunk.d;
    return signed_byte_of(j == 0 ? words.x : j == 1 ? words.y : j == 2 ? words.z : words.w, column % 4);
}

FUNCTION int part_of(int4 values, uint k)
{
    return k == 0 ? values.x : k == 1 ? values.y : k == 2 ? values.z : values.w;
}

/* Types of blocks of 256: (d * scale) * w, less dmin * minimum where there is one. */
FUNCTION float decode_k(uint type, GLOBAL const uchar *matrix, uint n_columns, uint row, uint column)
{
    uint n_blocks = n_columns / 256, b = column / 256, c = column % 256 / 64, k = column % 64 / 16;
    GLOBAL const uchar *tile = matrix + row / 16 * k_tile_bytes(type, n_blocks);
    GLOBAL const uchar *block = k_block(type, tile, n_blocks, b), *vectors = block + 4 * (row % 16);
    float scale = (float)part_of(k_scales(type, vectors, c), k);
    int w = weight_of(k_words(type, vectors, c), column % 64);
    float value = k_d(type, tile, block, b, row % 16) * scale * (float)w;
    if (has_minimum(type))
        value = value - k_dmin(block, row % 16) * (float)part_of(k_minimums(type, vectors, c), k);
    return value;
}

/* Types of blocks of 32: w * d, and m where there is one. */
FUNCTION float decode_32(uint type, GLOBAL const uchar *matrix, uint n_columns, uint row, uint column)
{
    uint n_pairs = (n_columns + 63) / 64, second = column % 64 / 32;
    GLOBAL const uchar *pair =
        matrix + ((ulong)(row / 16) * n_pairs + column / 64) * pair_bytes(type), *vectors = pair + 4 * (row % 16);
    int w = weight_of(pair_words(type, vectors), column % 64);
    float value = (float)w * pair_d(type, pair, second, row % 16);
    return has_m(type) ? value + pair_m(pair, second, row % 16) : value;
}

FUNCTION float decode_float(uint type, GLOBAL const uchar *matrix, uint n_columns, uint row, uint column)
{
    uint n_bytes = type == GPU_F32 ? 4 : 2;
    ulong tile_bytes = ((ulong)n_columns * 16 * n_bytes + 63) / 64 * 64;
    GLOBAL const uchar *place = matrix + row / 16 * tile_bytes + ((ulong)column * 16 + row % 16) * n_bytes;
    if (type == GPU_F32)
        return LOAD_FLOAT(place);
    return type == GPU_F16 ? f16_to_f32(LOAD_USHORT(place)) : bf16_to_f32(LOAD_USHORT(place));
}

/* out[row] = the row of its token, times scale unless that is 1. Groups: blocks of 256 columns, rows. */
KERNEL(256, 1)
void embed(IN(uint, rows), IN(uchar, matrix), OUT(float, out), uint type, uint n_columns, float scale)
{
    uint column = 256 * GROUP_X + ITEM, row = GROUP_Y, token = ROW_TOKEN(AT(uint, rows), row);
    if (column >= n_columns)
        return;
    float value;
    if (type == GPU_F32 || type == GPU_F16 || type == GPU_BF16)
        value = decode_float(type, AT(uchar, matrix), n_columns, token, column);
    else if (has_header(type) || has_minimum(type))
        value = decode_k(type, AT(uchar, matrix), n_columns, token, column);
    else
        value = decode_32(type, AT(uchar, matrix), n_columns, token, column);
    OUT_AT(float, out)[(ulong)row * n_columns + column] = scale != 1.0f ? value * scale : value;
}
