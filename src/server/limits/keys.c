/* keys.c: the API keys of a server. See keys.h. */
#include "server/limits/keys.h"

#include <errno.h>
#include <nettle/memops.h>
#include <nettle/sha2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { FILE_BYTES_MAX = 1 << 17 };

_Static_assert((int)KEY_DIGEST_BYTES == SHA256_DIGEST_SIZE, "a digest is a SHA-256");
_Static_assert((int)KEYS_MAX < (int)KEYS_STRIDE, "an id holds a seat");

static void digest(const char *bytes, size_t len, uint8_t out[SHA256_DIGEST_SIZE])
{
    struct sha256_ctx context;
    sha256_init(&context);
    sha256_update(&context, len, (const uint8_t *)bytes);
    sha256_digest(&context, SHA256_DIGEST_SIZE, out);
}

uint32_t keys_find(const struct keys *keys, const char *bytes, size_t len)
{
    uint8_t shown[SHA256_DIGEST_SIZE];
    uint32_t id = 0;
    digest(bytes, len, shown);
    for (uint32_t i = 0; i < keys->n_seats; i++) /* all of them, whichever it is; a free seat has the id 0 */
        id |= (uint32_t)memeql_sec(keys->digests[i], shown, sizeof shown) * keys->ids[i];
    return id;
}

uint32_t keys_seat(uint32_t id)
{
    return id % KEYS_STRIDE;
}

uint32_t keys_count(const struct keys *keys)
{
    return keys ? keys->n : 0;
}

/* where: "--api-key", or the file and the line. Messages never hold the key. */
static int add(struct keys *keys, const char *bytes, size_t len, const char *where, runnel_error *error)
{
    for (size_t i = 0; i < len; i++)
        if (bytes[i] <= ' ' || bytes[i] > '~')
            return error_set(error, RUNNEL_EINVAL,
                             "%s: expected a key of visible ASCII characters, found another byte in it",
                             where);
    if (len > KEY_BYTES_MAX)
        return error_set(error, RUNNEL_EINVAL, "%s: expected a key of at most %d characters, found %zu",
                         where, KEY_BYTES_MAX, len);
    if (keys_find(keys, bytes, len))
        return RUNNEL_OK; /* given twice */
    if (keys->n == KEYS_MAX)
        return error_set(error, RUNNEL_EINVAL, "%s: expected at most %d keys", where, KEYS_MAX);
    digest(bytes, len, keys->digests[keys->n]);
    keys->ids[keys->n] = keys->n + 1;
    keys->n_seats = ++keys->n;
    return RUNNEL_OK;
}

static int add_list(struct keys *keys, const char *list, runnel_error *error)
{
    bool found = false;
    for (const char *at = list;; at++) {
        size_t len = strcspn(at, ",");
        int failure = len ? add(keys, at, len, "--api-key", error) : RUNNEL_OK;
        if (failure)
            return failure;
        found |= len > 0;
        at += len;
        if (!*at)
            break;
    }
    return found ? RUNNEL_OK : error_set(error, RUNNEL_EINVAL, "--api-key: expected a key, found nothing");
}

static bool is_blank(char byte)
{
    return byte == ' ' || byte == '\t' || byte == '\r';
}

/* text ends in a zero. */
static int add_lines(struct keys *keys, const char *text, const char *path, runnel_error *error)
{
    bool found = false;
    unsigned number = 1;
    for (const char *line = text; *line; number++) {
        size_t whole = strcspn(line, "\n"), len = whole;
        const char *next = line + whole + (line[whole] == '\n');
        for (; len && is_blank(*line); len--)
            line++;
        while (len && is_blank(line[len - 1]))
            len--;
        if (len && *line != '#') {
            char where[256];
            snprintf(where, sizeof where, "%.200s, line %u", path, number);
            int failure = add(keys, line, len, where, error);
            if (failure)
                return failure;
            found = true;
        }
        line = next;
    }
    return found ? RUNNEL_OK
                 : error_set(error, RUNNEL_EINVAL, "%.200s: expected a key on a line of its own, found none",
                             path);
}

