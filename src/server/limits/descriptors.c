/* descriptors.c: see descriptors.h. */
#include "server/limits/descriptors.h"

#include <stddef.h>

void descriptors_open(struct descriptors *descriptors)
{
    descriptors->folder = opendir("/proc/self/fd");
}

void descriptors_close(struct descriptors *descriptors)
{
    if (descriptors->folder)
        closedir(descriptors->folder);
    descriptors->folder = NULL;
}

unsigned descriptors_count(struct descriptors *descriptors)
{
    unsigned n = 0;
    if (!descriptors->folder)
        return 0;
    rewinddir(descriptors->folder);
    while (readdir(descriptors->folder))
        n++;
    return n > 2 ? n - 2 : 0; /* without "." and ".." */
}
