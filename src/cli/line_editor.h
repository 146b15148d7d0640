/* line_editor.h: what somebody types on the terminal, text by text.
 *
 * UTF-8 whatever the locale says. A text may have several lines: pasted ones, a line that ends in a backslash goes on in
 * the next, and a text that begins with """ ends with """. One editor at a time, on the main thread, which takes the
 * signals. Between two texts keys are kept and not shown, and Ctrl-C is SIGINT. */
#ifndef RUNNEL_CLI_LINE_EDITOR_H
#define RUNNEL_CLI_LINE_EDITOR_H

#include "runnel.h"

struct line_editor;

enum line_result {
    LINE_TEXT,
    LINE_CLEARED,     /* Ctrl-C: what stood in the line was thrown away */
    LINE_INTERRUPTED, /* Ctrl-C in an empty line */
    LINE_END, /* Ctrl-D in an empty line, Ctrl-C in an empty line after LINE_INTERRUPTED, or the terminal is gone */
};

/* Takes the terminal on stdin. history_path: the file that keeps what was typed over runs (see line_history.h); NULL:
 * none. A file that cannot be used is no failure. */
int line_editor_open(const char *history_path, struct line_editor **editor, runnel_error *error);

/* Waits for one text. prompt may begin with newlines. *text is the caller's to free, NULL unless LINE_TEXT. From here on
 * SIGINT is the editor's, until somebody else takes it. */
enum line_result line_editor_read(struct line_editor *editor, const char *prompt, char **text);

/* Keeps text for the arrow keys, and in the history's file. */
void line_editor_remember(struct line_editor *editor, const char *text);

/* Gives the terminal back as it was found; for signal handlers that end the program. */
void line_editor_restore(void);

/* Gives the terminal back and frees the editor, which may be NULL. */
void line_editor_close(struct line_editor *editor);

#endif
