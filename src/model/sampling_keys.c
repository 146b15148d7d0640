/* sampling_keys.c: sampling values of a model's file. See sampling_keys.h. */
#include "model/sampling_keys.h"

#include <float.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

struct reading {
    const struct gguf *gguf;
    char *warning;
    size_t size;
};

/* A sampling value that no request could have is no reason to refuse a model, but would fail every request that does not
 * give its own. */
static void leave_out(const struct reading *reading, const runnel_error *error)
{
    size_t len = strlen(reading->warning);
    snprintf(reading->warning + len, reading->size - len, "%s%s", len ? "; " : "", error->message);
}

/* A key that may be absent; one that is not from least to most is left out. */
static void read_number(const struct reading *reading, const char *key, float least, float most,
                        const char *expected, float *value)
{
    float found;
    runnel_error error;
    if (!gguf_has_key(reading->gguf, key))
        return;
    if (gguf_get_f32(reading->gguf, key, &found, &error)) {
        leave_out(reading, &error);
    } else if (found >= least && found <= most) { /* which NaN is not */
        *value = found;
    } else {
        error_set(&error, RUNNEL_EFORMAT, "key %s: expected %s, found %g", key, expected, (double)found);
        leave_out(reading, &error);
    }
}

static void read_top_k(const struct reading *reading, int *value)
{
    static const char key[] = "general.sampling.top_k";
    uint32_t found;
    runnel_error error;
    if (!gguf_has_key(reading->gguf, key))
        return;
    if (gguf_get_u32(reading->gguf, key, &found, &error))
        leave_out(reading, &error);
    else
        *value = found > INT32_MAX ? INT32_MAX : (int)found;
}

void sampling_keys_read(const struct gguf *gguf, runnel_sampling *sampling, char *warning, size_t size)
{
    struct reading reading = {.gguf = gguf, .warning = warning, .size = size};
    *warning = 0;
    read_number(&reading, "general.sampling.temp", 0, 2, "a number from 0 to 2", &sampling->temperature);
    read_number(&reading, "general.sampling.top_p", FLT_TRUE_MIN, 1, "a number above 0, up to 1",
                &sampling->top_p);
    read_number(&reading, "general.sampling.min_p", 0, 1, "a number from 0 to 1", &sampling->min_p);
    read_top_k(&reading, &sampling->top_k);
}
