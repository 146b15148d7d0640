/* product_float.cl: products with matrices of floats: each output is one chain, acc = fma(w, x, acc) over ascending inputs. An item owns
 * an output: item (row, i); i counts rows of activations. */

FUNCTION float multiply_floats(uint type, GLOBAL const uchar *tile, uint row, GLOBAL const float *x, uint n)
{
    float acc = 0.0f;
    if (type == GPU_F32)
        for (uint i = 0; i < n; i++)
            acc = FMA(((GLOBAL const float *)tile)[16 * i + row], x[i], acc);
    else if (type == GPU_F16)
        for (uint i = 0; i < n; i++)
            acc = FMA(f16_to_f32(((GLOBAL const ushort *)tile)[16 * i + row]), x[i], acc);
    else
        for (uint i = 0; i < n; i++)
            acc = FMA(bf16_to_f32(((GLOBAL const ushort *)tile)[16 * i + row]), x[i], acc);
    return acc;
}

FUNCTION ulong float_tile_bytes(uint type, uint n_columns)
{
    return ((ulong)n_columns * (type == GPU_F32 ? 64 : 32) + 63) / 64 * 64;
}

KERNEL(16, GPU_ROWS)
void product_float_n(MATRICES_IN, IN(uchar, acts), uint n_acts, uint n_columns, uint add)
{
    MATRIX_OF_GROUP
    uint row = ITEM, act = GPU_ROWS * GROUP_Y + ITEM_Y, column = 16 * tile + row;
    GLOBAL const float *x = (GLOBAL const float *)AT(uchar, acts) + (ulong)act * ((n_columns + 255) / 256 * 256);
    if (act < n_acts && column < n_rows)
        store_output(out + (ulong)act * n_rows,
                     multiply_floats(type, tiles + tile * float_tile_bytes(type, n_columns), row, x, n_columns), bias,
                     column, add);
}

KERNEL(16, 1)
void product_float_1(MATRICES_IN, IN(uchar, acts), uint n_acts, uint n_columns, uint add)
{
    MATRIX_OF_GROUP
    uint row = ITEM, column = 16 * tile + row;
    GLOBAL const float *x = (GLOBAL const float *)AT(uchar, acts);
    if (column < n_rows)
        store_output(out, multiply_floats(type, tiles + tile * float_tile_bytes(type, n_columns), row, x, n_columns), bias,
                     column, add);
}
