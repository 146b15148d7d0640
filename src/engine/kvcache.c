/* kvcache.c: the sequences of the KV cache: page tables over the pages of a pool, by number. The pages' states and the
 * prefix index are in pages.c; their bytes are the back end's.
 *
 * Always: a page table's first n_pages entries are pages, or NO_PAGE where the window dropped one; each table
 * entry counts as one reference; positions [length, length + n_reserved) lie in pages that only this sequence
 * references and that are not indexed. The engine thread alone runs this. */
#include "engine/kvcache.h"

#include "engine/pages.h"

#include <stdlib.h>
#include <string.h>

struct sequence {
    bool open;
    uint64_t salt;
    uint32_t keep_first_pages; /* the window: keep_first in pages, rounded up */
    uint32_t keep_last;        /* positions; 0: no window */
    uint32_t n_unwindowed;     /* pages computed before anything was dropped: these are indexed and matched */
    uint32_t drop_next;        /* pages [keep_first_pages, drop_next) are dropped */
    uint32_t length, n_reserved;
    uint32_t n_pages; /* entries of table in use */
    uint32_t *table;  /* [max_pages] */
};

struct kvcache {
    uint32_t n_sequences, n_positions, max_pages;
    struct pages pages;
    struct sequence *sequences; /* [n_sequences] */
    uint32_t *tables;           /* [n_sequences][max_pages], what the sequences' tables point into */
    uint32_t *references;       /* [n_pages] scratch of kvcache_check */
    /* [n_sequences]: to be made by the next step. Each one's target is the page that an open sequence writes next, or the
     * source of a later one. */
    struct page_copy *copies;
    uint32_t n_copies;
    uint64_t n_queries, n_hits;
};

static uint32_t pages_of(uint32_t n_positions)
{
    return n_positions / KV_PAGE + (n_positions % KV_PAGE != 0);
}

/* Creating ------------------------------------------------------------------------------------------------ */

static int check_options(const struct kvcache_options *options, runnel_error *error)
{
    const struct {
        const char *name;
        uint32_t value;
    } counts[] = {{"pages", options->n_pages},
                  {"sequences", options->n_sequences},
                  {"positions", options->n_positions}};
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++)
        if (counts[i].value == 0 || counts[i].value > INT32_MAX)
            return error_set(error, RUNNEL_EINVAL, "KV cache: expected from 1 to 2^31 - 1 %s, found %u",
                             counts[i].name, counts[i].value);
    return RUNNEL_OK;
}

int kvcache_create(const struct kvcache_options *options, struct kvcache **cache, runnel_error *error)
{
    int status = check_options(options, error);
    if (status)
        return status;
    struct kvcache *c = calloc(1, sizeof *c);
    if (!c)
        goto fail;
    c->n_sequences = options->n_sequences;
    c->n_positions = options->n_positions;
    c->max_pages = pages_of(options->n_positions);
    c->sequences = calloc(c->n_sequences, sizeof *c->sequences);
    c->tables = calloc(c->n_sequences, c->max_pages * sizeof *c->tables);
    c->references = calloc(options->n_pages, sizeof *c->references);
    c->copies = calloc(c->n_sequences, sizeof *c->copies);
    if (!c->sequences || !c->tables || !c->references || !c->copies ||
        !pages_create(&c->pages, options->n_pages))
        goto fail;
    for (uint32_t i = 0; i < c->n_sequences; i++)
        c->sequences[i].table = c->tables + (size_t)i * c->max_pages;
    *cache = c;
    return RUNNEL_OK;

fail:
    kvcache_free(c);
    return error_set(error, RUNNEL_ENOMEM, "KV cache: no memory for the tables of %u pages",
                     options->n_pages);
}

void kvcache_free(struct kvcache *cache)
{
    if (!cache)
        return;
    pages_free(&cache->pages);
    free(cache->sequences);
    free(cache->tables);
    free(cache->references);
    free(cache->copies);
    free(cache);
}

