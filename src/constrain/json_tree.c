/* json_tree.c: see json_tree.h. */
#include "constrain/json_tree.h"

#include <stdlib.h>
#include <string.h>

enum {
    MAX_DEPTH = 200,
    MAX_ITEMS = 1 << 20,
    MAX_EXACT = 15, /* digits of numbers that any validator tells apart */
};

struct json_reader {
    const char *text;
    size_t len, at;
    struct json_text *json;
    uint32_t n_items;
    unsigned depth;
    runnel_error *error;
};

void json_tree_free(struct json_text *json)
{
    while (json->blocks) {
        struct json_block *next = json->blocks->next;
        free(json->blocks);
        json->blocks = next;
    }
    *json = (struct json_text){0};
}

static void *json_alloc(struct json_text *json, size_t size)
{
    struct json_block *block = malloc(sizeof *block + size);
    if (!block)
        return NULL;
    block->next = json->blocks;
    json->blocks = block;
    return block + 1;
}

static int fail(struct json_reader *reader, const char *what)
{
    return error_set(reader->error, RUNNEL_EINVAL, "JSON: at byte %zu: %s", reader->at, what);
}

static void skip_space(struct json_reader *reader)
{
    while (reader->at < reader->len && memchr(" \t\r\n", reader->text[reader->at], 4))
        reader->at++;
}

static bool skip(struct json_reader *reader, char c)
{
    if (reader->at >= reader->len || reader->text[reader->at] != c)
        return false;
    reader->at++;
    return true;
}

static int hex4(struct json_reader *reader, uint32_t *number)
{
    *number = 0;
    for (int i = 0; i < 4; i++, reader->at++) {
        char c = reader->at < reader->len ? reader->text[reader->at] : 0;
        if (c >= '0' && c <= '9')
            *number = *number << 4 | (uint32_t)(c - '0');
        else if ((c | 0x20) >= 'a' && (c | 0x20) <= 'f')
            *number = *number << 4 | (uint32_t)((c | 0x20) - 'a' + 10);
        else
            return fail(reader, "expected four hexadecimal digits");
    }
    return RUNNEL_OK;
}

static size_t write_utf8(char *out, uint32_t c)
{
    size_t n = c < 0x80 ? 1 : c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
    static const unsigned char lead[] = {0, 0, 0xc0, 0xe0, 0xf0};
    for (size_t i = n; i-- > 1; c >>= 6)
        out[i] = (char)(0x80 | (c & 0x3f));
    out[0] = (char)(lead[n] | c);
    return n;
}

/* Behind a backslash: adds what it means. */
static int read_escape(struct json_reader *reader, char *out, size_t *n)
{
    static const char names[] = "\"\\/bfnrt", meanings[] = "\"\\/\b\f\n\r\t";
    char c = reader->at < reader->len ? reader->text[reader->at++] : 0;
    const char *name = c ? strchr(names, c) : NULL;
    uint32_t high, low;
    if (name) {
        out[(*n)++] = meanings[name - names];
        return RUNNEL_OK;
    }
    if (c != 'u')
        return fail(reader, "an escape that JSON does not know");
    int code = hex4(reader, &high);
    if (!code && high >= 0xd800 && high < 0xdc00 && reader->at + 1 < reader->len &&
        reader->text[reader->at] == '\\' && reader->text[reader->at + 1] == 'u') {
        reader->at += 2;
        code = hex4(reader, &low);
        if (!code && low >= 0xdc00 && low < 0xe000)
            high = 0x10000 + ((high - 0xd800) << 10) + (low - 0xdc00);
    }
    if (!code && high >= 0xd800 && high < 0xe000)
        return fail(reader, "half of a pair of surrogates");
    if (!code)
        *n += write_utf8(out + *n, high);
    return code;
}

