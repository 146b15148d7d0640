/* attention.cl: attention over pages. A block of 256 positions gives a partial result for a row and a query head; partials are merged
 * in ascending order, as the CPU merges them, and become activation rows. rows.cl says how partials lie. */

#define HEADS_TOGETHER 8 /* query heads of a KV head that a group attends at most */

/* c + two products of 16-bit numbers. */
FUNCTION int dot2(uint a, uint b, int c)
{
    return c + (int)(short)a * (int)(short)b + ((int)a >> 16) * ((int)b >> 16);
}

/* c + eight products. */
FUNCTION int dot8(uint4 a, uint b0, uint b1, uint b2, uint b3, int c)
{
    return dot2(a.x, b0, dot2(a.y, b1, dot2(a.z, b2, dot2(a.w, b3, c))));
}

/* Of 256 values for each of so many heads the largest of each 16; NaN is none. */
FUNCTION void reduce_values(uint heads, LOCAL const float *values, LOCAL float *few)
{
    BARRIER();
    if (ITEM < 16 * heads) {
        float largest = NEGATIVE_INFINITY;
        UNROLL for (uint i = 0; i < 16; i++)
        {
            float value = values[16 * ITEM + i];
            largest = value > largest ? value : largest;
        }
        few[ITEM] = largest;
    }
    BARRIER();
}

FUNCTION float largest_value(LOCAL const float *few, uint head)
{
    float largest = NEGATIVE_INFINITY;
    UNROLL for (uint i = 0; i < 16; i++) largest = few[16 * head + i] > largest ? few[16 * head + i] : largest;
    return largest;
}

/* Likewise of the bits of magnitudes, among which NaN is the largest. */
FUNCTION void reduce_bits(uint heads, LOCAL const float *values, LOCAL float *few)
{
    BARRIER();
    if (ITEM < 16 * heads) {
        uint largest = 0;
        UNROLL for (uint i = 0; i < 16; i++)
        {
            uint bits = magnitude_bits(values[16 * ITEM + i]);
            largest = bits > largest ? bits : largest;
        }
        few[ITEM] = as_float(largest);
    }
    BARRIER();
}

FUNCTION uint largest_bits(LOCAL const float *few, uint head)
{
    uint largest = 0;
    UNROLL for (uint i = 0; i < 16; i++)
    {
        uint bits = as_uint(few[16 * head + i]);
        largest = bits > largest ? bits : largest;
    }
    return largest;
}

/* A group attends `most` heads or fewer of a KV head; most is a constant, 1 or HEADS_TOGETHER. */
struct heads {
    uint most, n;
};

FUNCTION bool is_there(struct heads heads, uint h)
{
    return h < heads.most && (heads.most == 1 || h < heads.n);
}

/* N words of a key, which are loaded before any is used. */
#define ADD_WORDS(name, N)                                                                                             \
    FUNCTION void name(struct heads heads, GLOBAL const uint *q, GLOBAL const uint *k, uint n_words, int *sums)        \
    {                                                                                                                  \
        uint words[N], w, h;                                                                                           \
        UNROLL for (w = 0; w < N; w++) words[w] = k[32 * w];                                                           \
        UNROLL for (h = 0; h < HEADS_TOGETHER; h++) if (is_there(heads, h))                                            \
            UNROLL for (w = 0; w < N; w += 4) sums[h] = dot8(*(GLOBAL const uint4 *)(q + h * n_words + w), words[w],   \
                                                             words[w + 1], words[w + 2], words[w + 3], sums[h]);       \
    }
ADD_WORDS(add_8_words, 8)
ADD_WORDS(add_32_words, 32)

/* q * k at a position: dot + sum for each 128 dimensions, from 0. k: the position's first word of two dimensions; q: for each head
 * n_words of them. */
