/* gguf_parts.c: a model in several files, as gguf-split writes them: opening the others beside the first, and making one
 * of all.
 *
 * Each part is a GGUF file of its own, with tensors that lie in it and three keys: split.no (its number, from 0 on),
 * split.count (how many parts there are) and split.tensors.count (tensors of all parts). The model's own keys stand in
 * the first. The names of the others follow from its own (base/split_name.h).
 *
 * What always holds: no more descriptors are open than there are parts, and the metadata of all parts together is
 * bounded as that of one file is. Runs on the thread that opens the model. */
#include "base/split_name.h"
#include "model/gguf_parse.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

static const char KEY_NUMBER[] = "split.no", KEY_COUNT[] = "split.count",
                  KEY_TENSORS[] = "split.tensors.count", KEYS_PREFIX[] = "split.";

struct split {
    uint32_t number, count; /* number from 0 on, as in the file; count 0 or 1: the file is whole */
    uint32_t n_tensors;
};

static const char *file_name(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

/* What a file says of itself. gguf-split leaves a count of 0 in files that it joined: they are whole. */
static int read_split(const struct gguf *gguf, struct split *split, runnel_error *error)
{
    *split = (struct split){.count = 1};
    if (!gguf_has_key(gguf, KEY_COUNT))
        return RUNNEL_OK;
    int code = gguf_get_u32(gguf, KEY_COUNT, &split->count, error);
    if (code || split->count <= 1)
        return code;
    if (split->count > SPLIT_PARTS_MAX)
        return error_set(error, RUNNEL_EFORMAT, "key \"%s\": expected at most %d parts, found %" PRIu32,
                         KEY_COUNT, SPLIT_PARTS_MAX, split->count);
    code = gguf_get_u32(gguf, KEY_NUMBER, &split->number, error);
    if (!code && split->number >= split->count)
        code = error_set(error, RUNNEL_EFORMAT,
                         "key \"%s\": expected 0 to %" PRIu32 " of %" PRIu32 " parts, found %" PRIu32,
                         KEY_NUMBER, split->count - 1, split->count, split->number);
    return code ? code : gguf_get_u32(gguf, KEY_TENSORS, &split->n_tensors, error);
}

int gguf_get_split(const struct gguf *gguf, uint32_t *number, uint32_t *count, runnel_error *error)
{
    struct split split;
    int code = read_split(gguf, &split, error);
    if (code)
        return code;
    *number = split.number + 1;
    *count = split.count ? split.count : 1;
    return RUNNEL_OK;
}

/* The first part by its keys and by its name, which must agree: the names of the others follow from it. */
static int check_first(const struct gguf *gguf, const struct split *split, struct split_name *name,
                       runnel_error *error)
{
    const char *path = gguf->parts->path;
    bool named = split_name_read(path, strlen(path), name);
    if (split->number > 0 && named && name->number == split->number + 1 && name->count == split->count) {
        const char *file = file_name(path);
        return error_set(error, RUNNEL_EFORMAT,
                         "is part %u of %u; a model is opened by its first part, %.*s-00001-of-%05u.gguf",
                         name->number, name->count, (int)(name->stem_len - (size_t)(file - path)), file,
                         name->count);
    }
    if (split->number > 0)
        return error_set(error, RUNNEL_EFORMAT,
                         "is part %" PRIu32 " of %" PRIu32 " (key \"%s\" is %" PRIu32
                         "); a model is opened by its first part, whose name ends in -00001-of-%05" PRIu32
                         ".gguf",
                         split->number + 1, split->count, KEY_NUMBER, split->number, split->count);
    if (!named || name->number != 1 || name->count != split->count)
        return error_set(error, RUNNEL_EFORMAT,
                         "is the first of %" PRIu32 " parts (key \"%s\"): expected a name that ends in "
                         "-00001-of-%05" PRIu32 ".gguf, from which those of the others follow",
                         split->count, KEY_COUNT, split->count);
    return RUNNEL_OK;
}

/* One number that a later part has in common with the first. */
static int check_equal(const char *key, uint32_t found, uint32_t expected, const char *why,
                       runnel_error *error)
{
    if (found == expected)
        return RUNNEL_OK;
    return error_set(error, RUNNEL_EFORMAT, "key \"%s\": expected %" PRIu32 "%s, found %" PRIu32, key,
                     expected, why, found);
}

static bool same_string(const struct gguf_string *a, const struct gguf_string *b)
{
    return a->len == b->len && !memcmp(a->bytes, b->bytes, a->len);
}

static bool same_value(const struct gguf_key *a, const struct gguf_key *b)
{
    if (a->type != b->type || a->value_bytes != b->value_bytes)
        return false;
    if (a->type == GGUF_STRING)
        return same_string(&a->value.string, &b->value.string);
    if (a->type != GGUF_ARRAY) /* every scalar fills all of its eight bytes */
        return !memcmp(&a->value.integer, &b->value.integer, sizeof a->value.integer);
    const struct gguf_array *left = &a->value.array, *right = &b->value.array;
    if (left->type != right->type || left->n != right->n)
        return false;
    if (left->type != GGUF_STRING) /* in the file: an element type, a count, the elements */
        return !memcmp(left->values, right->values, (size_t)(a->value_bytes - 12));
    const struct gguf_string *one = left->values, *other = right->values;
    for (size_t i = 0; i < left->n; i++)
        if (!same_string(&one[i], &other[i]))
            return false;
    return true;
}

/* Keys that describe the file, and not the model. */
static bool is_of_file(const char *key)
{
    return !strncmp(key, KEYS_PREFIX, strlen(KEYS_PREFIX)) || !strcmp(key, "general.alignment");
}

/* A later part need not repeat the model's keys; where it does, it says the same. */
static int check_keys(const struct gguf *first, const struct gguf *part, runnel_error *error)
{
    for (size_t i = 0; i < part->n_keys; i++) {
        const struct gguf_key *key = &part->keys[i];
        const struct gguf_key *known = is_of_file(key->name) ? NULL : gguf_find_key(first, key->name);
        if (known && !same_value(known, key))
            return error_set(error, RUNNEL_EFORMAT,
                             "key \"%.*s\": expected the value that it has in the first part, found another: "
                             "a part of another model",
                             GGUF_NAME_SHOWN, key->name);
    }
    return RUNNEL_OK;
}

static int check_later(const struct gguf *first, const struct split *split, const struct gguf *part,
                       uint32_t number, runnel_error *error)
{
    struct split found;
    int code = read_split(part, &found, error);
    if (!code)
        code = check_equal(KEY_COUNT, found.count, split->count, " as in the first part", error);
    if (!code)
        code = check_equal(KEY_NUMBER, found.number, number, " in a file of this name", error);
    if (!code)
        code = check_equal(KEY_TENSORS, found.n_tensors, split->n_tensors,
                           " as in the first part (parts of different models?)", error);
    if (!code)
        code = check_keys(first, part, error);
    if (!code && part->n_tensors > split->n_tensors - first->n_tensors)
        code = error_set(error, RUNNEL_EFORMAT,
                         "expected at most %zu tensors, as the first part announces %" PRIu32
                         " and %zu are in the parts before, found %zu",
                         split->n_tensors - first->n_tensors, split->n_tensors, first->n_tensors,
                         part->n_tensors);
    return code;
}

/* Gives a part's file, tensors and names to the first. */
static int take_part(struct gguf *first, struct gguf *part, runnel_error *error)
{
    uint64_t start = first->file_bytes, end;
    size_t n = first->n_tensors + part->n_tensors;
    if (__builtin_add_overflow(start, part->file_bytes, &end) || end > INT64_MAX)
        return error_set(error, RUNNEL_EFORMAT, "size overflows: %" PRIu64 " bytes and %" PRIu64 " before",
                         part->file_bytes, start);
    struct gguf_tensor *tensors = realloc(first->tensors, (n ? n : 1) * sizeof *tensors);
    if (!tensors)
        return error_set(error, RUNNEL_ENOMEM, "no memory for %zu tensors", n);
    first->tensors = tensors;
    for (size_t i = 0; i < part->n_tensors; i++) {
        struct gguf_tensor *tensor = &tensors[first->n_tensors++];
        *tensor = part->tensors[i];
        tensor->offset += start;
    }
    gguf_chunks_move(&part->chunks, &first->chunks);
    first->metadata_bytes += part->metadata_bytes;
    first->parts[first->n_parts] = part->parts[0];
    first->parts[first->n_parts++].start = start;
    first->file_bytes = end;
    part->n_parts = 0; /* its file is the first's now */
    return RUNNEL_OK;
}

static int add_part(struct gguf *first, const struct split *split, const char *path, uint32_t number,
                    runnel_error *error)
{
    struct gguf *part;
    int code = gguf_open_file(path, false, GGUF_METADATA_MAX_BYTES - first->metadata_bytes, &part, error);
    if (code) {
        error_prefix(error, "part %" PRIu32 " of %" PRIu32, number + 1, split->count);
        return code;
    }
    code = check_later(first, split, part, number, error);
    if (!code)
        code = take_part(first, part, error);
    gguf_close(part);
    if (code)
        gguf_name_file(path, error);
    return code;
}

static int add_parts(struct gguf *first, const struct split *split, const struct split_name *name,
                     runnel_error *error)
{
    struct gguf_part *parts = realloc(first->parts, split->count * sizeof *parts);
    char *path = parts ? strdup(parts->path) : NULL;
    if (parts)
        first->parts = parts;
    if (!path)
        return error_set(error, RUNNEL_ENOMEM, "no memory for the names of %" PRIu32 " parts", split->count);
    int code = RUNNEL_OK;
    for (uint32_t number = 1; !code && number < split->count; number++) {
        split_name_renumber(path, name, number + 1);
        code = add_part(first, split, path, number, error);
    }
    free(path);
    return code;
}

/* Once all parts are one, no reader has to know of them: whoever copies keys to another file must not copy these. */
static void drop_split_keys(struct gguf *gguf)
{
    size_t n = 0;
    for (size_t i = 0; i < gguf->n_keys; i++)
        if (strncmp(gguf->keys[i].name, KEYS_PREFIX, strlen(KEYS_PREFIX)) != 0)
            gguf->keys[n++] = gguf->keys[i];
    gguf->n_keys = n;
}

/* Names in order again, now of all parts. */
static int index_all(struct gguf *gguf, runnel_error *error)
{
    free(gguf->keys_by_name);
    free(gguf->tensors_by_name);
    gguf->keys_by_name = gguf->tensors_by_name = NULL;
    int code = gguf_index_keys(gguf, error);
    return code ? code : gguf_index_tensors(gguf, error);
}

int gguf_open_others(struct gguf *gguf, runnel_error *error)
{
    struct split split;
    struct split_name name;
    int code = read_split(gguf, &split, error);
    if (!code && split.count > 1)
        code = check_first(gguf, &split, &name, error);
    if (!code && split.count > 1 && gguf->n_tensors > split.n_tensors)
        code = error_set(error, RUNNEL_EFORMAT,
                         "key \"%s\": expected at least %zu, as this part alone has so many, found %" PRIu32,
                         KEY_TENSORS, gguf->n_tensors, split.n_tensors);
    if (code) {
        gguf_name_file(gguf->parts->path, error);
        return code;
    }
    if (split.count <= 1)
        return RUNNEL_OK;
    code = add_parts(gguf, &split, &name, error);
    if (code)
        return code; /* which names its file */
    if (gguf->n_tensors != split.n_tensors)
        code = error_set(error, RUNNEL_EFORMAT,
                         "expected %" PRIu32 " tensors in %" PRIu32 " parts (key \"%s\"), found %zu",
                         split.n_tensors, split.count, KEY_TENSORS, gguf->n_tensors);
    if (!code) {
        drop_split_keys(gguf);
        code = index_all(gguf, error);
    }
    if (code)
        gguf_name_file(gguf->parts->path, error);
    return code;
}
