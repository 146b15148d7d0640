/* gguf_parse.c: the metadata of a GGUF file, from bytes to keys and tensors, and every check on the way.
 *
 * The layout: "GGUF", version u32, tensor count u64, key count u64; the keys (name, type u32, value); the
 * tensors (name, dimension count u32, dimensions u64, type u32, offset u64); padding to the alignment; the
 * data. Strings are a u64 length and bytes; arrays an element type u32, a u64 count, elements.
 *
 * What always holds: every length and count is compared with the bytes that are left before anything is
 * multiplied or reserved, and metadata may take GGUF_METADATA_MAX_BYTES at most, so that memory stays in
 * proportion to what was read. Runs on the thread that opens the file. */
#include "model/gguf_parse.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    KEY_NAME_MAX_BYTES = 65535, /* as the format says */
    TENSOR_NAME_MAX_BYTES = 64, /* as the format says */
    ALIGNMENT_DEFAULT = 32,     /* as the format says */
    ALIGNMENT_MAX = 64 << 10,
    KEY_MIN_BYTES = 8 + 1 + 4 + 1,            /* name length, name, type, value */
    TENSOR_MIN_BYTES = 8 + 1 + 4 + 8 + 4 + 8, /* name length, name, count, one dimension, type, offset */
    WINDOW_BYTES = 64 << 10,
    CHUNK_MIN_BYTES = 64 << 10,
};
static const uint64_t DIMENSION_MAX = UINT64_C(1) << 31;

/* Memory for names and values: freed all at once ---------------------------------------------------------- */

struct gguf_chunk {
    struct gguf_chunk *next;
    size_t used, cap;
    _Alignas(8) unsigned char bytes[];
};

void gguf_chunks_free(struct gguf_chunk *chunk)
{
    while (chunk) {
        struct gguf_chunk *next = chunk->next;
        free(chunk);
        chunk = next;
    }
}

void gguf_chunks_move(struct gguf_chunk **from, struct gguf_chunk **to)
{
    struct gguf_chunk **last = from;
    while (*last)
        last = &(*last)->next;
    *last = *to;
    *to = *from;
    *from = NULL;
}

/* n bytes, aligned to 8; NULL if there is no memory. */
static void *chunk_alloc(struct gguf_chunk **list, size_t n)
{
    struct gguf_chunk *chunk = *list;
    if (n > SIZE_MAX / 2)
        return NULL;
    n = (n + 7) & ~(size_t)7;
    if (!chunk || n > chunk->cap - chunk->used) {
        size_t cap = n > CHUNK_MIN_BYTES ? n : CHUNK_MIN_BYTES;
        chunk = malloc(sizeof *chunk + cap);
        if (!chunk)
            return NULL;
        chunk->next = *list;
        chunk->used = 0;
        chunk->cap = cap;
        *list = chunk;
    }
    void *bytes = chunk->bytes + chunk->used;
    chunk->used += n;
    return bytes;
}

/* Reading in order, through a window of the file ---------------------------------------------------------- */

struct parse {
    struct gguf *gguf;
    uint64_t offset; /* of the next byte */
    uint64_t end;    /* where metadata must have ended */
    /* Where we are, for messages: "key", 3 of 26, and its name once it is known. */
    const char *kind;
    uint64_t index, count;
    const char *name;
    uint64_t window_offset;
    size_t window_len;
    unsigned char window[WINDOW_BYTES];
};

/* `key "a.b"`, `key 3 of 26`, `the header` */
static const char *describe(const struct parse *parse, char *text, size_t size)
{
    if (parse->name)
        snprintf(text, size, "%s \"%.*s\"", parse->kind, GGUF_NAME_SHOWN, parse->name);
    else if (parse->count)
        snprintf(text, size, "%s %" PRIu64 " of %" PRIu64, parse->kind, parse->index + 1, parse->count);
    else
        snprintf(text, size, "%s", parse->kind);
    return text;
}

/* error_set with the place in front. */
static int __attribute__((format(printf, 4, 5)))
fail_at(const struct parse *parse, int code, runnel_error *error, const char *format, ...)
{
    char place[GGUF_NAME_SHOWN + 32], text[384];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    return error_set(error, code, "%s: %s", describe(parse, place, sizeof place), text);
}

