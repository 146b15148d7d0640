/* fuzz_safetensors.c: any bytes as a safetensors file: opened or refused, never a crash; the values of what is accepted lie within the file
 * and can be read. */
#include "helpers/memory_file.h"
#include "model/formats/safetensors.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(bool holds)
{
    if (!holds)
        abort();
}

static void read_tensors(const struct safetensors *file)
{
    uint64_t n_bytes = 0;
    for (size_t i = 0; i < file->n; i++) {
        const struct safetensor *tensor = &file->tensors[i];
        unsigned char byte;
        check(tensor->n_dims <= SAFETENSORS_DIMS_MAX && *tensor->name && *tensor->dtype_name);
        check(tensor->offset + tensor->n_bytes <= file->file_bytes);
        if (tensor->n_bytes)
            check(!safetensors_read(file, tensor, tensor->n_bytes - 1, &byte, 1, NULL));
        n_bytes += tensor->n_bytes;
    }
    check(n_bytes <= file->file_bytes);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char path[MEMORY_FILE_PATH];
    struct safetensors *file;
    runnel_error error = {0};
    int fd = memory_file_create(data, size, path);
    check(fd >= 0);
    int code = safetensors_open(path, "model.safetensors", &file, &error);
    if (code)
        check(code == error.code && error.message[0] && !strchr(error.message, '\n'));
    else {
        read_tensors(file);
        safetensors_close(file);
    }
    close(fd);
    return 0;
}
