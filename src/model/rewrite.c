/* rewrite.c: see rewrite.h.
 *
 * A piece is some rows of one tensor. Pieces are numbered in the order of the file; piece k lies in slot k % n_slots of a
 * ring. Threads take the next number as long as its slot is free; the caller's thread waits for the piece that comes next in
 * the output. One mutex guards the numbers and the slots' states; a slot's content belongs to the thread that took it until
 * it is ready, then to the caller's thread until it is free again. */
#include "model/rewrite.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/thread.h"
#include "kernels/quantize.h"

enum { PIECE_VALUES = 128 << 10, SLOTS_PER_THREAD = 3 };

struct piece {
    size_t tensor;
    uint64_t row;
    uint32_t n_rows;
};

struct slot {
    bool ready;     /* guarded by the lock of struct team_state */
    uint8_t *bytes; /* this and what follows: of the thread that has the slot */
    size_t n_bytes;
    uint64_t source_bytes; /* what was read for it */
    int code;
    runnel_error error;
};

struct team_state {
    pthread_mutex_t lock; /* guards the next four */
    struct piece next;    /* to be taken; past the last tensor: there is none */
    uint64_t n_taken, n_written;
    bool stopping;
    pthread_cond_t changed; /* a slot became ready or free, or all shall stop */

    /* Set before the threads start. */
    const struct rewrite *rewrite;
    struct slot *slots;
    size_t n_slots;
    size_t piece_values; /* a row of the widest tensor */
    size_t piece_bytes;  /* of the largest piece in the file, */
    size_t out_bytes;    /* and as it is written */

    /* The caller's thread alone. */
    size_t at; /* in the slot of piece n_written */
    uint64_t done_bytes, total_bytes;
};

/* Pieces -------------------------------------------------------------------------------------------------- */

static uint64_t rows_of(const struct gguf_tensor *tensor)
{
    return tensor->dims[1] * tensor->dims[2] * tensor->dims[3];
}

static uint32_t rows_at_once(const struct gguf_tensor *tensor)
{
    uint64_t n = PIECE_VALUES / tensor->dims[0];
    return n < 1 ? 1 : (uint32_t)n;
}

/* As many of its rows as make a piece; the cursor moves behind them. */
static struct piece take_piece(struct team_state *team)
{
    const struct gguf_tensor *tensor = gguf_tensor_at(team->rewrite->from, team->next.tensor);
    struct piece piece = team->next;
    uint64_t left = rows_of(tensor) - piece.row;
    piece.n_rows = rows_at_once(tensor);
    if (piece.n_rows >= left) {
        piece.n_rows = (uint32_t)left;
        team->next = (struct piece){.tensor = piece.tensor + 1};
    } else
        team->next.row += piece.n_rows;
    return piece;
}

/* Whether the bytes of the file are what is written. */
static bool is_copied(const struct rewrite *rewrite, size_t i)
{
    return !rewrite->tensors[i].is_changed &&
           rewrite->tensors[i].type == gguf_tensor_at(rewrite->from, i)->type;
}

static const float *importance_of_row(const struct rewrite *rewrite, size_t i, uint64_t row)
{
    const struct gguf_tensor *tensor = gguf_tensor_at(rewrite->from, i);
    const struct rewrite_tensor *to = &rewrite->tensors[i];
    if (!to->importance || to->n_parts <= 1)
        return to->importance;
    return to->importance + row / tensor->dims[1] % to->n_parts * tensor->dims[0];
}

static int encode_row(const struct rewrite *rewrite, size_t i, uint64_t row, float *values, uint8_t *out,
                      runnel_error *error)
{
    size_t n = (size_t)gguf_tensor_at(rewrite->from, i)->dims[0];
    enum tensor_type type = rewrite->tensors[i].type;
    if (rewrite->tensors[i].is_changed)
        rewrite->change(rewrite->user, i, row, values);
    size_t misfit = quantize_find_misfit(type, values, n);
    if (misfit < n)
        return error_set(
            error, RUNNEL_EFORMAT, "row %llu, column %zu: expected a value that %s can hold, found %g",
            (unsigned long long)row, misfit, quant_find((uint32_t)type)->name, (double)values[misfit]);
    quantize_encode(type, values, n, importance_of_row(rewrite, i, row), out);
    return RUNNEL_OK;
}