/* Opening and closing ------------------------------------------------------------------------------------- */

/* How many pages fill up before the window can drop the first one: the kept beginning, the page that is
 * dropped, and the kept end. */
static uint32_t unwindowed_pages(const struct sequence *s)
{
    return s->keep_last ? s->keep_first_pages + 1 + pages_of(s->keep_last) : UINT32_MAX;
}

int kvcache_open(struct kvcache *cache, uint64_t salt, uint32_t keep_first, uint32_t keep_last)
{
    for (uint32_t i = 0; i < cache->n_sequences; i++) {
        struct sequence *s = &cache->sequences[i];
        if (s->open)
            continue;
        uint32_t *table = s->table;
        *s = (struct sequence){.open = true, .salt = salt, .keep_last = keep_last, .table = table};
        s->keep_first_pages = s->drop_next = keep_last ? pages_of(keep_first) : 0;
        s->n_unwindowed = unwindowed_pages(s);
        return (int)i;
    }
    return RUNNEL_ENOMEM;
}

static bool is_copied_from(const struct kvcache *cache, uint32_t page, uint32_t first_copy)
{
    for (uint32_t i = first_copy; i < cache->n_copies; i++)
        if (cache->copies[i].from == page)
            return true;
    return false;
}

/* Drops the copies to pages that nobody references any more and that no later copy is taken from. The last first: what a
 * dropped one was taken from may be unwanted, too. */
static void drop_copies(struct kvcache *cache)
{
    for (uint32_t i = cache->n_copies; i-- > 0;) {
        uint32_t page = cache->copies[i].to;
        if (cache->pages.page[page].n_references || is_copied_from(cache, page, i + 1))
            continue;
        memmove(&cache->copies[i], &cache->copies[i + 1], (--cache->n_copies - i) * sizeof *cache->copies);
    }
}

/* Gives back table entries from n_pages on. The last first: of a sequence's cached pages the beginning,
 * without which the rest cannot be found, is evicted last. */
static void release_from(struct kvcache *cache, struct sequence *s, uint32_t n_pages)
{
    while (s->n_pages > n_pages) {
        uint32_t page = s->table[--s->n_pages];
        if (page != NO_PAGE)
            pages_release(&cache->pages, page);
    }
    drop_copies(cache);
}

void kvcache_close(struct kvcache *cache, int sequence)
{
    struct sequence *s = &cache->sequences[sequence];
    release_from(cache, s, 0);
    s->open = false;
}

/* Sharing ------------------------------------------------------------------------------------------------- */

/* The id that the page at index has in the prefix index; 0 before the first page. */
static uint64_t id_before(const struct kvcache *cache, const struct sequence *s, uint32_t index)
{
    return index ? cache->pages.page[s->table[index - 1]].id : 0;
}

/* How many pages of a prompt may be taken from the index: the last position is always computed. */
static uint32_t pages_to_match(uint32_t n_tokens)
{
    return n_tokens ? (n_tokens - 1) / KV_PAGE : 0;
}

uint32_t kvcache_match_more(struct kvcache *cache, int sequence, const int32_t *tokens, uint32_t n_tokens)
{
    struct sequence *s = &cache->sequences[sequence];
    uint32_t limit = pages_to_match(n_tokens), before = s->length;
    limit = limit < cache->max_pages ? limit : cache->max_pages;
    limit = limit < s->n_unwindowed ? limit : s->n_unwindowed;
    for (uint32_t i = s->length / KV_PAGE; i < limit && !s->n_reserved; i++) {
        uint32_t page =
            pages_find(&cache->pages, s->salt, id_before(cache, s, i), tokens + (size_t)i * KV_PAGE);
        if (page == NO_PAGE)
            break;
        pages_reference(&cache->pages, page);
        release_from(cache, s, i); /* what it has of that page itself */
        s->table[s->n_pages++] = page;
        s->length = s->n_pages * KV_PAGE;
    }
    cache->n_hits += s->length - before;
    return s->length;
}

