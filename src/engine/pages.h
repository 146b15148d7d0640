/* pages.h: the states of the KV cache's pages, and the index that finds a page by what it holds. A part of
 * kvcache.c: it knows page numbers and tokens, no sequences and no keys or values.
 *
 * A page is free; or referenced, by one or more page tables; or cached: indexed, referenced by nobody, in the
 * list of the least recently used. A referenced page may be indexed too. The index's key is (salt, the id of
 * the page before, the page's tokens). An id is given when a page is indexed and never again: when a page
 * goes, what was indexed behind it cannot be found any more, whatever page takes its place. So equal keys
 * mean equal tokens from position 0 on.
 *
 * One thread at a time. No allocation after pages_create. */
#ifndef RUNNEL_ENGINE_PAGES_H
#define RUNNEL_ENGINE_PAGES_H

#include "backend/page_table.h"
#include "kernels/ops.h"

struct page {
    uint32_t n_references;
    bool indexed;
    uint64_t salt, parent_id, id, hash; /* while indexed; parent_id 0: the first page of a sequence */
    uint32_t next_in_bucket;
    uint32_t newer, older; /* cached: neighbours in the list; free: older is the next free page */
};

struct pages {
    uint32_t n_pages, n_free, n_cached;
    struct page *page;       /* [n_pages] */
    int32_t *tokens;         /* [n_pages][KV_PAGE] of the committed positions */
    uint32_t *buckets;       /* [n_buckets] first page of each chain */
    uint32_t n_buckets;      /* a power of two */
    uint32_t free_page;      /* first of the free ones */
    uint32_t newest, oldest; /* cached */
    uint64_t last_id, n_evicted;
};

/* False if there is no memory. */
bool pages_create(struct pages *pages, uint32_t n_pages);
void pages_free(struct pages *pages);

/* A page with one reference: a free one, else the least recently used cached one. NO_PAGE if all are
 * referenced. */
uint32_t pages_take(struct pages *pages);
void pages_reference(struct pages *pages, uint32_t page);
/* Without its last reference a page is cached as the most recently used, or free if it is not indexed. */
void pages_release(struct pages *pages, uint32_t page);

static inline int32_t *pages_tokens(const struct pages *pages, uint32_t page)
{
    return pages->tokens + (size_t)page * KV_PAGE;
}

/* The page that holds these KV_PAGE tokens behind the page of parent_id, or NO_PAGE. */
uint32_t pages_find(const struct pages *pages, uint64_t salt, uint64_t parent_id, const int32_t *tokens);
/* Indexes a referenced page under its own tokens; no page of equal key may be in the index. */
void pages_index(struct pages *pages, uint32_t page, uint64_t salt, uint64_t parent_id);
/* Takes a referenced page out of the index, because it will be written. */
void pages_unindex(struct pages *pages, uint32_t page);

/* NULL, or what is wrong. references [n_pages]: how often the page tables hold each page. */
const char *pages_check(const struct pages *pages, const uint32_t *references);

#endif
