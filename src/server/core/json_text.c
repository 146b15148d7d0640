/* json_text.c: see json_text.h. */
#include "server/core/json_text.h"

#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

/* In the fewest digits that are this number: 0.1, not 0.10000000000000001. */
static void add_real(double number, struct text *out)
{
    char digits[40];
    for (int precision = 15; precision <= 17; precision++) {
        snprintf(digits, sizeof digits, "%.*g", precision, number);
        if (strtod(digits, NULL) == number)
            break;
    }
    text_add_string(out, digits);
}

static void add_plain(const json_t *json, struct text *out)
{
    char *made = json_dumps(json, JSON_ENCODE_ANY | JSON_COMPACT);
    out->failed = out->failed || !made;
    if (made)
        text_add_string(out, made);
    free(made);
}

static void add_name(const char *name, struct text *out)
{
    json_t *string = json_string(name);
    add_plain(string, out);
    json_decref(string);
}

static void add_object(const json_t *json, enum json_spacing spacing, struct text *out)
{
    const char *name, *before = "{";
    json_t *value;
    json_object_foreach((json_t *)(uintptr_t)json, name, value)
    {
        text_add_string(out, before);
        add_name(name, out);
        text_add_string(out, spacing == JSON_SPACED ? ": " : ":");
        json_add_text(value, spacing, out);
        before = spacing == JSON_SPACED ? ", " : ",";
    }
    text_add_string(out, *before == '{' ? "{}" : "}");
}

static void add_array(const json_t *json, enum json_spacing spacing, struct text *out)
{
    const json_t *value;
    size_t i;
    text_add_string(out, "[");
    json_array_foreach(json, i, value)
    {
        text_add_string(out, !i ? "" : spacing == JSON_SPACED ? ", " : ",");
        json_add_text(value, spacing, out);
    }
    text_add_string(out, "]");
}

void json_add_text(const json_t *json, enum json_spacing spacing, struct text *out)
{
    if (json_is_object(json))
        add_object(json, spacing, out);
    else if (json_is_array(json))
        add_array(json, spacing, out);
    else if (json_is_real(json))
        add_real(json_real_value(json), out);
    else
        add_plain(json, out);
}

static bool is_rounded(double number)
{
    char digits[40];
    snprintf(digits, sizeof digits, "%.15g", number);
    return fabs(number) >= 9223372036854775808.0 && strtod(digits, NULL) != number;
}

bool json_has_rounded(const json_t *json)
{
    const char *name;
    json_t *value;
    size_t i;
    bool has_one = json_is_real(json) && is_rounded(json_real_value(json));
    json_object_foreach((json_t *)(uintptr_t)json, name, value)
    {
        has_one = has_one || json_has_rounded(value);
    }
    json_array_foreach(json, i, value)
    {
        has_one = has_one || json_has_rounded(value);
    }
    return has_one;
}
