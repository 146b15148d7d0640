/* new_file.h: a file that gets its name when it is whole. Until then it stands beside its place, under its name and ".part",
 * which is locked: of two programs that write the same file the second one is refused, and a download that writes there, too.
 * One thread a file. */
#ifndef RUNNEL_BASE_NEW_FILE_H
#define RUNNEL_BASE_NEW_FILE_H

#include "base/error.h"

struct new_file {
    const char *path; /* the caller's */
    char *part;       /* its name until it is whole */
    int fd;           /* to write to; -1: not open */
};

/* Whether a file can be written at path: it has a name other than "-", its folder is there and may be written to, and
 * nothing is there but a file, which will be replaced. To be asked before what is written is computed. */
int new_file_check(const char *path, runnel_error *error);
/* Whether a file that is read is left alone: it is neither what stands at path nor what stands beside it, by whatever name. */
int new_file_check_spares(const char *path, const char *source, runnel_error *error);

/* What stood under the name with ".part" is lost. */
int new_file_open(struct new_file *file, const char *path, runnel_error *error);
/* failure: of whoever wrote, or 0. Returns it, or that of naming the file; after one there is no file but an older one. */
int new_file_close(struct new_file *file, int failure, runnel_error *error);

#endif
