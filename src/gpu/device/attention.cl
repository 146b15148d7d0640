/* attention.cl: attention over pages. A block of 256 positions gives a partial result for a row and a query head; partials are merged
 * in ascending order, as the CPU merges them, and become activation rows.
 *
 * A partial: f32 m, l, two unused, then head_dim (up to 16s) values; of [rows of the launch, n_heads, n_blocks], a row's own blocks
 * from the first that it sees. */

#define HEADS_TOGETHER 8 /* query heads that a group attends for one KV head */

FUNCTION uint padded_dim(uint head_dim)
{
    return (head_dim + 15) / 16 * 16;
}

FUNCTION uint first_visible(uint position, uint window)
{
    return window && position >= window ? position - window + 1 : 0;
}

/* c + two products of 16-bit numbers. */
FUNCTION int dot2(uint a, uint b, int c)
{
    return c + (int)(short)a * (int)(short)b + ((int)a >> 16) * ((int)b >> 16);
}

/* Of 256 values for each of HEADS_TOGETHER heads the largest of each 16; NaN is none. */
FUNCTION void reduce_values(LOCAL const float *values, LOCAL float *few)
{
    BARRIER();
    if (ITEM < 16 * HEADS_TOGETHER) {
        float largest = NEGATIVE_INFINITY;
        for (uint i = 16 * ITEM; i < 16 * ITEM + 16; i++)
            largest = values[i] > largest ? values[i] : largest;
        few[ITEM] = largest;
    }
    BARRIER();
}

FUNCTION float largest_value(LOCAL const float *few, uint head)
{
    float largest = NEGATIVE_INFINITY;
    for (uint i = 16 * head; i < 16 * head + 16; i++)
        largest = few[i] > largest ? few[i] : largest;
    return largest;
}

/* Likewise of the bits of magnitudes, among which NaN is the largest. */
FUNCTION void reduce_bits(LOCAL const float *values, LOCAL float *few)
{
    BARRIER();
    if (ITEM < 16 * HEADS_TOGETHER) {
        uint largest = 0;
        for (uint i = 16 * ITEM; i < 16 * ITEM + 16; i++)
            largest = magnitude_bits(values[i]) > largest ? magnitude_bits(values[i]) : largest;
        few[ITEM] = as_float(largest);
    }
    BARRIER();
}

FUNCTION uint largest_bits(LOCAL const float *few, uint head)
{
    uint largest = 0;
    for (uint i = 16 * head; i < 16 * head + 16; i++)
        largest = as_uint(few[i]) > largest ? as_uint(few[i]) : largest;
    return largest;
}

/* q * k at a position for n heads: dot + sum for each 128 dimensions, from 0. k: the position's first word of two dimensions; q: n
 * times n_words of them. */
FUNCTION void score_whole(GLOBAL const uint *q, GLOBAL const uint *k, uint n, uint n_words, float *dots)
{
    int sums[HEADS_TOGETHER];
    uint n_in_fours = n_words % 4 ? 0 : n_words, h;
    UNROLL for (h = 0; h < HEADS_TOGETHER; h++) dots[h] = 0.0f;
    for (uint begin = 0; begin < n_words; begin += GPU_SCORE_CHUNK / 2) {
        uint end = begin + GPU_SCORE_CHUNK / 2 < n_words ? begin + GPU_SCORE_CHUNK / 2 : n_words, w = begin;
        UNROLL for (h = 0; h < HEADS_TOGETHER; h++) sums[h] = 0;
        for (; w + 4 <= end && w < n_in_fours; w += 4) {
            uint k0 = k[32 * w], k1 = k[32 * w + 32], k2 = k[32 * w + 64], k3 = k[32 * w + 96];
            UNROLL for (h = 0; h < HEADS_TOGETHER; h++) if (h < n)
            {
                uint4 four_words = *(GLOBAL const uint4 *)(q + h * n_words + w);
                sums[h] = dot2(four_words.x, k0, dot2(four_words.y, k1, sums[h]));
                sums[h] = dot2(four_words.z, k2, dot2(four_words.w, k3, sums[h]));
            }
        }
        for (; w < end; w++)
            UNROLL for (h = 0; h < HEADS_TOGETHER; h++) if (h < n) sums[h] =
                dot2(q[h * n_words + w], k[32 * w], sums[h]);
        UNROLL for (h = 0; h < HEADS_TOGETHER; h++) dots[h] += (float)sums[h];
    }
}

