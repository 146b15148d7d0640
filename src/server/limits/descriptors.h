/* descriptors.h: how many descriptors this process has open. The folder that tells is opened once and read again and again,
 * as a server that runs may open nothing. One thread, the owner of the struct. */
#ifndef RUNNEL_SERVER_LIMITS_DESCRIPTORS_H
#define RUNNEL_SERVER_LIMITS_DESCRIPTORS_H

#include <dirent.h>

struct descriptors {
    DIR *folder; /* of this process: it is not another one's after a fork. NULL: it cannot be opened */
};

void descriptors_open(struct descriptors *descriptors);
void descriptors_close(struct descriptors *descriptors);

unsigned descriptors_count(struct descriptors *descriptors); /* 0: unknown */

#endif
