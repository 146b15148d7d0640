/* pattern_text.c: see pattern_text.h. */
#include "constrain/pattern_text.h"

#include <string.h>

enum { MAX_NUMBER = 1000000 };

bool pattern_fail(struct pattern_text *text, int code, const char *what)
{
    size_t shown = text->len - text->at < 24 ? text->len - text->at : 24;
    if (!text->failed)
        error_set(text->error, code, "at byte %zu ('%.*s'): %s", text->at, (int)shown, text->text + text->at,
                  what);
    text->failed = true;
    return false;
}

/* The character at a place and its bytes; TEXT_OVER with no bytes: it is none. */
static uint32_t decode(const char *text, size_t len, size_t *n_bytes)
{
    static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
    unsigned char first = len ? (unsigned char)text[0] : 0xff;
    size_t n = first < 0x80   ? 1
               : first < 0xc2 ? 0
               : first < 0xe0 ? 2
               : first < 0xf0 ? 3
               : first < 0xf5 ? 4
                              : 0;
    uint32_t character = n == 1 ? first : first & (0x7fu >> n);
    *n_bytes = 0;
    if (!n || n > len)
        return TEXT_OVER;
    for (size_t i = 1; i < n; i++) {
        if (((unsigned char)text[i] & 0xc0) != 0x80)
            return TEXT_OVER;
        character = character << 6 | ((unsigned char)text[i] & 0x3f);
    }
    if (character < least[n] || character > CHARSET_LAST || (character >= 0xd800 && character <= 0xdfff))
        return TEXT_OVER;
    *n_bytes = n;
    return character;
}

static uint32_t look(struct pattern_text *text, size_t *n_bytes)
{
    *n_bytes = 0;
    if (text->failed || text->at >= text->len)
        return TEXT_OVER;
    uint32_t character = decode(text->text + text->at, text->len - text->at, n_bytes);
    if (character == TEXT_OVER)
        pattern_fail(text, RUNNEL_EINVAL, "this is no UTF-8");
    return character;
}

uint32_t pattern_peek(struct pattern_text *text)
{
    size_t n;
    return look(text, &n);
}

uint32_t pattern_take(struct pattern_text *text)
{
    size_t n;
    uint32_t character = look(text, &n);
    text->at += n;
    return character;
}

bool pattern_skip(struct pattern_text *text, const char *expected)
{
    size_t n = strlen(expected);
    if (text->failed || n > text->len - text->at || memcmp(text->text + text->at, expected, n))
        return false;
    text->at += n;
    return true;
}

bool pattern_number(struct pattern_text *text, uint32_t *number)
{
    size_t begin = text->at;
    uint32_t value = 0;
    for (; text->at < text->len && text->text[text->at] >= '0' && text->text[text->at] <= '9'; text->at++) {
        value = value * 10 + (uint32_t)(text->text[text->at] - '0');
        if (value > MAX_NUMBER)
            return pattern_fail(text, RUNNEL_EUNSUPPORTED, "expected at most a million times");
    }
    *number = value;
    return text->at > begin;
}

bool pattern_hex(struct pattern_text *text, unsigned n, uint32_t *number)
{
    uint32_t value = 0;
    if (n > text->len - text->at)
        return false;
    for (unsigned i = 0; i < n; i++) {
        char c = text->text[text->at + i];
        uint32_t digit = c >= '0' && c <= '9'   ? (uint32_t)(c - '0')
                         : c >= 'a' && c <= 'f' ? (uint32_t)(c - 'a' + 10)
                         : c >= 'A' && c <= 'F' ? (uint32_t)(c - 'A' + 10)
                                                : 16;
        if (digit == 16)
            return false;
        value = value << 4 | digit;
    }
    text->at += n;
    *number = value;
    return true;
}

bool pattern_times(struct pattern_text *text, uint32_t *min, uint32_t *max)
{
    size_t begin = text->at;
    uint32_t least = 0, most = EXPR_FOREVER;
    bool has_least = pattern_number(text, &least), has_most = false;
    bool has_comma = pattern_skip(text, ",");
    if (has_comma)
        has_most = pattern_number(text, &most);
    else
        most = least;
    if (text->failed)
        return false;
    if ((!has_least && !has_most) || !pattern_skip(text, "}")) {
        text->at = begin;
        return false;
    }
    *min = least;
    *max = has_comma && !has_most ? EXPR_FOREVER : most;
    return true;
}
