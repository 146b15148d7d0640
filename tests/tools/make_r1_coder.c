/* make_r1_coder.c: writes a model with R1's tokenizer and chat template over the weights of Qwen2.5-Coder.
 *
 *     make_r1_coder R1_HEADER CODER_GGUF OUT_GGUF
 *
 * R1_HEADER is the beginning of an R1-Distill-Qwen file, at least up to the end of its keys; CODER_GGUF a
 * whole model of the same family. The tokenizer's keys come from the first, all else from the second; R1's
 * vocabulary, which ends in unused tokens, is cut to the rows of the Coder's embedding. Nobody should expect
 * sense of what the result says: it is for testing the path of a model that cannot be had everywhere. */
#include "model/gguf_raw.h"
#include "model/gguf_write.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool begins_with(const char *text, const char *prefix)
{
    return !strncmp(text, prefix, strlen(prefix));
}

static int compare_strings(const void *a, const void *b)
{
    const struct gguf_string *left = a, *right = b;
    size_t n = left->len < right->len ? left->len : right->len;
    int order = memcmp(left->bytes, right->bytes, n);
    return order ? order : (left->len > right->len) - (left->len < right->len);
}

/* Both parts of every merge, and what they join to, must be among the tokens that are left. */
static int check_merges(const struct gguf_array *merges, const struct gguf_string *tokens, size_t n_tokens,
                        runnel_error *error)
{
    struct gguf_string *sorted = malloc(n_tokens * sizeof *sorted);
    char *joined = NULL;
    int code = RUNNEL_OK;
    if (!sorted)
        return error_set(error, RUNNEL_ENOMEM, "no memory for %zu tokens", n_tokens);
    memcpy(sorted, tokens, n_tokens * sizeof *sorted);
    qsort(sorted, n_tokens, sizeof *sorted, compare_strings);
    for (size_t i = 0; i < merges->n && !code; i++) {
        struct gguf_string merge = ((const struct gguf_string *)merges->values)[i];
        const char *space = memchr(merge.bytes, ' ', merge.len);
        if (!space) {
            code = error_set(error, RUNNEL_EFORMAT, "merge %zu: expected two parts, found one", i);
            break;
        }
        size_t left_len = (size_t)(space - merge.bytes), right_len = merge.len - left_len - 1;
        free(joined);
        joined = malloc(merge.len);
        if (!joined) {
            code = error_set(error, RUNNEL_ENOMEM, "no memory for a merge");
            break;
        }
        memcpy(joined, merge.bytes, left_len);
        memcpy(joined + left_len, space + 1, right_len);
        struct gguf_string parts[3] = {
            {merge.bytes, left_len}, {space + 1, right_len}, {joined, merge.len - 1}};
        for (int p = 0; p < 3 && !code; p++)
            if (!bsearch(&parts[p], sorted, n_tokens, sizeof *sorted, compare_strings))
                code =
                    error_set(error, RUNNEL_EFORMAT, "merge %zu: \"%.*s\" is not among the first %zu tokens",
                              i, (int)parts[p].len, parts[p].bytes, n_tokens);
    }
    free(joined);
    free(sorted);
    return code;
}

