/* cpu_layers.c: the layers of a step as the phases that they are made of (see cpu_step.h). */
#include "backend/cpu_step.h"
#include "kernels/pack.h"

#include <string.h>

/* What the first layer of the range reads of a row: the token's embedding, or what the layers before have made of it. */
static void begin_row(const struct cpu *cpu, uint32_t row)
{
    uint32_t n_hidden = cpu->weights->config.n_hidden;
    float *x = cpu->x + (size_t)row * n_hidden;
    if (cpu->first_layer == 0) {
        float scale = cpu->weights->config.embedding_scale;
        pack_row_f32(&cpu->weights->embedding, (uint32_t)cpu->step.rows[row].token, x);
        if (scale != 1)
            for (uint32_t i = 0; i < n_hidden; i++)
                x[i] *= scale;
    } else
        memcpy(x, cpu->step.hidden_in + (size_t)row * n_hidden, n_hidden * sizeof *x);
}

/* The rotations of a row's position. */
static void find_rotations(const struct cpu *cpu, uint32_t row)
{
    for (uint32_t i = 0; i < cpu->n_rotations; i++) {
        size_t at = cpu_rotation_at(cpu, i, row);
        rotation_compute(&cpu->rotations[i], cpu->step.rows[row].position, cpu->cosine + at, cpu->sine + at);
    }
}

static void begin_rows(const struct cpu *cpu, unsigned member)
{
    struct team_loop loop = {.n = cpu->step.n_rows, .grain = 1};
    while (team_next(cpu->team, member, &loop))
        for (uint32_t row = loop.begin; row < loop.end; row++) {
            begin_row(cpu, row);
            find_rotations(cpu, row);
        }
    team_barrier(cpu->team);
}

/* gate = activation(gate) * up for one block of columns of all rows, quantised for the product with `down`. */
static void activate_block(const struct cpu *cpu, uint32_t block, const struct cpu_product *down)
{
    uint32_t n_ffn = cpu->weights->config.n_ffn, begin = block * ACT_BLOCK;
    uint32_t n = n_ffn - begin < ACT_BLOCK ? n_ffn - begin : ACT_BLOCK;
    for (uint32_t row = 0; row < cpu->step.n_rows; row++) {
        float *gate = cpu->gate + (size_t)row * n_ffn + begin;
        cpu->activation_mul(gate, cpu->up + (size_t)row * n_ffn + begin, n, gate);
        cpu_quantize(cpu, gate, n, &cpu->activated, n_ffn, row, begin, down, 1);
    }
}

/* The products with gate and up go side by side, so that whoever multiplies the last tile of a block of columns
 * activates and quantises it while it is in its cache. */
static void multiply_gate_up(const struct cpu *cpu, unsigned member, const struct cpu_product gate_up[2],
                             const struct cpu_product *down, const struct cpu_acts *acts)
{
    enum { BLOCK_TILES = ACT_BLOCK / TILE_ROWS };
    uint32_t n_tiles = gate_up[0].matrix->n_tiles;
    struct team_loop loop = {.n = n_tiles, .grain = CPU_TILE_GRAIN};
    while (team_next(cpu->team, member, &loop))
        for (uint32_t begin = loop.begin, end; begin < loop.end; begin = end) {
            uint32_t block = begin / BLOCK_TILES, block_begin = block * BLOCK_TILES;
            uint32_t n_of_block = n_tiles - block_begin < BLOCK_TILES ? n_tiles - block_begin : BLOCK_TILES;
            end = block_begin + n_of_block < loop.end ? block_begin + n_of_block : loop.end;
            cpu_multiply_tiles(cpu, &gate_up[0], begin, end, acts, cpu->step.n_rows, false);
            cpu_multiply_tiles(cpu, &gate_up[1], begin, end, acts, cpu->step.n_rows, false);
            if (atomic_fetch_add(&cpu->n_activated[block], end - begin) + (end - begin) == n_of_block) {
                atomic_store(&cpu->n_activated[block], 0);
                activate_block(cpu, block, down);
            }
        }
    team_barrier(cpu->team);
}

/* q, k, v = norm(x) times their matrices. */
static void project_qkv(const struct cpu *cpu, unsigned member, const struct layer_weights *layer)
{
    const struct cpu_product qkv[] = {
        {&layer->q, cpu->q, layer->q_bias},
        {&layer->k, cpu->k, layer->k_bias},
        {&layer->v, cpu->v, layer->v_bias},
    };
    const struct cpu_rows input = {cpu->x, cpu->weights->config.n_hidden, layer->attn_norm, qkv, 3};
    cpu_tell_inputs(cpu, member, &input, 0, cpu->step.n_rows);
    cpu_multiply(cpu, member, qkv, 3, cpu_prepare_rows(cpu, member, &input, cpu->step.n_rows),
                 cpu->step.n_rows, false);
}

/* x += norm(added). */
static void add_normalised(const struct cpu *cpu, unsigned member, const float *weight)
{
    const struct model_config *config = &cpu->weights->config;
    struct team_loop loop = {.n = cpu->step.n_rows, .grain = 1};
    while (team_next(cpu->team, member, &loop))
        for (uint32_t row = loop.begin; row < loop.end; row++) {
            float *x = cpu->x + (size_t)row * config->n_hidden,
                  *added = cpu->added + (size_t)row * config->n_hidden;
            cpu->kernels->rms_norm(added, weight, config->n_hidden, config->norm_epsilon, added);
            for (uint32_t i = 0; i < config->n_hidden; i++)
                x[i] += added[i];
        }
    team_barrier(cpu->team);
}

