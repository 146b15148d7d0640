/* text.c: a text that grows. See text.h. */
#include "base/text.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

static void grow(struct text *text, size_t cap)
{
    char *grown = realloc(text->bytes, cap);
    if (!grown) {
        text->failed = true;
        return;
    }
    text->bytes = grown;
    text->cap = cap;
}

void text_reserve(struct text *text, size_t len)
{
    if (text->failed || len < text->cap)
        return;
    grow(text, len + 1);
    if (!text->failed)
        text->bytes[text->len] = '\0';
}

void text_add(struct text *text, const char *bytes, size_t len)
{
    if (text->failed)
        return;
    if (len >= SIZE_MAX / 2 - text->len) {
        text->failed = true;
        return;
    }
    if (text->len + len + 1 > text->cap) {
        size_t cap = text->cap ? text->cap : 128;
        while (cap < text->len + len + 1)
            cap *= 2;
        grow(text, cap);
        if (text->failed)
            return;
    }
    if (len)
        memcpy(text->bytes + text->len, bytes, len);
    text->len += len;
    text->bytes[text->len] = '\0';
}

void text_add_string(struct text *text, const char *string)
{
    text_add(text, string, strlen(string));
}

void text_free(struct text *text)
{
    free(text->bytes);
    *text = (struct text){0};
}
