/* product_own.cl: products of one row that make their inputs themselves, each group for itself: that costs less than a launch before
 * them. Matrices are of the types of blocks of 256.
 *
 * As in product_k.cl an item owns a row of a tile and a block of 256 inputs; before it multiplies, the 16 items of a block make its
 * inputs, 16 each. */

/* Loops over 16 values: a card has them in registers; a compiler for CPUs makes vectors of each loop by itself, and takes many times as long
 * where it unrolls all of them. */
#ifdef RUNNEL_CPU
#define UNROLL_16 _Pragma("nounroll")
#else
#define UNROLL_16 UNROLL
#endif

/* What inputs are made of: a row as it lies, normalised, or merged of partial results of attention. */
struct source {
    GLOBAL const float *x, *norm_weight; /* norm_weight 0: as it lies */
    float scale;                         /* the norm's */
    uint merges, head_dim, n_blocks, n_seen;
};

#define SOURCE_IN                                                                                                      \
    IN(float, x), IN(float, norm_weight), IN(uint, rows), uint merges, uint head_dim, uint window, uint n_blocks_seen, \
        float epsilon

/* Declares the source. */
#define SOURCE(lanes)                                                                                                  \
    struct source source = {AT(float, x), HAS(norm_weight) ? AT(float, norm_weight) : 0, 1.0f, merges, head_dim,       \
                            n_blocks_seen, 0};                                                                         \
    if (merges)                                                                                                        \
        source.n_seen = count_seen(ROW_POSITION(AT(uint, rows), 0), window);                                           \
    if (HAS(norm_weight))                                                                                              \
        source.scale = norm_scale(16 * ITEM_Y + ITEM, source.x, n_columns, epsilon, lanes);

FUNCTION void load_16(GLOBAL const float *x, float *values)
{
    UNROLL_16 for (uint i = 0; i < 4; i++)
    {
        float4 four = ((GLOBAL const float4 *)x)[i];
        values[4 * i] = four.x;
        values[4 * i + 1] = four.y;
        values[4 * i + 2] = four.z;
        values[4 * i + 3] = four.w;
    }
}

/* Of one head, whose size is a multiple of 16. */
FUNCTION void merge_16(struct source source, uint column, float *values)
{
    uint record = source.head_dim + 4, head = column / source.head_dim, d = 4 + column % source.head_dim, i;
    GLOBAL const float *partial = source.x + (ulong)head * source.n_blocks * record;
    struct merging merging = begin_merging();
    float later[16];
    UNROLL_16 for (i = 0; i < 16; i++) values[i] = 0.0f;
    for (uint b = 0; b < source.n_seen; b++, partial += record) {
        if (!merge_block(&merging, partial[0], partial[1]))
            continue;
        load_16(partial + d, later);
        UNROLL_16 for (i = 0; i < 16; i++) values[i] = merge_value(&merging, values[i], later[i]);
    }
    float factor = DIVIDE(1.0f, merging.l);
    UNROLL_16 for (i = 0; i < 16; i++) values[i] = values[i] * factor;
}

/* Inputs from a column on. */
FUNCTION void read_16(struct source source, uint column, float *values)
{
    if (source.merges) {
        merge_16(source, column, values);
        return;
    }
    load_16(source.x + column, values);
    if (source.norm_weight) {
        float weights[16];
        load_16(source.norm_weight + column, weights);
        UNROLL_16 for (uint i = 0; i < 16; i++) values[i] = values[i] * source.scale * weights[i];
    }
}

/* A block of inputs as acts.cl makes it, in LOCAL memory: q int4 [16], sums of 16 int4 [4], and d; largest: uint [16]. */
struct own_block {
    LOCAL int4 *q, *sums;
    LOCAL float *d;
    LOCAL uint *largest;
};

