/* line_terminal.h: the modes of the terminal during a chat, and how it is given back.
 *
 * stdin is the terminal. What was found is kept in one place for the whole process, because signal handlers give it
 * back: one chat at a time, on the thread that takes signals. */
#ifndef RUNNEL_CLI_LINE_TERMINAL_H
#define RUNNEL_CLI_LINE_TERMINAL_H

#include <signal.h>
#include <stdbool.h>

/* Whether the terminal knows sequences such as "erase the row": TERM says so. Any thread. */
bool terminal_knows_commands(void);

/* What a wait for bytes ended with. */
enum terminal_event { TERMINAL_BYTES, TERMINAL_INTERRUPTED, TERMINAL_RESUMED, TERMINAL_END };

/* Remembers the terminal as it is and takes the signals that end or stop the program, so that it is given back before.
 * paste_fd: where a terminal that knows bracketed paste is switched to it while a text is read; -1: none. */
void terminal_open(int paste_fd);
void terminal_close(void); /* gives the terminal and those signals back */

/* While a text is read: every key is a byte, Ctrl-C and Ctrl-Z too, so that none in a pasted text does anything. */
void terminal_begin_reading(void);
/* While an answer comes: Ctrl-C is SIGINT; keys are kept for the next text, not shown. Lines are not gathered: a Ctrl-D
 * among them would be lost. */
void terminal_end_reading(void);

/* Up to size bytes of what is typed; waits for the first. SIGINT from elsewhere: TERMINAL_INTERRUPTED; after the program
 * was stopped and goes on: TERMINAL_RESUMED. Only between begin and end. */
enum terminal_event terminal_read(char *bytes, size_t size, size_t *len);
/* Whether more would come at once, or within this time. */
bool terminal_has_bytes(int timeout_ms);

/* As it was found; for signal handlers. */
void terminal_restore(void);

#endif
