/* list.c: the commands `runnel list` and `runnel rm`: what models are known, which are there, and removing some.
 One thread. */
#include "cli/list.h"

#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/error.h"
#include "base/limits.h"
#include "base/near_name.h"
#include "base/split_name.h"
#include "base/text.h"
#include "base/utf8.h"
#include "cli/catalogue.h"
#include "cli/cli.h"
#include "cli/memory_need.h"
#include "cli/model_check.h"
#include "cli/part.h"
#include "cli/size_text.h"
#include "cli/stored.h"

enum { NAME_COLUMNS = 14, SIZE_COLUMNS = 8, LINE_COLUMNS = 80 };

/* In models.tsv, at the end of a text: the size of what has no known one. */
static const char about_size[] = ", about ";

/* The list ---------------------------------------------------------------------------------------------------- */

/* The size of a known model that is not here: what models.tsv says, beforehand or at the end of the text. */
static void format_known_size(const struct catalogue_entry *known, char text[SIZE_TEXT_BYTES])
{
    const char *about = strstr(known->text, about_size);
    if (known->n_bytes)
        size_text(known->n_bytes, text);
    else
        snprintf(text, SIZE_TEXT_BYTES, "%s%s", about ? "~" : "", about ? about + strlen(about_size) : "");
}

/* Of a file that is whole by its name, its header says what it is good for. */
static enum model_content content_of(const struct stored *stored)
{
    return stored->kind == STORED_MODEL ? model_look(stored->path) : MODEL_WHOLE;
}

static char mark_of(const struct stored *stored, enum model_content content)
{
    static const char marks[] = {[STORED_MODEL] = '*', [STORED_PART] = '.', [STORED_DANGLING] = '!'};
    return content == MODEL_CUT ? marks[STORED_PART] : marks[stored->kind];
}

/* Why a file that is there cannot be run. */
static const char *remark_content(enum model_content content)
{
    static const char *const remarks[] = {
        [MODEL_WHOLE] = "",
        [MODEL_VOCABULARY] = "vocabulary only: ",
        [MODEL_CUT] = "not a whole file: ",
        [MODEL_IMPORTANCE] = "importance file: ",
        [MODEL_ADDITION] = "not a model by itself: ",
        [MODEL_FOREIGN] = "not a GGUF file: ",
    };
    return remarks[content];
}

/* "4.7 GB" at the end of a known model's text, as bytes; 0: it says none. */
static uint64_t about_bytes(const struct catalogue_entry *known)
{
    const char *about = strstr(known->text, about_size);
    if (!about)
        return 0;
    char *unit;
    double value = strtod(about + strlen(about_size), &unit);
    return (uint64_t)(value * (strstr(unit, "GB") ? 1e9 : 1e6));
}

/* The memory that a known model needs; 0: nobody knows. */
static uint64_t need_of(const struct catalogue_entry *known, const struct stored *stored)
{
    uint64_t weight_bytes = known->n_bytes ? known->n_bytes : about_bytes(known);
    if (stored && stored->kind == STORED_MODEL)
        weight_bytes = stored->n_bytes;
    return known->shape.n_layers && weight_bytes ? memory_need(&known->shape, weight_bytes) : 0;
}

/* What there is to say of a file, before its text. */
static void remark(const struct stored *stored, const struct catalogue_entry *known,
                   enum model_content content, char *text, size_t size)
{
    *text = 0;
    if (stored->kind == STORED_PART && stored->n_parts)
        snprintf(text, size, "%u of %u parts are here: ", stored->n_whole, stored->n_parts);
    else if (stored->kind == STORED_PART && known && known->n_bytes)
        snprintf(text, size, "%.0f %% has come: ", 1e2 * (double)stored->n_bytes / (double)known->n_bytes);
    else if (stored->kind == STORED_PART)
        snprintf(text, size, "a part has come: ");
    else if (stored->kind == STORED_DANGLING)
        snprintf(text, size, "a link to nothing: ");
    else if (stored->n_parts)
        snprintf(text, size, "%sin %u parts: ", remark_content(content), stored->n_parts);
    else
        snprintf(text, size, "%s", remark_content(content));
}

/* `* NAME   SIZE  TEXT`: * where it is there, . where a part of it is. */
static void print_columns(char mark, const char *name, const char *size, const char *before, const char *text,
                          int text_len, const char *after)
{
    char line[6000];
    snprintf(line, sizeof line, "%c %-*s %*s  %s%.*s%s", mark, NAME_COLUMNS, name, SIZE_COLUMNS, size, before,
             text_len, text, after);
    for (char *c = line; *c; c++)
        if ((unsigned char)*c < ' ' || *c == 0x7f) /* of a file's name: a terminal would do what it says */
            *c = '?';
    puts(line);
}

