/* pool.h: memory that lives as long as a request: texts, token lists, messages between threads.
 *
 * A pool gives blocks of size classes out of slabs; larger ones come directly from the system. What it holds
 * never passes its limit. Blocks are aligned to 64 bytes and come with any content. Any thread may call; one
 * mutex guards all of it, held for a few instructions (a slab that is new, or given back, costs more).
 *
 * Giving a block back twice is noticed, counted and does no harm, as long as nobody has taken it meanwhile.
 * Debug builds (without NDEBUG) also notice writes into blocks that were given back; under the address
 * sanitizer each touch of one is an error. */
#ifndef RUNNEL_BASE_POOL_H
#define RUNNEL_BASE_POOL_H

#include "base/error.h"

#include <stdint.h>

struct pool;

enum {
    POOL_ALIGNMENT = 64,
    POOL_CLASSES = 20,           /* 64, 128, 192, 256, 384, 512, 768, ... 64 Ki bytes */
    POOL_BLOCK_BYTES_MAX = 65536 /* of the largest class; what is larger comes directly from the system */
};

/* limit_bytes bounds what the pool takes from the system, headers included. */
int pool_create(size_t limit_bytes, struct pool **pool, runnel_error *error);

struct pool_class_stats {
    size_t block_bytes; /* 0: the large blocks */
    uint64_t n_in_use, n_free;
    uint64_t n_allocations, n_reuses; /* since the start; a reuse is an allocation too */
    uint64_t n_refusals;
};

struct pool_stats {
    size_t limit_bytes;
    size_t held_bytes, peak_held_bytes;                     /* from the system */
    size_t in_use_bytes, peak_in_use_bytes;                 /* given to callers: the sizes of their blocks */
    uint64_t n_in_use, n_allocations, n_reuses, n_refusals; /* sums over the classes */
    uint64_t n_misuses; /* blocks given back twice, or written to after they were given back */
    struct pool_class_stats classes[POOL_CLASSES + 1]; /* the last: large blocks */
};

/* Frees the pool and all its memory, blocks that are still out included. Returns how many those were; last
 * (may be NULL) gets the statistics as they were: in_use_bytes and the classes tell what was still out. */
uint64_t pool_free(struct pool *pool, struct pool_stats *last);

/* A block of at least n_bytes; NULL past the limit, or if the system has none. Zero bytes are one byte. */
void *pool_take(struct pool *pool, size_t n_bytes);
/* A block of at least n_bytes that begins as the old one did; the old one is given back unless it is returned
 * itself. block NULL: a new one. NULL past the limit: the old one is untouched. */
void *pool_resize(struct pool *pool, void *block, size_t n_bytes);
void pool_give(struct pool *pool, void *block); /* NULL is fine */

size_t pool_block_bytes(const void *block); /* what may be used: at least what was asked for */

void pool_get_stats(struct pool *pool, struct pool_stats *stats);

/* Checks the lists and sums. NULL, or what is wrong (static text). For tests. */
const char *pool_check(struct pool *pool);

#endif
