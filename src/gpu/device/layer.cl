/* layer.cl: what a layer does beside its products and its attention; copies of pages; the best of logits. */

/* Groups: blocks of 256 columns, rows. Each group of a row computes the row's norm for itself. */
KERNEL(256, 1)
void prepare(IN(float, x), IN(uint, which), IN(float, norm_weight), ACTS_OUT, uint n_columns, float epsilon)
{
    ACTS_SCRATCH(scratch);
    LOCAL float lanes[64];
    uint row = HAS(which) ? AT(uint, which)[GROUP_Y] : GROUP_Y, column = 256 * GROUP_X + ITEM;
    GLOBAL const float *x = AT(float, x) + (ulong)row * n_columns;
    float scale = HAS(norm_weight) ? norm_scale(ITEM, x, n_columns, epsilon, lanes) : 1.0f;
    float value = column < n_columns ? x[column] : 0.0f;
    if (HAS(norm_weight) && column < n_columns)
        value = value * scale * AT(float, norm_weight)[column];
    WRITE_ACTS(value, GROUP_Y, GROUP_X, (n_columns + 255) / 256, scratch);
}

/* Groups: blocks of 256 columns, rows. */
KERNEL(256, 1)
void activate(IN(float, gate), IN(float, up), ACTS_OUT, uint n, uint gelu)
{
    ACTS_SCRATCH(scratch);
    uint column = 256 * GROUP_X + ITEM;
    ulong at = (ulong)GROUP_Y * n + column;
    float value = column < n ? activation_of(AT(float, gate)[at], AT(float, up)[at], gelu) : 0.0f;
    WRITE_ACTS(value, GROUP_Y, GROUP_X, (n + 255) / 256, scratch);
}

/* x += norm(added). Groups: blocks of 256 columns, rows. */
KERNEL(256, 1)
void add_normalised(OUT(float, x), IN(float, added), IN(float, norm_weight), uint n, float epsilon)
{
    LOCAL float lanes[64];
    uint column = 256 * GROUP_X + ITEM;
    GLOBAL const float *added = AT(float, added) + (ulong)GROUP_Y * n;
    float scale = norm_scale(ITEM, added, n, epsilon, lanes);
    if (column < n) {
        GLOBAL float *x = OUT_AT(float, x) + (ulong)GROUP_Y * n + column;
        *x = *x + added[column] * scale * AT(float, norm_weight)[column];
    }
}

/* Keys and values, and queries -------------------------------------------------------------------------------------------- */

#define ROTATE(head)                                                                                                   \
    rotate_head(ITEM, head, n_rot / 2, AT(float, cosine) + (ulong)ROW_ROTATION(rows, row) * (n_rot / 2),                     \
                AT(float, sine) + (ulong)ROW_ROTATION(rows, row) * (n_rot / 2), interleaved)

/* Groups: query heads, then the keys of KV heads, then their values; rows. */
KERNEL(64, 1)
void rotate_store(IN(uint, rows), IN(uint, pages), OUT(float, q), OUT(short, whole), OUT(float, worth), IN(float, k),
                  IN(float, v), IN(float, q_norm), IN(float, k_norm), IN(float, cosine), IN(float, sine),
                  OUT(uchar, blocks), uint n_heads, uint n_kv_heads, uint head_dim, uint n_rot, uint interleaved,
                  uint n_pages, uint k_f32, float epsilon)
{
    LOCAL float head[GPU_HEAD_DIM_MAX], lanes[HEAD_ITEMS];
    LOCAL uint largest[HEAD_ITEMS];
    GLOBAL const uint *rows = AT(uint, rows);
    uint row = GROUP_Y, position = ROW_POSITION(rows, row);
    if (GROUP_X < n_heads) {
        ulong head_at = (ulong)row * n_heads + GROUP_X, at = head_at * head_dim;
        load_head(ITEM, head, (GLOBAL const float *)OUT_AT(float, q) + at, head_dim);
        if (HAS(q_norm))
            normalise_head(ITEM, head, head_dim, AT(float, q_norm), epsilon, lanes);
        ROTATE(head);
        struct scale scale = whole_scale_of(head_largest(ITEM, head, head_dim, largest), (float)GPU_QUERY_STEPS);
        for (uint i = ITEM; i < head_dim; i += HEAD_ITEMS)
            OUT_AT(float, q)[at + i] = head[i];
        store_query(ITEM, head, head_dim, scale, OUT_AT(short, whole) + at, OUT_AT(float, worth) + head_at);
        return;
    }
    bool is_key = GROUP_X < n_heads + n_kv_heads;
    uint kv_head = (GROUP_X - n_heads) % n_kv_heads, slot = position % 32;
    ulong at = ((ulong)row * n_kv_heads + kv_head) * head_dim;
    uint page = AT(uint, pages)[ROW_FIRST_PAGE(rows, row) + position / 32];
    GLOBAL uchar *block = OUT_AT(uchar, blocks) + ((ulong)kv_head * n_pages + page) * kv_block_bytes(head_dim, k_f32);
    load_head(ITEM, head, (is_key ? AT(float, k) : AT(float, v)) + at, head_dim);
    if (!is_key) {
        struct scale scale = whole_scale_of(head_largest(ITEM, head, head_dim, largest), (float)GPU_VALUE_STEPS);
        store_value(ITEM, head, head_dim, scale, block + k_bytes(head_dim, k_f32), slot);
        return;
    }
    if (HAS(k_norm))
        normalise_head(ITEM, head, head_dim, AT(float, k_norm), epsilon, lanes);
    ROTATE(head);
    if (k_f32)
        store_key_f32(ITEM, head, head_dim, block, slot);
    else {
        struct scale scale = whole_scale_of(head_largest(ITEM, head, head_dim, largest), (float)GPU_KEY_STEPS);
        store_key(ITEM, head, head_dim, scale, block, slot);
    }
}