uint32_t kvcache_match(struct kvcache *cache, int sequence, const int32_t *tokens, uint32_t n_tokens)
{
    cache->n_queries += n_tokens;
    return kvcache_match_more(cache, sequence, tokens, n_tokens);
}

uint32_t kvcache_find(const struct kvcache *cache, uint64_t salt, const int32_t *tokens, uint32_t n_tokens,
                      uint32_t *n_held)
{
    uint64_t parent_id = 0;
    uint32_t n = 0, n_held_pages = 0;
    for (; n < pages_to_match(n_tokens); n++) {
        uint32_t page = pages_find(&cache->pages, salt, parent_id, tokens + (size_t)n * KV_PAGE);
        if (page == NO_PAGE)
            break;
        parent_id = cache->pages.page[page].id;
        n_held_pages += cache->pages.page[page].n_references > 0;
    }
    if (n_held)
        *n_held = n_held_pages * KV_PAGE;
    return n * KV_PAGE;
}

bool kvcache_same_next(const struct kvcache *cache, int a, const int32_t *a_tokens, int b,
                       const int32_t *b_tokens)
{
    const struct sequence *first = &cache->sequences[a], *second = &cache->sequences[b];
    uint32_t index = first->length / KV_PAGE;
    if (first->salt != second->salt || index != second->length / KV_PAGE || index >= first->n_unwindowed ||
        index >= second->n_unwindowed || id_before(cache, first, index) != id_before(cache, second, index))
        return false;
    size_t begin = (size_t)index * KV_PAGE;
    return memcmp(a_tokens + begin, b_tokens + begin, KV_PAGE * sizeof *a_tokens) == 0;
}

void kvcache_share(struct kvcache *cache, int from, int to, uint32_t n)
{
    const struct sequence *source = &cache->sequences[from];
    struct sequence *s = &cache->sequences[to];
    if (n > source->length || source->salt != s->salt || source->keep_last || s->keep_last ||
        source->n_reserved || s->n_pages)
        return;
    for (; s->n_pages < pages_of(n); s->n_pages++) {
        s->table[s->n_pages] = source->table[s->n_pages];
        pages_reference(&cache->pages, s->table[s->n_pages]);
    }
    s->length = n;
}

/* Growing ------------------------------------------------------------------------------------------------- */

/* The end of the pages that the window drops at the present length (drop_next if there are none to drop). */
static uint32_t drop_end(const struct sequence *s)
{
    uint32_t whole = s->length - s->length % KV_PAGE;
    if (!s->keep_last || whole <= s->keep_last)
        return s->drop_next;
    uint32_t end = (whole - s->keep_last) / KV_PAGE;
    return end > s->drop_next ? end : s->drop_next;
}

/* The page that holds the end of the committed positions, if there is a place left in it; else NO_PAGE. */
static uint32_t page_to_continue(const struct sequence *s)
{
    return s->length % KV_PAGE ? s->table[s->length / KV_PAGE] : NO_PAGE;
}

/* Makes the page that is written next this sequence's own. */
static void own_last_page(struct kvcache *cache, struct sequence *s)
{
    uint32_t page = page_to_continue(s);
    if (page == NO_PAGE)
        return;
    if (cache->pages.page[page].n_references == 1) {
        if (cache->pages.page[page].indexed)
            pages_unindex(&cache->pages, page);
        return;
    }
    uint32_t copy = pages_take(&cache->pages);
    cache->copies[cache->n_copies++] = (struct page_copy){.from = page, .to = copy};
    memcpy(pages_tokens(&cache->pages, copy), pages_tokens(&cache->pages, page), KV_PAGE * sizeof(int32_t));
    s->table[s->length / KV_PAGE] = copy;
    pages_release(&cache->pages, page);
}

