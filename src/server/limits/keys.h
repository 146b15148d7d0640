/* keys.h: the API keys of a server: read once at the start, then only compared.
 *
 * Only their SHA-256 is kept. A key that a client shows is hashed and compared with all of them, whole, so that the time
 * tells nothing about any. A key's id is 1 and up, in the order given: the scheduler's shares and the prefix caches go by
 * it, and it may be printed; a key itself never is. Read-only once made: any thread. */
#ifndef RUNNEL_SERVER_LIMITS_KEYS_H
#define RUNNEL_SERVER_LIMITS_KEYS_H

#include "base/error.h"

#include <stddef.h>
#include <stdint.h>

enum { KEY_BYTES_MAX = 256 };

struct keys;

/* From lists "a,b" and from a file with a key a line (blank lines and those that begin with '#' are passed over; NULL:
 * no file). A source without a key in it is an error: the server would be open where somebody meant it not to be. */
int keys_create(const char *const *lists, size_t n_lists, const char *path, struct keys **keys,
                runnel_error *error);
void keys_free(struct keys *keys); /* NULL is fine */

uint32_t keys_count(const struct keys *keys); /* NULL: 0 */

/* The id of a key, 0 if it is none. */
uint32_t keys_find(const struct keys *keys, const char *bytes, size_t len);

#endif
