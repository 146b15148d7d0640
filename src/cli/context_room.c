/* context_room.c: what a context takes of this machine's memory. Owns nothing; any thread. */
#include "cli/context_room.h"

#include "base/error.h"
#include "base/limits.h"

#include <stdio.h>

const char *context_room_size(uint64_t bytes, char out[24])
{
    if (bytes >= (uint64_t)1 << 30)
        snprintf(out, 24, "%.1f GiB", (double)bytes / (1 << 30));
    else
        snprintf(out, 24, "%.*f MiB", bytes < 10 << 20 ? 1 : 0, (double)bytes / (1 << 20));
    return out;
}

bool context_room_cut(const runnel_model_info *info, uint32_t asked, char *out, size_t size)
{
    *out = 0;
    if (asked <= info->n_context_train)
        return false;
    char wanted[24], taken[24], whole[24];
    struct limits_memory memory = limits_memory();
    snprintf(out, size,
             "--ctx %u: the model was trained for %u tokens, so the context has no more; they take %s for "
             "the KV cache, "
             "%u would take %s, and this machine has %s",
             asked, info->n_context_train,
             context_room_size(info->n_context_train * info->kv_bytes_per_token, taken), asked,
             context_room_size(asked * info->kv_bytes_per_token, wanted),
             memory.limit_bytes ? context_room_size(memory.limit_bytes, whole)
                                : "memory that cannot be read");
    return true;
}

int context_room_check(const char *option, uint64_t value, uint64_t bytes, runnel_error *error)
{
    char wanted[24], whole[24], free_size[24];
    struct limits_memory memory = limits_memory();
    if (!memory.limit_bytes || bytes <= memory.limit_bytes)
        return RUNNEL_OK;
    uint64_t n_free = memory.limit_bytes > memory.used_bytes ? memory.limit_bytes - memory.used_bytes : 0;
    return error_set(error, RUNNEL_ENOMEM,
                     "%s %llu: its KV cache would take %s, found %s of memory, of which %s are free", option,
                     (unsigned long long)value, context_room_size(bytes, wanted),
                     context_room_size(memory.limit_bytes, whole), context_room_size(n_free, free_size));
}
