/* fuzz_schema.c: arbitrary schemas, and texts that keep to them, which must be JSON. Input: see constrain_walk.h. */
#include "constrain/schema.h"
#include "helpers/constrain_walk.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* What Jansson cannot hold is no mistake: numbers that are too big. */
static void is_json(const char *schema, size_t len, const char *text, size_t text_len)
{
    json_error_t error;
    json_t *json = json_loadb(text, text_len, JSON_DECODE_ANY | JSON_ALLOW_NUL, &error);
    (void)schema;
    (void)len;
    if (!json && !strstr(error.text, "too big") && !strstr(error.text, "overflow"))
        abort();
    json_decref(json);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    constrain_walk(schema_grammar, data, size, is_json);
    return 0;
}
