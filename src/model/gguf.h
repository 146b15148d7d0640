/* gguf.h: reads GGUF files, versions 2 and 3, and trusts nothing in them.
 *
 * A struct gguf owns the descriptors of its files, the parsed keys and the tensor list. A model may lie in several files;
 * readers see one, in which the bytes of all stand one after the other. It is immutable after gguf_open; any
 * number of threads may call the other functions. Files are read with pread through bounded buffers, never mapped. What
 * is refused is listed in docs/model-files.md; each refusal is one line that names the key or tensor. */
#ifndef RUNNEL_MODEL_GGUF_H
#define RUNNEL_MODEL_GGUF_H

#include "base/error.h"
#include "kernels/quants.h"

#include <stdbool.h>

enum gguf_type { /* of a value; the numbers of the file format */
                 GGUF_U8,
                 GGUF_I8,
                 GGUF_U16,
                 GGUF_I16,
                 GGUF_U32,
                 GGUF_I32,
                 GGUF_F32,
                 GGUF_BOOL,
                 GGUF_STRING,
                 GGUF_ARRAY,
                 GGUF_U64,
                 GGUF_I64,
                 GGUF_F64,
};

/* Bytes inside the file's metadata: not zero-terminated. They live as long as the struct gguf. */
struct gguf_string {
    const char *bytes;
    size_t len;
};

struct gguf_array {
    enum gguf_type type; /* of the elements; never GGUF_ARRAY */
    size_t n;
    const void
        *values; /* for GGUF_STRING a const struct gguf_string[n], else the packed little-endian values,
                           aligned for their type */
};

struct gguf_tensor {
    const char *name; /* zero-terminated */
    enum tensor_type type;
    uint32_t n_dims;
    uint64_t dims[4]; /* dims[0] is the length of a row; unused ones are 1 */
    uint64_t offset;  /* from the start of the file; for gguf_read */
    uint64_t n_bytes;
    uint64_t row_bytes; /* of dims[0] values */
};

struct gguf;

/* Opens and checks the file, and where it is the first of a model in parts (NAME-00001-of-00003.gguf) the others beside
 * it. Close with gguf_close. */
int gguf_open(const char *path, struct gguf **gguf, runnel_error *error);
void gguf_close(struct gguf *gguf);

/* Opens one file alone, though it may be a part: to check it before the others are there. */
int gguf_open_part(const char *path, struct gguf **gguf, runnel_error *error);

/* Which part a file is that was opened alone: *number from 1 on, of *count. A file that is whole is part 1 of 1. */
int gguf_get_split(const struct gguf *gguf, uint32_t *number, uint32_t *count, runnel_error *error);

const char *gguf_path(const struct gguf *gguf);    /* of the first part */
uint64_t gguf_file_bytes(const struct gguf *gguf); /* of all parts */
uint32_t gguf_version(const struct gguf *gguf);    /* of the first part */
size_t gguf_n_parts(const struct gguf *gguf);      /* files that are open; 1: the model is in one */
const char *gguf_part_path(const struct gguf *gguf, size_t i);
uint64_t gguf_part_bytes(const struct gguf *gguf, size_t i);

/* Whether general.type says so: "imatrix". */
bool gguf_has_type(const struct gguf *gguf, const char *type);
/* RUNNEL_EFORMAT if general.type says that the file is something else than a model. A vocabulary alone will do. */
int gguf_check_type(const struct gguf *gguf, runnel_error *error);
/* That, and RUNNEL_EFORMAT if it has no weights. */
int gguf_check_model(const struct gguf *gguf, runnel_error *error);

/* Keys in the file's order, for `inspect`. */
size_t gguf_n_keys(const struct gguf *gguf);
const char *gguf_key_name(const struct gguf *gguf, size_t i); /* zero-terminated */
enum gguf_type gguf_key_type(const struct gguf *gguf, size_t i);
bool gguf_has_key(const struct gguf *gguf, const char *key);
enum gguf_type gguf_find_type(const struct gguf *gguf, const char *key); /* of a key that is there */

/* A known key's value. RUNNEL_EFORMAT if it is missing or of another type (integers of any width are accepted where
 * they fit; f32 and f64 likewise), with a message that names the key. */
int gguf_get_u32(const struct gguf *gguf, const char *key, uint32_t *value, runnel_error *error);
int gguf_get_f32(const struct gguf *gguf, const char *key, float *value, runnel_error *error);
int gguf_get_bool(const struct gguf *gguf, const char *key, bool *value, runnel_error *error);
int gguf_get_string(const struct gguf *gguf, const char *key, struct gguf_string *value, runnel_error *error);
int gguf_get_array(const struct gguf *gguf, const char *key, enum gguf_type type, struct gguf_array *value,
                   runnel_error *error);

size_t gguf_n_tensors(const struct gguf *gguf);
const struct gguf_tensor *gguf_tensor_at(const struct gguf *gguf, size_t i); /* in the file's order */
const struct gguf_tensor *gguf_find_tensor(const struct gguf *gguf, const char *name); /* NULL: not there */

/* Reads exactly n bytes at an offset: of the bytes of all parts, one part after the other. A short read (the file shrank) or
 * a failing disk is RUNNEL_EIO with the offset. Thread safe. */
int gguf_read(const struct gguf *gguf, uint64_t offset, void *buffer, size_t n, runnel_error *error);

#endif