FUNCTION void score_whole(struct heads heads, GLOBAL const uint *q, GLOBAL const uint *k, uint n_words, float *dots)
{
    int sums[HEADS_TOGETHER];
    uint n_in_fours = n_words % 4 ? 0 : n_words, h;
    UNROLL for (h = 0; h < HEADS_TOGETHER; h++) dots[h] = 0.0f;
    for (uint begin = 0; begin < n_words; begin += GPU_SCORE_CHUNK / 2) {
        uint end = begin + GPU_SCORE_CHUNK / 2 < n_words ? begin + GPU_SCORE_CHUNK / 2 : n_words, w = begin;
        UNROLL for (h = 0; h < HEADS_TOGETHER; h++) sums[h] = 0;
        for (; heads.most == 1 && w + 32 <= end && w < n_in_fours; w += 32)
            add_32_words(heads, q + w, k + 32 * w, n_words, sums);
        for (; w + 8 <= end && w < n_in_fours; w += 8)
            add_8_words(heads, q + w, k + 32 * w, n_words, sums);
        for (; w < end; w++)
            UNROLL for (h = 0; h < HEADS_TOGETHER; h++) if (is_there(heads, h)) sums[h] =
                dot2(q[h * n_words + w], k[32 * w], sums[h]);
        UNROLL for (h = 0; h < HEADS_TOGETHER; h++) dots[h] += (float)sums[h];
    }
}

/* The same with keys that are floats. */
FUNCTION void score_f32(struct heads heads, GLOBAL const float *q, GLOBAL const float *k, uint head_dim, float *dots)
{
    float values[8];
    uint h, i = 0, j;
    UNROLL for (h = 0; h < HEADS_TOGETHER; h++) dots[h] = 0.0f;
    for (; i + 8 <= head_dim; i += 8) {
        UNROLL for (j = 0; j < 8; j++) values[j] = k[32 * (i + j)];
        UNROLL for (h = 0; h < HEADS_TOGETHER; h++) if (is_there(heads, h))
            UNROLL for (j = 0; j < 8; j++) dots[h] = FMA(q[h * head_dim + i + j], values[j], dots[h]);
    }
    for (; i < head_dim; i++)
        UNROLL for (h = 0; h < HEADS_TOGETHER; h++) if (is_there(heads, h)) dots[h] =
            FMA(q[h * head_dim + i], k[32 * i], dots[h]);
}

/* Where the values of a KV head are: v of page p, dimension d is at first + p * block_bytes, as words of two positions. pages: 8
 * numbers. */
struct values {
    GLOBAL const uchar *first;
    ulong block_bytes;
    LOCAL const uint *pages;
};

FUNCTION GLOBAL const uint *values_of(struct values values, uint page, uint d)
{
    return (GLOBAL const uint *)(values.first + values.pages[page] * values.block_bytes) + d / 16 * 256 + d % 16;
}

/* The words of a page at a dimension; those of one that is not there are none. */
FUNCTION void load_values(struct values values, uint page, uint d, uint *words)
{
    bool has_page = page < 8 && values.pages[page < 8 ? page : 0] != GPU_NO_PAGE;
    GLOBAL const uint *v = values_of(values, has_page ? page : 0, d);
    UNROLL for (uint s = 0; s < 16; s++) words[s] = has_page ? v[16 * s] : 0;
}

/* weights * V of a page in whole numbers. weights: uint4 [4] of the page, words of two positions. */
FUNCTION int sum_page(LOCAL const uint4 *weights, const uint *words)
{
    int sum = 0;
    UNROLL for (uint i = 0; i < 4; i++) sum =
        dot8(weights[i], words[4 * i], words[4 * i + 1], words[4 * i + 2], words[4 * i + 3], sum);
    return sum;
}

/* A head's weights * V * d: a whole number for each page, added in ascending order. An item takes pages at one dimension, two at a time; then
 * one item of each dimension adds. sums: of 8 pages at 256 dimensions. */
