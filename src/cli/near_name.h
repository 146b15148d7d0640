/* near_name.h: the name that a person may have meant by one that is not there. Nothing allocates; any thread. */
#ifndef RUNNEL_CLI_NEAR_NAME_H
#define RUNNEL_CLI_NEAR_NAME_H

#include <stddef.h>

#include "base/text.h"

/* Names of models are compared without .gguf and capital letters. */
struct near_name {
    char wanted[TEXT_DISTANCE_MAX + 1]; /* in lower case; "" if it is too long to be compared */
    size_t len, distance;
    char nearest[TEXT_DISTANCE_MAX + 1]; /* as it was considered, without .gguf; "": none is near */
};

struct near_name near_name_begin(const char *wanted);

/* Keeps a name that is there if it is nearer than those before: few letters are wrong, or its beginning was given. */
void near_name_consider(struct near_name *near, const char *name);

/* The length of a model's name without .gguf. */
size_t near_name_stem(const char *name);

#endif
