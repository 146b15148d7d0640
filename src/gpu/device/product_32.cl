/* product_32.cl: products with matrices of the types of blocks of 32, two of which are a pair.
 *
 * As product_k.cl, but an item owns a row of the tile and a pair. The flush, for each block of the pair:
 *     acc = fma(d * a_d, sum of w * q, acc), and where the type has an m acc = fma(m, a_d * sum of q, acc). */

/* acts: the block of 256 in which the pair's inputs are, of the first of n rows of activations. */
FUNCTION void add_pair(uint type, GLOBAL const uchar *pair, uint in_block, uint row, GLOBAL const uchar *acts, ulong act_stride,
                       uint n, LOCAL float4 *parts, uint part_stride)
{
    struct chunk chunk = pair_words(type, pair + 4 * row);
    float first_d = pair_d(type, pair, 0, row), second_d = pair_d(type, pair, 1, row);
    UNROLL for (uint r = 0; r < GPU_ROWS; r++) if (r < n)
    {
        GLOBAL const uchar *act = acts + r * act_stride;
        GLOBAL const int4 *q = (GLOBAL const int4 *)(act + 64 * in_block);
        DOTS first = DOT16(chunk.a, q[0]) + DOT16(chunk.b, q[1]), second = DOT16(chunk.c, q[2]) + DOT16(chunk.d, q[3]);
        float4 part;
        part.x = first_d * LOAD_FLOAT(act + GPU_Q8_32_D + 8 * in_block);
        part.y = (float)SUM_OF(first);
        part.z = second_d * LOAD_FLOAT(act + GPU_Q8_32_D + 8 * in_block + 4);
        part.w = (float)SUM_OF(second);
        parts[r * part_stride] = part;
    }
}

/* The flush of one pair. */
FUNCTION float flush_pair(uint type, float acc, float4 part, GLOBAL const uchar *pair, uint in_block, uint row,
                          GLOBAL const uchar *act)
{
    GLOBAL const float *d_sums = (GLOBAL const float *)(act + GPU_Q8_32_D_SUM + 8 * in_block);
    acc = FMA(part.x, part.y, acc);
    if (has_m(type))
        acc = FMA(pair_m(pair, 0, row), d_sums[0], acc);
    acc = FMA(part.z, part.w, acc);
    if (has_m(type))
        acc = FMA(pair_m(pair, 1, row), d_sums[1], acc);
    return acc;
}

#define PRODUCT(name, TYPE, N, N_SLOTS)                                                                                \
    KERNEL(16, N_SLOTS)                                                                                                \
    void name(MATRICES_IN, IN(uchar, acts), uint n_acts, uint n_columns, uint add)                                     \
    {                                                                                                                  \
        LOCAL float4 parts[N * N_SLOTS * 16];                                                                          \
        MATRIX_OF_GROUP                                                                                                \
        uint n_pairs = (n_columns + 63) / 64, row = ITEM, slot = ITEM_Y,          first = N * GROUP_Y;                  \
        uint n = n_acts - first < N ? n_acts - first : N, column = 16 * tile + row;                                    \
        ulong act_stride = (ulong)(n_columns + 255) / 256 * GPU_Q8_32_BYTES;                                           \
        GLOBAL const uchar *bytes = tiles + (ulong)tile * n_pairs * pair_bytes(TYPE);                                  \
        GLOBAL const uchar *act = AT(uchar, acts) + first * act_stride;                                                \
        float acc = 0.0f;                                                                                              \
        for (uint begin = 0; begin < n_pairs; begin += N_SLOTS) {                                                      \
            uint b = begin + slot, n_here = n_pairs - begin < N_SLOTS ? n_pairs - begin : N_SLOTS;                     \
            if (b < n_pairs)                                                                                           \
                add_pair(TYPE, bytes + b * pair_bytes(TYPE), b % 4, row, act + b / 4 * GPU_Q8_32_BYTES, act_stride,    \
                         N == 1 ? 1 : n, parts + 16 * slot + row, 16 * N_SLOTS);                                                  \
            BARRIER();                                                                                                 \
            for (uint i = 0; i < n_here && slot < n; i++)                                                              \
                acc = flush_pair(TYPE, acc, parts[(slot * N_SLOTS + i) * 16 + row],                                    \
                                 bytes + (begin + i) * pair_bytes(TYPE), (begin + i) % 4, row,                         \
                                 act + slot * act_stride + (begin + i) / 4 * GPU_Q8_32_BYTES);                         \
            BARRIER();                                                                                                 \
        }                                                                                                              \
        if (slot < n && column < n_rows)                                                                               \
            store_output(out + (ulong)(first + slot) * n_rows, acc, bias, column, add);                                \
    }

PRODUCT(product_q8_0_1, GPU_Q8_0, 1, 16)
PRODUCT(product_q8_0_n, GPU_Q8_0, GPU_ROWS, 8)
PRODUCT(product_32_1, type, 1, 16)
PRODUCT(product_32_n, type, GPU_ROWS, 8)
