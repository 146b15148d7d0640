/* forward.h: one step of the model over a flat batch of rows.
 *
 * Prefill, decode and mixtures of them are the same code with different rows. The result of a row does not
 * depend on the rows beside it, on how a prompt is cut into steps, or on the number of threads: bit for bit.
 *
 * A struct forward owns the keys and values of the cache's pages and the scratch of a step. One thread at a time calls it
 * (the engine thread, member 0 of the team); it reads the weights and writes pages that the cache has reserved. No allocation
 * after forward_create. */
#ifndef RUNNEL_ENGINE_FORWARD_H
#define RUNNEL_ENGINE_FORWARD_H

#include "engine/kvcache.h"
#include "kernels/team.h"
#include "model/weights.h"

struct forward;

struct forward_row {
    int sequence;      /* of the cache; rows of one sequence stand together, in ascending position */
    uint32_t position; /* reserved in the cache; all positions before it are committed or in this batch */
    int32_t token;     /* 0 to n_vocab - 1 */
    bool wants_logits;
};

/* n_pages: the cache's. */
int forward_create(const struct weights *weights, const struct kernels *kernels, struct team *team,
                   struct kvcache *cache, uint32_t n_pages, uint32_t n_rows_max, struct forward **forward,
                   runnel_error *error);
void forward_free(struct forward *forward);

/* Computes n_rows (1 to n_rows_max) rows: their keys and values are in the cache afterwards (the caller
 * commits them), and the final hidden states of those that want logits are kept until the next step. Returns
 * how many those are. */
uint32_t forward_step(struct forward *forward, const struct forward_row *rows, uint32_t n_rows);

/* The logits of n of the kept rows, counted from first in the order of the step: f32 [n][n_vocab]. */
void forward_logits(struct forward *forward, uint32_t first, uint32_t n, float *logits);

/* Bytes of keys and values. */
size_t forward_kv_bytes(const struct forward *forward);
/* Of one page, to size a pool. */
size_t forward_page_bytes(const struct weights *weights);

/* Bytes of scratch, for tests: linear in n_rows_max, and independent of the context. */
size_t forward_scratch_bytes(const struct forward *forward);

#endif