FUNCTION void write_values_alone(struct values values, LOCAL const uint4 *weights, float d_of_weights, uint padded,
                                 LOCAL float *sums, GLOBAL float *out)
{
    for (uint begin = 0; begin < padded; begin += 256) {
        uint width = padded - begin < 256 ? padded - begin : 256, n_parts = 256 / width, part = ITEM / width, d = ITEM % width;
        for (uint page = part; page < 8 && part < n_parts; page += 2 * n_parts) {
            uint words[16], later_words[16], later = page + n_parts;
            load_values(values, page, begin + d, words);
            load_values(values, later, begin + d, later_words);
            sums[page * width + d] = (float)sum_page(weights + 4 * page, words);
            if (later < 8)
                sums[later * width + d] = (float)sum_page(weights + 4 * later, later_words);
        }
        BARRIER();
        if (ITEM < width) {
            float value = 0.0f;
            UNROLL for (uint page = 0; page < 8; page++) value += sums[page * width + ITEM];
            out[begin + ITEM] = value * d_of_weights;
        }
        BARRIER();
    }
}

/* The same for several heads, out_stride floats apart. An item takes some of the heads at one dimension. */
FUNCTION void write_values_together(struct values values, uint n, LOCAL const uint4 *weights, LOCAL const float *d_of_weights,
                                    uint padded, GLOBAL float *out, ulong out_stride)
{
    for (uint begin = 0; begin < padded; begin += 256) {
        uint width = padded - begin < 256 ? padded - begin : 256, n_parts = 256 / width, part = ITEM / width;
        uint d = begin + ITEM % width, words[16], h, mine = 0 /* a bit for each head */;
        float sums[HEADS_TOGETHER];
        for (h = part; h < n && part < n_parts; h += n_parts)
            mine |= 1u << h;
        UNROLL for (h = 0; h < HEADS_TOGETHER; h++) sums[h] = 0.0f;
        for (uint page = 0; page < 8 && mine; page++) {
            if (values.pages[page] == GPU_NO_PAGE)
                continue;
            load_values(values, page, d, words);
            UNROLL for (h = 0; h < HEADS_TOGETHER; h++) if (mine >> h & 1) sums[h] +=
                (float)sum_page(weights + 32 * h + 4 * page, words);
        }
        UNROLL for (h = 0; h < HEADS_TOGETHER; h++) if (mine >> h & 1) out[h * out_stride + d] =
            sums[h] * d_of_weights[h];
    }
}

#define ATTEND_NUMBERS                                                                                                 \
    OUT(float, partials), uint first_row, uint n_heads, uint n_kv_heads, uint head_dim, uint n_pages, uint k_f32,      \
        uint window, uint n_blocks, float score_scale
#define ATTEND_IN                                                                                                      \
    IN(uint, rows), IN(uint, pages), IN(float, q), IN(uint, whole), IN(float, worth), IN(uchar, blocks), ATTEND_NUMBERS
/* What a group may have written itself: no promise is made to the compiler that nobody writes there. */
#define PLAIN(type, name) GLOBAL const type *name##_buffer, ulong name##_offset
#define ATTEND_PLAIN                                                                                                   \
    PLAIN(uint, rows), PLAIN(uint, pages), PLAIN(float, q), PLAIN(uint, whole), PLAIN(float, worth),                   \
        PLAIN(uchar, blocks), ATTEND_NUMBERS

#define ATTEND_SCRATCH(together, n_value_sums)                                                                         \
    LOCAL float p[(together) * 256], few[(together) * 16], d_of_weights[together], per_d[together];                    \
    LOCAL float value_sums[n_value_sums];                                                                              \
    LOCAL uint4 weights[(together) * 32];                                                                              \
    LOCAL uint page_numbers[8];
#define ATTEND_HEADS(together)                                                                                         \
    attend_heads(together, p, few, weights, page_numbers, d_of_weights, per_d, value_sums, rows_buffer, rows_offset,   \
                 pages_buffer, pages_offset, q_buffer, q_offset, (GLOBAL const uint *)whole_buffer, whole_offset,      \
                 worth_buffer, worth_offset, blocks_buffer, blocks_offset, partials_buffer, partials_offset,           \
                 first_row, n_heads, n_kv_heads, head_dim, n_pages, k_f32, window, n_blocks, score_scale)

