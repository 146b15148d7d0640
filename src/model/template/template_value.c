/* template_value.c: see template_value.h. */
#include "model/template/template_value.h"

#include <string.h>

enum { INDEXED_FROM = 16 };

struct string string_of(const char *bytes, size_t len, bool own)
{
    return (struct string){.bytes = bytes, .len = len, .own = own};
}

struct string string_made(const char *text)
{
    return string_of(text, strlen(text), false);
}

struct string string_part(struct string string, size_t begin, size_t end)
{
    string.bytes += begin;
    string.len = end - begin;
    if (string.origins)
        string.origins += begin;
    return string;
}

bool string_equals(struct string string, const char *text)
{
    size_t len = strlen(text);
    return string.len == len && memcmp(string.bytes, text, len) == 0;
}

bool string_same(struct string a, struct string b)
{
    return a.len == b.len && (!a.len || memcmp(a.bytes, b.bytes, a.len) == 0);
}

bool string_is_own(struct string string, size_t i)
{
    return string.origins ? string.origins[i] != 0 : string.own;
}

struct value value_undefined(struct string name)
{
    return (struct value){.kind = VALUE_UNDEFINED, .string = name};
}

struct value value_none(void)
{
    return (struct value){.kind = VALUE_NONE};
}

struct value value_bool(bool boolean)
{
    return (struct value){.kind = VALUE_BOOL, .boolean = boolean};
}

struct value value_int(int64_t integer)
{
    return (struct value){.kind = VALUE_INT, .integer = integer};
}

struct value value_float(double real)
{
    return (struct value){.kind = VALUE_FLOAT, .real = real};
}

struct value value_string(struct string string)
{
    return (struct value){.kind = VALUE_STRING, .string = string};
}

struct value value_list(struct template_arena *arena, enum value_kind kind)
{
    return (struct value){.kind = kind, .list = template_arena_zeroed(arena, sizeof(struct list))};
}

struct value value_dict(struct template_arena *arena)
{
    return (struct value){.kind = VALUE_DICT, .dict = template_arena_zeroed(arena, sizeof(struct dict))};
}

bool list_add(struct template_arena *arena, struct list *list, struct value item)
{
    if (list->n == list->cap) {
        size_t cap = list->cap ? 2 * list->cap : 4;
        struct value *items =
            template_arena_grow(arena, list->items, list->cap * sizeof item, cap * sizeof item);
        if (!items)
            return false;
        list->items = items;
        list->cap = cap;
    }
    list->items[list->n++] = item;
    return true;
}

/* Equal values have equal hashes: 1, 1.0 and True are the same key. */
static size_t hash_of(const struct dict *dict, struct value key)
{
    /* The address differs from process to process, so that nobody can send keys of equal hashes. */
    uint64_t hash = 0xcbf29ce484222325u ^ (uintptr_t)dict * 0x9e3779b97f4a7c15u;
    if (key.kind == VALUE_STRING) {
        for (size_t i = 0; i < key.string.len; i++)
            hash = (hash ^ (unsigned char)key.string.bytes[i]) * 0x100000001b3u;
    } else if (value_is_number(key)) {
        double number = value_number(key);
        if (number > -1e15 && number < 1e15)
            hash = (hash ^ (uint64_t)(int64_t)number) * 0x100000001b3u;
    }
    return (size_t)(hash ^ hash >> 29);
}

static void index_entry(struct dict *dict, size_t i)
{
    size_t slot = hash_of(dict, dict->entries[i].key) & (dict->index_cap - 1);
    while (dict->index[slot])
        slot = (slot + 1) & (dict->index_cap - 1);
    dict->index[slot] = (uint32_t)i + 1;
}

static bool make_index(struct template_arena *arena, struct dict *dict)
{
    size_t cap = 4 * dict->n;
    while (cap & (cap - 1))
        cap &= cap - 1;
    uint32_t *index = template_arena_zeroed(arena, cap * sizeof *index);
    if (!index)
        return false;
    dict->index = index;
    dict->index_cap = cap;
    for (size_t i = 0; i < dict->n; i++)
        index_entry(dict, i);
    return true;
}

static bool keys_equal(struct value a, struct value b)
{
    struct value_budget enough = {2, 2}; /* keys hold no other values */
    return value_is_key(b) && value_equals(a, b, &enough);
}

static struct dict_entry *find(const struct dict *dict, struct value key)
{
    if (!dict->index) {
        for (size_t i = 0; i < dict->n; i++)
            if (keys_equal(dict->entries[i].key, key))
                return &dict->entries[i];
        return NULL;
    }
    size_t slot = hash_of(dict, key) & (dict->index_cap - 1);
    for (; dict->index[slot]; slot = (slot + 1) & (dict->index_cap - 1))
        if (keys_equal(dict->entries[dict->index[slot] - 1].key, key))
            return &dict->entries[dict->index[slot] - 1];
    return NULL;
}

