/* gpu.c: the GPU's back end: opened on a device, steps begun and waited for (see backend.h). A step is queued as a whole by begin,
 * or replayed where it was recorded, the logits by begin_logits; only wait waits for the device. */
#include "backend/gpu.h"

#include "backend/gpu_step.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A step that takes longer has hung: longer than any step of a card, and of PoCL on a busy machine. */
static const double card_step_ms = 60e3, cpu_step_ms = 600e3;

static struct gpu_back *back_of(struct backend *backend)
{
    return (struct gpu_back *)backend;
}

/* Steps --------------------------------------------------------------------------------------------------- */

/* A device that does not answer has failed; it is no request that took too long. */
static int as_failure(int failure, runnel_error *error)
{
    if (failure != RUNNEL_ETIMEOUT)
        return failure;
    if (error)
        error->code = RUNNEL_EIO;
    return RUNNEL_EIO;
}

/* What was queued of a step that failed must not read what the next one changes. */
static int give_up(struct gpu_back *back, int failure, runnel_error *error)
{
    (void)gpu_finish(back->gpu, back->step_ms, NULL);
    back->n_rows = back->n_logits = back->asked_best.n = 0;
    return as_failure(failure, error);
}

/* The pages of a row's sequence, after those of *n_pages others. */
static void tell_pages(struct gpu_back *back, const struct backend_row *last, uint32_t *n_pages)
{
    uint32_t n = last->position / KV_PAGE + 1;
    memcpy(back->host_pages + *n_pages, last->pages, n * sizeof *last->pages);
    *n_pages += n;
}

static uint32_t count_blocks(uint32_t position, uint32_t window)
{
    uint32_t first = window && position >= window ? position - window + 1 : 0;
    return position / ATTN_BLOCK - first / ATTN_BLOCK + 1;
}

static uint32_t larger(uint32_t a, uint32_t b)
{
    return a > b ? a : b;
}

/* Rows, page tables and which rows want logits, as the device reads them. */
static int tell_rows(struct gpu_back *back, const struct backend_step *step, uint32_t *n_pages,
                     runnel_error *error)
{
    uint32_t window = back->options.weights->config.n_window, first_page = 0;
    *n_pages = 0;
    back->n_rows = step->n_rows;
    back->n_wanted = 0;
    back->n_blocks = back->n_window_blocks = 1;
    for (uint32_t i = 0; i < step->n_rows; i++) {
        const struct backend_row *row = &step->rows[i];
        if (row->position >= back->options.n_positions)
            return error_set(error, RUNNEL_EINVAL, "position %u: expected one below %u", row->position,
                             back->options.n_positions);
        bool is_last = i + 1 == step->n_rows || row[1].pages != row->pages;
        back->host_rows[i] = (struct gpu_row){
            .position = row->position,
            .first_page = first_page,
            .rotation = row->position,
            .token = row->token,
        };
        if (is_last) {
            tell_pages(back, row, n_pages);
            first_page = *n_pages;
        }
        if (row->wants_logits)
            back->wanted_rows[back->n_wanted++] = i;
        back->n_blocks = larger(back->n_blocks, count_blocks(row->position, 0));
        back->n_window_blocks = larger(back->n_window_blocks, count_blocks(row->position, window));
    }
    return RUNNEL_OK;
}

static int write_rows(struct gpu_back *back, const struct backend_step *step, uint32_t n_pages,
                      runnel_error *error)
{
    struct gpu *gpu = back->gpu;
    int failure = gpu_write(gpu, back->rows, back->host_rows, step->n_rows * sizeof *back->host_rows, error);
    if (!failure)
        failure = gpu_write(gpu, back->pages, back->host_pages, n_pages * sizeof *back->host_pages, error);
    for (uint32_t i = 0; i < step->n_copies; i++) {
        back->host_pairs[2 * i] = step->copies[i].from;
        back->host_pairs[2 * i + 1] = step->copies[i].to;
    }
    if (!failure && step->n_copies)
        failure = gpu_write(gpu, back->pairs, back->host_pairs,
                            (size_t)step->n_copies * 2 * sizeof *back->host_pairs, error);
    return failure;
}

