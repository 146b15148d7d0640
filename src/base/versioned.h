/* versioned.h: structs that begin with their size, between code built against different versions of a header. */
#ifndef RUNNEL_BASE_VERSIONED_H
#define RUNNEL_BASE_VERSIONED_H

#include "base/error.h"

/* RUNNEL_EINVAL with `name` if the size that the struct at `given` begins with cannot be one: it was not set. */
int versioned_check(const char *name, const void *given, runnel_error *error);

/* Copies what the caller's struct at `given` has over `own`, which holds the defaults; own's size stays. Checks it
 * first. */
int versioned_read(const char *name, const void *given, void *own, size_t own_size, runnel_error *error);

/* Copies as much of `own` as the caller's struct at `given` has room for, by the size that the caller has set there, which stays. What the
 * caller has beyond is zeroed. With a size that cannot be one nothing is written. */
void versioned_write(const void *own, size_t own_size, void *given);

/* The same for a struct of the caller's that says nothing yet: it has room for given_size bytes, which becomes its size. */
void versioned_init(const void *own, size_t own_size, void *given, size_t given_size);

#endif
