/* error.c: filling a runnel_error. Owns nothing; any thread. */
#include "base/error.h"

#include <stdarg.h>
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