/* The same with keys that are floats. */
FUNCTION void score_f32(GLOBAL const float *q, GLOBAL const float *k, uint n, uint head_dim, float *dots)
{
    uint h;
    UNROLL for (h = 0; h < HEADS_TOGETHER; h++) dots[h] = 0.0f;
    for (uint i = 0; i < head_dim; i++)
        UNROLL for (h = 0; h < HEADS_TOGETHER; h++) if (h < n) dots[h] = FMA(q[h * head_dim + i], k[32 * i], dots[h]);
}

/* weights * V at dimension d: a whole number for each page, added in ascending order. pages: 8 numbers; weights: words of two
 * positions. */
FUNCTION float sum_values(GLOBAL const uchar *blocks, ulong block_bytes, uint values_at, LOCAL const uint *pages,
                          LOCAL const uint *weights, uint d)
{
    float value = 0.0f;
    for (uint page = 0; page < 8; page++) {
        int sum = 0;
        if (pages[page] == GPU_NO_PAGE)
            continue;
        GLOBAL const uint *v = (GLOBAL const uint *)(blocks + pages[page] * block_bytes + values_at) + d / 16 * 256 + d % 16;
        UNROLL for (uint s = 0; s < 16; s++) sum = dot2(weights[16 * page + s], v[16 * s], sum);
        value += (float)sum;
    }
    return value;
}

/* Groups: blocks, from the first that a row sees; KV heads, as often as their query heads make HEADS_TOGETHER; rows from first_row
 * on. An item is a position of the block, and then some of the values. */
