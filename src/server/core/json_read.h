/* json_read.h: JSON that clients send, read strictly, and its fields with their types and bounds.
 *
 * What is wrong becomes a struct refusal: a status, a message of fixed words, names and numbers that never repeats the
 * client's bytes, and the field. Fields that are absent or null leave the output as it is: the caller puts the default
 * there first. Any thread. */
#ifndef RUNNEL_SERVER_CORE_JSON_READ_H
#define RUNNEL_SERVER_CORE_JSON_READ_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { JSON_MAX_DEPTH = 64 };

struct refusal {
    int status;
    char message[240];
    char param[64];     /* the field; "": none in particular */
    uint32_t n_context; /* the prompt cannot fit a context of so many tokens; 0: something else is wrong */
    size_t n_prompt_tokens; /* then; 0: nobody has counted them */
};

/* Fills the refusal: status 400, the message "PARAM: ..." if a field is named. Returns -1. */
int refuse(struct refusal *refusal, const char *param, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* A whole text: 0 and *root, to be given back with json_decref; -1 if it is no JSON, has anything after its end, keys
 * twice in one object, bytes that are no UTF-8, lone surrogates, "\u0000" in a key, numbers out of range, or levels past
 * JSON_MAX_DEPTH (counted before anything is parsed). Strings may hold zeros: models write them, too. */
int json_read(const char *bytes, size_t len, json_t **root, struct refusal *refusal);

/* A field that is there and not null, else NULL. */
json_t *json_find(const json_t *object, const char *name);

/* True for a string that is this text, zeros included. */
bool json_is_text(const json_t *value, const char *text);

/* Each returns -1 if the field has another type or is out of bounds, with *out untouched. */
int json_read_bool(const json_t *object, const char *name, bool *out, struct refusal *refusal);
int json_read_float(const json_t *object, const char *name, double least, double most, float *out,
                    struct refusal *refusal);
/* Whole numbers, also written as 1e3 or 5.0. What is past `most` is refused, or with clamp counts as `most`. */
int json_read_int(const json_t *object, const char *name, int64_t least, int64_t most, bool clamp,
                  int64_t *out, struct refusal *refusal);

#endif
