/* gguf_bytes.h: GGUF files put together byte by byte, so that tests can make what the writer would refuse to.
 * Small: the bytes lie in a fixed buffer, and putting more than fits ends the test program. One thread. */
#ifndef RUNNEL_TESTS_GGUF_BYTES_H
#define RUNNEL_TESTS_GGUF_BYTES_H

#include "model/gguf.h"

struct gguf_bytes {
    unsigned char bytes[128 << 10];
    size_t n;
};

void put_bytes(struct gguf_bytes *file, const void *bytes, size_t n);
void put_zeros(struct gguf_bytes *file, size_t n);
void put_u8(struct gguf_bytes *file, uint8_t value);
void put_u32(struct gguf_bytes *file, uint32_t value);
void put_u64(struct gguf_bytes *file, uint64_t value);
void put_string(struct gguf_bytes *file, const char *text); /* length and bytes */
/* Empties the file, then "GGUF", version 3 and the counts. */
void put_header(struct gguf_bytes *file, uint64_t n_tensors, uint64_t n_keys);
void put_key(struct gguf_bytes *file, const char *name, uint32_t type); /* the value is to follow */
void put_key_u32(struct gguf_bytes *file, const char *name, uint32_t value);
void put_key_string(struct gguf_bytes *file, const char *name, const char *value);
void put_array(struct gguf_bytes *file, uint32_t type, uint64_t n); /* the elements are to follow */
/* A tensor of one dimension. */
void put_tensor(struct gguf_bytes *file, const char *name, uint64_t n_values, uint32_t type, uint64_t offset);
/* Zeros up to a multiple of n. */
void put_padding(struct gguf_bytes *file, size_t n);

/* A good file with a key of every type, arrays of several, and three tensors. */
void put_sample(struct gguf_bytes *file);

#endif
