/* arguments.h: what every function of runnel.h checks before it reads what it was given. Owns nothing; any thread. */
#ifndef RUNNEL_ENGINE_ARGUMENTS_H
#define RUNNEL_ENGINE_ARGUMENTS_H

#include "base/error.h"

/* A pointer that a function was given. */
struct argument {
    const char *name;
    const void *pointer;
    const char *count; /* the name of what counts the pointer's elements; NULL: always to be there */
    size_t n;          /* with count: how many there are; 0: the pointer may be NULL */
};

/* A list of POINTERs, which must be there, and ARRAYs, which must if they have elements; an element without a name ends it.
 * Names are those of runnel.h. */
#define ARGUMENTS(...)                                                                                       \
    (const struct argument[])                                                                                \
    {                                                                                                        \
        __VA_ARGS__,                                                                                         \
        {                                                                                                    \
            NULL, NULL, NULL, 0                                                                              \
        }                                                                                                    \
    }
#define POINTER(name, pointer)                                                                               \
    {                                                                                                        \
#name, pointer, NULL, 0                                                                              \
    }
#define ARRAY(name, pointer, count, n)                                                                       \
    {                                                                                                        \
#name, pointer, #count, n                                                                            \
    }

/* RUNNEL_EINVAL, with a message that names it, if one of them is NULL that must not be. function is what the message begins
 * with:
 *     arguments_check(__func__, ARGUMENTS(POINTER(engine, engine), ARRAY(ids, ids, n_ids, n_ids)), error) */
int arguments_check(const char *function, const struct argument *arguments, runnel_error *error);

#endif