int kvcache_reserve(struct kvcache *cache, int sequence, uint32_t n)
{
    struct sequence *s = &cache->sequences[sequence];
    if (n > cache->n_positions - s->length)
        return RUNNEL_ECONTEXT;
    if (n == 0)
        return RUNNEL_OK;

    /* Count first: nothing may be changed on failure. */
    uint32_t end = drop_end(s), wanted = pages_of(s->length + n), last = page_to_continue(s);
    uint64_t available = (uint64_t)cache->pages.n_free + cache->pages.n_cached, needed = 0;
    for (uint32_t i = s->drop_next; i < end; i++)
        available += s->table[i] != NO_PAGE && cache->pages.page[s->table[i]].n_references == 1;
    needed += wanted > s->n_pages ? wanted - s->n_pages : 0;
    bool copies = last != NO_PAGE && cache->pages.page[last].n_references > 1;
    needed += copies;
    if (needed > available || (copies && cache->n_copies == cache->n_sequences))
        return RUNNEL_ENOMEM;

    for (; s->drop_next < end; s->drop_next++) {
        if (s->table[s->drop_next] == NO_PAGE)
            continue;
        pages_release(&cache->pages, s->table[s->drop_next]);
        s->table[s->drop_next] = NO_PAGE;
    }
    own_last_page(cache, s);
    while (s->n_pages < wanted)
        s->table[s->n_pages++] = pages_take(&cache->pages);
    if (n > s->n_reserved)
        s->n_reserved = n;
    return RUNNEL_OK;
}

uint32_t kvcache_chunk(const struct kvcache *cache, int sequence)
{
    const struct sequence *s = &cache->sequences[sequence];
    if (!s->keep_last)
        return UINT32_MAX;
    uint64_t first_drop = (uint64_t)s->n_unwindowed * KV_PAGE;
    if (s->length < first_drop)
        return (uint32_t)(first_drop - s->length < UINT32_MAX ? first_drop - s->length : UINT32_MAX);
    return KV_PAGE - s->length % KV_PAGE;
}

/* A page has become whole: from now on others can find it. If one of equal content is there already, that one
 * is taken and this one given back. */
static void index_page(struct kvcache *cache, struct sequence *s, uint32_t index)
{
    if (index >= s->n_unwindowed)
        return;
    uint32_t page = s->table[index];
    uint64_t parent_id = id_before(cache, s, index);
    uint32_t same = pages_find(&cache->pages, s->salt, parent_id, pages_tokens(&cache->pages, page));
    if (same == NO_PAGE) {
        pages_index(&cache->pages, page, s->salt, parent_id);
    } else {
        pages_reference(&cache->pages, same);
        s->table[index] = same;
        pages_release(&cache->pages, page);
    }
}

void kvcache_commit(struct kvcache *cache, int sequence, const int32_t *tokens, uint32_t n)
{
    struct sequence *s = &cache->sequences[sequence];
    n = n < s->n_reserved ? n : s->n_reserved;
    for (uint32_t i = 0; i < n; i++) {
        uint32_t index = s->length / KV_PAGE;
        pages_tokens(&cache->pages, s->table[index])[s->length % KV_PAGE] = tokens[i];
        if (++s->length % KV_PAGE == 0)
            index_page(cache, s, index);
    }
    s->n_reserved -= n;
}

void kvcache_rollback(struct kvcache *cache, int sequence)
{
    struct sequence *s = &cache->sequences[sequence];
    release_from(cache, s, pages_of(s->length));
    s->n_reserved = 0;
}

void kvcache_truncate(struct kvcache *cache, int sequence, uint32_t n)
{
    struct sequence *s = &cache->sequences[sequence];
    if (n < s->length)
        s->length = n;
    n = s->length;
    kvcache_rollback(cache, sequence);
    if (s->n_pages <= s->keep_first_pages) { /* nothing dropped is left */
        s->drop_next = s->keep_first_pages;
        s->n_unwindowed = unwindowed_pages(s);
    } else if (s->drop_next > s->keep_first_pages && n / KV_PAGE < s->n_unwindowed) {
        s->n_unwindowed = n / KV_PAGE; /* what follows will be computed without the dropped pages */
    }
}

