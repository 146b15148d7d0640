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

#include "base/region.h"
#include "kernels/pack.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum {
    TILE_GRAIN = 4,     /* tiles of a product handed out at a time at the end of a phase */
    ATTENTION_ROWS = 8, /* rows of one sequence that a task attends together */
    SCRATCH_ALIGN = 64,
};

/* A group of consecutive rows of one sequence: with a KV head, the unit of work of attention. */
struct row_group {
    uint32_t begin, n;
};

/* What one member alone uses in attention. */
struct attention_scratch {
    float *q;   /* [ATTENTION_ROWS * heads per KV head, head_dim] */
    float *acc; /* the same rows, head_dim rounded up to 16 */
    struct attn_state *states;
    uint32_t *n_visible;
};

struct forward {
    const struct weights *weights;
    const struct kernels *kernels;
    struct team *team;
    struct kvcache *cache;
    uint32_t n_rows_max;
    uint32_t acc_stride; /* head_dim rounded up to 16 */

    float *x;                    /* the residual stream */
    float *norm;                 /* [team, n_hidden]: a normalised row a member, before it is quantised */
    float *q, *k, *v, *attended; /* attended has q's shape */
    float *gate, *up;            /* gate becomes silu(gate) * up */
    float *hidden;               /* [R, n_hidden]: normalised final states of the rows that want logits */
    float *cosine, *sine;        /* [R, n_rot / 2] */
    double *frequencies;         /* [n_rot / 2]: radians a position */
    uint8_t *acts[ACT_KINDS];    /* R activation rows of the widest input */
    struct row_group *groups;
    struct attention_scratch *attention; /* [team] */
    uint8_t *region;
    size_t region_bytes;

