/* download.h: one HTTP resource into a file, resumed where an earlier try ended. The libcurl part of `runnel
 * pull`.
 *
 * The file is a part (part.h) that its owner holds open; what
 * stands in PATH.from says where its bytes came from, so that bytes of two different files are never joined.
 * One thread; nothing is shared between downloads. */
#ifndef RUNNEL_CLI_DOWNLOAD_H
#define RUNNEL_CLI_DOWNLOAD_H

#include <stdbool.h>
#include <stdint.h>

#include "cli/beginning.h"
#include "cli/part.h"
#include "runnel.h"

struct download {
    const char *url;
    struct part *part;        /* the file that grows */
    enum beginning beginning; /* what begins otherwise is refused, and what was there stays */
    const char *token;  /* sent to the host of url and to no other, wherever redirects lead; NULL: none */
    const char *sha256; /* of the whole file, lower-case hex: a source that announces another is refused; "":
                           not known */
    uint64_t n_bytes; /* of the whole file: a source that announces another length is refused; 0: not known */
    /* Called several times a second with what is there and what there will be (0: not known); false stops.
     * May be NULL. */
    bool (*on_progress)(void *user, uint64_t done, uint64_t total);
    void *user;
};

struct download_result {
    char sha256[65];  /* as the source announces it; "": it does not */
    uint64_t n_bytes; /* of the whole file */
    bool resumed;     /* part of it was there before */
};

/* Gets the whole of download->url into download->path. On failure what came is kept, if going on from there
 * can make sense. RUNNEL_ECANCELLED: on_progress said so. RUNNEL_EIO: it may be worth trying again.
 * RUNNEL_EINVAL: it is not. */
int download_run(const struct download *download, struct download_result *result, runnel_error *error);

/* Gets a small text (an index, at most max_bytes) into memory, zero-terminated; accept is the Accept header,
 * NULL: any. Free *text with free(). */
int download_text(const char *url, const char *accept, size_t max_bytes, char **text, runnel_error *error);

/* Does url answer: a connection within 5 s, no error status, and not the page of a login? Downloads nothing. *n_bytes: how
 * long it says that the file is; 0: it does not. */
int download_check(const char *url, const char *token, uint64_t *n_bytes, runnel_error *error);

#endif
