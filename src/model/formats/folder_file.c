/* folder_file.c: the files of a Hugging Face folder. See folder_file.h. */
#include "model/formats/folder_file.h"

#include "base/input_file.h"
#include "base/json_numbers.h"

#include <float.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Tokenizers have the most: some two million values for 262,144 tokens. Each costs up to 100 bytes of memory. */
enum { JSON_VALUES_MAX = 8000000, JSON_LEVELS_MAX = 64 };

/* Files --------------------------------------------------------------------------------------------------- */

int folder_path(const char *folder, const char *name, char path[FOLDER_PATH_MAX], runnel_error *error)
{
    int len = snprintf(path, FOLDER_PATH_MAX, "%s/%s", folder, name);
    if (len < 0 || len >= FOLDER_PATH_MAX)
        return error_set(error, RUNNEL_EINVAL, "%s: the folder's path is too long", name);
    return RUNNEL_OK;
}

bool folder_has(const char *folder, const char *name)
{
    char path[FOLDER_PATH_MAX];
    return !folder_path(folder, name, path, NULL) && access(path, F_OK) == 0;
}

int file_check_fetched(const char *begin, size_t n, runnel_error *error)
{
    if (n < FILE_POINTER_BYTES || memcmp(begin, FILE_POINTER, FILE_POINTER_BYTES) != 0)
        return RUNNEL_OK;
    return error_set(
        error, RUNNEL_EFORMAT,
        "expected the file itself, found what Git LFS puts in its place: `git lfs pull` gets it");
}

int folder_read(const char *folder, const char *name, size_t max_bytes, char **bytes, size_t *len,
                runnel_error *error)
{
    char path[FOLDER_PATH_MAX];
    int fd;
    uint64_t n_bytes;
    int code = folder_path(folder, name, path, error);
    if (code)
        return code;
    code = input_file_open(path, &fd, &n_bytes, error);
    if (code)
        return error_prefix(error, "%s", name), code;
    char *read = NULL;
    if (n_bytes > max_bytes)
        code =
            error_set(error, RUNNEL_EFORMAT, "%" PRIu64 " bytes, at most %zu expected", n_bytes, max_bytes);
    else if (!(read = malloc((size_t)n_bytes + 1)))
        code = error_set(error, RUNNEL_ENOMEM, "no memory for %" PRIu64 " bytes", n_bytes);
    else
        code = input_file_read(fd, 0, read, (size_t)n_bytes, error);
    if (!code)
        code = file_check_fetched(read, (size_t)n_bytes, error);
    close(fd);
    if (code) {
        free(read);
        return error_prefix(error, "%s", name), code;
    }
    read[n_bytes] = 0;
    *bytes = read;
    *len = (size_t)n_bytes;
    return RUNNEL_OK;
}

/* JSON ---------------------------------------------------------------------------------------------------- */

/* The parser recurses and keeps each value in memory: so levels and values are counted before it is called. Broken JSON may
 * be counted wrongly, and is refused by the parser then. */
static int check_proportions(const char *name, const char *bytes, size_t len, runnel_error *error)
{
    size_t n_values = 1, n_levels = 0;
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
            n_values++;
            if (++n_levels > JSON_LEVELS_MAX)
                return error_set(error, RUNNEL_EFORMAT, "%s: more than %d levels of brackets", name,
                                 JSON_LEVELS_MAX);
        } else if ((c == ']' || c == '}') && n_levels) {
            n_levels--;
        } else if (c == ',' && ++n_values > JSON_VALUES_MAX) {
            return error_set(error, RUNNEL_EFORMAT, "%s: more than %d values", name, JSON_VALUES_MAX);
        }
    }
    return RUNNEL_OK;
}

/* What the parser refuses of the numbers that Python writes, it takes in another spelling. NULL: *wrong says why; its position
 * is -1 where the text was spelt anew, as it would be another one's. */
static json_t *parse_spelt(const char *bytes, size_t len, size_t flags, json_error_t *wrong)
{
    size_t n;
    char *spelt = json_numbers_spell(bytes, len, true, &n);
    if (spelt && n == len && !memcmp(spelt, bytes, n)) {
        free(spelt);
        return NULL;
    }
    *wrong = (json_error_t){0};
    json_t *parsed = spelt ? json_loadb(spelt, n, flags, wrong) : NULL;
    wrong->position = -1;
    free(spelt);
    return parsed;
}

int json_parse(const char *name, const char *bytes, size_t len, json_t **root, runnel_error *error)
{
    const size_t flags = JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL;
    json_error_t wrong = {0}; /* the parser fills it in for all reasons but a lack of memory */
    char where[32] = "";
    int code = check_proportions(name, bytes, len, error);
    if (code)
        return code;
    json_t *parsed = json_loadb(bytes, len, flags, &wrong);
    enum json_error_code kind = parsed ? json_error_unknown : json_error_code(&wrong);
    if (!parsed && (kind == json_error_numeric_overflow || kind == json_error_invalid_syntax)) {
        parsed = parse_spelt(bytes, len, flags, &wrong);
        kind = parsed ? json_error_unknown : json_error_code(&wrong);
    }
    if (!parsed && (kind == json_error_out_of_memory || kind == json_error_unknown))
        return error_set(error, RUNNEL_ENOMEM, "%s: no memory for its JSON", name);
    if (wrong.position >= 0)
        snprintf(where, sizeof where, " at byte %d", wrong.position);
    if (!parsed)
        return error_set(error, RUNNEL_EFORMAT, "%s: not valid JSON%s: %s", name, where, wrong.text);
    if (!json_is_object(parsed)) {
        json_decref(parsed);
        return error_set(error, RUNNEL_EFORMAT, "%s: expected a JSON object", name);
    }
    *root = parsed;
    return RUNNEL_OK;
}

