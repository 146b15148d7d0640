/* heads.cl: heads of queries, keys and values on their way to attention: a head in LOCAL memory and a team of 64 items, of which a group may
 * have several. Where a function has a barrier, all items of the group call it, with a head of n = 0 if their team has none. */

#define HEAD_ITEMS 64

FUNCTION void load_head(uint item, LOCAL float *head, GLOBAL const float *x, uint n)
{
    for (uint i = item; i < n; i += HEAD_ITEMS)
        head[i] = x[i];
    BARRIER();
}

/* weight 0: the head stays as it is. */
FUNCTION void normalise_head(uint item, LOCAL float *head, uint n, GLOBAL const float *weight, float epsilon, LOCAL float *lanes)
{
    float lane = 0.0f;
    for (uint i = item; i < n; i += 64)
        lane = FMA(head[i], head[i], lane);
    lanes[item] = lane;
    float scale = scale_of_lanes(item, lanes, n, epsilon);
    for (uint i = item; weight && i < n; i += HEAD_ITEMS)
        head[i] = head[i] * scale * weight[i];
    BARRIER();
}

/* A pair (x, y) becomes fma(x, cosine, -(y * sine)), fma(x, sine, y * cosine). */
FUNCTION void rotate_head(uint item, LOCAL float *head, uint n_pairs, GLOBAL const float *cosine, GLOBAL const float *sine,
                          uint interleaved)
{
    for (uint i = item; i < n_pairs; i += HEAD_ITEMS) {
        uint first = interleaved ? 2 * i : i, second = interleaved ? 2 * i + 1 : n_pairs + i;
        float x = head[first], y = head[second];
        head[first] = FMA(x, cosine[i], -(y * sine[i]));
        head[second] = FMA(x, sine[i], y * cosine[i]);
    }
    BARRIER();
}

/* The bits of a head's largest magnitude. largest: of the team. */
FUNCTION uint head_largest(uint item, LOCAL const float *head, uint n, LOCAL uint *largest)
{
    uint mine = 0;
    for (uint i = item; i < n; i += HEAD_ITEMS) {
        uint bits = magnitude_bits(head[i]);
        mine = bits > mine ? bits : mine;
    }
    largest[item] = mine;
    BARRIER();
    return largest_of_64(largest);
}

FUNCTION uint kv_block_bytes(uint head_dim, uint k_f32)
{
    return k_bytes(head_dim, k_f32) + padded_dim(head_dim) * 32 * 2 + 32 * 4;
}

FUNCTION void store_query(uint item, LOCAL const float *head, uint head_dim, struct scale scale, GLOBAL short *whole, GLOBAL float *worth)
{
    for (uint i = item; i < head_dim; i += HEAD_ITEMS)
        whole[i] = (short)round_with(scale, head[i]);
    if (item == 0)
        *worth = scale.d;
}

FUNCTION void store_key_f32(uint item, LOCAL const float *head, uint head_dim, GLOBAL uchar *block, uint slot)
{
    for (uint i = item; i < head_dim; i += HEAD_ITEMS)
        ((GLOBAL float *)block)[i * 32 + slot] = head[i];
}

FUNCTION void store_key(uint item, LOCAL const float *head, uint head_dim, struct scale scale, GLOBAL uchar *block, uint slot)
{
    for (uint i = item; i < head_dim; i += HEAD_ITEMS)
        ((GLOBAL short *)block)[i / 2 * 64 + 2 * slot + i % 2] = (short)round_with(scale, head[i]);
    if (item == 0)
        ((GLOBAL float *)(block + head_dim * 64))[slot] = scale.d;
}

FUNCTION void store_value(uint item, LOCAL const float *head, uint head_dim, struct scale scale, GLOBAL uchar *values, uint slot)
{
    uint padded = padded_dim(head_dim);
    for (uint i = item; i < padded; i += HEAD_ITEMS)
        ((GLOBAL short *)values)[i / 16 * 512 + slot / 2 * 32 + i % 16 * 2 + slot % 2] =
            (short)(i < head_dim ? round_with(scale, head[i]) : 0);
    if (item == 0)
        ((GLOBAL float *)(values + padded * 64))[slot] = scale.d;
}
