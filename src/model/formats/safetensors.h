/* safetensors.h: reads safetensors files and trusts nothing in them.
 *
 * The format: eight bytes with the length of a header, a JSON object in which each key is a tensor with its dtype, its shape
 * and where its values lie behind the header, then the values, row after row, without gaps. A struct safetensors owns the
 * descriptor and the list; it is immutable once open, and any number of threads may read. Files are read with pread, never
 * mapped. */
#ifndef RUNNEL_MODEL_FORMATS_SAFETENSORS_H
#define RUNNEL_MODEL_FORMATS_SAFETENSORS_H

#include "base/error.h"

#include <stddef.h>
#include <stdint.h>

enum safetensors_dtype {
    DTYPE_F32,
    DTYPE_F16,
    DTYPE_BF16,
    DTYPE_I32,
    DTYPE_OTHER, /* known to the format, and no value of a model that is converted here */
};

enum { SAFETENSORS_DIMS_MAX = 8 };

struct safetensor {
    char *name;
    enum safetensors_dtype dtype;
    const char *dtype_name;              /* "BF16" */
    uint32_t n_dims;                     /* 0: one value */
    uint64_t dims[SAFETENSORS_DIMS_MAX]; /* rows first; unused ones are 1 */
    uint64_t offset;                     /* from the start of the file */
    uint64_t n_bytes;
};

struct safetensors {
    char *path;
    int fd;
    uint64_t file_bytes;
    struct safetensor *tensors; /* in the order of their values */
    size_t n;
};

/* name: how messages call the file. Close with safetensors_close. */
int safetensors_open(const char *path, const char *name, struct safetensors **out, runnel_error *error);
void safetensors_close(struct safetensors *file);

/* Reads n bytes of a tensor's values from an offset within them on. The message names the tensor. */
int safetensors_read(const struct safetensors *file, const struct safetensor *tensor, uint64_t offset,
                     void *buffer, size_t n, runnel_error *error);

#endif
