/* gguf_write.h: writes GGUF files, version 3.
 *
 * A writer collects keys and tensors in memory and writes them with gguf_writer_save. Adding does not fail by
 * itself: a lack of memory is remembered and reported by gguf_writer_save, so that a list of keys reads as a
 * list. The writer writes what it is told, in the order it is told: no check for duplicates or known names.
 * One thread. */
#ifndef RUNNEL_MODEL_GGUF_WRITE_H
#define RUNNEL_MODEL_GGUF_WRITE_H

#include "model/gguf.h"

struct gguf_writer;

/* NULL: no memory. */
struct gguf_writer *gguf_writer_create(void);
void gguf_writer_free(struct gguf_writer *writer);

void gguf_writer_add_u32(struct gguf_writer *writer, const char *key, uint32_t value);
void gguf_writer_add_i32(struct gguf_writer *writer, const char *key, int32_t value);
void gguf_writer_add_f32(struct gguf_writer *writer, const char *key, float value);
void gguf_writer_add_bool(struct gguf_writer *writer, const char *key, bool value);
void gguf_writer_add_string(struct gguf_writer *writer, const char *key, const char *value);
/* Any type but GGUF_STRING and GGUF_ARRAY; value points to one of that type. */
void gguf_writer_add_scalar(struct gguf_writer *writer, const char *key, enum gguf_type type,
                            const void *value);
/* For GGUF_STRING values is a struct gguf_string[n]. */
void gguf_writer_add_array(struct gguf_writer *writer, const char *key, enum gguf_type type, size_t n,
                           const void *values);
/* The value of key i of another file as it is there, under the same name. */
void gguf_writer_add_copy(struct gguf_writer *writer, const struct gguf *from, size_t i);

/* The alignment of tensors, a power of two; 32 if it is never called. Adds the key general.alignment. */
void gguf_writer_set_alignment(struct gguf_writer *writer, uint32_t alignment);

/* Gives the bytes [offset, offset + n) of a tensor's data. Called in ascending order, for every tensor once
 * through, by gguf_writer_save. Returns 0 or an error, which ends the writing. */
typedef int gguf_fill(void *arg, uint64_t offset, void *buffer, size_t n, runnel_error *error);

/* dims[0] is the length of a row and must be whole blocks of type. arg must live until gguf_writer_save has
 * returned. */
void gguf_writer_add_tensor(struct gguf_writer *writer, const char *name, enum tensor_type type,
                            uint32_t n_dims, const uint64_t *dims, gguf_fill *fill, void *arg);

/* Writes the file (base/new_file.h), so that path never holds half of it. The directory is not synced. */
int gguf_writer_save(struct gguf_writer *writer, const char *path, runnel_error *error);

#endif
