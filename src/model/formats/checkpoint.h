/* checkpoint.h: the weights of a Hugging Face folder: one safetensors file, or several with an index.
 *
 * A struct checkpoint owns the open files and the list of their tensors, found by name. Whoever takes a tensor marks it, so
 * that what nobody took can be told. One thread. */
#ifndef RUNNEL_MODEL_FORMATS_CHECKPOINT_H
#define RUNNEL_MODEL_FORMATS_CHECKPOINT_H

#include "kernels/quants.h"
#include "model/formats/safetensors.h"

#include <stdbool.h>

struct checkpoint_tensor {
    const struct safetensors *file;
    const struct safetensor *tensor;
    bool is_taken;
};

struct checkpoint {
    struct safetensors **files;
    size_t n_files;
    struct checkpoint_tensor *tensors; /* in the order of their names */
    size_t n;
};

/* Refused are a folder without such files, files that the index names and the folder lacks, tensors that are in another file
 * than the index says, and names that are there twice. */
int checkpoint_open(const char *folder, struct checkpoint **out, runnel_error *error);
void checkpoint_close(struct checkpoint *checkpoint);

/* NULL: there is none of that name. */
struct checkpoint_tensor *checkpoint_find(const struct checkpoint *checkpoint, const char *name);

/* The type of a tensor of floats; RUNNEL_EUNSUPPORTED of any other. */
int checkpoint_float_type(const struct checkpoint_tensor *tensor, enum tensor_type *type,
                          runnel_error *error);

#endif