bool dict_set(struct template_arena *arena, struct dict *dict, struct value key, struct value value)
{
    struct dict_entry *found = find(dict, key);
    if (found) {
        found->value = value;
        return true;
    }
    if (dict->n == dict->cap) {
        size_t cap = dict->cap ? 2 * dict->cap : 4, size = sizeof *dict->entries;
        struct dict_entry *entries = template_arena_grow(arena, dict->entries, dict->cap * size, cap * size);
        if (!entries)
            return false;
        dict->entries = entries;
        dict->cap = cap;
    }
    dict->entries[dict->n++] = (struct dict_entry){key, value};
    if (dict->index && dict->n < dict->index_cap / 2) {
        index_entry(dict, dict->n - 1);
        return true;
    }
    return dict->n < INDEXED_FROM || make_index(arena, dict);
}

bool dict_set_text(struct template_arena *arena, struct dict *dict, const char *key, struct value value)
{
    return dict_set(arena, dict, value_string(string_made(key)), value);
}

const struct value *dict_get(const struct dict *dict, struct value key)
{
    const struct dict_entry *found = find(dict, key);
    return found ? &found->value : NULL;
}

const struct value *dict_get_text(const struct dict *dict, const char *key)
{
    return dict_get(dict, value_string(string_made(key)));
}

bool value_is_list(struct value value)
{
    return value.kind >= VALUE_LIST && value.kind <= VALUE_VIEW;
}

bool value_is_number(struct value value)
{
    return value.kind >= VALUE_BOOL && value.kind <= VALUE_FLOAT;
}

double value_number(struct value value)
{
    return value.kind == VALUE_FLOAT  ? value.real
           : value.kind == VALUE_BOOL ? value.boolean
                                      : (double)value.integer;
}

bool value_is_true(struct value value)
{
    switch (value.kind) {
    case VALUE_UNDEFINED:
    case VALUE_NONE:
        return false;
    case VALUE_BOOL:
        return value.boolean;
    case VALUE_INT:
        return value.integer != 0;
    case VALUE_FLOAT:
        return value.real != 0;
    case VALUE_STRING:
        return value.string.len > 0;
    case VALUE_LIST:
    case VALUE_TUPLE:
    case VALUE_VIEW:
        return value.list->n > 0;
    case VALUE_DICT:
        return value.dict->n > 0;
    default:
        return true;
    }
}

static bool lists_equal(const struct list *a, const struct list *b, struct value_budget *budget)
{
    if (a->n != b->n)
        return false;
    for (size_t i = 0; i < a->n; i++)
        if (!value_equals(a->items[i], b->items[i], budget))
            return false;
    return true;
}

static bool dicts_equal(const struct dict *a, const struct dict *b, struct value_budget *budget)
{
    if (a->n != b->n)
        return false;
    for (size_t i = 0; i < a->n; i++) {
        const struct value *other = dict_get(b, a->entries[i].key);
        if (!other || !value_equals(a->entries[i].value, *other, budget))
            return false;
    }
    return true;
}

static bool numbers_equal(struct value a, struct value b)
{
    if (a.kind == VALUE_FLOAT || b.kind == VALUE_FLOAT)
        return value_number(a) == value_number(b);
    return (a.kind == VALUE_BOOL ? a.boolean : a.integer) == (b.kind == VALUE_BOOL ? b.boolean : b.integer);
}

bool value_is_key(struct value value)
{
    return !value_is_list(value) && value.kind != VALUE_DICT && value.kind != VALUE_NAMESPACE;
}

bool value_equals(struct value a, struct value b, struct value_budget *budget)
{
    if (!budget->depth)
        budget->n_steps = 0;
    if (!budget->n_steps || !--budget->n_steps)
        return false;
    if (value_is_number(a) && value_is_number(b))
        return numbers_equal(a, b);
    if (a.kind != b.kind)
        return false;
    bool equal = false;
    budget->depth--;
    switch (a.kind) {
    case VALUE_UNDEFINED:
    case VALUE_NONE:
        equal = true;
        break;
    case VALUE_STRING:
        equal = string_same(a.string, b.string);
        break;
    case VALUE_LIST:
    case VALUE_TUPLE:
    case VALUE_VIEW:
        equal = lists_equal(a.list, b.list, budget);
        break;
    case VALUE_DICT:
        equal = dicts_equal(a.dict, b.dict, budget);
        break;
    case VALUE_METHOD:
        break;
    default:
        equal = a.list == b.list; /* the same object */
    }
    budget->depth++;
    return equal;
}

const char *value_type(struct value value)
{
    static const char *const names[] = {
        [VALUE_UNDEFINED] = "an undefined value",
        [VALUE_NONE] = "none",
        [VALUE_BOOL] = "a bool",
        [VALUE_INT] = "an int",
        [VALUE_FLOAT] = "a float",
        [VALUE_STRING] = "a string",
        [VALUE_LIST] = "a list",
        [VALUE_TUPLE] = "a tuple",
        [VALUE_SEQUENCE] = "a sequence",
        [VALUE_VIEW] = "a view of a dict",
        [VALUE_DICT] = "a dict",
        [VALUE_NAMESPACE] = "a namespace",
        [VALUE_LOOP] = "a loop",
        [VALUE_MACRO] = "a macro",
        [VALUE_FUNCTION] = "a function",
        [VALUE_METHOD] = "a method",
    };
    return names[value.kind];
}
