/* new_file.c: see new_file.h. */
#include "base/new_file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

static const char ending[] = ".part";

/* NULL: no memory. */
static char *part_name(const char *path, runnel_error *error)
{
    char *part = malloc(strlen(path) + sizeof ending);
    if (part)
        sprintf(part, "%s%s", path, ending);
    else
        error_set(error, RUNNEL_ENOMEM, "%s: no memory to write it", path);
    return part;
}

/* Checks -------------------------------------------------------------------------------------------------- */

static int check_folder(const char *path, runnel_error *error)
{
    const char *slash = strrchr(path, '/');
    char *folder = slash ? strndup(path, (size_t)(slash - path) + 1) : strdup(".");
    int code = RUNNEL_OK;
    if (!folder)
        return error_set(error, RUNNEL_ENOMEM, "%s: no memory to write it", path);
    if (access(folder, W_OK | X_OK))
        code = error_set(error, RUNNEL_EIO, "%s: cannot create: %m", path);
    free(folder);
    return code;
}

int new_file_check(const char *path, runnel_error *error)
{
    struct stat status;
    if (!*path)
        return error_set(error, RUNNEL_EINVAL, "expected the name of a file to write, found an empty one");
    if (!strcmp(path, "-"))
        return error_set(
            error, RUNNEL_EINVAL,
            "-: expected the name of a file to write, as stdout cannot take it; ./- is one of that name");
    if (!stat(path, &status) && !S_ISREG(status.st_mode))
        return error_set(error, RUNNEL_EINVAL,
                         "%s: expected a file or nothing there, found a folder or a device", path);
    return check_folder(path, error);
}

static bool is_same(const char *path, const struct stat *other)
{
    struct stat status;
    return !stat(path, &status) && status.st_dev == other->st_dev && status.st_ino == other->st_ino;
}

int new_file_check_spares(const char *path, const char *source, runnel_error *error)
{
    struct stat status;
    if (stat(source, &status) || !S_ISREG(status.st_mode)) /* a pipe may be both */
        return RUNNEL_OK;
    char *part = part_name(path, error);
    if (!part)
        return RUNNEL_ENOMEM;
    int code = RUNNEL_OK;
    if (is_same(path, &status))
        code =
            error_set(error, RUNNEL_EINVAL, "%s: expected another file to write than one that is read", path);
    else if (is_same(part, &status))
        code = error_set(error, RUNNEL_EINVAL,
                         "%s: it would be written as %s first, expected another file than one that is read",
                         path, part);
    free(part);
    return code;
}

/* Writing ------------------------------------------------------------------------------------------------- */

/* Whether the descriptor's file has still the name that it was opened by: whoever had the lock before may have taken it. */
static bool has_name(const struct new_file *file, struct stat *status)
{
    return !fstat(file->fd, status) && is_same(file->part, status);
}

static int open_part(struct new_file *file, runnel_error *error)
{
    struct stat status;
    for (int n_tries = 0; n_tries < 3; n_tries++) {
        file->fd = open(file->part, O_WRONLY | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0666);
        if (file->fd < 0)
            return error_set(error, RUNNEL_EIO, "%s: cannot create: %m", file->part);
        if (flock(file->fd, LOCK_EX | LOCK_NB) && errno == EWOULDBLOCK) /* not every file system has locks */
            return error_set(error, RUNNEL_EBUSY, "%s: another program is writing it", file->part);
        if (has_name(file, &status)) {
            if (S_ISREG(status.st_mode) && ftruncate(file->fd, 0))
                return error_set(error, RUNNEL_EIO, "%s: cannot empty it: %m", file->part);
            return RUNNEL_OK;
        }
        close(file->fd);
        file->fd = -1;
    }
    return error_set(error, RUNNEL_EBUSY, "%s: another program is writing it", file->part);
}

int new_file_open(struct new_file *out, const char *path, runnel_error *error)
{
    struct new_file file = {.path = path, .part = part_name(path, error), .fd = -1};
    if (!file.part)
        return RUNNEL_ENOMEM;
    int code = open_part(&file, error);
    if (code) {
        if (file.fd >= 0)
            close(file.fd);
        free(file.part);
        return code;
    }
    *out = file;
    return RUNNEL_OK;
}

/* Some file systems tell only then that there was no room. The lock is held by the other descriptor. */
static int close_copy(const struct new_file *file, runnel_error *error)
{
    int copy = dup(file->fd);
    if (copy >= 0 && close(copy))
        return error_set(error, RUNNEL_EIO, "%s: cannot write: %m", file->path);
    return RUNNEL_OK;
}

int new_file_close(struct new_file *file, int failure, runnel_error *error)
{
    int code = failure ? failure : close_copy(file, error);
    if (!code && rename(file->part, file->path))
        code = error_set(error, RUNNEL_EIO, "%s: cannot rename from %s: %m", file->path, file->part);
    if (code)
        unlink(file->part);
    close(file->fd);
    free(file->part);
    *file = (struct new_file){.fd = -1};
    return code;
}
