/* convert.h: a Hugging Face folder to a GGUF file.
 *
 * What is read and refused is said in docs/model-files.md. Tensors are read, changed and written row by row, so that beyond the
 * tokenizer, which is freed before, memory holds no more than one tensor of four-bit weights. One thread. */
#ifndef RUNNEL_MODEL_FORMATS_CONVERT_H
#define RUNNEL_MODEL_FORMATS_CONVERT_H

#include "base/error.h"
#include "kernels/quants.h"

#include <stdbool.h>
#include <stdint.h>

struct convert_options {
    const char *folder, *output;
    bool has_type; /* else matrices keep the type that most of them have */
    enum tensor_type type;
    void (*on_remark)(void *user, const char *line); /* of what was left out or changed; NULL: nobody */
    /* Bytes of values written, of so many. False ends it: RUNNEL_ECANCELLED. NULL: nobody. */
    bool (*on_progress)(void *user, uint64_t done, uint64_t total);
    void *user;
};

/* The types that a file can be asked for, by their names, in capital or small letters. */
bool convert_find_type(const char *name, enum tensor_type *type);

/* Writes output, or on failure nothing: it is written beside it first. */
int convert_folder(const struct convert_options *options, runnel_error *error);

#endif
