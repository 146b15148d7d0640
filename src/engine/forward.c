/* forward.c: the transformer, one step at a time (see forward.h for who calls it and what it owns).
 *
 * All members of the team run step_work together: the same loop over the layers, divided into phases by
 * barriers. In each phase the members share rows, tiles of weights, or attention tasks; whoever computes an
 * item, it comes out the same.
 *
 * Shapes, with R rows in the step: residual x [R, n_hidden]; q [R, n_heads * head_dim]; k, v [R, n_kv_heads *
 * head_dim]; gate, up [R, n_ffn]; all f32. Activation rows (ops.h) are kept in each form that the phase's
 * matrices want. */
#include "engine/forward.h"

#include "backend/cpu_pages.h"
#include "base/region.h"
#include "kernels/act.h"
#include "kernels/pack.h"

#include <math.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

enum {
    TILE_GRAIN = 4,     /* tiles of a product handed out at a time at the end of a phase */
    ATTENTION_ROWS = 8, /* rows of one sequence that a task attends together */
    ALONE_ROWS =
        4, /* up to so many rows, every member prepares all of them itself: sooner done than a barrier */
    SCRATCH_ALIGN = 64,
};

/* Activation rows in each kind that the model's matrices want, NULL for the others. */
struct act_rows {
    void *of[ACT_KINDS];
};

/* A group of consecutive rows of one sequence: with a KV head, the unit of work of attention. */
struct row_group {
    uint32_t begin, n;
};

/* What one member alone uses. */
struct member_scratch {
    float *norm;          /* [n_hidden]: a normalised row, before it is quantised */
    struct act_rows acts; /* ALONE_ROWS rows, as wide */
    float *q;             /* [ATTENTION_ROWS * heads per KV head, head_dim] */
    float *acc;           /* the same rows, head_dim rounded up to 16 */
    struct attn_state *states;
    uint32_t *n_visible;
};

struct forward {
    const struct weights *weights;
    const struct kernels *kernels;
    struct team *team;
    struct kvcache *cache;
    struct cpu_pages pages;
    uint32_t n_rows_max;
    uint32_t acc_stride; /* head_dim rounded up to 16 */

    float *x;                    /* the residual stream */
    float *q, *k, *v, *attended; /* attended has q's shape */
    float *gate, *up;            /* gate becomes silu(gate) * up */
    float *hidden;               /* [R, n_hidden]: normalised final states of the rows that want logits */
    float *cosine, *sine;        /* [R, n_rot / 2] */
    double *frequencies;         /* [n_rot / 2]: radians a position */
    struct act_rows activated;   /* R rows of n_ffn values: what `down` multiplies */
    struct act_rows acts;        /* R rows of n_hidden or n_heads * head_dim values */
    atomic_uint *n_activated; /* [blocks of a row of n_ffn values]: tiles of the block that are multiplied */
    struct row_group *groups;
    struct member_scratch *members; /* [team] */
    uint8_t *region;
    size_t region_bytes;

    /* Of the step that runs; written by member 0 before the team starts. */
    const struct forward_row *rows;
    uint32_t n_rows, n_groups, n_wanted;
    bool groups_alone; /* each sequence has one group only */
    uint32_t *wanted;  /* [R]: which rows want logits */
    uint32_t logits_first, logits_n;
    float *logits;
};

/* Products ------------------------------------------------------------------------------------------------ */

/* One matrix of a phase and where its product goes. */
struct product {
    const struct packed_matrix *matrix;
    float *out; /* [R, n_rows of the matrix] */
    const float *bias;
};

/* Rows of floats that are to become activation rows of some products. */
struct row_source {
    const float *x; /* [R, n] */
    uint32_t n;
    const float *norm_weight; /* normalise them first; or NULL */
    const struct product *products;
    size_t n_products;
};

/* Quantises n values into columns from `begin` on of a row of n_columns, in each kind that the products want. */
static void quantize_values(const struct forward *forward, const float *x, uint32_t n,
                            const struct act_rows *acts, uint32_t n_columns, uint32_t row, uint32_t begin,
                            const struct product *products, size_t n_products)
{
    bool done[ACT_KINDS] = {false};
    for (size_t i = 0; i < n_products; i++) {
        enum act_kind kind = act_kind_of(products[i].matrix->kind);
        if (!done[kind])
            act_quantize(forward->kernels, kind, acts->of[kind], n_columns, row, begin, x, n);
        done[kind] = true;
    }
}

