/* architectures.c: the table of architectures. Owns nothing; any thread. */
#include "model/architectures.h"

#include <stdio.h>
#include <string.h>

static const struct architecture architectures[] = {
    {.name = "qwen2", .traits = TRAIT_QKV_BIASES},
    {.name = "llama", .traits = TRAIT_INTERLEAVED_ROPE | TRAIT_QKV_BIASES | TRAIT_ROPE_FACTORS},
    {.name = "qwen3", .traits = TRAIT_HEAD_NORMS},
    {.name = "gemma3",
     .traits = TRAIT_HEAD_NORMS | TRAIT_OUTPUT_NORMS | TRAIT_GELU | TRAIT_SCALED_EMBEDDING,
     .window_period = 6,
     .n_layers_scaled_by_width = 62},
};

enum { N_ARCHITECTURES = sizeof architectures / sizeof *architectures };

const struct architecture *architecture_find(const char *name, size_t len)
{
    for (size_t i = 0; i < N_ARCHITECTURES; i++)
        if (strlen(architectures[i].name) == len && !memcmp(architectures[i].name, name, len))
            return &architectures[i];
    return NULL;
}

/* All names for a message, as in "qwen2 or llama". */
static void write_names(char *text, size_t size)
{
    size_t used = 0;
    for (size_t i = 0; i < N_ARCHITECTURES && used < size; i++) {
        const char *separator = i == 0 ? "" : i + 1 < N_ARCHITECTURES ? ", " : " or ";
        used += (size_t)snprintf(text + used, size - used, "%s%s", separator, architectures[i].name);
    }
}

int architecture_unknown(const char *name, size_t len, runnel_error *error)
{
    char known[256];
    write_names(known, sizeof known);
    return error_set(error, RUNNEL_EUNSUPPORTED,
                     "key general.architecture: \"%.*s\" is not known, expected %s", len > 40 ? 40 : (int)len,
                     name, known);
}
