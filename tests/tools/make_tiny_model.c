/* make_tiny_model.c: writes a tiny random model, for tests that are not written in C.
 *
 *     make_tiny_model OUT_GGUF [qwen2 | llama | r1 | long | hot | sentencepiece] [TYPE]
 *
 * qwen2: with biases, ChatML; llama: tied, Q8_0; r1: qwen2 with R1's template; long: qwen2 with a context
 * that takes long to fill; hot: qwen2 with a temperature that no request could have; sentencepiece: llama with
 * SentencePiece's tokenizer. TYPE, as "Q3_K": of all matrices. */
#include "helpers/tiny_model.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static void add_temperature(struct gguf_writer *writer, void *user)
{
    (void)user;
    gguf_writer_add_f32(writer, "general.sampling.temp", INFINITY);
}

/* The type of a name, or -1. */
static int find_type(const char *name)
{
    for (int type = 0; type < 64; type++) {
        const struct quant_info *info = quant_find((uint32_t)type);
        if (info && !strcmp(info->name, name))
            return type;
    }
    return -1;
}

int main(int argc, char **argv)
{
    struct tiny_model_options options;
    runnel_error error;
    const char *kind = argc > 2 ? argv[2] : "qwen2";
    if (argc < 2 || argc > 4 || *argv[1] == '-' || /* an option is no name for a file */
        (strcmp(kind, "qwen2") && strcmp(kind, "llama") && strcmp(kind, "r1") && strcmp(kind, "long") &&
         strcmp(kind, "hot") && strcmp(kind, "sentencepiece")) ||
        (argc > 3 && find_type(argv[3]) < 0)) {
        fprintf(stderr,
                "usage: make_tiny_model OUT_GGUF [qwen2 | llama | r1 | long | hot | sentencepiece] [TYPE]\n");
        return 2;
    }
    tiny_model_defaults(&options);
    if (!strcmp(kind, "r1")) {
        options.chat = "r1";
        options.pre = "deepseek-r1-qwen";
    } else if (!strcmp(kind, "llama") || !strcmp(kind, "sentencepiece")) {
        options.architecture = "llama";
        options.pre = strcmp(kind, "llama") ? kind : "smollm";
        options.tied = true;
        options.biases = false;
        tiny_model_set_types(&options, TENSOR_Q8_0);
    } else if (!strcmp(kind, "long")) {
        options.n_context = 1 << 17;
    } else if (!strcmp(kind, "hot")) {
        options.add_keys = add_temperature;
    }
    if (argc > 3)
        tiny_model_set_types(&options, (enum tensor_type)find_type(argv[3]));
    if (tiny_model_write(&options, argv[1], &error)) {
        fprintf(stderr, "make_tiny_model: %s\n", error.message);
        return 1;
    }
    return 0;
}
