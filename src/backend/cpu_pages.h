/* cpu_pages.h: the bytes of KV pages in this process's memory. A struct cpu_pages owns one preallocated region; page numbers
 * come from whoever keeps page tables. Nothing is allocated after cpu_pages_create; the system gives memory when it is touched or
 * first written. Threads may use different blocks at the same time. */
#ifndef RUNNEL_BACKEND_CPU_PAGES_H
#define RUNNEL_BACKEND_CPU_PAGES_H

#include "backend/page_table.h"
#include "base/error.h"
#include "kernels/ops.h"

struct cpu_pages {
    uint32_t n_pages, n_layers, n_kv_heads;
    size_t *layer_offset; /* [n_layers] of a layer's blocks in the region */
    size_t *block_bytes;  /* [n_layers] */
    uint8_t *
        region; /* [n_layers][n_kv_heads][n_pages] blocks: what attention reads one after the other is near */
    size_t region_bytes, touched_bytes;
};

/* Bytes of one page; shapes: [n_layers]. */
size_t cpu_pages_page_bytes(const struct kv_shape *shapes, uint32_t n_layers, uint32_t n_kv_heads);

int cpu_pages_create(struct cpu_pages *pages, const struct kv_shape *shapes, uint32_t n_layers,
                     uint32_t n_kv_heads, uint32_t n_pages, runnel_error *error);
void cpu_pages_free(struct cpu_pages *pages);

/* Has the system give about n_bytes more of the region now, if it can, instead of when they are written. What is written there
 * already stays. False: it had given all. */
bool cpu_pages_touch(struct cpu_pages *pages, size_t n_bytes);

/* The KV block (ops.h) of a page; NULL for NO_PAGE. */
void *cpu_pages_block(const struct cpu_pages *pages, uint32_t page, uint32_t layer, uint32_t kv_head);

/* Does the copies in their order. */
void cpu_pages_copy(const struct cpu_pages *pages, const struct page_copy *copies, uint32_t n_copies);

#endif
