/* tensors.h: which tensors a model has, by its configuration, and where the values of each go.
 *
 * One list (tensors.c) says for each tensor its name, its shape, whether it must be there, and its field in struct weights or
 * struct layer_weights; what is read, checked and counted follows from it. One thread. */
#ifndef RUNNEL_MODEL_TENSORS_H
#define RUNNEL_MODEL_TENSORS_H

#include "model/weights.h"

enum { TENSORS_NAME_BYTES = 48 }; /* room for any name of the list */

/* A tensor of the list and where it goes: a matrix or a vector. */
struct tensor_slot {
    char name[TENSORS_NAME_BYTES];
    const struct gguf_tensor *tensor; /* NULL: optional, and not in the file */
    bool is_optional;
    struct packed_matrix *matrix; /* its field; or NULL, and it is a vector */
    const float **vector;
    uint32_t n_rows, n_columns; /* expected; a vector has one row */
    uint32_t chunk_tiles;       /* weights.c's: tiles read at once */
    uint32_t n_chunks, first_chunk;
};

struct tensor_list {
    struct tensor_slot *slots; /* [n]; the model's own first, then layer by layer */
    size_t n;
};

/* Lists the tensors of weights->config and finds them in the file. Refused are a file without a tensor that must be there,
 * one with a tensor of another shape, and one with a tensor that the list does not have. */
int tensors_bind(const struct gguf *gguf, struct weights *weights, struct tensor_list *list,
                 runnel_error *error);
void tensors_free(struct tensor_list *list);

/* The name that a matrix of weights has in its file: of the output head of a tied model that of the embedding. */
void tensors_name(const struct weights *weights, const struct packed_matrix *matrix, char *name, size_t size);

/* Fills in what weights says of its size, once the matrices have their layouts. */
void tensors_count(const struct tensor_list *list, struct weights *weights);

#endif