static void prepare_row(const struct forward *forward, unsigned member, const struct row_source *source,
                        uint32_t row, const struct act_rows *acts)
{
    const float *x = source->x + (size_t)row * source->n;
    if (source->norm_weight) {
        float *norm = forward->members[member].norm;
        forward->kernels->rms_norm(x, source->norm_weight, source->n, forward->weights->config.norm_epsilon,
                                   norm);
        x = norm;
    }
    quantize_values(forward, x, source->n, acts, source->n, row, 0, source->products, source->n_products);
}

/* Prepares the rows for their products and returns where they are: each member all of them for itself when they are
 * few, else all members together with a barrier. */
static const struct act_rows *prepare_rows(const struct forward *forward, unsigned member,
                                           const struct row_source *source, uint32_t n_rows)
{
    if (n_rows <= ALONE_ROWS) {
        const struct act_rows *acts = &forward->members[member].acts;
        for (uint32_t row = 0; row < n_rows; row++)
            prepare_row(forward, member, source, row, acts);
        return acts;
    }
    struct team_loop loop = {.n = n_rows, .grain = 1};
    while (team_next(forward->team, member, &loop))
        for (uint32_t row = loop.begin; row < loop.end; row++)
            prepare_row(forward, member, source, row, &forward->acts);
    team_barrier(forward->team);
    return &forward->acts;
}

/* Tiles [begin, end) of one product. */
static void multiply_tiles(const struct forward *forward, const struct product *product, uint32_t begin,
                           uint32_t end, const struct act_rows *acts, uint32_t n_rows, bool add)
{
    const struct packed_matrix *matrix = product->matrix;
    struct matmul_args args = act_product(matrix, acts->of[act_kind_of(matrix->kind)], n_rows, product->out);
    args.bias = product->bias;
    args.add = add;
    forward->kernels->matmul[matrix->kind](&args, begin, end);
}

/* Computes the products of a phase: the tiles of all its matrices are one loop that the members share. */
static void multiply(const struct forward *forward, unsigned member, const struct product *products,
                     size_t n_products, const struct act_rows *acts, uint32_t n_rows, bool add)
{
    struct team_loop loop = {.grain = TILE_GRAIN};
    for (size_t i = 0; i < n_products; i++)
        loop.n += products[i].matrix->n_tiles;
    while (team_next(forward->team, member, &loop)) {
        uint32_t first = 0; /* tile of this matrix in the loop's count */
        for (size_t i = 0; i < n_products; i++) {
            uint32_t n_tiles = products[i].matrix->n_tiles;
            uint32_t begin = loop.begin > first ? loop.begin - first : 0;
            uint32_t end = loop.end > first ? loop.end - first : 0;
            if (end > n_tiles)
                end = n_tiles;
            if (begin < end)
                multiply_tiles(forward, &products[i], begin, end, acts, n_rows, add);
            first += n_tiles;
        }
    }
    team_barrier(forward->team);
}

/* Phases -------------------------------------------------------------------------------------------------- */

/* Embeds the tokens and computes the rotations of their positions. */
static void embed(const struct forward *forward, unsigned member)
{
    const struct weights *weights = forward->weights;
    uint32_t n_pairs = weights->config.n_rot / 2;
    struct team_loop loop = {.n = forward->n_rows, .grain = 1};
    while (team_next(forward->team, member, &loop))
        for (uint32_t row = loop.begin; row < loop.end; row++) {
            pack_row_f32(&weights->embedding, (uint32_t)forward->rows[row].token,
                         forward->x + (size_t)row * weights->config.n_hidden);
            for (uint32_t i = 0; i < n_pairs; i++) {
                double angle = forward->rows[row].position * forward->frequencies[i];
                forward->cosine[(size_t)row * n_pairs + i] = (float)cos(angle);
                forward->sine[(size_t)row * n_pairs + i] = (float)sin(angle);
            }
        }
    team_barrier(forward->team);
}

