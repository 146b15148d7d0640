/* template_arena.h: the memory of one compiled template or one rendering: blocks that are freed together, within a limit.
 *
 * An arena owns all that is allocated from it. Nothing is freed before template_arena_free. One thread. */
#ifndef RUNNEL_MODEL_TEMPLATE_TEMPLATE_ARENA_H
#define RUNNEL_MODEL_TEMPLATE_TEMPLATE_ARENA_H

#include <stdbool.h>
#include <stddef.h>

struct template_block;

struct template_arena {
    struct template_block *blocks;
    size_t used, limit;  /* bytes in blocks */
    bool failed;         /* malloc gave nothing */
    bool over_the_limit; /* more than limit was asked for */
};

void template_arena_init(struct template_arena *arena, size_t limit);
/* Aligned for any type, not zeroed. NULL: one of the two flags says why. */
void *template_arena_alloc(struct template_arena *arena, size_t size);
/* The same, zeroed. */
void *template_arena_zeroed(struct template_arena *arena, size_t size);
/* Makes the block at old (of old_size bytes; NULL: none) larger: in place if it was the last one, else as a copy. */
void *template_arena_grow(struct template_arena *arena, void *old, size_t old_size, size_t size);
void template_arena_free(struct template_arena *arena);

#endif
