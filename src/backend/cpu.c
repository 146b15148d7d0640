/* cpu.c: the CPU's back end: its memory, and steps begun and waited for (see backend.h). The step is computed by the thread that
 * waits, as member 0 of the team, and by the others. */
#include "backend/cpu.h"

#include "backend/cpu_step.h"
#include "base/region.h"
#include "kernels/act.h"

#include <stdlib.h>

enum { SCRATCH_ALIGN = 64 };

static struct cpu *cpu_of(struct backend *backend)
{
    return (struct cpu *)backend;
}

/* Steps --------------------------------------------------------------------------------------------------- */

static int cpu_begin(struct backend *backend, const struct backend_step *step, runnel_error *error)
{
    (void)error;
    struct cpu *cpu = cpu_of(backend);
    cpu->step = *step;
    cpu_pages_copy(&cpu->pages, step->copies, step->n_copies);
    cpu_group_rows(cpu);
    cpu->n_wanted = 0;
    for (uint32_t row = 0; row < step->n_rows; row++)
        if (step->rows[row].wants_logits)
            cpu->wanted[cpu->n_wanted++] = row;
    return RUNNEL_OK;
}

static int cpu_begin_logits(struct backend *backend, uint32_t first, uint32_t n, runnel_error *error)
{
    (void)error;
    struct cpu *cpu = cpu_of(backend);
    cpu->logits_first = first;
    cpu->n_logits = n;
    return RUNNEL_OK;
}

static int cpu_wait(struct backend *backend, float **logits, runnel_error *error)
{
    (void)error;
    struct cpu *cpu = cpu_of(backend);
    if (cpu->step.n_rows)
        team_run(cpu->team, cpu_compute_step, cpu);
    cpu->step.n_rows = 0;
    if (cpu->n_logits) {
        team_run(cpu->team, cpu_compute_logits, cpu);
        *logits = cpu->logits;
    }
    cpu->n_logits = 0;
    return RUNNEL_OK;
}

/* Memory -------------------------------------------------------------------------------------------------- */

/* Gives out n_bytes of the region, or, while it is NULL, only counts them. */
static void *take(const struct cpu *cpu, size_t *used, size_t n_bytes)
{
    void *place = cpu->region ? cpu->region + *used : NULL;
    *used += (n_bytes + SCRATCH_ALIGN - 1) / SCRATCH_ALIGN * SCRATCH_ALIGN;
    return place;
}

/* The widest inputs of products, but for those of `down`. */
static uint32_t input_columns(const struct model_config *config)
{
    uint32_t n_q = config->n_heads * config->head_dim;
    return config->n_hidden > n_q ? config->n_hidden : n_q;
}

/* Lays out the scratch of steps and the logits, or, while there is no region, only counts their bytes. */
static size_t lay_out(struct cpu *cpu)
{
    const struct model_config *config = &cpu->weights->config;
    uint32_t n_rows = cpu->n_rows_max;
    size_t used = 0;
    size_t n_q = (size_t)config->n_heads * config->head_dim,
           n_kv = (size_t)config->n_kv_heads * config->head_dim;
    size_t n_pairs = config->n_rot / 2,
           n_task_q = (size_t)CPU_ATTENTION_ROWS * (config->n_heads / config->n_kv_heads);

    cpu->x = take(cpu, &used, n_rows * config->n_hidden * sizeof(float));
    cpu->q = take(cpu, &used, n_rows * n_q * sizeof(float));
    cpu->k = take(cpu, &used, n_rows * n_kv * sizeof(float));
    cpu->v = take(cpu, &used, n_rows * n_kv * sizeof(float));
    cpu->attended = take(cpu, &used, n_rows * n_q * sizeof(float));
    cpu->gate = take(cpu, &used, n_rows * config->n_ffn * sizeof(float));
    cpu->up = take(cpu, &used, n_rows * config->n_ffn * sizeof(float));
    cpu->hidden = take(cpu, &used, n_rows * config->n_hidden * sizeof(float));
    if (config->architecture->traits & TRAIT_OUTPUT_NORMS)
        cpu->added = take(cpu, &used, n_rows * config->n_hidden * sizeof(float));
    cpu->cosine = take(cpu, &used, cpu->n_rotations * n_rows * n_pairs * sizeof(float));
    cpu->sine = take(cpu, &used, cpu->n_rotations * n_rows * n_pairs * sizeof(float));
    cpu->frequencies = take(cpu, &used, cpu->n_rotations * n_pairs * sizeof(double));
    cpu->groups = take(cpu, &used, n_rows * sizeof(struct cpu_row_group));
    cpu->sequences = take(cpu, &used, n_rows * sizeof(struct cpu_row_group));
    cpu->merged = take(cpu, &used, n_rows * sizeof(struct cpu_row_group));
    cpu->order = take(cpu, &used, n_rows * sizeof(uint32_t));
    cpu->wanted = take(cpu, &used, n_rows * sizeof(uint32_t));
    cpu->logits = take(cpu, &used, (size_t)cpu->n_logits_max * config->n_vocab * sizeof(float));
    cpu->n_activated = take(cpu, &used, ((size_t)config->n_ffn / ACT_BLOCK + 1) * sizeof(atomic_uint));
    const bool *wanted = cpu->weights->acts;
    for (int kind = 0; kind < ACT_KINDS; kind++)
        if (wanted[kind]) {
            cpu->acts.of[kind] =
                take(cpu, &used, act_bytes((enum act_kind)kind, n_rows, input_columns(config)));
            cpu->activated.of[kind] = take(cpu, &used, act_bytes((enum act_kind)kind, n_rows, config->n_ffn));
        }
    for (unsigned i = 0; i < cpu->n_members; i++) {
        struct cpu_member counted = {0}, *scratch = cpu->members ? &cpu->members[i] : &counted;
        scratch->norm = take(cpu, &used, config->n_hidden * sizeof(float));
        for (int kind = 0; kind < ACT_KINDS; kind++)
            if (wanted[kind])
                scratch->acts.of[kind] =
                    take(cpu, &used, act_bytes((enum act_kind)kind, CPU_ALONE_ROWS, input_columns(config)));
        scratch->q = take(cpu, &used, n_task_q * config->head_dim * sizeof(float));
        scratch->acc = take(cpu, &used, n_task_q * cpu->acc_stride * sizeof(float));
        scratch->states = take(cpu, &used, n_task_q * sizeof(struct attn_state));
        scratch->visible = take(cpu, &used, n_task_q * sizeof(struct attn_span));
    }
    return used;
}

