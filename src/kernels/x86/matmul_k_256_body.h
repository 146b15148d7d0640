/* matmul_k_256_body.h: the outer loops of products of Q4_K and Q6_K with 256-bit vectors (see matmul_k_256.h). Included by
 * files of inner loops, after these; wants from them
 *     struct q4k_unpacked, struct q6k_unpacked       a block of a tile, ready for many rows of activations, and a `fetch`
 *     q4k_unpack, q6k_unpack                         which make it
 *     starts_of_row, q6k_starts                      what a row's block of activations starts dot products of Q6_K from
 *     q4k_group, q6k_group                           the inner loops: a block with m rows of activations */

/* One function for each number of rows, so that dot products are registers. */
typedef void q4k_function(struct q4k_unpacked *u, const uint8_t *act, size_t stride, __m256 (*sums)[2]);
typedef void q6k_function(struct q6k_unpacked *u, const starts_of_row *starts, const uint8_t *act,
                          size_t stride, __m256 (*sums)[2]);
#define GROUP_FUNCTIONS(m)                                                                                   \
    static void q4k_##m(struct q4k_unpacked *u, const uint8_t *act, size_t stride, __m256(*sums)[2])         \
    {                                                                                                        \
        q4k_group(u, act, stride, m, sums);                                                                  \
    }                                                                                                        \
    static void q6k_##m(struct q6k_unpacked *u, const starts_of_row *starts, const uint8_t *act,             \
                        size_t stride, __m256(*sums)[2])                                                     \
    {                                                                                                        \
        q6k_group(u, starts, act, stride, m, sums);                                                          \
    }
GROUP_FUNCTIONS(1)
GROUP_FUNCTIONS(2)
GROUP_FUNCTIONS(3)
GROUP_FUNCTIONS(4)
GROUP_FUNCTIONS(5)
GROUP_FUNCTIONS(6)
static q4k_function *const q4k[ROWS_OF_GROUP] = {q4k_1, q4k_2, q4k_3, q4k_4, q4k_5, q4k_6};
static q6k_function *const q6k[ROWS_OF_GROUP] = {q6k_1, q6k_2, q6k_3, q6k_4, q6k_5, q6k_6};

/* Some rows of activations with some tiles. */
struct pass {
    uint32_t tile, n_tiles;
    uint32_t row, n_rows;
    uint8_t n_groups, rows_of_group[GROUPS_OF_PASS];
};

typedef __m256 pass_sums[TILES_AT_ONCE][ROWS_OF_PASS][2];
typedef void pass_function(const struct product *p, const struct pass *pass, pass_sums sums);

/* What to fetch while block b of a tile is multiplied: the second block on of this tile, or at its end of
 * the tile that will be in its place. */
INLINE struct fetch fetch_of_block(const struct product *p, const struct pass *pass, const uint8_t *block,
                                   uint32_t b, uint32_t block_bytes, uint32_t steps_of_group)
{
    uint32_t n_steps = pass->n_groups * steps_of_group;
    block += 2 * block_bytes;
    if (b + 2 >= p->n_blocks)
        block += (TILES_AT_ONCE - 1) * p->w->tile_bytes + p->header_bytes;
    return (struct fetch){block, (block_bytes / 64 + n_steps - 1) / n_steps};
}

static void q4k_pass(const struct product *p, const struct pass *pass, pass_sums sums)
{
    struct q4k_unpacked u;
    for (uint32_t b = 0; b < p->n_blocks; b++) {
        const uint8_t *acts = p->acts + pass->row * p->act_stride + b * sizeof(struct act_q8_256);
        for (uint32_t t = 0; t < pass->n_tiles; t++) {
            const uint8_t *block = product_tile(p, pass->tile + t) + (size_t)b * Q4K_BLOCK_BYTES;
            q4k_unpack(block, &u);
            u.fetch = fetch_of_block(p, pass, block, b, Q4K_BLOCK_BYTES, 4);
            for (uint32_t group = 0, row = 0; group < pass->n_groups; group++) {
                uint32_t m = pass->rows_of_group[group];
                q4k[m - 1](&u, acts + row * p->act_stride, p->act_stride, sums[t] + row);
                row += m;
            }
        }
    }
}