/* Looking ------------------------------------------------------------------------------------------------- */

uint32_t kvcache_length(const struct kvcache *cache, int sequence)
{
    return cache->sequences[sequence].length;
}

const uint32_t *kvcache_pages(const struct kvcache *cache, int sequence, uint32_t *n_pages)
{
    *n_pages = cache->sequences[sequence].n_pages;
    return cache->sequences[sequence].table;
}

uint32_t kvcache_copies(const struct kvcache *cache, const struct page_copy **copies)
{
    *copies = cache->copies;
    return cache->n_copies;
}

void kvcache_copies_made(struct kvcache *cache)
{
    cache->n_copies = 0;
}

void kvcache_get_stats(const struct kvcache *cache, struct kvcache_stats *stats)
{
    *stats = (struct kvcache_stats){
        .n_pages = cache->pages.n_pages,
        .n_free = cache->pages.n_free,
        .n_cached = cache->pages.n_cached,
        .n_referenced = cache->pages.n_pages - cache->pages.n_free - cache->pages.n_cached,
        .n_queries = cache->n_queries,
        .n_hits = cache->n_hits,
        .n_evicted = cache->pages.n_evicted,
    };
}

static const char *check_sequence(const struct kvcache *cache, const struct sequence *s)
{
    if (!s->open)
        return s->n_pages ? "a closed sequence has pages" : NULL;
    if ((uint64_t)s->length + s->n_reserved > cache->n_positions || s->n_pages > cache->max_pages ||
        s->n_pages < pages_of(s->length + s->n_reserved))
        return "a sequence has positions without pages";
    for (uint32_t i = 0; i < s->n_pages; i++) {
        bool dropped = s->keep_last && i >= s->keep_first_pages && i < s->drop_next;
        if (dropped != (s->table[i] == NO_PAGE))
            return "a page was dropped that must not be, or is there after being dropped";
        if (dropped)
            continue;
        const struct page *page = &cache->pages.page[s->table[i]];
        bool written_next = s->n_reserved && i >= s->length / KV_PAGE;
        if (written_next && (page->n_references != 1 || page->indexed))
            return "a page that is shared or indexed is reserved for writing";
        bool whole = i < s->length / KV_PAGE;
        if (whole && i < s->n_unwindowed && !page->indexed)
            return "a whole page is not indexed";
        if (whole && page->indexed && page->salt != s->salt)
            return "a page is shared across salts";
        if (whole && page->indexed && i > 0 && s->table[i - 1] != NO_PAGE &&
            page->parent_id != cache->pages.page[s->table[i - 1]].id)
            return "a page is not indexed behind the one before it";
    }
    return NULL;
}

const char *kvcache_check(const struct kvcache *cache)
{
    memset(cache->references, 0, cache->pages.n_pages * sizeof *cache->references);
    for (uint32_t i = 0; i < cache->n_sequences; i++) {
        const struct sequence *s = &cache->sequences[i];
        for (uint32_t p = 0; p < s->n_pages; p++) {
            if (s->table[p] != NO_PAGE && s->table[p] >= cache->pages.n_pages)
                return "a page table holds a page that does not exist";
            if (s->table[p] != NO_PAGE)
                cache->references[s->table[p]]++;
        }
        const char *wrong = check_sequence(cache, s);
        if (wrong)
            return wrong;
    }
    for (uint32_t i = 0; i < cache->n_copies; i++) {
        const struct page_copy *copy = &cache->copies[i];
        if (copy->from >= cache->pages.n_pages || copy->to >= cache->pages.n_pages || copy->from == copy->to)
            return "a copy is of or to a page that does not exist, or of a page to itself";
        if (!cache->references[copy->to] && !is_copied_from(cache, copy->to, i + 1))
            return "a copy is to a page that nobody references";
    }
    return pages_check(&cache->pages, cache->references);
}
