/* int4.c: weights of AWQ and GPTQ checkpoints to the blocks of Q4_0 and Q4_1. See int4.h. */
#include "model/formats/int4.h"

#include "kernels/quantize.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { BLOCK = 32 };

/* In which nibble of its int32 AWQ has output i. */
static const uint8_t awq_nibble[8] = {0, 4, 1, 5, 2, 6, 3, 7};

static uint32_t n_groups(const struct int4_tensor *tensor)
{
    return tensor->n_columns / tensor->group;
}

/* Checking ---------------------------------------------------------------------------------------------------- */

static int check_shape(const struct checkpoint_tensor *part, uint64_t n_first, uint64_t n_second,
                       runnel_error *error)
{
    const struct safetensor *tensor = part->tensor;
    if (tensor->n_dims != 2 || tensor->dims[0] != n_first || tensor->dims[1] != n_second)
        return error_set(error, RUNNEL_EFORMAT,
                         "tensor %s: shape [%" PRIu64 ", %" PRIu64 "], expected [%" PRIu64 ", %" PRIu64
                         "] of weights of 4 bits",
                         tensor->name, tensor->dims[0], tensor->dims[1], n_first, n_second);
    return RUNNEL_OK;
}

static int check_dtype(const struct checkpoint_tensor *part, enum safetensors_dtype dtype,
                       runnel_error *error)
{
    if (part->tensor->dtype != dtype)
        return error_set(error, RUNNEL_EUNSUPPORTED, "tensor %s: dtype %s is not supported, expected I32",
                         part->tensor->name, part->tensor->dtype_name);
    return RUNNEL_OK;
}

static int check_parts(const struct int4_tensor *tensor, runnel_error *error)
{
    uint32_t n_rows = tensor->n_rows, n_columns = tensor->n_columns;
    const char *name = tensor->qweight->tensor->name;
    if (n_rows % 8 || n_columns % BLOCK || n_columns % tensor->group)
        return error_set(error, RUNNEL_EUNSUPPORTED,
                         "tensor %s: %u outputs of %u inputs in groups of %u do not fit blocks of 32 inputs",
                         name, n_rows, n_columns, tensor->group);
    int code = check_dtype(tensor->qweight, DTYPE_I32, error);
    if (!code)
        code = check_dtype(tensor->qzeros, DTYPE_I32, error);
    if (!code && tensor->method == HF_QUANT_AWQ)
        code = check_shape(tensor->qweight, n_columns, n_rows / 8, error);
    else if (!code)
        code = check_shape(tensor->qweight, n_columns / 8, n_rows, error);
    if (!code)
        code = check_shape(tensor->qzeros, n_groups(tensor), n_rows / 8, error);
    if (!code)
        code = check_shape(tensor->scales, n_groups(tensor), n_rows, error);
    return code;
}

/* Columns in the order of their activations (desc_act) have groups that lie scattered: no block of 32 neighbours has one
 * scale then. */
static int check_order(const struct int4_tensor *tensor, runnel_error *error)
{
    const struct checkpoint_tensor *part = tensor->g_idx;
    if (!part)
        return RUNNEL_OK;
    if (part->tensor->dtype != DTYPE_I32 || part->tensor->n_bytes != (uint64_t)tensor->n_columns * 4)
        return error_set(error, RUNNEL_EFORMAT, "tensor %s: expected %u values of dtype I32",
                         part->tensor->name, tensor->n_columns);
    int32_t *groups = malloc(part->tensor->n_bytes);
    if (!groups)
        return error_set(error, RUNNEL_ENOMEM, "tensor %s: no memory", part->tensor->name);
    int code = safetensors_read(part->file, part->tensor, 0, groups, part->tensor->n_bytes, error);
    for (uint32_t column = 0; column < tensor->n_columns && !code; column++)
        if (groups[column] < 0 || (uint32_t)groups[column] != column / tensor->group)
            code = error_set(
                error, RUNNEL_EUNSUPPORTED,
                "tensor %s: column %u is of group %d, expected %u: columns that are ordered by activation "
                "(desc_act) are not supported",
                part->tensor->name, column, groups[column], column / tensor->group);
    free(groups);
    return code;
}

