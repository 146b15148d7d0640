/* schema_reference.c: where a "$ref" leads: by a pointer from the root, or by a name. See schema_reference.h. */
#include "constrain/schema_reference.h"

#include <string.h>

static int hex_digit(char c)
{
    return c >= '0' && c <= '9'                     ? c - '0'
           : (c | 0x20) >= 'a' && (c | 0x20) <= 'f' ? (c | 0x20) - 'a' + 10
                                                    : -1;
}

/* One part of a pointer, up to the next '/': decoded into part; returns where it ends. NULL: it is longer than any name. */
static const char *take_part(const char *pointer, char *part, size_t size, size_t *len)
{
    size_t n = 0;
    while (*pointer && *pointer != '/') {
        char c = *pointer++;
        if (c == '%' && hex_digit(pointer[0]) >= 0 && hex_digit(pointer[1]) >= 0) {
            c = (char)(hex_digit(pointer[0]) * 16 + hex_digit(pointer[1]));
            pointer += 2;
        }
        if (c == '~' && (*pointer == '0' || *pointer == '1'))
            c = *pointer++ == '0' ? '~' : '/';
        if (n == size)
            return NULL;
        part[n++] = c;
    }
    *len = n;
    return pointer;
}

/* The item whose number these digits are. */
static const struct json *item_of(const struct json *json, const char *digits, size_t n)
{
    uint64_t index = 0;
    if (!n || n > 9 || (n > 1 && digits[0] == '0'))
        return NULL;
    for (size_t i = 0; i < n; i++) {
        if (digits[i] < '0' || digits[i] > '9')
            return NULL;
        index = index * 10 + (uint64_t)(digits[i] - '0');
    }
    return index < json->n ? &json->items[index] : NULL;
}

static const struct json *follow_pointer(struct schema *schema, const struct json *json, const char *pointer)
{
    char part[512];
    size_t n;
    while (json && *pointer == '/' && schema_work(schema, json->n)) {
        pointer = take_part(pointer + 1, part, sizeof part, &n);
        if (!pointer)
            return NULL;
        json = json->kind == JSON_ARRAY ? item_of(json, part, n) : json_tree_member_n(json, part, n);
    }
    return *pointer ? NULL : json;
}

/* What a value in a schema is: data, whatever it looks like; a schema, or a list of schemas; an object whose members are. */
enum place {
    PLACE_DATA,
    PLACE_SCHEMA,
    PLACE_SCHEMAS,
};

static enum place place_of_member(const char *keyword)
{
    static const char *const schemas[] = {
        "properties", "patternProperties", "dependencies", "dependentSchemas", "$defs", "definitions"};
    static const char *const one[] = {"items",
                                      "additionalItems",
                                      "prefixItems",
                                      "contains",
                                      "additionalProperties",
                                      "propertyNames",
                                      "allOf",
                                      "anyOf",
                                      "oneOf",
                                      "not",
                                      "if",
                                      "then",
                                      "else",
                                      "unevaluatedItems",
                                      "unevaluatedProperties"};
    for (size_t i = 0; i < sizeof schemas / sizeof *schemas; i++)
        if (!strcmp(keyword, schemas[i]))
            return PLACE_SCHEMAS;
    for (size_t i = 0; i < sizeof one / sizeof *one; i++)
        if (!strcmp(keyword, one[i]))
            return PLACE_SCHEMA;
    return PLACE_DATA;
}

static enum place place_of_item(enum place place, const struct json *json, const struct json *item)
{
    return place == PLACE_SCHEMA && json->kind == JSON_OBJECT ? place_of_member(item->name) : PLACE_SCHEMA;
}

/* "$id", or what it was called before. */
static const struct json *find_id(const struct json *json, bool is_old)
{
    const struct json *id = json_tree_member(json, "$id");
    return id || !is_old ? id : json_tree_member(json, "id");
}

