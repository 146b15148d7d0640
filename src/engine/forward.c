/* forward.c: a step from the engine to the back ends that compute it, one range of layers after the other (see forward.h). */
#include "engine/forward.h"

#include <stdlib.h>

struct part {
    const struct backend_kind *kind;
    struct backend *backend;
};

struct forward {
    struct kvcache *cache;
    struct part *parts; /* [n_parts] */
    size_t n_parts;
    struct backend_row *rows; /* [n_rows_max] */
    float *hidden; /* [n_rows_max, n_hidden]: from one part to the next; NULL if there is one part */
    void (*on_inputs)(void *user, const struct backend_inputs *inputs); /* NULL: nobody wants them */
    void *user;
    /* What was begun and not waited for. */
    struct backend_step step; /* n_rows 0: no step */
    uint32_t logits_first, n_logits;
    struct backend_best best; /* n 0: none is asked for */
};

/* Creating ------------------------------------------------------------------------------------------------ */

size_t forward_page_bytes(const struct forward_part *parts, size_t n_parts, const struct weights *weights)
{
    size_t n_bytes = 0;
    uint32_t first_layer = 0;
    for (size_t i = 0; i < n_parts; first_layer = parts[i++].end_layer)
        n_bytes += parts[i].kind->page_bytes(weights, first_layer, parts[i].end_layer);
    return n_bytes;
}

struct backend_options forward_backend_options(const struct forward_options *options, uint32_t first_layer,
                                               uint32_t end_layer)
{
    uint32_t n_positions = options->n_positions, n_tokens = options->n_tokens;
    return (struct backend_options){
        .weights = options->weights,
        .kernels = options->kernels,
        .device = options->device,
        .team = options->team,
        .n_threads = options->n_threads,
        .first_layer = first_layer,
        .end_layer = end_layer,
        .n_pages = options->n_pages,
        .n_positions = n_positions ? n_positions : options->weights->config.n_context_train,
        .n_sequences = options->n_sequences ? options->n_sequences : options->n_rows_max,
        .n_rows_max = options->n_rows_max,
        .n_logits_max = options->n_logits_max,
        .n_tokens = n_tokens ? n_tokens : options->weights->config.n_vocab,
        .touches_later = options->touches_later,
    };
}

static void add_memory(struct backend_memory *memory, const struct backend_memory *of_part)
{
    memory->kv_bytes += of_part->kv_bytes;
    memory->kv_bytes_to_touch += of_part->kv_bytes_to_touch;
    memory->scratch_bytes += of_part->scratch_bytes;
    memory->kv_bytes_on_device += of_part->kv_bytes_on_device;
    memory->shared_bytes += of_part->shared_bytes;
}

void forward_foresee(const struct forward_options *options, struct backend_memory *memory)
{
    uint32_t first_layer = 0;
    *memory = (struct backend_memory){.kv_bytes = 0};
    for (size_t i = 0; i < options->n_parts; first_layer = options->parts[i++].end_layer) {
        struct backend_memory of_part;
        const struct backend_options backend =
            forward_backend_options(options, first_layer, options->parts[i].end_layer);
        options->parts[i].kind->foresee(&backend, &of_part);
        add_memory(memory, &of_part);
    }
}

static int open_parts(struct forward *forward, const struct forward_options *options, runnel_error *error)
{
    int failure = RUNNEL_OK;
    uint32_t first_layer = 0;
    for (size_t i = 0; i < options->n_parts && !failure; first_layer = options->parts[i++].end_layer) {
        struct part *part = &forward->parts[i];
        const struct backend_options backend =
            forward_backend_options(options, first_layer, options->parts[i].end_layer);
        part->kind = options->parts[i].kind;
        failure = part->kind->open(&backend, &part->backend, error);
        forward->n_parts += !failure;
    }
    return failure;
}

int forward_create(const struct forward_options *options, struct forward **out, runnel_error *error)
{
    size_t n_rows = options->n_rows_max, n_hidden = options->weights->config.n_hidden;
    struct forward *forward = calloc(1, sizeof *forward);
    if (!forward)
        return error_set(error, RUNNEL_ENOMEM, "no memory for steps of %zu rows", n_rows);
    int failure = RUNNEL_OK;
    forward->cache = options->cache;
    forward->parts = calloc(options->n_parts, sizeof *forward->parts);
    forward->rows = malloc(n_rows * sizeof *forward->rows);
    if (options->n_parts > 1)
        forward->hidden = malloc(n_rows * n_hidden * sizeof *forward->hidden);
    if (!forward->parts || !forward->rows || (options->n_parts > 1 && !forward->hidden))
        failure = error_set(error, RUNNEL_ENOMEM, "no memory for steps of %zu rows", n_rows);
    if (!failure)
        failure = open_parts(forward, options, error);
    if (failure) {
        forward_free(forward);
        return failure;
    }
    *out = forward;
    return RUNNEL_OK;
}

