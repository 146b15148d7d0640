/* memory_file.c: see memory_file.h. The descriptor belongs to the caller. */
#include "memory_file.h"

#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

int memory_file_create(const void *bytes, size_t n, char path[MEMORY_FILE_PATH])
{
    int fd = memfd_create("test", MFD_CLOEXEC);
    if (fd < 0)
        return -1;
    for (size_t done = 0; done < n;) {
        ssize_t written = write(fd, (const char *)bytes + done, n - done);
        if (written <= 0) {
            close(fd);
            return -1;
        }
        done += (size_t)written;
    }
    snprintf(path, MEMORY_FILE_PATH, "/proc/self/fd/%d", fd);
    return fd;
}
