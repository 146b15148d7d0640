/* imatrix_file.c: see imatrix_file.h. */
#include "cli/imatrix_file.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "model/gguf.h"
#include "model/gguf_write.h"

static const char model_mark_key[] = "runnel.imatrix.model", text_mark_key[] = "runnel.imatrix.text";
static const char sums_suffix[] = ".in_sum2", counts_suffix[] = ".counts";
enum { NAME_BYTES = 128 };

struct imatrix *imatrix_create(void)
{
    return calloc(1, sizeof(struct imatrix));
}

void imatrix_free(struct imatrix *imatrix)
{
    if (!imatrix)
        return;
    for (size_t i = 0; i < imatrix->n_entries; i++) {
        free(imatrix->entries[i].name);
        free(imatrix->entries[i].sums);
        free(imatrix->entries[i].counts);
    }
    for (size_t i = 0; i < imatrix->n_datasets; i++)
        free(imatrix->datasets[i]);
    free(imatrix->entries);
    free(imatrix->datasets);
    free(imatrix);
}

struct imatrix_entry *imatrix_add(struct imatrix *imatrix, const char *name, uint32_t n_columns,
                                  uint32_t n_parts)
{
    struct imatrix_entry *entries =
        reallocarray(imatrix->entries, imatrix->n_entries + 1, sizeof *imatrix->entries);
    if (!entries)
        return NULL;
    imatrix->entries = entries;
    struct imatrix_entry entry = {
        .name = strdup(name),
        .n_columns = n_columns,
        .n_parts = n_parts,
        .sums = calloc((size_t)n_columns * n_parts, sizeof(float)),
        .counts = calloc(n_parts, sizeof(float)),
    };
    if (!entry.name || !entry.sums || !entry.counts) {
        free(entry.name);
        free(entry.sums);
        free(entry.counts);
        return NULL;
    }
    entries[imatrix->n_entries] = entry;
    return &entries[imatrix->n_entries++];
}

int imatrix_add_dataset(struct imatrix *imatrix, const char *name, runnel_error *error)
{
    char **datasets = reallocarray(imatrix->datasets, imatrix->n_datasets + 1, sizeof *imatrix->datasets);
    if (datasets)
        imatrix->datasets = datasets;
    char *copy = datasets ? strdup(name) : NULL;
    if (!copy)
        return error_set(error, RUNNEL_ENOMEM, "no memory for the name of a text");
    datasets[imatrix->n_datasets++] = copy;
    return RUNNEL_OK;
}

struct imatrix_entry *imatrix_find(const struct imatrix *imatrix, const char *name)
{
    for (size_t i = 0; i < imatrix->n_entries; i++)
        if (strcmp(imatrix->entries[i].name, name) == 0)
            return &imatrix->entries[i];
    return NULL;
}

void imatrix_importance(const struct imatrix_entry *entry, float *out)
{
    for (size_t part = 0; part < entry->n_parts; part++) {
        float count = entry->counts[part];
        const float *sums = entry->sums + part * entry->n_columns;
        for (size_t i = 0; i < entry->n_columns; i++)
            out[part * entry->n_columns + i] = count > 0 ? sums[i] / count : 1;
    }
}

/* Reading ------------------------------------------------------------------------------------------------- */

/* What stands before a suffix; false: the name does not end with it, or is too long. */
static bool cut_suffix(const char *name, const char *suffix, char stem[NAME_BYTES])
{
    size_t len = strlen(name), suffix_len = strlen(suffix);
    if (len <= suffix_len || len - suffix_len >= NAME_BYTES || strcmp(name + len - suffix_len, suffix) != 0)
        return false;
    memcpy(stem, name, len - suffix_len);
    stem[len - suffix_len] = 0;
    return true;
}

/* n values of an F32 tensor, none of them negative. */
static int read_values(const struct gguf *gguf, const struct gguf_tensor *tensor, float *values, size_t n,
                       runnel_error *error)
{
    int code = gguf_read(gguf, tensor->offset, values, n * sizeof *values, error);
    for (size_t i = 0; i < n && !code; i++)
        if (!(values[i] >= 0 && isfinite(values[i])))
            code = error_set(error, RUNNEL_EFORMAT, "tensor \"%s\": expected values of 0 and above, found %g",
                             tensor->name, (double)values[i]);
    return code;
}

