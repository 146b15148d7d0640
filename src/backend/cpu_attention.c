/* cpu_attention.c: keys and values into their pages, and attention over them (see cpu_step.h). */
#include "backend/cpu_step.h"

#include <math.h>
#include <string.h>

/* The KV block of the page at `index` of the row's sequence. */
static void *block_of(const struct cpu *cpu, const struct backend_row *row, uint32_t index, uint32_t layer,
                      uint32_t kv_head)
{
    return cpu_pages_block(&cpu->pages, row->pages[index], layer - cpu->first_layer, kv_head);
}

/* Normalises heads, one after the other; weight NULL: the architecture does not. */
static void normalize_heads(const struct cpu *cpu, float *x, uint32_t n_heads, const float *weight)
{
    const struct model_config *config = &cpu->weights->config;
    if (!weight)
        return;
    for (uint32_t head = 0; head < n_heads; head++, x += config->head_dim)
        cpu->kernels->rms_norm(x, weight, config->head_dim, config->norm_epsilon, x);
}

/* Normalises and rotates a row's query heads that share a KV head, and its key; stores key and value in the cache. */
static void store_row(const struct cpu *cpu, uint32_t layer, uint32_t row, uint32_t kv_head)
{
    const struct model_config *config = &cpu->weights->config;
    const struct layer_weights *weights = &cpu->weights->layers[layer];
    const struct kernels *kernels = cpu->kernels;
    const struct backend_row *place = &cpu->step.rows[row];
    uint32_t head_dim = config->head_dim, n_sharing = config->n_heads / config->n_kv_heads;
    size_t rotation_at = cpu_rotation_at(cpu, model_config_window(config, layer) > 0, row);
    const float *cosine = cpu->cosine + rotation_at, *sine = cpu->sine + rotation_at;
    float *q = cpu->q + ((size_t)row * config->n_heads + (size_t)kv_head * n_sharing) * head_dim;
    size_t kv_at = ((size_t)row * config->n_kv_heads + kv_head) * head_dim;

    normalize_heads(cpu, q, n_sharing, weights->q_norm);
    normalize_heads(cpu, cpu->k + kv_at, 1, weights->k_norm);
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

/* One task of attention: the rows of a group, for the query heads that share one KV head. */
struct task {
    const struct cpu *cpu;
    uint32_t layer, kv_head;
    uint32_t window;                           /* positions up to its own that a row sees; 0: all */
    const uint32_t *order;                     /* [n]: its rows of the step */
    uint32_t n, first_position, last_position; /* of what rows see */
};

/* A part of a task: the rows of it that find the same pages in one block of positions. */
struct part {
    uint32_t start;                      /* of the block */
    uint32_t begin, n;                   /* rows, counted in the task */
    const void *pages[ATTN_BLOCK_PAGES]; /* NULL where no row sees anything, or where a window dropped them */
};

static const struct backend_row *row_of(const struct task *task, uint32_t i)
{
    return &task->cpu->step.rows[task->order[i]];
}

/* The first position that a row sees. */
static uint32_t first_visible(const struct task *task, const struct backend_row *row)
{
    return task->window && row->position >= task->window ? row->position - task->window + 1 : 0;
}

/* Finds the part's pages. Returns whether there are any. */
static bool find_pages(const struct task *task, struct part *part)
{
    const struct backend_row *last = row_of(task, part->begin + part->n - 1);
    uint32_t first = first_visible(task, last);
    bool any = false;
    for (uint32_t i = part->begin; i + 1 < part->begin + part->n && first; i++) {
        uint32_t visible = first_visible(task, row_of(task, i));
        first = visible < first ? visible : first;
    }
    for (uint32_t i = 0; i < ATTN_BLOCK_PAGES; i++) {
        uint32_t page = part->start / KV_PAGE + i;
        part->pages[i] = page >= first / KV_PAGE && page <= last->position / KV_PAGE
                             ? block_of(task->cpu, last, page, task->layer, task->kv_head)
                             : NULL;
        any = any || part->pages[i];
    }
    return any;
}

/* The part that comes after one: blocks ascend, and in each block rows do. False: there is none. */
static bool next_part(const struct task *task, const struct part *before, struct part *part)
{
    part->start = before->start;
    part->begin = before->begin + before->n;
    for (; part->start <= task->last_position; part->start += ATTN_BLOCK, part->begin = 0)
        for (; part->begin < task->n; part->begin += part->n) {
            uint32_t end = part->begin + 1;
            while (end < task->n && cpu_rows_see_same(row_of(task, end - 1), row_of(task, end), part->start))
                end++;
            part->n = end - part->begin;
            if (find_pages(task, part))
                return true;
        }
    return false;
}

/* What a row sees of a block. */
static struct attn_span visible_span(const struct task *task, const struct backend_row *row, uint32_t start)
{
    uint32_t first = first_visible(task, row), end = row->position + 1;
    struct attn_span span = {first > start ? first - start : 0, end > start ? end - start : 0};
    if (span.end > ATTN_BLOCK)
        span.end = ATTN_BLOCK;
    return span.begin < span.end ? span : (struct attn_span){0, 0};
}

static void attend_part(const struct task *task, const struct cpu_member *scratch, const struct part *part,
                        const struct part *next)
{
    const struct cpu *cpu = task->cpu;
    const struct model_config *config = &cpu->weights->config;
    uint32_t head_dim = config->head_dim, n_sharing = config->n_heads / config->n_kv_heads;
    uint32_t first = part->begin * n_sharing, n_q = part->n * n_sharing;
    struct attn_span *visible = scratch->visible;
    for (uint32_t i = 0; i < part->n; i++) {
        struct attn_span span = visible_span(task, row_of(task, part->begin + i), part->start);
        for (uint32_t head = 0; head < n_sharing; head++)
            *visible++ = span;
    }
    cpu->kernels->attention(&cpu->weights->kv_shapes[task->layer], part->pages, next ? next->pages : NULL,
                            scratch->q + (size_t)first * head_dim, head_dim, scratch->visible, n_q,
                            config->attention_scale, scratch->states + first,
                            scratch->acc + (size_t)first * cpu->acc_stride, cpu->acc_stride);
}

/* Each row's blocks of positions in ascending order, whatever rows are beside it. */
static void attend_parts(const struct task *task, const struct cpu_member *scratch)
{
    const struct part none = {.start = task->first_position / ATTN_BLOCK * ATTN_BLOCK};
    struct part parts[2]; /* this one and the next one */
    bool has_next = next_part(task, &none, &parts[0]);
    for (unsigned now = 0; has_next; now = !now) {
        has_next = next_part(task, &parts[now], &parts[!now]);
        attend_part(task, scratch, &parts[now], has_next ? &parts[!now] : NULL);
    }
}

static void attend_task(const struct task *task, const struct cpu_member *scratch)
{
    const struct cpu *cpu = task->cpu;
    const struct model_config *config = &cpu->weights->config;
    uint32_t head_dim = config->head_dim, n_sharing = config->n_heads / config->n_kv_heads;
    uint32_t n_q = task->n * n_sharing, q_width = config->n_heads * head_dim;
    size_t first_head = (size_t)task->kv_head * n_sharing * head_dim;

    for (uint32_t i = 0; i < task->n; i++)
        memcpy(scratch->q + (size_t)i * n_sharing * head_dim,
               cpu->q + (size_t)task->order[i] * q_width + first_head, n_sharing * head_dim * sizeof(float));
    for (uint32_t i = 0; i < n_q; i++)
        scratch->states[i] = (struct attn_state){.m = -INFINITY, .l = 0};
    memset(scratch->acc, 0, (size_t)n_q * cpu->acc_stride * sizeof(float));
    attend_parts(task, scratch);
    for (uint32_t i = 0; i < n_q; i++) {
        float *out = cpu->attended + (size_t)task->order[i / n_sharing] * q_width + first_head +
                     (size_t)(i % n_sharing) * head_dim;
        cpu->kernels->attention_finish(&scratch->states[i], scratch->acc + (size_t)i * cpu->acc_stride,
                                       head_dim, out);
    }
}

static struct task task_of(const struct cpu *cpu, uint32_t layer, const struct cpu_row_group *group,
                           uint32_t kv_head)
{
    struct task task = {.cpu = cpu,
                        .layer = layer,
                        .kv_head = kv_head,
                        .window = model_config_window(&cpu->weights->config, layer),
                        .order = cpu->order + group->begin,
                        .n = group->n,
                        .first_position = UINT32_MAX};
    for (uint32_t i = 0; i < task.n; i++) {
        const struct backend_row *row = row_of(&task, i);
        uint32_t first = first_visible(&task, row);
        task.first_position = first < task.first_position ? first : task.first_position;
        task.last_position = row->position > task.last_position ? row->position : task.last_position;
    }
    return task;
}

void cpu_attend(const struct cpu *cpu, unsigned member, uint32_t layer)
{
    uint32_t n_kv_heads = cpu->weights->config.n_kv_heads;
    if (!cpu->groups_alone)
        store_rows(cpu, member, layer);
    struct team_loop loop = {.n = cpu->n_groups * n_kv_heads, .grain = 1};
    while (team_next(cpu->team, member, &loop))
        for (uint32_t i = loop.begin; i < loop.end; i++) {
            struct task task = task_of(cpu, layer, &cpu->groups[i / n_kv_heads], i % n_kv_heads);
            for (uint32_t row = 0; cpu->groups_alone && row < task.n; row++)
                store_row(cpu, layer, task.order[row], task.kv_head);
            attend_task(&task, &cpu->members[member]);
        }
    team_barrier(cpu->team);
}