static uint64_t bytes_left(const struct parse *parse)
{
    return parse->end - parse->offset;
}

/* The file ends, or metadata grows past its bound, before what is announced. */
static int fail_beyond_end(const struct parse *parse, uint64_t n, const char *what, runnel_error *error)
{
    if (parse->end < parse->gguf->file_bytes)
        return fail_at(parse, RUNNEL_EFORMAT, error,
                       "%s of %" PRIu64 " bytes at offset %" PRIu64 ", expected metadata of at most %d MiB",
                       what, n, parse->offset, GGUF_METADATA_MAX_BYTES >> 20);
    return fail_at(parse, RUNNEL_EFORMAT, error,
                   "truncated: %s at offset %" PRIu64 " needs %" PRIu64 " bytes, the file has %" PRIu64
                   " left",
                   what, parse->offset, n, bytes_left(parse));
}

/* The next n bytes. what names them in messages. */
static int read_bytes(struct parse *parse, void *out, uint64_t n, const char *what, runnel_error *error)
{
    if (n > bytes_left(parse))
        return fail_beyond_end(parse, n, what, error);
    unsigned char *to = out;
    while (n) {
        uint64_t at = parse->offset - parse->window_offset;
        if (at >= parse->window_len) {
            if (n >= WINDOW_BYTES) { /* a large value goes straight to its place */
                int code = gguf_read(parse->gguf, parse->offset, to, n, error);
                parse->offset += n;
                return code;
            }
            size_t len = bytes_left(parse) < WINDOW_BYTES ? (size_t)bytes_left(parse) : WINDOW_BYTES;
            int code = gguf_read(parse->gguf, parse->offset, parse->window, len, error);
            if (code)
                return code;
            parse->window_offset = parse->offset;
            parse->window_len = len;
            at = 0;
        }
        size_t part = parse->window_len - (size_t)at;
        if (part > n)
            part = (size_t)n;
        memcpy(to, parse->window + at, part);
        to += part;
        n -= part;
        parse->offset += part;
    }
    return RUNNEL_OK;
}

static int read_u32(struct parse *parse, uint32_t *value, const char *what, runnel_error *error)
{
    return read_bytes(parse, value, sizeof *value, what, error);
}

static int read_u64(struct parse *parse, uint64_t *value, const char *what, runnel_error *error)
{
    return read_bytes(parse, value, sizeof *value, what, error);
}

static int out_of_memory(const struct parse *parse, uint64_t n, runnel_error *error)
{
    return fail_at(parse, RUNNEL_ENOMEM, error, "no memory for %" PRIu64 " bytes", n);
}

/* A string: any bytes, any length that the file has room for. A zero follows it in memory. */
static int read_string(struct parse *parse, struct gguf_string *string, runnel_error *error)
{
    uint64_t len;
    int code = read_u64(parse, &len, "the length of a string", error);
    if (code)
        return code;
    if (len > bytes_left(parse))
        return fail_beyond_end(parse, len, "a string", error);
    char *bytes = chunk_alloc(&parse->gguf->chunks, (size_t)len + 1);
    if (!bytes)
        return out_of_memory(parse, len, error);
    code = read_bytes(parse, bytes, len, "a string", error);
    if (code)
        return code;
    bytes[len] = 0;
    *string = (struct gguf_string){bytes, (size_t)len};
    return RUNNEL_OK;
}

/* The name of a key or tensor: not empty, not over max bytes, printable ASCII. */
static int read_name(struct parse *parse, uint64_t max, const char **name, runnel_error *error)
{
    uint64_t len, offset = parse->offset;
    int code = read_u64(parse, &len, "the length of its name", error);
    if (code)
        return code;
    if (len == 0 || len > max)
        return fail_at(parse, RUNNEL_EFORMAT, error,
                       "name at offset %" PRIu64 ": expected 1 to %" PRIu64 " bytes, found %" PRIu64, offset,
                       max, len);
    char *bytes = chunk_alloc(&parse->gguf->chunks, (size_t)len + 1);
    if (!bytes)
        return out_of_memory(parse, len, error);
    code = read_bytes(parse, bytes, len, "its name", error);
    if (code)
        return code;
    bytes[len] = 0;
    for (uint64_t i = 0; i < len; i++)
        if (bytes[i] < 0x20 || bytes[i] > 0x7e)
            return fail_at(parse, RUNNEL_EFORMAT, error,
                           "name at offset %" PRIu64
                           ": expected printable ASCII, found byte 0x%02x at position %" PRIu64,
                           offset, (unsigned char)bytes[i], i);
    *name = bytes;
    return RUNNEL_OK;
}