/* Made by 16 items; those of other blocks make theirs, or nothing. */
FUNCTION void make_block(struct own_block block, struct source source, uint b, bool makes)
{
    float values[16];
    uint largest = 0, i;
    UNROLL_16 for (i = 0; i < 16; i++) values[i] = 0.0f;
    if (makes) {
        read_16(source, 256 * b + 16 * ITEM, values);
        UNROLL_16 for (i = 0; i < 16; i++) largest = magnitude_bits(values[i]) > largest ? magnitude_bits(values[i]) : largest;
        block.largest[ITEM] = largest;
    }
    BARRIER();
    if (makes) {
        struct scale scale = scale_of(largest_of_16(block.largest), 127.0f, 1e-27f);
        int q[16], sum = 0;
        UNROLL_16 for (i = 0; i < 16; i++) q[i] = round_with(scale, values[i]);
        UNROLL_16 for (i = 0; i < 16; i++) sum += q[i];
        UNROLL_16 for (i = 0; i < 16; i++) q[i] = (q[i] & 0xff) << i % 4 * 8;
        int4 words;
        words.x = q[0] | q[1] | q[2] | q[3];
        words.y = q[4] | q[5] | q[6] | q[7];
        words.z = q[8] | q[9] | q[10] | q[11];
        words.w = q[12] | q[13] | q[14] | q[15];
        block.q[ITEM] = words;
        ((LOCAL int *)block.sums)[ITEM] = sum;
        if (ITEM == 0)
            *block.d = scale.d;
    }
    BARRIER();
}

FUNCTION void add_own_chunk(uint type, GLOBAL const uchar *vectors, uint c, struct own_block block, DOTS *sum, int *minimums)
{
    struct chunk chunk = k_words(type, vectors, c);
    int4 scales = k_scales(type, vectors, c);
    *sum += chunk_sum(chunk, scales, block.q[4 * c], block.q[4 * c + 1], block.q[4 * c + 2], block.q[4 * c + 3]);
    if (has_minimum(type)) {
        int4 minimum = k_minimums(type, vectors, c), sums = block.sums[c];
        *minimums += minimum.x * sums.x + minimum.y * sums.y + minimum.z * sums.z + minimum.w * sums.w;
    }
}

/* Brings a tile near, by n_items items, while its inputs are made. */
FUNCTION void prefetch_tile(uint type, GLOBAL const uchar *tile, uint n_blocks, uint item, uint n_items)
{
    ulong n_bytes = k_tile_bytes(type, n_blocks);
    for (ulong at = 64 * item; at < n_bytes; at += 64 * n_items)
        PREFETCH(tile + at);
}

/* Row ITEM of a tile times block b of its inputs, as the flush wants it. */
FUNCTION float4 own_part(uint type, uint is_unrolled, GLOBAL const uchar *tile, uint n_blocks, uint b, struct own_block own)
{
    GLOBAL const uchar *block = k_block(type, tile, n_blocks, b), *vectors = block + 4 * ITEM;
    DOTS sum = 0;
    int minimums = 0;
    if (is_unrolled) {
        add_own_chunk(type, vectors, 0, own, &sum, &minimums);
        add_own_chunk(type, vectors, 1, own, &sum, &minimums);
        add_own_chunk(type, vectors, 2, own, &sum, &minimums);
        add_own_chunk(type, vectors, 3, own, &sum, &minimums);
    } else
        for (uint c = 0; c < 4; c++)
            add_own_chunk(type, vectors, c, own, &sum, &minimums);
    float dmin = has_minimum(type) ? k_dmin(block, ITEM) : 0.0f;
    return block_part(k_d(type, tile, block, b, ITEM), dmin, *own.d, SUM_OF(sum), minimums);
}

