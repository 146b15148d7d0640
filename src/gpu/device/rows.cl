/* rows.cl: what inputs of products are made of, for whichever function makes them: largest magnitudes, norms, activations, partial results
 * of attention. Formulas and their order are those of kernels/ops.h. */

#define LARGEST_OF(name, N)                                                                                            \
    FUNCTION uint name(LOCAL const uint *bits)                                                                         \
    {                                                                                                                  \
        uint largest = 0;                                                                                              \
        UNROLL for (uint i = 0; i < N; i++) largest = bits[i] > largest ? bits[i] : largest;                           \
        return largest;                                                                                                \
    }
LARGEST_OF(largest_of_16, 16)
LARGEST_OF(largest_of_32, 32)
LARGEST_OF(largest_of_64, 64)

/* 1 / sqrt(mean + epsilon) of n squares whose 64 partial sums the items of a group have just put into lanes: halves onto halves. */
FUNCTION float scale_of_lanes(uint item, LOCAL float *lanes, uint n, float epsilon)
{
    BARRIER();
    for (uint half_lanes = 32; half_lanes > 0; half_lanes /= 2) {
        if (item < half_lanes)
            lanes[item] += lanes[item + half_lanes];
        BARRIER();
    }
    return DIVIDE(1.0f, SQRT(DIVIDE(lanes[0], (float)n) + epsilon));
}

/* 1 / sqrt(mean(x^2) + epsilon) of n values by the items of a group, 64 or more: lane i % 64 = fma(x[i], x[i], lane), then halves onto
 * halves. Eight values are loaded before the first is used. */
FUNCTION float norm_scale(uint item, GLOBAL const float *x, uint n, float epsilon, LOCAL float *lanes)
{
    if (item < 64) {
        float lane = 0.0f, values[8];
        uint i = item, j;
        for (; i + 7 * 64 < n; i += 8 * 64) {
            UNROLL for (j = 0; j < 8; j++) values[j] = x[i + 64 * j];
            UNROLL for (j = 0; j < 8; j++) lane = FMA(values[j], values[j], lane);
        }
        for (; i < n; i += 64)
            lane = FMA(x[i], x[i], lane);
        lanes[item] = lane;
    }
    return scale_of_lanes(item, lanes, n, epsilon);
}

/* gate / (1 + exp(-gate)) * up; GELU: gate / (1 + exp(-(gate * t))) * up, t = fma(gate * gate, a, b). */
FUNCTION float activation_of(float gate, float up, uint gelu)
{
    float power = gate;
    if (gelu)
        power = gate * FMA(gate * gate, 0.0713548163f, 1.59576912f);
    return DIVIDE(gate, 1.0f + exp_f32(-power)) * up;
}

/* A partial result of attention, of a row, a query head and a block of 256 positions: f32 m, l, two unused, then head_dim (up to 16s)
 * values; of [rows of the launch, n_heads, n_blocks], a row's own blocks from the first that it sees. */
FUNCTION uint padded_dim(uint head_dim)
{
    return (head_dim + 15) / 16 * 16;
}

FUNCTION uint first_visible(uint position, uint window)
{
    return window && position >= window ? position - window + 1 : 0;
}

/* How many partial results a row has for each head. */
FUNCTION uint count_seen(uint position, uint window)
{
    return position / 256 - first_visible(position, window) / 256 + 1;
}

/* They are merged in ascending order: a value becomes merge_value of itself and of the block's. */
struct merging {
    float m, l, keep, take;
    bool is_empty, is_first;
};

FUNCTION struct merging begin_merging(void)
{
    struct merging merging = {NEGATIVE_INFINITY, 0.0f, 0.0f, 0.0f, true, false};
    return merging;
}

/* The next block, which has m and l. False: it has nothing, and values stay as they are. */
FUNCTION bool merge_block(struct merging *merging, float m, float l)
{
    if (m == NEGATIVE_INFINITY && l == 0.0f)
        return false;
    merging->is_first = merging->is_empty;
    if (merging->is_first) {
        merging->m = m;
        merging->l = l;
    } else {
        float larger = merging->m > m ? merging->m : m;
        merging->keep = exp_f32(merging->m - larger);
        merging->take = exp_f32(m - larger);
        merging->m = larger;
        merging->l = FMA(merging->l, merging->keep, l * merging->take);
    }
    merging->is_empty = merging->m == NEGATIVE_INFINITY && merging->l == 0.0f;
    return true;
}

FUNCTION float merge_value(const struct merging *merging, float value, float later)
{
    return merging->is_first ? later : FMA(value, merging->keep, later * merging->take);
}
