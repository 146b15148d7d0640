/* gguf_write.c: the GGUF writer. A writer owns the encoded keys, the list of tensors, and while it saves the
 * file and one buffer. One thread. What always holds: after `code` is set nothing more is collected and
 * nothing is written. */
#include "model/gguf_write.h"
#include "base/new_file.h"
#include "model/gguf_raw.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { OUTPUT_BYTES = 1 << 20 };

struct tensor_to_write {
    char *name;
    const struct quant_info *info;
    uint32_t n_dims;
    uint64_t dims[4];
    uint64_t n_bytes;
    gguf_fill *fill;
    void *arg;
};

struct bytes { /* grows by doubling */
    unsigned char *data;
    size_t len, cap;
};

struct gguf_writer {
    int code;           /* the first failure */
    runnel_error error; /* its message */
    struct bytes keys;
    uint64_t n_keys;
    uint32_t alignment;
    struct tensor_to_write *tensors;
    size_t n_tensors, tensors_cap;
};

struct gguf_writer *gguf_writer_create(void)
{
    struct gguf_writer *writer = calloc(1, sizeof *writer);
    if (writer)
        writer->alignment = 32;
    return writer;
}

void gguf_writer_free(struct gguf_writer *writer)
{
    if (!writer)
        return;
    for (size_t i = 0; i < writer->n_tensors; i++)
        free(writer->tensors[i].name);
    free(writer->tensors);
    free(writer->keys.data);
    free(writer);
}

/* Collecting keys ----------------------------------------------------------------------------------------- */

/* Room for n more bytes at the end; NULL, and the writer has failed, if there is no memory. */
static unsigned char *extend(struct gguf_writer *writer, struct bytes *bytes, size_t n)
{
    if (writer->code)
        return NULL;
    if (n > bytes->cap - bytes->len) {
        size_t cap = bytes->cap ? bytes->cap : 4096;
        while (cap - bytes->len < n && cap <= SIZE_MAX / 2)
            cap *= 2;
        unsigned char *data = cap - bytes->len < n ? NULL : realloc(bytes->data, cap);
        if (!data) {
            writer->code = error_set(&writer->error, RUNNEL_ENOMEM, "no memory for %zu bytes of metadata", n);
            return NULL;
        }
        bytes->data = data;
        bytes->cap = cap;
    }
    bytes->len += n;
    return bytes->data + bytes->len - n;
}

static void append(struct gguf_writer *writer, struct bytes *bytes, const void *data, size_t n)
{
    unsigned char *to = n ? extend(writer, bytes, n) : NULL;
    if (to)
        memcpy(to, data, n);
}

static void append_u32(struct gguf_writer *writer, struct bytes *bytes, uint32_t value)
{
    append(writer, bytes, &value, sizeof value);
}

static void append_u64(struct gguf_writer *writer, struct bytes *bytes, uint64_t value)
{
    append(writer, bytes, &value, sizeof value);
}

static void append_string(struct gguf_writer *writer, struct bytes *bytes, const char *text, size_t len)
{
    append_u64(writer, bytes, len);
    append(writer, bytes, text, len);
}

static void begin_key(struct gguf_writer *writer, const char *key, enum gguf_type type)
{
    append_string(writer, &writer->keys, key, strlen(key));
    append_u32(writer, &writer->keys, (uint32_t)type);
    writer->n_keys++;
}

static size_t scalar_bytes(enum gguf_type type)
{
    switch (type) {
    case GGUF_U8:
    case GGUF_I8:
    case GGUF_BOOL:
        return 1;
    case GGUF_U16:
    case GGUF_I16:
        return 2;
    case GGUF_U32:
    case GGUF_I32:
    case GGUF_F32:
        return 4;
    case GGUF_U64:
    case GGUF_I64:
    case GGUF_F64:
        return 8;
    case GGUF_STRING:
    case GGUF_ARRAY:
        break;
    }
    return 0;
}

void gguf_writer_add_scalar(struct gguf_writer *writer, const char *key, enum gguf_type type,
                            const void *value)
{
    begin_key(writer, key, type);
    append(writer, &writer->keys, value, scalar_bytes(type));
}

