/* line_display.h: how the text that is being edited stands on the terminal.
 *
 * The text wraps at the right margin; lines behind a newline begin with "... ". Only what has changed is painted. Of a text
 * with more rows than the screen, those around the cursor are shown. Terminals that know no cursor movement (TERM is
 * dumb or not set) get one row that scrolls sideways. One thread. */
#ifndef RUNNEL_CLI_LINE_DISPLAY_H
#define RUNNEL_CLI_LINE_DISPLAY_H

#include "base/text.h"
#include "cli/line_text.h"

/* A place on the screen: rows count from the prompt's. */
struct line_place {
    int row, column;
};

struct line_display {
    int fd;             /* -1: nothing is shown */
    bool moves;         /* the terminal knows cursor movement */
    const char *prompt; /* one row */
    int n_columns, n_rows;
    int top;                /* the first row that is shown */
    struct line_place pen;  /* where the terminal's cursor is */
    struct line_text shown; /* what stands there */
    bool is_new;            /* nothing has been painted yet */
    int n_painted;          /* columns of the row, where the terminal knows no movement */
    struct text output;     /* what is written at once */
};

/* Goes to the row of the prompt: newlines at its begin are written now. prompt stays the caller's, until the end. */
void line_display_begin(struct line_display *display, const char *prompt);
/* Brings the screen to what text is now. */
void line_display_show(struct line_display *display, const struct line_text *text);
/* The screen is not as it was left: it is painted again, in rows below, or on an empty screen. */
void line_display_lost(struct line_display *display, bool clears);
/* Another prompt from now on; one row. */
void line_display_change_prompt(struct line_display *display, const char *prompt);
/* Goes behind the text; ends_line: and to the next row. */
void line_display_end(struct line_display *display, struct line_text *text, bool ends_line);
void line_display_free(struct line_display *display);

#endif