/* Without a count no mean is known, and every column would matter as much as any other. */
static int check_counts(const struct imatrix *imatrix, runnel_error *error)
{
    for (size_t i = 0; i < imatrix->n_entries; i++)
        for (size_t part = 0; part < imatrix->entries[i].n_parts; part++)
            if (imatrix->entries[i].counts[part] > 0)
                return RUNNEL_OK;
    return error_set(error, RUNNEL_EFORMAT,
                     "expected sums over a text, found that all counts are 0: none was read");
}

/* The mean square of each column is a number. */
static int check_means(const struct imatrix_entry *entry, runnel_error *error)
{
    for (size_t part = 0; part < entry->n_parts; part++)
        for (size_t i = 0; i < entry->n_columns; i++) {
            float sum = entry->sums[part * entry->n_columns + i], count = entry->counts[part];
            if (count > 0 && !isfinite(sum / count))
                return error_set(
                    error, RUNNEL_EFORMAT,
                    "tensor \"%s%s\": expected sums over as many tokens as they say, found %g over %g",
                    entry->name, sums_suffix, (double)sum, (double)count);
        }
    return RUNNEL_OK;
}

static int read_entry(const struct gguf *gguf, const struct gguf_tensor *sums, const char *stem,
                      struct imatrix *imatrix, runnel_error *error)
{
    char name[NAME_BYTES + sizeof counts_suffix];
    snprintf(name, sizeof name, "%s%s", stem, counts_suffix);
    const struct gguf_tensor *counts = gguf_find_tensor(gguf, name);
    if (!counts)
        return error_set(error, RUNNEL_EFORMAT,
                         "tensor \"%s\": expected a tensor \"%s\" beside it, found none", sums->name, name);
    if (sums->type != TENSOR_F32 || counts->type != TENSOR_F32)
        return error_set(error, RUNNEL_EFORMAT, "tensor \"%s\": expected F32, found %s and counts in %s",
                         sums->name, quant_find((uint32_t)sums->type)->name,
                         quant_find((uint32_t)counts->type)->name);
    uint64_t n_parts = sums->dims[1] * sums->dims[2] * sums->dims[3];
    if (n_parts > UINT32_MAX || counts->dims[0] != 1 ||
        counts->dims[1] * counts->dims[2] * counts->dims[3] != n_parts)
        return error_set(
            error, RUNNEL_EFORMAT,
            "tensor \"%s\": expected a count for each of %" PRIu64 " rows, found %" PRIu64 " x %" PRIu64,
            counts->name, n_parts, counts->dims[0], counts->dims[1] * counts->dims[2] * counts->dims[3]);
    struct imatrix_entry *entry = imatrix_add(imatrix, stem, (uint32_t)sums->dims[0], (uint32_t)n_parts);
    if (!entry)
        return error_set(error, RUNNEL_ENOMEM, "no memory for the importance of \"%s\"", stem);
    int code = read_values(gguf, sums, entry->sums, (size_t)(sums->dims[0] * n_parts), error);
    if (!code)
        code = read_values(gguf, counts, entry->counts, (size_t)n_parts, error);
    return code ? code : check_means(entry, error);
}

static int read_datasets(const struct gguf *gguf, struct imatrix *imatrix, runnel_error *error)
{
    struct gguf_array names;
    int code = gguf_get_array(gguf, "imatrix.datasets", GGUF_STRING, &names, error);
    for (size_t i = 0; i < names.n && !code; i++) {
        struct gguf_string name = ((const struct gguf_string *)names.values)[i];
        char *text = strndup(name.bytes, name.len);
        code = text ? imatrix_add_dataset(imatrix, text, error)
                    : error_set(error, RUNNEL_ENOMEM, "no memory for the name of a text");
        free(text);
    }
    return code;
}

/* A mark of another length is not one of ours. */
static void read_mark(const struct gguf *gguf, const char *key, char mark[IMATRIX_MARK_BYTES])
{
    struct gguf_string text;
    if (gguf_get_string(gguf, key, &text, NULL) || text.len != IMATRIX_MARK_BYTES - 1)
        return;
    memcpy(mark, text.bytes, text.len);
    mark[text.len] = 0;
}

