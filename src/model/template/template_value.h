/* template_value.h: the values of chat templates: what Python calls None, bool, int, float, str, list, tuple, dict.
 *
 * A string is bytes, with one bit of origin for each: whether the byte is the template's own (from a literal in the
 * template, or a token of the model) or came from outside (messages, tools, arguments, or made by a function).
 * All values live in the arena they were made in; strings never change, so that parts of one share its bytes. */
#ifndef RUNNEL_MODEL_TEMPLATE_TEMPLATE_VALUE_H
#define RUNNEL_MODEL_TEMPLATE_TEMPLATE_VALUE_H

#include "model/template/template_arena.h"

#include <stdint.h>

struct string {
    const char *bytes;
    const unsigned char *origins; /* one for each byte, 1: the template's own; NULL: all are as own says */
    size_t len;
    bool own;
    bool is_markup; /* from the filter safe: + escapes what is added to it */
};

enum value_kind {
    VALUE_UNDEFINED, /* string.bytes is the name of what was asked for */
    VALUE_NONE,
    VALUE_BOOL,
    VALUE_INT,
    VALUE_FLOAT,
    VALUE_STRING,
    VALUE_LIST,
    VALUE_TUPLE,
    VALUE_SEQUENCE, /* list: what can be walked once (the result of map, select and their like) */
    VALUE_VIEW,     /* list: keys(), values(), items() of a dict */
    VALUE_DICT,
    VALUE_NAMESPACE, /* dict */
    VALUE_LOOP,
    VALUE_MACRO,
    VALUE_FUNCTION,
    VALUE_METHOD,
};

struct list;
struct dict;
struct loop;
struct macro;
struct method;
struct template_function;

struct value {
    enum value_kind kind;
    union {
        bool boolean;
        int64_t integer;
        double real;
        struct string string;
        struct list *list;
        struct dict *dict;
        struct loop *loop;
        const struct macro *macro;
        const struct method *method;
        const struct template_function *function;
    };
};

struct list {
    struct value *items;
    size_t n, cap;
    size_t n_taken; /* VALUE_SEQUENCE: how many were walked over */
};

struct dict_entry {
    struct value key, value;
};

/* In the order of insertion. */
struct dict {
    struct dict_entry *entries;
    uint32_t *index; /* a hash table of entry numbers + 1, once there are many; 0: free */
    size_t n, cap, index_cap;
};

/* A method of a value, not called yet. */
struct method {
    struct value object;
    struct string name;
};

struct string string_of(const char *bytes, size_t len, bool own);
/* A literal of this program's, as text from outside: functions make such. */
struct string string_made(const char *text);
struct string string_part(struct string string, size_t begin, size_t end);
bool string_equals(struct string string, const char *text);
bool string_same(struct string a, struct string b);
/* Whether byte i is the template's own. */
bool string_is_own(struct string string, size_t i);

struct value value_undefined(struct string name);
struct value value_none(void);
struct value value_bool(bool boolean);
struct value value_int(int64_t integer);
struct value value_float(double real);
struct value value_string(struct string string);
/* Of a list kind. NULL in .list: memory ran out. */
struct value value_list(struct template_arena *arena, enum value_kind kind);
struct value value_dict(struct template_arena *arena);

bool list_add(struct template_arena *arena, struct list *list, struct value item);
/* Sets a key (see value_is_key), also one that is there. */
bool dict_set(struct template_arena *arena, struct dict *dict, struct value key, struct value value);
bool dict_set_text(struct template_arena *arena, struct dict *dict, const char *key, struct value value);
/* NULL: not there. */
const struct value *dict_get(const struct dict *dict, struct value key);
const struct value *dict_get_text(const struct dict *dict, const char *key);

bool value_is_list(struct value value);   /* of any of the four kinds */
bool value_is_number(struct value value); /* also a bool, as in Python */
double value_number(struct value value);
bool value_is_true(struct value value);
/* What a comparison may cost: lists may hold themselves many times over, and lie within each other without end. */
struct value_budget {
    size_t n_steps; /* 0 afterwards: the comparison was given up, and its result means nothing */
    unsigned depth;
};
bool value_equals(struct value a, struct value b, struct value_budget *budget);
/* What can be the key of a dict: anything but lists, tuples and dicts. */
bool value_is_key(struct value value);
/* As Python calls the type. */
const char *value_type(struct value value);

#endif
