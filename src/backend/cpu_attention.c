/* cpu_attention.c: keys and values into their pages, and attention over them (see cpu_step.h). */
#include "backend/cpu_step.h"

#include <math.h>
#include <string.h>

void cpu_group_rows(struct cpu *cpu)
{
    cpu->n_groups = 0;
    cpu->groups_alone = true;
    struct cpu_row_group *group = NULL;
    for (uint32_t row = 0; row < cpu->step.n_rows; row++) {
        bool other_sequence = !group || cpu->step.rows[row].pages != cpu->step.rows[row - 1].pages;
        if (other_sequence || group->n == CPU_ATTENTION_ROWS) {
            cpu->groups_alone = cpu->groups_alone && other_sequence;
            group = &cpu->groups[cpu->n_groups++];
            *group = (struct cpu_row_group){.begin = row};
        }
        group->n++;
    }
}

/* The KV block of the page at `index` of the row's sequence. */
static void *block_of(const struct cpu *cpu, const struct backend_row *row, uint32_t index, uint32_t layer,
                      uint32_t kv_head)
{
    return cpu_pages_block(&cpu->pages, row->pages[index], layer - cpu->first_layer, kv_head);
}

/* Rotates a row's query heads that share a KV head, and its key; stores key and value in the cache. */
static void store_row(const struct cpu *cpu, uint32_t layer, uint32_t row, uint32_t kv_head)
{
    const struct model_config *config = &cpu->weights->config;
    const struct kernels *kernels = cpu->kernels;
    const struct backend_row *place = &cpu->step.rows[row];
    uint32_t head_dim = config->head_dim, n_pairs = config->n_rot / 2;
    uint32_t n_sharing = config->n_heads / config->n_kv_heads;
    const float *cosine = cpu->cosine + (size_t)row * n_pairs, *sine = cpu->sine + (size_t)row * n_pairs;
    float *q = cpu->q + ((size_t)row * config->n_heads + (size_t)kv_head * n_sharing) * head_dim;
    size_t kv_at = ((size_t)row * config->n_kv_heads + kv_head) * head_dim;

    bool interleaved = config->architecture->traits & TRAIT_INTERLEAVED_ROPE;
    kernels->rope(q, n_sharing, head_dim, config->n_rot, cosine, sine, interleaved);
    kernels->rope(cpu->k + kv_at, 1, head_dim, config->n_rot, cosine, sine, interleaved);
    void *block = block_of(cpu, place, place->position / KV_PAGE, layer, kv_head);
    kernels->kv_store(&cpu->weights->kv_shapes[layer], block, place->position % KV_PAGE, cpu->k + kv_at,
                      cpu->v + kv_at);
}

/* All rows of the step, before attention: needed when rows of one sequence are attended in several tasks, which see
 * each other's keys. */
static void store_rows(const struct cpu *cpu, unsigned member, uint32_t layer)
{
    uint32_t n_kv_heads = cpu->weights->config.n_kv_heads;
    struct team_loop loop = {.n = cpu->step.n_rows, .grain = 1};
    while (team_next(cpu->team, member, &loop))
        for (uint32_t row = loop.begin; row < loop.end; row++)
            for (uint32_t head = 0; head < n_kv_heads; head++)
                store_row(cpu, layer, row, head);
    team_barrier(cpu->team);
}

/* The KV blocks of the ATTN_BLOCK positions from `start` on, NULL past the last position or where a window
 * dropped them. Returns whether there are any. */
static bool block_pages(const struct cpu *cpu, const struct backend_row *row, uint32_t layer,
                        uint32_t kv_head, uint32_t start, uint32_t last_position,
                        const void *pages[ATTN_BLOCK_PAGES])
{
    bool any = false;
    for (uint32_t i = 0; i < ATTN_BLOCK_PAGES; i++) {
        uint32_t page = start / KV_PAGE + i;
        pages[i] = page <= last_position / KV_PAGE ? block_of(cpu, row, page, layer, kv_head) : NULL;
        any = any || pages[i];
    }
    return any;
}

/* One task of attention: the rows of a group, for the query heads that share one KV head, over all blocks of
 * positions in ascending order. */
static void attend_group(const struct cpu *cpu, unsigned member, uint32_t layer, struct cpu_row_group group,
                         uint32_t kv_head)
{
    const struct model_config *config = &cpu->weights->config;
    const struct cpu_member *scratch = &cpu->members[member];
    uint32_t head_dim = config->head_dim, n_sharing = config->n_heads / config->n_kv_heads;
    uint32_t n_q = group.n * n_sharing, q_width = config->n_heads * head_dim;
    size_t first_head = (size_t)kv_head * n_sharing * head_dim;

    for (uint32_t i = 0; i < group.n; i++)
        memcpy(scratch->q + (size_t)i * n_sharing * head_dim,
               cpu->q + (size_t)(group.begin + i) * q_width + first_head,
               n_sharing * head_dim * sizeof(float));
    for (uint32_t i = 0; i < n_q; i++)
        scratch->states[i] = (struct attn_state){.m = -INFINITY, .l = 0};
    memset(scratch->acc, 0, (size_t)n_q * cpu->acc_stride * sizeof(float));

    const struct backend_row *rows = cpu->step.rows + group.begin;
    uint32_t last_position = rows[group.n - 1].position;
    const void *pages[2][ATTN_BLOCK_PAGES]; /* of this block and of the next one */
    bool any[2];
    any[0] = block_pages(cpu, rows, layer, kv_head, 0, last_position, pages[0]);
    for (uint32_t start = 0, now = 0; start <= last_position; start += ATTN_BLOCK, now = !now) {
        any[!now] = block_pages(cpu, rows, layer, kv_head, start + ATTN_BLOCK, last_position, pages[!now]);
        if (!any[now])
            continue; /* a window dropped the whole block */
        for (uint32_t i = 0; i < n_q; i++) {
            uint32_t position = rows[i / n_sharing].position;
            uint32_t n_visible = position < start ? 0 : position - start + 1;
            scratch->n_visible[i] = n_visible < ATTN_BLOCK ? n_visible : ATTN_BLOCK;
        }
        cpu->kernels->attention(&cpu->weights->kv_shapes[layer], pages[now], pages[!now], scratch->q,
                                head_dim, scratch->n_visible, n_q, 1.0f / sqrtf((float)head_dim),
                                scratch->states, scratch->acc, cpu->acc_stride);
    }
    for (uint32_t i = 0; i < n_q; i++) {
        float *out = cpu->attended + (size_t)(group.begin + i / n_sharing) * q_width + first_head +
                     (size_t)(i % n_sharing) * head_dim;
        cpu->kernels->attention_finish(&scratch->states[i], scratch->acc + (size_t)i * cpu->acc_stride,
                                       head_dim, out);
    }
}

void cpu_attend(const struct cpu *cpu, unsigned member, uint32_t layer)
{
    uint32_t n_kv_heads = cpu->weights->config.n_kv_heads;
    if (!cpu->groups_alone)
        store_rows(cpu, member, layer);
    struct team_loop loop = {.n = cpu->n_groups * n_kv_heads, .grain = 1};
    while (team_next(cpu->team, member, &loop))
        for (uint32_t i = loop.begin; i < loop.end; i++) {
            struct cpu_row_group group = cpu->groups[i / n_kv_heads];
            for (uint32_t row = group.begin; cpu->groups_alone && row < group.begin + group.n; row++)
                store_row(cpu, layer, row, i % n_kv_heads);
            attend_group(cpu, member, layer, group, i % n_kv_heads);
        }
    team_barrier(cpu->team);
}
