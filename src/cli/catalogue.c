/* catalogue.c: reads the built-in models.tsv and finds pulled models. Owns nothing that changes; any thread.
 */
#include "cli/catalogue.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/error.h"
#include "base/near_name.h"
#include "base/split_name.h"

static const char EXTENSION[] = ".gguf";
static const char FOLDER_HERE[] = "models";

extern const char models_tsv[]; /* generated from models.tsv, zero-terminated */

enum {
    COLUMN_NAME,
    COLUMN_FILE,
    COLUMN_SET,
    COLUMN_BYTES,
    COLUMN_SHA256,
    COLUMN_TEXT,
    COLUMN_SOURCES,
    COLUMN_SHAPE,
    N_COLUMNS
};

/* Copies text[0..len) cut to the room there is; a test sees to it that nothing in models.tsv is cut. */
static void copy_text(char *to, size_t size, const char *text, size_t len)
{
    if (len >= size)
        len = size - 1;
    memcpy(to, text, len);
    to[len] = 0;
}

static void split_sources(const char *text, size_t len, struct catalogue_entry *entry)
{
    entry->n_sources = 0;
    while (len > 0 && entry->n_sources < CATALOGUE_MAX_SOURCES) {
        const char *space = memchr(text, ' ', len);
        size_t source_len = space ? (size_t)(space - text) : len;
        char *source = entry->sources[entry->n_sources++];
        copy_text(source, sizeof entry->sources[0], text, source_len);
        size_t step = space ? source_len + 1 : len;
        text += step;
        len -= step;
    }
}

/* Numbers divided by colons; "-": none are known. */
static void read_shape(const char *text, size_t len, struct memory_shape *shape)
{
    char numbers[128];
    *shape = (struct memory_shape){.n_layers = 0};
    copy_text(numbers, sizeof numbers, text, len);
    if (sscanf(numbers, "%u:%u:%u:%u:%u:%u:%u", &shape->n_layers, &shape->n_hidden, &shape->n_ffn,
               &shape->n_heads, &shape->n_kv_heads, &shape->head_size, &shape->n_vocab) != 7)
        *shape = (struct memory_shape){.n_layers = 0};
}

/* Lines for tests only are passed over. */
bool catalogue_next(const char **cursor, struct catalogue_entry *entry)
{
    if (!*cursor)
        *cursor = models_tsv;
    while (**cursor) {
        const char *line = *cursor;
        size_t len = strcspn(line, "\n");
        *cursor = line + len + (line[len] == '\n');
        if (len == 0 || *line == '#' || *line == '-')
            continue;

        const char *columns[N_COLUMNS];
        size_t lens[N_COLUMNS];
        const char *end = line + len;
        int n_columns = 0;
        for (const char *at = line; n_columns < N_COLUMNS && at <= end; n_columns++) {
            const char *tab = memchr(at, '\t', (size_t)(end - at));
            columns[n_columns] = at;
            lens[n_columns] = (size_t)((tab ? tab : end) - at);
            at = (tab ? tab : end) + 1;
        }
        if (n_columns < N_COLUMNS)
            continue;

        copy_text(entry->name, sizeof entry->name, columns[COLUMN_NAME], lens[COLUMN_NAME]);
        copy_text(entry->file, sizeof entry->file, columns[COLUMN_FILE], lens[COLUMN_FILE]);
        copy_text(entry->text, sizeof entry->text, columns[COLUMN_TEXT], lens[COLUMN_TEXT]);
        copy_text(entry->sha256, sizeof entry->sha256, columns[COLUMN_SHA256], lens[COLUMN_SHA256]);
        if (strcmp(entry->sha256, "-") == 0)
            entry->sha256[0] = 0;
        entry->n_bytes = strtoull(columns[COLUMN_BYTES], NULL, 10);
        split_sources(columns[COLUMN_SOURCES], lens[COLUMN_SOURCES], entry);
        read_shape(columns[COLUMN_SHAPE], lens[COLUMN_SHAPE], &entry->shape);
        return true;
    }
    return false;
}

size_t catalogue_stem(const char *name)
{
    size_t len = strlen(name), n = strlen(EXTENSION);
    struct split_name part;
    if (split_name_read(name, len, &part))
        return part.stem_len;
    return len > n && !strcmp(name + len - n, EXTENSION) ? len - n : len;
}

static void consider_known(struct near_name *near)
{
    struct catalogue_entry known;
    for (const char *cursor = NULL; catalogue_next(&cursor, &known);)
        near_name_consider(near, known.name, strlen(known.name));
}

int catalogue_find(const char *name, struct catalogue_entry *entry, runnel_error *error)
{
    struct catalogue_entry candidate;
    struct near_name near = near_name_begin(name, catalogue_stem(name));
    char names[256] = "";
    const char *cursor = NULL;
    while (catalogue_next(&cursor, &candidate)) {
        if (strcmp(candidate.name, name) == 0) {
            *entry = candidate;
            return RUNNEL_OK;
        }
        size_t len = strlen(names);
        snprintf(names + len, sizeof names - len, "%s%s", len ? ", " : "", candidate.name);
        near_name_consider(&near, candidate.name, strlen(candidate.name));
    }
    return error_set(error, RUNNEL_EINVAL, "no model is known by the name '%.80s'; %s%s%sknown names: %s",
                     name, *near.nearest ? "did you mean " : "", near.nearest, *near.nearest ? "? " : "",
                     names);
}

