/* product_matrix.cl: products with many rows of activations on matrix units, for the types that models are mostly made of.
 *
 * A sub-group of 32 items takes a tile and 32 rows of activations, 8 at a time: one multiplication of 16 rows by 8 columns for each
 * sub-block of inputs gives whole numbers, which are scaled and added as whole numbers; floats are added block after block, as
 * product_k.cl adds them. Nothing is shared between items.
 *
 * Item 4 * r + s has, of the left side, the words of rows r and r + 8 at step s of each 16 inputs; of the right side those of row r of
 * activations; of the result rows r and r + 8, rows of activations 2 * s and 2 * s + 1. */

#define TILES   4 /* of a group */
#define EIGHTS  4 /* rows of activations, in eights */
#define RESULTS 4 /* of an item, in each eight: rows r, r, r + 8, r + 8 */

/* The words of a chunk at a step of each of its four 16s; vectors as in tiles.cl. */
FUNCTION uint4 q4_k_step(GLOBAL const uchar *vectors, uint c, uint step)
{
    uint first = vector_word(vectors + GPU_Q4_K_NIBBLES, 8 * c + step);
    uint second = vector_word(vectors + GPU_Q4_K_NIBBLES, 8 * c + 4 + step);
    return four(first & 0x0f0f0f0f, second & 0x0f0f0f0f, first >> 4 & 0x0f0f0f0f, second >> 4 & 0x0f0f0f0f);
}

FUNCTION uint4 q6_k_step(GLOBAL const uchar *vectors, uint c, uint step)
{
    GLOBAL const uchar *chunk = vectors + GPU_Q6_K_CHUNKS + GPU_Q6_K_CHUNK * c;
    uint first = vector_word(chunk, step), second = vector_word(chunk, 4 + step), pairs = vector_word(chunk, 8 + step);
    return less(four((first & 0x0f0f0f0f) | (pairs & 0x30303030), (first >> 2 & 0x3c3c3c3c) | (pairs >> 2 & 0x03030303),
                     (second & 0x0f0f0f0f) | (pairs >> 2 & 0x30303030), (second >> 2 & 0x3c3c3c3c) | (pairs & 0x03030303)),
                32);
}

/* sum of minimum * q of a row, from the sums of 32 inputs. */
FUNCTION int minimums_of_block(uint type, GLOBAL const uchar *vectors, GLOBAL const uint *sums_32)
{
    int sum = 0;
    UNROLL for (uint c = 0; c < 4; c++)
    {
        int4 minimums = k_minimums(type, vectors, c);
        sum += minimums.x * (int)(short)sums_32[c] + minimums.z * ((int)sums_32[c] >> 16);
    }
    return sum;
}