/* Reads a piece and makes what is to be written of it. raw, values: room for the largest. */
static int compute_piece(const struct rewrite *rewrite, struct piece piece, uint8_t *raw, float *values,
                         struct slot *slot)
{
    const struct gguf_tensor *tensor = gguf_tensor_at(rewrite->from, piece.tensor);
    const struct quant_info *info = quant_find((uint32_t)rewrite->tensors[piece.tensor].type);
    size_t n = (size_t)tensor->dims[0], row_bytes = n / info->block_values * info->block_bytes;
    bool copied = is_copied(rewrite, piece.tensor);
    slot->source_bytes = piece.n_rows * tensor->row_bytes;
    slot->n_bytes = piece.n_rows * row_bytes;
    int code = gguf_read(rewrite->from, tensor->offset + piece.row * tensor->row_bytes,
                         copied ? slot->bytes : raw, (size_t)slot->source_bytes, &slot->error);
    if (code || copied)
        return code;
    for (uint32_t r = 0; r < piece.n_rows && !code; r++) {
        quant_decode(tensor->type, raw + r * tensor->row_bytes, n, values);
        code = encode_row(rewrite, piece.tensor, piece.row + r, values, slot->bytes + r * row_bytes,
                          &slot->error);
    }
    return code;
}

/* Threads ------------------------------------------------------------------------------------------------- */

/* The next piece and its slot; false: there is nothing left to do. */
static bool wait_for_piece(struct team_state *team, struct piece *piece, struct slot **slot)
{
    size_t n_tensors = gguf_n_tensors(team->rewrite->from);
    pthread_mutex_lock(&team->lock);
    while (!team->stopping && team->next.tensor < n_tensors &&
           team->n_taken == team->n_written + team->n_slots)
        pthread_cond_wait(&team->changed, &team->lock);
    bool has = !team->stopping && team->next.tensor < n_tensors;
    if (has) {
        *piece = take_piece(team);
        *slot = &team->slots[team->n_taken++ % team->n_slots];
    }
    pthread_mutex_unlock(&team->lock);
    return has;
}

static void tell_ready(struct team_state *team, struct slot *slot, int code)
{
    pthread_mutex_lock(&team->lock);
    slot->code = code;
    slot->ready = true;
    pthread_cond_broadcast(&team->changed);
    pthread_mutex_unlock(&team->lock);
}

static void *run_thread(void *arg)
{
    struct team_state *team = arg;
    uint8_t *raw = malloc(team->piece_bytes + 1);
    float *values = malloc(team->piece_values * sizeof *values + 1);
    struct piece piece;
    struct slot *slot;
    while (wait_for_piece(team, &piece, &slot)) {
        int code = raw && values ? compute_piece(team->rewrite, piece, raw, values, slot)
                                 : error_set(&slot->error, RUNNEL_ENOMEM, "no memory for %zu values",
                                             team->piece_values);
        tell_ready(team, slot, code);
    }
    free(raw);
    free(values);
    return NULL;
}

/* Writing ------------------------------------------------------------------------------------------------- */

/* The slot of the piece that comes next, once it is ready. */
static struct slot *wait_for_slot(struct team_state *team)
{
    struct slot *slot = &team->slots[team->n_written % team->n_slots];
    pthread_mutex_lock(&team->lock);
    while (!slot->ready)
        pthread_cond_wait(&team->changed, &team->lock);
    pthread_mutex_unlock(&team->lock);
    return slot;
}

static int finish_slot(struct team_state *team, struct slot *slot, runnel_error *error)
{
    const struct rewrite *rewrite = team->rewrite;
    pthread_mutex_lock(&team->lock);
    slot->ready = false;
    team->n_written++;
    pthread_cond_broadcast(&team->changed);
    pthread_mutex_unlock(&team->lock);
    team->at = 0;
    team->done_bytes += slot->source_bytes;
    if (rewrite->on_progress && !rewrite->on_progress(rewrite->user, team->done_bytes, team->total_bytes))
        return error_set(error, RUNNEL_ECANCELLED, "stopped");
    return RUNNEL_OK;
}

