/* product_32.cl: products with matrices of the types of blocks of 32, two of which are a pair.
 *
 * As product_k.cl, but an item owns a row of the tile and a pair. The flush, for each block of the pair:
 *     acc = fma(d * a_d, sum of w * q, acc), and where the type has an m acc = fma(m, a_d * sum of q, acc). */

FUNCTION int dot_pair(const uint4 *words, GLOBAL const int4 *q, uint second)
{
    int4 a = q[2 * second], b = q[2 * second + 1];
    int sum = 0;
    if (second) {
        sum = DOT4(words[3].z, a.w, DOT4(words[2].z, a.z, DOT4(words[1].z, a.y, DOT4(words[0].z, a.x, sum))));
        return DOT4(words[3].w, b.w, DOT4(words[2].w, b.z, DOT4(words[1].w, b.y, DOT4(words[0].w, b.x, sum))));
    }
    sum = DOT4(words[3].x, a.w, DOT4(words[2].x, a.z, DOT4(words[1].x, a.y, DOT4(words[0].x, a.x, sum))));
    return DOT4(words[3].y, b.w, DOT4(words[2].y, b.z, DOT4(words[1].y, b.y, DOT4(words[0].y, b.x, sum))));
}

/* acts: the block of 256 in which the pair's inputs are, of the first of n rows of activations. */
FUNCTION void add_pair(uint type, GLOBAL const uchar *pair, uint in_block, uint row, GLOBAL const uchar *acts, ulong act_stride,
                       uint n, LOCAL float4 *parts, uint part_stride)
{
    uint4 words[4];
    UNROLL for (uint j = 0; j < 4; j++) words[j] = pair_words(type, pair + 4 * row, j);
    float first_d = pair_d(type, pair, 0, row), second_d = pair_d(type, pair, 1, row);
    UNROLL for (uint r = 0; r < GPU_ROWS; r++) if (r < n)
    {
        GLOBAL const uchar *act = acts + r * act_stride;
        GLOBAL const int4 *q = (GLOBAL const int4 *)(act + 64 * in_block);
        float4 part;
        part.x = first_d * LOAD_FLOAT(act + GPU_Q8_32_D + 8 * in_block);
        part.y = (float)dot_pair(words, q, 0);
        part.z = second_d * LOAD_FLOAT(act + GPU_Q8_32_D + 8 * in_block + 4);
        part.w = (float)dot_pair(words, q, 1);
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
    KERNEL(16 * N_SLOTS)                                                                                               \
    void name(MATRICES_IN, IN(uchar, acts), uint n_acts, uint n_columns, uint add)                                     \
    {                                                                                                                  \
        LOCAL float4 parts[N * N_SLOTS * 16];                                                                          \
        MATRIX_OF_GROUP                                                                                                \
        uint n_pairs = (n_columns + 63) / 64, row = ITEM % 16, slot = ITEM / 16, first = N * GROUP_Y;                  \
        uint n = n_acts - first < N ? n_acts - first : N, column = 16 * tile + row;                                    \
        ulong act_stride = (ulong)(n_columns + 255) / 256 * GPU_Q8_32_BYTES;                                           \
        GLOBAL const uchar *bytes = tiles + (ulong)tile * n_pairs * pair_bytes(TYPE);                                  \
        GLOBAL const uchar *act = AT(uchar, acts) + first * act_stride;                                                \
        float acc = 0.0f;                                                                                              \
        for (uint begin = 0; begin < n_pairs; begin += N_SLOTS) {                                                      \
            uint b = begin + slot, n_here = n_pairs - begin < N_SLOTS ? n_pairs - begin : N_SLOTS;                     \
            if (b < n_pairs)                                                                                           \
                add_pair(TYPE, bytes + b * pair_bytes(TYPE), b % 4, row, act + b / 4 * GPU_Q8_32_BYTES, act_stride,    \
                         N == 1 ? 1 : n, parts + ITEM, 16 * N_SLOTS);                                                  \
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
