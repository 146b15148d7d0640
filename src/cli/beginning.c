/* beginning.c: see beginning.h. */
#include "cli/beginning.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#include "base/error.h"

enum { TEXT_CHARACTERS = 40, HEX_BYTES = 8 };

static const struct {
    const char *bytes; /* BEGINNING_BYTES */
    const char *text;
} beginnings[] = {
    [BEGINNING_GGUF] = {"GGUF", "a GGUF file"},
    [BEGINNING_ZIP] = {"PK\3\4", "a Python package (a zip file)"},
};

/* Of an answer that comes in small pieces there are only the first bytes of the word. */
static bool begins_with(const char *bytes, size_t n_bytes, const char *text)
{
    size_t len = strlen(text) < n_bytes ? strlen(text) : n_bytes;
    return len >= BEGINNING_BYTES && strncasecmp(bytes, text, len) == 0;
}

/* What it is if a word says it, else NULL. */
static const char *name_kind(const char *bytes, size_t n_bytes)
{
    while (n_bytes > 0 && strchr(" \t\r\n\xef\xbb\xbf", *bytes) && *bytes)
        bytes++, n_bytes--;
    if (begins_with(bytes, n_bytes, "<!doctype html") || begins_with(bytes, n_bytes, "<html") ||
        begins_with(bytes, n_bytes, "<head"))
        return "an HTML page (of a network that wants a login, perhaps): ";
    if (begins_with(bytes, n_bytes, "version https://git-lfs"))
        return "the note that Git LFS keeps in place of the file: ";
    if (begins_with(bytes, n_bytes, "PK\3\4"))
        return "a zip file: ";
    if (begins_with(bytes, n_bytes, "GGUF"))
        return "a GGUF file: ";
    return NULL;
}

/* The bytes as text in quotes, cut at the end of a line, or as hexadecimal numbers. */
static void show_bytes(const char *bytes, size_t n_bytes, char *text, size_t size)
{
    size_t n = 0, len = 0;
    while (n < n_bytes && n < TEXT_CHARACTERS && bytes[n] >= ' ' && bytes[n] <= '~')
        n++;
    bool is_text = n > 0 && (n == n_bytes || n == TEXT_CHARACTERS || bytes[n] == '\n' || bytes[n] == '\r');
    if (is_text) {
        snprintf(text, size, "\"%.*s\"", (int)n, bytes);
        return;
    }
    for (size_t i = 0; i < n_bytes && i < HEX_BYTES; i++)
        len += (size_t)snprintf(text + len, size - len, "%s%02x", i ? " " : "", (unsigned char)bytes[i]);
}

void beginning_describe(const char *bytes, size_t n_bytes, char text[BEGINNING_TEXT_BYTES])
{
    char shown[TEXT_CHARACTERS + 8];
    const char *kind = name_kind(bytes, n_bytes);
    if (n_bytes == 0) {
        snprintf(text, BEGINNING_TEXT_BYTES, "nothing");
        return;
    }
    show_bytes(bytes, n_bytes, shown, sizeof shown);
    snprintf(text, BEGINNING_TEXT_BYTES, "%s%s", kind ? kind : "what begins with ", shown);
}

int beginning_check(enum beginning wanted, const char *bytes, size_t n_bytes, runnel_error *error)
{
    if (n_bytes >= BEGINNING_BYTES && memcmp(bytes, beginnings[wanted].bytes, BEGINNING_BYTES) == 0)
        return RUNNEL_OK;
    char found[BEGINNING_TEXT_BYTES];
    beginning_describe(bytes, n_bytes, found);
    return error_set(error, RUNNEL_EFORMAT, "expected %s, found %s", beginnings[wanted].text, found);
}

int beginning_check_file(enum beginning wanted, const char *path, runnel_error *error)
{
    char bytes[BEGINNING_SHOWN_BYTES];
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return error_set(error, RUNNEL_EIO, "%s: cannot be opened: %s", path, strerror(errno));
    ssize_t n = read(fd, bytes, sizeof bytes);
    int number = errno;
    close(fd);
    if (n < 0)
        return error_set(error, RUNNEL_EIO, "%s: cannot be read: %s", path, strerror(number));
    return beginning_check(wanted, bytes, (size_t)n, error);
}
