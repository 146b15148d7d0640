/* forward.h: one step of the model over a flat batch of rows.
 *
 * Prefill, decode and mixtures of them are the same code with different rows. The result of a row does not
 * depend on the rows beside it, on how a prompt is cut into steps, or on the number of threads: bit for bit.
 *
 * A struct forward turns sequences of the cache into page tables and has them computed by back ends (backend/backend.h), each of
 * which has a range of layers; it cannot tell what they are. It owns them. One thread at a time calls it (the engine thread).
 * No allocation after forward_create.
 *
 * A step is begun, then waited for. Between the two nothing may be reserved, committed, rolled back, truncated or closed in
 * the cache, and the rows must stay as they are. */
#ifndef RUNNEL_ENGINE_FORWARD_H
#define RUNNEL_ENGINE_FORWARD_H

#include "backend/backend.h"
#include "engine/kvcache.h"

struct forward;

struct forward_row {
    int sequence;      /* of the cache; rows of one sequence stand together, in ascending position */
    uint32_t position; /* reserved in the cache; all positions before it are committed or in this batch */
    int32_t token;     /* 0 to n_vocab - 1 */
    bool wants_logits;
};

/* Which back end computes the layers after those of the part before, up to end_layer. */
struct forward_part {
    const struct backend_kind *kind;
    uint32_t end_layer;
};

struct forward_options {
    const struct forward_part *parts; /* [n_parts]; the last one ends with the model's last layer */
    size_t n_parts;
    const struct weights *weights;
    const struct kernels *kernels;
    struct backend_device *device; /* for the parts that compute on one; else NULL */
    struct team *team;
    unsigned n_threads; /* where the team is missing: how many members it will have */
    struct kvcache *cache;
    uint32_t n_pages;      /* the cache's */
    uint32_t n_positions;  /* of a sequence at most; 0: as many as the model was trained for */
    uint32_t n_sequences;  /* of the cache; 0: as many as rows */
    uint32_t n_rows_max;   /* of a step */
    uint32_t n_logits_max; /* rows of logits at a time */
    uint32_t n_tokens;     /* that can be drawn, from the vocabulary's first one on; 0: all */
    bool touches_later;    /* the memory of keys and values is brought in by forward_touch */
};

/* What a back end with these layers would be opened with. */
struct backend_options forward_backend_options(const struct forward_options *options, uint32_t first_layer,
                                               uint32_t end_layer);

/* Bytes of one page's keys and values, to size a pool. */
size_t forward_page_bytes(const struct forward_part *parts, size_t n_parts, const struct weights *weights);

/* What forward_get_memory will say; of the options team and cache may be missing. */
void forward_foresee(const struct forward_options *options, struct backend_memory *memory);

int forward_create(const struct forward_options *options, struct forward **forward, runnel_error *error);
void forward_free(struct forward *forward);

/* From the next step on, on_inputs is told the inputs of all products, as backend.h says; its rows are those of forward_begin. NULL: not
 * any more. */
void forward_tell_inputs(struct forward *forward,
                         void (*on_inputs)(void *user, const struct backend_inputs *inputs), void *user);

/* Begins to compute n_rows (1 to n_rows_max) rows: once it is waited for, their keys and values are in their pages (the caller
 * commits them), and the final hidden states of those that want logits are kept until the next step. *n_kept: how many those
 * are. */
int forward_begin(struct forward *forward, const struct forward_row *rows, uint32_t n_rows, uint32_t *n_kept,
                  runnel_error *error);

/* Asks for the logits of n (1 to n_logits_max) of the kept rows, counted from first in the order of the step: of the step that
 * was begun, or of the last one. */
void forward_begin_logits(struct forward *forward, uint32_t first, uint32_t n);

/* Whether the best token can be asked for instead of a row's logits, which takes less time; and asks for it, in place of
 * forward_begin_logits, as backend.h says. */
bool forward_finds_best(const struct forward *forward);
void forward_begin_best(struct forward *forward, const struct backend_best *best);

/* Waits for what was begun. *logits: f32 [n][n_vocab] if some were asked for, else NULL; the back end's, where the caller may
 * write until it asks again. After a failure nothing of the step counts: the caller gives back what it reserved. */
int forward_wait(struct forward *forward, float **logits, runnel_error *error);

/* Between two steps, with touches_later: brings in about n_bytes of the memory of keys and values that steps have not brought
 * in yet. False: all was there. */
bool forward_touch(struct forward *forward, size_t n_bytes);

/* Of all parts. */
void forward_get_memory(const struct forward *forward, struct backend_memory *memory);
/* Of the part that likes the most rows. */
void forward_get_preference(const struct forward *forward, struct backend_preference *preference);

#endif
