/* stored.h: the models that are here, or in part: what lies in the two folders in which -m looks for names, that of pulled
 * models and `models` where the program is run.
 *
 * A file NAME.gguf.part is a download that has not ended, and so is NAME.gguf.part.wheel, the package at hand of one that comes
 * in packages. The files of a model in parts are one model. One thread. */
#ifndef RUNNEL_CLI_STORED_H
#define RUNNEL_CLI_STORED_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "runnel.h"

enum { STORED_FOLDERS = 2 };

enum stored_kind { STORED_MODEL, STORED_PART, STORED_DANGLING /* a link to what is not there */ };

/* A file of a model, or what has come of it so far. */
struct stored {
    char name[256]; /* as -m takes it: the file's without .gguf */
    char path[4096];
    char target[1024]; /* of a link; "": it is none */
    uint64_t n_bytes;
    enum stored_kind kind;
    bool bare; /* the file has no .gguf at its end */
    unsigned n_parts,
        n_whole; /* of a model in parts: how many there are, and how many are here whole; else 0. path is that
                                  of the first, n_bytes of all that is here */
};

struct store {
    struct stored *models; /* sorted by folder, then by name; the caller's to free */
    size_t n, cap;
    char folders[STORED_FOLDERS][3072];
    size_t n_folders, n_pulled; /* n_pulled: 1 if the first one is that of pulled models, else 0 */
};

/* Reads both folders. Free store->models. */
int stored_read(struct store *store, runnel_error *error);

/* The file that -m would open by this name, or if there is none, what has come of it, or a link by its name; NULL: nothing. */
const struct stored *stored_find(const struct store *store, const char *name);

#endif