/* The KV block of the sequence's page at index. */
static void *block_of(const struct forward *forward, int sequence, uint32_t index, uint32_t layer,
                      uint32_t kv_head)
{
    uint32_t n_pages;
    const uint32_t *pages = kvcache_pages(forward->cache, sequence, &n_pages);
    return cpu_pages_block(&forward->pages, pages[index], layer, kv_head);
}

/* Rotates a row's query heads that share a KV head, and its key; stores key and value in the cache. */
static void store_row(const struct forward *forward, uint32_t layer, uint32_t row, uint32_t kv_head)
{
    const struct model_config *config = &forward->weights->config;
    const struct kernels *kernels = forward->kernels;
    const struct forward_row *place = &forward->rows[row];
    uint32_t head_dim = config->head_dim, n_pairs = config->n_rot / 2;
    uint32_t n_sharing = config->n_heads / config->n_kv_heads;
    const float *cosine = forward->cosine + (size_t)row * n_pairs,
                *sine = forward->sine + (size_t)row * n_pairs;
    float *q = forward->q + ((size_t)row * config->n_heads + (size_t)kv_head * n_sharing) * head_dim;
    size_t kv_at = ((size_t)row * config->n_kv_heads + kv_head) * head_dim;

    bool interleaved = config->architecture->traits & TRAIT_INTERLEAVED_ROPE;
    kernels->rope(q, n_sharing, head_dim, config->n_rot, cosine, sine, interleaved);
    kernels->rope(forward->k + kv_at, 1, head_dim, config->n_rot, cosine, sine, interleaved);
    void *block = block_of(forward, place->sequence, place->position / KV_PAGE, layer, kv_head);
    kernels->kv_store(&forward->weights->kv_shapes[layer], block, place->position % KV_PAGE,
                      forward->k + kv_at, forward->v + kv_at);
}

/* All rows of the step, before attention: needed when rows of one sequence are attended in several tasks, which see
 * each other's keys. */
static void store_rows(const struct forward *forward, unsigned member, uint32_t layer)
{
    uint32_t n_kv_heads = forward->weights->config.n_kv_heads;
    struct team_loop loop = {.n = forward->n_rows, .grain = 1};
    while (team_next(forward->team, member, &loop))
        for (uint32_t row = loop.begin; row < loop.end; row++)
            for (uint32_t head = 0; head < n_kv_heads; head++)
                store_row(forward, layer, row, head);
    team_barrier(forward->team);
}

/* The KV blocks of the ATTN_BLOCK positions from `start` on, NULL past the last position or where a window
 * dropped them. Returns whether there are any. */
static bool block_pages(const struct forward *forward, int sequence, uint32_t layer, uint32_t kv_head,
                        uint32_t start, uint32_t last_position, const void *pages[ATTN_BLOCK_PAGES])
{
    bool any = false;
    for (uint32_t i = 0; i < ATTN_BLOCK_PAGES; i++) {
        uint32_t page = start / KV_PAGE + i;
        pages[i] = page <= last_position / KV_PAGE ? block_of(forward, sequence, page, layer, kv_head) : NULL;
        any = any || pages[i];
    }
    return any;
}

/* One task of attention: the rows of a group, for the query heads that share one KV head, over all blocks of
 * positions in ascending order. */
static void attend_group(const struct forward *forward, unsigned member, uint32_t layer,
                         struct row_group group, uint32_t kv_head)
{
    const struct model_config *config = &forward->weights->config;
    const struct member_scratch *scratch = &forward->members[member];
    uint32_t head_dim = config->head_dim, n_sharing = config->n_heads / config->n_kv_heads;
    uint32_t n_q = group.n * n_sharing, q_width = config->n_heads * head_dim;
    size_t first_head = (size_t)kv_head * n_sharing * head_dim;