/* Behind '"'. */
static int read_string(struct json_reader *reader, const char **text, size_t *len)
{
    size_t end = reader->at, n = 0;
    while (end < reader->len && reader->text[end] != '"')
        end += reader->text[end] == '\\' ? 2 : 1;
    if (end >= reader->len)
        return fail(reader, "a string has no end");
    char *out = json_alloc(reader->json, end - reader->at + 1);
    if (!out)
        return error_set(reader->error, RUNNEL_ENOMEM, "no memory for a JSON text");
    while (reader->at < end) {
        unsigned char c = (unsigned char)reader->text[reader->at++];
        if (c < 0x20)
            return fail(reader, "a control character in a string");
        if (c != '\\') {
            out[n++] = (char)c;
            continue;
        }
        int code = read_escape(reader, out, &n);
        if (code)
            return code;
    }
    reader->at++;
    out[n] = 0;
    *text = out;
    *len = n;
    return RUNNEL_OK;
}

static int read_value(struct json_reader *reader, struct json *value);

/* Behind the bracket. */
static int read_items(struct json_reader *reader, struct json *value)
{
    bool is_object = value->kind == JSON_OBJECT;
    struct json *items = NULL;
    uint32_t n = 0, cap = 0;
    int code = RUNNEL_OK;
    skip_space(reader);
    if (skip(reader, is_object ? '}' : ']'))
        return RUNNEL_OK;
    if (++reader->depth > MAX_DEPTH)
        return fail(reader, "it is nested too deep");
    do {
        if (++reader->n_items > MAX_ITEMS) {
            free(items);
            return error_set(reader->error, RUNNEL_EUNSUPPORTED, "JSON: more than %d values", MAX_ITEMS);
        }
        if (n == cap) {
            void *grown = realloc(items, (cap = cap ? cap * 2 : 8) * sizeof *items);
            if (!grown) {
                free(items);
                return error_set(reader->error, RUNNEL_ENOMEM, "no memory for a JSON text");
            }
            items = grown;
        }
        struct json item = {0};
        skip_space(reader);
        if (is_object) {
            code = skip(reader, '"') ? read_string(reader, &item.name, &item.name_len)
                                     : fail(reader, "expected the name of a member");
            skip_space(reader);
            if (!code && !skip(reader, ':'))
                code = fail(reader, "expected ':'");
        }
        if (!code)
            code = read_value(reader, &item);
        items[n++] = item;
        skip_space(reader);
    } while (!code && skip(reader, ','));
    if (!code && !skip(reader, is_object ? '}' : ']'))
        code = fail(reader, is_object ? "expected ',' or '}'" : "expected ',' or ']'");
    value->items = code ? NULL : json_alloc(reader->json, n * sizeof *items);
    if (!code && !value->items)
        code = error_set(reader->error, RUNNEL_ENOMEM, "no memory for a JSON text");
    if (!code) {
        memcpy(value->items, items, n * sizeof *items);
        value->n = n;
    }
    free(items);
    reader->depth--;
    return code;
}

static size_t digits(struct json_reader *reader)
{
    size_t n = 0;
    for (; reader->at < reader->len && reader->text[reader->at] >= '0' && reader->text[reader->at] <= '9';
         n++)
        reader->at++;
    return n;
}

static int read_number(struct json_reader *reader, struct json *value)
{
    size_t begin = reader->at;
    skip(reader, '-');
    bool fits = skip(reader, '0') || digits(reader);
    if (fits && skip(reader, '.'))
        fits = digits(reader);
    if (fits && (skip(reader, 'e') || skip(reader, 'E'))) {
        if (!skip(reader, '+'))
            skip(reader, '-');
        fits = digits(reader);
    }
    if (!fits)
        return fail(reader, "expected a value");
    char *text = json_alloc(reader->json, reader->at - begin + 1);
    if (!text)
        return error_set(reader->error, RUNNEL_ENOMEM, "no memory for a JSON text");
    memcpy(text, reader->text + begin, reader->at - begin);
    text[reader->at - begin] = 0;
    value->kind = JSON_NUMBER;
    value->text = text;
    value->len = reader->at - begin;
    return RUNNEL_OK;
}