void forward_free(struct forward *forward)
{
    if (!forward)
        return;
    for (size_t i = 0; i < forward->n_parts; i++)
        forward->parts[i].kind->close(forward->parts[i].backend);
    free(forward->parts);
    free(forward->rows);
    free(forward->hidden);
    free(forward);
}

/* Steps --------------------------------------------------------------------------------------------------- */

static int begin_part(const struct forward *forward, size_t i, runnel_error *error)
{
    const struct part *part = &forward->parts[i];
    return part->kind->begin(part->backend, &forward->step, error);
}

void forward_tell_inputs(struct forward *forward,
                         void (*on_inputs)(void *user, const struct backend_inputs *inputs), void *user)
{
    forward->on_inputs = on_inputs;
    forward->user = user;
}

int forward_begin(struct forward *forward, const struct forward_row *rows, uint32_t n_rows, uint32_t *n_kept,
                  runnel_error *error)
{
    uint32_t n_wanted = 0, n_pages;
    for (uint32_t i = 0; i < n_rows; i++) {
        forward->rows[i] = (struct backend_row){
            .pages = kvcache_pages(forward->cache, rows[i].sequence, &n_pages),
            .position = rows[i].position,
            .token = rows[i].token,
            .wants_logits = rows[i].wants_logits,
        };
        n_wanted += rows[i].wants_logits;
    }
    forward->step = (struct backend_step){
        .rows = forward->rows,
        .n_rows = n_rows,
        .hidden_in = forward->hidden,
        .hidden_out = forward->hidden,
        .on_inputs = forward->on_inputs,
        .user = forward->user,
    };
    forward->step.n_copies = kvcache_copies(forward->cache, &forward->step.copies);
    int failure = begin_part(forward, 0, error);
    if (failure) {
        forward->step.n_rows = 0;
        return failure;
    }
    kvcache_copies_made(forward->cache);
    *n_kept = n_wanted;
    return RUNNEL_OK;
}

void forward_begin_logits(struct forward *forward, uint32_t first, uint32_t n)
{
    forward->logits_first = first;
    forward->n_logits = n;
}

bool forward_finds_best(const struct forward *forward)
{
    return forward->parts[forward->n_parts - 1].kind->begin_best != NULL;
}

void forward_begin_best(struct forward *forward, const struct backend_best *best)
{
    forward->best = *best;
}

/* Waits for the last part, with the logits that were asked for. */
static int wait_for_last(const struct forward *forward, float **logits, runnel_error *error)
{
    const struct part *last = &forward->parts[forward->n_parts - 1];
    int failure = RUNNEL_OK;
    if (forward->best.n)
        failure = last->kind->begin_best(last->backend, &forward->best, error);
    else if (forward->n_logits)
        failure = last->kind->begin_logits(last->backend, forward->logits_first, forward->n_logits, error);
    int waited =
        last->kind->wait(last->backend, logits, failure ? NULL : error); /* the first error is told */
    return failure ? failure : waited;
}

int forward_wait(struct forward *forward, float **logits, runnel_error *error)
{
    int failure = RUNNEL_OK;
    float *none;
    *logits = NULL;
    for (size_t i = 0; i + 1 < forward->n_parts && forward->step.n_rows && !failure; i++) {
        failure = forward->parts[i].kind->wait(forward->parts[i].backend, &none, error);
        if (!failure)
            failure = begin_part(forward, i + 1, error);
    }
    if (!failure)
        failure = wait_for_last(forward, logits, error);
    if (failure)
        *logits = NULL;
    forward->step.n_rows = forward->n_logits = forward->best.n = 0;
    return failure;
}

bool forward_touch(struct forward *forward, size_t n_bytes)
{
    for (size_t i = 0; i < forward->n_parts; i++) {
        const struct part *part = &forward->parts[i];
        if (part->kind->touch && part->kind->touch(part->backend, n_bytes))
            return true;
    }
    return false;
}

void forward_get_memory(const struct forward *forward, struct backend_memory *memory)
{
    *memory = (struct backend_memory){.kv_bytes = 0};
    for (size_t i = 0; i < forward->n_parts; i++) {
        struct backend_memory of_part;
        forward->parts[i].kind->get_memory(forward->parts[i].backend, &of_part);
        add_memory(memory, &of_part);
    }
}

static uint32_t larger(uint32_t a, uint32_t b)
{
    return a > b ? a : b;
}

void forward_get_preference(const struct forward *forward, struct backend_preference *preference)
{
    *preference = (struct backend_preference){.n_rows_together = 1, .n_rows_prompt = 1};
    for (size_t i = 0; i < forward->n_parts; i++) {
        struct backend_preference of_part;
        forward->parts[i].kind->get_preference(forward->parts[i].backend, &of_part);
        preference->n_rows_together = larger(preference->n_rows_together, of_part.n_rows_together);
        preference->n_rows_prompt = larger(preference->n_rows_prompt, of_part.n_rows_prompt);
    }
}