    for (uint32_t i = 0; i < group.n; i++)
        memcpy(scratch->q + (size_t)i * n_sharing * head_dim,
               forward->q + (size_t)(group.begin + i) * q_width + first_head,
               n_sharing * head_dim * sizeof(float));
    for (uint32_t i = 0; i < n_q; i++)
        scratch->states[i] = (struct attn_state){.m = -INFINITY, .l = 0};
    memset(scratch->acc, 0, (size_t)n_q * forward->acc_stride * sizeof(float));

    const struct forward_row *rows = forward->rows + group.begin;
    uint32_t last_position = rows[group.n - 1].position;
    const void *pages[2][ATTN_BLOCK_PAGES]; /* of this block and of the next one */
    bool any[2];
    any[0] = block_pages(forward, rows->sequence, layer, kv_head, 0, last_position, pages[0]);
    for (uint32_t start = 0, now = 0; start <= last_position; start += ATTN_BLOCK, now = !now) {
        any[!now] = block_pages(forward, rows->sequence, layer, kv_head, start + ATTN_BLOCK, last_position,
                                pages[!now]);
        if (!any[now])
            continue; /* a window dropped the whole block */
        for (uint32_t i = 0; i < n_q; i++) {
            uint32_t position = rows[i / n_sharing].position;
            uint32_t n_visible = position < start ? 0 : position - start + 1;
            scratch->n_visible[i] = n_visible < ATTN_BLOCK ? n_visible : ATTN_BLOCK;
        }
        forward->kernels->attention(&forward->weights->kv_shapes[layer], pages[now], pages[!now], scratch->q,
                                    head_dim, scratch->n_visible, n_q, 1.0f / sqrtf((float)head_dim),
                                    scratch->states, scratch->acc, forward->acc_stride);
    }
    for (uint32_t i = 0; i < n_q; i++) {
        float *out = forward->attended + (size_t)(group.begin + i / n_sharing) * q_width + first_head +
                     (size_t)(i % n_sharing) * head_dim;
        const float *acc = scratch->acc + (size_t)i * forward->acc_stride;
        float scale = 1.0f / scratch->states[i].l;
        for (uint32_t j = 0; j < head_dim; j++)
            out[j] = acc[j] * scale;
    }
}

static void attend(const struct forward *forward, unsigned member, uint32_t layer)
{
    uint32_t n_kv_heads = forward->weights->config.n_kv_heads;
    if (!forward->groups_alone)
        store_rows(forward, member, layer);
    struct team_loop loop = {.n = forward->n_groups * n_kv_heads, .grain = 1};
    while (team_next(forward->team, member, &loop))
        for (uint32_t i = loop.begin; i < loop.end; i++) {
            struct row_group group = forward->groups[i / n_kv_heads];
            for (uint32_t row = group.begin; forward->groups_alone && row < group.begin + group.n; row++)
                store_row(forward, layer, row, i % n_kv_heads);
            attend_group(forward, member, layer, group, i % n_kv_heads);
        }
    team_barrier(forward->team);
}

/* gate = silu(gate) * up for one block of columns of all rows, quantised for the product with `down`. */
static void activate_block(const struct forward *forward, uint32_t block, const struct product *down)
{
    uint32_t n_ffn = forward->weights->config.n_ffn, begin = block * ACT_BLOCK;
    uint32_t n = n_ffn - begin < ACT_BLOCK ? n_ffn - begin : ACT_BLOCK;
    for (uint32_t row = 0; row < forward->n_rows; row++) {
        float *gate = forward->gate + (size_t)row * n_ffn + begin;
        forward->kernels->silu_mul(gate, forward->up + (size_t)row * n_ffn + begin, n, gate);
        quantize_values(forward, gate, n, &forward->activated, n_ffn, row, begin, down, 1);
    }
}

/* The products with gate and up go side by side, so that whoever multiplies the last tile of a block of columns
 * activates and quantises it while it is in its cache. */