/* Values -------------------------------------------------------------------------------------------------- */

static const struct {
    const char *name;
    unsigned bytes; /* of a scalar; 0: no scalar */
} value_types[] = {
    [GGUF_U8] = {"u8", 1},       [GGUF_I8] = {"i8", 1},     [GGUF_U16] = {"u16", 2},
    [GGUF_I16] = {"i16", 2},     [GGUF_U32] = {"u32", 4},   [GGUF_I32] = {"i32", 4},
    [GGUF_F32] = {"f32", 4},     [GGUF_BOOL] = {"bool", 1}, [GGUF_U64] = {"u64", 8},
    [GGUF_I64] = {"i64", 8},     [GGUF_F64] = {"f64", 8},   [GGUF_STRING] = {"string", 0},
    [GGUF_ARRAY] = {"array", 0},
};
enum { N_VALUE_TYPES = sizeof value_types / sizeof *value_types };

const char *gguf_type_name(enum gguf_type type)
{
    return (unsigned)type < N_VALUE_TYPES ? value_types[type].name : "unknown";
}

static int read_value_type(struct parse *parse, enum gguf_type *type, const char *what, runnel_error *error)
{
    uint32_t number;
    uint64_t offset = parse->offset;
    int code = read_u32(parse, &number, what, error);
    if (code)
        return code;
    if (number >= N_VALUE_TYPES)
        return fail_at(parse, RUNNEL_EFORMAT, error,
                       "%s at offset %" PRIu64 ": expected 0 to %d, found %" PRIu32, what, offset,
                       N_VALUE_TYPES - 1, number);
    *type = (enum gguf_type)number;
    return RUNNEL_OK;
}

static int check_bool(const struct parse *parse, const uint8_t *values, uint64_t n, runnel_error *error)
{
    for (uint64_t i = 0; i < n; i++)
        if (values[i] > 1)
            return fail_at(parse, RUNNEL_EFORMAT, error,
                           "bool at offset %" PRIu64 ": expected 0 or 1, found %u", parse->offset - n + i,
                           values[i]);
    return RUNNEL_OK;
}

static int read_array(struct parse *parse, struct gguf_array *array, runnel_error *error)
{
    enum gguf_type type;
    uint64_t n;
    int code = read_value_type(parse, &type, "element type", error);
    if (!code)
        code = read_u64(parse, &n, "the length of an array", error);
    if (code)
        return code;
    if (type == GGUF_ARRAY)
        return fail_at(parse, RUNNEL_EUNSUPPORTED, error,
                       "expected an array of scalars or strings, found an array of arrays");
    unsigned element_bytes = type == GGUF_STRING ? 8 : value_types[type].bytes; /* a string's at least */
    if (n > bytes_left(parse) / element_bytes)
        return fail_at(parse, RUNNEL_EFORMAT, error,
                       "array at offset %" PRIu64 ": announces %" PRIu64
                       " values of type %s, but only %" PRIu64 " bytes are left%s",
                       parse->offset - 12, n, gguf_type_name(type), bytes_left(parse),
                       parse->end < parse->gguf->file_bytes ? " for metadata" : " in the file");
    uint64_t memory = n * (type == GGUF_STRING ? sizeof(struct gguf_string) : element_bytes);
    void *values = chunk_alloc(&parse->gguf->chunks, (size_t)memory);
    if (!values)
        return out_of_memory(parse, memory, error);
    if (type == GGUF_STRING) {
        struct gguf_string *strings = values;
        for (uint64_t i = 0; i < n && !code; i++)
            code = read_string(parse, &strings[i], error);
    } else {
        code = read_bytes(parse, values, memory, "an array", error);
        if (!code && type == GGUF_BOOL)
            code = check_bool(parse, values, n, error);
    }
    if (!code)
        *array = (struct gguf_array){type, (size_t)n, values};
    return code;
}

