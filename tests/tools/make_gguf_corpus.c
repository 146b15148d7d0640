/* make_gguf_corpus.c: writes the first inputs of fuzz_gguf into a folder.
 *
 *     make_gguf_corpus FOLDER */
#include "helpers/gguf_bytes.h"
#include "helpers/tiny_model.h"

#include <stdio.h>

static int save_bytes(const struct gguf_bytes *file, const char *folder, const char *name)
{
    char path[4096];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *out = fopen(path, "wb");
    if (!out)
        return -1;
    size_t n = fwrite(file->bytes, 1, file->n, out);
    return fclose(out) || n != file->n ? -1 : 0;
}

/* One of the parts of a model, with a tensor of its own. */
static void put_part(struct gguf_bytes *file, uint32_t number, uint32_t count, const char *tensor)
{
    static struct gguf_bytes part;
    put_header(&part, 1, number ? 4 : 5);
    if (!number)
        put_key_string(&part, "general.name", "m");
    put_key_string(&part, "general.architecture", "m");
    put_key(&part, "split.no", GGUF_U16);
    put_bytes(&part, &(uint16_t){(uint16_t)number}, 2);
    put_key(&part, "split.count", GGUF_U16);
    put_bytes(&part, &(uint16_t){(uint16_t)count}, 2);
    put_key(&part, "split.tensors.count", GGUF_I32);
    put_u32(&part, count);
    put_tensor(&part, tensor, 4, TENSOR_F32, 0);
    put_padding(&part, 32);
    put_zeros(&part, 16);
    put_bytes(file, part.bytes, part.n);
}

int main(int argc, char **argv)
{
    static struct gguf_bytes file;
    char path[4096];
    runnel_error error;
    if (argc != 2)
        return 2;
    put_sample(&file);
    int failed = save_bytes(&file, argv[1], "sample");
    put_header(&file, 0, 0);
    failed |= save_bytes(&file, argv[1], "nothing");
    put_header(&file, 1, 1);
    put_key(&file, "list", GGUF_ARRAY);
    put_array(&file, GGUF_STRING, 2);
    put_string(&file, "a");
    put_string(&file, "bc");
    put_tensor(&file, "t", 256, TENSOR_Q4_K, 0);
    put_padding(&file, 32);
    put_zeros(&file, 144);
    failed |= save_bytes(&file, argv[1], "strings");

    file.n = 0;
    for (uint32_t number = 0; number < 3; number++)
        put_part(&file, number, 3, (const char *[]){"a", "b", "c"}[number]);
    failed |= save_bytes(&file, argv[1], "parts");
    file.n = 0;
    put_part(&file, 0, 2, "a");
    put_part(&file, 1, 2, "a");
    failed |= save_bytes(&file, argv[1], "parts-twice");

    struct gguf_writer *writer = gguf_writer_create();
    tiny_model_add_tokenizer(writer, "qwen2", "chatml", 0);
    snprintf(path, sizeof path, "%s/tokenizer", argv[1]);
    failed |= gguf_writer_save(writer, path, &error);
    gguf_writer_free(writer);
    return failed ? 1 : 0;
}