static void multiply_gate_up(const struct forward *forward, unsigned member, const struct product gate_up[2],
                             const struct product *down, const struct act_rows *acts)
{
    enum { BLOCK_TILES = ACT_BLOCK / TILE_ROWS };
    uint32_t n_tiles = gate_up[0].matrix->n_tiles;
    struct team_loop loop = {.n = n_tiles, .grain = TILE_GRAIN};
    while (team_next(forward->team, member, &loop))
        for (uint32_t begin = loop.begin, end; begin < loop.end; begin = end) {
            uint32_t block = begin / BLOCK_TILES, block_begin = block * BLOCK_TILES;
            uint32_t n_of_block = n_tiles - block_begin < BLOCK_TILES ? n_tiles - block_begin : BLOCK_TILES;
            end = block_begin + n_of_block < loop.end ? block_begin + n_of_block : loop.end;
            multiply_tiles(forward, &gate_up[0], begin, end, acts, forward->n_rows, false);
            multiply_tiles(forward, &gate_up[1], begin, end, acts, forward->n_rows, false);
            if (atomic_fetch_add(&forward->n_activated[block], end - begin) + (end - begin) == n_of_block) {
                atomic_store(&forward->n_activated[block], 0);
                activate_block(forward, block, down);
            }
        }
    team_barrier(forward->team);
}

/* q, k, v = norm(x) times their matrices. */
static void project_qkv(const struct forward *forward, unsigned member, const struct layer_weights *layer)
{
    const struct product qkv[] = {
        {&layer->q, forward->q, layer->q_bias},
        {&layer->k, forward->k, layer->k_bias},
        {&layer->v, forward->v, layer->v_bias},
    };
    const struct row_source input = {forward->x, forward->weights->config.n_hidden, layer->attn_norm, qkv, 3};
    multiply(forward, member, qkv, 3, prepare_rows(forward, member, &input, forward->n_rows), forward->n_rows,
             false);
}

/* x += attended times its matrix. */
static void add_attended(const struct forward *forward, unsigned member, const struct layer_weights *layer)
{
    const struct model_config *config = &forward->weights->config;
    const struct product output = {&layer->attn_output, forward->x, NULL};
    const struct row_source attended = {forward->attended, config->n_heads * config->head_dim, NULL, &output,
                                        1};
    multiply(forward, member, &output, 1, prepare_rows(forward, member, &attended, forward->n_rows),
             forward->n_rows, true);
}

/* gate = silu(gate) * up, with gate and up = norm(x) times their matrices; quantised for the product with `down`. */
static void activate(const struct forward *forward, unsigned member, const struct layer_weights *layer)
{
    const struct product gate_up[] = {{&layer->gate, forward->gate, NULL}, {&layer->up, forward->up, NULL}};
    const struct product down = {&layer->down, forward->x, NULL};
    const struct row_source input = {forward->x, forward->weights->config.n_hidden, layer->ffn_norm, gate_up,
                                     2};
    multiply_gate_up(forward, member, gate_up, &down, prepare_rows(forward, member, &input, forward->n_rows));
}

/* x += gate times its matrix. */
static void add_activated(const struct forward *forward, unsigned member, const struct layer_weights *layer)
{
    const struct product down = {&layer->down, forward->x, NULL};
    multiply(forward, member, &down, 1, &forward->activated, forward->n_rows, true);
}

/* Five phases, each of which ends with a barrier; with more rows than ALONE_ROWS, three have one before their products
 * too, and prompts one before attention. */
static void compute_layer(const struct forward *forward, unsigned member, uint32_t index)
{
    const struct layer_weights *layer = &forward->weights->layers[index];
    project_qkv(forward, member, layer);
    attend(forward, member, index);
    add_attended(forward, member, layer);
    activate(forward, member, layer);
    add_activated(forward, member, layer);
}

/* Keeps the normalised final states of the rows that want logits. */
static void keep_hidden(const struct forward *forward, unsigned member)
{
    const struct model_config *config = &forward->weights->config;
    struct team_loop loop = {.n = forward->n_wanted, .grain = 1};
    while (team_next(forward->team, member, &loop))
        for (uint32_t i = loop.begin; i < loop.end; i++)
            forward->kernels->rms_norm(forward->x + (size_t)forward->wanted[i] * config->n_hidden,
                                       forward->weights->output_norm, config->n_hidden, config->norm_epsilon,
                                       forward->hidden + (size_t)i * config->n_hidden);
}

