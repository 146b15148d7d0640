/* model_check.h: is a file of this computer the model that it is called, and is it one at all? Owns nothing; any thread. */
#ifndef RUNNEL_CLI_MODEL_CHECK_H
#define RUNNEL_CLI_MODEL_CHECK_H

#include <stdint.h>

#include "runnel.h"

/* Compares the file's length with n_bytes (0: not known) and its checksum with sha256 ("": not known; then the file has to
 * be a GGUF file that is as long as its own header says). It may be a part of a model. found: its checksum; NULL: not
 * wanted. RUNNEL_EFORMAT with what was expected and what is there. */
int model_check(const char *path, uint64_t n_bytes, const char *sha256, char *found, runnel_error *error);

/* Is the file part `number` (from 1 on) of `count`, as it says itself? 1 of 1: it is a whole model. */
int model_check_split(const char *path, unsigned number, unsigned count, runnel_error *error);

/* Do all parts of the model whose first is at path belong together? */
int model_check_whole(const char *path, runnel_error *error);

/* What a file is good for, by its own header. */
enum model_content {
    MODEL_WHOLE,      /* or a file of which that cannot be told */
    MODEL_VOCABULARY, /* it has no tensors: tokenize and template open it, run and serve do not */
    MODEL_CUT,        /* it has less than its header says */
    MODEL_IMPORTANCE, /* an importance file: quantize reads it */
    MODEL_ADDITION,   /* something else that goes beside a model */
    MODEL_FOREIGN,    /* no GGUF file */
};
enum model_content model_look(const char *path);

#endif
