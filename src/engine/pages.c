/* pages.c: page states and the prefix index of the KV cache. One thread at a time; owns the tables of struct
 * pages. */
#include "engine/pages.h"

#include <stdlib.h>
#include <string.h>

bool pages_create(struct pages *pages, uint32_t n_pages)
{
    *pages = (struct pages){.n_pages = n_pages, .newest = NO_PAGE, .oldest = NO_PAGE, .free_page = NO_PAGE};
    pages->n_buckets = 1;
    while (pages->n_buckets < n_pages && pages->n_buckets < 1u << 31)
        pages->n_buckets *= 2;
    pages->page = calloc(n_pages, sizeof *pages->page);
    pages->tokens = calloc(n_pages, KV_PAGE * sizeof *pages->tokens);
    pages->buckets = malloc(pages->n_buckets * sizeof *pages->buckets);
    if (!pages->page || !pages->tokens || !pages->buckets) {
        pages_free(pages);
        return false;
    }
    for (uint32_t i = 0; i < pages->n_buckets; i++)
        pages->buckets[i] = NO_PAGE;
    for (uint32_t i = n_pages; i-- > 0;) {
        pages->page[i].older = pages->free_page;
        pages->free_page = i;
    }
    pages->n_free = n_pages;
    return true;
}

void pages_free(struct pages *pages)
{
    free(pages->page);
    free(pages->tokens);
    free(pages->buckets);
    *pages = (struct pages){.n_pages = 0};
}

/* The list of cached pages -------------------------------------------------------------------------------- */

static void list_add_newest(struct pages *pages, uint32_t page)
{
    struct page *p = &pages->page[page];
    p->newer = NO_PAGE;
    p->older = pages->newest;
    if (p->older != NO_PAGE)
        pages->page[p->older].newer = page;
    else
        pages->oldest = page;
    pages->newest = page;
    pages->n_cached++;
}

static void list_remove(struct pages *pages, uint32_t page)
{
    struct page *p = &pages->page[page];
    if (p->newer != NO_PAGE)
        pages->page[p->newer].older = p->older;
    else
        pages->newest = p->older;
    if (p->older != NO_PAGE)
        pages->page[p->older].newer = p->newer;
    else
        pages->oldest = p->newer;
    pages->n_cached--;
}

/* The index ----------------------------------------------------------------------------------------------- */

static uint64_t hash_key(uint64_t salt, uint64_t parent_id, const int32_t *tokens)
{
    uint64_t hash = salt ^ parent_id * 0x9e3779b97f4a7c15u;
    for (int i = 0; i < KV_PAGE; i++) {
        hash = (hash ^ (uint32_t)tokens[i]) * 0xd6e8feb86659fd93u;
        hash ^= hash >> 32;
    }
    return hash;
}

static uint32_t *bucket_of(const struct pages *pages, uint64_t hash)
{
    return &pages->buckets[hash & (pages->n_buckets - 1)];
}

uint32_t pages_find(const struct pages *pages, uint64_t salt, uint64_t parent_id, const int32_t *tokens)
{
    uint64_t hash = hash_key(salt, parent_id, tokens);
    uint32_t page = *bucket_of(pages, hash);
    for (; page != NO_PAGE; page = pages->page[page].next_in_bucket) {
        const struct page *p = &pages->page[page];
        if (p->hash == hash && p->salt == salt && p->parent_id == parent_id &&
            memcmp(pages_tokens(pages, page), tokens, KV_PAGE * sizeof *tokens) == 0)
            break;
    }
    return page;
}

void pages_index(struct pages *pages, uint32_t page, uint64_t salt, uint64_t parent_id)
{
    struct page *p = &pages->page[page];
    p->indexed = true;
    p->salt = salt;
    p->parent_id = parent_id;
    p->id = ++pages->last_id;
    p->hash = hash_key(salt, parent_id, pages_tokens(pages, page));
    uint32_t *bucket = bucket_of(pages, p->hash);
    p->next_in_bucket = *bucket;
    *bucket = page;
}

