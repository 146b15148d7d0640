/* error.h: how every floor reports failure.
 *
 * A function that can fail returns RUNNEL_OK (0) or a negative RUNNEL_E... and fills a runnel_error with one
 * line that names the thing, what was expected and what was found. Outputs are untouched on failure. Owns
 * nothing; any thread. The type and the codes are the public ones: this is the only file below the engine
 * that includes runnel.h. */
#ifndef RUNNEL_BASE_ERROR_H
#define RUNNEL_BASE_ERROR_H

#include "runnel.h"

/* Fills error (which may be NULL) with code and a formatted message; control bytes in it are replaced by '?'.
 * Returns code, so that a failing function can end with `return error_set(...)`. */
int error_set(runnel_error *error, int code, const char *format, ...) __attribute__((format(printf, 3, 4)));

/* Puts a formatted prefix and ": " before the message that is already in error. Returns error's code. */
int error_prefix(runnel_error *error, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Bytes in a message: MiB, rounded up. */
static inline unsigned long long error_mib(uint64_t n_bytes)
{
    return (n_bytes + (1 << 20) - 1) >> 20;
}

/* The library names its fields; a person gave a command's options: {"n_context", "--ctx"}, ..., {NULL, NULL}. */
struct field_name {
    const char *field, *option;
};
void error_name_options(const struct field_name *names, runnel_error *error);

#endif
