/* line_history.c: see line_history.h. The file is locked while it is changed. */
#include "cli/line_history.h"

#include "base/text.h"
#include "base/utf8.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

enum { READ_MAX_BYTES = 64 << 20 }; /* a file that is longer is none of ours */

char *line_history_path(void)
{
    const char *history = getenv("RUNNEL_HISTORY");
    const char *state = getenv("XDG_STATE_HOME");
    const char *home = getenv("HOME");
    char *path = NULL;
    int len = -1;
    if (history)
        return *history ? strdup(history) : NULL;
    if (state && *state == '/') /* the XDG rules: a relative path is to be ignored */
        len = asprintf(&path, "%s/runnel/history", state);
    else if (home && *home == '/')
        len = asprintf(&path, "%s/.local/state/runnel/history", home);
    return len < 0 ? NULL : path;
}

/* Makes the folders above path that are missing, for this user alone. */
static void make_folders(const char *path)
{
    char *folder = strdup(path);
    if (!folder)
        return;
    for (char *slash = strchr(folder + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
        *slash = 0;
        mkdir(folder, 0700);
        *slash = '/';
    }
    free(folder);
}

/* The file, locked, or -1. */
static int open_locked(const char *path, int flags)
{
    int fd = open(path, flags | O_CLOEXEC | O_NONBLOCK | O_NOCTTY, 0600);
    struct stat stat;
    if (fd < 0)
        return -1;
    if (fstat(fd, &stat) || !S_ISREG(stat.st_mode) || stat.st_size > READ_MAX_BYTES || flock(fd, LOCK_EX)) {
        close(fd);
        return -1;
    }
    if (stat.st_mode & 077)
        fchmod(fd, 0600); /* questions are nobody else's business */
    return fd;
}

static bool read_all(int fd, struct text *bytes)
{
    char block[65536];
    ssize_t n;
    while ((n = read(fd, block, sizeof block)) > 0)
        text_add(bytes, block, (size_t)n);
    return n == 0 && !bytes->failed;
}

static bool write_all(int fd, const char *bytes, size_t len)
{
    for (size_t done = 0; done < len;) {
        ssize_t n = write(fd, bytes + done, len - done);
        if (n <= 0)
            return false;
        done += (size_t)n;
    }
    return true;
}

static void escape(struct text *line, const char *text)
{
    for (; *text; text++)
        if (*text == '\n')
            text_add_string(line, "\\n");
        else if (*text == '\\')
            text_add_string(line, "\\\\");
        else
            text_add(line, text, 1);
    text_add_string(line, "\n");
}

/* A line of the file as the text it stands for; to be freed. NULL: no memory, or no text. */
static char *unescape(const char *line, size_t len)
{
    if (!len || memchr(line, 0, len) || !utf8_valid(line, len))
        return NULL;
    char *text = malloc(len + 1), *end = text;
    if (!text)
        return NULL;
    for (size_t i = 0; i < len; i++)
        if (line[i] == '\\' && i + 1 < len && (line[i + 1] == 'n' || line[i + 1] == '\\'))
            *end++ = line[++i] == 'n' ? '\n' : '\\';
        else
            *end++ = line[i];
    *end = 0;
    return text;
}

/* Takes over text. */
static bool keep(struct line_history *history, char *text)
{
    if (history->n == history->cap) {
        size_t cap = history->cap * 2 + 64;
        char **grown = realloc(history->texts, cap * sizeof *grown);
        if (!grown) {
            free(text);
            return false;
        }
        history->texts = grown;
        history->cap = cap;
    }
    history->texts[history->n++] = text;
    return true;
}

/* Where the last lines begin that are kept: at most HISTORY_MAX_TEXTS and HISTORY_MAX_BYTES. */
static size_t find_kept(const struct text *bytes)
{
    size_t begin = bytes->len;
    for (int n_lines = 0; begin && n_lines < HISTORY_MAX_TEXTS; n_lines++) {
        const char *newline = begin > 1 ? memrchr(bytes->bytes, '\n', begin - 1) : NULL;
        size_t line = newline ? (size_t)(newline - bytes->bytes) + 1 : 0;
        if (bytes->len - line > HISTORY_MAX_BYTES)
            break;
        begin = line;
    }
    return begin;
}

/* The kept lines move to the begin before the rest is cut off: a crash between the two loses none. */
static void cut(int fd, const char *kept, size_t len)
{
    if (lseek(fd, 0, SEEK_SET) != 0 || !write_all(fd, kept, len))
        return;
    if (ftruncate(fd, (off_t)len))
        return; /* some lines stand there twice */
}

static void load(struct line_history *history)
{
    int fd = open_locked(history->path, O_RDWR);
    if (fd < 0)
        return;
    struct text bytes = {0};
    if (read_all(fd, &bytes) && bytes.len) {
        if (bytes.bytes[bytes.len - 1] != '\n' &&
            write_all(fd, "\n", 1)) /* what is added next is a line of its own */
            text_add_string(&bytes, "\n");
        size_t begin = find_kept(&bytes);
        const char *end = bytes.bytes + bytes.len;
        if (begin)
            cut(fd, bytes.bytes + begin, bytes.len - begin);
        for (const char *line = bytes.bytes + begin, *newline; line < end; line = newline + 1) {
            newline = memchr(line, '\n', (size_t)(end - line));
            newline = newline ? newline : end;
            char *text = unescape(line, (size_t)(newline - line));
            if (text && !keep(history, text))
                break;
        }
    }
    text_free(&bytes);
    close(fd);
}

bool line_history_open(struct line_history *history, const char *path)
{
    *history = (struct line_history){.path = path ? strdup(path) : NULL};
    if (path && !history->path)
        return false;
    if (path)
        load(history);
    return true;
}

/* Cuts the file to what is kept. */
static void cut_oldest(int fd)
{
    struct text bytes = {0};
    if (lseek(fd, 0, SEEK_SET) == 0 && read_all(fd, &bytes) && bytes.len) {
        size_t begin = find_kept(&bytes);
        if (begin)
            cut(fd, bytes.bytes + begin, bytes.len - begin);
    }
    text_free(&bytes);
}

/* Under the lock, so that lines of several chats do not mix. */
static void append(const char *path, const char *text)
{
    struct text line = {0};
    escape(&line, text);
    make_folders(path);
    int fd = line.failed ? -1 : open_locked(path, O_RDWR | O_CREAT);
    if (fd >= 0) {
        if (lseek(fd, 0, SEEK_END) >= 0 && write_all(fd, line.bytes, line.len))
            cut_oldest(fd);
        close(fd);
    }
    text_free(&line);
}

void line_history_add(struct line_history *history, const char *text)
{
    if (!*text || (history->n && !strcmp(history->texts[history->n - 1], text)))
        return;
    char *copy = strdup(text);
    if (copy)
        keep(history, copy);
    if (history->path && strlen(text) < HISTORY_MAX_BYTES / 2)
        append(history->path, text);
}

void line_history_close(struct line_history *history)
{
    for (size_t i = 0; i < history->n; i++)
        free(history->texts[i]);
    free(history->texts);
    free(history->path);
    *history = (struct line_history){0};
}
