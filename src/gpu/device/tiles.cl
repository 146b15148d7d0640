/* tiles.cl: what stands in tiles of the quantised types. layout.h has the numbers; a tile of 16 rows is made of vectors of 64 bytes,
 * word `row` of which is 4 consecutive inputs of a row.
 *
 * Inputs are taken 64 at a time, chunk c of a block of 256 or a pair of 32s: four times 16 of them, in four words each, as signed bytes,
 * what a type keeps too high taken off. `vectors` points at the row's word of the block's first vector. */
struct chunk {
    uint4 a, b, c, d;
};

/* Bytes less n each, all of them from 0 to 127 before. */
FUNCTION uint4 less(uint4 words, uint n)
{
    return ((words | 0x80808080u) - n * 0x01010101u) ^ 0x80808080u;
}

FUNCTION uint vector_word(GLOBAL const uchar *vectors, uint vector)
{
    return LOAD_UINT(vectors + 64 * vector);
}

FUNCTION uint4 four(uint a, uint b, uint c, uint d)
{
    uint4 words;
    words.x = a;
    words.y = b;
    words.z = c;
    words.w = d;
    return words;
}

FUNCTION uint4 four_words(GLOBAL const uchar *vectors, uint vector)
{
    return four(vector_word(vectors, vector), vector_word(vectors, vector + 1), vector_word(vectors, vector + 2),
                vector_word(vectors, vector + 3));
}

/* Half-bytes of eight vectors: the first half of the chunk in the low ones. */
FUNCTION struct chunk nibbles(uint4 first, uint4 second)
{
    struct chunk chunk;
    chunk.a = first & 0x0f0f0f0fu;
    chunk.b = second & 0x0f0f0f0fu;
    chunk.c = first >> 4 & 0x0f0f0f0fu;
    chunk.d = second >> 4 & 0x0f0f0f0fu;
    return chunk;
}

/* Likewise of five bits: the low four of the first half, the upper four of the second half; bit g of low_bits and high_bits is what is
 * missing in group g. */
FUNCTION struct chunk fives(uint4 first, uint4 second, uint low_bits, uint high_bits)
{
    struct chunk chunk;
    uint4 low = four(low_bits, low_bits >> 1, low_bits >> 2, low_bits >> 3);
    uint4 high = four(high_bits, high_bits >> 1, high_bits >> 2, high_bits >> 3);
    chunk.a = (first & 0x0f0f0f0fu) | (low & 0x01010101u) << 4;
    chunk.b = (second & 0x0f0f0f0fu) | (low & 0x10101010u);
    chunk.c = (first >> 3 & 0x1e1e1e1eu) | (high & 0x01010101u);
    chunk.d = (second >> 3 & 0x1e1e1e1eu) | (high >> 4 & 0x01010101u);
    return chunk;
}

/* Bytes -127 -104 -83 -65 -49 -35 -22 -10 1 13 25 38 53 69 89 113. */
FUNCTION uint iq4_values(uint word)
{
    return LOOKUP16(word, 0xbfad9881u, 0xf6eaddcfu, 0x26190d01u, 0x71594535u);
}

/* Twice what a float of 4 bits is. */
FUNCTION uint mxfp4_values(uint word)
{
    return LOOKUP16(word, 0x03020100u, 0x0c080604u, 0xfdfeff00u, 0xf4f8fafcu);
}

FUNCTION uint4 look_up(uint4 words, uint type)
{
    if (type == GPU_MXFP4)
        return four(mxfp4_values(words.x), mxfp4_values(words.y), mxfp4_values(words.z), mxfp4_values(words.w));
    return four(iq4_values(words.x), iq4_values(words.y), iq4_values(words.z), iq4_values(words.w));
}

FUNCTION struct chunk look_up_all(struct chunk chunk, uint type)
{
    chunk.a = look_up(chunk.a, type);
    chunk.b = look_up(chunk.b, type);
    chunk.c = look_up(chunk.c, type);
    chunk.d = look_up(chunk.d, type);
    return chunk;
}

FUNCTION struct chunk less_all(struct chunk chunk, uint n)
{
    chunk.a = less(chunk.a, n);
    chunk.b = less(chunk.b, n);
    chunk.c = less(chunk.c, n);
    chunk.d = less(chunk.d, n);
    return chunk;
}

/* Types of blocks of 256 -------------------------------------------------------------------------------------------------- */

FUNCTION bool has_header(uint type)
{
    return type == GPU_Q6_K || type == GPU_Q3_K || type == GPU_IQ4_XS;
}

FUNCTION bool has_minimum(uint type)
{
    return type == GPU_Q4_K || type == GPU_Q5_K || type == GPU_Q2_K;
}

FUNCTION uint k_block_bytes(uint type)
{
    return type == GPU_Q4_K   ? GPU_Q4_K_BLOCK
           : type == GPU_Q5_K ? GPU_Q5_K_BLOCK
           : type == GPU_Q6_K ? GPU_Q6_K_BLOCK
           : type == GPU_Q2_K ? GPU_Q2_K_BLOCK
           : type == GPU_Q3_K ? GPU_Q3_K_BLOCK
                              : GPU_IQ4_XS_BLOCK;
}