static int add_file(struct keys *keys, const char *path, runnel_error *error)
{
    char *text = malloc(FILE_BYTES_MAX + 1);
    FILE *file = text ? fopen(path, "re") : NULL;
    int failure;
    if (!text) {
        failure = error_set(error, RUNNEL_ENOMEM, "%.200s: no memory to read it", path);
    } else if (!file) {
        failure = error_set(error, RUNNEL_EIO, "%.200s: cannot be opened: %s", path, strerror(errno));
    } else {
        size_t len = fread(text, 1, FILE_BYTES_MAX + 1, file);
        if (ferror(file))
            failure = error_set(error, RUNNEL_EIO, "%.200s: cannot be read: %s", path, strerror(errno));
        else if (len > FILE_BYTES_MAX || memchr(text, 0, len))
            failure = error_set(error, RUNNEL_EINVAL,
                                "%.200s: expected text of at most %d KiB, found something else", path,
                                FILE_BYTES_MAX >> 10);
        else {
            text[len] = 0;
            failure = add_lines(keys, text, path, error);
        }
    }
    if (file)
        fclose(file);
    if (text)
        explicit_bzero(text, FILE_BYTES_MAX + 1);
    free(text);
    return failure;
}

int keys_create(const char *const *lists, size_t n_lists, const char *path, struct keys **out,
                runnel_error *error)
{
    struct keys *keys = calloc(1, sizeof *keys);
    if (!keys)
        return error_set(error, RUNNEL_ENOMEM, "no memory for API keys");
    int failure = RUNNEL_OK;
    for (size_t i = 0; i < n_lists && !failure; i++)
        failure = add_list(keys, lists[i], error);
    if (!failure && path)
        failure = add_file(keys, path, error);
    if (failure) {
        keys_free(keys);
        return failure;
    }
    *out = keys;
    return RUNNEL_OK;
}

void keys_free(struct keys *keys)
{
    free(keys);
}

/* Generations -------------------------------------------------------------------------------------------- */

/* The seat of a digest, 0 if it has none. No client waits for this: the time may tell. */
static uint32_t find_seat(const struct keys *keys, const uint8_t digest[KEY_DIGEST_BYTES])
{
    for (uint32_t i = 0; i < keys->n_seats; i++)
        if (keys->ids[i] && !memcmp(keys->digests[i], digest, KEY_DIGEST_BYTES))
            return i + 1;
    return 0;
}

static void put(struct keys *keys, uint32_t seat, uint32_t id, const uint8_t digest[KEY_DIGEST_BYTES])
{
    keys->ids[seat - 1] = id;
    memcpy(keys->digests[seat - 1], digest, KEY_DIGEST_BYTES);
    keys->n++;
    if (seat > keys->n_seats)
        keys->n_seats = seat;
}

/* The first seat that is free in both, or at least in these: requests of a key that is gone may still run. */
static uint32_t free_seat(const struct keys *keys, const struct keys *before)
{
    uint32_t free_here = 0;
    for (uint32_t i = 0; i < KEYS_MAX; i++) {
        if (!keys->ids[i] && !before->ids[i])
            return i + 1;
        if (!keys->ids[i] && !free_here)
            free_here = i + 1;
    }
    return free_here;
}

void keys_carry_over(struct keys *keys, const struct keys *before, uint64_t generation)
{
    const struct keys read = *keys;
    *keys = (struct keys){0};
    for (uint32_t i = 0; i < read.n_seats; i++) {
        uint32_t seat = read.ids[i] ? find_seat(before, read.digests[i]) : 0;
        if (seat)
            put(keys, seat, before->ids[seat - 1], read.digests[i]);
    }
    for (uint32_t i = 0; i < read.n_seats; i++)
        if (read.ids[i] && !find_seat(before, read.digests[i])) {
            uint32_t seat = free_seat(keys, before);
            put(keys, seat, (uint32_t)(generation - 1) * KEYS_STRIDE + seat, read.digests[i]);
        }
}