static int read_scalar(struct parse *parse, struct gguf_key *key, runnel_error *error)
{
    union {
        uint8_t u8;
        int8_t i8;
        uint16_t u16;
        int16_t i16;
        uint32_t u32;
        int32_t i32;
        float f32;
        uint64_t u64;
        int64_t i64;
        double f64;
    } raw;
    int code = read_bytes(parse, &raw, value_types[key->type].bytes, "its value", error);
    if (!code && key->type == GGUF_BOOL)
        code = check_bool(parse, &raw.u8, 1, error);
    if (code)
        return code;
    switch (key->type) {
    case GGUF_U8:
    case GGUF_BOOL:
        key->value.integer = raw.u8;
        break;
    case GGUF_U16:
        key->value.integer = raw.u16;
        break;
    case GGUF_U32:
        key->value.integer = raw.u32;
        break;
    case GGUF_U64:
        key->value.integer = raw.u64;
        break;
    case GGUF_I8:
        key->value.signed_integer = raw.i8;
        break;
    case GGUF_I16:
        key->value.signed_integer = raw.i16;
        break;
    case GGUF_I32:
        key->value.signed_integer = raw.i32;
        break;
    case GGUF_I64:
        key->value.signed_integer = raw.i64;
        break;
    case GGUF_F32:
        key->value.real = raw.f32;
        break;
    case GGUF_F64:
        key->value.real = raw.f64;
        break;
    case GGUF_STRING:
    case GGUF_ARRAY:
        break;
    }
    return RUNNEL_OK;
}

static int read_key(struct parse *parse, struct gguf_key *key, runnel_error *error)
{
    int code = read_name(parse, KEY_NAME_MAX_BYTES, &key->name, error);
    if (code)
        return code;
    parse->name = key->name;
    code = read_value_type(parse, &key->type, "value type", error);
    if (code)
        return code;
    key->value_offset = parse->offset;
    if (key->type == GGUF_STRING)
        code = read_string(parse, &key->value.string, error);
    else if (key->type == GGUF_ARRAY)
        code = read_array(parse, &key->value.array, error);
    else
        code = read_scalar(parse, key, error);
    key->value_bytes = parse->offset - key->value_offset;
    return code;
}

/* Tensors ------------------------------------------------------------------------------------------------- */

/* Row and whole size in bytes, from type and dimensions; offset is still relative to the data section. */
static int measure_tensor(const struct parse *parse, const struct quant_info *info,
                          struct gguf_tensor *tensor, runnel_error *error)
{
    if (tensor->dims[0] % info->block_values)
        return fail_at(parse, RUNNEL_EFORMAT, error,
                       "expected rows of whole %s blocks of %" PRIu32 " values, found rows of %" PRIu64,
                       info->name, info->block_values, tensor->dims[0]);
    tensor->row_bytes = tensor->dims[0] / info->block_values * info->block_bytes; /* < 2^34 */
    uint64_t n_bytes = tensor->row_bytes;
    for (uint32_t d = 1; d < tensor->n_dims; d++)
        if (__builtin_mul_overflow(n_bytes, tensor->dims[d], &n_bytes) || n_bytes > INT64_MAX)
            return fail_at(parse, RUNNEL_EFORMAT, error,
                           "size overflows: %" PRIu64 " x %" PRIu64 " x %" PRIu64 " x %" PRIu64
                           " values of type %s",
                           tensor->dims[0], tensor->dims[1], tensor->dims[2], tensor->dims[3], info->name);
    tensor->n_bytes = n_bytes;
    return RUNNEL_OK;
}

