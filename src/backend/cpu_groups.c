/* cpu_groups.c: which rows of a step are attended together (see cpu_step.h): those of one sequence, and those of sequences
 * that begin with the same pages, so that these pages are read once for all of them.
 *
 * The arithmetic does not know of it: what attention() gives a row does not depend on the rows beside it. */
#include "backend/cpu_step.h"

#include <string.h>

enum { TASKS_PER_MEMBER = 2 }; /* of attention, at least, before rows of several sequences become one task */

bool cpu_rows_see_same(const struct backend_row *a, const struct backend_row *b, uint32_t start)
{
    uint32_t first = start / KV_PAGE, last = first + ATTN_BLOCK_PAGES - 1;
    return a->pages == b->pages ||
           (a->position / KV_PAGE >= last && b->position / KV_PAGE >= last &&
            memcmp(a->pages + first, b->pages + first, ATTN_BLOCK_PAGES * sizeof *a->pages) == 0);
}

/* Lists the sequences of the step: where the rows of each one stand. */
static uint32_t find_sequences(struct cpu *cpu)
{
    const struct backend_row *rows = cpu->step.rows;
    uint32_t n = 0;
    for (uint32_t row = 0; row < cpu->step.n_rows; row++) {
        if (row == 0 || rows[row].pages != rows[row - 1].pages)
            cpu->sequences[n++] = (struct cpu_row_group){.begin = row};
        cpu->sequences[n - 1].n++;
    }
    return n;
}

static const struct backend_row *last_row(const struct cpu *cpu, const struct cpu_row_group *sequence)
{
    return &cpu->step.rows[sequence->begin + sequence->n - 1];
}

/* Some order in which sequences stand the nearer to each other, the more pages they begin with are the same. */
static bool goes_first(const struct cpu *cpu, const struct cpu_row_group *a, const struct cpu_row_group *b)
{
    const struct backend_row *a_row = last_row(cpu, a), *b_row = last_row(cpu, b);
    uint32_t a_pages = a_row->position / KV_PAGE + 1, b_pages = b_row->position / KV_PAGE + 1;
    uint32_t n = a_pages < b_pages ? a_pages : b_pages;
    int order = memcmp(a_row->pages, b_row->pages, n * sizeof *a_row->pages);
    return order ? order < 0 : a_pages <= b_pages;
}

/* Merges the sorted sequences [begin, middle) and [middle, end) into cpu->merged. */
static void merge_sequences(struct cpu *cpu, uint32_t begin, uint32_t middle, uint32_t end)
{
    const struct cpu_row_group *from = cpu->sequences;
    for (uint32_t i = begin, j = middle, to = begin; to < end; to++) {
        bool takes_first = j == end || (i < middle && goes_first(cpu, &from[i], &from[j]));
        cpu->merged[to] = from[takes_first ? i++ : j++];
    }
}

static void sort_sequences(struct cpu *cpu, uint32_t n)
{
    for (uint32_t width = 1; width < n; width *= 2) {
        for (uint32_t begin = 0; begin < n; begin += 2 * width) {
            uint32_t middle = begin + width < n ? begin + width : n;
            merge_sequences(cpu, begin, middle, middle + width < n ? middle + width : n);
        }
        struct cpu_row_group *merged = cpu->merged;
        cpu->merged = cpu->sequences;
        cpu->sequences = merged;
    }
}

/* Rows of several sequences that one task attends, at most: as few as it takes for all members to have tasks. */
static uint32_t count_shared_rows(const struct cpu *cpu)
{
    uint32_t n_tasks = cpu->step.n_rows * cpu->weights->config.n_kv_heads; /* if each row had its own */
    uint32_t n = n_tasks / (TASKS_PER_MEMBER * team_size(cpu->team));
    return n < CPU_ATTENTION_ROWS ? n : CPU_ATTENTION_ROWS;
}

/* Appends the rows of a sequence to the order, and to the groups: to the last one if `joins`. */
static void add_sequence(struct cpu *cpu, const struct cpu_row_group *sequence, uint32_t n_ordered,
                         bool joins)
{
    for (uint32_t i = 0; i < sequence->n; i++) {
        if (!joins && i % CPU_ATTENTION_ROWS == 0)
            cpu->groups[cpu->n_groups++] = (struct cpu_row_group){.begin = n_ordered + i};
        cpu->groups[cpu->n_groups - 1].n++;
        cpu->order[n_ordered + i] = sequence->begin + i;
    }
}

void cpu_group_rows(struct cpu *cpu)
{
    uint32_t n_sequences = find_sequences(cpu), n_shared = count_shared_rows(cpu), n_ordered = 0;
    sort_sequences(cpu, n_sequences);
    cpu->n_groups = 0;
    cpu->groups_alone = true;
    for (uint32_t i = 0; i < n_sequences; i++) {
        const struct cpu_row_group *sequence = &cpu->sequences[i];
        const struct backend_row *last = last_row(cpu, sequence);
        bool joins = i > 0 && cpu->groups[cpu->n_groups - 1].n + sequence->n <= n_shared &&
                     last->pages[0] != NO_PAGE && cpu_rows_see_same(last_row(cpu, sequence - 1), last, 0);
        add_sequence(cpu, sequence, n_ordered, joins);
        n_ordered += sequence->n;
        cpu->groups_alone = cpu->groups_alone && sequence->n <= CPU_ATTENTION_ROWS;
    }
}