/* The text is cut where the line would be longer than a terminal, but not what the model needs. */
static void print_known(const struct catalogue_entry *known, const struct stored *stored,
                        uint64_t limit_bytes)
{
    char size[SIZE_TEXT_BYTES], before[64] = "", needs[64] = "";
    enum model_content content = stored ? content_of(stored) : MODEL_WHOLE;
    const char *about = strstr(known->text, about_size);
    int len = about ? (int)(about - known->text) : (int)strlen(known->text);
    uint64_t need = need_of(known, stored);
    if (need) {
        size_text(need, size);
        snprintf(needs, sizeof needs, "; needs %s%s", size,
                 limit_bytes && need > limit_bytes ? ", too much" : "");
    }
    if (stored && stored->kind != STORED_DANGLING)
        size_text(stored->n_bytes, size);
    else
        format_known_size(known, size);
    if (stored)
        remark(stored, known, content, before, sizeof before);
    int room =
        LINE_COLUMNS - (2 + NAME_COLUMNS + 1 + SIZE_COLUMNS + 2) - (int)strlen(before) - (int)strlen(needs);
    print_columns(stored ? mark_of(stored, content) : ' ', known->name, size, before, known->text,
                  len < room ? len
                  : room > 0 ? room
                             : 0,
                  needs);
}

static void print_other(const struct stored *stored)
{
    char size[SIZE_TEXT_BYTES] = "", before[64], target[sizeof stored->target + 8] = "";
    enum model_content content = content_of(stored);
    if (stored->kind == STORED_DANGLING)
        snprintf(target, sizeof target, " -> %s", stored->target);
    else
        size_text(stored->n_bytes, size);
    remark(stored, NULL, content, before, sizeof before);
    print_columns(mark_of(stored, content), stored->name, size, before, stored->path,
                  (int)strlen(stored->path), target);
}

/* Not a model that is known by name, or a second file of one. */
static bool is_other(const struct store *store, const struct stored *model)
{
    struct catalogue_entry known;
    return catalogue_find(model->name, &known, NULL) || stored_find(store, model->name) != model;
}

static void print_text(const struct store *store)
{
    struct catalogue_entry entry;
    bool dangles = false;
    uint64_t limit_bytes = limits_memory().limit_bytes;
    for (const char *cursor = NULL; catalogue_next(&cursor, &entry);)
        print_known(&entry, stored_find(store, entry.name), limit_bytes);
    for (size_t i = 0; i < store->n; i++) {
        const struct stored *model = &store->models[i];
        if (is_other(store, model))
            print_other(model);
        dangles = dangles || model->kind == STORED_DANGLING;
    }
    printf(
        "\n*: it is here; .: a part of it is%s.\n`runnel pull NAME` gets one, `runnel rm NAME` removes it.\n",
        dangles ? "; !: a link, but what it points to is gone" : "");
    char limit[SIZE_TEXT_BYTES];
    printf("needs: memory for weights, a context of %d tokens and work%s%s.\n", MEMORY_NEED_CONTEXT,
           limit_bytes ? "; there are " : "", limit_bytes ? size_text(limit_bytes, limit) : "");
    if (store->n_pulled)
        printf("Pulled models are kept in %s\n", store->folders[0]);
}

/* A file's name may be no UTF-8: then it has no JSON, and is null. */
static int add_object(json_t *list, const char *name, const struct stored *stored,
                      const struct catalogue_entry *known)
{
    bool is_here = stored && stored->kind == STORED_MODEL;
    uint64_t need = known ? need_of(known, stored) : 0;
    return json_array_append_new(
        list, json_pack("{s:s?, s:s?, s:I, s:I, s:i, s:b, s:b, s:s}", "name",
                        utf8_valid(name, strlen(name)) ? name : NULL, "path",
                        is_here && utf8_valid(stored->path, strlen(stored->path)) ? stored->path : NULL,
                        "bytes", (json_int_t)(stored ? stored->n_bytes : 0), "memory_bytes", (json_int_t)need,
                        "parts", stored && stored->n_parts ? (int)stored->n_parts : 1, "complete",
                        is_here && content_of(stored) != MODEL_CUT, "known", known != NULL, "text",
                        known ? known->text : ""));
}

static int print_json(const struct store *store)
{
    struct catalogue_entry entry;
    json_t *list = json_array();
    int failed = !list;
    for (const char *cursor = NULL; !failed && catalogue_next(&cursor, &entry);)
        failed = add_object(list, entry.name, stored_find(store, entry.name), &entry);
    for (size_t i = 0; !failed && i < store->n; i++)
        if (is_other(store, &store->models[i]))
            failed = add_object(list, store->models[i].name, &store->models[i], NULL);
    if (!failed)
        json_dumpf(list, stdout, JSON_INDENT(2));
    json_decref(list);
    putchar('\n');
    return failed;
}

int list_models(bool as_json)
{
    struct store store;
    runnel_error error;
    if (stored_read(&store, &error))
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
    {"json", 0, OPTION_FLAG, NULL,
     "print a list of objects: name, path, bytes, memory_bytes (what it needs; 0: not "
     "known), parts, complete, known, text",
     OPTION_FIELD(struct list_settings, json)},
};

const struct options_table list_table = {
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
    struct option_texts names;
};

static const struct option_spec rm_options[] = {
    {"NAME", 0, OPTION_TEXTS, NULL,
     "of a model that `runnel list` shows as here; several are removed in turn",
     OPTION_FIELD(struct rm_settings, names), .positional = true, .required = true},
};