/* The tokenizer's keys of R1's file, lists cut to n_rows. */
static int add_tokenizer(struct gguf_writer *writer, const struct gguf *r1, size_t n_rows,
                         runnel_error *error)
{
    struct gguf_array tokens, types, merges;
    int code = gguf_get_array(r1, "tokenizer.ggml.tokens", GGUF_STRING, &tokens, error);
    if (!code)
        code = gguf_get_array(r1, "tokenizer.ggml.token_type", GGUF_I32, &types, error);
    if (!code)
        code = gguf_get_array(r1, "tokenizer.ggml.merges", GGUF_STRING, &merges, error);
    if (code)
        return code;
    if (tokens.n < n_rows || types.n != tokens.n)
        return error_set(error, RUNNEL_EFORMAT,
                         "expected at least %zu tokens and as many types, found %zu and %zu", n_rows,
                         tokens.n, types.n);
    code = check_merges(&merges, tokens.values, n_rows, error);
    for (size_t i = 0; i < gguf_n_keys(r1) && !code; i++) {
        const char *key = gguf_key_name(r1, i);
        if (!begins_with(key, "tokenizer."))
            continue;
        uint32_t id;
        size_t len = strlen(key);
        if (len > 9 && !strcmp(key + len - 9, "_token_id")) {
            code = gguf_get_u32(r1, key, &id, error);
            if (!code && id >= n_rows)
                code = error_set(error, RUNNEL_EFORMAT, "%s: expected less than %zu, found %" PRIu32, key,
                                 n_rows, id);
        }
        if (!strcmp(key, "tokenizer.ggml.tokens"))
            gguf_writer_add_array(writer, key, GGUF_STRING, n_rows, tokens.values);
        else if (!strcmp(key, "tokenizer.ggml.token_type"))
            gguf_writer_add_array(writer, key, GGUF_I32, n_rows, types.values);
        else
            gguf_writer_add_copy(writer, r1, i);
    }
    return code;
}

struct tensor_source {
    const struct gguf *gguf;
    const struct gguf_tensor *tensor;
};

static int read_tensor(void *arg, uint64_t offset, void *buffer, size_t n, runnel_error *error)
{
    const struct tensor_source *source = arg;
    return gguf_read(source->gguf, source->tensor->offset + offset, buffer, n, error);
}

static int make(const char *r1_path, const char *coder_path, const char *out_path, runnel_error *error)
{
    struct gguf *r1 = NULL, *coder = NULL;
    struct tensor_source *sources = NULL;
    struct gguf_writer *writer = gguf_writer_create();
    int code =
        writer ? gguf_open_keys_only(r1_path, &r1, error) : error_set(error, RUNNEL_ENOMEM, "no memory");
    if (!code)
        code = gguf_open(coder_path, &coder, error);
    if (code)
        goto done;
    const struct gguf_tensor *embedding = gguf_find_tensor(coder, "token_embd.weight");
    sources = calloc(gguf_n_tensors(coder) + 1, sizeof *sources);
    if (!embedding || !sources) {
        code = error_set(error, RUNNEL_EFORMAT, "%s: expected a tensor \"token_embd.weight\" (and memory)",
                         coder_path);
        goto done;
    }
    for (size_t i = 0; i < gguf_n_keys(coder); i++) {
        const char *key = gguf_key_name(coder, i);
        if (!strcmp(key, "general.name"))
            gguf_writer_add_string(writer, key,
                                   "R1 tokenizer and template over Qwen2.5 Coder weights (for tests)");
        else if (!begins_with(key, "tokenizer."))
            gguf_writer_add_copy(writer, coder, i);
    }
    code = add_tokenizer(writer, r1, (size_t)embedding->dims[1], error);
    if (code)
        goto done;
    for (size_t i = 0; i < gguf_n_tensors(coder); i++) {
        const struct gguf_tensor *tensor = gguf_tensor_at(coder, i);
        sources[i] = (struct tensor_source){coder, tensor};
        gguf_writer_add_tensor(writer, tensor->name, tensor->type, tensor->n_dims, tensor->dims, read_tensor,
                               &sources[i]);
    }
    code = gguf_writer_save(writer, out_path, error);
done:
    gguf_writer_free(writer);
    gguf_close(r1);
    gguf_close(coder);
    free(sources);
    return code;
}

int main(int argc, char **argv)
{
    runnel_error error;
    if (argc != 4) {
        fprintf(stderr, "usage: make_r1_coder R1_HEADER CODER_GGUF OUT_GGUF\n");
        return 2;
    }
    if (make(argv[1], argv[2], argv[3], &error)) {
        fprintf(stderr, "make_r1_coder: %s\n", error.message);
        return 1;
    }
    return 0;
}
