/* keys.h: the API keys of a server: read at the start and whenever they are to be read again, then only compared.
 *
 * Only their SHA-256 is kept. A key that a client shows is hashed and compared with all of them, whole, so that the time
 * tells nothing about any. A key has a seat, 1 to KEYS_MAX, by which shares are counted, and an id, which holds the seat
 * and which no other key ever has: the scheduler's shares and the prefix caches go by it, and it may be printed; a key
 * itself never is. Keys read at the start have the same id as seat: 1 and up, in the order given. The struct is plain
 * numbers; nothing here changes one that was made but keys_carry_over. */
#ifndef RUNNEL_SERVER_LIMITS_KEYS_H
#define RUNNEL_SERVER_LIMITS_KEYS_H

#include "base/error.h"

#include <stddef.h>
#include <stdint.h>

enum {
    KEY_BYTES_MAX = 256, /* of a key */
    KEY_DIGEST_BYTES = 32,
    KEYS_MAX = 256,
    KEYS_STRIDE =
        512, /* an id is a seat, and so many times how often keys had been read before it was given */
};

struct keys {
    uint32_t n;
    uint32_t n_seats;       /* seats past this one are free */
    uint32_t ids[KEYS_MAX]; /* by seat, of which the first is 1; 0: free */
    uint8_t digests[KEYS_MAX][KEY_DIGEST_BYTES];
};

/* From lists "a,b" and from a file with a key a line (blank lines and those that begin with '#' are passed over; NULL:
 * no file). A source without a key in it is an error: the server would be open where somebody meant it not to be. */
int keys_create(const char *const *lists, size_t n_lists, const char *path, struct keys **keys,
                runnel_error *error);
void keys_free(struct keys *keys); /* NULL is fine */

/* Keys that were just read come after others, as the `generation`th that there are (the first: 1): one that was there
 * before keeps its seat and its id; another gets an id that no key ever had, and a seat that no other has now. */
void keys_carry_over(struct keys *keys, const struct keys *before, uint64_t generation);

uint32_t keys_count(const struct keys *keys); /* NULL: 0 */

/* The id of a key, 0 if it is none. */
uint32_t keys_find(const struct keys *keys, const char *bytes, size_t len);

/* The seat of an id; 0 for 0. */
uint32_t keys_seat(uint32_t id);

#endif
