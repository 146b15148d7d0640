/* arguments.c: see arguments.h. */
#include "engine/arguments.h"

int arguments_check(const char *function, const struct argument *arguments, runnel_error *error)
{
    for (const struct argument *argument = arguments; argument->name; argument++) {
        if (argument->pointer || (argument->count && !argument->n))
            continue;
        if (argument->count)
            return error_set(error, RUNNEL_EINVAL, "%s: %s is NULL, expected %zu elements (%s)", function,
                             argument->name, argument->n, argument->count);
        return error_set(error, RUNNEL_EINVAL, "%s: %s is NULL, expected a pointer", function,
                         argument->name);
    }
    return RUNNEL_OK;
}
