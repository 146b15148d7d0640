/* catalogue.h: the models that runnel knows by name (models.tsv, built in), and where pulled models are kept.
 *
 * The catalogue is constant; any thread. Where a model is looked for, in this order: the path itself, unless
 * it is a folder; NAME.gguf, then NAME, then NAME-00001-of-00003.gguf (whatever the count) in the folder of pulled models; the
 * same in `models` where the program is run. What has a slash is a path alone. */
#ifndef RUNNEL_CLI_CATALOGUE_H
#define RUNNEL_CLI_CATALOGUE_H

#include <stdbool.h>
#include <stdint.h>

#include "cli/memory_need.h"
#include "runnel.h"

enum { CATALOGUE_MAX_SOURCES = 8 };

struct catalogue_entry {
    char name[64];
    char file[128];
    char sha256[65];                          /* lower-case hex; "" when only the source knows it */
    uint64_t n_bytes;                         /* 0: not known beforehand */
    char text[160];                           /* for people */
    char sources[CATALOGUE_MAX_SOURCES][256]; /* hf:..., ms:..., pypi:..., tried in this order */
    int n_sources;
    struct memory_shape shape; /* n_layers 0: not known */
};

/* Finds the entry of a name. Returns 0, or RUNNEL_EINVAL with a message that lists the known names and suggests one. */
int catalogue_find(const char *name, struct catalogue_entry *entry, runnel_error *error);

/* The length of a model's name without .gguf, or without -00001-of-00003.gguf. */
size_t catalogue_stem(const char *name);

/* Reads the next model into entry and moves the cursor on; false at the end. A cursor that is NULL begins. */
bool catalogue_next(const char **cursor, struct catalogue_entry *entry);

/* The folder of pulled models: $RUNNEL_MODELS, else $XDG_DATA_HOME/runnel/models, else
 * ~/.local/share/runnel/models. It need not exist. */
int catalogue_folder(char *path, size_t size, runnel_error *error);

/* The path of a model that was named on the command line: a path, or the name of a pulled model. Something is
 * there; else RUNNEL_EIO with a message that suggests the nearest name. */
int catalogue_resolve(const char *model, char *path, size_t size, runnel_error *error);

#endif