KERNEL(256, 1)
void attend(IN(uint, rows), IN(uint, pages), IN(float, q), IN(uint, whole), IN(float, worth), IN(uchar, blocks),
            OUT(float, partials), uint first_row, uint n_heads, uint n_kv_heads, uint head_dim, uint n_pages, uint k_f32,
            uint window, uint n_blocks, float score_scale)
{
    LOCAL float p[HEADS_TOGETHER * 256], few[HEADS_TOGETHER * 16];
    LOCAL uint weights[HEADS_TOGETHER * 128], page_numbers[8];
    uint row = first_row + GROUP_Z, position = ROW_POSITION(AT(uint, rows), row), padded = padded_dim(head_dim);
    uint first = first_visible(position, window), start = (first / 256 + GROUP_X) * 256;
    if (start > position)
        return;

    /* Which heads, which positions, where their keys and values are. */
    uint n_sharing = n_heads / n_kv_heads, n_batches = (n_sharing + HEADS_TOGETHER - 1) / HEADS_TOGETHER;
    uint kv_head = GROUP_Y / n_batches, batch = GROUP_Y % n_batches * HEADS_TOGETHER;
    uint first_head = kv_head * n_sharing + batch, n = n_sharing - batch < HEADS_TOGETHER ? n_sharing - batch : HEADS_TOGETHER;
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

    /* score = dot * ((q_d * scale) * k_d), or dot * scale */
    float dots[HEADS_TOGETHER];
    ulong q_at = ((ulong)row * n_heads + first_head) * head_dim;
    if (visible && k_f32)
        score_f32(AT(float, q) + q_at, (GLOBAL const float *)block + slot, n, head_dim, dots);
    else if (visible)
        score_whole(AT(uint, whole) + q_at / 2, (GLOBAL const uint *)block + slot, n, head_dim / 2, dots);
    float k_d = visible && !k_f32 ? ((GLOBAL const float *)(block + head_dim * 64))[slot] : 1.0f;
    UNROLL for (h = 0; h < HEADS_TOGETHER; h++)
    {
        float score = NEGATIVE_INFINITY;
        if (visible && h < n)
            score = dots[h] * (k_f32 ? score_scale : AT(float, worth)[row * n_heads + first_head + h] * score_scale * k_d);
        p[256 * h + ITEM] = score;
    }
    reduce_values(p, few);

    /* m; e = exp(score - m); lane position % 16 += e */
    ulong record = padded + 4, at = (((ulong)GROUP_Z * n_heads + first_head) * n_blocks + GROUP_X) * record;
    GLOBAL float *partial = OUT_AT(float, partials) + at;
    if (ITEM < n)
        partial[ITEM * n_blocks * record] = largest_value(few, ITEM);
    UNROLL for (h = 0; h < HEADS_TOGETHER; h++)
    {
        float e = visible && h < n ? exp_f32(p[256 * h + ITEM] - largest_value(few, h)) : 0.0f;
        p[256 * h + ITEM] = e;
    }
    BARRIER();
    float lane = 0.0f;
    if (ITEM < 16 * HEADS_TOGETHER)
        for (uint i = ITEM % 16; i < 256; i += 16)
            lane += p[ITEM / 16 * 256 + i];
    BARRIER();
    if (ITEM < 16 * HEADS_TOGETHER)
        few[ITEM] = lane;
    float v_d = visible ? ((GLOBAL const float *)(block + scales_at))[slot] : 0.0f;
    UNROLL for (h = 0; h < HEADS_TOGETHER; h++) if (visible) p[256 * h + ITEM] *= v_d;
    BARRIER();
    if (ITEM < n) {
        for (uint half_lanes = 8; half_lanes > 0; half_lanes /= 2)
            for (uint i = 0; i < half_lanes; i++)
                few[16 * ITEM + i] += few[16 * ITEM + i + half_lanes];
        partial[ITEM * n_blocks * record + 1] = few[16 * ITEM];
    }

    /* weight = e * v_d in whole numbers */
    reduce_bits(p, few);
    UNROLL for (h = 0; h < HEADS_TOGETHER; h++)
    {
        struct scale scale = whole_scale_of(largest_bits(few, h), (float)GPU_WEIGHT_STEPS);
        ((LOCAL short *)weights)[256 * h + ITEM] = (short)round_with(scale, p[256 * h + ITEM]);
    }
    BARRIER();
    for (uint i = ITEM; i < n * padded; i += 256) {
        uint head = i / padded, d = i % padded;
        float value = sum_values(of_head, block_bytes, values_at, page_numbers, weights + 128 * head, d);
        partial[head * n_blocks * record + 4 + d] =
            value * whole_scale_of(largest_bits(few, head), (float)GPU_WEIGHT_STEPS).d;
    }
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
    uint n_seen = position / 256 - first_visible(position, window) / 256 + 1;
    float value = 0.0f;
    if (column < n_columns) {
        GLOBAL const float *partial =
            AT(float, partials) + ((ulong)GROUP_Y * n_heads + column / head_dim) * n_blocks * record;
        uint d = 4 + column % head_dim, empty = 1;
        float m = NEGATIVE_INFINITY, l = 0.0f, acc = 0.0f;
        for (uint b = 0; b < n_seen; b++, partial += record) {
            float later_m = partial[0], later_l = partial[1], later = partial[d];
            if (later_m == NEGATIVE_INFINITY && later_l == 0.0f)
                continue;
            if (empty) {
                m = later_m;
                l = later_l;
                acc = later;
            } else {
                float larger = m > later_m ? m : later_m, keep = exp_f32(m - larger), take = exp_f32(later_m - larger);
                m = larger;
                l = FMA(l, keep, later_l * take);
                acc = FMA(acc, keep, later * take);
            }
            empty = m == NEGATIVE_INFINITY && l == 0.0f;
        }
        value = acc * DIVIDE(1.0f, l);
        if (HAS(attended))
            OUT_AT(float, attended)[(ulong)row * n_columns + column] = value;
    }
    WRITE_ACTS(value, row, GROUP_X, (n_columns + 255) / 256, scratch);
}
