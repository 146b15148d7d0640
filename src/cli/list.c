/* list.c: the commands `runnel list` and `runnel rm`: what models are known, which are there, and removing one.
 *
 * Names are looked for in two folders, as -m does: that of pulled models, and `models` where the program is run. A file
 * NAME.gguf.part is a download that has not ended. One thread. */
#include "cli/list.h"

#include <dirent.h>
#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/error.h"
#include "base/text.h"
#include "base/utf8.h"
#include "cli/catalogue.h"
#include "cli/cli.h"
#include "cli/download.h"

enum { N_FOLDERS = 2, NAME_COLUMNS = 14, SIZE_COLUMNS = 9, LINE_COLUMNS = 80 };

/* A file of a model, or what has come of it so far. */
struct stored {
    char name[256]; /* as -m takes it: the file's without .gguf */
    char path[4096];
    uint64_t n_bytes;
    bool is_part;
};

struct store {
    struct stored *models; /* sorted by folder, then by name; the caller's to free */
    size_t n, cap;
    char folders[N_FOLDERS][3072];
    size_t n_folders;
};

/* What is there --------------------------------------------------------------------------------------------- */

static bool ends_with(const char *text, const char *end)
{
    size_t len = strlen(text), end_len = strlen(end);
    return len > end_len && !strcmp(text + len - end_len, end);
}

static int add_model(struct store *store, const char *folder, const char *file, runnel_error *error)
{
    struct stat status;
    struct stored model = {.is_part = ends_with(file, ".part")};
    size_t len = strlen(file) - strlen(model.is_part ? ".gguf.part" : ".gguf");
    int path_len = snprintf(model.path, sizeof model.path, "%s/%s", folder, file);
    if (len >= sizeof model.name || path_len < 0 || (size_t)path_len >= sizeof model.path ||
        stat(model.path, &status) || !S_ISREG(status.st_mode))
        return RUNNEL_OK; /* nothing that -m could open by a name */
    memcpy(model.name, file, len);
    model.n_bytes = (uint64_t)status.st_size;
    if (store->n == store->cap) {
        size_t cap = store->cap * 2 + 16;
        struct stored *grown = realloc(store->models, cap * sizeof *grown);
        if (!grown)
            return error_set(error, RUNNEL_ENOMEM, "no memory for a list of models");
        store->models = grown;
        store->cap = cap;
    }
    store->models[store->n++] = model;
    return RUNNEL_OK;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const struct stored *)a)->name, ((const struct stored *)b)->name);
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
        if (ends_with(entry->d_name, ".gguf") || ends_with(entry->d_name, ".gguf.part"))
            failure = add_model(store, folder, entry->d_name, error);
    closedir(dir);
    if (store->n > first)
        qsort(store->models + first, store->n - first, sizeof *store->models, by_name);
    return failure;
}

static bool same_folder(const char *a, const char *b)
{
    struct stat one, other;
    return !stat(a, &one) && !stat(b, &other) && one.st_dev == other.st_dev && one.st_ino == other.st_ino;
}

static int read_store(struct store *store, runnel_error *error)
{
    *store = (struct store){.n_folders = 0};
    if (catalogue_folder(store->folders[0], sizeof store->folders[0], NULL) == RUNNEL_OK)
        store->n_folders = 1;
    if (!store->n_folders || !same_folder(store->folders[0], "models"))
        strcpy(store->folders[store->n_folders++], "models");
    int failure = RUNNEL_OK;
    for (size_t i = 0; !failure && i < store->n_folders; i++)
        failure = read_folder(store, store->folders[i], error);
    if (failure)
        free(store->models);
    return failure;
}

/* The file that -m would open by this name, or if there is none, what has come of it. */
static const struct stored *find_stored(const struct store *store, const char *name)
{
    size_t len = strlen(name) - (ends_with(name, ".gguf") ? strlen(".gguf") : 0);
    for (int is_part = 0; is_part < 2; is_part++)
        for (size_t i = 0; i < store->n; i++)
            if (store->models[i].is_part == is_part && strlen(store->models[i].name) == len &&
                !memcmp(store->models[i].name, name, len))
                return &store->models[i];
    return NULL;
}

/* The list ---------------------------------------------------------------------------------------------------- */

static void format_size(uint64_t n_bytes, char *text, size_t size)
{
    if (n_bytes >= 1000000000)
        snprintf(text, size, "%.1f GB", (double)n_bytes / 1e9);
    else
        snprintf(text, size, "%.0f MB", (double)n_bytes / 1e6);
}

/* `* NAME   SIZE  TEXT`: * where it is there, . where a part of it is. Cut where the line would be longer than a
 * terminal. */
static void print_line(const char *name, const struct stored *stored, uint64_t n_bytes_known,
                       const char *text)
{
    char size[32] = "", line[512], part[64] = "";
    if (stored)
        format_size(stored->n_bytes, size, sizeof size);
    if (stored && stored->is_part && n_bytes_known)
        snprintf(part, sizeof part,
                 "%.0f %% has come: ", 1e2 * (double)stored->n_bytes / (double)n_bytes_known);
    else if (stored && stored->is_part)
        snprintf(part, sizeof part, "a part has come: ");
    snprintf(line, sizeof line, "%c %-*s %*s  %s%s",
             !stored           ? ' '
             : stored->is_part ? '.'
                               : '*',
             NAME_COLUMNS, name, SIZE_COLUMNS, size, part, text);
    if (strlen(line) > LINE_COLUMNS && strlen(name) <= NAME_COLUMNS)
        line[LINE_COLUMNS] = 0;
    line[strcspn(line, "\n")] = 0;
    puts(line);
}

