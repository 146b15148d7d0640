/* split_model.c: see split_model.h. */
#include "split_model.h"

#include "base/error.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct source {
    const struct gguf *gguf;
    const struct gguf_tensor *tensor;
};

static int read_tensor(void *arg, uint64_t offset, void *buffer, size_t n, runnel_error *error)
{
    const struct source *source = arg;
    return gguf_read(source->gguf, source->tensor->offset + offset, buffer, n, error);
}

void split_model_defaults(struct split_model_options *options, unsigned n_parts)
{
    *options =
        (struct split_model_options){.n_parts = n_parts, .split_no = -1, .split_count = -1, .n_tensors = -1};
}

void split_model_path(const char *stem, unsigned number, unsigned n_parts, char *path, size_t size)
{
    snprintf(path, size, "%s-%05u-of-%05u.gguf", stem, number, n_parts);
}

static void add_split_keys(struct gguf_writer *writer, const struct split_model_options *options,
                           unsigned number, size_t n_tensors)
{
    bool damaged = number == options->damaged;
    uint16_t no = (uint16_t)(damaged && options->split_no >= 0 ? options->split_no : number - 1);
    uint16_t count =
        (uint16_t)(damaged && options->split_count >= 0 ? options->split_count : options->n_parts);
    int32_t all = (int32_t)(damaged && options->n_tensors >= 0 ? options->n_tensors : (int64_t)n_tensors);
    if (damaged && options->without_split)
        return;
    gguf_writer_add_scalar(writer, "split.no", GGUF_U16, &no);
    gguf_writer_add_scalar(writer, "split.count", GGUF_U16, &count);
    gguf_writer_add_i32(writer, "split.tensors.count", all);
}

static void add_tensor(struct gguf_writer *writer, struct source *source)
{
    const struct gguf_tensor *tensor = source->tensor;
    gguf_writer_add_tensor(writer, tensor->name, tensor->type, tensor->n_dims, tensor->dims, read_tensor,
                           source);
}

/* The part that tensor i of n lies in, from 1 on. */
static unsigned part_of(const struct split_model_options *options, size_t i, size_t n)
{
    unsigned first = options->keys_first ? 2 : 1, n_holding = options->n_parts - first + 1;
    return first + (unsigned)(i * n_holding / n);
}

static int write_part(const struct split_model_options *options, const struct gguf *gguf,
                      struct source *sources, const char *stem, unsigned number, runnel_error *error)
{
    char path[4096];
    bool damaged = number == options->damaged;
    size_t n = gguf_n_tensors(gguf);
    struct gguf_writer *writer = gguf_writer_create();
    if (!writer)
        return error_set(error, RUNNEL_ENOMEM, "no memory");
    for (size_t i = 0; number == 1 && i < gguf_n_keys(gguf); i++)
        gguf_writer_add_copy(writer, gguf, i);
    add_split_keys(writer, options, number, n);
    if (damaged && options->key)
        gguf_writer_add_string(writer, options->key, options->value);
    for (size_t i = 0; i < n; i++) {
        const char *name = sources[i].tensor->name;
        bool left_out = damaged && options->without && !strcmp(name, options->without);
        bool again = damaged && options->twice && !strcmp(name, options->twice);
        if (again || (part_of(options, i, n) == number && !left_out))
            add_tensor(writer, &sources[i]);
    }
    split_model_path(stem, number, options->n_parts, path, sizeof path);
    int code = gguf_writer_save(writer, path, error);
    gguf_writer_free(writer);
    return code;
}

int split_model_write(const struct split_model_options *options, const char *path, const char *stem,
                      runnel_error *error)
{
    struct gguf *gguf;
    int code = gguf_open(path, &gguf, error);
    if (code)
        return code;
    size_t n = gguf_n_tensors(gguf);
    struct source *sources = calloc(n + 1, sizeof *sources);
    if (!sources)
        code = error_set(error, RUNNEL_ENOMEM, "no memory for a list of %zu tensors", n);
    for (size_t i = 0; !code && i < n; i++)
        sources[i] = (struct source){gguf, gguf_tensor_at(gguf, i)};
    for (unsigned number = 1; !code && number <= options->n_parts; number++)
        code = write_part(options, gguf, sources, stem, number, error);
    free(sources);
    gguf_close(gguf);
    return code;
}