/* Reading ----------------------------------------------------------------------------------------------------- */

static int load_scales(const struct int4_tensor *tensor, float **out, runnel_error *error)
{
    const struct safetensor *part = tensor->scales->tensor;
    size_t n = (size_t)n_groups(tensor) * tensor->n_rows;
    enum tensor_type type;
    int code = checkpoint_float_type(tensor->scales, &type, error);
    if (code)
        return code;
    float *scales = malloc(n * sizeof *scales);
    void *stored = malloc(part->n_bytes);
    if (!scales || !stored)
        code = error_set(error, RUNNEL_ENOMEM, "tensor %s: no memory for %zu values", part->name, n);
    if (!code)
        code = safetensors_read(tensor->scales->file, part, 0, stored, part->n_bytes, error);
    if (!code) {
        quant_decode(type, stored, n, scales);
        size_t misfit = quantize_find_misfit(TENSOR_F16, scales, n);
        if (misfit < n)
            code = error_set(error, RUNNEL_EFORMAT,
                             "tensor %s: value %zu is %g, expected a finite number that fits 16 bits",
                             part->name, misfit, (double)scales[misfit]);
    }
    free(stored);
    if (code)
        free(scales);
    else
        *out = scales;
    return code;
}

static int load_zeros(const struct int4_tensor *tensor, uint8_t **out, runnel_error *error)
{
    const struct safetensor *part = tensor->qzeros->tensor;
    size_t n_words = part->n_bytes / 4;
    uint8_t *zeros = malloc(n_words * 8);
    uint32_t *words = malloc(part->n_bytes);
    int code = zeros && words ? safetensors_read(tensor->qzeros->file, part, 0, words, part->n_bytes, error)
                              : error_set(error, RUNNEL_ENOMEM, "tensor %s: no memory", part->name);
    for (size_t i = 0; i < n_words * 8 && !code; i++) {
        unsigned nibble = tensor->method == HF_QUANT_AWQ ? awq_nibble[i % 8] : i % 8;
        zeros[i] = (uint8_t)((words[i / 8] >> (4 * nibble) & 15) + tensor->zero_excess);
    }
    free(words);
    if (code)
        free(zeros);
    else
        *out = zeros;
    return code;
}

/* m = -zero scale must fit, too. */
static int check_minima(const struct int4_tensor *tensor, const float *scales, const uint8_t *zeros,
                        runnel_error *error)
{
    for (size_t i = 0; i < (size_t)n_groups(tensor) * tensor->n_rows; i++) {
        float minimum = -(float)zeros[i] * scales[i];
        if (quantize_find_misfit(TENSOR_F16, &minimum, 1) == 0)
            return error_set(error, RUNNEL_EFORMAT,
                             "tensor %s: value %zu is %g: times the zero, %u, it does not fit 16 bits",
                             tensor->scales->tensor->name, i, (double)scales[i], zeros[i]);
    }
    return RUNNEL_OK;
}

static int choose_type(struct int4_tensor *tensor, runnel_error *error)
{
    float *scales = NULL;
    uint8_t *zeros = NULL;
    int code = load_scales(tensor, &scales, error);
    if (!code)
        code = load_zeros(tensor, &zeros, error);
    tensor->type = TENSOR_Q4_0;
    for (size_t i = 0; !code && i < (size_t)n_groups(tensor) * tensor->n_rows; i++)
        if (zeros[i] != 8)
            tensor->type = TENSOR_Q4_1;
    if (!code && tensor->type == TENSOR_Q4_1)
        code = check_minima(tensor, scales, zeros, error);
    free(scales);
    free(zeros);
    return code;
}

static struct checkpoint_tensor *take(const struct checkpoint *checkpoint, const char *base, const char *part)
{
    char name[320];
    snprintf(name, sizeof name, "%s.%s", base, part);
    struct checkpoint_tensor *tensor = checkpoint_find(checkpoint, name);
    if (tensor)
        tensor->is_taken = true;
    return tensor;
}

