/* line_text.c: see line_text.h. */
#include "cli/line_text.h"

#include "cli/char_width.h"

#include <stdlib.h>
#include <string.h>

enum { JOINER = 0x200D, EMOJI_STYLE = 0xFE0F };

static bool is_between(wchar_t c, wchar_t low, wchar_t high)
{
    return low <= c && c <= high;
}

bool line_char_is_control(wchar_t c)
{
    return c < 0x20 || is_between(c, 0x7F, 0x9F);
}

static bool is_flag_letter(wchar_t c)
{
    return is_between(c, 0x1F1E6, 0x1F1FF);
}

static bool is_skin_tone(wchar_t c)
{
    return is_between(c, 0x1F3FB, 0x1F3FF);
}

/* Whether the code point at `at` (not the first) belongs to the character before it. */
static bool joins(const wchar_t *chars, size_t at)
{
    wchar_t c = chars[at], before = chars[at - 1];
    if (line_char_is_control(c) || line_char_is_control(before))
        return false;
    if (char_width(c) == 0)
        return true;
    if (before == JOINER || is_skin_tone(c))
        return c >= 0x2190 && before >= 0x200D; /* of emoji; letters that are joined stay characters */
    if (!is_flag_letter(c))
        return false;
    size_t n_before = 0; /* a flag is two letters */
    while (n_before < at && is_flag_letter(chars[at - 1 - n_before]))
        n_before++;
    return n_before % 2 == 1;
}

bool line_text_insert(struct line_text *text, const wchar_t *chars, size_t n)
{
    if (text->n + n > text->cap) {
        size_t cap = (text->n + n) * 2 + 64;
        wchar_t *grown = realloc(text->chars, cap * sizeof *grown);
        if (!grown)
            return false;
        text->chars = grown;
        text->cap = cap;
    }
    if (!n)
        return true;
    wchar_t *place = text->chars + text->cursor;
    memmove(place + n, place, (text->n - text->cursor) * sizeof *place);
    memcpy(place, chars, n * sizeof *place);
    text->n += n;
    text->cursor += n;
    return true;
}

void line_text_remove(struct line_text *text, size_t begin, size_t end)
{
    if (begin < end)
        memmove(text->chars + begin, text->chars + end, (text->n - end) * sizeof *text->chars);
    text->n -= end - begin;
    text->cursor = begin;
}

bool line_text_set(struct line_text *text, const char *bytes)
{
    wchar_t *chars = malloc((strlen(bytes) + 1) * sizeof *chars);
    if (!chars)
        return false;
    size_t n = 0;
    for (size_t len; *bytes; bytes += len) {
        wchar_t c = line_char_decode(bytes, &len);
        if (c == '\n' || c == '\t' || !line_char_is_control(c))
            chars[n++] = c;
    }
    line_text_remove(text, 0, text->n);
    bool has_room = line_text_insert(text, chars, n);
    free(chars);
    return has_room;
}

char *line_text_bytes(const struct line_text *text, size_t begin, size_t end)
{
    char *bytes = malloc((end - begin) * 4 + 1);
    if (!bytes)
        return NULL;
    size_t len = 0;
    for (size_t i = begin; i < end; i++)
        len += line_char_encode(text->chars[i], bytes + len);
    bytes[len] = 0;
    return bytes;
}

void line_text_free(struct line_text *text)
{
    free(text->chars);
    *text = (struct line_text){0};
}

size_t line_text_next(const struct line_text *text, size_t at)
{
    if (at < text->n)
        at++;
    while (at < text->n && joins(text->chars, at))
        at++;
    return at;
}

size_t line_text_previous(const struct line_text *text, size_t at)
{
    if (at)
        at--;
    while (at && joins(text->chars, at))
        at--;
    return at;
}

static bool is_space(wchar_t c)
{
    return c == ' ' || c == '\t' || c == '\n' || c == 0x3000;
}

size_t line_text_word_end(const struct line_text *text, size_t at)
{
    while (at < text->n && is_space(text->chars[at]))
        at++;
    while (at < text->n && !is_space(text->chars[at]))
        at++;
    return at;
}

size_t line_text_word_begin(const struct line_text *text, size_t at)
{
    while (at && is_space(text->chars[at - 1]))
        at--;
    while (at && !is_space(text->chars[at - 1]))
        at--;
    return at;
}

size_t line_text_line_begin(const struct line_text *text, size_t at)
{
    while (at && text->chars[at - 1] != '\n')
        at--;
    return at;
}

size_t line_text_line_end(const struct line_text *text, size_t at)
{
    while (at < text->n && text->chars[at] != '\n')
        at++;
    return at;
}

int line_text_width(const struct line_text *text, size_t begin, size_t end, bool *uncertain)
{
    *uncertain = false;
    for (size_t i = begin + 1; i < end; i++)
        if (text->chars[i] == EMOJI_STYLE || char_width(text->chars[i]))
            *uncertain = true;
    return *uncertain ? 2 : char_width(text->chars[begin]);
}

size_t line_char_encode(wchar_t c, char bytes[4])
{
    unsigned code = (unsigned)c;
    if (code < 0x80) {
        bytes[0] = (char)code;
        return 1;
    }
    size_t n_more = code < 0x800 ? 1 : code < 0x10000 ? 2 : 3;
    static const unsigned char marks[] = {0, 0xC0, 0xE0, 0xF0};
    bytes[0] = (char)(marks[n_more] | code >> 6 * n_more);
    for (size_t i = 1; i <= n_more; i++)
        bytes[i] = (char)(0x80 | (code >> 6 * (n_more - i) & 0x3F));
    return n_more + 1;
}

wchar_t line_char_decode(const char *bytes, size_t *len)
{
    const unsigned char *b = (const unsigned char *)bytes;
    *len = *b < 0x80 ? 1 : *b < 0xE0 ? 2 : *b < 0xF0 ? 3 : 4;
    static const unsigned char masks[] = {0, 0x7F, 0x1F, 0x0F, 0x07};
    unsigned code = *b & masks[*len];
    for (size_t i = 1; i < *len; i++)
        code = code << 6 | (b[i] & 0x3F);
    return (wchar_t)code;
}
