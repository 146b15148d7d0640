/* error.c: filling a runnel_error. Owns nothing; any thread. */
#include "base/error.h"

#include <ctype.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

/* Names come from files: a control byte must not reach somebody's terminal. */
static void replace_control_bytes(char *text)
{
    for (; *text; text++)
        if ((unsigned char)*text < 0x20 || *text == 0x7f)
            *text = '?';
}

int error_set(runnel_error *error, int code, const char *format, ...)
{
    if (!error)
        return code;
    va_list args;
    va_start(args, format);
    vsnprintf(error->message, sizeof error->message, format, args);
    va_end(args);
    replace_control_bytes(error->message);
    error->code = code;
    return code;
}

int error_prefix(runnel_error *error, const char *format, ...)
{
    if (!error)
        return RUNNEL_EINVAL;
    char old[sizeof error->message];
    memcpy(old, error->message, sizeof old);
    va_list args;
    va_start(args, format);
    int len = vsnprintf(error->message, sizeof error->message, format, args);
    va_end(args);
    if (len >= 0 && (size_t)len + 2 < sizeof error->message) {
        size_t room =
            sizeof error->message - (size_t)len - 2; /* for what was there, as much as fits, and its zero */
        old[room - 1] = 0;
        memcpy(error->message + len, ": ", 2);
        memcpy(error->message + len + 2, old, room);
    }
    replace_control_bytes(error->message);
    return error->code;
}

static bool is_of_name(char c)
{
    return isalnum((unsigned char)c) || c == '_';
}

void error_name_options(const struct field_name *names, runnel_error *error)
{
    for (; names->field; names++) {
        char renamed[sizeof error->message];
        size_t len = strlen(names->field);
        const char *found = strstr(error->message, names->field);
        if (!found || (found > error->message && is_of_name(found[-1])) || is_of_name(found[len]))
            continue;
        snprintf(renamed, sizeof renamed, "%.*s%s%s", (int)(found - error->message), error->message,
                 names->option, found + len);
        memcpy(error->message, renamed, sizeof renamed);
    }
}
