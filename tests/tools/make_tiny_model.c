/* make_tiny_model.c: writes a tiny random model, for tests that are not written in C.
 *
 *     make_tiny_model OUT_GGUF [KIND] [TYPE]
 *
 * KIND is one of the table below; qwen2 if it is not given. TYPE, as "Q3_K": of all matrices. */
#include "helpers/tiny_model.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static void add_temperature(struct gguf_writer *writer, void *user)
{
    (void)user;
    gguf_writer_add_f32(writer, "general.sampling.temp", INFINITY);
}

static void add_yarn(struct gguf_writer *writer, void *user)
{
    (void)user;
    gguf_writer_add_string(writer, "qwen3.rope.scaling.type", "yarn");
    gguf_writer_add_f32(writer, "qwen3.rope.scaling.factor", 4);
    gguf_writer_add_u32(writer, "qwen3.rope.scaling.original_context_length", 256);
}

/* Kinds ----------------------------------------------------------------------------------------------------- */

/* With biases, ChatML. */
static void make_qwen2(struct tiny_model_options *options)
{
    (void)options;
}

/* Tied, Q8_0. */
static void make_llama(struct tiny_model_options *options)
{
    options->architecture = "llama";
    options->pre = "smollm";
    options->tied = true;
    options->biases = false;
    tiny_model_set_types(options, TENSOR_Q8_0);
}

/* llama with a factor for each rotated pair. */
static void make_llama3(struct tiny_model_options *options)
{
    make_llama(options);
    options->rope_factors = true;
}

/* Heads of a size of their own, YaRN. */
static void make_qwen3(struct tiny_model_options *options)
{
    options->architecture = "qwen3";
    options->biases = false;
    options->head_dim = 128;
    options->add_keys = add_yarn;
}

/* A window in five layers of six, another base there. */
static void make_gemma3(struct tiny_model_options *options)
{
    options->architecture = "gemma3";
    options->biases = false;
    options->tied = true;
    options->n_layers = 7;
    options->head_dim = 128;
    options->window = 24;
    options->rope_base = 1e6f;
    options->window_rope_base = 1e4f;
}

/* qwen2 with R1's template. */
static void make_r1(struct tiny_model_options *options)
{
    options->chat = "r1";
    options->pre = "deepseek-r1-qwen";
}

/* qwen2 with a context that takes long to fill. */
static void make_long(struct tiny_model_options *options)
{
    options->n_context = 1 << 17;
}

/* r1 with a context that takes long to fill, whose logits are all about 0: by its biases a request chooses what the model draws. */
static void make_thinker(struct tiny_model_options *options)
{
    make_r1(options);
    make_long(options);
    options->epsilon = 1e6f;
}

/* qwen2 with a temperature that no request could have. */
static void make_hot(struct tiny_model_options *options)
{
    options->add_keys = add_temperature;
}

/* llama with SentencePiece's tokenizer. */
static void make_sentencepiece(struct tiny_model_options *options)
{
    make_llama(options);
    options->pre = "sentencepiece";
}

/* qwen2 without a chat template. */
static void make_bare(struct tiny_model_options *options)
{
    options->chat = NULL;
}

/* qwen2 with tokens that are pieces of answers with calls of tools: by their biases a request chooses what the model says. */
static void make_words(struct tiny_model_options *options)
{
    static const char *const words[] = {"Let me look.\n",
                                        "<tool_call>",
                                        "\n{\"name\": \"",
                                        "get_weather",
                                        "get_nothing",
                                        "\", \"arguments\": ",
                                        "{\"city\": \"",
                                        "Köln",
                                        "\", \"days\": ",
                                        "2}",
                                        "{\"town\": \"",
                                        "Bonn",
                                        "9}",
                                        "}\n</tool_call>",
                                        "\n<tool_call>\n{\"name\": \"get_time\", ",
                                        "\"arguments\": {}}\n",
                                        "</tool_call>\n",
                                        " is a tag.",
                                        "<|python_tag|>",
                                        "{\"name\": \"get_time\", \"parameters\": {}}",
                                        NULL};
    options->words = words;
    options->epsilon = 1e6f; /* so large that all logits are about 0, but for the biases */
}

/* Not tiny: the shape of R1-Distill-Qwen-1.5B in Q4_K_M, about 1.1 GB, for bench/gpu. */
static void make_target(struct tiny_model_options *options)
{
    make_r1(options);
    options->n_layers = 28;
    options->n_hidden = 1536;
    options->n_heads = 12;
    options->n_kv_heads = 2;
    options->n_ffn = 8960;
    options->n_context = 8192;
    options->n_vocab = 151936;
    options->rope_base = 1e4f;
}

static const struct kind {
    const char *name;
    void (*make)(struct tiny_model_options *options);
} kinds[] = {
    {"qwen2", make_qwen2},   {"llama", make_llama},
    {"llama3", make_llama3}, {"qwen3", make_qwen3},
    {"gemma3", make_gemma3}, {"r1", make_r1},
    {"long", make_long},     {"hot", make_hot},
    {"bare", make_bare},     {"sentencepiece", make_sentencepiece},
    {"words", make_words},   {"thinker", make_thinker},
    {"target", make_target},
};

enum { N_KINDS = sizeof kinds / sizeof *kinds };

static const struct kind *find_kind(const char *name)
{
    for (size_t i = 0; i < N_KINDS; i++)
        if (!strcmp(kinds[i].name, name))
            return &kinds[i];
    return NULL;
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
    const struct kind *kind = find_kind(argc > 2 ? argv[2] : "qwen2");
    if (argc < 2 || argc > 4 || *argv[1] == '-' || /* an option is no name for a file */
        !kind || (argc > 3 && find_type(argv[3]) < 0)) {
        fprintf(stderr, "usage: make_tiny_model OUT_GGUF [KIND] [TYPE], where KIND is one of:");
        for (size_t i = 0; i < N_KINDS; i++)
            fprintf(stderr, " %s", kinds[i].name);
        fprintf(stderr, "\n");
        return 2;
    }
    tiny_model_defaults(&options);
    kind->make(&options);
    if (argc > 3)
        tiny_model_set_types(&options, (enum tensor_type)find_type(argv[3]));
    if (tiny_model_write(&options, argv[1], &error)) {
        fprintf(stderr, "make_tiny_model: %s\n", error.message);
        return 1;
    }
    return 0;
}
