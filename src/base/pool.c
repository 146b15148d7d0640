/* pool.c: slabs of equal blocks, a free list in each slab.
 *
 * Each block has a header of 64 bytes before it. A slab with a free block is in its class's list. A slab
 * without a block in use stays for the next caller, until the limit is reached: then all such slabs go back
 * to the system, so that memory that one class had is there for the others. */
#include "base/pool.h"

#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#if defined(__SANITIZE_ADDRESS__)
#define POISONING 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define POISONING 1
#endif
#endif
#ifdef POISONING
#include <sanitizer/asan_interface.h>
#else
#define ASAN_POISON_MEMORY_REGION(start, n_bytes)   ((void)(start), (void)(n_bytes))
#define ASAN_UNPOISON_MEMORY_REGION(start, n_bytes) ((void)(start), (void)(n_bytes))
#endif

enum { SLAB_BYTES = 64 << 10, SLAB_BLOCKS_MIN = 4, LARGE = POOL_CLASSES, FREED_BYTE = 0xdd };

/* What a header says of its block. Numbers that are unlikely to be there by chance. */
enum { STATE_IN_USE = 0x52e5u, STATE_FREE = 0xf4eeu };

struct slab;

struct header {
    uint32_t state, class;
    size_t n_bytes;              /* of the block behind it */
    struct slab *slab;           /* NULL: a large block */
    struct header *next, *prior; /* free: next in the slab's list; large: neighbours in the pool's list */
    bool was_used;
};

/* At the start of a slab; the blocks with their headers follow. */
struct slab {
    struct slab *next, *prior;           /* all slabs of the class */
    struct slab *next_open, *prior_open; /* those with a free block */
    struct header *free;
    uint32_t n_free, n_blocks;
    size_t n_bytes;
};

_Static_assert(sizeof(struct header) <= POOL_ALIGNMENT, "a header fits before an aligned block");
_Static_assert(sizeof(struct slab) <= POOL_ALIGNMENT, "so does a slab's");

struct pool {
    pthread_mutex_t lock; /* guards all that follows */
    struct pool_stats stats;
    struct slab *slabs[POOL_CLASSES], *open[POOL_CLASSES];
    struct header *large;
};

static void *payload(struct header *header)
{
    return (char *)header + POOL_ALIGNMENT;
}

static struct header *header_of(void *block)
{
    return (struct header *)((char *)block - POOL_ALIGNMENT);
}

static struct header *block_at(struct slab *slab, uint32_t i, size_t block_bytes)
{
    return (struct header *)((char *)slab + POOL_ALIGNMENT + i * (POOL_ALIGNMENT + block_bytes));
}

/* 64, 128, then two classes for each doubling: 192, 256, 384, 512 ... */
static size_t class_bytes(uint32_t class)
{
    if (class < 2)
        return (size_t)64 << class;
    size_t power = (size_t)128 << (class / 2);
    return class % 2 ? power : power / 4 * 3;
}

static uint32_t class_for(size_t n_bytes)
{
    uint32_t class = 0;
    while (class < POOL_CLASSES && class_bytes(class) < n_bytes)
        class ++;
    return class; /* LARGE if none */
}

int pool_create(size_t limit_bytes, struct pool **out, runnel_error *error)
{
    struct pool *pool = calloc(1, sizeof *pool);
    if (!pool)
        return error_set(error, RUNNEL_ENOMEM, "no memory for a memory pool");
    pthread_mutex_init(&pool->lock, NULL);
    pool->stats.limit_bytes = limit_bytes;
    for (uint32_t class = 0; class < POOL_CLASSES; class ++)
        pool->stats.classes[class].block_bytes = class_bytes(class);
    *out = pool;
    return RUNNEL_OK;
}