FUNCTION uint k_header_bytes(uint type, uint n_blocks)
{
    return has_header(type) ? (32 * n_blocks + 63) / 64 * 64 : 0;
}

FUNCTION ulong k_tile_bytes(uint type, uint n_blocks)
{
    return k_header_bytes(type, n_blocks) + (ulong)n_blocks * k_block_bytes(type);
}

/* Block b of a tile. */
FUNCTION GLOBAL const uchar *k_block(uint type, GLOBAL const uchar *tile, uint n_blocks, uint b)
{
    return tile + k_header_bytes(type, n_blocks) + (ulong)b * k_block_bytes(type);
}

FUNCTION float k_d(uint type, GLOBAL const uchar *tile, GLOBAL const uchar *block, uint b, uint row)
{
    return f16_to_f32(has_header(type) ? LOAD_USHORT(tile + 32 * b + 2 * row) : LOAD_USHORT(block + 2 * row));
}

FUNCTION float k_dmin(GLOBAL const uchar *block, uint row)
{
    return f16_to_f32(LOAD_USHORT(block + GPU_K_DMIN + 2 * row));
}

FUNCTION struct chunk q6_k_words(GLOBAL const uchar *vectors)
{
    struct chunk chunk;
    uint4 first = four_words(vectors, 0), second = four_words(vectors, 4), pairs = four_words(vectors, 8);
    chunk.a = (first & 0x0f0f0f0fu) | (pairs & 0x30303030u);
    chunk.b = (first >> 2 & 0x3c3c3c3cu) | (pairs >> 2 & 0x03030303u);
    chunk.c = (second & 0x0f0f0f0fu) | (pairs >> 2 & 0x30303030u);
    chunk.d = (second >> 2 & 0x3c3c3c3cu) | (pairs & 0x03030303u);
    return less_all(chunk, 32);
}

/* The even sub-block of a pair of vectors A, B, C; and the odd one. */
FUNCTION uint4 q3_k_even(uint a, uint b, uint c)
{
    return four(a & 0x07070707, b & 0x07070707, c & 0x07070707, (c >> 3 & 0x03030303) | (b >> 2 & 0x04040404));
}

FUNCTION uint4 q3_k_odd(uint a, uint b, uint c)
{
    return four(a >> 5 & 0x07070707, b >> 5 & 0x07070707, c >> 5 & 0x07070707, (a >> 2 & 0x06060606) | (b >> 3 & 0x01010101));
}

FUNCTION struct chunk q3_k_words(GLOBAL const uchar *vectors)
{
    struct chunk chunk;
    uint a = vector_word(vectors, 0), b = vector_word(vectors, 1), c = vector_word(vectors, 2);
    chunk.a = q3_k_even(a, b, c);
    chunk.b = q3_k_odd(a, b, c);
    a = vector_word(vectors, 3), b = vector_word(vectors, 4), c = vector_word(vectors, 5);
    chunk.c = q3_k_even(a, b, c);
    chunk.d = q3_k_odd(a, b, c);
    return less_all(chunk, 4);
}

FUNCTION struct chunk q2_k_words(GLOBAL const uchar *vectors)
{
    struct chunk chunk;
    uint4 words = four_words(vectors, 0);
    chunk.a = words & 0x03030303u;
    chunk.b = words >> 6 & 0x03030303u;
    chunk.c = words >> 2 & 0x03030303u;
    chunk.d = words >> 4 & 0x03030303u;
    return chunk;
}

FUNCTION struct chunk k_words(uint type, GLOBAL const uchar *vectors, uint c)
{
    if (type == GPU_Q6_K)
        return q6_k_words(vectors + GPU_Q6_K_CHUNKS + GPU_Q6_K_CHUNK * c);
    if (type == GPU_Q3_K)
        return q3_k_words(vectors + GPU_Q3_K_VALUES + 2 * GPU_Q3_K_PAIR * c);
    if (type == GPU_Q2_K)
        return q2_k_words(vectors + GPU_Q2_K_VALUES + 256 * c);
    GLOBAL const uchar *halves = vectors + (type == GPU_IQ4_XS ? GPU_IQ4_XS_NIBBLES : GPU_Q4_K_NIBBLES);
    uint4 first = four_words(halves, 8 * c), second = four_words(halves, 8 * c + 4);
    if (type == GPU_Q5_K)
        return fives(first, second, vector_word(vectors + GPU_Q5_K_BITS, 2 * c),
                     vector_word(vectors + GPU_Q5_K_BITS, 2 * c + 1));
    if (type == GPU_IQ4_XS)
        return look_up_all(nibbles(first, second), type);
    return nibbles(first, second);
}

/* The four bytes of a word in the order 0 2 1 3. */
FUNCTION int4 in_order(uint word)
{
    int4 values;
    values.x = (int)byte_of(word, 0);
    values.y = (int)byte_of(word, 2);
    values.z = (int)byte_of(word, 1);
    values.w = (int)byte_of(word, 3);
    return values;
}

