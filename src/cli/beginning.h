/* beginning.h: what a file begins like: the one that was asked for, or the page that a network shows instead of it.
 * Owns nothing; any thread. */
#ifndef RUNNEL_CLI_BEGINNING_H
#define RUNNEL_CLI_BEGINNING_H

#include <stddef.h>

#include "runnel.h"

enum beginning { BEGINNING_GGUF, BEGINNING_ZIP };

/* How many bytes decide; a few more let the message say what was found instead. */
enum { BEGINNING_BYTES = 4, BEGINNING_SHOWN_BYTES = 64, BEGINNING_TEXT_BYTES = 160 };

/* Do these bytes begin such a file? RUNNEL_EFORMAT with what was expected and what was found. */
int beginning_check(enum beginning wanted, const char *bytes, size_t n_bytes, runnel_error *error);

/* The same for the file at path. RUNNEL_EIO: it cannot be read. */
int beginning_check_file(enum beginning wanted, const char *path, runnel_error *error);

/* What these bytes begin like, for a message: "an HTML page ...", or the bytes themselves. */
void beginning_describe(const char *bytes, size_t n_bytes, char text[BEGINNING_TEXT_BYTES]);

#endif