static void step_work(void *arg, unsigned member)
{
    const struct forward *forward = arg;
    embed(forward, member);
    for (uint32_t layer = 0; layer < forward->weights->config.n_layers; layer++)
        compute_layer(forward, member, layer);
    keep_hidden(forward, member);
}

static void logits_work(void *arg, unsigned member)
{
    const struct forward *forward = arg;
    uint32_t n_hidden = forward->weights->config.n_hidden;
    const struct product head = {&forward->weights->output, forward->logits, NULL};
    const struct row_source hidden = {forward->hidden + (size_t)forward->logits_first * n_hidden, n_hidden,
                                      NULL, &head, 1};
    multiply(forward, member, &head, 1, prepare_rows(forward, member, &hidden, forward->logits_n),
             forward->logits_n, false);
}

/* Steps --------------------------------------------------------------------------------------------------- */

/* Cuts the rows into groups for attention. Where a sequence's rows are cut does not matter to the result. */
static void group_rows(struct forward *forward)
{
    forward->n_groups = 0;
    forward->groups_alone = true;
    struct row_group *group = NULL;
    for (uint32_t row = 0; row < forward->n_rows; row++) {
        bool other_sequence = !group || forward->rows[row].sequence != forward->rows[row - 1].sequence;
        if (other_sequence || group->n == ATTENTION_ROWS) {
            forward->groups_alone = forward->groups_alone && other_sequence;
            group = &forward->groups[forward->n_groups++];
            *group = (struct row_group){.begin = row};
        }
        group->n++;
    }
}

uint32_t forward_step(struct forward *forward, const struct forward_row *rows, uint32_t n_rows)
{
    forward->rows = rows;
    forward->n_rows = n_rows;
    group_rows(forward);
    forward->n_wanted = 0;
    for (uint32_t row = 0; row < n_rows; row++)
        if (rows[row].wants_logits)
            forward->wanted[forward->n_wanted++] = row;
    const struct page_copy *copies;
    uint32_t n_copies = kvcache_copies(forward->cache, &copies);
    cpu_pages_copy(&forward->pages, copies, n_copies);
    kvcache_copies_made(forward->cache);
    team_run(forward->team, step_work, forward);
    return forward->n_wanted;
}

void forward_logits(struct forward *forward, uint32_t first, uint32_t n, float *logits)
{
    forward->logits_first = first;
    forward->logits_n = n;
    forward->logits = logits;
    team_run(forward->team, logits_work, forward);
}

/* Memory -------------------------------------------------------------------------------------------------- */

/* Gives out n_bytes of the region, or, while it is NULL, only counts them. */
static void *take(const struct forward *forward, size_t *used, size_t n_bytes)
{
    void *place = forward->region ? forward->region + *used : NULL;
    *used += (n_bytes + SCRATCH_ALIGN - 1) / SCRATCH_ALIGN * SCRATCH_ALIGN;
    return place;
}

/* The widest inputs of products, but for those of `down`. */
static uint32_t input_columns(const struct model_config *config)
{
    uint32_t n_q = config->n_heads * config->head_dim;
    return config->n_hidden > n_q ? config->n_hidden : n_q;
}

