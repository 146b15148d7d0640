/* catalogue.c: reads the built-in models.tsv and finds pulled models. Owns nothing that changes; any thread.
 */
#include "cli/catalogue.h"

#include <ctype.h>
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/error.h"
#include "base/text.h"

extern const char models_tsv[]; /* generated from models.tsv, zero-terminated */

enum {
    COLUMN_NAME,
    COLUMN_FILE,
    COLUMN_SET,
    COLUMN_BYTES,
    COLUMN_SHA256,
    COLUMN_TEXT,
    COLUMN_SOURCES,
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
        return true;
    }
    return false;
}

/* Lower case, cut to what text_distance() compares. */
static size_t lower(const char *text, char out[32])
{
    size_t len = 0;
    for (; len < 31 && text[len]; len++)
        out[len] = (char)tolower((unsigned char)text[len]);
    out[len] = 0;
    return len;
}

/* Its beginning, or two letters wrong, or capital ones. */
bool catalogue_is_near(const char *name, const char *known)
{
    char a[32], b[32];
    size_t len = lower(name, a), known_len = lower(known, b);
    size_t distance = text_distance(a, len, b);
    return (len >= 2 && len < known_len && memcmp(a, b, len) == 0) || (distance <= 2 && 2 * distance <= len);
}

int catalogue_find(const char *name, struct catalogue_entry *entry, runnel_error *error)
{
    struct catalogue_entry candidate;
    char names[256] = "", nearest[sizeof candidate.name + 32] = "";
    const char *cursor = NULL;
    while (catalogue_next(&cursor, &candidate)) {
        if (strcmp(candidate.name, name) == 0) {
            *entry = candidate;
            return RUNNEL_OK;
        }
        size_t len = strlen(names);
        snprintf(names + len, sizeof names - len, "%s%s", len ? ", " : "", candidate.name);
        if (!*nearest && catalogue_is_near(name, candidate.name))
            snprintf(nearest, sizeof nearest, "; did you mean %s?", candidate.name);
    }
    return error_set(error, RUNNEL_EINVAL, "no model is known by the name '%s'%s; known names: %s", name,
                     nearest, names);
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

/* Formats folder/name and extension into path; true if that is there and fits. */
static bool is_there(char *path, size_t size, const char *folder, const char *name, const char *extension)
{
    int len = snprintf(path, size, "%s/%s%s", folder, name, extension);
    return len >= 0 && (size_t)len < size && access(path, F_OK) == 0;
}

/* Looks for a file in the folder whose name may be meant, and copies it without .gguf. */
static bool find_near(const char *model, const char *folder, char near[64])
{
    DIR *dir = opendir(folder);
    bool found = false;
    for (struct dirent *entry; dir && !found && (entry = readdir(dir));) {
        size_t len = strlen(entry->d_name), end = strlen(".gguf");
        if (len <= end || len - end >= 64 || strcmp(entry->d_name + len - end, ".gguf") != 0)
            continue;
        snprintf(near, 64, "%.*s", (int)(len - end), entry->d_name);
        found = catalogue_is_near(model, near) || catalogue_is_near(model, entry->d_name);
    }
    if (dir)
        closedir(dir);
    return found;
}

/* "did you mean NAME? " or nothing. */
static const char *suggest(const char *model, const char *folder, char text[80])
{
    char near[64] = "";
    struct catalogue_entry entry;
    bool found = find_near(model, folder, near) || find_near(model, "models", near);
    bool is_name = false; /* but for capital letters */
    for (const char *cursor = NULL; !is_name && catalogue_next(&cursor, &entry);) {
        is_name = !strcasecmp(model, entry.name);
        if (is_name ||
            (!found && (catalogue_is_near(model, entry.name) || catalogue_is_near(model, entry.file))))
            snprintf(near, sizeof near, "%.63s", entry.name);
        found = found || is_name || (*near && !strcmp(near, entry.name));
    }
    snprintf(text, 80, "did you mean %s? ", near);
    return found ? text : "";
}

int catalogue_resolve(const char *model, char *path, size_t size, runnel_error *error)
{
    size_t len = strlen(model);
    if (strchr(model, '/') || access(model, F_OK) == 0) {
        if (len >= size)
            return error_set(error, RUNNEL_EINVAL, "model path: expected at most %zu bytes, found %zu",
                             size - 1, len);
        memcpy(path, model, len + 1);
        return RUNNEL_OK;
    }

    char folder[3072], found[4096];
    int code = catalogue_folder(folder, sizeof folder, error);
    if (code)
        return code;
    bool is_found = *model && (is_there(found, sizeof found, folder, model, ".gguf") ||
                               is_there(found, sizeof found, folder, model, "") ||
                               is_there(found, sizeof found, "models", model, ".gguf") ||
                               is_there(found, sizeof found, "models", model, ""));
    if (is_found) {
        if (strlen(found) >= size)
            return error_set(error, RUNNEL_EINVAL, "model path: expected at most %zu bytes, found %zu",
                             size - 1, strlen(found));
        memcpy(path, found, strlen(found) + 1);
        return RUNNEL_OK;
    }

    struct catalogue_entry entry;
    if (catalogue_find(model, &entry, NULL) == RUNNEL_OK)
        return error_set(error, RUNNEL_EIO, "model '%s' is not here yet: `runnel pull %s` gets it", model,
                         model);
    char near[80];
    return error_set(
        error, RUNNEL_EIO,
        "model '%s': expected a file or the name of a pulled model, found neither here nor in models or %s; "
        "%s`runnel list` shows the names",
        model, folder, suggest(model, folder, near));
}
