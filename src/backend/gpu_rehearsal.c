/* gpu_rehearsal.c: all launches of steps once, when the back end opens (see gpu_step.h).
 *
 * Drivers finish functions at their first launch, and load them from files: PoCL whenever one is wider than all before it, and anew
 * where it is wider than 65,535 items. A server's sandbox, which closes then, lets no file be opened. So rows are one, two and as many as there
 * may be, blocks of positions few and all, and for one and two rows as many as there are functions for (gpu/kernels.h), for many also one, with
 * which the most rows are attended together; what is computed is of no use: all rows are token 0 at position 0. */
#include "backend/gpu_step.h"

#include <string.h>

enum { FEW_BLOCKS = 128 /* of positions: no wider than 65,535 items */ };

static uint32_t smaller(uint32_t a, uint32_t b)
{
    return a < b ? a : b;
}

void gpu_back_tell_rehearsal(struct gpu_back *back, uint32_t n_rows)
{
    memset(back->host_rows, 0, n_rows * sizeof *back->host_rows);
    memset(back->host_asked, 0, n_rows * sizeof *back->host_asked);
    memset(back->host_pairs, 0, 2 * sizeof *back->host_pairs);
    back->host_pages[0] = 0;
}

static int write_told(struct gpu_back *back, uint32_t n_rows, runnel_error *error)
{
    gpu_back_tell_rehearsal(back, n_rows);
    int failure = gpu_write(back->gpu, back->rows, back->host_rows, n_rows * sizeof *back->host_rows, error);
    if (!failure)
        failure = gpu_write(back->gpu, back->pages, back->host_pages, sizeof *back->host_pages, error);
    if (!failure)
        failure =
            gpu_write(back->gpu, back->wanted, back->host_asked, n_rows * sizeof *back->host_asked, error);
    if (!failure)
        failure = gpu_write(back->gpu, back->pairs, back->host_pairs, 2 * sizeof *back->host_pairs, error);
    return failure;
}

static int rehearse_head(struct gpu_back *back, uint32_t n_rows, runnel_error *error)
{
    uint32_t n = smaller(n_rows, back->options.n_logits_max);
    int failure = gpu_back_queue_logits(back, n, error);
    if (!failure)
        failure = gpu_back_queue_best(back, n, error);
    return failure ? failure : gpu_back_queue_read(back, 0, n, error);
}

static int rehearse(struct gpu_back *back, uint32_t n_rows, uint32_t n_blocks, runnel_error *error)
{
    bool has_head = back->options.end_layer == back->options.weights->config.n_layers;
    back->n_blocks = n_blocks;
    back->n_window_blocks = smaller(gpu_back_window_blocks(back), n_blocks);
    int failure = write_told(back, n_rows, error);
    if (!failure)
        failure = gpu_back_queue_rehearsal(back, n_rows, error);
    if (!failure && has_head)
        failure = rehearse_head(back, n_rows, error);
    return failure ? failure : gpu_finish(back->gpu, GPU_BACK_REHEARSAL_MS, error);
}

/* So many rows with few blocks and with all; before that one or two rows with the most blocks that have functions of their own, and many
 * rows with one block. */
static int rehearse_rows(struct gpu_back *back, uint32_t n_rows, runnel_error *error)
{
    uint32_t n_blocks = (back->options.n_positions + ATTN_BLOCK - 1) / ATTN_BLOCK, last = 0;
    bool is_many = n_rows > 2;
    const uint32_t limits[] = {is_many ? 1 : GPU_MERGED_BLOCKS, is_many ? 1 : GPU_ATTEND_ALONE, FEW_BLOCKS,
                               n_blocks};
    int failure = RUNNEL_OK;
    for (size_t i = 0; i < sizeof limits / sizeof *limits && !failure; i++) {
        uint32_t n = smaller(n_blocks, limits[i]);
        if (n != last)
            failure = rehearse(back, n_rows, n, error);
        last = n;
    }
    return failure;
}

int gpu_back_rehearse(struct gpu_back *back, runnel_error *error)
{
    const uint32_t n_rows[] = {1, smaller(2, back->options.n_rows_max), back->options.n_rows_max};
    int failure = RUNNEL_OK;
    for (size_t i = 0; i < sizeof n_rows / sizeof *n_rows && !failure; i++)
        failure = rehearse_rows(back, n_rows[i], error);
    return failure;
}
