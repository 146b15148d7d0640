/* gpu_recordings.c: steps of few rows as recordings, which a device does by itself, without being told each launch (see gpu_step.h).
 *
 * Launches and their numbers are part of a recording: how many rows there are, and how many blocks of positions attention looks at, rounded
 * up to a power of two: groups for blocks that a row does not see end at once. All else of a step is told in arrays on the
 * host, which the recording reads. They are made when the back end opens, so that no step allocates. */
#include "backend/gpu_step.h"

/* Rows are read from no other range and given to none: there it is the caller's memory, another one each time. */
static bool has_all_layers(const struct gpu_back *back)
{
    return back->options.first_layer == 0 &&
           back->options.end_layer == back->options.weights->config.n_layers;
}

static uint32_t pages_of_sequence(const struct gpu_back *back)
{
    return (back->options.n_positions + KV_PAGE - 1) / KV_PAGE;
}

/* What the host tells of a step, then the step. As many page numbers as n_rows rows can have. */
static int queue_told_step(struct gpu_back *back, uint32_t n_rows, runnel_error *error)
{
    const struct backend_step step = {.n_rows = n_rows};
    uint32_t n_sequences = n_rows < back->options.n_sequences ? n_rows : back->options.n_sequences;
    size_t n_pages = (size_t)n_sequences * pages_of_sequence(back);
    int failure = gpu_write(back->gpu, back->rows, back->host_rows, n_rows * sizeof *back->host_rows, error);
    if (!failure)
        failure =
            gpu_write(back->gpu, back->pages, back->host_pages, n_pages * sizeof *back->host_pages, error);
    return failure ? failure : gpu_back_queue_step(back, &step, error);
}

static int record(struct gpu_back *back, uint32_t n_rows, struct gpu_recording **recording,
                  runnel_error *error)
{
    int failure = gpu_record_begin(back->gpu, error);
    if (failure)
        return failure;
    failure = queue_told_step(back, n_rows, error);
    int ended = gpu_record_end(back->gpu, recording, failure ? NULL : error);
    return failure ? failure : ended;
}

uint32_t gpu_back_window_blocks(const struct gpu_back *back)
{
    uint32_t n_blocks = (back->options.n_positions + ATTN_BLOCK - 1) / ATTN_BLOCK,
             n = back->options.weights->config.n_window / ATTN_BLOCK + 2; /* wherever it begins in one */
    return n < n_blocks ? n : n_blocks;
}

static int record_all(struct gpu_back *back, runnel_error *error)
{
    uint32_t n_blocks = (back->options.n_positions + ATTN_BLOCK - 1) / ATTN_BLOCK;
    int failure = RUNNEL_OK;
    back->n_window_blocks = gpu_back_window_blocks(back);
    for (uint32_t rows = 1; rows <= GPU_BACK_RECORDED_ROWS && rows <= back->options.n_rows_max; rows++)
        for (uint32_t power = 0; power < GPU_BACK_RECORDED_BLOCKS && !failure; power++) {
            back->n_blocks = 1u << power < n_blocks ? 1u << power : n_blocks;
            failure = record(back, rows, &back->recordings[rows - 1][power], error);
            if (1u << power >= n_blocks)
                break;
        }
    return failure;
}

/* Each takes as long as a token of its step does, which reads all weights: 1 to 30 ms, and of all of them no more than some seconds. */
static int replay_all(struct gpu_back *back, runnel_error *error)
{
    uint32_t n_rows =
        back->options.n_rows_max < GPU_BACK_RECORDED_ROWS ? back->options.n_rows_max : GPU_BACK_RECORDED_ROWS;
    int failure = RUNNEL_OK;
    gpu_back_tell_rehearsal(back, n_rows);
    for (uint32_t rows = 0; rows < n_rows; rows++)
        for (uint32_t power = 0; power < GPU_BACK_RECORDED_BLOCKS && !failure; power++)
            if (back->recordings[rows][power])
                failure = gpu_replay(back->gpu, back->recordings[rows][power], error);
    return failure ? failure : gpu_finish(back->gpu, GPU_BACK_REHEARSAL_MS, error);
}

int gpu_back_record(struct gpu_back *back, runnel_error *error)
{
    if (!gpu_get_info(back->gpu)->has_recordings || !has_all_layers(back))
        return RUNNEL_OK;
    int failure = record_all(back, error);
    if (!failure)
        failure = replay_all(back, error);
    if (failure && !gpu_is_lost(back->gpu)) { /* steps are queued, then */
        gpu_back_forget(back);
        failure = RUNNEL_OK;
    }
    return failure;
}

struct gpu_recording *gpu_back_find_recording(const struct gpu_back *back)
{
    uint32_t power = 0;
    if (back->n_rows > GPU_BACK_RECORDED_ROWS)
        return NULL;
    while (power < GPU_BACK_RECORDED_BLOCKS && 1u << power < back->n_blocks)
        power++;
    return power < GPU_BACK_RECORDED_BLOCKS ? back->recordings[back->n_rows - 1][power] : NULL;
}

void gpu_back_forget(struct gpu_back *back)
{
    for (uint32_t rows = 0; rows < GPU_BACK_RECORDED_ROWS; rows++)
        for (uint32_t power = 0; power < GPU_BACK_RECORDED_BLOCKS; power++)
            if (back->recordings[rows][power]) {
                gpu_recording_free(back->gpu, back->recordings[rows][power]);
                back->recordings[rows][power] = NULL;
            }
}
