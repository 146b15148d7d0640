/* model_check.h: is a file of this computer the model that it is called? Owns nothing; any thread. */
#ifndef RUNNEL_CLI_MODEL_CHECK_H
#define RUNNEL_CLI_MODEL_CHECK_H

#include <stdint.h>

#include "runnel.h"

/* Compares the file's length with n_bytes (0: not known) and its checksum with sha256 ("": not known; then the file has to
 * be a GGUF file that is as long as its own header says). found: its checksum. RUNNEL_EFORMAT with what was expected and
 * what is there. */
int model_check(const char *path, uint64_t n_bytes, const char *sha256, char found[65], runnel_error *error);

#endif
