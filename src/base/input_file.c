/* input_file.c: see input_file.h. */
#include "base/input_file.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <sys/stat.h>
#include <unistd.h>

int input_file_open(const char *path, int *fd, uint64_t *n_bytes, runnel_error *error)
{
    /* O_NONBLOCK: a FIFO without a writer would hold us in open() for ever. */
    int opened = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC | O_NOCTTY);
    if (opened < 0)
        return error_set(error, RUNNEL_EIO, "cannot open: %m");
    struct stat status;
    int code = RUNNEL_OK;
    if (fstat(opened, &status))
        code = error_set(error, RUNNEL_EIO, "cannot examine: %m");
    else if (!S_ISREG(status.st_mode))
        code = error_set(error, RUNNEL_EIO, "expected a file, found %s",
                         S_ISDIR(status.st_mode)    ? "a directory"
                         : S_ISFIFO(status.st_mode) ? "a FIFO"
                                                    : "a device or socket");
    if (code) {
        close(opened);
        return code;
    }
    *fd = opened;
    *n_bytes = (uint64_t)status.st_size;
    return RUNNEL_OK;
}

int input_file_read(int fd, uint64_t offset, void *buffer, size_t n, runnel_error *error)
{
    unsigned char *to = buffer;
    while (n) {
        /* One call moves at most 2 GiB - 4 KiB; asking for more is allowed and gives a short read. */
        ssize_t got = pread(fd, to, n, (off_t)offset);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return error_set(error, RUNNEL_EIO, "cannot read %zu bytes at offset %" PRIu64 ": %m", n, offset);
        if (got == 0)
            return error_set(error, RUNNEL_EIO,
                             "expected %zu more bytes at offset %" PRIu64 ", found the end: the file shrank",
                             n, offset);
        to += got;
        n -= (size_t)got;
        offset += (uint64_t)got;
    }
    return RUNNEL_OK;
}