static int read_all(const struct gguf *gguf, struct imatrix *imatrix, runnel_error *error)
{
    char stem[NAME_BYTES];
    if (!gguf_has_type(gguf, "imatrix"))
        return error_set(error, RUNNEL_EFORMAT,
                         "expected an importance file (general.type \"imatrix\"), found another GGUF file");
    int code = gguf_get_u32(gguf, "imatrix.chunk_count", &imatrix->n_chunks, error);
    if (!code)
        code = gguf_get_u32(gguf, "imatrix.chunk_size", &imatrix->chunk_tokens, error);
    if (!code)
        code = read_datasets(gguf, imatrix, error);
    read_mark(gguf, model_mark_key, imatrix->model_mark);
    read_mark(gguf, text_mark_key, imatrix->text_mark);
    for (size_t i = 0; i < gguf_n_tensors(gguf) && !code; i++) {
        const struct gguf_tensor *tensor = gguf_tensor_at(gguf, i);
        if (cut_suffix(tensor->name, sums_suffix, stem))
            code = read_entry(gguf, tensor, stem, imatrix, error);
    }
    if (!code && !imatrix->n_entries)
        code = error_set(error, RUNNEL_EFORMAT, "expected tensors NAME%s and NAME%s, found none", sums_suffix,
                         counts_suffix);
    return code ? code : check_counts(imatrix, error);
}

int imatrix_file_read(const char *path, struct imatrix **imatrix, runnel_error *error)
{
    struct gguf *gguf;
    int code = gguf_open(path, &gguf, error);
    if (code)
        return code;
    struct imatrix *read = imatrix_create();
    code = read ? read_all(gguf, read, error) : error_set(error, RUNNEL_ENOMEM, "no memory to read it");
    gguf_close(gguf);
    if (code) {
        imatrix_free(read);
        return error_prefix(error, "%s", path), code;
    }
    *imatrix = read;
    return RUNNEL_OK;
}

/* Writing ------------------------------------------------------------------------------------------------- */

static int fill_floats(void *arg, uint64_t offset, void *buffer, size_t n, runnel_error *error)
{
    (void)error;
    memcpy(buffer, (const char *)arg + offset, n);
    return RUNNEL_OK;
}

static void add_entry(struct gguf_writer *writer, const struct imatrix_entry *entry)
{
    char name[NAME_BYTES + sizeof sums_suffix];
    snprintf(name, sizeof name, "%.*s%s", NAME_BYTES - 1, entry->name, sums_suffix);
    gguf_writer_add_tensor(writer, name, TENSOR_F32, 2, (uint64_t[]){entry->n_columns, entry->n_parts},
                           fill_floats, entry->sums);
    snprintf(name, sizeof name, "%.*s%s", NAME_BYTES - 1, entry->name, counts_suffix);
    gguf_writer_add_tensor(writer, name, TENSOR_F32, 2, (uint64_t[]){1, entry->n_parts}, fill_floats,
                           entry->counts);
}

int imatrix_file_write(const struct imatrix *imatrix, const char *path, runnel_error *error)
{
    struct gguf_writer *writer = gguf_writer_create();
    struct gguf_string *names = calloc(imatrix->n_datasets + 1, sizeof *names);
    int code;
    if (!writer || !names) {
        code = error_set(error, RUNNEL_ENOMEM, "%s: no memory to write it", path);
        goto done;
    }
    for (size_t i = 0; i < imatrix->n_datasets; i++)
        names[i] = (struct gguf_string){imatrix->datasets[i], strlen(imatrix->datasets[i])};
    gguf_writer_add_string(writer, "general.type", "imatrix");
    gguf_writer_add_array(writer, "imatrix.datasets", GGUF_STRING, imatrix->n_datasets, names);
    gguf_writer_add_u32(writer, "imatrix.chunk_count", imatrix->n_chunks);
    gguf_writer_add_u32(writer, "imatrix.chunk_size", imatrix->chunk_tokens);
    if (*imatrix->model_mark)
        gguf_writer_add_string(writer, model_mark_key, imatrix->model_mark);
    if (*imatrix->text_mark)
        gguf_writer_add_string(writer, text_mark_key, imatrix->text_mark);
    for (size_t i = 0; i < imatrix->n_entries; i++)
        add_entry(writer, &imatrix->entries[i]);
    code = gguf_writer_save(writer, path, error);
done:
    gguf_writer_free(writer);
    free(names);
    return code;
}
