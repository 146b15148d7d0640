/* kv_model.c: see kv_model.h. */
#include "helpers/kv_model.h"
#include "engine/sampler.h" /* for its random numbers */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

/* The bytes of the pages: a stamp for each position. */
static uint64_t store[POOL_PAGES_MAX][KV_PAGE];

struct kvcache *kv_model_create(uint32_t n_pages)
{
    struct kvcache_options options = {
        .n_pages = n_pages, .n_sequences = N_SEQUENCES, .n_positions = N_POSITIONS};
    struct kvcache *cache = NULL;
    runnel_error error;
    assert_in_range(n_pages, 1, POOL_PAGES_MAX);
    assert_int_equal(kvcache_create(&options, &cache, &error), 0);
    memset(store, 0, sizeof store);
    return cache;
}

uint64_t kv_model_mix(uint64_t a, uint64_t b)
{
    return sampler_random(a, b);
}

uint32_t kv_model_page(const struct kvcache *cache, int sequence, uint32_t index)
{
    uint32_t n_pages;
    const uint32_t *pages = kvcache_pages(cache, sequence, &n_pages);
    return index < n_pages ? pages[index] : NO_PAGE;
}

static void make_copies(struct kvcache *cache)
{
    const struct page_copy *copies;
    uint32_t n = kvcache_copies(cache, &copies);
    for (uint32_t i = 0; i < n; i++)
        memcpy(store[copies[i].to], store[copies[i].from], sizeof *store);
    kvcache_copies_made(cache);
}

/* What the page holds once the copies are made. */
static const uint64_t *stamps_of(const struct kvcache *cache, uint32_t page)
{
    const struct page_copy *copies;
    for (uint32_t i = kvcache_copies(cache, &copies); i-- > 0;)
        if (copies[i].to == page)
            page = copies[i].from;
    return store[page];
}

void kv_model_commit(struct kvcache *cache, int sequence, struct kv_model_sequence *m, const int32_t *tokens,
                     uint32_t n)
{
    make_copies(cache);
    for (uint32_t i = 0; i < n; i++) {
        uint32_t position = m->length + i;
        bool clean = position / KV_PAGE < m->n_clean;
        m->tokens[position] = tokens[i];
        /* After a drop a page depends on what was dropped: nobody else's is equal. */
        m->stamps[position + 1] =
            kv_model_mix(m->stamps[position] + (clean ? 0 : m->nonce), (uint64_t)tokens[i] + 1);
        uint32_t page = kv_model_page(cache, sequence, position / KV_PAGE);
        assert_true(page != NO_PAGE);
        store[page][position % KV_PAGE] = m->stamps[position + 1];
    }
    kvcache_commit(cache, sequence, tokens, n);
    m->length += n;
    m->n_reserved -= n;
}

void kv_model_verify(const struct kvcache *cache, int sequence, const struct kv_model_sequence *m)
{
    assert_int_equal(kvcache_length(cache, sequence), m->length);
    for (uint32_t index = 0; index < MAX_PAGES; index++) {
        bool there = index * KV_PAGE < m->length + m->n_reserved && !m->dropped[index];
        uint32_t page = kv_model_page(cache, sequence, index);
        if ((!there && index >= m->n_mapped) || m->dropped[index])
            assert_int_equal(page, NO_PAGE);
        for (uint32_t i = index * KV_PAGE; there && i < (index + 1) * KV_PAGE && i < m->length; i++)
            assert_true(page != NO_PAGE && stamps_of(cache, page)[i % KV_PAGE] == m->stamps[i + 1]);
    }
    assert_int_equal(kv_model_page(cache, sequence, MAX_PAGES + 3), NO_PAGE);
}

void kv_model_check(const struct kvcache *cache)
{
    const char *wrong = kvcache_check(cache);
    if (wrong)
        fail_msg("%s", wrong);
    struct kvcache_stats stats;
    kvcache_get_stats(cache, &stats);
    assert_int_equal(stats.n_free + stats.n_cached + stats.n_referenced, stats.n_pages);
}

struct kv_model_sequence kv_model_open(struct kvcache *cache, int *sequence, uint64_t salt,
                                       uint32_t keep_first, uint32_t keep_last)
{
    static uint64_t n_opened;
    *sequence = kvcache_open(cache, salt, keep_first, keep_last);
    assert_in_range(*sequence, 0, N_SEQUENCES - 1);
    struct kv_model_sequence m = {.open = true,
                                  .salt = salt,
                                  .nonce = kv_model_mix(++n_opened, 1),
                                  .keep_first = keep_first,
                                  .keep_last = keep_last,
                                  .n_clean = UINT32_MAX};
    m.stamps[0] = salt;
    if (keep_last)
        m.n_clean = (keep_first + KV_PAGE - 1) / KV_PAGE + 1 + (keep_last + KV_PAGE - 1) / KV_PAGE;
    return m;
}

int32_t kv_model_token(uint32_t kind, uint32_t i)
{
    return (int32_t)(kind * 1000 + i % KV_PAGE);
}

void kv_model_grow(struct kvcache *cache, int sequence, struct kv_model_sequence *m, uint32_t kind,
                   uint32_t n)
{
    int32_t tokens[N_POSITIONS];
    for (uint32_t i = 0; i < n; i++)
        tokens[i] = kv_model_token(kind, m->length + i);
    assert_int_equal(kvcache_reserve(cache, sequence, n), 0);
    kv_model_check(cache);
    m->n_reserved = n;
    m->n_mapped = (m->length + n + KV_PAGE - 1) / KV_PAGE;
    kv_model_commit(cache, sequence, m, tokens, n);
    kv_model_check(cache);
    kv_model_verify(cache, sequence, m);
}

struct kvcache_stats kv_model_stats(const struct kvcache *cache)
{
    struct kvcache_stats stats;
    kvcache_get_stats(cache, &stats);
    return stats;
}
