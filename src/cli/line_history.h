/* line_history.h: what was asked before, over runs of the program.
 *
 * The file has a line for each text, the oldest first; "\n" and "\\" stand for newline and backslash in it. Several chats
 * may use it at once: each adds its own lines at the end, and cuts the file to what is kept, as whoever opens it does. What cannot be
 * read or written is left alone without a word: the chat goes on, its history lasts as long as it does. One thread. */
#ifndef RUNNEL_CLI_LINE_HISTORY_H
#define RUNNEL_CLI_LINE_HISTORY_H

#include <stdbool.h>
#include <stddef.h>

enum {
    HISTORY_MAX_TEXTS = 1000,
    HISTORY_MAX_BYTES = 4 << 20, /* of the file */
};

struct line_history {
    char **texts; /* the oldest first */
    size_t n, cap;
    char *path; /* NULL: no file */
};

/* Where the history is kept: $RUNNEL_HISTORY, else runnel/history in $XDG_STATE_HOME or ~/.local/state. To be freed. NULL:
 * nowhere, because RUNNEL_HISTORY is empty or there is no home. */
char *line_history_path(void);

/* Reads the file, if there is one; path may be NULL. False: no memory, nothing to close. */
bool line_history_open(struct line_history *history, const char *path);
/* Adds a text, here and to the file, unless it is the newest already or empty. */
void line_history_add(struct line_history *history, const char *text);
void line_history_close(struct line_history *history);

#endif