int int4_find(const struct checkpoint *checkpoint, const struct hf_config *config, const char *base,
              uint32_t n_rows, uint32_t n_columns, struct int4_tensor *out, bool *is_there,
              runnel_error *error)
{
    struct int4_tensor tensor = {.method = config->quant,
                                 .zero_excess = config->zero_excess,
                                 .n_rows = n_rows,
                                 .n_columns = n_columns,
                                 .group = config->group ? config->group : n_columns};
    tensor.qweight = take(checkpoint, base, "qweight");
    *is_there = tensor.qweight != NULL;
    if (!tensor.qweight)
        return RUNNEL_OK;
    if (!config->quant)
        return error_set(error, RUNNEL_EFORMAT,
                         "tensor %s.qweight: config.json has no quantization_config that says what it is",
                         base);
    tensor.qzeros = take(checkpoint, base, "qzeros");
    tensor.scales = take(checkpoint, base, "scales");
    if (!tensor.qzeros || !tensor.scales)
        return error_set(error, RUNNEL_EFORMAT, "tensor %s.%s: not there, beside %s.qweight", base,
                         tensor.qzeros ? "scales" : "qzeros", base);
    if (config->quant == HF_QUANT_GPTQ)
        tensor.g_idx = take(checkpoint, base, "g_idx");
    int code = check_parts(&tensor, error);
    if (!code)
        code = check_order(&tensor, error);
    if (!code)
        code = choose_type(&tensor, error);
    if (!code)
        *out = tensor;
    return code;
}

int int4_load(const struct int4_tensor *tensor, struct int4_values *out, runnel_error *error)
{
    const struct safetensor *part = tensor->qweight->tensor;
    struct int4_values values = {.tensor = *tensor};
    values.codes = malloc(part->n_bytes);
    int code = values.codes
                   ? safetensors_read(tensor->qweight->file, part, 0, values.codes, part->n_bytes, error)
                   : error_set(error, RUNNEL_ENOMEM, "tensor %s: no memory for %" PRIu64 " bytes", part->name,
                               part->n_bytes);
    if (!code)
        code = load_scales(tensor, &values.scales, error);
    if (!code)
        code = load_zeros(tensor, &values.zeros, error);
    if (code)
        int4_free(&values);
    else
        *out = values;
    return code;
}

void int4_free(struct int4_values *values)
{
    free(values->codes);
    free(values->scales);
    free(values->zeros);
    *values = (struct int4_values){.codes = NULL};
}

/* Encoding ---------------------------------------------------------------------------------------------------- */

/* The q of 32 columns of a row. */
static void take_codes(const struct int4_values *values, uint32_t row, uint32_t column, uint8_t codes[BLOCK])
{
    const struct int4_tensor *tensor = &values->tensor;
    if (tensor->method == HF_QUANT_AWQ) {
        size_t stride = tensor->n_rows / 8;
        const uint32_t *word = values->codes + column * stride + row / 8;
        for (int i = 0; i < BLOCK; i++)
            codes[i] = word[i * stride] >> (4 * awq_nibble[row % 8]) & 15;
    } else {
        const uint32_t *word = values->codes + (size_t)column / 8 * tensor->n_rows + row;
        for (int i = 0; i < BLOCK; i++)
            codes[i] = word[(size_t)i / 8 * tensor->n_rows] >> (4 * (i % 8)) & 15;
    }
}

void int4_encode_row(const struct int4_values *values, uint32_t row, void *out)
{
    const struct int4_tensor *tensor = &values->tensor;
    uint8_t *to = out, codes[BLOCK];
    for (uint32_t column = 0; column < tensor->n_columns; column += BLOCK) {
        size_t at = (size_t)(column / tensor->group) * tensor->n_rows + row;
        uint16_t d = f32_to_f16(values->scales[at]);
        uint16_t m = f32_to_f16(-(float)values->zeros[at] * values->scales[at]);
        memcpy(to, &d, sizeof d);
        to += sizeof d;
        if (tensor->type == TENSOR_Q4_1) {
            memcpy(to, &m, sizeof m);
            to += sizeof m;
        }
        take_codes(values, row, column, codes);
        for (int i = 0; i < BLOCK / 2; i++)
            *to++ = (uint8_t)(codes[i] | codes[i + BLOCK / 2] << 4);
    }
}
