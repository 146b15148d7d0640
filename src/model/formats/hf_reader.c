/* hf_reader.c: the rows of a tensor on their way from a checkpoint to a GGUF file. See hf_tensors.h. */
#include "kernels/quantize.h"
#include "model/formats/hf_tensors.h"

#include <stdlib.h>
#include <string.h>

static size_t bytes_of(enum tensor_type type, size_t n_values)
{
    const struct quant_info *info = quant_find((uint32_t)type);
    return n_values / info->block_values * info->block_bytes;
}

int hf_reader_open(struct hf_reader *out, const struct hf_tensor *tensor, runnel_error *error)
{
    struct hf_reader reader = {.tensor = tensor, .row_bytes = bytes_of(tensor->type, tensor->n_columns)};
    int code = RUNNEL_OK;
    if (tensor->int4.qweight) {
        code = int4_load(&tensor->int4, &reader.int4, error);
    } else {
        size_t stored_bytes = tensor->stored ? bytes_of(tensor->stored_type, tensor->n_columns) : 0;
        reader.stored = malloc(stored_bytes + 1);
        reader.values = malloc(tensor->n_columns * sizeof *reader.values);
        if (!reader.stored || !reader.values)
            code = error_set(error, RUNNEL_ENOMEM, "no memory for a row of %u values", tensor->n_columns);
    }
    if (code)
        hf_reader_close(&reader);
    else
        *out = reader;
    return code;
}

void hf_reader_close(struct hf_reader *reader)
{
    int4_free(&reader->int4);
    free(reader->stored);
    free(reader->values);
    *reader = (struct hf_reader){.tensor = NULL};
}

/* Rotation turns pairs of a head: (i, i + size / 2) in the checkpoint, neighbours in the file. */
static uint32_t place_in_checkpoint(const struct hf_tensor *tensor, uint32_t n, uint32_t at)
{
    if (!tensor->n_heads)
        return at;
    uint32_t size = n / tensor->n_heads, within = at % size;
    return at - within + within % 2 * (size / 2) + within / 2;
}

/* A vector's values are reordered as the rows of a matrix are. */
static int read_values(struct hf_reader *reader, uint32_t row, runnel_error *error)
{
    const struct hf_tensor *tensor = reader->tensor;
    uint32_t n = tensor->n_columns;
    if (tensor->computed) {
        memcpy(reader->values, tensor->computed, n * sizeof *reader->values);
        return RUNNEL_OK;
    }
    size_t stored_bytes = bytes_of(tensor->stored_type, n);
    uint32_t from = tensor->is_matrix ? place_in_checkpoint(tensor, tensor->n_rows, row) : row;
    int code = safetensors_read(tensor->stored->file, tensor->stored->tensor, (uint64_t)from * stored_bytes,
                                reader->stored, stored_bytes, error);
    if (code)
        return code;
    if (tensor->is_matrix || !tensor->n_heads) {
        quant_decode(tensor->stored_type, reader->stored, n, reader->values);
    } else {
        size_t value_bytes = stored_bytes / n;
        for (uint32_t i = 0; i < n; i++)
            quant_decode(tensor->stored_type,
                         reader->stored + value_bytes * place_in_checkpoint(tensor, n, i), 1,
                         &reader->values[i]);
    }
    for (uint32_t i = 0; i < n && (tensor->add != 0 || tensor->factor != 1); i++)
        reader->values[i] = (reader->values[i] + tensor->add) * tensor->factor;
    return RUNNEL_OK;
}

/* Told by what the checkpoint calls it: that is where it can be looked up. */
static int fail_misfit(const struct hf_reader *reader, uint32_t row, size_t misfit, runnel_error *error)
{
    const struct hf_tensor *tensor = reader->tensor;
    uint32_t at = (uint32_t)misfit;
    if (tensor->is_matrix)
        row = place_in_checkpoint(tensor, tensor->n_rows, row);
    else
        at = place_in_checkpoint(tensor, tensor->n_columns, at);
    int code =
        error_set(error, RUNNEL_EFORMAT, "row %u, value %u is %g, expected a finite number that %s can hold",
                  row, at, (double)reader->values[misfit], quant_find((uint32_t)tensor->type)->name);
    if (tensor->stored)
        error_prefix(error, "%s: tensor %s", tensor->stored->file->path, tensor->stored->tensor->name);
    return code;
}

int hf_reader_row(struct hf_reader *reader, uint32_t row, void *out, runnel_error *error)
{
    const struct hf_tensor *tensor = reader->tensor;
    if (tensor->int4.qweight) {
        int4_encode_row(&reader->int4, place_in_checkpoint(tensor, tensor->n_rows, row), out);
        return RUNNEL_OK;
    }
    int code = read_values(reader, row, error);
    if (code)
        return code;
    size_t misfit = quantize_find_misfit(tensor->type, reader->values, tensor->n_columns);
    if (misfit < tensor->n_columns)
        return fail_misfit(reader, row, misfit, error);
    quantize_encode(tensor->type, reader->values, tensor->n_columns, NULL, out);
    return RUNNEL_OK;
}