static bool skip_word(struct json_reader *reader, const char *word)
{
    size_t n = strlen(word);
    if (n > reader->len - reader->at || memcmp(reader->text + reader->at, word, n))
        return false;
    reader->at += n;
    return true;
}

static int read_value(struct json_reader *reader, struct json *value)
{
    skip_space(reader);
    if (skip(reader, '{')) {
        value->kind = JSON_OBJECT;
        return read_items(reader, value);
    }
    if (skip(reader, '[')) {
        value->kind = JSON_ARRAY;
        return read_items(reader, value);
    }
    if (skip(reader, '"')) {
        value->kind = JSON_STRING;
        return read_string(reader, &value->text, &value->len);
    }
    if (skip_word(reader, "null"))
        value->kind = JSON_NULL;
    else if (skip_word(reader, "true"))
        value->kind = JSON_TRUE;
    else if (skip_word(reader, "false"))
        value->kind = JSON_FALSE;
    else
        return read_number(reader, value);
    return RUNNEL_OK;
}

int json_tree_read(const char *text, size_t len, struct json_text *json, runnel_error *error)
{
    struct json_reader reader = {.text = text, .len = len, .json = json, .error = error};
    *json = (struct json_text){0};
    int code = read_value(&reader, &json->root);
    skip_space(&reader);
    if (!code && reader.at < len)
        code = fail(&reader, "something follows behind the value");
    if (code)
        json_tree_free(json);
    return code;
}

const struct json *json_tree_member_n(const struct json *json, const char *name, size_t len)
{
    if (!json || json->kind != JSON_OBJECT)
        return NULL;
    for (uint32_t i = json->n; i-- > 0;)
        if (json->items[i].name_len == len && !memcmp(json->items[i].name, name, len))
            return &json->items[i];
    return NULL;
}

const struct json *json_tree_member(const struct json *json, const char *name)
{
    return json_tree_member_n(json, name, strlen(name));
}

bool json_tree_is(const struct json *json, const char *string)
{
    return json && json->kind == JSON_STRING && json->len == strlen(string) &&
           !memcmp(json->text, string, json->len);
}

static const struct json *twin_of(const struct json *one, const struct json *other, uint32_t i,
                                  uint64_t *looks)
{
    const struct json *item = &one->items[i], *twin = &other->items[i];
    if (one->kind == JSON_ARRAY ||
        (item->name_len == twin->name_len && !memcmp(item->name, twin->name, item->name_len)))
        return twin;
    *looks += other->n;
    return json_tree_member_n(other, item->name, item->name_len);
}

/* How many characters of a number without an exponent say something: not the zeros at the end of its fraction. */
static size_t plain_len(const struct json *number)
{
    size_t len = number->len;
    if (!memchr(number->text, '.', len))
        return len;
    while (number->text[len - 1] == '0')
        len--;
    return number->text[len - 1] == '.' ? len - 1 : len;
}

static bool numbers_may_be_equal(const struct json *one, const struct json *other)
{
    size_t len = plain_len(one), other_len = plain_len(other);
    const char *a = one->text, *b = other->text;
    if (strpbrk(a, "eE") || strpbrk(b, "eE") || len > MAX_EXACT || other_len > MAX_EXACT)
        return true;
    if (len == 2 && !memcmp(a, "-0", 2))
        a++, len--;
    if (other_len == 2 && !memcmp(b, "-0", 2))
        b++, other_len--;
    return len == other_len && !memcmp(a, b, len);
}

bool json_tree_may_equal(const struct json *one, const struct json *other, uint64_t *looks)
{
    ++*looks;
    if (one->kind != other->kind || one->n != other->n)
        return false;
    if (one->kind == JSON_NUMBER)
        return numbers_may_be_equal(one, other);
    if (one->kind == JSON_STRING)
        return one->len == other->len && !memcmp(one->text, other->text, one->len);
    for (uint32_t i = 0; i < one->n; i++) {
        const struct json *twin = twin_of(one, other, i, looks);
        if (!twin || !json_tree_may_equal(&one->items[i], twin, looks))
            return false;
    }
    return true;
}
