/* safetensors.c: the header of a safetensors file, and every check on it. See safetensors.h. */
#include "model/formats/safetensors.h"

#include "base/input_file.h"
#include "model/formats/folder_file.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Some fifty thousand tensors; a file of one layer has a few kilobytes. */
enum { HEADER_MIN_BYTES = 2, HEADER_MAX_BYTES = 8 << 20, NAME_MAX_BYTES = 255 };

static const struct {
    const char *name;
    enum safetensors_dtype dtype;
    unsigned n_bytes; /* of a value */
} dtypes[] = {
    {"F32", DTYPE_F32, 4},       {"F16", DTYPE_F16, 2},       {"BF16", DTYPE_BF16, 2},
    {"I32", DTYPE_I32, 4},       {"F64", DTYPE_OTHER, 8},     {"I64", DTYPE_OTHER, 8},
    {"U64", DTYPE_OTHER, 8},     {"U32", DTYPE_OTHER, 4},     {"I16", DTYPE_OTHER, 2},
    {"U16", DTYPE_OTHER, 2},     {"I8", DTYPE_OTHER, 1},      {"U8", DTYPE_OTHER, 1},
    {"BOOL", DTYPE_OTHER, 1},    {"F8_E4M3", DTYPE_OTHER, 1}, {"F8_E5M2", DTYPE_OTHER, 1},
    {"F8_E8M0", DTYPE_OTHER, 1},
};

static int read_dtype(const char *name, const json_t *entry, struct safetensor *tensor, uint64_t *value_bytes,
                      runnel_error *error)
{
    const char *dtype = json_string_value(json_object_get(entry, "dtype"));
    if (!dtype)
        return error_set(error, RUNNEL_EFORMAT, "tensor %s: expected a dtype, as \"BF16\"", name);
    for (size_t i = 0; i < sizeof dtypes / sizeof *dtypes; i++)
        if (!strcmp(dtype, dtypes[i].name)) {
            tensor->dtype = dtypes[i].dtype;
            tensor->dtype_name = dtypes[i].name;
            *value_bytes = dtypes[i].n_bytes;
            return RUNNEL_OK;
        }
    return error_set(error, RUNNEL_EUNSUPPORTED, "tensor %s: dtype \"%.40s\" is not known", name, dtype);
}

/* n_bytes: of one value when it begins, of all when it is done. */
static int read_shape(const char *name, const json_t *entry, struct safetensor *tensor, uint64_t *n_bytes,
                      runnel_error *error)
{
    const json_t *shape = json_object_get(entry, "shape");
    if (!json_is_array(shape) || json_array_size(shape) > SAFETENSORS_DIMS_MAX)
        return error_set(error, RUNNEL_EFORMAT, "tensor %s: expected a shape of at most %d dimensions", name,
                         SAFETENSORS_DIMS_MAX);
    tensor->n_dims = (uint32_t)json_array_size(shape);
    for (uint32_t d = 0; d < SAFETENSORS_DIMS_MAX; d++)
        tensor->dims[d] = 1;
    for (uint32_t d = 0; d < tensor->n_dims; d++) {
        const json_t *dim = json_array_get(shape, d);
        if (!json_is_integer(dim) || json_integer_value(dim) < 0)
            return error_set(error, RUNNEL_EFORMAT, "tensor %s: dimension %u: expected a whole number", name,
                             d);
        tensor->dims[d] = (uint64_t)json_integer_value(dim);
        if (__builtin_mul_overflow(*n_bytes, tensor->dims[d], n_bytes))
            return error_set(error, RUNNEL_EFORMAT, "tensor %s: its size overflows", name);
    }
    return RUNNEL_OK;
}

/* data_begin: of the values, from the start of the file. */
static int read_offsets(const char *name, const json_t *entry, uint64_t data_begin, uint64_t file_bytes,
                        uint64_t n_bytes, struct safetensor *tensor, runnel_error *error)
{
    const json_t *offsets = json_object_get(entry, "data_offsets");
    const json_t *first = json_array_get(offsets, 0), *last = json_array_get(offsets, 1);
    if (json_array_size(offsets) != 2 || !json_is_integer(first) || !json_is_integer(last) ||
        json_integer_value(first) < 0 || json_integer_value(last) < json_integer_value(first))
        return error_set(error, RUNNEL_EFORMAT,
                         "tensor %s: expected data_offsets of two ascending whole numbers", name);
    uint64_t begin = (uint64_t)json_integer_value(first), end = (uint64_t)json_integer_value(last);
    if (end > file_bytes - data_begin)
        return error_set(error, RUNNEL_EFORMAT,
                         "tensor %s: its values end at byte %" PRIu64 ", the file has %" PRIu64
                         " behind its header: truncated?",
                         name, end, file_bytes - data_begin);
    if (end - begin != n_bytes)
        return error_set(error, RUNNEL_EFORMAT,
                         "tensor %s: %" PRIu64 " bytes by its data_offsets, its shape has %" PRIu64, name,
                         end - begin, n_bytes);
    tensor->offset = data_begin + begin;
    tensor->n_bytes = n_bytes;
    return RUNNEL_OK;
}

static int read_entry(struct safetensors *file, const char *name, const json_t *entry, uint64_t data_begin,
                      runnel_error *error)
{
    struct safetensor *tensor = &file->tensors[file->n];
    uint64_t n_bytes = 0;
    size_t len = strlen(name);
    if (len == 0 || len > NAME_MAX_BYTES)
        return error_set(error, RUNNEL_EFORMAT, "a tensor's name of %zu bytes, 1 to %d expected", len,
                         NAME_MAX_BYTES);
    int code = read_dtype(name, entry, tensor, &n_bytes, error);
    if (!code)
        code = read_shape(name, entry, tensor, &n_bytes, error);
    if (!code)
        code = read_offsets(name, entry, data_begin, file->file_bytes, n_bytes, tensor, error);
    if (code)
        return code;
    tensor->name = strdup(name);
    if (!tensor->name)
        return error_set(error, RUNNEL_ENOMEM, "no memory for the name of a tensor");
    file->n++;
    return RUNNEL_OK;
}

