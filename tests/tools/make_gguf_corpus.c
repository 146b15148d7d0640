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

    struct gguf_writer *writer = gguf_writer_create();
    tiny_model_add_tokenizer(writer, "qwen2", "chatml", 0);
    snprintf(path, sizeof path, "%s/tokenizer", argv[1]);
    failed |= gguf_writer_save(writer, path, &error);
    gguf_writer_free(writer);
    return failed ? 1 : 0;
}