static void q6k_pass(const struct product *p, const struct pass *pass, pass_sums sums)
{
    struct q6k_unpacked u;
    starts_of_row starts[ROWS_OF_PASS];
    for (uint32_t b = 0; b < p->n_blocks; b++) {
        const uint8_t *acts = p->acts + pass->row * p->act_stride + b * sizeof(struct act_q8_256);
        for (uint32_t i = 0; i < pass->n_rows; i++)
            q6k_starts((const struct act_q8_256 *)(acts + i * p->act_stride), starts[i]);
        for (uint32_t t = 0; t < pass->n_tiles; t++) {
            const uint8_t *tile = product_tile(p, pass->tile + t);
            const uint8_t *block = tile + p->header_bytes + (size_t)b * Q6K_BLOCK_BYTES;
            q6k_unpack(tile + 32 * (size_t)b, block, &u);
            u.fetch = fetch_of_block(p, pass, block, b, Q6K_BLOCK_BYTES, Q6K_SUBS);
            for (uint32_t group = 0, row = 0; group < pass->n_groups; group++) {
                uint32_t m = pass->rows_of_group[group];
                q6k[m - 1](&u, starts + row, acts + row * p->act_stride, p->act_stride, sums[t] + row);
                row += m;
            }
        }
    }
}

/* Groups of nearly equal size, as many as a pass takes. */
static void plan_pass(struct pass *pass, uint32_t row, uint32_t n_acts)
{
    uint32_t n_groups = (n_acts - row + ROWS_OF_GROUP - 1) / ROWS_OF_GROUP, n_left = n_acts - row;
    pass->row = row;
    pass->n_rows = 0;
    pass->n_groups = (uint8_t)(n_groups < GROUPS_OF_PASS ? n_groups : GROUPS_OF_PASS);
    for (uint32_t group = 0; group < pass->n_groups; group++, n_groups--) {
        uint32_t m = (n_left + n_groups - 1) / n_groups;
        pass->rows_of_group[group] = (uint8_t)m;
        pass->n_rows += m;
        n_left -= m;
    }
}

INLINE void matmul_passes(const struct product *p, uint32_t tile_begin, uint32_t tile_end, uint32_t n_acts,
                          pass_function *function)
{
    pass_sums sums;
    struct pass pass;
    for (uint32_t tile = tile_begin; tile < tile_end; tile += pass.n_tiles) {
        pass.tile = tile;
        pass.n_tiles = tile_end - tile < TILES_AT_ONCE ? tile_end - tile : TILES_AT_ONCE;
        for (uint32_t row = 0; row < n_acts; row += pass.n_rows) {
            plan_pass(&pass, row, n_acts);
            for (uint32_t t = 0; t < pass.n_tiles; t++)
                for (uint32_t i = 0; i < pass.n_rows; i++)
                    sums[t][i][0] = sums[t][i][1] = _mm256_setzero_ps();
            function(p, &pass, sums);
            for (uint32_t t = 0; t < pass.n_tiles; t++)
                for (uint32_t i = 0; i < pass.n_rows; i++)
                    store_sum(p, tile + t, row + i, v_pair(sums[t][i][0], sums[t][i][1]));
        }
    }
}

static void matmul_q4_k(const struct matmul_args *args, uint32_t tile_begin, uint32_t tile_end)
{
    const struct product p = product_of(args, ACT_BLOCK);
    matmul_passes(&p, tile_begin, tile_end, args->n_acts, q4k_pass);
}

static void matmul_q6_k(const struct matmul_args *args, uint32_t tile_begin, uint32_t tile_end)
{
    const struct product p = product_of(args, ACT_BLOCK);
    matmul_passes(&p, tile_begin, tile_end, args->n_acts, q6k_pass);
}

static void fill_matmul_k(struct kernels *kernels)
{
    kernels->matmul[TILE_Q4_K] = matmul_q4_k;
    kernels->matmul[TILE_Q6_K] = matmul_q6_k;
}
