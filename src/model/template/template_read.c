/* template_read.c: a strict reader of JSON into the values of chat templates. See template_read_json in template.h. */
#include "model/template/template.h"
#include "model/template/template_text.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { JSON_DEPTH_MAX = 64 };

struct json_reader {
    struct template_arena *arena;
    struct string text;
    size_t at;
    unsigned depth;
    const char *expected; /* what was, at the failure */
};

static bool read_value(struct json_reader *reader, struct value *value);

static bool fail(struct json_reader *reader, const char *expected)
{
    if (!reader->expected)
        reader->expected = expected;
    return false;
}

static void skip_space(struct json_reader *reader)
{
    while (reader->at < reader->text.len && memchr(" \t\n\r", reader->text.bytes[reader->at], 4))
        reader->at++;
}

static char peek(const struct json_reader *reader)
{
    return reader->at < reader->text.len ? reader->text.bytes[reader->at] : '\0';
}

static bool takes(struct json_reader *reader, char c)
{
    skip_space(reader);
    if (reader->at == reader->text.len || peek(reader) != c)
        return false;
    reader->at++;
    return true;
}

static bool read_hex(struct json_reader *reader, uint32_t *code)
{
    *code = 0;
    for (int i = 0; i < 4; i++, reader->at++) {
        char c = peek(reader), low = (char)(c | 32);
        if (!(c >= '0' && c <= '9') && !(low >= 'a' && low <= 'f'))
            return fail(reader, "four hexadecimal digits");
        *code = *code << 4 | (uint32_t)(c <= '9' ? c - '0' : low - 'a' + 10);
    }
    return true;
}

/* After "\". */
static bool read_escape(struct json_reader *reader, struct string_builder *out)
{
    static const char plain[] = "\"\"\\\\//n\nr\rt\tb\bf\f";
    uint32_t code, low;
    char c = peek(reader);
    reader->at++;
    for (size_t i = 0; i + 1 < sizeof plain; i += 2)
        if (plain[i] == c) {
            builder_add_bytes(out, &plain[i + 1], 1, false);
            return true;
        }
    if (c != 'u')
        return fail(reader, "an escape");
    if (!read_hex(reader, &code))
        return false;
    if (code >= 0xd800 && code < 0xdc00 && reader->text.len - reader->at >= 6 &&
        memcmp(reader->text.bytes + reader->at, "\\u", 2) == 0) {
        reader->at += 2;
        if (!read_hex(reader, &low))
            return false;
        if (low >= 0xdc00 && low < 0xe000)
            code = 0x10000 + ((code & 0x3ff) << 10 | (low & 0x3ff));
    }
    if (code >= 0xd800 && code < 0xe000)
        return fail(reader, "the second half of a surrogate pair");
    builder_add_code(out, code, false);
    return true;
}

static bool read_string(struct json_reader *reader, struct string *string)
{
    struct string_builder out = {.arena = reader->arena};
    size_t begin = reader->at;
    uint32_t code;
    bool escaped = false;
    for (;;) {
        if (reader->at == reader->text.len)
            return fail(reader, "the end of a string");
        size_t n = text_character(reader->text.bytes + reader->at, reader->text.len - reader->at, &code);
        if (code < 32 || code >= 0xfffd0000u)
            return fail(reader, "a character of UTF-8 that is no control character");
        if (code == '"' || code == '\\') {
            if (escaped || code == '\\')
                builder_add(&out, string_part(reader->text, begin, reader->at));
            reader->at++;
            if (code == '"')
                break;
            escaped = true;
            if (!read_escape(reader, &out))
                return false;
            begin = reader->at;
            continue;
        }
        reader->at += n;
    }
    *string = escaped ? builder_string(&out) : string_part(reader->text, begin, reader->at - 1);
    return true;
}