#define PRODUCT(name, TYPE)                                                                                            \
    KERNEL(32, TILES)                                                                                                  \
    void name(MATRICES_IN, IN(uchar, acts), uint n_acts, uint n_columns, uint add)                                     \
    {                                                                                                                  \
        MATRIX_SCRATCH(TILES)                                                                                          \
        uint n_tiles = (n_rows0 + 15) / 16 + (n_rows1 + 15) / 16 + (n_rows2 + 15) / 16;                                \
        uint wanted = TILES * GROUP_X + ITEM_Y, is_there = wanted < n_tiles;                                           \
        MATRIX_OF_TILE(is_there ? wanted : n_tiles - 1)                                                                \
        uint row = ITEM / 4, step = ITEM % 4, n_blocks = n_columns / 256, first = 8 * EIGHTS * GROUP_Y, e, i;          \
        ulong act_stride = (ulong)n_blocks * GPU_Q8_256_BYTES;                                                         \
        GLOBAL const uchar *bytes = tiles + tile * k_tile_bytes(TYPE, n_blocks);                                       \
        GLOBAL const uchar *acts = AT(uchar, acts);                                                                    \
        float acc[EIGHTS][RESULTS];                                                                                    \
        UNROLL for (e = 0; e < EIGHTS; e++) UNROLL for (i = 0; i < RESULTS; i++) acc[e][i] = 0.0f;                     \
        for (uint b = 0; b < n_blocks; b++) {                                                                          \
            GLOBAL const uchar *block = k_block(TYPE, bytes, n_blocks, b), *vectors = block + 4 * row;                 \
            int sums[EIGHTS][RESULTS];                                                                                 \
            UNROLL for (e = 0; e < EIGHTS; e++) UNROLL for (i = 0; i < RESULTS; i++) sums[e][i] = 0;                   \
            for (uint c = 0; c < 4; c++) {                                                                             \
                uint4 upper = TYPE == GPU_Q6_K ? q6_k_step(vectors, c, step) : q4_k_step(vectors, c, step);            \
                uint4 lower = TYPE == GPU_Q6_K ? q6_k_step(vectors + 32, c, step) : q4_k_step(vectors + 32, c, step);  \
                int4 upper_scales = k_scales(TYPE, vectors, c), lower_scales = k_scales(TYPE, vectors + 32, c);        \
                UNROLL for (e = 0; e < EIGHTS; e++)                                                                    \
                {                                                                                                      \
                    uint act = first + 8 * e + row < n_acts ? first + 8 * e + row : n_acts - 1;                        \
                    GLOBAL const uint *q =                                                                             \
                        (GLOBAL const uint *)(acts + act * act_stride + b * GPU_Q8_256_BYTES + 64 * c) + step;         \
                    if (TYPE == GPU_Q6_K) {                                                                            \
                        MULTIPLY_16(sums[e], upper_scales.x, lower_scales.x, upper.x, lower.x, q[0]);                  \
                        MULTIPLY_16(sums[e], upper_scales.y, lower_scales.y, upper.y, lower.y, q[4]);                  \
                        MULTIPLY_16(sums[e], upper_scales.z, lower_scales.z, upper.z, lower.z, q[8]);                  \
                        MULTIPLY_16(sums[e], upper_scales.w, lower_scales.w, upper.w, lower.w, q[12]);                 \
                    } else {                                                                                           \
                        MULTIPLY_32(sums[e], upper_scales.x, lower_scales.x, upper.x, lower.x, upper.y, lower.y, q[0], \
                                    q[4]);                                                                             \
                        MULTIPLY_32(sums[e], upper_scales.z, lower_scales.z, upper.z, lower.z, upper.w, lower.w, q[8], \
                                    q[12]);                                                                            \
                    }                                                                                                  \
                }                                                                                                      \
            }                                                                                                          \
            UNROLL for (e = 0; e < EIGHTS; e++) UNROLL for (i = 0; i < RESULTS; i++)                                   \
            {                                                                                                          \
                uint column = first + 8 * e + 2 * step + i % 2, act = column < n_acts ? column : n_acts - 1;           \
                uint of_row = row + i / 2 * 8;                                                                         \
                GLOBAL const uchar *q = acts + act * act_stride + b * GPU_Q8_256_BYTES;                                \
                float a_d = LOAD_FLOAT(q + GPU_Q8_256_D);                                                              \
                acc[e][i] = FMA(k_d(TYPE, bytes, block, b, of_row) * a_d, (float)sums[e][i], acc[e][i]);               \
                if (has_minimum(TYPE))                                                                                 \
                    acc[e][i] = FMA(-(k_dmin(block, of_row) * a_d),                                                    \
                                    (float)minimums_of_block(TYPE, block + 4 * of_row,                                 \
                                                             (GLOBAL const uint *)(q + GPU_Q8_256_SUMS_32)),           \
                                    acc[e][i]);                                                                        \
            }                                                                                                          \
        }                                                                                                              \
        UNROLL for (e = 0; e < EIGHTS; e++) UNROLL for (i = 0; i < RESULTS; i++)                                       \
        {                                                                                                              \
            uint act = first + 8 * e + 2 * step + i % 2, column = 16 * tile + row + i / 2 * 8;                         \
            if (is_there && act < n_acts && column < n_rows)                                                           \
                store_output(out + (ulong)act * n_rows, acc[e][i], bias, column, add);                                 \
        }                                                                                                              \
    }

/* sums += scales * a product of matrices: the words of rows r and r + 8, and of a row of activations, for 16 inputs; or for 32. */
#define MULTIPLY_16(sums, upper_scale, lower_scale, upper, lower, q)                                                   \
    do {                                                                                                               \
        int4 dots = MATRIX_16(upper, lower, q);                                                                        \
        sums[0] += upper_scale * dots.x;                                                                               \
        sums[1] += upper_scale * dots.y;                                                                               \
        sums[2] += lower_scale * dots.z;                                                                               \
        sums[3] += lower_scale * dots.w;                                                                               \
    } while (0)
#define MULTIPLY_32(sums, upper_scale, lower_scale, upper, lower, upper_16, lower_16, q, q_16)                         \
    do {                                                                                                               \
        int4 dots = MATRIX_32(upper, lower, upper_16, lower_16, q, q_16);                                              \
        sums[0] += upper_scale * dots.x;                                                                               \
        sums[1] += upper_scale * dots.y;                                                                               \
        sums[2] += lower_scale * dots.z;                                                                               \
        sums[3] += lower_scale * dots.w;                                                                               \
    } while (0)

PRODUCT(product_q4_k_matrix, GPU_Q4_K)
PRODUCT(product_q6_k_matrix, GPU_Q6_K)