static int compare_offsets(const void *a, const void *b)
{
    const struct safetensor *left = a, *right = b;
    if (left->offset != right->offset)
        return left->offset < right->offset ? -1 : 1;
    return left->n_bytes < right->n_bytes ? -1 : left->n_bytes > right->n_bytes; /* empty ones first */
}

/* Values lie one tensor after the other, to the end of the file. */
static int check_layout(struct safetensors *file, uint64_t data_begin, runnel_error *error)
{
    uint64_t end = data_begin;
    qsort(file->tensors, file->n, sizeof *file->tensors, compare_offsets);
    for (size_t i = 0; i < file->n; i++) {
        const struct safetensor *tensor = &file->tensors[i];
        if (tensor->offset < end)
            return error_set(error, RUNNEL_EFORMAT, "tensors %s and %s share bytes",
                             file->tensors[i - 1].name, tensor->name);
        if (tensor->offset > end)
            return error_set(error, RUNNEL_EFORMAT,
                             "tensor %s: %" PRIu64 " bytes before its values belong to no tensor",
                             tensor->name, tensor->offset - end);
        end += tensor->n_bytes;
    }
    if (end != file->file_bytes)
        return error_set(error, RUNNEL_EFORMAT, "%" PRIu64 " bytes at the end belong to no tensor",
                         file->file_bytes - end);
    return RUNNEL_OK;
}

static int read_entries(struct safetensors *file, json_t *header, uint64_t data_begin, runnel_error *error)
{
    const char *name;
    json_t *entry;
    file->tensors = calloc(json_object_size(header) + 1, sizeof *file->tensors);
    if (!file->tensors)
        return error_set(error, RUNNEL_ENOMEM, "no memory for %zu tensors", json_object_size(header));
    json_object_foreach(header, name, entry)
    {
        int code =
            strcmp(name, "__metadata__") ? read_entry(file, name, entry, data_begin, error) : RUNNEL_OK;
        if (code)
            return code;
    }
    return check_layout(file, data_begin, error);
}

static int check_fetched(const struct safetensors *file, runnel_error *error)
{
    char begin[FILE_POINTER_BYTES];
    if (file->file_bytes < sizeof begin)
        return RUNNEL_OK;
    int code = input_file_read(file->fd, 0, begin, sizeof begin, error);
    return code ? code : file_check_fetched(begin, sizeof begin, error);
}

static int read_header(struct safetensors *file, runnel_error *error)
{
    uint64_t len;
    if (file->file_bytes < sizeof len)
        return error_set(error, RUNNEL_EFORMAT, "expected a safetensors file, found %" PRIu64 " bytes",
                         file->file_bytes);
    int code = check_fetched(file, error);
    if (!code)
        code = input_file_read(file->fd, 0, &len, sizeof len, error);
    if (code)
        return code;
    if (len > HEADER_MAX_BYTES || len < HEADER_MIN_BYTES)
        return error_set(error, RUNNEL_EFORMAT,
                         "expected a safetensors file with a header of %d to %d bytes, found %" PRIu64,
                         HEADER_MIN_BYTES, HEADER_MAX_BYTES, len);
    if (len > file->file_bytes - sizeof len)
        return error_set(error, RUNNEL_EFORMAT,
                         "truncated: its header has %" PRIu64 " bytes, the file has %" PRIu64 " left", len,
                         file->file_bytes - sizeof len);
    char *bytes = malloc((size_t)len);
    json_t *header = NULL;
    if (!bytes)
        return error_set(error, RUNNEL_ENOMEM, "no memory for a header of %" PRIu64 " bytes", len);
    code = input_file_read(file->fd, sizeof len, bytes, (size_t)len, error);
    if (!code)
        code = json_parse("its header", bytes, (size_t)len, &header, error);
    free(bytes);
    if (!code)
        code = read_entries(file, header, sizeof len + len, error);
    json_decref(header);
    return code;
}

int safetensors_open(const char *path, const char *name, struct safetensors **out, runnel_error *error)
{
    struct safetensors *file = calloc(1, sizeof *file);
    int code;
    if (!file)
        return error_set(error, RUNNEL_ENOMEM, "%s: no memory for a file", name);
    file->fd = -1;
    file->path = strdup(path);
    code = file->path ? input_file_open(path, &file->fd, &file->file_bytes, error)
                      : error_set(error, RUNNEL_ENOMEM, "no memory for a path");
    if (!code)
        code = read_header(file, error);
    if (code) {
        safetensors_close(file);
        return error_prefix(error, "%s", name), code;
    }
    *out = file;
    return RUNNEL_OK;
}

void safetensors_close(struct safetensors *file)
{
    if (!file)
        return;
    for (size_t i = 0; i < file->n; i++)
        free(file->tensors[i].name);
    free(file->tensors);
    free(file->path);
    if (file->fd >= 0)
        close(file->fd);
    free(file);
}

int safetensors_read(const struct safetensors *file, const struct safetensor *tensor, uint64_t offset,
                     void *buffer, size_t n, runnel_error *error)
{
    int code = input_file_read(file->fd, tensor->offset + offset, buffer, n, error);
    if (code)
        error_prefix(error, "%s: tensor %s", file->path, tensor->name);
    return code;
}
