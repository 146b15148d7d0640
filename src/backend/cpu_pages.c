/* cpu_pages.c: the region that holds the keys and values (see cpu_pages.h). */
#include "backend/cpu_pages.h"

#include "base/region.h"

#include <stdlib.h>
#include <string.h>

enum { SYSTEM_PAGE_BYTES = 4096 }; /* or more */

size_t cpu_pages_page_bytes(const struct kv_shape *shapes, uint32_t n_layers, uint32_t n_kv_heads)
{
    size_t bytes = 0;
    for (uint32_t layer = 0; layer < n_layers; layer++)
        bytes += kv_block_bytes(&shapes[layer]) * n_kv_heads;
    return bytes;
}

int cpu_pages_create(struct cpu_pages *pages, const struct kv_shape *shapes, uint32_t n_layers,
                     uint32_t n_kv_heads, uint32_t n_pages, runnel_error *error)
{
    size_t page_bytes = cpu_pages_page_bytes(shapes, n_layers, n_kv_heads), region_bytes, offset = 0;
    *pages = (struct cpu_pages){.n_pages = n_pages, .n_layers = n_layers, .n_kv_heads = n_kv_heads};
    pages->layer_offset = calloc(n_layers, sizeof *pages->layer_offset);
    pages->block_bytes = calloc(n_layers, sizeof *pages->block_bytes);
    if (!pages->layer_offset || !pages->block_bytes ||
        __builtin_mul_overflow(page_bytes, n_pages, &region_bytes))
        goto fail;
    for (uint32_t layer = 0; layer < n_layers; layer++) {
        pages->block_bytes[layer] = kv_block_bytes(&shapes[layer]);
        pages->layer_offset[layer] = offset;
        offset += pages->block_bytes[layer] * n_kv_heads * n_pages;
    }
    pages->region = region_map(region_bytes);
    if (!pages->region)
        goto fail;
    pages->region_bytes = region_bytes;
    return RUNNEL_OK;

fail:
    cpu_pages_free(pages);
    return error_set(error, RUNNEL_ENOMEM, "KV cache: no memory for %u pages of %zu bytes", n_pages,
                     page_bytes);
}

/* A zero for a zero: the system sees a write, and nothing changes. */
static void touch(uint8_t *byte)
{
    uint8_t expected = 0;
    __atomic_compare_exchange_n(byte, &expected, 0, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED);
}

bool cpu_pages_touch(struct cpu_pages *pages, size_t n_bytes)
{
    size_t n_left = pages->region_bytes - pages->touched_bytes;
    size_t end = pages->touched_bytes + (n_bytes < n_left ? n_bytes : n_left);
    for (; pages->touched_bytes < end; pages->touched_bytes += SYSTEM_PAGE_BYTES)
        touch(pages->region + pages->touched_bytes);
    if (pages->touched_bytes > pages->region_bytes)
        pages->touched_bytes = pages->region_bytes;
    return n_left > 0;
}

void cpu_pages_free(struct cpu_pages *pages)
{
    region_unmap(pages->region, pages->region_bytes);
    free(pages->layer_offset);
    free(pages->block_bytes);
    *pages = (struct cpu_pages){.n_pages = 0};
}

void *cpu_pages_block(const struct cpu_pages *pages, uint32_t page, uint32_t layer, uint32_t kv_head)
{
    if (page == NO_PAGE)
        return NULL;
    size_t block = (size_t)kv_head * pages->n_pages + page;
    return pages->region + pages->layer_offset[layer] + block * pages->block_bytes[layer];
}

static void copy_page(const struct cpu_pages *pages, const struct page_copy *copy)
{
    for (uint32_t layer = 0; layer < pages->n_layers; layer++)
        for (uint32_t head = 0; head < pages->n_kv_heads; head++)
            memcpy(cpu_pages_block(pages, copy->to, layer, head),
                   cpu_pages_block(pages, copy->from, layer, head), pages->block_bytes[layer]);
}

void cpu_pages_copy(const struct cpu_pages *pages, const struct page_copy *copies, uint32_t n_copies)
{
    for (uint32_t i = 0; i < n_copies; i++)
        copy_page(pages, &copies[i]);
}