    /* Of the step that runs; written by member 0 before the team starts. */
    const struct forward_row *rows;
    uint32_t n_rows, n_groups, n_wanted;
    uint32_t *wanted; /* [R]: which rows want logits */
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

/* The activation rows of a phase: how they lie for inputs of n columns, in each kind that is wanted. */
static void quantize_row(const struct forward *forward, const float *x, uint32_t n, uint32_t row,
                         const struct product *products, size_t n_products)
{
    bool done[ACT_KINDS] = {false};
    for (size_t i = 0; i < n_products; i++) {
        enum act_kind kind = act_kind_of(products[i].matrix->kind);
        if (done[kind])
            continue;
        done[kind] = true;
        forward->kernels->quantize[kind](x, n, forward->acts[kind] + row * act_row_bytes(kind, n));
    }
}

/* Computes the products of a phase: the tiles of all its matrices are one loop that the members share. */
static void multiply(const struct forward *forward, unsigned member, const struct product *products,
                     size_t n_products, uint32_t n_rows, bool add)
{
    struct team_loop loop = {.grain = TILE_GRAIN};
    for (size_t i = 0; i < n_products; i++)
        loop.n += products[i].matrix->n_tiles;
    while (team_next(forward->team, member, &loop)) {
        uint32_t first = 0; /* tile of this matrix in the loop's count */
        for (size_t i = 0; i < n_products; i++) {
            const struct packed_matrix *matrix = products[i].matrix;
            uint32_t begin = loop.begin > first ? loop.begin - first : 0;
            uint32_t end = loop.end > first ? loop.end - first : 0;
            if (end > matrix->n_tiles)
                end = matrix->n_tiles;
            enum act_kind kind = act_kind_of(matrix->kind);
            if (begin < end)
                forward->kernels->matmul[matrix->kind](
                    matrix, begin, end, forward->acts[kind], act_row_bytes(kind, matrix->n_columns), n_rows,
                    products[i].out, matrix->n_rows, products[i].bias, add);
            first += matrix->n_tiles;
        }
    }
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

/* Normalises the residual rows into activation rows for the given products. */
static void norm_rows(const struct forward *forward, unsigned member, const float *weight,
                      const struct product *products, size_t n_products)
{
    const struct model_config *config = &forward->weights->config;
    float *norm = forward->norm + (size_t)member * config->n_hidden;
    struct team_loop loop = {.n = forward->n_rows, .grain = 1};
    while (team_next(forward->team, member, &loop))
        for (uint32_t row = loop.begin; row < loop.end; row++) {
            const float *x = forward->x + (size_t)row * config->n_hidden;
            forward->kernels->rms_norm(x, weight, config->n_hidden, config->norm_epsilon, norm);
            quantize_row(forward, norm, config->n_hidden, row, products, n_products);
        }
    team_barrier(forward->team);
}

/* Rotates queries and keys and stores keys and values in the cache. */
static void store_rows(const struct forward *forward, unsigned member, uint32_t layer)
{
    const struct model_config *config = &forward->weights->config;
    const struct kernels *kernels = forward->kernels;
    const struct kv_shape *shape = &forward->weights->kv_shapes[layer];
    uint32_t head_dim = config->head_dim, n_pairs = config->n_rot / 2, n_kv = config->n_kv_heads * head_dim;
    struct team_loop loop = {.n = forward->n_rows, .grain = 1};
    while (team_next(forward->team, member, &loop))
        for (uint32_t row = loop.begin; row < loop.end; row++) {
            const float *cosine = forward->cosine + (size_t)row * n_pairs,
                        *sine = forward->sine + (size_t)row * n_pairs;
            const struct forward_row *place = &forward->rows[row];
            float *k = forward->k + (size_t)row * n_kv;
            kernels->rope(forward->q + (size_t)row * config->n_heads * head_dim, config->n_heads, head_dim,
                          config->n_rot, cosine, sine, config->rope_interleaved);
            kernels->rope(k, config->n_kv_heads, head_dim, config->n_rot, cosine, sine,
                          config->rope_interleaved);
            for (uint32_t head = 0; head < config->n_kv_heads; head++) {
                void *block =
                    kvcache_block(forward->cache, place->sequence, place->position / KV_PAGE, layer, head);
                kernels->kv_store(shape, block, place->position % KV_PAGE, k + head * head_dim,
                                  forward->v + (size_t)row * n_kv + head * head_dim);
            }
        }
    team_barrier(forward->team);
}

/* One task of attention: the rows of a group, for the query heads that share one KV head, over all blocks of
 * positions in ascending order. */
static void attend_group(const struct forward *forward, unsigned member, uint32_t layer,
                         struct row_group group, uint32_t kv_head)
{
    const struct model_config *config = &forward->weights->config;
    const struct attention_scratch *scratch = &forward->attention[member];
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
    for (uint32_t start = 0; start <= last_position; start += ATTN_BLOCK) {
        const void *pages[ATTN_BLOCK_PAGES];
        bool any = false;
        for (uint32_t i = 0; i < ATTN_BLOCK_PAGES; i++) {
            uint32_t page = start / KV_PAGE + i;
            pages[i] = page <= last_position / KV_PAGE
                           ? kvcache_block(forward->cache, rows->sequence, page, layer, kv_head)
                           : NULL;
            any = any || pages[i];
        }
        if (!any)
            continue; /* a window dropped the whole block */
        for (uint32_t i = 0; i < n_q; i++) {
            uint32_t position = rows[i / n_sharing].position;
            uint32_t n_visible = position < start ? 0 : position - start + 1;
            scratch->n_visible[i] = n_visible < ATTN_BLOCK ? n_visible : ATTN_BLOCK;
        }
        forward->kernels->attention(&forward->weights->kv_shapes[layer], pages, scratch->q, head_dim,
                                    scratch->n_visible, n_q, 1.0f / sqrtf((float)head_dim), scratch->states,
                                    scratch->acc, forward->acc_stride);
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
    struct team_loop loop = {.n = forward->n_groups * n_kv_heads, .grain = 1};
    while (team_next(forward->team, member, &loop))
        for (uint32_t i = loop.begin; i < loop.end; i++)
            attend_group(forward, member, layer, forward->groups[i / n_kv_heads], i % n_kv_heads);
    team_barrier(forward->team);
}

/* Quantises rows of x [R, n] for one product. */
static void quantize_rows(const struct forward *forward, unsigned member, const float *x, uint32_t n,
                          const struct product *product)
{
    struct team_loop loop = {.n = forward->n_rows, .grain = 1};
    while (team_next(forward->team, member, &loop))
        for (uint32_t row = loop.begin; row < loop.end; row++)
            quantize_row(forward, x + (size_t)row * n, n, row, product, 1);
    team_barrier(forward->team);
}

/* gate = silu(gate) * up, quantised for the product with `down`. */
static void activate_rows(const struct forward *forward, unsigned member, const struct product *down)
{
    uint32_t n = forward->weights->config.n_ffn;
    struct team_loop loop = {.n = forward->n_rows, .grain = 1};
    while (team_next(forward->team, member, &loop))
        for (uint32_t row = loop.begin; row < loop.end; row++) {
            float *gate = forward->gate + (size_t)row * n;
            forward->kernels->silu_mul(gate, forward->up + (size_t)row * n, n, gate);
            quantize_row(forward, gate, n, row, down, 1);
        }
    team_barrier(forward->team);
}

static void layer_work(const struct forward *forward, unsigned member, uint32_t index)
{
    const struct model_config *config = &forward->weights->config;
    const struct layer_weights *layer = &forward->weights->layers[index];
    uint32_t n_rows = forward->n_rows;

    const struct product qkv[] = {
        {&layer->q, forward->q, layer->q_bias},
        {&layer->k, forward->k, layer->k_bias},
        {&layer->v, forward->v, layer->v_bias},
    };
    norm_rows(forward, member, layer->attn_norm, qkv, 3);
    multiply(forward, member, qkv, 3, n_rows, false);
    team_barrier(forward->team);
    store_rows(forward, member, index);
    attend(forward, member, index);

    const struct product attn_output = {&layer->attn_output, forward->x, NULL};
    quantize_rows(forward, member, forward->attended, config->n_heads * config->head_dim, &attn_output);
    multiply(forward, member, &attn_output, 1, n_rows, true);
    team_barrier(forward->team);

    const struct product gate_up[] = {{&layer->gate, forward->gate, NULL}, {&layer->up, forward->up, NULL}};
    const struct product down = {&layer->down, forward->x, NULL};
    norm_rows(forward, member, layer->ffn_norm, gate_up, 2);
    multiply(forward, member, gate_up, 2, n_rows, false);
    team_barrier(forward->team);
    activate_rows(forward, member, &down);
    multiply(forward, member, &down, 1, n_rows, true);
    team_barrier(forward->team);
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
        layer_work(forward, member, layer);
    keep_hidden(forward, member);
}

static void logits_work(void *arg, unsigned member)
{
    const struct forward *forward = arg;
    uint32_t n_hidden = forward->weights->config.n_hidden;
    const struct product head = {&forward->weights->output, forward->logits, NULL};
    struct team_loop loop = {.n = forward->logits_n, .grain = 1};
    while (team_next(forward->team, member, &loop))
        for (uint32_t row = loop.begin; row < loop.end; row++)
            quantize_row(forward, forward->hidden + (size_t)(forward->logits_first + row) * n_hidden,
                         n_hidden, row, &head, 1);
    team_barrier(forward->team);
    multiply(forward, member, &head, 1, forward->logits_n, false);
}

/* Steps --------------------------------------------------------------------------------------------------- */

/* Cuts the rows into groups for attention. Where a sequence's rows are cut does not matter to the result. */
static void group_rows(struct forward *forward)
{
    forward->n_groups = 0;
    struct row_group *group = NULL;
    for (uint32_t row = 0; row < forward->n_rows; row++) {
        if (!group || group->n == ATTENTION_ROWS ||
            forward->rows[row].sequence != forward->rows[row - 1].sequence) {
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

static size_t widest_act_row(const struct model_config *config, enum act_kind kind)
{
    uint32_t widest = config->n_hidden > config->n_ffn ? config->n_hidden : config->n_ffn;
    uint32_t n_q = config->n_heads * config->head_dim;
    return act_row_bytes(kind, widest > n_q ? widest : n_q);
}

/* Which activation kinds the model's matrices want. */
static void wanted_kinds(const struct weights *weights, bool wanted[ACT_KINDS])
{
    memset(wanted, 0, ACT_KINDS * sizeof *wanted);
    wanted[act_kind_of(weights->output.kind)] = true;
    for (uint32_t i = 0; i < weights->config.n_layers; i++) {
        const struct layer_weights *layer = &weights->layers[i];
        const struct packed_matrix *matrices[] = {&layer->q,    &layer->k,  &layer->v,   &layer->attn_output,
                                                  &layer->gate, &layer->up, &layer->down};
        for (size_t j = 0; j < sizeof matrices / sizeof *matrices; j++)
            wanted[act_kind_of(matrices[j]->kind)] = true;
    }
}

static size_t lay_out(struct forward *forward)
{
    const struct model_config *config = &forward->weights->config;
    size_t used = 0, n_rows = forward->n_rows_max, n_members = team_size(forward->team);
    size_t n_q = (size_t)config->n_heads * config->head_dim,
           n_kv = (size_t)config->n_kv_heads * config->head_dim;
    size_t n_pairs = config->n_rot / 2,
           n_task_q = (size_t)ATTENTION_ROWS * (config->n_heads / config->n_kv_heads);

    forward->x = take(forward, &used, n_rows * config->n_hidden * sizeof(float));
    forward->norm = take(forward, &used, n_members * config->n_hidden * sizeof(float));
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
    bool wanted[ACT_KINDS];
    wanted_kinds(forward->weights, wanted);
    for (int kind = 0; kind < ACT_KINDS; kind++)
        if (wanted[kind])
            forward->acts[kind] = take(forward, &used, n_rows * widest_act_row(config, (enum act_kind)kind));
    for (size_t i = 0; i < n_members; i++) {
        struct attention_scratch *scratch = &forward->attention[i];
        scratch->q = take(forward, &used, n_task_q * config->head_dim * sizeof(float));
        scratch->acc = take(forward, &used, n_task_q * forward->acc_stride * sizeof(float));
        scratch->states = take(forward, &used, n_task_q * sizeof(struct attn_state));
        scratch->n_visible = take(forward, &used, n_task_q * sizeof(uint32_t));
    }
    return used;
}

int forward_create(const struct weights *weights, const struct kernels *kernels, struct team *team,
                   struct kvcache *cache, uint32_t n_rows_max, struct forward **out, runnel_error *error)
{
    struct forward *forward = calloc(1, sizeof *forward);
    if (!forward)
        goto no_memory;
    forward->weights = weights;
    forward->kernels = kernels;
    forward->team = team;
    forward->cache = cache;
    forward->n_rows_max = n_rows_max;
    forward->acc_stride = (weights->config.head_dim + 15) / 16 * 16;
    forward->attention = calloc(team_size(team), sizeof *forward->attention);
    if (!forward->attention)
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
    region_unmap(forward->region, forward->region_bytes);
    free(forward->attention);
    free(forward);
}

size_t forward_scratch_bytes(const struct forward *forward)
{
    return forward->region_bytes;
}
