/* sampling_keys.h: the sampling values that a model's file has for requests which give none of their own, under
 * general.sampling. Any thread. */
#ifndef RUNNEL_MODEL_SAMPLING_KEYS_H
#define RUNNEL_MODEL_SAMPLING_KEYS_H

#include "base/error.h"
#include "model/gguf.h"

/* Sets in sampling what gguf says. A value that no request could have is left out: warning, of size bytes, then
 * says which and why, and is "" if all could be followed. */
void sampling_keys_read(const struct gguf *gguf, runnel_sampling *sampling, char *warning, size_t size);

#endif
