/* library.c: see library.h. */
#include "gpu/library.h"

#include <dlfcn.h>
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

/* What the loader says of a library that no folder has: its name, and the system's words. Of one whose own needs are missing it names
 * these; of one that is no library, or wants a newer system, it says something else. */
static bool is_not_there(const char *name, const char *why)
{
    char named[64];
    snprintf(named, sizeof named, "%s:", name);
    return strstr(why, named) && strstr(why, strerror(ENOENT));
}

void *gpu_library_open(const char *name, runnel_error *problem)
{
    void *library = dlopen(name, RTLD_NOW | RTLD_LOCAL);
    const char *why = library ? NULL : dlerror();
    if (why && !is_not_there(name, why))
        error_set(problem, RUNNEL_EUNSUPPORTED, "%s cannot be loaded: %s", name, why);
    return library;
}
