/* json_members.c: see json_members.h. */
#include "cli/json_members.h"

#include <stdbool.h>
#include <string.h>

struct reader {
    const char *text;
    size_t len, at;
};

static void skip_space(struct reader *reader)
{
    while (reader->at < reader->len && memchr(" \t\r\n", reader->text[reader->at], 4))
        reader->at++;
}

static bool skip_char(struct reader *reader, char c)
{
    skip_space(reader);
    if (reader->at == reader->len || reader->text[reader->at] != c)
        return false;
    reader->at++;
    return true;
}

/* False: it is none, or has no end. span is what is between its quotes. */
static bool skip_string(struct reader *reader, struct text_span *span)
{
    if (!skip_char(reader, '"'))
        return false;
    for (span->begin = reader->at; reader->at < reader->len; reader->at++) {
        char c = reader->text[reader->at];
        if (c == '"') {
            span->end = reader->at++;
            return true;
        }
        reader->at += c == '\\';
    }
    return false;
}

static bool skip_value(struct reader *reader, struct text_span *span)
{
    size_t depth = 0;
    skip_space(reader);
    span->begin = reader->at;
    while (reader->at < reader->len) {
        char c = reader->text[reader->at];
        struct text_span ignored;
        if (!depth && (c == ',' || c == '}' || c == ']'))
            break;
        if (c == '"') {
            if (!skip_string(reader, &ignored))
                return false;
            continue;
        }
        depth += c == '{' || c == '[';
        depth -= c == '}' || c == ']';
        reader->at++;
    }
    span->end = reader->at < reader->len ? reader->at : reader->len;
    return !depth && span->end > span->begin;
}

/* Where a member of this name belongs; n_names: nowhere. */
static size_t find_name(const char *const *names, size_t n_names, const char *name, size_t len)
{
    size_t i = 0;
    while (i < n_names && (strlen(names[i]) != len || memcmp(names[i], name, len) != 0))
        i++;
    return i;
}

static int read_member(const char *name, struct reader *reader, const char *const *names, size_t n_names,
                       struct text_span *values, runnel_error *error)
{
    struct text_span key, value;
    if (!skip_string(reader, &key) || !skip_char(reader, ':') || !skip_value(reader, &value))
        return error_set(error, RUNNEL_EINVAL, "%s: expected a JSON object, found no member at offset %zu",
                         name, reader->at);
    size_t i = find_name(names, n_names, reader->text + key.begin, key.end - key.begin);
    if (i == n_names)
        return error_set(error, RUNNEL_EINVAL, "%s: '%.*s' is no member that is known here", name,
                         key.end - key.begin < 64 ? (int)(key.end - key.begin) : 64,
                         reader->text + key.begin);
    if (values[i].end)
        return error_set(error, RUNNEL_EINVAL, "%s: '%s' comes twice", name, names[i]);
    values[i] = value;
    return RUNNEL_OK;
}

int json_members_find(const char *name, const char *text, size_t len, const char *const *names,
                      size_t n_names, struct text_span *values, runnel_error *error)
{
    struct reader reader = {.text = text, .len = len};
    memset(values, 0, n_names * sizeof *values);
    if (!skip_char(&reader, '{'))
        return error_set(error, RUNNEL_EINVAL, "%s: expected a JSON object", name);
    if (!skip_char(&reader, '}')) {
        do {
            int failure = read_member(name, &reader, names, n_names, values, error);
            if (failure)
                return failure;
        } while (skip_char(&reader, ','));
        if (!skip_char(&reader, '}'))
            return error_set(error, RUNNEL_EINVAL, "%s: expected the end of a JSON object at offset %zu",
                             name, reader.at);
    }
    skip_space(&reader);
    if (reader.at != len)
        return error_set(error, RUNNEL_EINVAL, "%s: expected nothing behind a JSON object, at offset %zu",
                         name, reader.at);
    return RUNNEL_OK;
}
