/* rewrite.h: the tensors of a model's file into a new file, in other types.
 *
 * Several threads take pieces of rows in the file's order, read, decode and encode them; the caller's thread writes what is
 * ready, so that reading, computing and writing go on at once. Memory is a few pieces a thread, whatever the size of the
 * tensors. The bytes do not depend on the number of threads. */
#ifndef RUNNEL_MODEL_REWRITE_H
#define RUNNEL_MODEL_REWRITE_H

#include "model/gguf_write.h"

struct rewrite_tensor {
    enum tensor_type type;   /* as that of the file, and not changed: its bytes are copied */
    bool is_changed;         /* its rows go through struct rewrite's change first */
    const float *importance; /* of each column, see quantize_encode; NULL: none */
    uint32_t
        n_parts; /* of a tensor with three dimensions: importances, one after the other, for dims[2] matrices; else 1 */
};

struct rewrite {
    const struct gguf *from;
    const struct rewrite_tensor *tensors; /* one for each of the file, in its order */
    unsigned n_threads;                   /* 1 or more; beside the caller's, which mostly waits */

    /* Changes the values of a row (counted over all dimensions but the first) before they are encoded, of the tensors that say
     * so. Called by all threads. NULL: no tensor says so. */
    void (*change)(void *user, size_t tensor, uint64_t row, float *values);
    /* Bytes of the file that are done, of total; false: stop (RUNNEL_ECANCELLED). The caller's thread. NULL: nobody asks. */
    bool (*on_progress)(void *user, uint64_t done, uint64_t total);
    void *user;
};

/* Adds the tensors to a writer that has its keys, and writes the file: all of it, or nothing is left. A value that its type
 * cannot hold is an error that names the tensor. */
int model_rewrite(const struct rewrite *rewrite, struct gguf_writer *writer, const char *path,
                  runnel_error *error);

#endif