uint64_t pool_free(struct pool *pool, struct pool_stats *last)
{
    if (!pool)
        return 0;
    uint64_t n_out = pool->stats.n_in_use;
    if (last)
        pool_get_stats(pool, last);
    for (uint32_t class = 0; class < POOL_CLASSES; class ++)
        while (pool->slabs[class]) {
            struct slab *slab = pool->slabs[class];
            pool->slabs[class] = slab->next;
            ASAN_UNPOISON_MEMORY_REGION(slab, slab->n_bytes);
            free(slab);
        }
    while (pool->large) {
        struct header *header = pool->large;
        pool->large = header->next;
        free(header);
    }
    pthread_mutex_destroy(&pool->lock);
    free(pool);
    return n_out;
}

/* Memory from the system, and its limit ------------------------------------------------------------------- */

static void open_slab(struct pool *pool, uint32_t class, struct slab *slab)
{
    slab->prior_open = NULL;
    slab->next_open = pool->open[class];
    if (slab->next_open)
        slab->next_open->prior_open = slab;
    pool->open[class] = slab;
}

static void close_slab(struct pool *pool, uint32_t class, struct slab *slab)
{
    *(slab->prior_open ? &slab->prior_open->next_open : &pool->open[class]) = slab->next_open;
    if (slab->next_open)
        slab->next_open->prior_open = slab->prior_open;
}

static void release_idle_slabs(struct pool *pool)
{
    for (uint32_t class = 0; class < POOL_CLASSES; class ++)
        for (struct slab *slab = pool->slabs[class], *next; slab; slab = next) {
            next = slab->next;
            if (slab->n_free < slab->n_blocks)
                continue;
            close_slab(pool, class, slab);
            *(slab->prior ? &slab->prior->next : &pool->slabs[class]) = slab->next;
            if (slab->next)
                slab->next->prior = slab->prior;
            pool->stats.classes[class].n_free -= slab->n_blocks;
            pool->stats.held_bytes -= slab->n_bytes;
            ASAN_UNPOISON_MEMORY_REGION(slab, slab->n_bytes);
            free(slab);
        }
}

/* n_bytes is a multiple of POOL_ALIGNMENT. */
static void *from_system(struct pool *pool, size_t n_bytes)
{
    struct pool_stats *stats = &pool->stats;
    if (n_bytes > stats->limit_bytes)
        return NULL;
    if (stats->held_bytes > stats->limit_bytes - n_bytes)
        release_idle_slabs(pool);
    if (stats->held_bytes > stats->limit_bytes - n_bytes)
        return NULL;
    void *memory = aligned_alloc(POOL_ALIGNMENT, n_bytes);
    if (!memory)
        return NULL;
    stats->held_bytes += n_bytes;
    if (stats->held_bytes > stats->peak_held_bytes)
        stats->peak_held_bytes = stats->held_bytes;
    return memory;
}

static bool add_slab(struct pool *pool, uint32_t class)
{
    size_t stride = POOL_ALIGNMENT + class_bytes(class);
    uint32_t n_blocks = (uint32_t)((SLAB_BYTES - POOL_ALIGNMENT) / stride);
    if (n_blocks < SLAB_BLOCKS_MIN)
        n_blocks = SLAB_BLOCKS_MIN;
    struct slab *slab = from_system(pool, POOL_ALIGNMENT + n_blocks * stride);
    if (!slab) { /* near the limit a single block may still fit */
        n_blocks = 1;
        slab = from_system(pool, POOL_ALIGNMENT + stride);
    }
    if (!slab)
        return false;
    *slab = (struct slab){.n_blocks = n_blocks, .n_free = n_blocks, .next = pool->slabs[class]};
    slab->n_bytes = POOL_ALIGNMENT + n_blocks * stride;
    if (slab->next)
        slab->next->prior = slab;
    pool->slabs[class] = slab;
    open_slab(pool, class, slab);
    for (uint32_t i = n_blocks; i-- > 0;) {
        struct header *header = block_at(slab, i, class_bytes(class));
        *header = (struct header){.state = STATE_FREE,
                                  .class = class,
                                  .n_bytes = class_bytes(class),
                                  .slab = slab,
                                  .next = slab->free};
        slab->free = header;
        ASAN_POISON_MEMORY_REGION(payload(header), header->n_bytes);
    }
    pool->stats.classes[class].n_free += n_blocks;
    return true;
}

