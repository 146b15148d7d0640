/* part.c: see part.h. */
#include "cli/part.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/error.h"

enum { PATH_BYTES = 4300 };

/* What may stand beside PATH. The new companion has another name until it is whole. */
static const char *const companions[] = {".from", ".from.new", ".wheel", ".wheel.from", ".wheel.from.new"};

static void companion_path(const char *path, const char *companion, char text[PATH_BYTES])
{
    snprintf(text, PATH_BYTES, "%s%s", path, companion);
}

void part_note_path(const char *path, char *text, size_t size)
{
    snprintf(text, size, "%s.from", path);
}

static void remove_companions(const char *path)
{
    char name[PATH_BYTES];
    for (size_t i = 0; i < sizeof companions / sizeof *companions; i++) {
        companion_path(path, companions[i], name);
        unlink(name);
    }
}

static void remove_note(const char *path)
{
    char name[PATH_BYTES];
    part_note_path(path, name, sizeof name);
    unlink(name);
}

static int lock(int fd, const char *path, runnel_error *error)
{
    if (flock(fd, LOCK_EX | LOCK_NB) == 0)
        return RUNNEL_OK;
    if (errno == EWOULDBLOCK)
        return error_set(error, RUNNEL_EBUSY, "%s: another download is writing it", path);
    return error_set(error, RUNNEL_EINVAL, "%s: cannot be locked: %s", path, strerror(errno));
}

int part_open(struct part *part, const char *path, runnel_error *error)
{
    struct stat status;
    *part = (struct part){.path = path, .fd = -1};
    /* Somebody may have removed it between open() and the lock: then it has no name any more, and there is a new one. */
    for (int n_tries = 0; n_tries < 3; n_tries++) {
        part->fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
        if (part->fd < 0)
            return error_set(error, RUNNEL_EINVAL, "%s: cannot be opened: %s", path, strerror(errno));
        int code = lock(part->fd, path, error);
        if (code == RUNNEL_OK && fstat(part->fd, &status) == 0 && status.st_nlink > 0)
            return RUNNEL_OK;
        close(part->fd); /* another's: it is left alone */
        part->fd = -1;
        if (code)
            return code;
    }
    return error_set(error, RUNNEL_EINVAL, "%s: cannot be opened: it is removed again and again", path);
}

void part_close(struct part *part)
{
    struct stat status;
    if (part->fd < 0)
        return;
    if (fstat(part->fd, &status) == 0 && status.st_size == 0 && status.st_nlink > 0) {
        remove_note(part->path); /* while it is still locked: nobody else writes it */
        unlink(part->path);
    }
    close(part->fd);
    part->fd = -1;
}

static int fail_write(struct part *part, const char *path, int number, runnel_error *error)
{
    part->unwritable = true;
    return error_set(error, RUNNEL_EINVAL, "%s: cannot be written: %s", path, strerror(number));
}

int part_write(struct part *part, const char *data, size_t len, uint64_t at, runnel_error *error)
{
    for (size_t written = 0; written < len;) {
        ssize_t n = pwrite(part->fd, data + written, len - written, (off_t)(at + written));
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return fail_write(part, part->path, n < 0 ? errno : ENOSPC, error);
        written += (size_t)n;
    }
    return RUNNEL_OK;
}

int part_cut(struct part *part, uint64_t n_bytes, runnel_error *error)
{
    if (ftruncate(part->fd, (off_t)n_bytes))
        return fail_write(part, part->path, errno, error);
    if (n_bytes == 0)
        remove_note(part->path);
    return RUNNEL_OK;
}

int part_sync(struct part *part, runnel_error *error)
{
    return fsync(part->fd) ? fail_write(part, part->path, errno, error) : RUNNEL_OK;
}

int part_note(struct part *part, const char *text, runnel_error *error)
{
    char name[PATH_BYTES], new_name[PATH_BYTES];
    part_note_path(part->path, name, sizeof name);
    companion_path(part->path, ".from.new", new_name);
    FILE *file = fopen(new_name, "we");
    if (!file)
        return fail_write(part, new_name, errno, error);
    int number = fputs(text, file) < 0 ? errno : 0;
    if (fclose(file) && !number)
        number = errno;
    if (!number && rename(new_name, name))
        number = errno;
    if (!number)
        return RUNNEL_OK;
    unlink(new_name);
    return fail_write(part, name, number, error);
}

int part_rename(struct part *part, const char *to, runnel_error *error)
{
    if (rename(part->path, to)) {
        part->unwritable = true;
        return error_set(error, RUNNEL_EIO, "%s: cannot be named: %s", to, strerror(errno));
    }
    remove_companions(part->path);
    return RUNNEL_OK;
}

static uint64_t file_bytes(const char *path)
{
    struct stat status;
    return stat(path, &status) == 0 && S_ISREG(status.st_mode) ? (uint64_t)status.st_size : 0;
}

uint64_t part_kept_bytes(const char *path)
{
    char wheel[PATH_BYTES];
    companion_path(path, ".wheel", wheel);
    return file_bytes(path) + file_bytes(wheel);
}

int part_hold(const char *path, int *fd, runnel_error *error)
{
    int opened = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (opened < 0)
        return error_set(error, RUNNEL_EINVAL, "%s: cannot be opened: %s", path, strerror(errno));
    int code = lock(opened, path, error);
    if (code == RUNNEL_EBUSY) {
        close(opened);
        return code;
    }
    *fd = opened; /* a file system without locks is no reason to stop */
    return RUNNEL_OK;
}

int part_check_free(const char *path, runnel_error *error)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return RUNNEL_OK;
    int code = lock(fd, path, error);
    close(fd);
    return code == RUNNEL_EBUSY ? code : RUNNEL_OK;
}

int part_remove(const char *path, runnel_error *error)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    int code = fd < 0 ? RUNNEL_OK : lock(fd, path, error);
    if (code != RUNNEL_EBUSY) { /* what cannot be opened or locked is not written by a download either */
        code = RUNNEL_OK;
        if (unlink(path) && errno != ENOENT)
            code = error_set(error, RUNNEL_EIO, "%s: cannot be removed: %s", path, strerror(errno));
        else
            remove_companions(path);
    }
    if (fd >= 0)
        close(fd);
    return code;
}
