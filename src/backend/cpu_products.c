/* cpu_products.c: rows quantised and multiplied with the matrices of a phase (see cpu_step.h). */
#include "backend/cpu_step.h"
#include "kernels/act.h"

void cpu_quantize(const struct cpu *cpu, const float *x, uint32_t n, const struct cpu_acts *acts,
                  uint32_t n_columns, uint32_t row, uint32_t begin, const struct cpu_product *products,
                  size_t n_products)
{
    bool done[ACT_KINDS] = {false};
    for (size_t i = 0; i < n_products; i++) {
        enum act_kind kind = act_kind_of(products[i].matrix->kind);
        if (!done[kind])
            act_quantize(cpu->kernels, kind, acts->of[kind], n_columns, row, begin, x, n);
        done[kind] = true;
    }
}

/* The floats that become row `row` of the products' inputs. */
static const float *find_inputs(const struct cpu *cpu, unsigned member, const struct cpu_rows *source,
                                uint32_t row)
{
    const float *x = source->x + (size_t)row * source->n;
    if (!source->norm_weight)
        return x;
    float *norm = cpu->members[member].norm;
    cpu->kernels->rms_norm(x, source->norm_weight, source->n, cpu->weights->config.norm_epsilon, norm);
    return norm;
}

void cpu_tell_inputs(const struct cpu *cpu, unsigned member, const struct cpu_rows *source,
                     uint32_t first_row, uint32_t n_rows)
{
    if (!cpu->step.on_inputs || member != 0)
        return;
    struct backend_inputs inputs = {.n_matrices = (uint32_t)source->n_products};
    for (size_t i = 0; i < source->n_products; i++)
        inputs.matrices[i] = source->products[i].matrix;
    for (uint32_t row = 0; row < n_rows; row++) {
        inputs.row = first_row + row;
        inputs.values = find_inputs(cpu, member, source, row);
        cpu->step.on_inputs(cpu->step.user, &inputs);
    }
}

static void prepare_row(const struct cpu *cpu, unsigned member, const struct cpu_rows *source, uint32_t row,
                        const struct cpu_acts *acts)
{
    const float *x = find_inputs(cpu, member, source, row);
    cpu_quantize(cpu, x, source->n, acts, source->n, row, 0, source->products, source->n_products);
}

const struct cpu_acts *cpu_prepare_rows(const struct cpu *cpu, unsigned member, const struct cpu_rows *source,
                                        uint32_t n_rows)
{
    if (n_rows <= CPU_ALONE_ROWS) {
        const struct cpu_acts *acts = &cpu->members[member].acts;
        for (uint32_t row = 0; row < n_rows; row++)
            prepare_row(cpu, member, source, row, acts);
        return acts;
    }
    struct team_loop loop = {.n = n_rows, .grain = 1};
    while (team_next(cpu->team, member, &loop))
        for (uint32_t row = loop.begin; row < loop.end; row++)
            prepare_row(cpu, member, source, row, &cpu->acts);
    team_barrier(cpu->team);
    return &cpu->acts;
}

void cpu_multiply_tiles(const struct cpu *cpu, const struct cpu_product *product, uint32_t begin,
                        uint32_t end, const struct cpu_acts *acts, uint32_t n_rows, bool add)
{
    const struct packed_matrix *matrix = product->matrix;
    struct matmul_args args = act_product(matrix, acts->of[act_kind_of(matrix->kind)], n_rows, product->out);
    args.bias = product->bias;
    args.add = add;
    cpu->kernels->matmul[matrix->kind](&args, begin, end);
}

void cpu_multiply(const struct cpu *cpu, unsigned member, const struct cpu_product *products,
                  size_t n_products, const struct cpu_acts *acts, uint32_t n_rows, bool add)
{
    struct team_loop loop = {.grain = CPU_TILE_GRAIN};
    for (size_t i = 0; i < n_products; i++)
        loop.n += products[i].matrix->n_tiles;
    while (team_next(cpu->team, member, &loop)) {
        uint32_t first = 0; /* tile of this matrix in the loop's count */
        for (size_t i = 0; i < n_products; i++) {
            uint32_t n_tiles = products[i].matrix->n_tiles;
            uint32_t begin = loop.begin > first ? loop.begin - first : 0;
            uint32_t end = loop.end > first ? loop.end - first : 0;
            if (end > n_tiles)
                end = n_tiles;
            if (begin < end)
                cpu_multiply_tiles(cpu, &products[i], begin, end, acts, n_rows, add);
            first += n_tiles;
        }
    }
    team_barrier(cpu->team);
}
