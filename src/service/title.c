/* title.c: see title.h. The system shows the bytes between argv's first and last as the command line; the environment lies
 * behind them. */
#include "service/title.h"

#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char *room; /* where the title stands; NULL: not prepared */
static size_t n_room;

/* Copies of n strings, with a NULL behind them, in one block. */
static char **copy_strings(char **strings, int n)
{
    size_t n_bytes = 0;
    for (int i = 0; i < n; i++)
        n_bytes += strlen(strings[i]) + 1;
    char **copies = malloc(((size_t)n + 1) * sizeof *copies + n_bytes);
    if (!copies)
        return NULL;
    char *at = (char *)(copies + n + 1);
    for (int i = 0; i < n; i++) {
        size_t len = strlen(strings[i]) + 1;
        copies[i] = memcpy(at, strings[i], len);
        at += len;
    }
    copies[n] = NULL;
    return copies;
}

/* The end of the strings that lie one after the other from start on. */
static char *find_end(char *start, char **strings, int n)
{
    char *end = start;
    for (int i = 0; i < n; i++)
        if (strings[i] == end)
            end += strlen(strings[i]) + 1;
    return end;
}

char **title_prepare(int argc, char **argv)
{
    static char **kept_arguments, **kept_environment; /* so that nobody takes them for lost */
    int n_environment = 0;
    while (environ && environ[n_environment])
        n_environment++;
    if (argc < 1)
        return argv;
    kept_arguments = copy_strings(argv, argc);
    kept_environment = copy_strings(environ, n_environment);
    if (!kept_arguments || !kept_environment) {
        free(kept_arguments);
        free(kept_environment);
        kept_arguments = kept_environment = NULL;
        return argv;
    }
    char *end = find_end(argv[0], argv, argc);
    end = find_end(end, environ, n_environment);
    room = argv[0];
    n_room = (size_t)(end - room);
    environ = kept_environment;
    return kept_arguments;
}

void title_set(const char *format, ...)
{
    va_list arguments;
    if (!room)
        return;
    va_start(arguments, format);
    int len = vsnprintf(room, n_room, format, arguments);
    va_end(arguments);
    if (len >= 0 && (size_t)len < n_room)
        memset(room + len, 0, n_room - (size_t)len);
}