static int read_tensor(struct parse *parse, struct gguf_tensor *tensor, runnel_error *error)
{
    int code = read_name(parse, TENSOR_NAME_MAX_BYTES, &tensor->name, error);
    if (code)
        return code;
    parse->name = tensor->name;
    code = read_u32(parse, &tensor->n_dims, "the number of dimensions", error);
    if (code)
        return code;
    if (tensor->n_dims < 1 || tensor->n_dims > 4)
        return fail_at(parse, RUNNEL_EFORMAT, error, "expected 1 to 4 dimensions, found %" PRIu32,
                       tensor->n_dims);
    for (uint32_t d = 0; d < 4; d++) {
        tensor->dims[d] = 1;
        if (d < tensor->n_dims)
            code = read_u64(parse, &tensor->dims[d], "a dimension", error);
        if (code)
            return code;
        if (tensor->dims[d] == 0 || tensor->dims[d] > DIMENSION_MAX)
            return fail_at(parse, RUNNEL_EFORMAT, error,
                           "dimension %" PRIu32 ": expected 1 to %" PRIu64 ", found %" PRIu64, d,
                           DIMENSION_MAX, tensor->dims[d]);
    }
    uint32_t type;
    code = read_u32(parse, &type, "its type", error);
    if (!code)
        code = read_u64(parse, &tensor->offset, "its offset", error);
    if (code)
        return code;
    const struct quant_info *info = quant_find(type);
    if (!info)
        return fail_at(parse, RUNNEL_EUNSUPPORTED, error,
                       "expected one of the types %s, found type number %" PRIu32, quant_known_names(), type);
    tensor->type = info->type;
    if (tensor->offset % parse->gguf->alignment)
        return fail_at(parse, RUNNEL_EFORMAT, error,
                       "expected an offset that is a multiple of %" PRIu32 ", found %" PRIu64,
                       parse->gguf->alignment, tensor->offset);
    return measure_tensor(parse, info, tensor, error);
}

/* Makes offsets absolute; checks that each tensor lies in the file. */
static int place_tensors(struct parse *parse, runnel_error *error)
{
    struct gguf *gguf = parse->gguf;
    uint64_t mask = gguf->alignment - 1, start = (parse->offset + mask) & ~mask;
    parse->kind = "tensor";
    for (size_t i = 0; i < gguf->n_tensors; i++) {
        struct gguf_tensor *tensor = &gguf->tensors[i];
        parse->name = tensor->name;
        uint64_t offset, end;
        if (__builtin_add_overflow(tensor->offset, start, &offset) ||
            __builtin_add_overflow(offset, tensor->n_bytes, &end) || end > INT64_MAX)
            return fail_at(parse, RUNNEL_EFORMAT, error,
                           "offset %" PRIu64 " with %" PRIu64 " bytes overflows", tensor->offset,
                           tensor->n_bytes);
        if (end > gguf->file_bytes)
            return fail_at(parse, RUNNEL_EFORMAT, error,
                           "truncated: expected %" PRIu64 " bytes of data at offset %" PRIu64
                           ", the file ends at %" PRIu64,
                           tensor->n_bytes, offset, gguf->file_bytes);
        tensor->offset = offset;
    }
    return RUNNEL_OK;
}

/* The file ------------------------------------------------------------------------------------------------ */

/* Room for one more of n elements of `size` bytes: doubles, so that memory follows what was really read. */
static int grow(const struct parse *parse, void **array, size_t n, size_t size, runnel_error *error)
{
    if (n & (n - 1) || (n && n < 16)) /* cap is the next power of two, at least 16 */
        return RUNNEL_OK;
    size_t cap = n ? 2 * n : 16;
    void *grown = realloc(*array, cap * size);
    if (!grown)
        return out_of_memory(parse, cap * size, error);
    *array = grown;
    return RUNNEL_OK;
}

static int read_header(struct parse *parse, bool keys_only, uint64_t *n_tensors, uint64_t *n_keys,
                       runnel_error *error)
{
    unsigned char magic[4];
    uint32_t version;
    parse->kind = "the header";
    int code = read_bytes(parse, magic, sizeof magic, "the magic", error);
    if (code)
        return code;
    if (memcmp(magic, "GGUF", 4))
        return fail_at(
            parse, RUNNEL_EFORMAT, error,
            "not a GGUF file: expected it to begin with 47 47 55 46 (\"GGUF\"), found %02x %02x %02x %02x",
            magic[0], magic[1], magic[2], magic[3]);
    code = read_u32(parse, &version, "the version", error);
    if (code)
        return code;
    if (version != 2 && version != 3)
        return fail_at(parse, RUNNEL_EUNSUPPORTED, error, "expected version 2 or 3, found %" PRIu32 "%s",
                       version, version && !(version & 0xffff) ? " (a big-endian file?)" : "");
    parse->gguf->version = version;
    code = read_u64(parse, n_tensors, "the number of tensors", error);
    if (!code)
        code = read_u64(parse, n_keys, "the number of keys", error);
    if (code)
        return code;
    uint64_t left = bytes_left(parse);
    if (*n_keys > left / KEY_MIN_BYTES)
        return fail_at(parse, RUNNEL_EFORMAT, error,
                       "announces %" PRIu64 " keys, but only %" PRIu64 " bytes follow", *n_keys, left);
    if (!keys_only && *n_tensors > (left - *n_keys * KEY_MIN_BYTES) / TENSOR_MIN_BYTES)
        return fail_at(parse, RUNNEL_EFORMAT, error,
                       "announces %" PRIu64 " tensors and %" PRIu64 " keys, but only %" PRIu64
                       " bytes follow",
                       *n_tensors, *n_keys, left);
    return RUNNEL_OK;
}