void pages_unindex(struct pages *pages, uint32_t page)
{
    struct page *p = &pages->page[page];
    uint32_t *link = bucket_of(pages, p->hash);
    while (*link != page)
        link = &pages->page[*link].next_in_bucket;
    *link = p->next_in_bucket;
    p->indexed = false;
    p->id = 0;
}

/* States -------------------------------------------------------------------------------------------------- */

uint32_t pages_take(struct pages *pages)
{
    uint32_t page = pages->free_page;
    if (page != NO_PAGE) {
        pages->free_page = pages->page[page].older;
        pages->n_free--;
    } else {
        page = pages->oldest;
        if (page == NO_PAGE)
            return NO_PAGE;
        list_remove(pages, page);
        pages_unindex(pages, page);
        pages->n_evicted++;
    }
    pages->page[page].n_references = 1;
    return page;
}

void pages_reference(struct pages *pages, uint32_t page)
{
    if (pages->page[page].n_references++ == 0)
        list_remove(pages, page);
}

void pages_release(struct pages *pages, uint32_t page)
{
    struct page *p = &pages->page[page];
    if (--p->n_references)
        return;
    if (p->indexed) {
        list_add_newest(pages, page);
    } else {
        p->older = pages->free_page;
        pages->free_page = page;
        pages->n_free++;
    }
}

/* Checking ------------------------------------------------------------------------------------------------ */

static const char *check_lists(const struct pages *pages)
{
    uint32_t n = 0, newer = NO_PAGE;
    for (uint32_t page = pages->free_page; page != NO_PAGE; page = pages->page[page].older, n++)
        if (n == pages->n_free || page >= pages->n_pages || pages->page[page].n_references ||
            pages->page[page].indexed)
            return "the list of free pages is longer than counted, or holds a page in use";
    if (n != pages->n_free)
        return "the list of free pages is shorter than counted";
    n = 0;
    for (uint32_t page = pages->newest; page != NO_PAGE; newer = page, page = pages->page[page].older, n++)
        if (n == pages->n_cached || page >= pages->n_pages || pages->page[page].n_references ||
            !pages->page[page].indexed || pages->page[page].newer != newer)
            return "the list of cached pages is longer than counted, broken, or holds a page that is not "
                   "cached";
    if (n != pages->n_cached || pages->oldest != newer)
        return "the list of cached pages is shorter than counted, or ends elsewhere";
    return NULL;
}

const char *pages_check(const struct pages *pages, const uint32_t *references)
{
    uint32_t n_referenced = 0, n_indexed = 0, n_in_buckets = 0;
    for (uint32_t page = 0; page < pages->n_pages; page++) {
        const struct page *p = &pages->page[page];
        if (p->n_references != references[page])
            return "a page's reference count differs from the page tables";
        n_referenced += p->n_references > 0;
        n_indexed += p->indexed;
        if (!p->indexed)
            continue;
        if (p->hash != hash_key(p->salt, p->parent_id, pages_tokens(pages, page)))
            return "an indexed page was written";
        if (pages_find(pages, p->salt, p->parent_id, pages_tokens(pages, page)) != page)
            return "an indexed page is not found, or there are two of one key";
        if (p->id == 0 || p->id > pages->last_id || p->parent_id >= p->id)
            return "an indexed page's id is wrong";
    }
    if (n_referenced + pages->n_free + pages->n_cached != pages->n_pages)
        return "pages are lost, or in two states";
    for (uint32_t i = 0; i < pages->n_buckets; i++)
        for (uint32_t page = pages->buckets[i]; page != NO_PAGE; page = pages->page[page].next_in_bucket)
            if (++n_in_buckets > n_indexed || !pages->page[page].indexed)
                return "the index holds a page that is not indexed";
    return check_lists(pages);
}
