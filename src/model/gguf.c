/* gguf.c: opening a GGUF file, finding keys and tensors in it, reading from it. The parsing is in
 * gguf_parse.c.
 *
 * Owns the descriptors and all that was parsed. Nothing changes after gguf_open, so any number of threads may
 * ask. Keys and tensors are found by binary search. */
#include "model/gguf_parse.h"

#include "base/input_file.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Opening ------------------------------------------------------------------------------------------------- */

static int open_file(struct gguf_part *part, runnel_error *error)
{
    int code = input_file_open(part->path, &part->fd, &part->n_bytes, error);
    if (!code && part->n_bytes == 0)
        code = error_set(error, RUNNEL_EFORMAT, "expected a GGUF file, found an empty one");
    return code;
}

/* Makes room for the file at path, as the only part. */
static int add_part(struct gguf *gguf, const char *path, runnel_error *error)
{
    gguf->parts = calloc(1, sizeof *gguf->parts);
    if (!gguf->parts)
        return error_set(error, RUNNEL_ENOMEM, "no memory for %zu bytes", sizeof *gguf->parts);
    gguf->n_parts = 1;
    gguf->parts->fd = -1;
    gguf->parts->path = strdup(path);
    return gguf->parts->path ? RUNNEL_OK : error_set(error, RUNNEL_ENOMEM, "no memory for a path");
}

int gguf_open_file(const char *path, bool keys_only, uint64_t max_bytes, struct gguf **gguf,
                   runnel_error *error)
{
    struct gguf *opened = calloc(1, sizeof *opened);
    int code = opened ? add_part(opened, path, error)
                      : error_set(error, RUNNEL_ENOMEM, "no memory for %zu bytes", sizeof *opened);
    if (!code)
        code = open_file(opened->parts, error);
    if (!code) {
        opened->file_bytes = opened->parts->n_bytes;
        code = gguf_parse(opened, keys_only, max_bytes, error);
    }
    if (!code) {
        *gguf = opened;
        return RUNNEL_OK;
    }
    gguf_close(opened);
    gguf_name_file(path, error);
    return code;
}

void gguf_name_file(const char *path, runnel_error *error)
{
    size_t len = strlen(path), shown = 160; /* the end of a long path says most */
    error_prefix(error, "%s%s", len > shown ? "..." : "", len > shown ? path + len - shown : path);
}

int gguf_open(const char *path, struct gguf **gguf, runnel_error *error)
{
    struct gguf *opened;
    int code = gguf_open_part(path, &opened, error);
    if (code)
        return code;
    code = gguf_open_others(opened, error);
    if (code)
        gguf_close(opened);
    else
        *gguf = opened;
    return code;
}

int gguf_open_part(const char *path, struct gguf **gguf, runnel_error *error)
{
    return gguf_open_file(path, false, GGUF_METADATA_MAX_BYTES, gguf, error);
}

int gguf_open_keys_only(const char *path, struct gguf **gguf, runnel_error *error)
{
    return gguf_open_file(path, true, GGUF_METADATA_MAX_BYTES, gguf, error);
}

void gguf_close(struct gguf *gguf)
{
    if (!gguf)
        return;
    for (size_t i = 0; i < gguf->n_parts; i++) {
        if (gguf->parts[i].fd >= 0)
            close(gguf->parts[i].fd);
        free(gguf->parts[i].path);
    }
    gguf_chunks_free(gguf->chunks);
    free(gguf->parts);
    free(gguf->keys);
    free(gguf->keys_by_name);
    free(gguf->tensors);
    free(gguf->tensors_by_name);
    free(gguf);
}

/* Reading ------------------------------------------------------------------------------------------------- */

const struct gguf_part *gguf_find_part(const struct gguf *gguf, uint64_t offset)
{
    size_t low = 0, high = gguf->n_parts; /* the one that is looked for is in [low, high) */
    while (high - low > 1) {
        size_t middle = low + (high - low) / 2;
        if (gguf->parts[middle].start <= offset)
            low = middle;
        else
            high = middle;
    }
    return &gguf->parts[low];
}

