/* versioned.c: structs that begin with their size (see versioned.h). */
#include "base/versioned.h"

#include <string.h>

enum {
    SIZE_MOST = 4096 /* more than any struct of the header will ever have: such a size was never set */
};

static size_t size_of(const void *given)
{
    size_t size;
    memcpy(&size, given, sizeof size);
    return size;
}

/* Structs that hold a size_t are a multiple of it long: what is not would also step through arrays beside their elements. */
static bool is_possible(size_t size)
{
    return size >= sizeof size && size <= SIZE_MOST && size % sizeof size == 0;
}

static size_t smaller(size_t a, size_t b)
{
    return a < b ? a : b;
}

int versioned_check(const char *name, const void *given, runnel_error *error)
{
    size_t size = size_of(given);
    if (is_possible(size))
        return RUNNEL_OK;
    return error_set(error, RUNNEL_EINVAL, "%s.size: %zu, expected sizeof(%s): it was not initialised", name,
                     size, name);
}

int versioned_read(const char *name, const void *given, void *own, size_t own_size, runnel_error *error)
{
    size_t size = size_of(given);
    int failure = versioned_check(name, given, error);
    if (failure)
        return failure;
    memcpy((char *)own + sizeof size, (const char *)given + sizeof size,
           smaller(size, own_size) - sizeof size);
    return RUNNEL_OK;
}

void versioned_write(const void *own, size_t own_size, void *given)
{
    size_t size = size_of(given);
    if (is_possible(size))
        versioned_init(own, own_size, given, size);
}

void versioned_init(const void *own, size_t own_size, void *given, size_t given_size)
{
    if (!is_possible(given_size))
        return;
    memset(given, 0, given_size);
    memcpy(given, own, smaller(given_size, own_size));
    memcpy(given, &given_size, sizeof given_size);
}