/* A gguf_fill: tensors come in the order of their pieces, so offset says nothing new. */
static int fill_from_slots(void *arg, uint64_t offset, void *buffer, size_t n, runnel_error *error)
{
    struct team_state *team = arg;
    uint8_t *to = buffer;
    (void)offset;
    while (n) {
        struct slot *slot = wait_for_slot(team);
        if (slot->code) {
            if (error)
                *error = slot->error;
            return slot->code;
        }
        size_t part = slot->n_bytes - team->at < n ? slot->n_bytes - team->at : n;
        memcpy(to, slot->bytes + team->at, part);
        to += part;
        n -= part;
        team->at += part;
        int code = team->at == slot->n_bytes ? finish_slot(team, slot, error) : RUNNEL_OK;
        if (code)
            return code;
    }
    return RUNNEL_OK;
}

/* The whole ----------------------------------------------------------------------------------------------- */

static void measure(struct team_state *team)
{
    const struct gguf *from = team->rewrite->from;
    for (size_t i = 0; i < gguf_n_tensors(from); i++) {
        const struct gguf_tensor *tensor = gguf_tensor_at(from, i);
        const struct quant_info *info = quant_find((uint32_t)team->rewrite->tensors[i].type);
        uint64_t n_rows = rows_of(tensor) < rows_at_once(tensor) ? rows_of(tensor) : rows_at_once(tensor);
        size_t bytes = (size_t)(n_rows * tensor->row_bytes);
        size_t out = (size_t)(n_rows * (tensor->dims[0] / info->block_values * info->block_bytes));
        if (tensor->dims[0] > team->piece_values)
            team->piece_values = (size_t)tensor->dims[0];
        if (bytes > team->piece_bytes)
            team->piece_bytes = bytes;
        if (out > team->out_bytes)
            team->out_bytes = out;
        team->total_bytes += tensor->n_bytes;
    }
}

static int create_slots(struct team_state *team, runnel_error *error)
{
    team->n_slots = SLOTS_PER_THREAD * team->rewrite->n_threads;
    team->slots = calloc(team->n_slots, sizeof *team->slots);
    bool there = team->slots;
    for (size_t i = 0; i < team->n_slots && there; i++)
        there = (team->slots[i].bytes = malloc(team->out_bytes + 1));
    if (there)
        return RUNNEL_OK;
    return error_set(error, RUNNEL_ENOMEM, "no memory for %zu pieces of %zu bytes", team->n_slots,
                     team->out_bytes);
}

static void free_slots(struct team_state *team)
{
    for (size_t i = 0; i < team->n_slots && team->slots; i++)
        free(team->slots[i].bytes);
    free(team->slots);
}

static void stop_threads(struct team_state *team, pthread_t *threads, unsigned n)
{
    pthread_mutex_lock(&team->lock);
    team->stopping = true;
    pthread_cond_broadcast(&team->changed);
    pthread_mutex_unlock(&team->lock);
    for (unsigned i = 0; i < n; i++)
        pthread_join(threads[i], NULL);
}

/* Starts the threads, writes, and waits for their end. */
static int write_with_threads(struct team_state *team, struct gguf_writer *writer, const char *path,
                              runnel_error *error)
{
    unsigned n_wanted = team->rewrite->n_threads, n = 0;
    pthread_t *threads = calloc(n_wanted, sizeof *threads);
    int failure = 0, code;
    while (threads && n < n_wanted && (failure = thread_start(&threads[n], run_thread, team)) == 0)
        n++;
    if (n == 0) /* fewer than asked for are enough */
        code = error_set(error, RUNNEL_ENOMEM, "%s: no thread could be started: %s", path,
                         strerror(threads ? failure : ENOMEM));
    else
        code = gguf_writer_save(writer, path, error);
    stop_threads(team, threads, n);
    free(threads);
    return code;
}

int model_rewrite(const struct rewrite *rewrite, struct gguf_writer *writer, const char *path,
                  runnel_error *error)
{
    struct team_state team = {
        .rewrite = rewrite, .lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER};
    measure(&team);
    int code = create_slots(&team, error);
    if (!code) {
        for (size_t i = 0; i < gguf_n_tensors(rewrite->from); i++) {
            const struct gguf_tensor *tensor = gguf_tensor_at(rewrite->from, i);
            gguf_writer_add_tensor(writer, tensor->name, rewrite->tensors[i].type, tensor->n_dims,
                                   tensor->dims, fill_from_slots, &team);
        }
        code = write_with_threads(&team, writer, path, error);
    } else
        error_prefix(error, "%s", path);
    free_slots(&team);
    pthread_cond_destroy(&team.changed);
    pthread_mutex_destroy(&team.lock);
    return code;
}
