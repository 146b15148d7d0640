/* json_tree.h: a JSON text as a tree, members in their order and numbers as they were written: what schema.c reads.
 *
 * A tree belongs to its json_text. Nesting and size are bounded. One thread. */
#ifndef RUNNEL_CONSTRAIN_JSON_TREE_H
#define RUNNEL_CONSTRAIN_JSON_TREE_H

#include "base/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum json_kind {
    JSON_NULL,
    JSON_FALSE,
    JSON_TRUE,
    JSON_NUMBER, /* text */
    JSON_STRING, /* text, decoded */
    JSON_ARRAY,
    JSON_OBJECT,
};

struct json {
    uint8_t kind;
    const char *text; /* zero-terminated; a zero within a string is one of it */
    size_t len;
    const char *name; /* in an object */
    size_t name_len;
    struct json *items; /* [n] */
    uint32_t n;
};

struct json_block {
    struct json_block *next;
};

struct json_text {
    struct json root;
    struct json_block *blocks;
};

int json_tree_read(const char *text, size_t len, struct json_text *json, runnel_error *error);
void json_tree_free(struct json_text *json);

/* The last member of this name; NULL: there is none, or it is no object. */
const struct json *json_tree_member(const struct json *json, const char *name);
const struct json *json_tree_member_n(const struct json *json, const char *name, size_t len);
bool json_tree_is(const struct json *json, const char *string);
/* Whether it may be the same value, as JSON Schema compares: objects in any order, numbers by their value; those with an exponent, or of
 * many digits, may equal others. *looks: grows by those at values. */
bool json_tree_may_equal(const struct json *one, const struct json *other, uint64_t *looks);

#endif