int gguf_read(const struct gguf *gguf, uint64_t offset, void *buffer, size_t n, runnel_error *error)
{
    const struct gguf_part *part = gguf_find_part(gguf, offset);
    int code = input_file_read(part->fd, offset - part->start, buffer, n, error);
    if (code && gguf->n_parts > 1) /* whoever asks knows the name of the first */
        gguf_name_file(part->path, error);
    return code;
}

/* What the file holds ------------------------------------------------------------------------------------- */

const char *gguf_path(const struct gguf *gguf)
{
    return gguf->parts->path;
}

uint64_t gguf_file_bytes(const struct gguf *gguf)
{
    return gguf->file_bytes;
}

size_t gguf_n_parts(const struct gguf *gguf)
{
    return gguf->n_parts;
}

const char *gguf_part_path(const struct gguf *gguf, size_t i)
{
    return gguf->parts[i].path;
}

uint64_t gguf_part_bytes(const struct gguf *gguf, size_t i)
{
    return gguf->parts[i].n_bytes;
}

uint32_t gguf_version(const struct gguf *gguf)
{
    return gguf->version;
}

size_t gguf_n_keys(const struct gguf *gguf)
{
    return gguf->n_keys;
}

const char *gguf_key_name(const struct gguf *gguf, size_t i)
{
    return gguf->keys[i].name;
}

enum gguf_type gguf_key_type(const struct gguf *gguf, size_t i)
{
    return gguf->keys[i].type;
}

void gguf_key_raw(const struct gguf *gguf, size_t i, uint64_t *offset, uint64_t *n_bytes)
{
    *offset = gguf->keys[i].value_offset;
    *n_bytes = gguf->keys[i].value_bytes;
}

bool gguf_has_key(const struct gguf *gguf, const char *key)
{
    return gguf_find_key(gguf, key) != NULL;
}

enum gguf_type gguf_find_type(const struct gguf *gguf, const char *key)
{
    const struct gguf_key *found = gguf_find_key(gguf, key);
    return found ? found->type : GGUF_U8;
}

size_t gguf_n_tensors(const struct gguf *gguf)
{
    return gguf->n_tensors;
}

const struct gguf_tensor *gguf_tensor_at(const struct gguf *gguf, size_t i)
{
    return &gguf->tensors[i];
}

/* Values of known keys ------------------------------------------------------------------------------------ */

static int need_key(const struct gguf *gguf, const char *key, const struct gguf_key **found,
                    runnel_error *error)
{
    *found = gguf_find_key(gguf, key);
    return *found ? RUNNEL_OK
                  : error_set(error, RUNNEL_EFORMAT, "key \"%.*s\" is missing", GGUF_NAME_SHOWN, key);
}

static int wrong_type(const struct gguf_key *key, const char *expected, runnel_error *error)
{
    return error_set(error, RUNNEL_EFORMAT, "key \"%.*s\": expected %s, found type %s", GGUF_NAME_SHOWN,
                     key->name, expected, gguf_type_name(key->type));
}

int gguf_get_u32(const struct gguf *gguf, const char *key, uint32_t *value, runnel_error *error)
{
    const struct gguf_key *found;
    int code = need_key(gguf, key, &found, error);
    if (code)
        return code;
    switch (found->type) {
    case GGUF_U8:
    case GGUF_U16:
    case GGUF_U32:
    case GGUF_U64:
        if (found->value.integer > UINT32_MAX)
            return error_set(error, RUNNEL_EFORMAT,
                             "key \"%.*s\": expected at most %" PRIu32 ", found %" PRIu64, GGUF_NAME_SHOWN,
                             key, UINT32_MAX, found->value.integer);
        *value = (uint32_t)found->value.integer;
        return RUNNEL_OK;
    case GGUF_I8:
    case GGUF_I16:
    case GGUF_I32:
    case GGUF_I64:
        if (found->value.signed_integer < 0 || found->value.signed_integer > UINT32_MAX)
            return error_set(error, RUNNEL_EFORMAT, "key \"%.*s\": expected 0 to %" PRIu32 ", found %" PRId64,
                             GGUF_NAME_SHOWN, key, UINT32_MAX, found->value.signed_integer);
        *value = (uint32_t)found->value.signed_integer;
        return RUNNEL_OK;
    default:
        return wrong_type(found, "an integer", error);
    }
}

