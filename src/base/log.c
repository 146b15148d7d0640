/* log.c: lines for the operator (see log.h). Owns nothing; one thread. */
#include "base/log.h"

#include "base/utf8.h"

#include <errno.h>
#include <math.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum {
    END_BYTES = 2,      /* "}\n" */
    MESSAGE_BYTES = 360 /* of log_say; even if all of it is escaped it fits a line */
};

/* Bytes --------------------------------------------------------------------------------------------------- */

/* All of them, or none and false. */
static bool put(struct log_line *line, const char *bytes, size_t len)
{
    if (len > LOG_LINE_BYTES - END_BYTES - line->len)
        return false;
    memcpy(line->bytes + line->len, bytes, len);
    line->len += len;
    return true;
}

/* Of the C1 control characters, U+0080 to U+009F, which terminals obey as they do those below a space. */
static bool is_control_pair(const unsigned char *bytes)
{
    return bytes[0] == 0xc2 && bytes[1] < 0xa0;
}

/* How many bytes at `bytes` must be escaped before any may stand as it is. */
static size_t count_bad(const unsigned char *bytes, size_t n_left, bool is_utf8)
{
    if (is_utf8 && n_left > 1 && is_control_pair(bytes))
        return 2;
    return bytes[0] < 0x20 || bytes[0] == 0x7f || (bytes[0] > 0x7f && !is_utf8);
}

/* Appends text as it may stand within a line; quoted says that it stands between quotes. */
static bool put_escaped(struct log_line *line, const char *text, size_t len, bool quoted)
{
    const unsigned char *bytes = (const unsigned char *)text;
    bool is_utf8 = utf8_valid(text, len), good = true;
    for (size_t i = 0; good && i < len;) {
        char escaped[8];
        size_t n_bad = count_bad(bytes + i, len - i, is_utf8);
        if (!n_bad && quoted && (bytes[i] == '"' || bytes[i] == '\\'))
            good = put(line, "\\", 1);
        if (!n_bad)
            good = good && put(line, text + i++, 1);
        for (; good && n_bad; n_bad--) { /* in JSON a backslash is written as two */
            int n =
                snprintf(escaped, sizeof escaped, line->log->is_json ? "\\\\x%02x" : "\\x%02x", bytes[i++]);
            good = put(line, escaped, (size_t)n);
        }
    }
    return good;
}

/* Lines ---------------------------------------------------------------------------------------------------- */

static size_t format_time(char *out, size_t size)
{
    struct timespec now;
    struct tm parts;
    clock_gettime(CLOCK_REALTIME, &now);
    gmtime_r(&now.tv_sec, &parts);
    size_t len = strftime(out, size, "%Y-%m-%dT%H:%M:%S", &parts);
    return len + (size_t)snprintf(out + len, size - len, ".%03ldZ", now.tv_nsec / 1000000);
}

static void begin(struct log_line *line, struct log *log)
{
    char now[48];
    line->log = log;
    line->len = 0;
    size_t len = format_time(now, sizeof now);
    if (log->is_json)
        put(line, "{\"time\":\"", 9);
    put(line, now, len);
    if (log->is_json)
        put(line, "\"", 1);
}

void log_begin(struct log_line *line, struct log *log, const char *event)
{
    begin(line, log);
    put(line, log->is_json ? ",\"event\":\"" : " ", log->is_json ? 10 : 1);
    put(line, event, strlen(event));
    if (log->is_json)
        put(line, "\"", 1);
}

/* " name=" or ",\"name\":". */
static bool put_name(struct log_line *line, const char *name)
{
    bool is_json = line->log->is_json;
    return put(line, is_json ? ",\"" : " ", is_json ? 2 : 1) && put(line, name, strlen(name)) &&
           put(line, is_json ? "\":" : "=", is_json ? 2 : 1);
}

static bool needs_quotes(const char *bytes, size_t len)
{
    for (size_t i = 0; i < len; i++)
        if (bytes[i] == ' ' || bytes[i] == '"' || bytes[i] == '=' || bytes[i] == '\\')
            return true;
    return !len;
}

void log_add_text(struct log_line *line, const char *name, const char *bytes, size_t len)
{
    size_t before = line->len;
    bool quoted = line->log->is_json || needs_quotes(bytes, len);
    if (!put_name(line, name) || (quoted && !put(line, "\"", 1)) || !put_escaped(line, bytes, len, quoted) ||
        (quoted && !put(line, "\"", 1)))
        line->len = before;
}

void log_add_number(struct log_line *line, const char *name, double number)
{
    char digits[48];
    size_t before = line->len;
    int n = snprintf(digits, sizeof digits, "%.3f", isfinite(number) ? number : 0);
    while (n > 0 && digits[n - 1] == '0')
        n--;
    if (n > 0 && digits[n - 1] == '.')
        n--;
    if ((size_t)n >= sizeof digits || !put_name(line, name) || !put(line, digits, (size_t)n))
        line->len = before;
}

void log_add_flag(struct log_line *line, const char *name, bool flag)
{
    size_t before = line->len;
    const char *word = flag ? "true" : "false";
    if (!put_name(line, name) || !put(line, word, strlen(word)))
        line->len = before;
}

/* Writing -------------------------------------------------------------------------------------------------- */

static bool write_bytes(const struct log *log, const char *bytes, size_t len, size_t *n_written)
{
    ssize_t n;
    do
        n = write(log->descriptor, bytes, len);
    while (n < 0 && errno == EINTR);
    *n_written = n > 0 ? (size_t)n : 0;
    return *n_written == len;
}

/* Never waits: a pipe that is ready for writing has room for PIPE_BUF bytes, and a line is shorter. */
static bool write_whole(struct log *log, const char *bytes, size_t len)
{
    struct pollfd where = {.fd = log->descriptor, .events = POLLOUT};
    size_t n_written;
    if (poll(&where, 1, 0) != 1 || !(where.revents & POLLOUT))
        return false;
    if (log->is_torn && !write_bytes(log, "\n", 1, &n_written))
        return false;
    log->is_torn = false;
    if (write_bytes(log, bytes, len, &n_written))
        return true;
    log->is_torn = n_written > 0; /* the disk became full within the line */
    return false;
}

static bool write_line(struct log_line *line)
{
    if (line->log->is_json)
        line->bytes[line->len++] = '}';
    line->bytes[line->len++] = '\n';
    return write_whole(line->log, line->bytes, line->len);
}

/* False: there is still no room. */
static bool tell_lost(struct log *log)
{
    struct log_line line;
    if (!log->n_untold)
        return true;
    log_begin(&line, log, "lost");
    log_add_number(&line, "lines", (double)log->n_untold);
    if (!write_line(&line))
        return false;
    log->n_untold = 0;
    return true;
}

void log_end(struct log_line *line)
{
    struct log *log = line->log;
    if (tell_lost(log) && write_line(line))
        return;
    log->n_lost++;
    log->n_untold++;
}

void log_say(struct log *log, const char *event, const char *format, ...)
{
    char message[MESSAGE_BYTES];
    struct log_line line;
    va_list arguments;
    va_start(arguments, format);
    int n = vsnprintf(message, sizeof message, format, arguments);
    va_end(arguments);
    size_t len = n < 0 ? 0 : (size_t)n < sizeof message ? (size_t)n : sizeof message - 1;
    if (log->is_json) {
        log_begin(&line, log, event);
        log_add_text(&line, "message", message, len);
    } else {
        begin(&line, log);
        put(&line, " ", 1);
        put_escaped(&line, message, len, false);
    }
    log_end(&line);
}
