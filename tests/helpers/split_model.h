/* split_model.h: cuts a model file into parts as gguf-split does, right ones and damaged ones. One thread. */
#ifndef RUNNEL_TESTS_SPLIT_MODEL_H
#define RUNNEL_TESTS_SPLIT_MODEL_H

#include "model/gguf_write.h"

struct split_model_options {
    unsigned n_parts;
    bool keys_first; /* no tensors in the first part, as gguf-split --no-tensor-first-split */
    /* Damage, done to one part: its number from 1 on; 0: to none. Of the values -1 is what is right. */
    unsigned damaged;
    int64_t split_no, split_count, n_tensors;
    bool without_split;      /* none of the three keys */
    const char *without;     /* a tensor that is left out */
    const char *twice;       /* a tensor of an earlier part that is there again */
    const char *key, *value; /* one more key */
};

void split_model_defaults(struct split_model_options *options, unsigned n_parts);

/* The path of a part: STEM-00001-of-00003.gguf. */
void split_model_path(const char *stem, unsigned number, unsigned n_parts, char *path, size_t size);

/* Writes the parts of the model at path. Tensors are dealt out in the file's order, as many to each part. */
int split_model_write(const struct split_model_options *options, const char *path, const char *stem,
                      runnel_error *error);

#endif
