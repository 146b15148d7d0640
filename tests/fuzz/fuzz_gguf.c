/* fuzz_gguf.c: any bytes as a model file: opened or refused, never a crash; what is accepted can be read
 * through. What follows a second "GGUF" is the second of two parts, and so on. */
#include "helpers/memory_file.h"
#include "model/gguf_raw.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { MAX_PARTS = 4 };

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

/* Opens the model at path in both ways. */
static void open_model(const char *path)
{
    struct gguf *gguf;
    runnel_error error = {0};
    uint64_t sum = 0;
    uint32_t number, count;
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
        if (!gguf_get_split(gguf, &number, &count, &error))
            check(number >= 1 && number <= count);
        gguf_close(gguf);
    }
    read_sum = sum;
}

/* Parts need names: links in a folder, to files in memory that are used again and again. */
static char folder[] = "/tmp/runnel-fuzz-XXXXXX";
static int part_fds[MAX_PARTS];
static bool has_folder;

static void part_path(char *path, size_t size, unsigned number, unsigned count)
{
    snprintf(path, size, "%s/m-%05u-of-%05u.gguf", folder, number, count);
}

static void remove_folder(void)
{
    char path[128];
    for (unsigned count = 2; count <= MAX_PARTS; count++)
        for (unsigned number = 1; number <= count; number++) {
            part_path(path, sizeof path, number, count);
            unlink(path);
        }
    rmdir(folder);
}

static void make_folder(void)
{
    char path[128], memory_path[MAX_PARTS][MEMORY_FILE_PATH];
    check(mkdtemp(folder) != NULL);
    has_folder = true;
    atexit(remove_folder);
    for (unsigned i = 0; i < MAX_PARTS; i++) {
        part_fds[i] = memory_file_create("", 0, memory_path[i]);
        check(part_fds[i] >= 0);
    }
    for (unsigned count = 2; count <= MAX_PARTS; count++)
        for (unsigned number = 1; number <= count; number++) {
            part_path(path, sizeof path, number, count);
            check(!symlink(memory_path[number - 1], path));
        }
}

static void write_part(const uint8_t *data, size_t size, unsigned i)
{
    check(!ftruncate(part_fds[i], 0) && pwrite(part_fds[i], data, size, 0) == (ssize_t)size);
}

/* Where the parts of the input begin; the first one at 0. */
static unsigned find_parts(const uint8_t *data, size_t size, size_t begins[MAX_PARTS + 1])
{
    unsigned n = 1;
    begins[0] = 0;
    for (size_t i = 1; i + 4 <= size && n < MAX_PARTS; i++)
        if (!memcmp(data + i, "GGUF", 4))
            begins[n++] = i;
    begins[n] = size;
    return n;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    size_t begins[MAX_PARTS + 1];
    unsigned n = find_parts(data, size, begins);
    char path[128];
    if (n == 1) {
        char memory_path[MEMORY_FILE_PATH];
        int fd = memory_file_create(data, size, memory_path);
        check(fd >= 0);
        open_model(memory_path);
        close(fd);
        return 0;
    }
    if (!has_folder)
        make_folder();
    for (unsigned i = 0; i < n; i++)
        write_part(data + begins[i], begins[i + 1] - begins[i], i);
    part_path(path, sizeof path, 1, n);
    open_model(path);
    return 0;
}
