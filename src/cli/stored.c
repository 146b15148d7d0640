/* stored.c: see stored.h. */
#include "cli/stored.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/error.h"
#include "base/split_name.h"
#include "cli/beginning.h"
#include "cli/catalogue.h"
#include "cli/part.h"

static bool ends_with(const char *text, const char *end)
{
    size_t len = strlen(text), end_len = strlen(end);
    return len > end_len && !strcmp(text + len - end_len, end);
}

/* Takes an ending away if it is there. */
static bool cut_ending(char *text, const char *ending)
{
    if (!ends_with(text, ending))
        return false;
    text[strlen(text) - strlen(ending)] = 0;
    return true;
}

/* The name and kind of model that a file's name says; false: it is a companion of another file, or hidden. */
static bool read_file_name(const char *file, struct stored *model)
{
    snprintf(model->name, sizeof model->name, "%s", file);
    if (*file == '.' || strstr(file, ".part.from") || strstr(file, ".part.wheel.from"))
        return false;
    if (ends_with(file, ".part.wheel"))
        cut_ending(model->name, ".wheel");
    model->kind = cut_ending(model->name, ".part") ? STORED_PART : STORED_MODEL;
    struct split_name part;
    if (split_name_read(model->name, strlen(model->name), &part) && part.count > 1) {
        model->n_parts = part.count;
        model->name[part.stem_len] = 0;
    } else {
        model->bare = !cut_ending(model->name, ".gguf");
    }
    return true;
}

/* Looks at the file: is there something that -m could open, or could if it were whole? */
static bool look_at_file(struct stored *model)
{
    struct stat status;
    ssize_t len = readlink(model->path, model->target, sizeof model->target - 1);
    model->target[len > 0 ? len : 0] = 0;
    if (stat(model->path, &status)) {
        model->kind = STORED_DANGLING;
        return errno == ENOENT && len > 0;
    }
    model->n_bytes = (uint64_t)status.st_size;
    return S_ISREG(status.st_mode) &&
           (!model->bare || beginning_check_file(BEGINNING_GGUF, model->path, NULL) == RUNNEL_OK);
}

static int append(struct store *store, const struct stored *model, runnel_error *error)
{
    if (store->n == store->cap) {
        size_t cap = store->cap * 2 + 16;
        struct stored *grown = realloc(store->models, cap * sizeof *grown);
        if (!grown)
            return error_set(error, RUNNEL_ENOMEM, "no memory for a list of models");
        store->models = grown;
        store->cap = cap;
    }
    store->models[store->n++] = *model;
    return RUNNEL_OK;
}

/* One file more of a model in parts, of which others may be in the list from `first` on. */
static int add_part(struct store *store, size_t first, struct stored *file, runnel_error *error)
{
    struct split_name part;
    for (size_t i = first; i < store->n; i++) {
        struct stored *model = &store->models[i];
        if (model->n_parts != file->n_parts || strcmp(model->name, file->name) != 0)
            continue;
        model->n_bytes += file->n_bytes;
        model->n_whole += file->kind == STORED_MODEL;
        return RUNNEL_OK;
    }
    cut_ending(file->path, ".part");
    if (split_name_read(file->path, strlen(file->path), &part))
        split_name_renumber(file->path, &part, 1);
    file->n_whole = file->kind == STORED_MODEL;
    file->kind = STORED_PART;
    return append(store, file, error);
}

static int add_file(struct store *store, size_t first, const char *folder, const char *file,
                    runnel_error *error)
{
    struct stored model = {.kind = STORED_MODEL};
    if (strlen(file) >= sizeof model.name || !read_file_name(file, &model))
        return RUNNEL_OK;
    int len = snprintf(model.path, sizeof model.path, "%s/%s", folder, file);
    if (len < 0 || (size_t)len >= sizeof model.path || !look_at_file(&model))
        return RUNNEL_OK;
    if (model.kind == STORED_PART &&
        ends_with(file, ".wheel")) { /* it stands beside the part, if there is one */
        model.path[(size_t)len - strlen(".wheel")] = 0;
        if (access(model.path, F_OK) == 0)
            return RUNNEL_OK;
    }
    if (model.kind == STORED_PART)
        model.n_bytes = part_kept_bytes(model.path);
    return model.n_parts ? add_part(store, first, &model, error) : append(store, &model, error);
}

/* NAME.gguf before NAME, and that before one in parts, the fewest first, as -m looks for them; what is whole before what is
 * not. */
static int by_name(const void *a, const void *b)
{
    const struct stored *one = a, *other = b;
    int order = strcmp(one->name, other->name);
    if (order == 0)
        order = (int)one->kind - (int)other->kind;
    if (order == 0)
        order = (int)one->bare - (int)other->bare;
    return order ? order : (int)one->n_parts - (int)other->n_parts;
}

static int read_folder(struct store *store, const char *folder, runnel_error *error)
{
    DIR *dir = opendir(folder);
    size_t first = store->n;
    int failure = RUNNEL_OK;
    if (!dir) /* nothing was ever pulled */
        return errno == ENOENT || errno == ENOTDIR
                   ? RUNNEL_OK
                   : error_set(error, RUNNEL_EIO, "%s: cannot be read: %s", folder, strerror(errno));
    for (struct dirent *entry; !failure && (entry = readdir(dir));)
        failure = add_file(store, first, folder, entry->d_name, error);
    closedir(dir);
    for (size_t i = first; i < store->n; i++)
        if (store->models[i].n_parts && store->models[i].n_whole == store->models[i].n_parts)
            store->models[i].kind = STORED_MODEL;
    if (store->n > first)
        qsort(store->models + first, store->n - first, sizeof *store->models, by_name);
    return failure;
}

static bool same_folder(const char *a, const char *b)
{
    struct stat one, other;
    return !stat(a, &one) && !stat(b, &other) && one.st_dev == other.st_dev && one.st_ino == other.st_ino;
}

int stored_read(struct store *store, runnel_error *error)
{
    *store = (struct store){.n_folders = 0};
    if (catalogue_folder(store->folders[0], sizeof store->folders[0], NULL) == RUNNEL_OK)
        store->n_folders = 1;
    store->n_pulled = store->n_folders;
    if (!store->n_folders || !same_folder(store->folders[0], "models"))
        strcpy(store->folders[store->n_folders++], "models");
    int failure = RUNNEL_OK;
    for (size_t i = 0; !failure && i < store->n_folders; i++)
        failure = read_folder(store, store->folders[i], error);
    if (failure)
        free(store->models);
    return failure;
}

static bool has_name(const struct stored *model, const char *name)
{
    if (model->n_parts) { /* by the model's name, or by that of the first file */
        const char *file = strrchr(model->path, '/') + 1;
        size_t len = strlen(file) - (ends_with(name, ".gguf") ? 0 : strlen(".gguf"));
        return !strcmp(model->name, name) || (strlen(name) == len && !memcmp(file, name, len));
    }

    size_t len = strlen(name) - (!model->bare && ends_with(name, ".gguf") ? strlen(".gguf") : 0);
    return strlen(model->name) == len && !memcmp(model->name, name, len);
}

const struct stored *stored_find(const struct store *store, const char *name)
{
    for (enum stored_kind kind = STORED_MODEL; kind <= STORED_DANGLING; kind++)
        for (size_t i = 0; i < store->n; i++)
            if (store->models[i].kind == kind && has_name(&store->models[i], name))
                return &store->models[i];
    return NULL;
}
