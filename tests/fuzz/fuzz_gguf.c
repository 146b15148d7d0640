/* fuzz_gguf.c: any bytes as a model file: opened or refused, never a crash; what is accepted can be read
 * through. */
#include "helpers/memory_file.h"
#include "model/gguf_raw.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static volatile uint64_t read_sum;

static void check(bool holds)
{
    if (!holds)
        abort();
}

/* Touches every value; the sum keeps the compiler from leaving the reads out. */
static uint64_t read_keys(const struct gguf *gguf)
{
    uint64_t sum = 0;
    for (size_t i = 0; i < gguf_n_keys(gguf); i++) {
        const char *key = gguf_key_name(gguf, i);
        uint32_t u32;
        float f32;
        bool flag;
        struct gguf_string string;
        struct gguf_array array;
        check(gguf_has_key(gguf, key) && gguf_find_type(gguf, key) == gguf_key_type(gguf, i));
        gguf_get_u32(gguf, key, &u32, NULL);
        gguf_get_f32(gguf, key, &f32, NULL);
        gguf_get_bool(gguf, key, &flag, NULL);
        if (!gguf_get_string(gguf, key, &string, NULL))
            for (size_t b = 0; b < string.len; b++)
                sum += (unsigned char)string.bytes[b];
        for (int type = GGUF_U8; type <= GGUF_F64; type++) {
            if (gguf_get_array(gguf, key, (enum gguf_type)type, &array, NULL))
                continue;
            if (type == GGUF_STRING)
                for (size_t s = 0; s < array.n; s++) {
                    const struct gguf_string *element = (const struct gguf_string *)array.values + s;
                    sum += element->len ? (unsigned char)element->bytes[element->len - 1] : 0;
                }
            else if (array.n)
                sum += ((const unsigned char *)array.values)[array.n - 1];
        }
    }
    return sum;
}

static void read_tensors(const struct gguf *gguf)
{
    for (size_t i = 0; i < gguf_n_tensors(gguf); i++) {
        const struct gguf_tensor *tensor = gguf_tensor_at(gguf, i);
        unsigned char byte;
        check(gguf_find_tensor(gguf, tensor->name) == tensor);
        check(tensor->n_bytes > 0 && tensor->offset + tensor->n_bytes <= gguf_file_bytes(gguf));
        check(!gguf_read(gguf, tensor->offset + tensor->n_bytes - 1, &byte, 1, NULL));
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char path[MEMORY_FILE_PATH];
    struct gguf *gguf;
    runnel_error error = {0};
    uint64_t sum = 0;
    int fd = memory_file_create(data, size, path);
    check(fd >= 0);
    int code = gguf_open(path, &gguf, &error);
    if (code)
        check(code == error.code && error.message[0] && !strchr(error.message, '\n'));
    else {
        sum += read_keys(gguf);
        read_tensors(gguf);
        gguf_close(gguf);
    }
    if (!gguf_open_keys_only(path, &gguf, &error)) {
        sum += read_keys(gguf);
        gguf_close(gguf);
    }
    close(fd);
    read_sum = sum;
    return 0;
}
