/* input_file.h: regular files that are read with pread, never mapped: one that shrinks is an error and no signal.
 *
 * Messages do not name the file: the caller does. Nothing is kept; any thread. */
#ifndef RUNNEL_BASE_INPUT_FILE_H
#define RUNNEL_BASE_INPUT_FILE_H

#include "base/error.h"

#include <stddef.h>
#include <stdint.h>

/* A regular file, open for reading, and its length. */
int input_file_open(const char *path, int *fd, uint64_t *n_bytes, runnel_error *error);

/* Reads exactly n bytes at an offset; a file that ends before is RUNNEL_EIO. */
int input_file_read(int fd, uint64_t offset, void *buffer, size_t n, runnel_error *error);

#endif
