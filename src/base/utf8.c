/* utf8.c: bytes that come in pieces to whole UTF-8 characters (table 3-7 of the Unicode Standard,
 * "Well-Formed UTF-8 Byte Sequences"). Owns nothing; any thread. */
#include "base/utf8.h"

#include <string.h>

static const char REPLACEMENT[3] = "\xef\xbf\xbd"; /* U+FFFD */

/* Begins a character. False if no character begins with this byte. */
static bool begin(struct utf8_assembler *a, uint8_t byte)
{
    a->low = 0x80;
    a->high = 0xbf;
    if (byte >= 0xc2 && byte <= 0xdf) {
        a->n_missing = 1;
    } else if (byte >= 0xe0 && byte <= 0xef) {
        a->n_missing = 2;
        if (byte == 0xe0)
            a->low = 0xa0; /* below: overlong */
        if (byte == 0xed)
            a->high = 0x9f; /* above: surrogates */
    } else if (byte >= 0xf0 && byte <= 0xf4) {
        a->n_missing = 3;
        if (byte == 0xf0)
            a->low = 0x90; /* below: overlong */
        if (byte == 0xf4)
            a->high = 0x8f; /* above: past U+10FFFF */
    } else {
        return false;
    }
    a->bytes[0] = (char)byte;
    a->n_bytes = 1;
    return true;
}

size_t utf8_push(struct utf8_assembler *a, uint8_t byte, char out[UTF8_PUSH_MAX])
{
    size_t len = 0;
    if (a->n_bytes) {
        if (byte >= a->low && byte <= a->high) {
            a->bytes[a->n_bytes++] = (char)byte;
            a->low = 0x80;
            a->high = 0xbf;
            if (--a->n_missing)
                return 0;
            len = a->n_bytes;
            a->n_bytes = 0;
            memcpy(out, a->bytes, len);
            return len;
        }
        /* What came so far is a maximal subpart; this byte is looked at afresh. */
        len = utf8_finish(a, out);
    }
    if (byte < 0x80) {
        out[len++] = (char)byte;
    } else if (!begin(a, byte)) {
        memcpy(out + len, REPLACEMENT, sizeof REPLACEMENT);
        len += sizeof REPLACEMENT;
    }
    return len;
}

size_t utf8_finish(struct utf8_assembler *a, char out[UTF8_PUSH_MAX])
{
    if (!a->n_bytes)
        return 0;
    a->n_bytes = 0;
    memcpy(out, REPLACEMENT, sizeof REPLACEMENT);
    return sizeof REPLACEMENT;
}

size_t utf8_find_wrong(const char *text, size_t len)
{
    const unsigned char *bytes = (const unsigned char *)text;
    size_t i = 0;
    while (i < len) {
        unsigned char first = bytes[i];
        if (first < 0x80) {
            i++;
            continue;
        }
        size_t width = first >= 0xf0 ? 4 : first >= 0xe0 ? 3 : 2;
        if (first < 0xc2 || first > 0xf4 || len - i < width)
            return i;
        /* The second byte says whether a character is over-long, a surrogate or past U+10FFFF. */
        unsigned char low = first == 0xe0 ? 0xa0 : first == 0xf0 ? 0x90 : 0x80;
        unsigned char high = first == 0xed ? 0x9f : first == 0xf4 ? 0x8f : 0xbf;
        if (bytes[i + 1] < low || bytes[i + 1] > high)
            return i;
        for (size_t k = 2; k < width; k++)
            if ((bytes[i + k] & 0xc0) != 0x80)
                return i;
        i += width;
    }
    return i;
}

bool utf8_valid(const char *text, size_t len)
{
    return utf8_find_wrong(text, len) == len;
}
