/* gpu_step.h: what the files of the GPU's back end share: what it has on the device, and the parts that a step is made of.
 *
 * The device's queue is in order, so that what is queued after something finds its results. Nothing is allocated after open, on the
 * device or here. Buffers: one for each matrix, one for the keys and values of each layer, and one for each array of a step, as
 * devices limit the size of one. */
#ifndef RUNNEL_BACKEND_GPU_STEP_H
#define RUNNEL_BACKEND_GPU_STEP_H

#include "backend/backend.h"
#include "backend/devices.h"
#include "backend/rotation.h"
#include "gpu/kernels.h"

enum {
    GPU_BACK_ROTATIONS = 2,
    GPU_BACK_TYPES_MAX = 32,
    GPU_BACK_RECORDED_ROWS = 8,    /* of steps that are recorded, */
    GPU_BACK_RECORDED_BLOCKS = 12, /* ... and powers of two of blocks of positions: up to 2048 */
};

/* A matrix on the device. */
struct gpu_back_matrix {
    struct gpu_place tiles;
    struct gpu_place bias; /* none where it has none */
    uint32_t type, n_rows, n_columns;
};

struct gpu_back_layer {
    struct gpu_place attn_norm, ffn_norm;
    struct gpu_place q_norm, k_norm, attn_output_norm,
        ffn_output_norm; /* none where the architecture has none */
    struct gpu_back_matrix q, k, v, attn_output, gate, up, down;
    struct gpu_cache cache;
    uint32_t window; /* positions that a row sees; 0: all */
};

/* A back end that is open, or is being made. */
struct gpu_back {
    struct backend backend;
    struct backend_options options;
    struct gpu *gpu;
    double step_ms; /* a step takes less, or the device is lost */

    /* What lies on the device. */
    struct gpu_buffer *buffers; /* [n_buffers] all of them */
    uint32_t n_buffers;
    uint64_t device_bytes, kv_bytes;
    struct gpu_back_layer *layers; /* [end_layer - first_layer] */
    struct gpu_back_matrix embedding, output;
    struct gpu_place output_norm;
    struct gpu_place cosine[GPU_BACK_ROTATIONS], sine[GPU_BACK_ROTATIONS]; /* [n_positions, n_rot / 2] */

    /* A step's, with R rows: as cpu_step.h has them. */
    struct gpu_place x, q, k, v, gate, up;
    struct gpu_place added;            /* none where nothing is normalised before it is added */
    struct gpu_place q_whole, q_worth; /* what attention wants of q */
    struct gpu_acts acts, activated;   /* inputs of products: of n_hidden or n_heads * head_dim; of n_ffn */
    struct gpu_place partials;
    size_t partials_bytes;
    struct gpu_place rows, pages, wanted, pairs; /* what the host tells of a step */
    struct gpu_place logits;                     /* [n_logits_max, n_vocab] */
    struct gpu_place best, best_scratch;         /* [n_logits_max] */

    /* The same here, in memory that the device reads and writes: one of each step is on its way at most. */
    struct gpu_row *host_rows;  /* [n_rows_max] */
    uint32_t *host_pages;       /* [n_sequences * pages of a sequence] */
    uint32_t *host_asked;       /* [n_rows_max]: which rows logits are asked of */
    uint32_t *host_pairs;       /* [n_pages][2] */
    float *host_hidden;         /* [n_rows_max, n_hidden]: from the range before, to the one behind */
    float *host_logits;         /* [n_logits_max, n_vocab] */
    struct gpu_best *host_best; /* [n_logits_max] */

    /* Of the step that was begun. */
    uint32_t *wanted_rows; /* [n_rows_max]: which rows want logits */
    uint32_t n_rows, n_wanted, n_logits;
    float *hidden_out;              /* where its rows go; NULL: nowhere */
    struct backend_best asked_best; /* n 0: logits alone were asked for */
    uint32_t n_blocks,
        n_window_blocks; /* of positions that a row sees any of, at most: in layers without and with a window */

    /* Steps of few rows, as the device does them by itself: [rows - 1][the power of two of blocks]; NULL: not recorded. */
    struct gpu_recording *recordings[GPU_BACK_RECORDED_ROWS][GPU_BACK_RECORDED_BLOCKS];
};

/* gpu_memory.c */

/* Bytes that a back end opened so has on the device, of these those of keys and values, and the largest buffer; and what the driver takes
 * for all of it. */
struct gpu_back_need {
    uint64_t n_bytes, kv_bytes, largest_bytes, taken_bytes;
};
struct gpu_back_need gpu_back_count(const struct backend_options *options);

/* Allocates and fills what lies on the device. What was made when it fails, gpu_back_free frees. */
int gpu_back_make(struct gpu_back *back, runnel_error *error);
void gpu_back_free(struct gpu_back *back);

/* gpu_layers.c: each queues, and returns. */

int gpu_back_queue_step(struct gpu_back *back, const struct backend_step *step, runnel_error *error);
/* Computes the logits of the n rows in host_asked, which stay on the device; finds the best of each of these, and reads it; reads logits of
 * some of these, into the same places of host_logits. */
int gpu_back_queue_logits(struct gpu_back *back, uint32_t n, runnel_error *error);
int gpu_back_queue_best(struct gpu_back *back, uint32_t n, runnel_error *error);
int gpu_back_queue_read(struct gpu_back *back, uint32_t first, uint32_t n, runnel_error *error);

/* A step's launches without what it reads from the host and gives back, of each kind of layer once, and the copy of a page. */
int gpu_back_queue_rehearsal(struct gpu_back *back, uint32_t n_rows, runnel_error *error);

/* gpu_rehearsal.c */

enum {
    GPU_BACK_REHEARSAL_MS = 600000
}; /* what is launched before the first step takes less: drivers compile */

/* What the host tells of a step that is of no use: as many rows, all token 0 at position 0 of page 0, which is to be copied to itself. */
void gpu_back_tell_rehearsal(struct gpu_back *back, uint32_t n_rows);
/* Launches all that steps will, as widely as they will, and waits. After gpu_back_make. */
int gpu_back_rehearse(struct gpu_back *back, runnel_error *error);

/* gpu_trial.c */

/* Refuses a device of which the bits are not the CPU's, unless they need not be. Of a range that begins with layer 0. After gpu_back_make. */
int gpu_back_try(struct gpu_back *back, runnel_error *error);
/* The same of whole steps, recorded ones if there are. After gpu_back_record. */
int gpu_back_try_steps(struct gpu_back *back, runnel_error *error);

/* gpu_recordings.c */

/* Blocks of positions that a row sees in a layer with a window, at most. */
uint32_t gpu_back_window_blocks(const struct gpu_back *back);

/* Records all steps that are replayed, where the device has such a thing and its range has all layers, and replays each of them once: drivers
 * take memory, and open files, when one is replayed for the first time. Where the device has no memory for them, there are none. After
 * gpu_back_make. */
int gpu_back_record(struct gpu_back *back, runnel_error *error);
/* The step of so many rows and blocks as the host has told, what it tells included; NULL: it is to be written and queued. */
struct gpu_recording *gpu_back_find_recording(const struct gpu_back *back);
void gpu_back_forget(struct gpu_back *back);

#endif
