/* line_text.h: the text that is being edited, as code points with a cursor.
 *
 * The cursor moves by what a reader takes for one character (an approximation of Unicode's grapheme clusters): a letter
 * with its combining accents, an emoji with its joiners. A struct line_text starts zeroed and owns its memory. One
 * thread. */
#ifndef RUNNEL_CLI_LINE_TEXT_H
#define RUNNEL_CLI_LINE_TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <wchar.h>

struct line_text {
    wchar_t *chars; /* code points: no control characters but newline and tab */
    size_t n, cap;
    size_t cursor; /* 0..n, always between two characters */
};

/* Puts chars at the cursor, which then stands behind them. False: there is no memory, nothing has changed. */
bool line_text_insert(struct line_text *text, const wchar_t *chars, size_t n);
/* Takes [begin, end) out; the cursor stands at begin. */
void line_text_remove(struct line_text *text, size_t begin, size_t end);
/* Replaces all by these bytes (valid UTF-8; control characters are left out), the cursor behind them. */
bool line_text_set(struct line_text *text, const char *bytes);
/* [begin, end) as zero-terminated UTF-8 that the caller frees; NULL: no memory. */
char *line_text_bytes(const struct line_text *text, size_t begin, size_t end);
void line_text_free(struct line_text *text); /* zeroes it */

/* Where the character that begins at `at` ends, and where the one that ends at `at` begins. Never outside 0..n. */
size_t line_text_next(const struct line_text *text, size_t at);
size_t line_text_previous(const struct line_text *text, size_t at);
/* The end of the word at or behind `at`; the begin of the word at or before it. */
size_t line_text_word_end(const struct line_text *text, size_t at);
size_t line_text_word_begin(const struct line_text *text, size_t at);
/* Begin and end (the place of its newline, or n) of the line in which `at` stands. */
size_t line_text_line_begin(const struct line_text *text, size_t at);
size_t line_text_line_end(const struct line_text *text, size_t at);

/* Whether a terminal could take this code point for a command. */
bool line_char_is_control(wchar_t c);
/* The columns a terminal gives to the character [begin, end). *uncertain: terminals differ about it. Newline and tab
 * are not asked for. */
int line_text_width(const struct line_text *text, size_t begin, size_t end, bool *uncertain);
/* Writes c as UTF-8, returns its bytes; c is a valid code point. */
size_t line_char_encode(wchar_t c, char bytes[4]);
/* The first code point of valid, not empty UTF-8; *len: its bytes. */
wchar_t line_char_decode(const char *bytes, size_t *len);

#endif