void gguf_writer_add_u32(struct gguf_writer *writer, const char *key, uint32_t value)
{
    gguf_writer_add_scalar(writer, key, GGUF_U32, &value);
}

void gguf_writer_add_i32(struct gguf_writer *writer, const char *key, int32_t value)
{
    gguf_writer_add_scalar(writer, key, GGUF_I32, &value);
}

void gguf_writer_add_f32(struct gguf_writer *writer, const char *key, float value)
{
    gguf_writer_add_scalar(writer, key, GGUF_F32, &value);
}

void gguf_writer_add_bool(struct gguf_writer *writer, const char *key, bool value)
{
    uint8_t byte = value;
    gguf_writer_add_scalar(writer, key, GGUF_BOOL, &byte);
}

void gguf_writer_add_string(struct gguf_writer *writer, const char *key, const char *value)
{
    begin_key(writer, key, GGUF_STRING);
    append_string(writer, &writer->keys, value, strlen(value));
}

void gguf_writer_add_array(struct gguf_writer *writer, const char *key, enum gguf_type type, size_t n,
                           const void *values)
{
    begin_key(writer, key, GGUF_ARRAY);
    append_u32(writer, &writer->keys, (uint32_t)type);
    append_u64(writer, &writer->keys, n);
    if (type == GGUF_STRING) {
        const struct gguf_string *strings = values;
        for (size_t i = 0; i < n; i++)
            append_string(writer, &writer->keys, strings[i].bytes, strings[i].len);
    } else
        append(writer, &writer->keys, values, n * scalar_bytes(type));
}

void gguf_writer_add_copy(struct gguf_writer *writer, const struct gguf *from, size_t i)
{
    uint64_t offset, n;
    gguf_key_raw(from, i, &offset, &n);
    begin_key(writer, gguf_key_name(from, i), gguf_key_type(from, i));
    unsigned char *to = extend(writer, &writer->keys, (size_t)n);
    if (to)
        writer->code = gguf_read(from, offset, to, (size_t)n, &writer->error);
}

void gguf_writer_set_alignment(struct gguf_writer *writer, uint32_t alignment)
{
    if (alignment == 0 || alignment & (alignment - 1))
        writer->code = error_set(&writer->error, RUNNEL_EINVAL,
                                 "alignment: expected a power of two, found %" PRIu32, alignment);
    writer->alignment = alignment;
    gguf_writer_add_u32(writer, "general.alignment", alignment);
}

/* Collecting tensors -------------------------------------------------------------------------------------- */

void gguf_writer_add_tensor(struct gguf_writer *writer, const char *name, enum tensor_type type,
                            uint32_t n_dims, const uint64_t *dims, gguf_fill *fill, void *arg)
{
    if (writer->code)
        return;
    struct tensor_to_write tensor = {
        .info = quant_find((uint32_t)type), .n_dims = n_dims, .fill = fill, .arg = arg};
    if (!tensor.info || n_dims < 1 || n_dims > 4 || dims[0] % tensor.info->block_values) {
        writer->code = error_set(
            &writer->error, RUNNEL_EINVAL,
            "tensor \"%s\": expected a known type, 1 to 4 dimensions and rows of whole blocks", name);
        return;
    }
    tensor.n_bytes = dims[0] / tensor.info->block_values * tensor.info->block_bytes;
    for (uint32_t d = 0; d < n_dims; d++) {
        tensor.dims[d] = dims[d];
        if (d && __builtin_mul_overflow(tensor.n_bytes, dims[d], &tensor.n_bytes)) {
            writer->code = error_set(&writer->error, RUNNEL_EINVAL, "tensor \"%s\": size overflows", name);
            return;
        }
    }
    if (writer->n_tensors == writer->tensors_cap) {
        size_t cap = writer->tensors_cap ? 2 * writer->tensors_cap : 64;
        struct tensor_to_write *tensors = realloc(writer->tensors, cap * sizeof *tensors);
        if (!tensors) {
            writer->code = error_set(&writer->error, RUNNEL_ENOMEM, "no memory for %zu tensors", cap);
            return;
        }
        writer->tensors = tensors;
        writer->tensors_cap = cap;
    }
    tensor.name = strdup(name);
    if (!tensor.name) {
        writer->code = error_set(&writer->error, RUNNEL_ENOMEM, "no memory for the name of a tensor");
        return;
    }
    writer->tensors[writer->n_tensors++] = tensor;
}

