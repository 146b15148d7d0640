/* gguf_raw.h: what tools that copy model files need beside gguf.h. */
#ifndef RUNNEL_MODEL_GGUF_RAW_H
#define RUNNEL_MODEL_GGUF_RAW_H

#include "model/gguf.h"

/* As gguf_open, but reads the keys only and gives a file without tensors: for the keys of a file cut after
 * them. */
int gguf_open_keys_only(const char *path, struct gguf **gguf, runnel_error *error);

/* Where in the file the value of key i lies, as it is encoded after its type. */
void gguf_key_raw(const struct gguf *gguf, size_t i, uint64_t *offset, uint64_t *n_bytes);

#endif
