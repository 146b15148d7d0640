/* folder_file.h: the files of a Hugging Face folder: read whole within a limit, and as JSON with typed fields.
 *
 * Every message names the file by the name that was given, and a field by its key. Nothing is kept; any thread. */
#ifndef RUNNEL_MODEL_FORMATS_FOLDER_FILE_H
#define RUNNEL_MODEL_FORMATS_FOLDER_FILE_H

#include "base/error.h"

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { FOLDER_PATH_MAX = 4096 };

/* Told a line of what was left out or changed. Where one is given, NULL is nobody. */
typedef void hf_remark(void *user, const char *line);

/* FOLDER/NAME; RUNNEL_EINVAL if it is longer than a path may be. */
int folder_path(const char *folder, const char *name, char path[FOLDER_PATH_MAX], runnel_error *error);

/* Whether there is something of that name, whatever it is. */
bool folder_has(const char *folder, const char *name);

/* A clone without Git LFS has small texts in place of the files. Refuses what begins like one. */
#define FILE_POINTER "version https://git-lfs"
enum { FILE_POINTER_BYTES = sizeof FILE_POINTER - 1 };
int file_check_fetched(const char *begin, size_t n, runnel_error *error);

/* A whole file of at most max_bytes, zero-terminated; the caller frees it. */
int folder_read(const char *folder, const char *name, size_t max_bytes, char **bytes, size_t *len,
                runnel_error *error);

/* JSON: an object, without keys that are there twice; a number of values in proportion to real files. Integers past 64 bits are
 * reals; NaN, Infinity and reals past a double, which Python writes, are JSON_NO_NUMBER, which no field takes. Freed with
 * json_decref. name: how messages call it. */
int json_parse(const char *name, const char *bytes, size_t len, json_t **root, runnel_error *error);
int folder_read_json(const char *folder, const char *name, size_t max_bytes, json_t **root,
                     runnel_error *error);

/* An object of a file and what messages call it, as "config.json: rope_scaling". */
struct json_place {
    const json_t *object;
    const char *name;
};

/* What was found, for a message: a number itself, else what kind of value it is. */
enum { JSON_DESCRIBED_BYTES = 64 };
void json_describe(const json_t *value, char text[JSON_DESCRIBED_BYTES]);

/* A field that is there and not null, else NULL. */
json_t *json_field(struct json_place place, const char *key);

/* Fields. One that is absent or null leaves *value as it is; one of another type, or out of its bounds, is
 * RUNNEL_EFORMAT. Texts belong to the JSON and have no zeros in them. */
int json_field_u32(struct json_place place, const char *key, uint32_t least, uint32_t most, uint32_t *value,
                   runnel_error *error);
int json_field_positive(struct json_place place, const char *key, double *value, runnel_error *error);
int json_field_bool(struct json_place place, const char *key, bool *value, runnel_error *error);
int json_field_text(struct json_place place, const char *key, const char **value, runnel_error *error);
int json_field_object(struct json_place place, const char *key, json_t **value, runnel_error *error);
int json_field_array(struct json_place place, const char *key, json_t **value, runnel_error *error);

#endif
