/* test_convert_faults.c: a small Hugging Face folder is converted while every allocation, and every read, fails in turn: an error each time,
 * nothing is lost, and no file is left. */
#include "base/text.h"
#include "faults/faults.h"
#include "model/formats/convert.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

enum { MORE_THAN_ENOUGH = 100000, PATH_BYTES = 160 };

static char folder[] = "/tmp/runnel-convert-XXXXXX";

static const char config[] =
    "{\"architectures\": [\"LlamaForCausalLM\"], \"hidden_size\": 32, \"intermediate_size\": 32, "
    "\"num_hidden_layers\": 1, "
    "\"num_attention_heads\": 2, \"vocab_size\": 8, \"tie_word_embeddings\": true, \"rope_scaling\": "
    "{\"rope_type\": \"llama3\", "
    "\"factor\": 8, \"low_freq_factor\": 1, \"high_freq_factor\": 4, \"original_max_position_embeddings\": "
    "64}, "
    "\"quantization_config\": {\"quant_method\": \"gptq\", \"bits\": 4, \"group_size\": 32}}";
static const char tokenizer[] = "{\"added_tokens\": [{\"id\": 3, \"content\": \"<|end|>\"}], "
                                "\"pre_tokenizer\": {\"type\": \"ByteLevel\", "
                                "\"add_prefix_space\": false}, \"model\": {\"type\": \"BPE\", \"vocab\": "
                                "{\"a\": 0, \"b\": 1, \"ab\": 2}, \"merges\": [\"a b\"]}}";
static const char sentencepiece[] =
    "{\"added_tokens\": [{\"id\": 3, \"content\": \"<|end|>\"}], \"model\": {\"type\": \"BPE\", "
    "\"byte_fallback\": true, \"vocab\": {\"a\": 0, \"b\": 1, \"ab\": 2}, "
    "\"merges\": [\"a b\"]}}";
static const char tokenizer_config[] = "{\"eos_token\": \"<|end|>\", \"chat_template\": \"{{ messages }}\", "
                                       "\"model_max_length\": 1000000000000000019884624838656, \"x\": NaN}";

/* All values are zero: a file of them is its header, made longer. */
struct shard {
    const char *name;
    const struct {
        const char *name, *dtype;
        unsigned n_rows, n_columns; /* n_rows 0: a vector */
    } tensors[8];
};

static const struct shard shards[] = {
    {"model-1.safetensors",
     {{"model.embed_tokens.weight", "BF16", 8, 32},
      {"model.norm.weight", "F32", 0, 32},
      {"model.layers.0.input_layernorm.weight", "F16", 0, 32},
      {"model.layers.0.self_attn.q_proj.weight", "F16", 32, 32},
      {"model.layers.0.self_attn.k_proj.weight", "F16", 32, 32},
      {"model.layers.0.self_attn.v_proj.weight", "F16", 32, 32},
      {"model.layers.0.self_attn.v_proj.bias", "F16", 0, 32}}},
    {"model-2.safetensors",
     {{"model.layers.0.self_attn.o_proj.weight", "F32", 32, 32},
      {"model.layers.0.post_attention_layernorm.weight", "F32", 0, 32},
      {"model.layers.0.mlp.gate_proj.weight", "F32", 32, 32},
      {"model.layers.0.mlp.up_proj.qweight", "I32", 4, 32},
      {"model.layers.0.mlp.up_proj.qzeros", "I32", 1, 4},
      {"model.layers.0.mlp.up_proj.scales", "F16", 1, 32},
      {"model.layers.0.mlp.up_proj.g_idx", "I32", 0, 32},
      {"model.layers.0.mlp.down_proj.weight", "F32", 32, 32}}},
};

static void path_of(const char *name, char path[PATH_BYTES])
{
    snprintf(path, PATH_BYTES, "%s/%s", folder, name);
}

static void write_file(const char *name, const char *bytes, size_t len)
{
    char path[PATH_BYTES];
    path_of(name, path);
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(bytes, 1, len, file), len);
    assert_int_equal(fclose(file), 0);
}

static void add(struct text *text, const char *format, ...)
{
    char line[256];
    va_list args;
    va_start(args, format);
    vsnprintf(line, sizeof line, format, args);
    va_end(args);
    text_add_string(text, line);
}

static void write_shard(const struct shard *shard, struct text *index)
{
    struct text header = {0};
    uint64_t end = 0;
    char path[PATH_BYTES];
    for (size_t i = 0; i < 8 && shard->tensors[i].name; i++) {
        unsigned n_rows = shard->tensors[i].n_rows, n_columns = shard->tensors[i].n_columns;
        uint64_t begin = end, value_bytes = strchr(shard->tensors[i].dtype, '3') ? 4 : 2;
        char rows[16] = "";
        end += (n_rows ? n_rows : 1) * n_columns * value_bytes;
        if (n_rows)
            snprintf(rows, sizeof rows, "%u, ", n_rows);
        add(&header, "%s\"%s\": {\"dtype\": \"%s\", \"shape\": [%s%u], ", i ? ", " : "{",
            shard->tensors[i].name, shard->tensors[i].dtype, rows, n_columns);
        add(&header, "\"data_offsets\": [%llu, %llu]}", (unsigned long long)begin, (unsigned long long)end);
        add(index, "%s\"%s\": \"%s\"", index->bytes[index->len - 1] == '{' ? "" : ", ",
            shard->tensors[i].name, shard->name);
    }
    text_add_string(&header, "}");
    uint64_t len = header.len;
    struct text file = {0};
    text_add(&file, (const char *)&len, sizeof len);
    text_add(&file, header.bytes, header.len);
    write_file(shard->name, file.bytes, file.len);
    path_of(shard->name, path);
    assert_int_equal(truncate(path, (off_t)(file.len + end)), 0);
    text_free(&file);
    text_free(&header);
}

