/* utf8.h: bytes that come in pieces to whole UTF-8 characters.
 *
 * Strict: overlong forms, surrogates and code points past U+10FFFF are invalid. What is invalid becomes
 * U+FFFD, one for each maximal subpart, as the Unicode Standard recommends (section 3.9, "U+FFFD Substitution
 * of Maximal Subparts"). A struct utf8_assembler is plain state without memory of its own; all zero is its
 * start. Any thread. */
#ifndef RUNNEL_BASE_UTF8_H
#define RUNNEL_BASE_UTF8_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { UTF8_PUSH_MAX = 6 }; /* bytes that one pushed byte can give at most: two U+FFFD */

struct utf8_assembler {
    char bytes[4];     /* the beginning of a character */
    uint8_t n_bytes;   /* of it; 0: between characters */
    uint8_t n_missing; /* bytes until it is whole */
    uint8_t low, high; /* what the next byte must lie in */
};

/* Takes a byte, writes the characters that are now certain to out and returns how many bytes they have (may
 * be 0). */
size_t utf8_push(struct utf8_assembler *assembler, uint8_t byte, char out[UTF8_PUSH_MAX]);

/* The bytes have ended: a character that was begun becomes U+FFFD. Returns the bytes written to out, 0 or 3.
 */
size_t utf8_finish(struct utf8_assembler *assembler, char out[UTF8_PUSH_MAX]);

/* How many bytes a character has that begins with this one, of valid UTF-8. */
static inline size_t utf8_width(char first)
{
    unsigned char byte = (unsigned char)first;
    return byte < 0x80 ? 1 : byte < 0xe0 ? 2 : byte < 0xf0 ? 3 : 4;
}

/* Where the first bytes begin that are no whole, valid character; len: there are none. */
size_t utf8_find_wrong(const char *text, size_t len);

/* Whether text is nothing but whole, valid characters. */
bool utf8_valid(const char *text, size_t len);

#endif
