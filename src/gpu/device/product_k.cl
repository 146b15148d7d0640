/* product_k.cl: products with matrices of the types of blocks of 256.
 *
 * A group is a tile and up to N rows of activations. An item owns a row of the tile and a block of 256 inputs, and adds whole numbers
 * for each row of activations; then for each output one item adds the blocks as floats, in ascending order:
 *     acc = fma(d * a_d, sum of scale * w * q, acc), and where the type has one acc = fma(-(dmin * a_d), sum of minimum * q, acc). */

/* What the flush wants of a block: x * y, and z * w where there is a minimum. */
FUNCTION float4 block_part(float d, float dmin, float a_d, int sum, int minimums)
{
    float4 part;
    part.x = d * a_d;
    part.y = (float)sum;
    part.z = -(dmin * a_d);
    part.w = (float)minimums;
    return part;
}

/* a, b, c, d: the chunk's inputs. */
FUNCTION DOTS chunk_sum(struct chunk chunk, int4 scales, int4 a, int4 b, int4 c, int4 d)
{
    return scales.x * DOT16(chunk.a, a) + scales.y * DOT16(chunk.b, b) + scales.z * DOT16(chunk.c, c) +
           scales.w * DOT16(chunk.d, d);
}

/* sum of minimum * q from the four sums of 16 inputs of a chunk. */
FUNCTION int minimum_sum(int4 minimums, GLOBAL const uint *sums_16)
{
    uint first = sums_16[0], second = sums_16[1];
    return minimums.x * (int)(short)first + minimums.y * ((int)first >> 16) + minimums.z * (int)(short)second +
           minimums.w * ((int)second >> 16);
}

/* An output's sum, with up to n_slots (at most 16, a constant) of n more blocks: each item's parts are 16 from one another. All are loaded
 * before the first is needed. */
FUNCTION float flush_parts(uint type, LOCAL const float4 *parts, uint n_slots, uint n, float acc)
{
    UNROLL for (uint i = 0; i < 16; i++) if (i < n_slots)
    {
        float4 part = parts[16 * i];
        float sum = FMA(part.x, part.y, acc);
        if (has_minimum(type))
            sum = FMA(part.z, part.w, sum);
        acc = i < n ? sum : acc;
    }
    return acc;
}

/* A row of the tile and a block of 256 inputs, for n rows of activations, act_stride bytes apart. */
struct block_place {
    GLOBAL const uchar *vectors, *acts;
    ulong act_stride;
    uint n;
};

FUNCTION void add_chunk(uint type, struct block_place place, uint c, DOTS *sums, int *minimums)
{
    struct chunk chunk = k_words(type, place.vectors, c);
    int4 scales = k_scales(type, place.vectors, c), minimum = scales;
    if (has_minimum(type))
        minimum = k_minimums(type, place.vectors, c);
    UNROLL for (uint r = 0; r < GPU_ROWS; r++) if (r < place.n)
    {
        GLOBAL const uchar *act = place.acts + r * place.act_stride;
        GLOBAL const int4 *q = (GLOBAL const int4 *)(act + 64 * c);
        sums[r] += chunk_sum(chunk, scales, q[0], q[1], q[2], q[3]);
        if (has_minimum(type))
            minimums[r] += minimum_sum(minimum, (GLOBAL const uint *)(act + GPU_Q8_256_SUMS_16 + 8 * c));
    }
}

/* Adds whole numbers of a row of the tile and block b of its inputs, and writes what the flush wants: parts is where for the first row of
 * activations, that of the next one is part_stride later. acts: the block's inputs of the first row of activations. */
