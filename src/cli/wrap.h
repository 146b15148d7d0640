/* wrap.h: text that comes in pieces to lines that break between words at a terminal's width.
 *
 * A word is written once it has ended. Blocks of code (fenced or indented by four) and lines of tables are left as they
 * are, and so is a word that is longer than a line. Characters of Chinese and Japanese are words of their own, as they
 * are written without spaces; wide ones take two columns. An item of a list goes on under its first word. The width is
 * asked for with each word, so that a window may change it. Control characters that a text has, but for newline and tab,
 * are shown by their pictures (ESC as U+241B): the terminal obeys none. A carriage return is left out. A struct wrap is started with wrap_start and belongs to one
 * thread at a time. */
#ifndef RUNNEL_CLI_WRAP_H
#define RUNNEL_CLI_WRAP_H

#include <locale.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

enum { WRAP_WORD_MAX = 1024 }; /* bytes; a longer word is written in parts */

struct wrap {
    FILE *out;
    unsigned fixed_columns; /* 0: those of the terminal that out is */
    locale_t locale;        /* whose character widths count; 0: none could be had */
    char word[WRAP_WORD_MAX];
    size_t word_len;
    unsigned word_columns;
    uint32_t last;     /* character of the word; 0: none */
    unsigned n_spaces; /* before it, not yet written */
    unsigned column;   /* where the cursor stands */
    unsigned hang;     /* columns before a line that goes on with an item of a list */
    char fence;        /* of the block of code that is open; 0: none */
    bool line_begins;  /* the line's first word has not ended */
    bool as_is;        /* the line is left as it is */
    bool runs;         /* the word is longer than a line, and is being written */
};

void wrap_start(struct wrap *wrap, FILE *out, unsigned fixed_columns);
/* Takes whole UTF-8 characters. */
void wrap_write(struct wrap *wrap, const char *text, size_t len);
/* Writes what is left of the last word, without a newline behind it. Nothing may be written after that. */
void wrap_end(struct wrap *wrap);

/* The columns of the terminal that out is; UINT16_MAX if it is none, or its width is not known. */
unsigned wrap_columns(FILE *out);

/* Writes a whole text, broken only if out is a terminal; each line goes on behind hang columns. */
void wrap_print(FILE *out, unsigned hang, const char *text);

#endif
