/* json_read.c: strict JSON and its fields. Owns nothing; any thread. */
#include "server/core/json_read.h"

#include "base/json_numbers.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int refuse(struct refusal *refusal, const char *param, const char *format, ...)
{
    size_t at = 0;
    refusal->status = 400;
    refusal->n_context = 0;
    refusal->n_prompt_tokens = 0;
    snprintf(refusal->param, sizeof refusal->param, "%s", param ? param : "");
    if (param && *param)
        at = (size_t)snprintf(refusal->message, sizeof refusal->message, "%.63s: ", param);
    va_list args;
    va_start(args, format);
    vsnprintf(refusal->message + at, sizeof refusal->message - at, format, args);
    va_end(args);
    return -1;
}

/* The parser recurses: so levels are counted before it is called. Broken JSON may be counted wrongly, and is refused
 * by the parser then; brackets in strings do not count. */
static bool is_too_deep(const char *bytes, size_t len)
{
    unsigned depth = 0;
    bool in_string = false;
    for (size_t i = 0; i < len; i++) {
        char c = bytes[i];
        if (in_string) {
            if (c == '\\')
                i++;
            else if (c == '"')
                in_string = false;
        } else if (c == '"') {
            in_string = true;
        } else if (c == '[' || c == '{') {
            if (++depth > JSON_MAX_DEPTH)
                return true;
        } else if ((c == ']' || c == '}') && depth) {
            depth--;
        }
    }
    return false;
}

static int refuse_without_memory(struct refusal *refusal)
{
    refuse(refusal, NULL, "no memory for the request");
    refusal->status = 503;
    return -1;
}

/* The parser has no code of its own for this. */
static bool is_lone_surrogate(const json_error_t *error)
{
    static const char start[] = "invalid Unicode";
    return !strncmp(error->text, start, strlen(start));
}

static int refuse_json(const json_error_t *error, struct refusal *refusal)
{
    if (is_lone_surrogate(error))
        return refuse(refusal, NULL, "the body has a lone surrogate, half of a \\u pair, at byte %d",
                      error->position);
    switch (json_error_code(error)) {
    case json_error_out_of_memory:
        return refuse_without_memory(refusal);
    case json_error_duplicate_key:
        return refuse(refusal, NULL, "the body has a key twice in one object, at byte %d", error->position);
    case json_error_invalid_utf8:
        return refuse(refusal, NULL, "the body is not valid UTF-8, at byte %d", error->position);
    case json_error_numeric_overflow:
        return refuse(refusal, NULL, "the body has a number out of range, at byte %d", error->position);
    case json_error_null_character:
    case json_error_null_byte_in_key:
        return refuse(refusal, NULL, "the body has a zero byte in a key, at byte %d", error->position);
    case json_error_premature_end_of_input:
        return refuse(refusal, NULL, "the body is not valid JSON: it ends early");
    case json_error_end_of_input_expected:
        return refuse(refusal, NULL, "the body has more after its JSON, at byte %d", error->position);
    default:
        return refuse(refusal, NULL, "the body is not valid JSON, at byte %d", error->position);
    }
}

int json_read(const char *bytes, size_t len, json_t **root, struct refusal *refusal)
{
    const size_t flags = JSON_REJECT_DUPLICATES | JSON_DECODE_ANY | JSON_ALLOW_NUL;
    json_error_t error = {0};
    if (!len)
        return refuse(refusal, NULL, "the body is empty, JSON expected");
    if (is_too_deep(bytes, len))
        return refuse(refusal, NULL, "the body has more than %d levels of brackets", JSON_MAX_DEPTH);
    json_t *value = json_loadb(bytes, len, flags, &error);
    if (!value && json_error_code(&error) == json_error_numeric_overflow) {
        size_t n_spelt;
        char *spelt = json_numbers_spell(bytes, len, false, &n_spelt);
        if (!spelt)
            return refuse_without_memory(refusal);
        value = json_loadb(spelt, n_spelt, flags, &error);
        free(spelt);
    }
    if (!value)
        return refuse_json(&error, refusal);
    *root = value;
    return 0;
}

json_t *json_find(const json_t *object, const char *name)
{
    json_t *value = json_object_get(object, name);
    return json_is_null(value) ? NULL : value;
}

bool json_is_text(const json_t *value, const char *text)
{
    return json_is_string(value) && json_string_length(value) == strlen(text) &&
           !strcmp(json_string_value(value), text);
}

int json_read_bool(const json_t *object, const char *name, bool *out, struct refusal *refusal)
{
    const json_t *value = json_find(object, name);
    if (!value)
        return 0;
    if (!json_is_boolean(value))
        return refuse(refusal, name, "expected true or false");
    *out = json_is_true(value);
    return 0;
}

int json_read_float(const json_t *object, const char *name, double least, double most, float *out,
                    struct refusal *refusal)
{
    const json_t *value = json_find(object, name);
    if (!value)
        return 0;
    double number = json_number_value(value);
    if (!json_is_number(value) || !(number >= least && number <= most))
        return refuse(refusal, name, "expected a number from %g to %g", least, most);
    *out = (float)number;
    return 0;
}

int json_read_int(const json_t *object, const char *name, int64_t least, int64_t most, bool clamp,
                  int64_t *out, struct refusal *refusal)
{
    const json_t *value = json_find(object, name);
    if (!value)
        return 0;
    double real = json_number_value(value); /* exact enough for bounds; integers are read as such below */
    bool whole = json_is_integer(value) || (json_is_real(value) && real == floor(real));
    bool large = whole && (json_is_integer(value) ? json_integer_value(value) > most : real > (double)most);
    bool small = whole && (json_is_integer(value) ? json_integer_value(value) < least : real < (double)least);
    if (!whole || small || (large && !clamp)) {
        if (clamp)
            return refuse(refusal, name, "expected a whole number from %lld", (long long)least);
        return refuse(refusal, name, "expected a whole number from %lld to %lld", (long long)least,
                      (long long)most);
    }
    if (large || (json_is_real(value) && real >= 0x1p63))
        *out = most;
    else
        *out = json_is_integer(value) ? json_integer_value(value) : (int64_t)real;
    return 0;
}