/* Groups: blocks, from the first that a row sees; KV heads, as often as their query heads make `heads`; rows from first_row on. An item is
 * a position of the block, and then some of the values. p: float [heads, 256]; few: [heads, 16]; weights: uint4 [heads, 32];
 * value_sums: for one head float [8, 256]. */
FUNCTION void attend_heads(uint together, LOCAL float *p, LOCAL float *few, LOCAL uint4 *weights, LOCAL uint *page_numbers,
                           LOCAL float *d_of_weights, LOCAL float *per_d, LOCAL float *value_sums, ATTEND_PLAIN)
{
    uint row = first_row + GROUP_Z, position = ROW_POSITION(AT(uint, rows), row), padded = padded_dim(head_dim);
    uint first = first_visible(position, window), start = (first / 256 + GROUP_X) * 256;
    if (start > position)
        return;

    /* Which heads, which positions, where their keys and values are. */
    uint n_sharing = n_heads / n_kv_heads, n_batches = (n_sharing + together - 1) / together;
    uint kv_head = GROUP_Y / n_batches, batch = GROUP_Y % n_batches * together;
    uint first_head = kv_head * n_sharing + batch, n = n_sharing - batch < together ? n_sharing - batch : together;
    struct heads heads = {together, n};
    uint values_at = k_bytes(head_dim, k_f32), scales_at = values_at + padded * 64, slot = ITEM % 32, h;
    ulong block_bytes = scales_at + 128;
    GLOBAL const uchar *of_head = AT(uchar, blocks) + (ulong)kv_head * n_pages * block_bytes;
    if (ITEM < 8) {
        uint begin = start + 32 * ITEM;
        page_numbers[ITEM] = begin <= position && begin + 32 > first
                                 ? AT(uint, pages)[ROW_FIRST_PAGE(AT(uint, rows), row) + begin / 32]
                                 : GPU_NO_PAGE;
    }
    BARRIER();
    uint page = page_numbers[ITEM / 32];
    uint visible = start + ITEM >= first && start + ITEM <= position && page != GPU_NO_PAGE;
    GLOBAL const uchar *block = of_head + (visible ? page : 0) * block_bytes;

    for (uint line = 64 * slot; visible && line < padded * 64; line += 64 * 32)
        PREFETCH(block + values_at + line);

    /* score = dot * ((q_d * scale) * k_d), or dot * scale */
    float dots[HEADS_TOGETHER];
    ulong q_at = ((ulong)row * n_heads + first_head) * head_dim;
    float k_d = visible && !k_f32 ? ((GLOBAL const float *)(block + head_dim * 64))[slot] : 1.0f;
    float v_d = visible ? ((GLOBAL const float *)(block + scales_at))[slot] : 0.0f;
    if (visible && k_f32)
        score_f32(heads, AT(float, q) + q_at, (GLOBAL const float *)block + slot, head_dim, dots);
    else if (visible)
        score_whole(heads, AT(uint, whole) + q_at / 2, (GLOBAL const uint *)block + slot, head_dim / 2, dots);
    UNROLL for (h = 0; h < HEADS_TOGETHER; h++)
    {
        float score = NEGATIVE_INFINITY;
        if (visible && is_there(heads, h))
            score = dots[h] * (k_f32 ? score_scale : AT(float, worth)[row * n_heads + first_head + h] * score_scale * k_d);
        dots[h] = score;
        if (h < together)
            p[256 * h + ITEM] = score;
    }
    reduce_values(together, p, few);

    /* m; e = exp(score - m); lane position % 16 += e */
    ulong record = padded + 4, at = (((ulong)GROUP_Z * n_heads + first_head) * n_blocks + GROUP_X) * record;
    GLOBAL float *partial = OUT_AT(float, partials) + at;
    if (ITEM < n)
        partial[ITEM * n_blocks * record] = largest_value(few, ITEM);
    UNROLL for (h = 0; h < HEADS_TOGETHER; h++) if (h < together) dots[h] = p[256 * h + ITEM] =
        visible && is_there(heads, h) ? exp_f32(dots[h] - largest_value(few, h)) : 0.0f;
    BARRIER();
    float lane = 0.0f;
    if (ITEM < 16 * together)
        UNROLL for (uint i = 0; i < 16; i++) lane += p[ITEM / 16 * 256 + ITEM % 16 + 16 * i];
    BARRIER();
    if (ITEM < 16 * together)
        few[ITEM] = lane;
    UNROLL for (h = 0; h < HEADS_TOGETHER; h++) if (h < together) p[256 * h + ITEM] = visible ? dots[h] * v_d : dots[h];
    BARRIER();
    if (ITEM < n) {
        float lanes[16];
        UNROLL for (uint i = 0; i < 16; i++) lanes[i] = few[16 * ITEM + i];
        UNROLL for (uint i = 0; i < 8; i++) lanes[i] += lanes[i + 8];
        UNROLL for (uint i = 0; i < 4; i++) lanes[i] += lanes[i + 4];
        partial[ITEM * n_blocks * record + 1] = (lanes[0] + lanes[2]) + (lanes[1] + lanes[3]);
    }

    /* weight = e * v_d in whole numbers */
    reduce_bits(together, p, few);
    if (ITEM < together) {
        struct scale scale = whole_scale_of(largest_bits(few, ITEM), (float)GPU_WEIGHT_STEPS);
        d_of_weights[ITEM] = scale.d;
        per_d[ITEM] = scale.inverse;
    }
    BARRIER();
    UNROLL for (h = 0; h < HEADS_TOGETHER; h++) if (h < together)
    {
        struct scale scale = {d_of_weights[h], per_d[h]};
        ((LOCAL short *)weights)[256 * h + ITEM] = (short)round_with(scale, p[256 * h + ITEM]);
    }
    BARRIER();
    struct values values = {of_head + values_at, block_bytes, page_numbers};
    if (together == 1)
        write_values_alone(values, weights, d_of_weights[0], padded, value_sums, partial + 4);
    else
        write_values_together(values, n, weights, d_of_weights, padded, partial + 4, n_blocks * record);
}