static int back_begin(struct backend *backend, const struct backend_step *step, runnel_error *error)
{
    struct gpu_back *back = back_of(backend);
    uint32_t n_pages;
    if (step->on_inputs)
        return error_set(error, RUNNEL_EUNSUPPORTED,
                         "a GPU does not tell the inputs of its products: expected the CPU");
    int failure = tell_rows(back, step, &n_pages, error);
    struct gpu_recording *recording = failure || step->n_copies ? NULL : gpu_back_find_recording(back);
    if (recording)
        failure = gpu_replay(back->gpu, recording, error);
    if (!recording && !failure)
        failure = write_rows(back, step, n_pages, error);
    if (!recording && !failure)
        failure = gpu_back_queue_step(back, step, error);
    back->hidden_out =
        back->options.end_layer < back->options.weights->config.n_layers ? step->hidden_out : NULL;
    return failure ? give_up(back, failure, error) : RUNNEL_OK;
}

/* Computes logits of rows that want them; they stay on the device. */
static int begin_head(struct gpu_back *back, uint32_t first, uint32_t n, runnel_error *error)
{
    memcpy(back->host_asked, back->wanted_rows + first, n * sizeof *back->host_asked);
    int failure = gpu_write(back->gpu, back->wanted, back->host_asked, n * sizeof *back->host_asked, error);
    return failure ? failure : gpu_back_queue_logits(back, n, error);
}

static int back_begin_logits(struct backend *backend, uint32_t first, uint32_t n, runnel_error *error)
{
    struct gpu_back *back = back_of(backend);
    int failure = begin_head(back, first, n, error);
    if (!failure)
        failure = gpu_back_queue_read(back, 0, n, error);
    if (failure)
        return give_up(back, failure, error);
    back->n_logits = n;
    return RUNNEL_OK;
}

/* The logits of those rows of which the best is not enough: of neighbours at once. */
static int read_others(struct gpu_back *back, const struct backend_best *best, runnel_error *error)
{
    int failure = RUNNEL_OK;
    for (uint32_t first = 0, end; first < best->n && !failure; first = end) {
        for (end = first + 1; end < best->n && best->is_enough[end] == best->is_enough[first]; end++) {
        }
        if (!best->is_enough[first])
            failure = gpu_back_queue_read(back, first, end - first, error);
    }
    return failure;
}

static int back_begin_best(struct backend *backend, const struct backend_best *best, runnel_error *error)
{
    struct gpu_back *back = back_of(backend);
    int failure = begin_head(back, best->first, best->n, error);
    if (!failure)
        failure = gpu_back_queue_best(back, best->n, error);
    if (!failure)
        failure = read_others(back, best, error);
    if (failure)
        return give_up(back, failure, error);
    back->n_logits = best->n;
    back->asked_best = *best;
    return RUNNEL_OK;
}

/* Whoever draws from logits needs numbers, and one of them that is possible. */
static bool is_usable(const struct gpu_best *best)
{
    return !best->has_nan && best->logit > -INFINITY && best->logit < INFINITY;
}

static void tell_best(const struct gpu_back *back)
{
    const struct backend_best *asked = &back->asked_best;
    for (uint32_t i = 0; i < asked->n; i++)
        if (asked->is_enough[i])
            asked->tokens[i] = is_usable(&back->host_best[i]) ? (int32_t)back->host_best[i].id : -1;
}

/* To the range behind; nothing of a step that was waited for before. */
static void tell_hidden(const struct gpu_back *back)
{
    if (back->n_rows && back->hidden_out)
        memcpy(back->hidden_out, back->host_hidden,
               (size_t)back->n_rows * back->options.weights->config.n_hidden * sizeof(float));
}

static int back_wait(struct backend *backend, float **logits, runnel_error *error)
{
    struct gpu_back *back = back_of(backend);
    int failure = gpu_finish(back->gpu, back->step_ms, error);
    if (!failure && back->n_logits)
        *logits = back->host_logits;
    if (!failure) {
        tell_hidden(back);
        tell_best(back);
    }
    back->n_rows = back->n_logits = back->asked_best.n = 0;
    return as_failure(failure, error);
}

/* Memory -------------------------------------------------------------------------------------------------- */