static bool read_number(struct json_reader *reader, struct value *value)
{
    char number[400];
    size_t n = 0;
    bool real = false, has_digit = false;
    while (n + 1 < sizeof number && reader->at < reader->text.len &&
           strchr("+-.eE0123456789", peek(reader)) && peek(reader)) {
        real |= strchr(".eE", peek(reader)) != NULL;
        number[n++] = peek(reader);
        reader->at++;
    }
    number[n] = '\0';
    const char *digits = number + (number[0] == '-');
    has_digit = *digits >= '0' && *digits <= '9';
    bool leading_zero = digits[0] == '0' && digits[1] >= '0' && digits[1] <= '9';
    const char *point = strchr(number, '.');
    char *end;
    errno = 0;
    double as_real = strtod(number, &end);
    if (!has_digit || leading_zero || *end || (point && !(point[1] >= '0' && point[1] <= '9')))
        return fail(reader, "a number");
    if (real) {
        if (as_real > 1.7e308 || as_real < -1.7e308)
            return fail(reader, "a number that is not too large");
        *value = value_float(as_real);
        return true;
    }
    errno = 0;
    long long integer = strtoll(number, &end, 10);
    if (errno)
        return fail(reader, "an integer of 64 bits");
    *value = value_int(integer);
    return true;
}

static bool read_list(struct json_reader *reader, struct value *value)
{
    *value = value_list(reader->arena, VALUE_LIST);
    if (!value->list)
        return false;
    if (takes(reader, ']'))
        return true;
    do {
        struct value item;
        if (!read_value(reader, &item) || !list_add(reader->arena, value->list, item))
            return false;
    } while (takes(reader, ','));
    return takes(reader, ']') || fail(reader, "\",\" or \"]\"");
}

static bool read_object(struct json_reader *reader, struct value *value)
{
    *value = value_dict(reader->arena);
    if (!value->dict)
        return false;
    if (takes(reader, '}'))
        return true;
    do {
        struct string key;
        struct value item;
        if (!takes(reader, '"'))
            return fail(reader, "a key");
        if (!read_string(reader, &key))
            return false;
        if (dict_get(value->dict, value_string(key)))
            return fail(reader, "a key that was not there before");
        if (!takes(reader, ':'))
            return fail(reader, "\":\"");
        if (!read_value(reader, &item) || !dict_set(reader->arena, value->dict, value_string(key), item))
            return false;
    } while (takes(reader, ','));
    return takes(reader, '}') || fail(reader, "\",\" or \"}\"");
}

static bool read_word(struct json_reader *reader, const char *word, struct value meaning, struct value *value)
{
    size_t len = strlen(word);
    if (reader->text.len - reader->at < len || memcmp(reader->text.bytes + reader->at, word, len) != 0)
        return fail(reader, "a value");
    reader->at += len;
    *value = meaning;
    return true;
}

static bool read_value(struct json_reader *reader, struct value *value)
{
    bool read;
    if (reader->depth == JSON_DEPTH_MAX)
        return fail(reader, "at most 64 levels");
    reader->depth++;
    skip_space(reader);
    if (takes(reader, '{')) {
        read = read_object(reader, value);
    } else if (takes(reader, '[')) {
        read = read_list(reader, value);
    } else if (takes(reader, '"')) {
        read = read_string(reader, &value->string);
        value->kind = VALUE_STRING;
    } else if (peek(reader) == 't') {
        read = read_word(reader, "true", value_bool(true), value);
    } else if (peek(reader) == 'f') {
        read = read_word(reader, "false", value_bool(false), value);
    } else if (peek(reader) == 'n') {
        read = read_word(reader, "null", value_none(), value);
    } else {
        read = read_number(reader, value);
    }
    reader->depth--;
    return read;
}

int template_read_json(struct template_arena *arena, const char *text, size_t len, struct value *value,
                       runnel_error *error)
{
    char *copy = template_arena_alloc(arena, len);
    struct json_reader reader = {.arena = arena};
    struct value read;
    if (copy) {
        memcpy(copy, text, len);
        reader.text = string_of(copy, len, false);
        if (read_value(&reader, &read)) {
            skip_space(&reader);
            if (reader.at < len)
                fail(&reader, "nothing after the value");
        }
    }
    if (arena->failed)
        return error_set(error, RUNNEL_ENOMEM, "out of memory for the JSON");
    if (arena->over_the_limit)
        return error_set(error, RUNNEL_EINVAL, "JSON: more memory than it may take");
    if (reader.expected)
        return error_set(error, RUNNEL_EINVAL, "JSON, byte %zu: expected %s", reader.at, reader.expected);
    *value = read;
    return RUNNEL_OK;
}
