/* backend.h: the agreement between the engine and what computes for it.
 *
 * A back end holds the weights of a range of layers, the keys and values of all pages for these layers, and the scratch of a step.
 * The range that begins with layer 0 also holds the embedding, the one that ends with the last layer the output head and the
 * logits. Weights come packed (model/weights.h); a back end computes on them as they lie, or takes them to where it computes.
 *
 * A step is begun and waited for. At most one runs; until wait returns, what begin, begin_logits and begin_best were given must stay
 * as it is.
 * The result of a row does not depend on the rows beside it, on how a prompt is cut into steps, or on where the layers are
 * cut into ranges: bit for bit.
 *
 * One thread at a time calls a back end. Nothing is allocated after open. Every function that can fail says why; after a
 * failure nothing runs, and of the pages that the step was to write the content is undefined. */
#ifndef RUNNEL_BACKEND_BACKEND_H
#define RUNNEL_BACKEND_BACKEND_H

#include "backend/page_table.h"
#include "kernels/team.h"
#include "model/weights.h"

struct backend_device; /* something with memory of its own that computes layers: backend/devices.h */

/* What a back end is opened with; all of it lives longer than the back end. */
struct backend_options {
    const struct weights *weights;
    struct backend_device *device; /* for what is computed there; else NULL */
    const struct kernels *kernels; /* for what is computed on the CPU */
    struct team *team;             /* likewise; its member 0 is the calling thread */
    unsigned n_threads;            /* where the team is missing: how many members it will have */
    uint32_t first_layer, end_layer;
    uint32_t n_pages;      /* of the pool */
    uint32_t n_positions;  /* of a sequence at most */
    uint32_t n_sequences;  /* with rows in one step, at most */
    uint32_t n_rows_max;   /* of a step */
    uint32_t n_logits_max; /* rows of logits at a time */
    uint32_t n_tokens;     /* that can be drawn: the first of n_vocab */
    /* The memory of keys and values is brought in by touch, and by steps that write there, not by open. */
    bool touches_later;
};

struct backend_row {
    /* The page table of the row's sequence; it has entries for all positions up to this one. Rows of the same table are one
     * sequence, stand together and ascend. */
    const uint32_t *pages;
    uint32_t position; /* its page may be written; all positions before it are computed or in this step */
    int32_t token;     /* 0 to n_vocab - 1 */
    bool wants_logits;
};

/* A row on its way into products, as floats, before it is rounded for them. */
enum { BACKEND_INPUTS_MATRICES = 4 };
struct backend_inputs {
    uint32_t row; /* of the step */
    /* [n_matrices]: what the row is multiplied with, each a matrix of struct weights; all have as many columns as there are
     * values. */
    const struct packed_matrix *matrices[BACKEND_INPUTS_MATRICES];
    uint32_t n_matrices;
    const float *values; /* valid during the call */
};

struct backend_step {
    const struct page_copy *copies; /* [n_copies]: made first, one after the other */
    uint32_t n_copies;
    const struct backend_row *rows; /* [n_rows] */
    uint32_t n_rows;                /* 1 to n_rows_max */
    /* f32 [n_rows, n_hidden]: what the layers before the range and those of the range have made of the rows. `in` is not read
     * by the range of the first layer, `out` not written by that of the last one. They may be the same memory. */
    const float *hidden_in;
    float *hidden_out;
    /* NULL, or told the inputs of all products of the layers and of the output head: matrices in the order in which they are
     * computed, for each of them row after row (for the head those that want logits, whether these are asked for or not). Called by
     * the thread that waits for the step, while it computes; it must not call the back end. A back end that cannot
     * tell them fails with RUNNEL_EUNSUPPORTED. */
    void (*on_inputs)(void *user, const struct backend_inputs *inputs);
    void *user;
};

/* Rows of which the logits are asked for, or no more than the token with the largest. */
struct backend_best {
    uint32_t first, n;     /* as of begin_logits */
    const bool *is_enough; /* [n] the token is enough: the row's logits are not given */
    /* [n], written by wait, for those rows: of the tokens that can be drawn the one with the largest logit, of equals the lowest; -1: a
     * logit is NaN or +infinity, or all are -infinity. */
    int32_t *tokens;
};

struct backend; /* each kind has its own struct, of which this is the first member */

struct backend_memory {
    size_t kv_bytes;          /* keys and values */
    size_t kv_bytes_to_touch; /* of these, what touch may have to bring in yet */
    size_t
        scratch_bytes; /* of steps: linear in n_rows_max and n_logits_max, and independent of the context */
    size_t kv_bytes_on_device; /* of kv_bytes, those in a device's own memory: not in this machine's */
    size_t shared_bytes; /* besides kv_bytes, what a device has of this machine's memory: weights, arrays */
};

/* How many layers of a range fit into a device's memory, with their keys and values and all that goes with them. */
struct backend_room {
    uint32_t n_layers;     /* from the range's first one on */
    char why_no_more[160]; /* where that is not all of them */
};

/* What steps a back end likes. What steps take is learned from them, but not these. */
struct backend_preference {
    uint32_t
        n_rows_together; /* that products take at a time: a step of a multiple of it leaves no fewer over; 1 or more */
    uint32_t
        n_rows_prompt; /* of a step, where nobody waits for it: with more, a row takes hardly less; 1 or more */
};

/* The functions of one kind of back end. */
struct backend_kind {
    /* Bytes of one page, to size a pool. */
    size_t (*page_bytes)(const struct weights *weights, uint32_t first_layer, uint32_t end_layer);

    /* What get_memory will say once it is opened so, and touched; of the options the team may be missing. */
    void (*foresee)(const struct backend_options *options, struct backend_memory *memory);

    /* Of a kind that computes on a device: how many layers of the range have room there. NULL: this process's memory is its own,
     * and foresee tells. */
    void (*find_room)(const struct backend_options *options, struct backend_room *room);

    /* *backend is untouched on failure. */
    int (*open)(const struct backend_options *options, struct backend **backend, runnel_error *error);
    void (*close)(struct backend *backend); /* NULL is fine */

    int (*begin)(struct backend *backend, const struct backend_step *step, runnel_error *error);

    /* Asks the range of the last layer for the logits of n (1 to n_logits_max) of the rows that want them, counted from `first` on in
     * the order of the step: of the step that runs, or of the last one. */
    int (*begin_logits)(struct backend *backend, uint32_t first, uint32_t n, runnel_error *error);

    /* The same, where for some of the rows the best token is enough. NULL: this kind has no such function. */
    int (*begin_best)(struct backend *backend, const struct backend_best *best, runnel_error *error);

    /* Waits for what was begun. *logits: f32 [n, n_vocab], if some were asked for; the caller may write there, until it asks
     * again. */
    int (*wait)(struct backend *backend, float **logits, runnel_error *error);

    /* Between two steps, with touches_later: brings in about n_bytes of the memory of keys and values. False: all of it was
     * there. NULL: there is nothing to bring in. */
    bool (*touch)(struct backend *backend, size_t n_bytes);

    void (*get_memory)(const struct backend *backend, struct backend_memory *memory);
    void (*get_preference)(const struct backend *backend, struct backend_preference *preference);
};

struct backend {
    const struct backend_kind *kind;
};

#endif
