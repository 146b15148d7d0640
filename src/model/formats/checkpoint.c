/* checkpoint.c: the safetensors files of a folder as one list of tensors. See checkpoint.h. */
#include "model/formats/checkpoint.h"

#include "model/formats/folder_file.h"

#include <dirent.h>
#include <stdlib.h>
#include <string.h>

#define INDEX_NAME  "model.safetensors.index.json"
#define SINGLE_NAME "model.safetensors"

enum { INDEX_MAX_BYTES = 32 << 20, FILES_MAX = 1024 };

/* Names of files, each once. */
struct names {
    char *names[FILES_MAX];
    size_t n;
};

static void names_free(struct names *names)
{
    for (size_t i = 0; i < names->n; i++)
        free(names->names[i]);
}

static int names_add(struct names *names, const char *name, runnel_error *error)
{
    for (size_t i = 0; i < names->n; i++)
        if (!strcmp(names->names[i], name))
            return RUNNEL_OK;
    if (names->n == FILES_MAX)
        return error_set(error, RUNNEL_EFORMAT, "more than %d safetensors files", FILES_MAX);
    names->names[names->n] = strdup(name);
    if (!names->names[names->n])
        return error_set(error, RUNNEL_ENOMEM, "no memory for the name of a file");
    names->n++;
    return RUNNEL_OK;
}

/* Which files ------------------------------------------------------------------------------------------------ */

/* The index leads nowhere but to files of its own folder. */
static bool is_plain_name(const char *name)
{
    return *name && *name != '.' && !strchr(name, '/');
}

static int read_index(const char *folder, json_t **index, json_t **map, runnel_error *error)
{
    json_t *found = NULL;
    int code = folder_read_json(folder, INDEX_NAME, INDEX_MAX_BYTES, index, error);
    if (!code)
        code = json_field_object((struct json_place){*index, INDEX_NAME}, "weight_map", &found, error);
    if (!code && !found)
        code = error_set(error, RUNNEL_EFORMAT, INDEX_NAME ": weight_map: not there");
    *map = found;
    return code;
}

static int list_indexed(json_t *map, struct names *names, runnel_error *error)
{
    const char *tensor;
    json_t *value;
    json_object_foreach(map, tensor, value)
    {
        const char *file = json_string_value(value);
        if (!file || !is_plain_name(file))
            return error_set(error, RUNNEL_EFORMAT,
                             INDEX_NAME ": tensor %s: expected the name of a file of this folder", tensor);
        int code = names_add(names, file, error);
        if (code)
            return code;
    }
    return RUNNEL_OK;
}

static int list_folder(const char *folder, struct names *names, runnel_error *error)
{
    static const char ending[] = ".safetensors";
    if (folder_has(folder, SINGLE_NAME))
        return names_add(names, SINGLE_NAME, error);
    DIR *directory = opendir(folder);
    if (!directory)
        return error_set(error, RUNNEL_EIO, "cannot open the folder: %m");
    int code = RUNNEL_OK;
    for (struct dirent *entry; !code && (entry = readdir(directory));) {
        size_t len = strlen(entry->d_name);
        if (entry->d_name[0] != '.' && len > sizeof ending - 1 &&
            !strcmp(entry->d_name + len - (sizeof ending - 1), ending))
            code = names_add(names, entry->d_name, error);
    }
    closedir(directory);
    if (!code && !names->n)
        code = error_set(error, RUNNEL_EIO, SINGLE_NAME ": not there, nor any other safetensors file%s",
                         folder_has(folder, "pytorch_model.bin") ||
                                 folder_has(folder, "pytorch_model.bin.index.json")
                             ? "; pytorch_model.bin is a program as much as a file, and is not read"
                             : "");
    return code;
}

/* Tensors ---------------------------------------------------------------------------------------------------- */

static int open_files(struct checkpoint *checkpoint, const char *folder, const struct names *names,
                      runnel_error *error)
{
    checkpoint->files = calloc(names->n + 1, sizeof *checkpoint->files);
    if (!checkpoint->files)
        return error_set(error, RUNNEL_ENOMEM, "no memory for %zu files", names->n);
    for (size_t i = 0; i < names->n; i++) {
        char path[FOLDER_PATH_MAX];
        int code = folder_path(folder, names->names[i], path, error);
        if (!code)
            code = safetensors_open(path, names->names[i], &checkpoint->files[i], error);
        if (code)
            return code;
        checkpoint->n_files++;
        checkpoint->n += checkpoint->files[i]->n;
    }
    return RUNNEL_OK;
}

static int compare_names(const void *a, const void *b)
{
    const struct checkpoint_tensor *left = a, *right = b;
    return strcmp(left->tensor->name, right->tensor->name);
}

static const char *file_name(const struct safetensors *file)
{
    return strrchr(file->path, '/') + 1;
}