const struct options_table rm_table = {
    "runnel rm", "Removes models, or what has come of them: of each name the file that -m NAME would open.",
    rm_options, OPTION_COUNT(rm_options)};

static int refuse_name(const struct store *store, const char *name, runnel_error *error)
{
    struct text names = {0};
    struct near_name near = near_name_begin(name, catalogue_stem(name));
    struct catalogue_entry known;
    for (size_t i = 0; i < store->n; i++) {
        text_add_string(&names, i ? ", " : "");
        text_add_string(&names, store->models[i].name);
        near_name_consider(&near, store->models[i].name, strlen(store->models[i].name));
    }
    bool is_known = catalogue_find(name, &known, NULL) == RUNNEL_OK;
    if (!store->n || names.failed)
        error_set(error, RUNNEL_EINVAL, "no model '%s' is here, nor any other", name);
    else if (*near.nearest && !is_known)
        error_set(error, RUNNEL_EINVAL, "no model '%s' is here; did you mean %s? there is %s", name,
                  near.nearest, names.bytes);
    else
        error_set(error, RUNNEL_EINVAL, "no model '%s' is here; there is %s", name, names.bytes);
    text_free(&names);
    return error->code;
}

static int refuse_busy(const struct stored *model, runnel_error *error)
{
    return error_set(error, RUNNEL_EBUSY,
                     "%s is being downloaded; stop that `runnel pull` first (Ctrl-C), then remove it",
                     model->name);
}

static int remove_file(const char *path, runnel_error *error)
{
    return unlink(path) && errno != ENOENT
               ? error_set(error, RUNNEL_EIO, "%s: cannot be removed: %s", path, strerror(errno))
               : RUNNEL_OK;
}

/* The path of a part of a model, and that of the download that is to become it. */
struct part_paths {
    char whole[4200], part[4300];
};

static void find_part(const struct stored *model, unsigned number, struct part_paths *paths)
{
    struct split_name name;
    snprintf(paths->whole, sizeof paths->whole, "%s", model->path);
    if (split_name_read(paths->whole, strlen(paths->whole), &name))
        split_name_renumber(paths->whole, &name, number);
    snprintf(paths->part, sizeof paths->part, "%s.part", paths->whole);
}

/* All or, while one is being downloaded, none: a pull holds the first of them as long as it runs. */
static int remove_parts(const struct stored *model, runnel_error *error)
{
    struct part_paths paths;
    char size[SIZE_TEXT_BYTES];
    int failure = RUNNEL_OK;
    for (unsigned number = 1; number <= model->n_parts; number++) {
        find_part(model, number, &paths);
        if (part_check_free(paths.whole, error) || part_check_free(paths.part, error))
            return refuse_busy(model, error);
    }
    for (unsigned number = 1; !failure && number <= model->n_parts; number++) {
        find_part(model, number, &paths);
        failure = part_remove(paths.part, error);
        if (!failure)
            failure = remove_file(paths.whole, error);
    }
    if (failure)
        return failure == RUNNEL_EBUSY ? refuse_busy(model, error) : failure;
    fprintf(stderr, "%s: all parts are removed (%s)\n", model->path, size_text(model->n_bytes, size));
    return RUNNEL_OK;
}

static int remove_model(const struct stored *model, runnel_error *error)
{
    if (model->n_parts)
        return remove_parts(model, error);
    char part[4200], size[SIZE_TEXT_BYTES];
    bool is_part = model->kind == STORED_PART;
    snprintf(part, sizeof part, "%s%s", model->path, is_part ? "" : ".part");
    int failure = part_remove(part, error);
    if (failure)
        return failure == RUNNEL_EBUSY ? refuse_busy(model, error) : failure;
    if (!is_part && unlink(model->path))
        return error_set(error, RUNNEL_EIO, "%s: cannot be removed: %s", model->path, strerror(errno));
    size_text(model->n_bytes, size);
    if (*model->target)
        fprintf(stderr, "%s: the link is removed; what it points to is not touched: %s\n", model->path,
                model->target);
    else
        fprintf(stderr, "%s: removed (%s)\n", model->path, size);
    return RUNNEL_OK;
}

static int remove_name(const char *name, runnel_error *error)
{
    struct store store;
    if (strchr(name, '/'))
        return error_set(error, RUNNEL_EINVAL,
                         "'%s': expected a name that `runnel list` shows, found a path; the "
                         "shell's own rm removes a file",
                         name);
    int failure = stored_read(&store, error);
    if (failure)
        return failure;
    const struct stored *model = stored_find(&store, name);
    failure = model ? remove_model(model, error) : refuse_name(&store, name, error);
    free(store.models);
    return failure;
}

/* One that cannot be removed does not keep the others. */
int command_rm(int argc, char **argv)
{
    struct rm_settings settings;
    runnel_error error;
    int status = cli_read_options(&rm_table, argc, argv, &settings);
    if (status >= 0)
        return status;
    status = EXIT_DONE;
    for (size_t i = 0; i < settings.names.n; i++)
        if (remove_name(settings.names.values[i], &error))
            status = cli_fail(&error);
    return status;
}
