/* fuzz_hf_config.c: any bytes as config.json: read or refused, never a crash; what is accepted keeps its bounds. The first byte says
 * whether the same is read as the file beside it, too, that says how weights are quantised. */
#include "kernels/ops.h"
#include "model/formats/folder_file.h"
#include "model/formats/hf_config.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(bool holds)
{
    if (!holds)
        abort();
}

static void check_config(const struct hf_config *config)
{
    check(config->architecture && config->n_layers > 0 && config->n_hidden > 0 && config->n_ffn > 0);
    check(config->n_heads > 0 && config->n_kv_heads > 0 && config->n_heads % config->n_kv_heads == 0);
    check(config->head_dim >= 2 && config->head_dim % 2 == 0 && config->head_dim <= KV_HEAD_DIM_MAX);
    check(config->n_vocab > 0 && config->n_context > 0 && config->norm_epsilon > 0);
    check(isfinite(config->rope.base) && config->rope.base > 0 && config->rope_base_local > 0);
    check(config->rope.scaling == HF_SCALING_NONE || config->rope.factor > 0);
    check(!config->quant || config->group % 32 == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    json_t *root;
    struct hf_config config;
    runnel_error error = {0};
    if (size == 0)
        return 0;
    int code = json_parse("config.json", (const char *)data + 1, size - 1, &root, &error);
    if (!code) {
        bool has_file = data[0] & 1;
        code = hf_config_read(root, has_file ? root : NULL, "quantize_config.json",
                              data[0] & 2 ? HF_QUANT_GPTQ : HF_QUANT_AWQ, &config, &error);
        json_decref(root);
        if (!code)
            check_config(&config);
    }
    if (code)
        check(code == error.code && error.message[0] && !strchr(error.message, '\n'));
    return 0;
}