/* Saving -------------------------------------------------------------------------------------------------- */

static int write_all(int fd, const void *data, size_t n, runnel_error *error)
{
    const unsigned char *from = data;
    while (n) {
        ssize_t written = write(fd, from, n);
        if (written < 0 && errno == EINTR)
            continue;
        if (written <= 0)
            return error_set(error, RUNNEL_EIO, "cannot write: %m");
        from += written;
        n -= (size_t)written;
    }
    return RUNNEL_OK;
}

static uint64_t padding(uint64_t offset, uint32_t alignment)
{
    return (alignment - offset % alignment) % alignment;
}

/* Header, keys and tensor list, padded: all before the data. */
static int write_metadata(struct gguf_writer *writer, int fd, runnel_error *error)
{
    struct bytes head = {0}, list = {0};
    append(writer, &head, "GGUF", 4);
    append_u32(writer, &head, 3);
    append_u64(writer, &head, writer->n_tensors);
    append_u64(writer, &head, writer->n_keys);
    uint64_t offset = 0;
    for (size_t i = 0; i < writer->n_tensors; i++) {
        const struct tensor_to_write *tensor = &writer->tensors[i];
        append_string(writer, &list, tensor->name, strlen(tensor->name));
        append_u32(writer, &list, tensor->n_dims);
        for (uint32_t d = 0; d < tensor->n_dims; d++)
            append_u64(writer, &list, tensor->dims[d]);
        append_u32(writer, &list, (uint32_t)tensor->info->type);
        append_u64(writer, &list, offset);
        offset += tensor->n_bytes + padding(tensor->n_bytes, writer->alignment);
    }
    size_t pad = (size_t)padding(head.len + writer->keys.len + list.len, writer->alignment);
    unsigned char *zeros = pad ? extend(writer, &list, pad) : NULL; /* a file without tensors has no list */
    int code = writer->code;
    if (code && error)
        *error = writer->error;
    if (!code) {
        if (zeros)
            memset(zeros, 0, pad);
        code = write_all(fd, head.data, head.len, error);
    }
    if (!code)
        code = write_all(fd, writer->keys.data, writer->keys.len, error);
    if (!code)
        code = write_all(fd, list.data, list.len, error);
    free(head.data);
    free(list.data);
    return code;
}

static int write_tensor(const struct gguf_writer *writer, const struct tensor_to_write *tensor, int fd,
                        unsigned char *buffer, runnel_error *error)
{
    for (uint64_t offset = 0; offset < tensor->n_bytes;) {
        uint64_t left = tensor->n_bytes - offset;
        size_t n = left < OUTPUT_BYTES ? (size_t)left : OUTPUT_BYTES;
        int code = tensor->fill(tensor->arg, offset, buffer, n, error);
        if (!code)
            code = write_all(fd, buffer, n, error);
        if (code)
            return error_prefix(error, "tensor \"%s\"", tensor->name), code;
        offset += n;
    }
    uint64_t pad = padding(tensor->n_bytes, writer->alignment);
    while (pad) {
        size_t n = pad < OUTPUT_BYTES ? (size_t)pad : OUTPUT_BYTES;
        memset(buffer, 0, n);
        int code = write_all(fd, buffer, n, error);
        if (code)
            return code;
        pad -= n;
    }
    return RUNNEL_OK;
}

int gguf_writer_save(struct gguf_writer *writer, const char *path, runnel_error *error)
{
    if (writer->code) {
        if (error)
            *error = writer->error;
        return writer->code;
    }
    struct new_file file;
    unsigned char *buffer = malloc(OUTPUT_BYTES);
    int code = buffer ? new_file_open(&file, path, error)
                      : error_set(error, RUNNEL_ENOMEM, "%s: no memory to write it", path);
    if (code) {
        free(buffer);
        return code;
    }
    code = write_metadata(writer, file.fd, error);
    for (size_t i = 0; i < writer->n_tensors && !code; i++)
        code = write_tensor(writer, &writer->tensors[i], file.fd, buffer, error);
    if (code)
        error_prefix(error, "%s", path);
    free(buffer);
    return new_file_close(&file, code, error);
}