static void cpu_close(struct backend *backend)
{
    struct cpu *cpu = cpu_of(backend);
    if (!cpu)
        return;
    cpu_pages_free(&cpu->pages);
    region_unmap(cpu->region, cpu->region_bytes);
    free(cpu->members);
    free(cpu);
}

static int create_scratch(struct cpu *cpu, runnel_error *error)
{
    cpu->members = calloc(cpu->n_members, sizeof *cpu->members);
    if (cpu->members) {
        cpu->region_bytes = lay_out(cpu);
        cpu->region = region_map(cpu->region_bytes);
    }
    if (!cpu->region)
        return error_set(error, RUNNEL_ENOMEM, "no memory for the scratch of steps of %u rows",
                         cpu->n_rows_max);
    lay_out(cpu);
    const struct model_config *config = &cpu->weights->config;
    for (uint32_t i = 0; i < cpu->n_rotations; i++)
        cpu->rotations[i] = rotation_create(cpu->weights, i ? &config->window_rope : &config->rope,
                                            cpu->frequencies + i * (size_t)config->n_rot / 2);
    return RUNNEL_OK;
}

/* What it is opened with, and what follows from that; without any memory. */
static struct cpu describe(const struct backend_options *options)
{
    const struct model_config *config = &options->weights->config;
    return (struct cpu){
        .backend.kind = &cpu_backend,
        .weights = options->weights,
        .kernels = options->kernels,
        .team = options->team,
        .n_members = options->team ? team_size(options->team) : options->n_threads,
        .first_layer = options->first_layer,
        .end_layer = options->end_layer,
        .n_rows_max = options->n_rows_max,
        .n_logits_max = options->end_layer == config->n_layers ? options->n_logits_max : 0,
        .n_rotations = config->n_window ? 2 : 1,
        .activation_mul = config->architecture->traits & TRAIT_GELU ? options->kernels->gelu_mul
                                                                    : options->kernels->silu_mul,
        .acc_stride = (config->head_dim + 15) / 16 * 16,
    };
}

static int cpu_open(const struct backend_options *options, struct backend **backend, runnel_error *error)
{
    const struct weights *weights = options->weights;
    struct cpu *cpu = calloc(1, sizeof *cpu);
    if (!cpu)
        return error_set(error, RUNNEL_ENOMEM, "no memory for the scratch of steps of %u rows",
                         options->n_rows_max);
    *cpu = describe(options);
    int failure = cpu_pages_create(&cpu->pages, weights->kv_shapes + options->first_layer,
                                   options->end_layer - options->first_layer, weights->config.n_kv_heads,
                                   options->n_pages, error);
    if (!failure)
        failure = create_scratch(cpu, error);
    if (failure) {
        cpu_close(&cpu->backend);
        return failure;
    }
    if (!options->touches_later)
        cpu_pages_touch(&cpu->pages, SIZE_MAX);
    *backend = &cpu->backend;
    return RUNNEL_OK;
}

static bool cpu_touch(struct backend *backend, size_t n_bytes)
{
    return cpu_pages_touch(&cpu_of(backend)->pages, n_bytes);
}

static size_t cpu_page_bytes(const struct weights *weights, uint32_t first_layer, uint32_t end_layer)
{
    return cpu_pages_page_bytes(weights->kv_shapes + first_layer, end_layer - first_layer,
                                weights->config.n_kv_heads);
}

static void cpu_foresee(const struct backend_options *options, struct backend_memory *memory)
{
    struct cpu cpu = describe(options);
    *memory = (struct backend_memory){
        .kv_bytes =
            options->n_pages * cpu_page_bytes(options->weights, options->first_layer, options->end_layer),
        .scratch_bytes = lay_out(&cpu),
    };
}

static void cpu_get_memory(const struct backend *backend, struct backend_memory *memory)
{
    const struct cpu *cpu = (const struct cpu *)backend;
    *memory = (struct backend_memory){
        .kv_bytes = cpu->pages.region_bytes,
        .kv_bytes_to_touch = cpu->pages.region_bytes - cpu->pages.touched_bytes,
        .scratch_bytes = cpu->region_bytes,
    };
}

static void cpu_get_preference(const struct backend *backend, struct backend_preference *preference)
{
    const struct kernels *kernels = ((const struct cpu *)backend)->kernels;
    *preference = (struct backend_preference){.n_rows_together = kernels->n_rows_together,
                                              .n_rows_prompt = kernels->n_rows_prompt};
}

const struct backend_kind cpu_backend = {
    .page_bytes = cpu_page_bytes,
    .foresee = cpu_foresee,
    .open = cpu_open,
    .close = cpu_close,
    .begin = cpu_begin,
    .begin_logits = cpu_begin_logits,
    .wait = cpu_wait,
    .touch = cpu_touch,
    .get_memory = cpu_get_memory,
    .get_preference = cpu_get_preference,
};