/* x += the rows times the matrix, normalised before if there is a weight for it. */
static void add_product(const struct cpu *cpu, unsigned member, const struct packed_matrix *matrix,
                        const struct cpu_acts *acts, const float *norm_weight)
{
    const struct cpu_product product = {matrix, norm_weight ? cpu->added : cpu->x, NULL};
    cpu_multiply(cpu, member, &product, 1, acts, cpu->step.n_rows, !norm_weight);
    if (norm_weight)
        add_normalised(cpu, member, norm_weight);
}

/* x += attended times its matrix. */
static void add_attended(const struct cpu *cpu, unsigned member, const struct layer_weights *layer)
{
    const struct model_config *config = &cpu->weights->config;
    const struct cpu_product output = {&layer->attn_output, NULL, NULL};
    const struct cpu_rows attended = {cpu->attended, config->n_heads * config->head_dim, NULL, &output, 1};
    cpu_tell_inputs(cpu, member, &attended, 0, cpu->step.n_rows);
    add_product(cpu, member, &layer->attn_output, cpu_prepare_rows(cpu, member, &attended, cpu->step.n_rows),
                layer->attn_output_norm);
}

/* gate = activation(gate) * up, with gate and up = norm(x) times their matrices; quantised for the product with `down`. */
static void activate(const struct cpu *cpu, unsigned member, const struct layer_weights *layer)
{
    const struct cpu_product gate_up[] = {{&layer->gate, cpu->gate, NULL}, {&layer->up, cpu->up, NULL}};
    const struct cpu_product down = {&layer->down, cpu->x, NULL};
    const struct cpu_rows input = {cpu->x, cpu->weights->config.n_hidden, layer->ffn_norm, gate_up, 2};
    cpu_tell_inputs(cpu, member, &input, 0, cpu->step.n_rows);
    multiply_gate_up(cpu, member, gate_up, &down, cpu_prepare_rows(cpu, member, &input, cpu->step.n_rows));
}

/* x += gate times its matrix. */
static void add_activated(const struct cpu *cpu, unsigned member, const struct layer_weights *layer)
{
    const struct cpu_product down = {&layer->down, NULL, NULL};
    const struct cpu_rows activated = {cpu->gate, cpu->weights->config.n_ffn, NULL, &down, 1};
    cpu_tell_inputs(cpu, member, &activated, 0, cpu->step.n_rows);
    add_product(cpu, member, &layer->down, &cpu->activated, layer->ffn_output_norm);
}

/* Five phases, each of which ends with a barrier, and two more where results are normalised before they are added; with more rows
 * than CPU_ALONE_ROWS, three have one before their products too, and prompts one before attention. */
static void compute_layer(const struct cpu *cpu, unsigned member, uint32_t index)
{
    const struct layer_weights *layer = &cpu->weights->layers[index];
    project_qkv(cpu, member, layer);
    cpu_attend(cpu, member, index);
    add_attended(cpu, member, layer);
    activate(cpu, member, layer);
    add_activated(cpu, member, layer);
}

/* The same rows are what the output head multiplies. */
static void tell_hidden(const struct cpu *cpu, unsigned member)
{
    const struct weights *weights = cpu->weights;
    uint32_t n_hidden = weights->config.n_hidden;
    const struct cpu_product head = {&weights->output, NULL, NULL};
    for (uint32_t i = 0; i < cpu->n_wanted; i++) {
        uint32_t row = cpu->wanted[i];
        const struct cpu_rows hidden = {cpu->x + (size_t)row * n_hidden, n_hidden, weights->output_norm,
                                        &head, 1};
        cpu_tell_inputs(cpu, member, &hidden, row, 1);
    }
}

/* Keeps the normalised final states of the rows that want logits. */
static void keep_hidden(const struct cpu *cpu, unsigned member)
{
    const struct model_config *config = &cpu->weights->config;
    tell_hidden(cpu, member);
    struct team_loop loop = {.n = cpu->n_wanted, .grain = 1};
    while (team_next(cpu->team, member, &loop))
        for (uint32_t i = loop.begin; i < loop.end; i++)
            cpu->kernels->rms_norm(cpu->x + (size_t)cpu->wanted[i] * config->n_hidden,
                                   cpu->weights->output_norm, config->n_hidden, config->norm_epsilon,
                                   cpu->hidden + (size_t)i * config->n_hidden);
}

/* Gives the rows to the range that comes next. */
static void hand_on(const struct cpu *cpu, unsigned member)
{
    uint32_t n_hidden = cpu->weights->config.n_hidden;
    struct team_loop loop = {.n = cpu->step.n_rows, .grain = 1};
    while (team_next(cpu->team, member, &loop))
        memcpy(cpu->step.hidden_out + (size_t)loop.begin * n_hidden, cpu->x + (size_t)loop.begin * n_hidden,
               (size_t)(loop.end - loop.begin) * n_hidden * sizeof *cpu->x);
}

void cpu_compute_step(void *arg, unsigned member)
{
    const struct cpu *cpu = arg;
    begin_rows(cpu, member);
    for (uint32_t layer = cpu->first_layer; layer < cpu->end_layer; layer++)
        compute_layer(cpu, member, layer);
    if (cpu->end_layer == cpu->weights->config.n_layers)
        keep_hidden(cpu, member);
    else
        hand_on(cpu, member);
}

void cpu_compute_logits(void *arg, unsigned member)
{
    const struct cpu *cpu = arg;
    uint32_t n_hidden = cpu->weights->config.n_hidden;
    const struct cpu_product head = {&cpu->weights->output, cpu->logits, NULL};
    const struct cpu_rows hidden = {cpu->hidden + (size_t)cpu->logits_first * n_hidden, n_hidden, NULL, &head,
                                    1};
    cpu_multiply(cpu, member, &head, 1, cpu_prepare_rows(cpu, member, &hidden, cpu->n_logits), cpu->n_logits,
                 false);
}