#define ATTEND(name, TOGETHER, N_VALUE_SUMS)                                                                           \
    KERNEL(256, 1)                                                                                                     \
    void name(ATTEND_IN)                                                                                               \
    {                                                                                                                  \
        ATTEND_SCRATCH(TOGETHER, N_VALUE_SUMS)                                                                         \
        ATTEND_HEADS(TOGETHER);                                                                                        \
    }

/* Few groups read the same pages several times, and are done sooner; many, which keep a device busy, read them once. */
ATTEND(attend_alone, 1, 8 * 256)
ATTEND(attend, HEADS_TOGETHER, 1)

#define STORED_DIM_MAX 256 /* kernels.c: GPU_STORED_DIM_MAX */

/* Attention of the first row, whose heads are rotated and stored before, as rotate_store does it: each group does so with its query head, and,
 * where its block has the row's position, with the key and the value of its KV head. Groups of one KV head store the same bytes, and read what
 * they stored themselves. Keys are whole numbers. Teams: query, key, value. */
KERNEL(256, 1)
void attend_storing(IN(uint, rows), IN(uint, pages), IN(float, q), OUT(short, whole), OUT(float, worth), OUT(uchar, blocks),
                    ATTEND_NUMBERS, IN(float, k), IN(float, v), IN(float, q_norm), IN(float, k_norm), IN(float, cosine),
                    IN(float, sine), uint n_rot, uint interleaved, float epsilon)
{
    ATTEND_SCRATCH(1, 8 * 256)
    LOCAL float heads[3 * STORED_DIM_MAX], lanes[256];
    LOCAL uint largest[256];
    uint position = ROW_POSITION(AT(uint, rows), 0), start = (first_visible(position, window) / 256 + GROUP_X) * 256;
    if (start > position)
        return;

    uint team = ITEM / HEAD_ITEMS, item = ITEM % HEAD_ITEMS, kv_head = GROUP_Y / (n_heads / n_kv_heads);
    uint n = team == 0 || (team < 3 && position / 256 == start / 256) ? head_dim : 0;
    LOCAL float *head = heads + (team < 3 ? team : 0) * STORED_DIM_MAX;
    GLOBAL const float *from = team == 0   ? AT(float, q) + GROUP_Y * head_dim
                               : team == 1 ? AT(float, k) + kv_head * head_dim
                                           : AT(float, v) + kv_head * head_dim;
    load_head(item, head, from, n);
    if (HAS(q_norm) || HAS(k_norm)) {
        GLOBAL const float *weight = 0;
        if (team == 0 && HAS(q_norm))
            weight = AT(float, q_norm);
        if (team == 1 && HAS(k_norm))
            weight = AT(float, k_norm);
        normalise_head(item, head, n, weight, epsilon, lanes + 64 * team);
    }
    ulong rotation = (ulong)ROW_ROTATION(AT(uint, rows), 0) * (n_rot / 2);
    rotate_head(item, head, team < 2 && n ? n_rot / 2 : 0, AT(float, cosine) + rotation, AT(float, sine) + rotation, interleaved);
    struct scale scale = whole_scale_of(head_largest(item, head, n, largest + 64 * team),
                                        (float)(team == 0   ? GPU_QUERY_STEPS
                                                : team == 1 ? GPU_KEY_STEPS
                                                            : GPU_VALUE_STEPS));
    uint page = AT(uint, pages)[ROW_FIRST_PAGE(AT(uint, rows), 0) + position / 32];
    GLOBAL uchar *block = OUT_AT(uchar, blocks) + ((ulong)kv_head * n_pages + page) * kv_block_bytes(head_dim, 0);
    if (team == 0)
        store_query(item, head, head_dim, scale, OUT_AT(short, whole) + GROUP_Y * head_dim, OUT_AT(float, worth) + GROUP_Y);
    else if (team == 1 && n)
        store_key(item, head, head_dim, scale, block, position % 32);
    else if (team == 2 && n)
        store_value(item, head, head_dim, scale, block + k_bytes(head_dim, 0), position % 32);
    GLOBAL_BARRIER();
    ATTEND_HEADS(1);
}

