/* json_write.c: JSON written piece by piece. Owns nothing; any thread. */
#include "server/core/json_write.h"

#include "base/utf8.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

void json_add_format(struct text *out, const char *format, ...)
{
    char bytes[JSON_FORMAT_MAX + 1];
    va_list args;
    va_start(args, format);
    int len = vsnprintf(bytes, sizeof bytes, format, args);
    va_end(args);
    if (len > 0)
        text_add(out, bytes, (size_t)len < sizeof bytes ? (size_t)len : sizeof bytes - 1);
}

static const char *short_escape(char c)
{
    switch (c) {
    case '"':
        return "\\\"";
    case '\\':
        return "\\\\";
    case '\n':
        return "\\n";
    case '\r':
        return "\\r";
    case '\t':
        return "\\t";
    default:
        return NULL;
    }
}

static void add_escaped(struct text *out, const char *bytes, size_t len)
{
    size_t begin = 0;
    for (size_t i = 0; i < len; i++) {
        unsigned char c = (unsigned char)bytes[i];
        if (c >= 0x20 && c != '"' && c != '\\' && c != 0x7f)
            continue;
        text_add(out, bytes + begin, i - begin);
        begin = i + 1;
        if (short_escape(bytes[i]))
            text_add_string(out, short_escape(bytes[i]));
        else
            json_add_format(out, "\\u%04x", c);
    }
    text_add(out, bytes + begin, len - begin);
}

static void add_repaired(struct text *out, const char *bytes, size_t len)
{
    struct utf8_assembler assembler = {0};
    char whole[UTF8_PUSH_MAX];
    for (size_t i = 0; i < len; i++)
        add_escaped(out, whole, utf8_push(&assembler, (uint8_t)bytes[i], whole));
    add_escaped(out, whole, utf8_finish(&assembler, whole));
}

void json_add_string(struct text *out, const char *bytes, size_t len)
{
    text_add(out, "\"", 1);
    if (utf8_valid(bytes, len))
        add_escaped(out, bytes, len);
    else
        add_repaired(out, bytes, len);
    text_add(out, "\"", 1);
}

void json_add_number(struct text *out, double number)
{
    json_add_format(out, "%.9g", isfinite(number) ? number : -9999.0);
}