/* The schema with this name: "$anchor": "name", or "$id": "#name" or "name". */
static const struct json *find_named(struct schema *schema, const struct json *json, enum place place,
                                     const char *name)
{
    if (place == PLACE_DATA || !schema_work(schema, json->n + 1))
        return NULL;
    const struct json *anchor = json_tree_member(json, "$anchor"), *id = find_id(json, true);
    if (place == PLACE_SCHEMA && ((*name == '#' && json_tree_is(anchor, name + 1)) || json_tree_is(id, name)))
        return json;
    for (uint32_t i = 0; i < json->n; i++) {
        const struct json *item = &json->items[i],
                          *found = find_named(schema, item, place_of_item(place, json, item), name);
        if (found)
            return found;
    }
    return NULL;
}

bool schema_is_of_draft(struct schema *schema, const char *draft)
{
    const struct json *said =
        schema_work(schema, schema->root->n) ? json_tree_member(schema->root, "$schema") : NULL;
    return said && said->kind == JSON_STRING && strstr(said->text, draft);
}

/* A schema with an "$id" that is no "#name": references in it are read from there, not from the root. */
static bool is_own_root(const struct json *json, bool is_old)
{
    const struct json *id = find_id(json, is_old);
    return id && id->kind == JSON_STRING && id->text[0] && id->text[0] != '#';
}

static bool has_own_root(struct schema *schema, const struct json *json, bool is_old)
{
    bool has_one = false;
    for (uint32_t i = 0; schema_work(schema, 1) && i < json->n && !has_one; i++)
        has_one = is_own_root(&json->items[i], is_old) || has_own_root(schema, &json->items[i], is_old);
    return has_one;
}

/* Whether a value stands below a schema within this one that is a root of its own. below: this one does. */
static bool is_below_own_root(struct schema *schema, const struct json *json, const struct json *value,
                              bool is_old, bool below)
{
    bool is_below = false;
    if (json->n && value >= json->items && value < json->items + json->n)
        return below;
    for (uint32_t i = 0; schema_work(schema, 1) && i < json->n && !is_below; i++)
        is_below = is_below_own_root(schema, &json->items[i], value, is_old,
                                     below || is_own_root(&json->items[i], is_old));
    return is_below;
}

static bool is_read_elsewhere(struct schema *schema, const struct json *value)
{
    bool is_old = schema_is_of_draft(schema, "draft-03") || schema_is_of_draft(schema, "draft-04");
    if (!schema->own_roots)
        schema->own_roots = has_own_root(schema, schema->root, is_old) ? OWN_ROOTS_SOME : OWN_ROOTS_NONE;
    return schema->own_roots == OWN_ROOTS_SOME &&
           is_below_own_root(schema, schema->root, value, is_old, false);
}

const struct json *schema_reference(struct schema *schema, const struct json *value)
{
    const struct json *id = find_id(schema->root, true), *found = NULL;
    bool is_text = value->kind == JSON_STRING && strlen(value->text) == value->len;
    const char *reference = is_text ? value->text : "";
    if (id && id->kind == JSON_STRING && id->len && !strncmp(reference, id->text, id->len) &&
        (id->text[id->len - 1] == '#' || reference[id->len] == '#'))
        reference += id->text[id->len - 1] == '#' ? id->len - 1 : id->len;
    if (reference[0] == '#' && is_read_elsewhere(schema, value)) {
        schema_fail(schema, RUNNEL_EUNSUPPORTED,
                    "$ref: '%.100s' within a schema with an '$id' is not supported", reference);
        return NULL;
    }
    if (reference[0] == '#' && (!reference[1] || reference[1] == '/'))
        found = follow_pointer(schema, schema->root, reference + 1);
    else if (reference[0])
        found = find_named(schema, schema->root, PLACE_SCHEMA, reference);
    if (!found)
        schema_fail(schema, RUNNEL_EUNSUPPORTED, "$ref: '%.100s' is not in this schema", reference);
    return found;
}
