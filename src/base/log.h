/* log.h: lines for the operator: what happened, and when, as text or as JSON.
 *
 *     struct log log = {.descriptor = STDERR_FILENO, .is_json = false};
 *     log_say(&log, "ready", "Runnel serves %s", name);
 *
 *     struct log_line line;
 *     log_begin(&line, &log, "request");
 *     log_add_text(&line, "path", path, len);
 *     log_add_number(&line, "total_ms", 12.5);
 *     log_end(&line);
 *
 *     2026-01-31T12:00:00.000Z Runnel serves ...
 *     2026-01-31T12:00:00.000Z request path=/health total_ms=12.5
 *     {"time":"2026-01-31T12:00:00.000Z","event":"request","path":"/health","total_ms":12.5}
 *
 * A line is written whole or not at all, and writing never waits and never fails for its caller: where there is no room
 * (a full disk, a reader that does not read) the line is lost and counted, and the next one that can be written is
 * preceded by one that says how many were. Control bytes and what is no UTF-8 are escaped, so that what a client
 * sends cannot end a line or move a cursor. One thread; nothing is allocated. */
#ifndef RUNNEL_BASE_LOG_H
#define RUNNEL_BASE_LOG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { LOG_LINE_BYTES = 2048 }; /* a longer one is cut; less than PIPE_BUF, so that pipes take it whole */

struct log {
    int descriptor; /* the owner's */
    bool is_json;
    uint64_t n_lost;   /* lines, since the start */
    uint64_t n_untold; /* of these, such as no line has told of yet */
    bool is_torn;      /* the last line was written in part; the next one begins on a line of its own */
};

struct log_line {
    struct log *log;
    size_t len;
    char bytes[LOG_LINE_BYTES];
};

/* A line with the time and what kind of event this is: a fixed word. */
void log_begin(struct log_line *line, struct log *log, const char *event);
/* Names are fixed words; what does not fit any more is left out. */
void log_add_text(struct log_line *line, const char *name, const char *bytes, size_t len);
void log_add_number(struct log_line *line, const char *name, double number); /* three decimals at most */
void log_add_flag(struct log_line *line, const char *name, bool flag);
void log_end(struct log_line *line);

/* A line that says one thing, in words for people. */
void log_say(struct log *log, const char *event, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

#endif
