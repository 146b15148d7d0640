/* memory.h: how much memory there is for this server, and how much of it is used.
 *
 * What tells is opened once and read again and again, as a server that runs may open nothing. One thread, the owner of the
 * struct. */
#ifndef RUNNEL_SERVER_LIMITS_MEMORY_H
#define RUNNEL_SERVER_LIMITS_MEMORY_H

#include "base/limits.h"

#include <stdint.h>

struct memory_reading {
    uint64_t virtual_bytes, resident_bytes; /* of this process */
    uint64_t used_bytes, limit_bytes;       /* of the limit that applies */
    double percent;                         /* of it, 0 to 100; 0: unknown */
};

struct memory_files {
    int own; /* of this process: it is not another one's after a fork */
    struct limits_memory_files limits;
};

/* What cannot be opened, tells nothing later. */
void memory_open(struct memory_files *files);
void memory_close(struct memory_files *files);

/* With own_limit_bytes, what applies is that limit, for this process alone; with 0 the container's or the machine's, whichever
 * is fuller. Costs a few small files of /proc and /sys. */
struct memory_reading memory_read(const struct memory_files *files, uint64_t own_limit_bytes);

/* As it will be once this process has n_bytes more, which it has set aside. */
void memory_expect(struct memory_reading *reading, uint64_t n_bytes);

#endif