int folder_read_json(const char *folder, const char *name, size_t max_bytes, json_t **root,
                     runnel_error *error)
{
    char *bytes;
    size_t len;
    int code = folder_read(folder, name, max_bytes, &bytes, &len, error);
    if (code)
        return code;
    code = json_parse(name, bytes, len, root, error);
    free(bytes);
    return code;
}

/* Fields -------------------------------------------------------------------------------------------------- */

json_t *json_field(struct json_place place, const char *key)
{
    json_t *value = json_object_get(place.object, key);
    return json_is_null(value) ? NULL : value;
}

void json_describe(const json_t *value, char text[JSON_DESCRIBED_BYTES])
{
    static const char *const kinds[] = {
        [JSON_OBJECT] = "an object", [JSON_ARRAY] = "an array", [JSON_STRING] = "a text",
        [JSON_TRUE] = "true",        [JSON_FALSE] = "false",    [JSON_NULL] = "null",
    };
    double number = json_number_value(value);
    if (!json_is_number(value))
        snprintf(text, JSON_DESCRIBED_BYTES, "%s", kinds[json_typeof(value)]);
    else if (fabs(number) == JSON_NO_NUMBER)
        snprintf(text, JSON_DESCRIBED_BYTES, "NaN or another number that 64 bits do not hold");
    else
        snprintf(text, JSON_DESCRIBED_BYTES, "%g", number);
}

static int fail_kind(struct json_place place, const char *key, const char *expected, const json_t *value,
                     runnel_error *error)
{
    char found[JSON_DESCRIBED_BYTES];
    json_describe(value, found);
    return error_set(error, RUNNEL_EFORMAT, "%s: %s: expected %s, found %s", place.name, key, expected,
                     json_is_number(value) ? "a number" : found);
}

int json_field_u32(struct json_place place, const char *key, uint32_t least, uint32_t most, uint32_t *value,
                   runnel_error *error)
{
    const json_t *field = json_field(place, key);
    if (!field)
        return RUNNEL_OK;
    double number = json_number_value(field);
    if (!json_is_number(field))
        return fail_kind(place, key, "a whole number", field, error);
    if (!(number >= least && number <= most) || number != floor(number)) {
        char found[JSON_DESCRIBED_BYTES];
        json_describe(field, found);
        return error_set(error, RUNNEL_EFORMAT, "%s: %s: expected a whole number from %u to %u, found %s",
                         place.name, key, least, most, found);
    }
    *value = (uint32_t)number;
    return RUNNEL_OK;
}

int json_field_positive(struct json_place place, const char *key, double *value, runnel_error *error)
{
    const json_t *field = json_field(place, key);
    if (!field)
        return RUNNEL_OK;
    if (!json_is_number(field))
        return fail_kind(place, key, "a number", field, error);
    double number = json_number_value(field);
    if (!(number >= FLT_MIN && number <= 3e38)) { /* it becomes an f32, and a smaller one 0 */
        char found[JSON_DESCRIBED_BYTES];
        json_describe(field, found);
        return error_set(error, RUNNEL_EFORMAT,
                         "%s: %s: expected a number above 0 that 32 bits can hold, found %s", place.name, key,
                         found);
    }
    *value = number;
    return RUNNEL_OK;
}

int json_field_bool(struct json_place place, const char *key, bool *value, runnel_error *error)
{
    const json_t *field = json_field(place, key);
    if (!field)
        return RUNNEL_OK;
    if (!json_is_boolean(field))
        return fail_kind(place, key, "true or false", field, error);
    *value = json_is_true(field);
    return RUNNEL_OK;
}

int json_field_text(struct json_place place, const char *key, const char **value, runnel_error *error)
{
    const json_t *field = json_field(place, key);
    if (!field)
        return RUNNEL_OK;
    if (!json_is_string(field))
        return fail_kind(place, key, "a text", field, error);
    if (strlen(json_string_value(field)) != json_string_length(field))
        return error_set(error, RUNNEL_EFORMAT, "%s: %s: expected a text without zero bytes", place.name,
                         key);
    *value = json_string_value(field);
    return RUNNEL_OK;
}

int json_field_object(struct json_place place, const char *key, json_t **value, runnel_error *error)
{
    json_t *field = json_field(place, key);
    if (!field)
        return RUNNEL_OK;
    if (!json_is_object(field))
        return fail_kind(place, key, "an object", field, error);
    *value = field;
    return RUNNEL_OK;
}

int json_field_array(struct json_place place, const char *key, json_t **value, runnel_error *error)
{
    json_t *field = json_field(place, key);
    if (!field)
        return RUNNEL_OK;
    if (!json_is_array(field))
        return fail_kind(place, key, "an array", field, error);
    *value = field;
    return RUNNEL_OK;
}