static void back_find_room(const struct backend_options *options, struct backend_room *room)
{
    const struct gpu_info *info = gpu_get_info(backend_device_gpu(options->device));
    uint64_t free_bytes = backend_device_free_bytes(options->device);
    struct backend_options range = *options;
    *room = (struct backend_room){.n_layers = 0};
    for (; range.end_layer > range.first_layer; range.end_layer--) {
        const struct gpu_back_need need = gpu_back_count(&range);
        uint64_t n_bytes = info->is_cpu ? need.n_bytes : need.taken_bytes;
        if (need.largest_bytes > info->allocation_max_bytes)
            snprintf(room->why_no_more, sizeof room->why_no_more,
                     "%u take a buffer of %llu MiB, its driver allows %llu MiB",
                     range.end_layer - range.first_layer, error_mib(need.largest_bytes),
                     error_mib(info->allocation_max_bytes));
        else if (n_bytes > free_bytes)
            snprintf(room->why_no_more, sizeof room->why_no_more,
                     "%u take %llu MiB, the KV cache %llu MiB of them, and %llu MiB are free",
                     range.end_layer - range.first_layer, error_mib(n_bytes), error_mib(need.kv_bytes),
                     error_mib(free_bytes));
        else
            break;
    }
    room->n_layers = range.end_layer - range.first_layer;
}

static size_t back_page_bytes(const struct weights *weights, uint32_t first_layer, uint32_t end_layer)
{
    size_t n_bytes = 0;
    for (uint32_t i = first_layer; i < end_layer; i++)
        n_bytes += kv_block_bytes(&weights->kv_shapes[i]) * weights->config.n_kv_heads;
    return n_bytes;
}

/* Of so many bytes on the device, those of keys and values among them. */
static struct backend_memory memory_on(const struct backend_device *device, uint64_t n_bytes,
                                       uint64_t kv_bytes)
{
    bool is_shared = gpu_get_info(backend_device_gpu(device))->is_integrated;
    return (struct backend_memory){.kv_bytes = kv_bytes,
                                   .kv_bytes_on_device = is_shared ? 0 : kv_bytes,
                                   .shared_bytes = is_shared ? n_bytes - kv_bytes : 0};
}

static void back_foresee(const struct backend_options *options, struct backend_memory *memory)
{
    const struct gpu_back_need need = gpu_back_count(options);
    *memory = memory_on(options->device, need.n_bytes, need.kv_bytes);
}

static void back_get_memory(const struct backend *backend, struct backend_memory *memory)
{
    const struct gpu_back *back = (const struct gpu_back *)backend;
    *memory = memory_on(back->options.device, back->device_bytes, back->kv_bytes);
}

static void back_get_preference(const struct backend *backend, struct backend_preference *preference)
{
    const struct gpu_back *back = (const struct gpu_back *)backend;
    /* Prompts in steps that keep a card busy; PoCL gains nothing by long ones. */
    *preference = (struct backend_preference){.n_rows_together = GPU_ROWS_TOGETHER,
                                              .n_rows_prompt = gpu_get_info(back->gpu)->is_cpu ? 64 : 256};
}

/* Opening ------------------------------------------------------------------------------------------------- */

static void back_close(struct backend *backend)
{
    struct gpu_back *back = back_of(backend);
    if (!back)
        return;
    gpu_back_forget(back);
    gpu_back_free(back);
    free(back);
}

static int back_open(const struct backend_options *options, struct backend **backend, runnel_error *error)
{
    struct gpu_back *back = calloc(1, sizeof *back);
    if (!back)
        return error_set(error, RUNNEL_ENOMEM, "no memory for steps on a GPU");
    back->backend.kind = &gpu_backend;
    back->options = *options;
    back->gpu = backend_device_gpu(options->device);
    back->step_ms = gpu_get_info(back->gpu)->is_cpu ? cpu_step_ms : card_step_ms;
    int failure = gpu_back_make(back, error);
    if (!failure)
        failure = gpu_back_try(back, error);
    if (!failure)
        failure = gpu_back_rehearse(back, error);
    if (!failure)
        failure = gpu_back_record(back, error);
    if (!failure)
        failure = gpu_back_try_steps(back, error);
    if (failure) {
        if (error)
            error_prefix(error, "%s", backend_device_name(options->device));
        back_close(&back->backend);
        return failure;
    }
    *backend = &back->backend;
    return RUNNEL_OK;
}

const struct backend_kind gpu_backend = {
    .page_bytes = back_page_bytes,
    .foresee = back_foresee,
    .find_room = back_find_room,
    .open = back_open,
    .close = back_close,
    .begin = back_begin,
    .begin_logits = back_begin_logits,
    .begin_best = back_begin_best,
    .wait = back_wait,
    .get_memory = back_get_memory,
    .get_preference = back_get_preference,
};
