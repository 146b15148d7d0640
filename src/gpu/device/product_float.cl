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

/* In another order, for whom the CPU's bits need not be. SPLITS items share the outputs of a row of the tile: item (row, i) adds every
 * SPLITS-th input from i on, for N rows of activations; then item (row, r) adds these sums in ascending order for row of activations r. */
#define SPLITS 16

FUNCTION float float_weight(uint type, GLOBAL const uchar *tile, uint at)
{
    if (type == GPU_F32)
        return ((GLOBAL const float *)tile)[at];
    uint bits = ((GLOBAL const ushort *)tile)[at];
    return type == GPU_F16 ? f16_to_f32(bits) : bf16_to_f32(bits);
}

#define PRODUCT_SPLIT(name, N)                                                                                         \
    KERNEL(16, SPLITS)                                                                                                 \
    void name(MATRICES_IN, IN(uchar, acts), uint n_acts, uint n_columns, uint add)                                     \
    {                                                                                                                  \
        LOCAL float sums[N * SPLITS * 16];                                                                             \
        MATRIX_OF_GROUP                                                                                                \
        uint row = ITEM, split = ITEM_Y, first = N * GROUP_Y, column = 16 * tile + row;                                \
        uint n = n_acts - first < N ? n_acts - first : N, act_stride = (n_columns + 255) / 256 * 256;                  \
        GLOBAL const uchar *bytes = tiles + tile * float_tile_bytes(type, n_columns);                                  \
        GLOBAL const float *x = (GLOBAL const float *)AT(uchar, acts) + (ulong)first * act_stride;                     \
        float acc[N];                                                                                                  \
        UNROLL for (uint r = 0; r < N; r++) acc[r] = 0.0f;                                                             \
        for (uint i = split; i < n_columns; i += SPLITS) {                                                             \
            float w = float_weight(type, bytes, 16 * i + row);                                                         \
            UNROLL for (uint r = 0; r < N; r++) if (r < n) acc[r] = FMA(w, x[r * act_stride + i], acc[r]);             \
        }                                                                                                              \
        UNROLL for (uint r = 0; r < N; r++) sums[(r * SPLITS + split) * 16 + row] = acc[r];                            \
        BARRIER();                                                                                                     \
        if (split < n && column < n_rows) {                                                                            \
            float sum = 0.0f;                                                                                          \
            for (uint i = 0; i < SPLITS; i++)                                                                          \
                sum += sums[(split * SPLITS + i) * 16 + row];                                                          \
            store_output(out + (ulong)(first + split) * n_rows, sum, bias, column, add);                               \
        }                                                                                                              \
    }

PRODUCT_SPLIT(product_float_split_1, 1)
PRODUCT_SPLIT(product_float_split_n, GPU_ROWS)