/* Of a word for sub-blocks of 32, in that order, the two of chunk c, each for both of its halves. */
FUNCTION int4 in_halves(uint word, uint c)
{
    int4 values;
    values.x = values.y = (int)byte_of(word, c % 2);
    values.z = values.w = (int)byte_of(word, 2 + c % 2);
    return values;
}

/* The scales of a chunk, one for each k. */
FUNCTION int4 k_scales(uint type, GLOBAL const uchar *vectors, uint c)
{
    int4 values;
    if (type == GPU_Q6_K) {
        uint word = vector_word(vectors, c);
        values.x = signed_byte_of(word, 0);
        values.y = signed_byte_of(word, 2);
        values.z = signed_byte_of(word, 1);
        values.w = signed_byte_of(word, 3);
        return values;
    }
    if (type == GPU_Q3_K) {
        uint low = vector_word(vectors, c % 2) >> c / 2 * 4 & 0x0f0f0f0f;
        uint high = vector_word(vectors, 2) >> 2 * c & 0x03030303;
        return in_order(low | high << 4) - 32;
    }
    if (type == GPU_Q2_K)
        return in_order(vector_word(vectors + GPU_K_SCALES, c) & 0x0f0f0f0f);
    if (type == GPU_IQ4_XS) {
        uint word = vector_word(vectors, c / 2);
        values.x = values.y = signed_byte_of(word, c % 2);
        values.z = values.w = signed_byte_of(word, 2 + c % 2);
        return values;
    }
    uint first = vector_word(vectors + GPU_K_SCALES, 0);
    if (c < 2)
        return in_halves(first & 0x3f3f3f3f, c);
    return in_halves((vector_word(vectors + GPU_K_SCALES, 2) & 0x0f0f0f0f) | (first >> 2 & 0x30303030), c);
}

/* Likewise the minimums of the types that have some. */
FUNCTION int4 k_minimums(uint type, GLOBAL const uchar *vectors, uint c)
{
    if (type == GPU_Q2_K)
        return in_order(vector_word(vectors + GPU_K_SCALES, c) >> 4 & 0x0f0f0f0f);
    uint first = vector_word(vectors + GPU_K_SCALES, 1);
    if (c < 2)
        return in_halves(first & 0x3f3f3f3f, c);
    return in_halves((vector_word(vectors + GPU_K_SCALES, 2) >> 4 & 0x0f0f0f0f) | (first >> 2 & 0x30303030), c);
}

/* Types of blocks of 32 --------------------------------------------------------------------------------------------------- */

FUNCTION bool has_m(uint type)
{
    return type == GPU_Q4_1 || type == GPU_Q5_1;
}

FUNCTION uint pair_bytes(uint type)
{
    return type == GPU_Q8_0   ? GPU_Q8_0_PAIR
           : type == GPU_Q4_1 ? GPU_Q4_1_PAIR
           : type == GPU_Q5_0 ? GPU_Q5_0_PAIR
           : type == GPU_Q5_1 ? GPU_Q5_1_PAIR
                              : GPU_Q4_0_PAIR;
}

/* The d of the first or the second block of a pair. */
FUNCTION float pair_d(uint type, GLOBAL const uchar *pair, uint second, uint row)
{
    uint bits = LOAD_USHORT(pair + 32 * second + 2 * row);
    return type == GPU_MXFP4 ? bf16_to_f32(bits) : f16_to_f32(bits);
}

FUNCTION float pair_m(GLOBAL const uchar *pair, uint second, uint row)
{
    return f16_to_f32(LOAD_USHORT(pair + GPU_PAIR_M + 32 * second + 2 * row));
}

FUNCTION struct chunk q8_0_words(GLOBAL const uchar *values)
{
    struct chunk chunk;
    chunk.a = four_words(values, 0) ^ 0x80808080u;
    chunk.b = four_words(values, 4) ^ 0x80808080u;
    chunk.c = four_words(values, 8) ^ 0x80808080u;
    chunk.d = four_words(values, 12) ^ 0x80808080u;
    return chunk;
}

/* vectors: the row's word of the pair's first 64 bytes. */
FUNCTION struct chunk pair_words(uint type, GLOBAL const uchar *vectors)
{
    GLOBAL const uchar *values = vectors + (has_m(type) ? 2 * GPU_PAIR_M : GPU_PAIR_M);
    if (type == GPU_Q8_0)
        return q8_0_words(values);
    uint4 first = four_words(values, 0), second = four_words(values, 4);
    if (type == GPU_Q5_0 || type == GPU_Q5_1) {
        struct chunk chunk = fives(first, second, vector_word(values + GPU_PAIR_BITS, 0), vector_word(values + GPU_PAIR_BITS, 1));
        return type == GPU_Q5_0 ? less_all(chunk, 16) : chunk;
    }
    if (type == GPU_Q4_0)
        return less_all(nibbles(first, second), 8);
    return type == GPU_Q4_1 ? nibbles(first, second) : look_up_all(nibbles(first, second), type);
}