int catalogue_folder(char *path, size_t size, runnel_error *error)
{
    const char *models = getenv("RUNNEL_MODELS");
    const char *data = getenv("XDG_DATA_HOME");
    const char *home = getenv("HOME");
    int len;
    if (models && *models)
        len = snprintf(path, size, "%s", models);
    else if (data && *data == '/') /* the XDG rules: a relative path is to be ignored */
        len = snprintf(path, size, "%s/runnel/models", data);
    else if (home && *home)
        len = snprintf(path, size, "%s/.local/share/runnel/models", home);
    else
        return error_set(error, RUNNEL_EINVAL,
                         "no folder for models: none of RUNNEL_MODELS, XDG_DATA_HOME and HOME is set");
    if (len < 0 || (size_t)len >= size)
        return error_set(error, RUNNEL_EINVAL,
                         "the folder for models: expected a path of at most %zu bytes, found %d", size - 1,
                         len);
    return RUNNEL_OK;
}

/* Formats folder/name and extension into path; true if a file is there and fits. */
static bool is_there(char *path, size_t size, const char *folder, const char *name, const char *extension)
{
    struct stat status;
    int len = snprintf(path, size, "%s/%s%s", folder, name, extension);
    return len >= 0 && (size_t)len < size && !stat(path, &status) && !S_ISDIR(status.st_mode);
}

/* Likewise of a model in parts, whose first is NAME-00001-of-00003.gguf: the one of the fewest parts, if there are several of
 * that name. */
static bool is_there_in_parts(char *path, size_t size, const char *folder, const char *name)
{
    DIR *dir = opendir(folder);
    unsigned fewest = 0;
    for (struct dirent *entry; dir && (entry = readdir(dir));) {
        struct split_name part;
        char found[4096];
        if (!split_name_read(entry->d_name, strlen(entry->d_name), &part) || part.number != 1 ||
            part.stem_len != strlen(name) || memcmp(entry->d_name, name, part.stem_len) != 0 ||
            (fewest && part.count >= fewest) || !is_there(found, sizeof found, folder, entry->d_name, "") ||
            strlen(found) >= size)
            continue;
        strcpy(path, found);
        fewest = part.count;
    }
    if (dir)
        closedir(dir);
    return fewest > 0;
}

static int take_path(const char *from, char *path, size_t size, runnel_error *error)
{
    size_t len = strlen(from);
    if (len >= size)
        return error_set(error, RUNNEL_EINVAL, "model path: expected at most %zu bytes, found %zu", size - 1,
                         len);
    memcpy(path, from, len + 1);
    return RUNNEL_OK;
}

static void consider_folder(struct near_name *near, const char *folder)
{
    DIR *dir = opendir(folder);
    for (struct dirent *entry; dir && (entry = readdir(dir));) {
        char path[4096];
        size_t len = catalogue_stem(entry->d_name);
        if (len < strlen(entry->d_name) && is_there(path, sizeof path, folder, entry->d_name, ""))
            near_name_consider(near, entry->d_name, len);
    }
    if (dir)
        closedir(dir);
}

/* In how many parts a model of this name is that has some of them in a folder; 0: none. */
static unsigned count_of_parts(const char *folder, const char *name)
{
    DIR *dir = opendir(folder);
    unsigned count = 0;
    for (struct dirent *entry; dir && !count && (entry = readdir(dir));) {
        struct split_name part;
        if (split_name_read(entry->d_name, strlen(entry->d_name), &part) && part.stem_len == strlen(name) &&
            memcmp(entry->d_name, name, part.stem_len) == 0)
            count = part.count;
    }
    if (dir)
        closedir(dir);
    return count;
}

static int refuse_model(const char *model, const char *folder, runnel_error *error)
{
    struct catalogue_entry entry;
    if (catalogue_find(model, &entry, NULL) == RUNNEL_OK)
        return error_set(error, RUNNEL_EIO, "model '%s' is not here yet: `runnel pull %s` gets it", model,
                         model);
    struct near_name near = near_name_begin(model, catalogue_stem(model));
    const char *const folders[] = {folder, FOLDER_HERE};
    consider_known(&near);
    for (size_t i = 0; i < 2; i++) {
        unsigned count = count_of_parts(folders[i], model); /* the first would have been found */
        if (count)
            return error_set(error, RUNNEL_EIO,
                             "%s/%.80s-00001-of-%05u.gguf: not there, only other parts of the model are",
                             folders[i], model, count);
        consider_folder(&near, folders[i]);
    }
    const char *nearest = near.nearest;
    return error_set(error, RUNNEL_EIO,
                     "model '%.80s': expected a file or the name of a pulled model, found neither here nor "
                     "in %s or %.200s; %s%s%s",
                     model, FOLDER_HERE, folder, *nearest ? "did you mean " : "`runnel list` shows the names",
                     nearest, *nearest ? "?" : "");
}

int catalogue_resolve(const char *model, char *path, size_t size, runnel_error *error)
{
    bool is_path = strchr(model, '/') != NULL;
    struct stat status;
    bool exists = stat(model, &status) == 0;
    if (exists && (is_path || !S_ISDIR(status.st_mode)))
        return take_path(model, path, size, error);
    if (is_path)
        return error_set(error, RUNNEL_EIO, "%s: cannot open: %s", model, strerror(errno));
    char folder[3072], found[4096];
    int no_folder = catalogue_folder(folder, sizeof folder, error);
    const char *const folders[] = {FOLDER_HERE, folder};
    for (size_t i = no_folder ? 1 : 2; *model && i > 0; i--)
        if (is_there(found, sizeof found, folders[i - 1], model, EXTENSION) ||
            is_there(found, sizeof found, folders[i - 1], model, "") ||
            is_there_in_parts(found, sizeof found, folders[i - 1], model))
            return take_path(found, path, size, error);
    if (exists) /* a folder, as whoever opens it will say */
        return take_path(model, path, size, error);
    return no_folder ? no_folder : refuse_model(model, folder, error);
}