/* Merges a row's partials, divides, and makes activation rows of it. Groups: blocks of 256 columns, rows from first_row on. An item is
 * a column: it merges the state of its head for itself. */
KERNEL(256, 1)
void merge(IN(uint, rows), IN(float, partials), OUT(float, attended), ACTS_OUT, uint first_row, uint n_heads,
           uint head_dim, uint window, uint n_blocks)
{
    ACTS_SCRATCH(scratch);
    uint row = first_row + GROUP_Y, column = 256 * GROUP_X + ITEM, n_columns = n_heads * head_dim;
    uint position = ROW_POSITION(AT(uint, rows), row), record = padded_dim(head_dim) + 4;
    uint n_seen = count_seen(position, window);
    float value = 0.0f;
    if (column < n_columns) {
        GLOBAL const float *partial =
            AT(float, partials) + ((ulong)GROUP_Y * n_heads + column / head_dim) * n_blocks * record;
        struct merging merging = begin_merging();
        for (uint b = 0; b < n_seen; b++, partial += record)
            if (merge_block(&merging, partial[0], partial[1]))
                value = merge_value(&merging, value, partial[4 + column % head_dim]);
        value = value * DIVIDE(1.0f, merging.l);
        if (HAS(attended))
            OUT_AT(float, attended)[(ulong)row * n_columns + column] = value;
    }
    WRITE_ACTS(value, row, GROUP_X, (n_columns + 255) / 256, scratch);
}