/* 16 blocks of inputs at a time: item (row, slot). The first slot's items flush. */
#define PRODUCT_OWN(name, TYPE, IS_UNROLLED)                                                                           \
    KERNEL(16, 16)                                                                                                     \
    void name(MATRICES_IN, SOURCE_IN, uint n_columns, uint add)                                                        \
    {                                                                                                                  \
        LOCAL float4 parts[256];                                                                                       \
        LOCAL int4 q[256], sums[64];                                                                                   \
        LOCAL float d[16], lanes[64];                                                                                  \
        LOCAL uint largest[256];                                                                                       \
        MATRIX_OF_GROUP                                                                                                \
        uint n_blocks = n_columns / 256, row = ITEM, slot = ITEM_Y, column = 16 * tile + row;                          \
        GLOBAL const uchar *bytes = tiles + tile * k_tile_bytes(TYPE, n_blocks);                                       \
        prefetch_tile(TYPE, bytes, n_blocks, 16 * slot + row, 256);                                                    \
        SOURCE(lanes)                                                                                                  \
        struct own_block own = {q + 16 * slot, sums + 4 * slot, d + slot, largest + 16 * slot};                        \
        float acc = 0.0f;                                                                                              \
        for (uint begin = 0; begin < n_blocks; begin += 16) {                                                          \
            uint b = begin + slot;                                                                                     \
            make_block(own, source, b, b < n_blocks);                                                                  \
            if (b < n_blocks)                                                                                          \
                parts[16 * slot + row] = own_part(TYPE, IS_UNROLLED, bytes, n_blocks, b, own);                         \
            BARRIER();                                                                                                 \
            if (slot == 0)                                                                                             \
                acc = flush_parts(TYPE, parts + row, 16, n_blocks - begin, acc);                                       \
        }                                                                                                              \
        if (slot == 0 && column < n_rows)                                                                              \
            store_output(out, acc, bias, column, add);                                                                 \
    }

PRODUCT_OWN(product_own_q4_k, GPU_Q4_K, 1)
PRODUCT_OWN(product_own_q6_k, GPU_Q6_K, 1)
PRODUCT_OWN(product_own_k, type, 0)

/* Gate and up, the first two matrices, and the activation of both: 8 blocks of inputs at a time, slots 0 to 7 for gate, 8 to 15 for up.
 * Groups: tiles of gate. */
#define PRODUCT_ACTIVATED(name, TYPE, IS_UNROLLED)                                                                     \
    KERNEL(16, 16)                                                                                                     \
    void name(MATRICES_IN, SOURCE_IN, uint n_columns, uint gelu)                                                       \
    {                                                                                                                  \
        LOCAL float4 parts[256];                                                                                       \
        LOCAL int4 q[128], sums[32];                                                                                   \
        LOCAL float d[8], lanes[64], products[32];                                                                     \
        LOCAL uint largest[128];                                                                                       \
        uint n_blocks = n_columns / 256, row = ITEM, slot = ITEM_Y % 8, column = 16 * GROUP_X + row;                   \
        bool is_up = ITEM_Y >= 8;                                                                                      \
        uint type = is_up ? type1 : type0;                                                                             \
        GLOBAL const uchar *bytes =                                                                                    \
            (is_up ? AT(uchar, tiles1) : AT(uchar, tiles0)) + GROUP_X * k_tile_bytes(TYPE, n_blocks);                  \
        prefetch_tile(TYPE, bytes, n_blocks, 16 * slot + row, 128);                                                    \
        SOURCE(lanes)                                                                                                  \
        struct own_block own = {q + 16 * slot, sums + 4 * slot, d + slot, largest + 16 * slot};                        \
        float acc = 0.0f;                                                                                              \
        for (uint begin = 0; begin < n_blocks; begin += 8) {                                                           \
            uint b = begin + slot;                                                                                     \
            make_block(own, source, b, b < n_blocks && !is_up);                                                        \
            if (b < n_blocks)                                                                                          \
                parts[16 * ITEM_Y + row] = own_part(TYPE, IS_UNROLLED, bytes, n_blocks, b, own);                       \
            BARRIER();                                                                                                 \
            if (slot == 0)                                                                                             \
                acc = flush_parts(TYPE, parts + 16 * ITEM_Y + row, 8, n_blocks - begin, acc);                          \
        }                                                                                                              \
        if (slot == 0 && column < n_rows0) {                                                                           \
            if (is_up ? HAS(bias1) : HAS(bias0))                                                                       \
                acc += (is_up ? AT(float, bias1) : AT(float, bias0))[column];                                          \
            products[ITEM_Y * 2 + row] = acc;                                                                          \
        }                                                                                                              \
        BARRIER();                                                                                                     \
        if (ITEM_Y == 0 && column < n_rows0)                                                                           \
            OUT_AT(float, out0)[column] = activation_of(products[row], products[16 + row], gelu);                      \
    }

PRODUCT_ACTIVATED(product_activated_q4_k, GPU_Q4_K, 1)
PRODUCT_ACTIVATED(product_activated_q6_k, GPU_Q6_K, 1)
PRODUCT_ACTIVATED(product_activated_k, type, 0)