/* Blocks -------------------------------------------------------------------------------------------------- */

static struct header *take_small(struct pool *pool, uint32_t class)
{
    if (!pool->open[class] && !add_slab(pool, class))
        return NULL;
    struct slab *slab = pool->open[class];
    struct header *header = slab->free;
    slab->free = header->next;
    if (--slab->n_free == 0)
        close_slab(pool, class, slab);
    pool->stats.classes[class].n_free--;
    ASAN_UNPOISON_MEMORY_REGION(payload(header), header->n_bytes);
#ifndef NDEBUG
    const unsigned char *bytes = payload(header);
    for (size_t i = 0; header->was_used && i < header->n_bytes; i++)
        if (bytes[i] != FREED_BYTE) {
            pool->stats.n_misuses++;
            break;
        }
#endif
    if (header->was_used) {
        pool->stats.n_reuses++;
        pool->stats.classes[class].n_reuses++;
    }
    return header;
}

static struct header *take_large(struct pool *pool, size_t n_bytes)
{
    if (n_bytes > SIZE_MAX - 2 * POOL_ALIGNMENT)
        return NULL;
    n_bytes = (n_bytes + POOL_ALIGNMENT - 1) / POOL_ALIGNMENT * POOL_ALIGNMENT;
    struct header *header = from_system(pool, POOL_ALIGNMENT + n_bytes);
    if (!header)
        return NULL;
    *header = (struct header){.class = LARGE, .n_bytes = n_bytes, .next = pool->large};
    if (header->next)
        header->next->prior = header;
    pool->large = header;
    return header;
}

void *pool_take(struct pool *pool, size_t n_bytes)
{
    uint32_t class = class_for(n_bytes);
    pthread_mutex_lock(&pool->lock);
    struct pool_stats *stats = &pool->stats;
    struct header *header = class == LARGE ? take_large(pool, n_bytes) : take_small(pool, class);
    if (header) {
        header->state = STATE_IN_USE;
        header->was_used = true;
        stats->n_in_use++;
        stats->n_allocations++;
        stats->classes[class].n_in_use++;
        stats->classes[class].n_allocations++;
        stats->in_use_bytes += header->n_bytes;
        if (stats->in_use_bytes > stats->peak_in_use_bytes)
            stats->peak_in_use_bytes = stats->in_use_bytes;
    } else {
        stats->n_refusals++;
        stats->classes[class].n_refusals++;
    }
    pthread_mutex_unlock(&pool->lock);
    return header ? payload(header) : NULL;
}

static void give_small(struct pool *pool, struct header *header)
{
    struct slab *slab = header->slab;
#ifndef NDEBUG
    memset(payload(header), FREED_BYTE, header->n_bytes);
#endif
    ASAN_POISON_MEMORY_REGION(payload(header), header->n_bytes);
    header->next = slab->free;
    slab->free = header;
    if (slab->n_free++ == 0)
        open_slab(pool, header->class, slab);
    pool->stats.classes[header->class].n_free++;
}

static void give_large(struct pool *pool, struct header *header)
{
    *(header->prior ? &header->prior->next : &pool->large) = header->next;
    if (header->next)
        header->next->prior = header->prior;
    pool->stats.held_bytes -= POOL_ALIGNMENT + header->n_bytes;
    free(header);
}