FUNCTION void add_block(uint type, uint is_unrolled, GLOBAL const uchar *tile, uint n_blocks, uint b, uint row,
                        GLOBAL const uchar *acts, uint n, LOCAL float4 *parts, uint part_stride)
{
    GLOBAL const uchar *block = k_block(type, tile, n_blocks, b);
    struct block_place place = {block + 4 * row, acts, (ulong)n_blocks * GPU_Q8_256_BYTES, n};
    DOTS sums[GPU_ROWS];
    int minimums[GPU_ROWS];
    UNROLL for (uint r = 0; r < GPU_ROWS; r++) sums[r] = 0;
    UNROLL for (uint r = 0; r < GPU_ROWS; r++) minimums[r] = 0;
    if (is_unrolled) {
        add_chunk(type, place, 0, sums, minimums);
        add_chunk(type, place, 1, sums, minimums);
        add_chunk(type, place, 2, sums, minimums);
        add_chunk(type, place, 3, sums, minimums);
    } else
        for (uint c = 0; c < 4; c++)
            add_chunk(type, place, c, sums, minimums);
    float d = k_d(type, tile, block, b, row), dmin = has_minimum(type) ? k_dmin(block, row) : 0.0f;
    UNROLL for (uint r = 0; r < GPU_ROWS; r++) if (r < n)
        parts[r * part_stride] =
            block_part(d, dmin, LOAD_FLOAT(acts + r * place.act_stride + GPU_Q8_256_D), SUM_OF(sums[r]), minimums[r]);
}

/* N_SLOTS blocks of inputs at a time: item (row, slot). The flush of row of activations r is done by items (row, r). */
#define PRODUCT(name, TYPE, IS_UNROLLED, N, N_SLOTS)                                                                   \
    KERNEL(16, N_SLOTS)                                                                                                \
    void name(MATRICES_IN, IN(uchar, acts), uint n_acts, uint n_columns, uint add)                                     \
    {                                                                                                                  \
        LOCAL float4 parts[N * N_SLOTS * 16];                                                                          \
        MATRIX_OF_GROUP                                                                                                \
        uint n_blocks = n_columns / 256, row = ITEM, slot = ITEM_Y,          first = N * GROUP_Y;                       \
        uint n = n_acts - first < N ? n_acts - first : N, column = 16 * tile + row;                                    \
        GLOBAL const uchar *bytes = tiles + tile * k_tile_bytes(TYPE, n_blocks);                                       \
        GLOBAL const uchar *act = AT(uchar, acts) + (ulong)first * n_blocks * GPU_Q8_256_BYTES;                        \
        float acc = 0.0f;                                                                                              \
        for (uint begin = 0; begin < n_blocks; begin += N_SLOTS) {                                                     \
            uint b = begin + slot;                                                                                     \
            if (b < n_blocks)                                                                                          \
                add_block(TYPE, IS_UNROLLED, bytes, n_blocks, b, row, act + b * GPU_Q8_256_BYTES, N == 1 ? 1 : n,      \
                          parts + 16 * slot + row, 16 * N_SLOTS);                                                                 \
            BARRIER();                                                                                                 \
            if (slot < n)                                                                                              \
                acc = flush_parts(TYPE, parts + slot * N_SLOTS * 16 + row, N_SLOTS, n_blocks - begin, acc);            \
            BARRIER();                                                                                                 \
        }                                                                                                              \
        if (slot < n && column < n_rows)                                                                               \
            store_output(out + (ulong)(first + slot) * n_rows, acc, bias, column, add);                                \
    }

PRODUCT(product_q4_k_1, GPU_Q4_K, 1, 1, 16)
PRODUCT(product_q4_k_few, GPU_Q4_K, 1, 1, 8)
PRODUCT(product_q4_k_n, GPU_Q4_K, 1, GPU_ROWS, 8)
PRODUCT(product_q6_k_1, GPU_Q6_K, 1, 1, 16)
PRODUCT(product_q6_k_few, GPU_Q6_K, 1, 1, 8)
PRODUCT(product_q6_k_n, GPU_Q6_K, 1, GPU_ROWS, 8)
PRODUCT(product_k_1, type, 1, 1, 16)
PRODUCT(product_k_n, type, 0, GPU_ROWS, 8)