static int make_folder(void **state)
{
    (void)state;
    struct text index = {0};
    assert_non_null(mkdtemp(folder));
    write_file("config.json", config, sizeof config - 1);
    write_file("tokenizer.json", tokenizer, sizeof tokenizer - 1);
    write_file("tokenizer_config.json", tokenizer_config, sizeof tokenizer_config - 1);
    text_add_string(&index, "{\"weight_map\": {");
    for (size_t i = 0; i < 2; i++)
        write_shard(&shards[i], &index);
    text_add_string(&index, "}}");
    write_file("model.safetensors.index.json", index.bytes, index.len);
    text_free(&index);
    return 0;
}

static int remove_folder(void **state)
{
    static const char *const names[] = {"config.json",
                                        "tokenizer.json",
                                        "tokenizer_config.json",
                                        "model-1.safetensors",
                                        "model-2.safetensors",
                                        "model.safetensors.index.json",
                                        "out.gguf"};
    (void)state;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char path[PATH_BYTES];
        path_of(names[i], path);
        unlink(path);
    }
    return rmdir(folder);
}

static bool is_there(const char *name)
{
    char path[PATH_BYTES];
    path_of(name, path);
    return access(path, F_OK) == 0;
}

/* Somebody is told, so that all that leads to a remark runs. */
static void ignore_remark(void *user, const char *line)
{
    (void)user;
    (void)line;
}

/* Converts with the calls from number n on faulty. Returns the result; *n_faults: how many there were. */
static int convert_with_fault(enum fault_kind kind, unsigned n, unsigned n_failing, unsigned *n_faults,
                              runnel_error *error)
{
    char output[PATH_BYTES];
    path_of("out.gguf", output);
    unlink(output);
    struct convert_options options = {.folder = folder,
                                      .output = output,
                                      .has_type = true,
                                      .type = TENSOR_Q8_0,
                                      .on_remark = ignore_remark};
    size_t n_pieces = faults_live_pieces();
    faults_arm(kind, n, n_failing);
    int failure = convert_folder(&options, error);
    *n_faults = faults_disarm();
    assert_int_equal(faults_live_pieces(), n_pieces);
    assert_int_equal(is_there("out.gguf"), failure == 0);
    assert_false(is_there("out.gguf.part"));
    return failure;
}

static void failing_faults(enum fault_kind kind, unsigned n_failing, int code, int or_code, unsigned at_least)
{
    runnel_error error;
    unsigned n = 0, n_faults;
    do {
        assert_true(++n < MORE_THAN_ENOUGH);
        int failure = convert_with_fault(kind, n, n_failing, &n_faults, &error);
        if (!n_faults ? failure != 0 : failure != code && failure != or_code)
            fail_msg("call %u: %d, %s", n, failure, failure ? error.message : "");
        assert_true(!failure || (*error.message && !strchr(error.message, '\n')));
    } while (n_faults);
    assert_true(n > at_least);
}

/* Those of our own: what jansson allocates does not go through the faults. It cannot be made to tell a lack of memory within a text,
 * of which it loses a character. */
static void every_allocation_fails(void **state)
{
    (void)state;
    failing_faults(FAULT_MEMORY, 1, RUNNEL_ENOMEM, RUNNEL_ENOMEM, 60);
    failing_faults(FAULT_MEMORY, 0, RUNNEL_ENOMEM, RUNNEL_ENOMEM, 60);
}

static void every_allocation_fails_of_sentencepiece(void **state)
{
    (void)state;
    write_file("tokenizer.json", sentencepiece, sizeof sentencepiece - 1);
    failing_faults(FAULT_MEMORY, 1, RUNNEL_ENOMEM, RUNNEL_ENOMEM, 60);
    failing_faults(FAULT_MEMORY, 0, RUNNEL_ENOMEM, RUNNEL_ENOMEM, 60);
    write_file("tokenizer.json", tokenizer, sizeof tokenizer - 1);
}

static void every_read_fails(void **state)
{
    (void)state;
    failing_faults(FAULT_READ_DISK, 1, RUNNEL_EIO, RUNNEL_EIO, 50);
    failing_faults(FAULT_READ_END, 1, RUNNEL_EIO, RUNNEL_EIO, 50);
}

static void reads_are_repeated(void **state)
{
    (void)state;
    failing_faults(FAULT_READ_SHORT, 0, RUNNEL_OK, RUNNEL_OK, 1);
    failing_faults(FAULT_READ_SIGNAL, 1, RUNNEL_OK, RUNNEL_OK, 50);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_allocation_fails),
        cmocka_unit_test(every_allocation_fails_of_sentencepiece),
        cmocka_unit_test(every_read_fails),
        cmocka_unit_test(reads_are_repeated),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