/* Not a model that is known by name, or a second file of one. */
static bool is_other(const struct store *store, const struct stored *model)
{
    struct catalogue_entry known;
    return catalogue_find(model->name, &known, NULL) || find_stored(store, model->name) != model;
}

static void print_text(const struct store *store)
{
    struct catalogue_entry entry;
    for (const char *cursor = NULL; catalogue_next(&cursor, &entry);)
        print_line(entry.name, find_stored(store, entry.file), entry.n_bytes, entry.text);
    for (size_t i = 0; i < store->n; i++) {
        const struct stored *model = &store->models[i];
        if (is_other(store, model))
            print_line(model->name, model, 0, model->path);
    }
    fputs("\n*: it is here; .: a part of it is.\n`runnel pull NAME` gets one, `runnel rm NAME` removes it.\n",
          stdout);
    printf("Pulled models are kept in %s\n", store->folders[0]);
}

/* A file's name may be no UTF-8: then it has no JSON, and is null. */
static int add_object(json_t *list, const char *name, const struct stored *stored,
                      const struct catalogue_entry *known)
{
    bool is_here = stored && !stored->is_part;
    return json_array_append_new(
        list,
        json_pack("{s:s?, s:s?, s:I, s:b, s:b, s:s}", "name", utf8_valid(name, strlen(name)) ? name : NULL,
                  "path", is_here && utf8_valid(stored->path, strlen(stored->path)) ? stored->path : NULL,
                  "bytes", (json_int_t)(stored ? stored->n_bytes : 0), "complete", is_here, "known",
                  known != NULL, "text", known ? known->text : ""));
}

static int print_json(const struct store *store)
{
    struct catalogue_entry entry;
    json_t *list = json_array();
    int failed = !list;
    for (const char *cursor = NULL; !failed && catalogue_next(&cursor, &entry);)
        failed = add_object(list, entry.name, find_stored(store, entry.file), &entry);
    for (size_t i = 0; !failed && i < store->n; i++)
        if (is_other(store, &store->models[i]))
            failed = add_object(list, store->models[i].name, &store->models[i], NULL);
    failed = failed || json_dumpf(list, stdout, JSON_INDENT(2));
    json_decref(list);
    putchar('\n');
    return failed;
}

int list_models(bool as_json)
{
    struct store store;
    runnel_error error;
    if (read_store(&store, &error))
        return cli_fail(&error);
    int failure = RUNNEL_OK;
    if (!as_json)
        print_text(&store);
    else if (print_json(&store))
        failure = error_set(&error, RUNNEL_ENOMEM, "the list cannot be written as JSON");
    free(store.models);
    return failure ? cli_fail(&error) : EXIT_DONE;
}

struct list_settings {
    bool json;
};

static const struct option_spec list_options[] = {
    {"json", 0, OPTION_FLAG, NULL, "print a list of objects: name, path, bytes, complete, known, text",
     OPTION_FIELD(struct list_settings, json)},
};

static const struct options_table list_table = {
    "runnel list", "Shows the models known by name and those that are here, with their sizes.", list_options,
    OPTION_COUNT(list_options)};

int command_list(int argc, char **argv)
{
    struct list_settings settings;
    int status = cli_read_options(&list_table, argc, argv, &settings);
    return status >= 0 ? status : list_models(settings.json);
}

/* Removing ------------------------------------------------------------------------------------------------------ */

struct rm_settings {
    const char *name;
};

static const struct option_spec rm_options[] = {
    {"NAME", 0, OPTION_STRING, NULL, "of a model that `runnel list` shows as here",
     OPTION_FIELD(struct rm_settings, name), .positional = true, .required = true},
};

static const struct options_table rm_table = {
    "runnel rm", "Removes a model, or what has come of one: the file that -m NAME would open.", rm_options,
    OPTION_COUNT(rm_options)};

static int refuse_name(const struct store *store, const char *name, runnel_error *error)
{
    struct text names = {0};
    for (size_t i = 0; i < store->n; i++) {
        text_add_string(&names, i ? ", " : "");
        text_add_string(&names, store->models[i].name);
    }
    if (store->n && !names.failed)
        error_set(error, RUNNEL_EINVAL, "no model '%s' is here; there is %s", name, names.bytes);
    else
        error_set(error, RUNNEL_EINVAL, "no model '%s' is here, nor any other", name);
    text_free(&names);
    return error->code;
}

static int remove_model(const struct stored *model, runnel_error *error)
{
    char part[4200], size[32];
    if (unlink(model->path))
        return error_set(error, RUNNEL_EIO, "%s: cannot be removed: %s", model->path, strerror(errno));
    snprintf(part, sizeof part, "%s%s", model->path, model->is_part ? "" : ".part");
    download_discard(part); /* with what stands beside it: where it came from */
    format_size(model->n_bytes, size, sizeof size);
    fprintf(stderr, "%s: removed (%s)\n", model->path, size);
    return RUNNEL_OK;
}

int command_rm(int argc, char **argv)
{
    struct rm_settings settings;
    struct store store;
    runnel_error error;
    int status = cli_read_options(&rm_table, argc, argv, &settings);
    if (status >= 0)
        return status;
    if (strchr(settings.name, '/')) {
        error_set(&error, RUNNEL_EINVAL,
                  "'%s': expected a name that `runnel list` shows, found a path; the "
                  "shell's own rm removes a file",
                  settings.name);
        return cli_fail(&error);
    }
    if (read_store(&store, &error))
        return cli_fail(&error);
    const struct stored *model = find_stored(&store, settings.name);
    int failure = model ? remove_model(model, &error) : refuse_name(&store, settings.name, &error);
    free(store.models);
    return failure ? cli_fail(&error) : EXIT_DONE;
}
