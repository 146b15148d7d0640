/* gguf_bytes.c: see gguf_bytes.h. Owns nothing. */
#include "gguf_bytes.h"

#include <stdlib.h>
#include <string.h>

void put_bytes(struct gguf_bytes *file, const void *bytes, size_t n)
{
    if (n > sizeof file->bytes - file->n)
        abort();
    if (n)
        memcpy(file->bytes + file->n, bytes, n);
    file->n += n;
}

void put_zeros(struct gguf_bytes *file, size_t n)
{
    while (n--)
        put_u8(file, 0);
}

void put_u8(struct gguf_bytes *file, uint8_t value)
{
    put_bytes(file, &value, sizeof value);
}

void put_u32(struct gguf_bytes *file, uint32_t value)
{
    put_bytes(file, &value, sizeof value);
}

void put_u64(struct gguf_bytes *file, uint64_t value)
{
    put_bytes(file, &value, sizeof value);
}

void put_string(struct gguf_bytes *file, const char *text)
{
    put_u64(file, strlen(text));
    put_bytes(file, text, strlen(text));
}

void put_header(struct gguf_bytes *file, uint64_t n_tensors, uint64_t n_keys)
{
    file->n = 0;
    put_bytes(file, "GGUF", 4);
    put_u32(file, 3);
    put_u64(file, n_tensors);
    put_u64(file, n_keys);
}

void put_key(struct gguf_bytes *file, const char *name, uint32_t type)
{
    put_string(file, name);
    put_u32(file, type);
}

void put_key_u32(struct gguf_bytes *file, const char *name, uint32_t value)
{
    put_key(file, name, GGUF_U32);
    put_u32(file, value);
}

void put_key_string(struct gguf_bytes *file, const char *name, const char *value)
{
    put_key(file, name, GGUF_STRING);
    put_string(file, value);
}

void put_array(struct gguf_bytes *file, uint32_t type, uint64_t n)
{
    put_u32(file, type);
    put_u64(file, n);
}

void put_tensor(struct gguf_bytes *file, const char *name, uint64_t n_values, uint32_t type, uint64_t offset)
{
    put_string(file, name);
    put_u32(file, 1);
    put_u64(file, n_values);
    put_u32(file, type);
    put_u64(file, offset);
}

void put_padding(struct gguf_bytes *file, size_t n)
{
    while (file->n % n)
        put_u8(file, 0);
}

void put_sample(struct gguf_bytes *file)
{
    static const unsigned char scalar[8] = {1, 0, 0,    0,
                                            0, 0, 0xf0, 0x3f}; /* 1 as any integer; near 1 as f64 */
    static const struct {
        const char *name;
        enum gguf_type type;
        size_t n_bytes;
    } scalars[] = {
        {"a.u8", GGUF_U8, 1},   {"a.i8", GGUF_I8, 1},   {"a.u16", GGUF_U16, 2}, {"a.i16", GGUF_I16, 2},
        {"a.u32", GGUF_U32, 4}, {"a.i32", GGUF_I32, 4}, {"a.f32", GGUF_F32, 4}, {"a.bool", GGUF_BOOL, 1},
        {"a.u64", GGUF_U64, 8}, {"a.i64", GGUF_I64, 8}, {"a.f64", GGUF_F64, 8},
    };
    put_header(file, 3, 16);
    put_key_u32(file, "general.alignment", 64);
    put_key_string(file, "general.architecture", "sample");
    for (size_t i = 0; i < sizeof scalars / sizeof *scalars; i++) {
        put_key(file, scalars[i].name, scalars[i].type);
        put_bytes(file, scalar, scalars[i].n_bytes);
    }
    put_key(file, "b.strings", GGUF_ARRAY);
    put_array(file, GGUF_STRING, 3);
    put_string(file, "one");
    put_string(file, "");
    put_string(file, "three");
    put_key(file, "b.numbers", GGUF_ARRAY);
    put_array(file, GGUF_I32, 4);
    for (uint32_t i = 0; i < 4; i++)
        put_u32(file, i);
    put_key(file, "b.empty", GGUF_ARRAY);
    put_array(file, GGUF_U8, 0);
    put_tensor(file, "first", 16, TENSOR_F32, 0); /* 64 bytes */
    put_string(file, "second");                   /* 2 x 32 values in Q8_0: 68 bytes, then a gap to 192 */
    put_u32(file, 2);
    put_u64(file, 32);
    put_u64(file, 2);
    put_u32(file, TENSOR_Q8_0);
    put_u64(file, 64);
    put_tensor(file, "third", 3, TENSOR_F16, 192); /* 6 bytes, up to the end of the file */
    put_padding(file, 64);
    put_zeros(file, 192 + 6);
}