static int list_tensors(struct checkpoint *checkpoint, runnel_error *error)
{
    size_t n = 0;
    checkpoint->tensors = calloc(checkpoint->n + 1, sizeof *checkpoint->tensors);
    if (!checkpoint->tensors)
        return error_set(error, RUNNEL_ENOMEM, "no memory for %zu tensors", checkpoint->n);
    for (size_t i = 0; i < checkpoint->n_files; i++)
        for (size_t t = 0; t < checkpoint->files[i]->n; t++)
            checkpoint->tensors[n++] =
                (struct checkpoint_tensor){checkpoint->files[i], &checkpoint->files[i]->tensors[t], false};
    qsort(checkpoint->tensors, n, sizeof *checkpoint->tensors, compare_names);
    for (size_t i = 1; i < n; i++) {
        const struct checkpoint_tensor *tensor = &checkpoint->tensors[i];
        if (!strcmp(tensor[-1].tensor->name, tensor->tensor->name))
            return error_set(error, RUNNEL_EFORMAT, "tensor %s is in %s and in %s", tensor->tensor->name,
                             file_name(tensor[-1].file), file_name(tensor->file));
    }
    return RUNNEL_OK;
}

/* Every tensor is where the index says, and the index says it of every tensor. */
static int check_index(const struct checkpoint *checkpoint, json_t *map, runnel_error *error)
{
    const char *name;
    json_t *value;
    json_object_foreach(map, name, value)
    {
        const struct checkpoint_tensor *tensor = checkpoint_find(checkpoint, name);
        if (!tensor || strcmp(file_name(tensor->file), json_string_value(value)) != 0)
            return error_set(error, RUNNEL_EFORMAT, "tensor %s is not in %s, where " INDEX_NAME " has it",
                             name, json_string_value(value));
    }
    for (size_t i = 0; i < checkpoint->n; i++) {
        const struct checkpoint_tensor *tensor = &checkpoint->tensors[i];
        if (!json_object_get(map, tensor->tensor->name))
            return error_set(error, RUNNEL_EFORMAT, "tensor %s of %s is not in " INDEX_NAME,
                             tensor->tensor->name, file_name(tensor->file));
    }
    return RUNNEL_OK;
}

static int open_checkpoint(struct checkpoint *checkpoint, const char *folder, struct names *names,
                           json_t **index, runnel_error *error)
{
    json_t *map = NULL;
    int code = RUNNEL_OK;
    if (folder_has(folder, INDEX_NAME)) {
        code = read_index(folder, index, &map, error);
        if (!code)
            code = list_indexed(map, names, error);
    } else {
        code = list_folder(folder, names, error);
    }
    if (!code)
        code = open_files(checkpoint, folder, names, error);
    if (!code)
        code = list_tensors(checkpoint, error);
    if (!code && map)
        code = check_index(checkpoint, map, error);
    return code;
}

int checkpoint_open(const char *folder, struct checkpoint **out, runnel_error *error)
{
    struct checkpoint *checkpoint = calloc(1, sizeof *checkpoint);
    struct names *names = calloc(1, sizeof *names);
    json_t *index = NULL;
    int code = checkpoint && names ? open_checkpoint(checkpoint, folder, names, &index, error)
                                   : error_set(error, RUNNEL_ENOMEM, "no memory for a list of files");
    json_decref(index);
    if (names)
        names_free(names);
    free(names);
    if (code) {
        checkpoint_close(checkpoint);
        return code;
    }
    *out = checkpoint;
    return RUNNEL_OK;
}

void checkpoint_close(struct checkpoint *checkpoint)
{
    if (!checkpoint)
        return;
    for (size_t i = 0; i < checkpoint->n_files; i++)
        safetensors_close(checkpoint->files[i]);
    free(checkpoint->files);
    free(checkpoint->tensors);
    free(checkpoint);
}

struct checkpoint_tensor *checkpoint_find(const struct checkpoint *checkpoint, const char *name)
{
    size_t low = 0, high = checkpoint->n;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        int order = strcmp(checkpoint->tensors[middle].tensor->name, name);
        if (order == 0)
            return &checkpoint->tensors[middle];
        if (order < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return NULL;
}

int checkpoint_float_type(const struct checkpoint_tensor *tensor, enum tensor_type *type, runnel_error *error)
{
    switch (tensor->tensor->dtype) {
    case DTYPE_F32:
        *type = TENSOR_F32;
        return RUNNEL_OK;
    case DTYPE_F16:
        *type = TENSOR_F16;
        return RUNNEL_OK;
    case DTYPE_BF16:
        *type = TENSOR_BF16;
        return RUNNEL_OK;
    default:
        return error_set(error, RUNNEL_EUNSUPPORTED,
                         "tensor %s: dtype %s is not supported, expected F32, F16 or BF16",
                         tensor->tensor->name, tensor->tensor->dtype_name);
    }
}