void pool_give(struct pool *pool, void *block)
{
    if (!block)
        return;
    struct header *header = header_of(block);
    pthread_mutex_lock(&pool->lock);
    struct pool_stats *stats = &pool->stats;
    if (header->state == STATE_IN_USE) {
        header->state = STATE_FREE;
        stats->n_in_use--;
        stats->classes[header->class].n_in_use--;
        stats->in_use_bytes -= header->n_bytes;
        if (header->class == LARGE)
            give_large(pool, header);
        else
            give_small(pool, header);
    } else {
        stats->n_misuses++;
    }
    pthread_mutex_unlock(&pool->lock);
}

void *pool_resize(struct pool *pool, void *block, size_t n_bytes)
{
    if (!block)
        return pool_take(pool, n_bytes);
    size_t old_bytes = pool_block_bytes(block);
    if (n_bytes <= old_bytes && n_bytes > old_bytes / 2)
        return block;
    void *other = pool_take(pool, n_bytes);
    if (!other)
        return n_bytes <= old_bytes ? block : NULL;
    memcpy(other, block, old_bytes < n_bytes ? old_bytes : n_bytes);
    pool_give(pool, block);
    return other;
}

size_t pool_block_bytes(const void *block)
{
    return ((const struct header *)((const char *)block - POOL_ALIGNMENT))->n_bytes;
}

void pool_get_stats(struct pool *pool, struct pool_stats *stats)
{
    pthread_mutex_lock(&pool->lock);
    *stats = pool->stats;
    pthread_mutex_unlock(&pool->lock);
}

static const char *check_slab(const struct pool *pool, uint32_t class, struct slab *slab)
{
    uint32_t n_listed = 0, n_free = 0;
    for (const struct header *header = slab->free; header && n_listed <= slab->n_blocks;
         header = header->next)
        n_listed++;
    for (uint32_t i = 0; i < slab->n_blocks; i++) {
        const struct header *header = block_at(slab, i, class_bytes(class));
        if (header->state != STATE_FREE && header->state != STATE_IN_USE)
            return "a header was overwritten";
        if (header->class != class || header->slab != slab || header->n_bytes != class_bytes(class))
            return "a header names another class or slab";
        n_free += header->state == STATE_FREE;
    }
    if (n_listed != slab->n_free || n_free != slab->n_free)
        return "a slab's free list differs from its blocks' states";
    bool listed = false;
    for (const struct slab *other = pool->open[class]; other; other = other->next_open)
        listed |= other == slab;
    return listed == (slab->n_free > 0) ? NULL : "the list of slabs with free blocks is wrong";
}

static const char *check_locked(const struct pool *pool)
{
    uint64_t n_in_use = 0;
    size_t held_bytes = 0, in_use_bytes = 0;
    for (uint32_t class = 0; class < POOL_CLASSES; class ++) {
        uint64_t n_class = 0, n_free = 0;
        for (struct slab *slab = pool->slabs[class]; slab; slab = slab->next) {
            const char *wrong = check_slab(pool, class, slab);
            if (wrong)
                return wrong;
            n_class += slab->n_blocks - slab->n_free;
            n_free += slab->n_free;
            held_bytes += slab->n_bytes;
        }
        if (n_class != pool->stats.classes[class].n_in_use || n_free != pool->stats.classes[class].n_free)
            return "a class's counts differ from its slabs";
        n_in_use += n_class;
        in_use_bytes += n_class * class_bytes(class);
    }
    for (const struct header *header = pool->large; header; header = header->next) {
        n_in_use++;
        in_use_bytes += header->n_bytes;
        held_bytes += POOL_ALIGNMENT + header->n_bytes;
    }
    if (n_in_use != pool->stats.n_in_use || in_use_bytes != pool->stats.in_use_bytes)
        return "the sums in use differ from the blocks";
    if (held_bytes != pool->stats.held_bytes || held_bytes > pool->stats.limit_bytes)
        return "the bytes held differ from the slabs, or pass the limit";
    return NULL;
}

const char *pool_check(struct pool *pool)
{
    pthread_mutex_lock(&pool->lock);
    const char *wrong = check_locked(pool);
    pthread_mutex_unlock(&pool->lock);
    return wrong;
}