static size_t lay_out(struct forward *forward)
{
    const struct model_config *config = &forward->weights->config;
    uint32_t n_rows = forward->n_rows_max;
    size_t used = 0, n_members = team_size(forward->team);
    size_t n_q = (size_t)config->n_heads * config->head_dim,
           n_kv = (size_t)config->n_kv_heads * config->head_dim;
    size_t n_pairs = config->n_rot / 2,
           n_task_q = (size_t)ATTENTION_ROWS * (config->n_heads / config->n_kv_heads);

    forward->x = take(forward, &used, n_rows * config->n_hidden * sizeof(float));
    forward->q = take(forward, &used, n_rows * n_q * sizeof(float));
    forward->k = take(forward, &used, n_rows * n_kv * sizeof(float));
    forward->v = take(forward, &used, n_rows * n_kv * sizeof(float));
    forward->attended = take(forward, &used, n_rows * n_q * sizeof(float));
    forward->gate = take(forward, &used, n_rows * config->n_ffn * sizeof(float));
    forward->up = take(forward, &used, n_rows * config->n_ffn * sizeof(float));
    forward->hidden = take(forward, &used, n_rows * config->n_hidden * sizeof(float));
    forward->cosine = take(forward, &used, n_rows * n_pairs * sizeof(float));
    forward->sine = take(forward, &used, n_rows * n_pairs * sizeof(float));
    forward->frequencies = take(forward, &used, n_pairs * sizeof(double));
    forward->groups = take(forward, &used, n_rows * sizeof(struct row_group));
    forward->wanted = take(forward, &used, n_rows * sizeof(uint32_t));
    forward->n_activated =
        take(forward, &used, ((size_t)config->n_ffn / ACT_BLOCK + 1) * sizeof(atomic_uint));
    const bool *wanted = forward->weights->acts;
    for (int kind = 0; kind < ACT_KINDS; kind++)
        if (wanted[kind]) {
            forward->acts.of[kind] =
                take(forward, &used, act_bytes((enum act_kind)kind, n_rows, input_columns(config)));
            forward->activated.of[kind] =
                take(forward, &used, act_bytes((enum act_kind)kind, n_rows, config->n_ffn));
        }
    for (size_t i = 0; i < n_members; i++) {
        struct member_scratch *scratch = &forward->members[i];
        scratch->norm = take(forward, &used, config->n_hidden * sizeof(float));
        for (int kind = 0; kind < ACT_KINDS; kind++)
            if (wanted[kind])
                scratch->acts.of[kind] =
                    take(forward, &used, act_bytes((enum act_kind)kind, ALONE_ROWS, input_columns(config)));
        scratch->q = take(forward, &used, n_task_q * config->head_dim * sizeof(float));
        scratch->acc = take(forward, &used, n_task_q * forward->acc_stride * sizeof(float));
        scratch->states = take(forward, &used, n_task_q * sizeof(struct attn_state));
        scratch->n_visible = take(forward, &used, n_task_q * sizeof(uint32_t));
    }
    return used;
}

int forward_create(const struct weights *weights, const struct kernels *kernels, struct team *team,
                   struct kvcache *cache, uint32_t n_pages, uint32_t n_rows_max, struct forward **out,
                   runnel_error *error)
{
    const struct model_config *config = &weights->config;
    struct forward *forward = calloc(1, sizeof *forward);
    if (!forward)
        goto no_memory;
    int failure = cpu_pages_create(&forward->pages, weights->kv_shapes, config->n_layers, config->n_kv_heads,
                                   n_pages, error);
    if (failure) {
        forward_free(forward);
        return failure;
    }
    forward->weights = weights;
    forward->kernels = kernels;
    forward->team = team;
    forward->cache = cache;
    forward->n_rows_max = n_rows_max;
    forward->acc_stride = (weights->config.head_dim + 15) / 16 * 16;
    forward->members = calloc(team_size(team), sizeof *forward->members);
    if (!forward->members)
        goto no_memory;
    forward->region_bytes = lay_out(forward);
    forward->region = region_map(forward->region_bytes);
    if (!forward->region)
        goto no_memory;
    lay_out(forward);
    uint32_t n_rot = weights->config.n_rot;
    for (uint32_t i = 0; i < n_rot / 2; i++)
        forward->frequencies[i] = pow((double)weights->config.rope_base, -2.0 * i / n_rot);
    *out = forward;
    return RUNNEL_OK;

no_memory:
    forward_free(forward);
    return error_set(error, RUNNEL_ENOMEM, "no memory for the scratch of steps of %u rows", n_rows_max);
}

void forward_free(struct forward *forward)
{
    if (!forward)
        return;
    cpu_pages_free(&forward->pages);
    region_unmap(forward->region, forward->region_bytes);
    free(forward->members);
    free(forward);
}

size_t forward_scratch_bytes(const struct forward *forward)
{
    return forward->region_bytes;
}

size_t forward_kv_bytes(const struct forward *forward)
{
    return forward->pages.region_bytes;
}

size_t forward_page_bytes(const struct weights *weights)
{
    return cpu_pages_page_bytes(weights->kv_shapes, weights->config.n_layers, weights->config.n_kv_heads);
}