int gguf_get_f32(const struct gguf *gguf, const char *key, float *value, runnel_error *error)
{
    const struct gguf_key *found;
    int code = need_key(gguf, key, &found, error);
    if (code)
        return code;
    if (found->type != GGUF_F32 && found->type != GGUF_F64)
        return wrong_type(found, "a floating-point number", error);
    if (isfinite(found->value.real) && fabs(found->value.real) > 0x1.fffffep127)
        return error_set(error, RUNNEL_EFORMAT, "key \"%.*s\": expected a number that fits f32, found %g",
                         GGUF_NAME_SHOWN, key, found->value.real);
    *value = (float)found->value.real;
    return RUNNEL_OK;
}

int gguf_get_bool(const struct gguf *gguf, const char *key, bool *value, runnel_error *error)
{
    const struct gguf_key *found;
    int code = need_key(gguf, key, &found, error);
    if (code)
        return code;
    if (found->type != GGUF_BOOL)
        return wrong_type(found, "a bool", error);
    *value = found->value.integer != 0;
    return RUNNEL_OK;
}

int gguf_get_string(const struct gguf *gguf, const char *key, struct gguf_string *value, runnel_error *error)
{
    const struct gguf_key *found;
    int code = need_key(gguf, key, &found, error);
    if (code)
        return code;
    if (found->type != GGUF_STRING)
        return wrong_type(found, "a string", error);
    *value = found->value.string;
    return RUNNEL_OK;
}

int gguf_get_array(const struct gguf *gguf, const char *key, enum gguf_type type, struct gguf_array *value,
                   runnel_error *error)
{
    const struct gguf_key *found;
    int code = need_key(gguf, key, &found, error);
    if (code)
        return code;
    if (found->type != GGUF_ARRAY)
        return wrong_type(found, "an array", error);
    if (found->value.array.type != type)
        return error_set(error, RUNNEL_EFORMAT, "key \"%.*s\": expected an array of %s, found one of %s",
                         GGUF_NAME_SHOWN, key, gguf_type_name(type), gguf_type_name(found->value.array.type));
    *value = found->value.array;
    return RUNNEL_OK;
}

/* Kinds of files ------------------------------------------------------------------------------------------- */

bool gguf_has_type(const struct gguf *gguf, const char *type)
{
    struct gguf_string found;
    return gguf_has_key(gguf, "general.type") && !gguf_get_string(gguf, "general.type", &found, NULL) &&
           found.len == strlen(type) && !memcmp(found.bytes, type, found.len);
}

/* Only what is known to be no model is refused: the key is of llama.cpp, and older files lack it. */
int gguf_check_type(const struct gguf *gguf, runnel_error *error)
{
    static const char *const others[] = {"imatrix", "adapter", "mmproj"};
    for (size_t i = 0; i < sizeof others / sizeof *others; i++)
        if (gguf_has_type(gguf, others[i]))
            return error_set(error, RUNNEL_EFORMAT,
                             "expected a model (general.type \"model\"), found general.type \"%s\"",
                             others[i]);
    return RUNNEL_OK;
}

int gguf_check_model(const struct gguf *gguf, runnel_error *error)
{
    int code = gguf_check_type(gguf, error);
    if (!code && gguf->n_tensors == 0)
        code = error_set(error, RUNNEL_EFORMAT, "expected a model, found a vocabulary without weights");
    return code;
}
