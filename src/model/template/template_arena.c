/* template_arena.c: see template_arena.h. */
#include "model/template/template_arena.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { ALIGNMENT = 16, BLOCK_BYTES = 32768 };

struct template_block {
    struct template_block *next;
    size_t used, cap;
    _Alignas(ALIGNMENT) char bytes[];
};

void template_arena_init(struct template_arena *arena, size_t limit)
{
    *arena = (struct template_arena){.limit = limit};
}

static size_t round_up(size_t size)
{
    return (size + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
}

static struct template_block *add_block(struct template_arena *arena, size_t size)
{
    size_t cap = size > BLOCK_BYTES ? size : BLOCK_BYTES;
    if (cap > arena->limit - arena->used) {
        arena->over_the_limit = true;
        return NULL;
    }
    struct template_block *block = malloc(sizeof *block + cap);
    if (!block) {
        arena->failed = true;
        return NULL;
    }
    *block = (struct template_block){.next = arena->blocks, .cap = cap};
    arena->blocks = block;
    arena->used += cap;
    return block;
}

void *template_arena_alloc(struct template_arena *arena, size_t size)
{
    if (size > SIZE_MAX / 4) {
        arena->over_the_limit = true;
        return NULL;
    }
    size = round_up(size ? size : 1);
    struct template_block *block = arena->blocks;
    if (!block || block->cap - block->used < size)
        block = add_block(arena, size);
    if (!block)
        return NULL;
    void *result = block->bytes + block->used;
    block->used += size;
    return result;
}

void *template_arena_zeroed(struct template_arena *arena, size_t size)
{
    void *result = template_arena_alloc(arena, size);
    return result ? memset(result, 0, size) : NULL;
}

void *template_arena_grow(struct template_arena *arena, void *old, size_t old_size, size_t size)
{
    struct template_block *block = arena->blocks;
    if (old && block && (char *)old + round_up(old_size ? old_size : 1) == block->bytes + block->used &&
        size < SIZE_MAX / 4) {
        size_t begin = (size_t)((char *)old - block->bytes);
        if (block->cap - begin >= round_up(size)) {
            block->used = begin + round_up(size);
            return old;
        }
    }
    void *result = template_arena_alloc(arena, size);
    if (result && old_size)
        memcpy(result, old, old_size);
    return result;
}

void template_arena_free(struct template_arena *arena)
{
    for (struct template_block *block = arena->blocks, *next; block; block = next) {
        next = block->next;
        free(block);
    }
    *arena = (struct template_arena){.limit = arena->limit};
}
