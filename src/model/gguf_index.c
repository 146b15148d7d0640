/* gguf_index.c: keys and tensors in order of name, tensors in order of place: finding, duplicates, overlaps.
 *
 * Sorting keeps a file of a million keys, or of names chosen to collide in a hash table, at n log n. Owns
 * nothing: the orders belong to struct gguf. Sorting runs on the thread that opens the file, finding on any.
 */
#include "model/gguf_parse.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

static int compare_key_names(const void *a, const void *b, void *gguf)
{
    const struct gguf_key *keys = ((const struct gguf *)gguf)->keys;
    return strcmp(keys[*(const uint32_t *)a].name, keys[*(const uint32_t *)b].name);
}

static int compare_tensor_names(const void *a, const void *b, void *gguf)
{
    const struct gguf_tensor *tensors = ((const struct gguf *)gguf)->tensors;
    return strcmp(tensors[*(const uint32_t *)a].name, tensors[*(const uint32_t *)b].name);
}

static int compare_tensor_offsets(const void *a, const void *b, void *gguf)
{
    const struct gguf_tensor *tensors = ((const struct gguf *)gguf)->tensors;
    uint64_t left = tensors[*(const uint32_t *)a].offset, right = tensors[*(const uint32_t *)b].offset;
    return left < right ? -1 : left > right;
}

/* Makes 0 .. n-1 in the order of compare. */
static int sort_indices(struct gguf *gguf, size_t n, int (*compare)(const void *, const void *, void *),
                        uint32_t **sorted, runnel_error *error)
{
    uint32_t *indices = malloc(n ? n * sizeof *indices : 1);
    if (!indices)
        return error_set(error, RUNNEL_ENOMEM, "no memory for the order of %zu names", n);
    for (size_t i = 0; i < n; i++)
        indices[i] = (uint32_t)i; /* n is far below 2^32: metadata is bounded */
    qsort_r(indices, n, sizeof *indices, compare, gguf);
    *sorted = indices;
    return RUNNEL_OK;
}

int gguf_index_keys(struct gguf *gguf, runnel_error *error)
{
    int code = sort_indices(gguf, gguf->n_keys, compare_key_names, &gguf->keys_by_name, error);
    if (code)
        return code;
    for (size_t i = 1; i < gguf->n_keys; i++)
        if (!compare_key_names(&gguf->keys_by_name[i - 1], &gguf->keys_by_name[i], gguf))
            return error_set(error, RUNNEL_EFORMAT, "key \"%.*s\": expected once, found twice",
                             GGUF_NAME_SHOWN, gguf->keys[gguf->keys_by_name[i]].name);
    return RUNNEL_OK;
}

static int fail_twice(const struct gguf *gguf, const struct gguf_tensor *one, const struct gguf_tensor *other,
                      runnel_error *error)
{
    if (gguf->n_parts == 1)
        return error_set(error, RUNNEL_EFORMAT, "tensor \"%s\": expected once, found twice", one->name);
    const struct gguf_part *first = gguf_find_part(gguf, one->offset),
                           *second = gguf_find_part(gguf, other->offset);
    if (first > second) {
        const struct gguf_part *later = first;
        first = second;
        second = later;
    }
    return error_set(error, RUNNEL_EFORMAT, "tensor \"%s\": expected once, found in part %zu and in part %zu",
                     one->name, (size_t)(first - gguf->parts) + 1, (size_t)(second - gguf->parts) + 1);
}

int gguf_index_tensors(struct gguf *gguf, runnel_error *error)
{
    int code = sort_indices(gguf, gguf->n_tensors, compare_tensor_names, &gguf->tensors_by_name, error);
    if (code)
        return code;
    for (size_t i = 1; i < gguf->n_tensors; i++)
        if (!compare_tensor_names(&gguf->tensors_by_name[i - 1], &gguf->tensors_by_name[i], gguf))
            return fail_twice(gguf, &gguf->tensors[gguf->tensors_by_name[i - 1]],
                              &gguf->tensors[gguf->tensors_by_name[i]], error);
    return RUNNEL_OK;
}

int gguf_check_overlaps(struct gguf *gguf, runnel_error *error)
{
    uint32_t *by_offset;
    int code = sort_indices(gguf, gguf->n_tensors, compare_tensor_offsets, &by_offset, error);
    if (code)
        return code;
    for (size_t i = 1; i < gguf->n_tensors && !code; i++) {
        const struct gguf_tensor *before = &gguf->tensors[by_offset[i - 1]],
                                 *tensor = &gguf->tensors[by_offset[i]];
        if (tensor->offset < before->offset + before->n_bytes)
            code = error_set(error, RUNNEL_EFORMAT,
                             "tensor \"%s\": expected an offset past tensor \"%s\", which ends at %" PRIu64
                             ", found %" PRIu64,
                             tensor->name, before->name, before->offset + before->n_bytes, tensor->offset);
    }
    free(by_offset);
    return code;
}

const struct gguf_key *gguf_find_key(const struct gguf *gguf, const char *name)
{
    for (size_t low = 0, high = gguf->n_keys; low < high;) {
        size_t middle = low + (high - low) / 2;
        const struct gguf_key *key = &gguf->keys[gguf->keys_by_name[middle]];
        int order = strcmp(name, key->name);
        if (order == 0)
            return key;
        if (order < 0)
            high = middle;
        else
            low = middle + 1;
    }
    return NULL;
}

const struct gguf_tensor *gguf_find_tensor(const struct gguf *gguf, const char *name)
{
    for (size_t low = 0, high = gguf->n_tensors; low < high;) {
        size_t middle = low + (high - low) / 2;
        const struct gguf_tensor *tensor = &gguf->tensors[gguf->tensors_by_name[middle]];
        int order = strcmp(name, tensor->name);
        if (order == 0)
            return tensor;
        if (order < 0)
            high = middle;
        else
            low = middle + 1;
    }
    return NULL;
}