/* Every item takes the same 16 bytes of all pairs, one after the other. Groups: 4096 bytes of a block; KV heads. */
KERNEL(256, 1)
void copy_pages(OUT(uint4, blocks), IN(uint, pairs), uint n_pairs, uint n_pages, uint block_bytes)
{
    uint n = block_bytes / 16, at = 256 * GROUP_X + ITEM;
    GLOBAL uint4 *blocks = OUT_AT(uint4, blocks) + (ulong)GROUP_Y * n_pages * n + at;
    for (uint i = 0; at < n && i < n_pairs; i++)
        blocks[(ulong)AT(uint, pairs)[2 * i + 1] * n] = blocks[(ulong)AT(uint, pairs)[2 * i] * n];
}

/* The best logit: the largest, of equals that of the lowest id ---------------------------------------------------------------- */

/* Of the items of a group. The first item knows at the end. */
FUNCTION void reduce_best(LOCAL float *logits, LOCAL uint *ids, LOCAL uint *nans)
{
    BARRIER();
    for (uint half_items = 128; half_items > 0; half_items /= 2) {
        if (ITEM < half_items) {
            uint other = ITEM + half_items;
            if (logits[other] > logits[ITEM] || (logits[other] == logits[ITEM] && ids[other] < ids[ITEM])) {
                logits[ITEM] = logits[other];
                ids[ITEM] = ids[other];
            }
            nans[ITEM] |= nans[other];
        }
        BARRIER();
    }
}

/* Groups: chunks of 2048 of the first n logits, rows of n_columns. found: uint4 [rows, chunks]: the logit's bits, its id (all bits set: none), is there a NaN. */
KERNEL(256, 1)
void find_best(IN(float, logits), OUT(uint4, found), uint n_columns, uint n, uint n_chunks)
{
    LOCAL float best_logits[256];
    LOCAL uint ids[256], nans[256];
    float best = NEGATIVE_INFINITY;
    uint id = 0xffffffff, has_nan = 0;
    for (uint j = 0; j < 8; j++) {
        uint i = 2048 * GROUP_X + 256 * j + ITEM;
        float logit = i < n ? AT(float, logits)[(ulong)GROUP_Y * n_columns + i] : NEGATIVE_INFINITY;
        has_nan |= logit != logit;
        if (i < n && (logit > best || (logit == best && i < id))) {
            best = logit;
            id = i;
        }
    }
    best_logits[ITEM] = best;
    ids[ITEM] = id;
    nans[ITEM] = has_nan;
    reduce_best(best_logits, ids, nans);
    if (ITEM == 0) {
        uint4 result;
        result.x = as_uint(best_logits[0]);
        result.y = ids[0];
        result.z = nans[0];
        result.w = 0;
        OUT_AT(uint4, found)[(ulong)GROUP_Y * n_chunks + GROUP_X] = result;
    }
}

/* Groups: 1, rows. best: kernels.h, struct gpu_best. */
KERNEL(256, 1)
void choose_best(IN(uint4, found), OUT(uint4, best), uint n_chunks)
{
    LOCAL float best_logits[256];
    LOCAL uint ids[256], nans[256];
    float logit = NEGATIVE_INFINITY;
    uint id = 0xffffffff, has_nan = 0;
    for (uint i = ITEM; i < n_chunks; i += 256) {
        uint4 one = AT(uint4, found)[(ulong)GROUP_Y * n_chunks + i];
        if (as_float(one.x) > logit || (as_float(one.x) == logit && one.y < id)) {
            logit = as_float(one.x);
            id = one.y;
        }
        has_nan |= one.z;
    }
    best_logits[ITEM] = logit;
    ids[ITEM] = id;
    nans[ITEM] = has_nan;
    reduce_best(best_logits, ids, nans);
    if (ITEM == 0) {
        uint4 result;
        result.x = ids[0] == 0xffffffff ? 0 : ids[0];
        result.y = nans[0];
        result.z = as_uint(best_logits[0]);
        result.w = 0;
        OUT_AT(uint4, best)[GROUP_Y] = result;
    }
}