static int find_alignment(struct parse *parse, runnel_error *error)
{
    struct gguf *gguf = parse->gguf;
    gguf->alignment = ALIGNMENT_DEFAULT;
    const struct gguf_key *key = gguf_find_key(gguf, "general.alignment");
    if (!key)
        return RUNNEL_OK;
    parse->name = key->name;
    if (key->type != GGUF_U32)
        return fail_at(parse, RUNNEL_EFORMAT, error, "expected type u32, found %s",
                       gguf_type_name(key->type));
    uint64_t value = key->value.integer;
    if (value == 0 || value > ALIGNMENT_MAX || value & (value - 1))
        return fail_at(parse, RUNNEL_EFORMAT, error, "expected a power of two from 1 to %d, found %" PRIu64,
                       ALIGNMENT_MAX, value);
    gguf->alignment = (uint32_t)value;
    return RUNNEL_OK;
}

static int read_keys(struct parse *parse, uint64_t n_keys, runnel_error *error)
{
    struct gguf *gguf = parse->gguf;
    parse->kind = "key";
    parse->count = n_keys;
    for (uint64_t i = 0; i < n_keys; i++) {
        parse->index = i;
        parse->name = NULL;
        void *keys = gguf->keys;
        int code = grow(parse, &keys, gguf->n_keys, sizeof *gguf->keys, error);
        gguf->keys = keys;
        if (code)
            return code;
        code = read_key(parse, &gguf->keys[i], error);
        if (code)
            return code;
        gguf->n_keys++;
    }
    return gguf_index_keys(gguf, error);
}

static int read_tensors(struct parse *parse, uint64_t n_tensors, runnel_error *error)
{
    struct gguf *gguf = parse->gguf;
    parse->kind = "tensor";
    parse->count = n_tensors;
    for (uint64_t i = 0; i < n_tensors; i++) {
        parse->index = i;
        parse->name = NULL;
        void *tensors = gguf->tensors;
        int code = grow(parse, &tensors, gguf->n_tensors, sizeof *gguf->tensors, error);
        gguf->tensors = tensors;
        if (code)
            return code;
        code = read_tensor(parse, &gguf->tensors[i], error);
        if (code)
            return code;
        gguf->n_tensors++;
    }
    return gguf_index_tensors(gguf, error);
}

int gguf_parse(struct gguf *gguf, bool keys_only, uint64_t max_bytes, runnel_error *error)
{
    struct parse *parse = malloc(sizeof *parse);
    if (!parse)
        return error_set(error, RUNNEL_ENOMEM, "no memory for %zu bytes", sizeof *parse);
    memset(parse, 0, offsetof(struct parse, window));
    parse->gguf = gguf;
    parse->end = gguf->file_bytes < max_bytes ? gguf->file_bytes : max_bytes;
    uint64_t n_tensors, n_keys;
    int code = read_header(parse, keys_only, &n_tensors, &n_keys, error);
    if (!code)
        code = read_keys(parse, n_keys, error);
    if (!code)
        code = find_alignment(parse, error);
    if (!code && !keys_only) {
        code = read_tensors(parse, n_tensors, error);
        if (!code)
            code = place_tensors(parse, error);
        if (!code)
            code = gguf_check_overlaps(gguf, error);
    }
    gguf->metadata_bytes = parse->offset;
    free(parse);
    return code;
}
