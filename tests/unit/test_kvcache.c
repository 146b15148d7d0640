/* test_kvcache.c: the KV cache against a simple model of itself.
 *
 * A "forward pass" here stamps each committed position's slot in all its KV blocks with a hash of all tokens
 * up to it; so a page that is wrong, stale or shared where it must not be shows as a wrong stamp. The model
 * keeps plain arrays of tokens and stamps. kvcache_check runs after every step. */
#include "engine/kvcache.h"
#include "engine/sampler.h" /* for its random numbers */

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define SANITIZED 1
#endif
#endif
#ifndef SANITIZED
#define SANITIZED 0
#endif

/* Allocations of the whole program, counted, and failing from the n-th on if asked. Sanitizers have their
 * own. */
static long n_allocations;
#if !SANITIZED
static long fail_from = -1;

void *__libc_malloc(size_t size);
void *__libc_calloc(size_t n, size_t size);
void *malloc(size_t size);
void *calloc(size_t n, size_t size);

void *malloc(size_t size)
{
    n_allocations++;
    return fail_from >= 0 && n_allocations > fail_from ? NULL : __libc_malloc(size);
}

void *calloc(size_t n, size_t size)
{
    n_allocations++;
    return fail_from >= 0 && n_allocations > fail_from ? NULL : __libc_calloc(n, size);
}
#endif

enum { N_LAYERS = 2, N_HEADS = 2, N_SEQUENCES = 6, MAX_PAGES = 14, N_POSITIONS = MAX_PAGES * KV_PAGE - 5 };

static const struct kv_shape shapes[N_LAYERS] = {{.head_dim = 4, .k_f32 = false},
                                                 {.head_dim = 6, .k_f32 = true}};

static struct kvcache *create(uint32_t n_pages)
{
    struct kvcache_options options = {.n_layers = N_LAYERS,
                                      .n_kv_heads = N_HEADS,
                                      .shapes = shapes,
                                      .n_pages = n_pages,
                                      .n_sequences = N_SEQUENCES,
                                      .n_positions = N_POSITIONS};
    struct kvcache *cache = NULL;
    runnel_error error;
    assert_int_equal(kvcache_create(&options, &cache, &error), 0);
    return cache;
}

static uint64_t mix(uint64_t a, uint64_t b)
{
    return sampler_random(a, b);
}

/* The model ----------------------------------------------------------------------------------------------- */

struct model_sequence {
    bool open;
    uint64_t salt, nonce;
    uint32_t keep_first, keep_last;
    uint32_t length, n_reserved, n_mapped;
    uint32_t n_clean; /* pages computed before anything was dropped */
    bool dropped[MAX_PAGES];
    int32_t tokens[N_POSITIONS];
    uint64_t stamps[N_POSITIONS + 1]; /* stamps[i]: of position i - 1 */
};

static uint64_t *slot(const struct kvcache *cache, int sequence, uint32_t position, uint32_t layer,
                      uint32_t head)
{
    uint8_t *block = kvcache_block(cache, sequence, position / KV_PAGE, layer, head);
    return block ? (uint64_t *)(block + position % KV_PAGE * sizeof(uint64_t)) : NULL;
}

/* Writes and commits the next n reserved positions. */
static void commit(struct kvcache *cache, int sequence, struct model_sequence *m, const int32_t *tokens,
                   uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        uint32_t position = m->length + i;
        bool clean = position / KV_PAGE < m->n_clean;
        m->tokens[position] = tokens[i];
        /* After a drop a page depends on what was dropped: nobody else's is equal. */
        m->stamps[position + 1] = mix(m->stamps[position] + (clean ? 0 : m->nonce), (uint64_t)tokens[i] + 1);
        for (uint32_t layer = 0; layer < N_LAYERS; layer++)
            for (uint32_t head = 0; head < N_HEADS; head++) {
                uint64_t *place = slot(cache, sequence, position, layer, head);
                assert_non_null(place);
                *place = m->stamps[position + 1] + layer * N_HEADS + head;
            }
    }
    kvcache_commit(cache, sequence, tokens, n);
    m->length += n;
    m->n_reserved -= n;
}

static void verify(const struct kvcache *cache, int sequence, const struct model_sequence *m)
{
    assert_int_equal(kvcache_length(cache, sequence), m->length);
    for (uint32_t page = 0; page < MAX_PAGES; page++) {
        bool there = page * KV_PAGE < m->length + m->n_reserved && !m->dropped[page];
        for (uint32_t layer = 0; layer < N_LAYERS; layer++)
            for (uint32_t head = 0; head < N_HEADS; head++) {
                if (!there && page >= m->n_mapped)
                    assert_null(kvcache_block(cache, sequence, page, layer, head));
                if (m->dropped[page])
                    assert_null(kvcache_block(cache, sequence, page, layer, head));
                for (uint32_t i = page * KV_PAGE; there && i < (page + 1) * KV_PAGE && i < m->length; i++) {
                    const uint64_t *place = slot(cache, sequence, i, layer, head);
                    assert_true(place && *place == m->stamps[i + 1] + layer * N_HEADS + head);
                }
            }
    }
    assert_null(kvcache_block(cache, sequence, MAX_PAGES + 3, 0, 0));
}

static void check(const struct kvcache *cache)
{
    const char *wrong = kvcache_check(cache);
    if (wrong)
        fail_msg("%s", wrong);
    struct kvcache_stats stats;
    kvcache_get_stats(cache, &stats);
    assert_int_equal(stats.n_free + stats.n_cached + stats.n_referenced, stats.n_pages);
}

static struct model_sequence opened(struct kvcache *cache, int *sequence, uint64_t salt, uint32_t keep_first,
                                    uint32_t keep_last)
{
    static uint64_t n_opened;
    *sequence = kvcache_open(cache, salt, keep_first, keep_last);
    assert_in_range(*sequence, 0, N_SEQUENCES - 1);
    struct model_sequence m = {.open = true,
                               .salt = salt,
                               .nonce = mix(++n_opened, 1),
                               .keep_first = keep_first,
                               .keep_last = keep_last,
                               .n_clean = UINT32_MAX};
    m.stamps[0] = salt;
    if (keep_last)
        m.n_clean = (keep_first + KV_PAGE - 1) / KV_PAGE + 1 + (keep_last + KV_PAGE - 1) / KV_PAGE;
    return m;
}

/* Tokens of page kinds: position i of a page of kind k. Few kinds, so that prefixes are common. */
static int32_t token_of(uint32_t kind, uint32_t i)
{
    return (int32_t)(kind * 1000 + i % KV_PAGE);
}

static void grow(struct kvcache *cache, int sequence, struct model_sequence *m, uint32_t kind, uint32_t n)
{
    int32_t tokens[N_POSITIONS];
    for (uint32_t i = 0; i < n; i++)
        tokens[i] = token_of(kind, m->length + i);
    assert_int_equal(kvcache_reserve(cache, sequence, n), 0);
    check(cache);
    m->n_reserved = n;
    m->n_mapped = (m->length + n + KV_PAGE - 1) / KV_PAGE;
    commit(cache, sequence, m, tokens, n);
    check(cache);
    verify(cache, sequence, m);
}

static struct kvcache_stats stats_of(const struct kvcache *cache)
{
    struct kvcache_stats stats;
    kvcache_get_stats(cache, &stats);
    return stats;
}

/* Directed tests ------------------------------------------------------------------------------------------ */

static void test_match_after_close(void **state)
{
    (void)state;
    struct kvcache *cache = create(10);
    int a, b;
    struct model_sequence m = opened(cache, &a, 7, 0, 0);
    grow(cache, a, &m, 1, 3 * KV_PAGE + 5);
    kvcache_close(cache, a);
    assert_int_equal(stats_of(cache).n_cached, 3); /* the partial page is free again */
    check(cache);

    opened(cache, &b, 8, 0, 0); /* another salt */
    assert_int_equal(kvcache_match(cache, b, m.tokens, m.length), 0);
    kvcache_close(cache, b);
    opened(cache, &b, 7, 0, 0);
    assert_int_equal(kvcache_match(cache, b, m.tokens, 3 * KV_PAGE),
                     2 * KV_PAGE); /* one token is left to compute */
    kvcache_close(cache, b);
    struct model_sequence n = opened(cache, &b, 7, 0, 0);
    assert_int_equal(kvcache_match(cache, b, m.tokens, 3 * KV_PAGE + 1), 3 * KV_PAGE);
    memcpy(n.stamps, m.stamps, sizeof n.stamps);
    n.length = 3 * KV_PAGE;
    n.n_mapped = 3;
    verify(cache, b, &n);
    check(cache);
    kvcache_close(cache, b);
    int32_t other[3 * KV_PAGE + 1];
    memcpy(other, m.tokens, sizeof other);
    other[KV_PAGE + 3]++; /* the second page differs: the third must not be found either */
    opened(cache, &b, 7, 0, 0);
    assert_int_equal(kvcache_match(cache, b, other, 3 * KV_PAGE + 1), KV_PAGE);
    assert_int_equal(kvcache_match(cache, b, other, 0), KV_PAGE);
    struct kvcache_stats stats = stats_of(cache);
    assert_int_equal(stats.n_queries, m.length + 3 * KV_PAGE + 2 * (3 * KV_PAGE + 1));
    check(cache);
    kvcache_free(cache);
}

/* Two sequences want the same page; one has begun it when the other one commits it. */
static void test_match_more(void **state)
{
    (void)state;
    struct kvcache *cache = create(8);
    int a, b, c;
    struct model_sequence first = opened(cache, &a, 7, 0, 0), second = opened(cache, &b, 7, 0, 0);
    struct model_sequence other = opened(cache, &c, 8, 0, 0); /* another salt */
    int32_t tokens[3 * KV_PAGE + 1], longer[3 * KV_PAGE + 1];
    for (uint32_t i = 0; i < 3 * KV_PAGE + 1; i++)
        longer[i] = tokens[i] = token_of(1, i);
    longer[3 * KV_PAGE - 1]++;
    assert_true(kvcache_same_next(cache, a, tokens, b, longer));
    assert_false(kvcache_same_next(cache, a, tokens, c, tokens));
    grow(cache, b, &second, 1, 5);
    assert_true(kvcache_same_next(cache, a, tokens, b, longer));
    grow(cache, a, &first, 1, 2 * KV_PAGE + 3);
    assert_false(kvcache_same_next(cache, a, tokens, b, longer));       /* it is behind */
    assert_int_equal(kvcache_match_more(cache, b, longer, KV_PAGE), 5); /* the last one is to be computed */
    assert_int_equal(kvcache_match_more(cache, b, longer, 3 * KV_PAGE + 1), 2 * KV_PAGE);
    assert_int_equal(kvcache_match_more(cache, c, tokens, 3 * KV_PAGE + 1), 0);
    memcpy(second.tokens, first.tokens, sizeof second.tokens);
    memcpy(second.stamps, first.stamps, sizeof second.stamps);
    second.length = 2 * KV_PAGE;
    second.n_mapped = 2;
    verify(cache, b, &second);
    check(cache);
    assert_int_equal(stats_of(cache).n_referenced, 3); /* what b had begun is free again */
    assert_int_equal(stats_of(cache).n_hits, 2 * KV_PAGE - 5);
    assert_false(kvcache_same_next(cache, a, tokens, b, longer)); /* the third page differs */
    assert_true(kvcache_same_next(cache, a, tokens, b, tokens));
    assert_int_equal(kvcache_reserve(cache, b, 4), 0);
    grow(cache, a, &first, 1, KV_PAGE);
    assert_int_equal(kvcache_match_more(cache, b, tokens, 3 * KV_PAGE + 1),
                     2 * KV_PAGE); /* rows are on their way */
    kvcache_rollback(cache, b);
    assert_int_equal(kvcache_match_more(cache, b, tokens, 3 * KV_PAGE + 1), 3 * KV_PAGE);
    verify(cache, c, &other);
    check(cache);
    kvcache_free(cache);
}

/* A page whose predecessor was evicted and came back with other content must not be found behind it. */
static void test_evicted_parent(void **state)
{
    (void)state;
    struct kvcache *cache = create(4);
    int a, b;
    struct model_sequence m =
        opened(cache, &a, 0, 0, KV_PAGE); /* drops page 0 while page 1 and 2 are referenced */
    grow(cache, a, &m, 1, 2 * KV_PAGE);
    assert_int_equal(kvcache_reserve(cache, a, 1), 0);
    m.dropped[0] = true;
    m.n_reserved = 1;
    m.n_mapped = 3;
    verify(cache, a, &m);
    assert_int_equal(stats_of(cache).n_cached, 1);
    struct model_sequence n = opened(cache, &b, 0, 0, 0);
    grow(cache, b, &n, 2, KV_PAGE + 1); /* takes the free page and the cached one */
    assert_int_equal(stats_of(cache).n_evicted, 1);
    kvcache_close(cache, a); /* page 1 is cached; it was behind the evicted one */
    kvcache_close(cache, b);
    check(cache);
    opened(cache, &a, 0, 0, 0);
    assert_int_equal(kvcache_match(cache, a, m.tokens, 2 * KV_PAGE + 1), 0);
    n = opened(cache, &b, 0, 0, 0);
    grow(cache, b, &n, 1, KV_PAGE); /* page 0 again; equal tokens, another id */
    check(cache);
    int32_t tokens[2 * KV_PAGE + 1];
    for (uint32_t i = 0; i < 2 * KV_PAGE + 1; i++)
        tokens[i] = token_of(1, i);
    assert_int_equal(kvcache_match(cache, a, tokens, 2 * KV_PAGE + 1), KV_PAGE);
    check(cache);
    kvcache_free(cache);
}

static void test_evicts_least_recently_used_leaves_first(void **state)
{
    (void)state;
    struct kvcache *cache = create(6);
    int a, b;
    struct model_sequence first = opened(cache, &a, 0, 0, 0);
    grow(cache, a, &first, 1, 3 * KV_PAGE);
    kvcache_close(cache, a);
    struct model_sequence second = opened(cache, &a, 0, 0, 0);
    grow(cache, a, &second, 2, 2 * KV_PAGE);
    kvcache_close(cache, a);
    struct model_sequence third = opened(cache, &a, 0, 0, 0);
    grow(cache, a, &third, 3, 2 * KV_PAGE); /* one free, one from the end of the first */
    assert_int_equal(stats_of(cache).n_evicted, 1);
    opened(cache, &b, 0, 0, 0);
    int32_t tokens[4 * KV_PAGE];
    for (uint32_t i = 0; i < 4 * KV_PAGE; i++)
        tokens[i] = token_of(1, i);
    assert_int_equal(kvcache_match(cache, b, tokens, 4 * KV_PAGE), 2 * KV_PAGE);
    kvcache_close(cache, b); /* used again: now the second one is the oldest */
    grow(cache, a, &third, 3, 2 * KV_PAGE);
    opened(cache, &b, 0, 0, 0);
    assert_int_equal(kvcache_match(cache, b, tokens, 4 * KV_PAGE), 2 * KV_PAGE);
    kvcache_close(cache, b);
    check(cache);
    verify(cache, a, &third);
    kvcache_free(cache);
}

static void test_share_and_copy_on_write(void **state)
{
    (void)state;
    struct kvcache *cache = create(8);
    int a, b, c;
    struct model_sequence m = opened(cache, &a, 5, 0, 0);
    grow(cache, a, &m, 1, 2 * KV_PAGE + 7);
    struct model_sequence n = opened(cache, &b, 5, 0, 0);
    kvcache_share(cache, a, b, 2 * KV_PAGE + 4);
    memcpy(n.stamps, m.stamps, sizeof n.stamps);
    n.length = 2 * KV_PAGE + 4;
    n.n_mapped = 3;
    verify(cache, b, &n);
    assert_int_equal(stats_of(cache).n_referenced, 3);
    check(cache);
    assert_ptr_equal(kvcache_block(cache, a, 2, 0, 0), kvcache_block(cache, b, 2, 0, 0));
    grow(cache, b, &n, 2, 1); /* writes: its own copy */
    assert_ptr_not_equal(kvcache_block(cache, a, 2, 0, 0), kvcache_block(cache, b, 2, 0, 0));
    assert_ptr_equal(kvcache_block(cache, a, 1, 0, 0), kvcache_block(cache, b, 1, 0, 0));
    verify(cache, a, &m);
    void *before = kvcache_block(cache, a, 2, 0, 0);
    grow(cache, a, &m, 3, 1); /* alone again: no copy */
    assert_ptr_equal(before, kvcache_block(cache, a, 2, 0, 0));
    verify(cache, b, &n);

    opened(cache, &c, 6, 0, 0);
    kvcache_share(cache, a, c, 4); /* another salt */
    assert_int_equal(kvcache_length(cache, c), 0);
    kvcache_close(cache, c);
    opened(cache, &c, 5, 0, KV_PAGE);
    kvcache_share(cache, a, c, 4); /* a window */
    assert_int_equal(kvcache_length(cache, c), 0);
    check(cache);
    kvcache_free(cache);
}

/* A page that was whole and indexed is cut by truncate and written again. */
static void test_truncate_into_an_indexed_page(void **state)
{
    (void)state;
    struct kvcache *cache = create(8);
    int a, b;
    struct model_sequence m = opened(cache, &a, 0, 0, 0);
    grow(cache, a, &m, 1, 3 * KV_PAGE);
    struct model_sequence n = opened(cache, &b, 0, 0, 0);
    assert_int_equal(kvcache_match(cache, b, m.tokens, 3 * KV_PAGE), 2 * KV_PAGE);
    memcpy(n.stamps, m.stamps, sizeof n.stamps);
    memcpy(n.tokens, m.tokens, sizeof n.tokens);
    n.length = 2 * KV_PAGE;
    kvcache_truncate(cache, a, KV_PAGE + 10);
    m.length = KV_PAGE + 10;
    m.n_mapped = 2;
    check(cache);
    verify(cache, a, &m);
    grow(cache, a, &m, 9, 3); /* shared with b: a copy */
    verify(cache, b, &n);
    kvcache_truncate(cache, b, KV_PAGE + 1);
    n.length = KV_PAGE + 1;
    grow(cache, b, &n, 8, KV_PAGE); /* b's alone, indexed: leaves the index and is written */
    verify(cache, a, &m);
    kvcache_close(cache, a);
    kvcache_close(cache, b);
    check(cache);
    opened(cache, &a, 0, 0, 0);
    assert_int_equal(kvcache_match(cache, a, n.tokens, 2 * KV_PAGE + 1), 2 * KV_PAGE);
    kvcache_free(cache);
}

/* Two that compute the same end with the same pages. */
static void test_equal_pages_become_one(void **state)
{
    (void)state;
    struct kvcache *cache = create(8);
    int a, b;
    struct model_sequence m = opened(cache, &a, 0, 0, 0), n = opened(cache, &b, 0, 0, 0);
    grow(cache, a, &m, 1, 2 * KV_PAGE + 3);
    grow(cache, b, &n, 1, 2 * KV_PAGE + 3);
    assert_ptr_equal(kvcache_block(cache, a, 1, 1, 1), kvcache_block(cache, b, 1, 1, 1));
    assert_ptr_not_equal(kvcache_block(cache, a, 2, 1, 1), kvcache_block(cache, b, 2, 1, 1));
    assert_int_equal(stats_of(cache).n_referenced, 4);
    kvcache_free(cache);
}

static void test_reserve_fails_without_a_trace(void **state)
{
    (void)state;
    struct kvcache *cache = create(4);
    int a, b;
    struct model_sequence m = opened(cache, &a, 0, 0, 0);
    grow(cache, a, &m, 1, 2 * KV_PAGE + 1);
    struct model_sequence n = opened(cache, &b, 0, 0, 0);
    struct kvcache_stats before = stats_of(cache), after;
    assert_int_equal(kvcache_reserve(cache, b, KV_PAGE + 1), RUNNEL_ENOMEM);
    assert_int_equal(kvcache_reserve(cache, b, N_POSITIONS + 1), RUNNEL_ECONTEXT);
    assert_int_equal(kvcache_reserve(cache, b, UINT32_MAX), RUNNEL_ECONTEXT);
    assert_int_equal(kvcache_reserve(cache, a, N_POSITIONS - m.length + 1), RUNNEL_ECONTEXT);
    after = stats_of(cache);
    assert_memory_equal(&before, &after, sizeof before);
    assert_null(kvcache_block(cache, b, 0, 0, 0));
    check(cache);
    grow(cache, b, &n, 2, KV_PAGE);
    assert_int_equal(kvcache_reserve(cache, b, 1), RUNNEL_ENOMEM);
    kvcache_close(cache, a); /* what preemption does */
    grow(cache, b, &n, 2, 1);
    int ids[N_SEQUENCES];
    for (int i = 0; i < N_SEQUENCES - 1; i++)
        ids[i] = kvcache_open(cache, 0, 0, 0);
    assert_int_equal(kvcache_open(cache, 0, 0, 0), RUNNEL_ENOMEM);
    kvcache_close(cache, ids[2]);
    assert_int_equal(kvcache_open(cache, 0, 0, 0), ids[2]);
    kvcache_free(cache);
}

static void test_rollback(void **state)
{
    (void)state;
    struct kvcache *cache = create(6);
    int a;
    struct model_sequence m = opened(cache, &a, 0, 0, 0);
    grow(cache, a, &m, 1, KV_PAGE - 2);
    assert_int_equal(kvcache_reserve(cache, a, 2 * KV_PAGE), 0);
    assert_int_equal(stats_of(cache).n_referenced, 3);
    int32_t tokens[2] = {1, 2};
    m.n_reserved = 2 * KV_PAGE;
    m.n_mapped = 3;
    commit(cache, a, &m, tokens, 1); /* a draft of which one token stands */
    kvcache_rollback(cache, a);
    m.n_reserved = 0;
    m.n_mapped = 1;
    assert_int_equal(stats_of(cache).n_referenced, 1);
    check(cache);
    verify(cache, a, &m);
    kvcache_commit(cache, a, tokens, 2); /* nothing is reserved: nothing is committed */
    verify(cache, a, &m);
    kvcache_free(cache);
}

/* Any length in constant memory; and the chunks that keep results independent of how a prompt is cut. */
static void test_window(void **state)
{
    (void)state;
    struct kvcache *cache = create(6);
    int a;
    struct model_sequence m = opened(cache, &a, 0, 10, KV_PAGE + 5);
    assert_int_equal(kvcache_chunk(cache, a),
                     4 * KV_PAGE); /* page 0 kept, page 1 the first to go, 2 and 3 kept */
    grow(cache, a, &m, 1, 2 * KV_PAGE + 1);
    assert_int_equal(kvcache_chunk(cache, a), 2 * KV_PAGE - 1);
    grow(cache, a, &m, 1, 2 * KV_PAGE - 1);
    assert_int_equal(kvcache_chunk(cache, a), KV_PAGE);
    for (uint32_t length = 4 * KV_PAGE; length < N_POSITIONS; length++) {
        uint32_t whole = length - length % KV_PAGE;
        for (uint32_t page = 1; (page + 1) * KV_PAGE + m.keep_last <= whole; page++)
            m.dropped[page] = true;
        grow(cache, a, &m, 1, 1);
        assert_true(stats_of(cache).n_referenced <= 5);
    }
    assert_true(m.dropped[8] && !m.dropped[0] && !m.dropped[11]);
    assert_int_equal(kvcache_chunk(cache, a), KV_PAGE - N_POSITIONS % KV_PAGE);
    kvcache_truncate(cache, a, 3); /* before all that was dropped: as new */
    memset(m.dropped, 0, sizeof m.dropped);
    m.length = 3;
    m.n_mapped = 1;
    check(cache);
    verify(cache, a, &m);
    grow(cache, a, &m, 1, 4 * KV_PAGE - 3);
    check(cache);
    kvcache_free(cache);
    assert_int_equal(KV_PAGE, 32);
}

static void test_create_refuses(void **state)
{
    (void)state;
    struct kvcache_options good = {.n_layers = N_LAYERS,
                                   .n_kv_heads = N_HEADS,
                                   .shapes = shapes,
                                   .n_pages = 3,
                                   .n_sequences = 2,
                                   .n_positions = 100};
    struct kvcache *cache = NULL;
    runnel_error error;
    struct kvcache_options bad[6] = {good, good, good, good, good, good};
    bad[0].n_layers = 0;
    bad[1].n_kv_heads = 0;
    bad[2].n_pages = 0;
    bad[3].n_sequences = 0;
    bad[4].n_positions = 0;
    bad[5].n_pages = UINT32_MAX;
    for (int i = 0; i < 6; i++) {
        assert_int_equal(kvcache_create(&bad[i], &cache, &error), RUNNEL_EINVAL);
        assert_non_null(strstr(error.message, "expected"));
        assert_null(cache);
    }
#if !SANITIZED
    for (long n = 0;; n++) {
        assert_in_range(n, 0, 100);
        fail_from = n_allocations + n;
        int status = kvcache_create(&good, &cache, &error);
        fail_from = -1;
        if (status == 0) {
            assert_true(n > 5);
            break;
        }
        assert_int_equal(status, RUNNEL_ENOMEM);
        assert_null(cache);
    }
    kvcache_free(cache);
#endif
    kvcache_free(NULL);
}

/* Random operations --------------------------------------------------------------------------------------- */

static uint64_t counter;

static uint32_t pick(uint32_t n)
{
    return (uint32_t)(sampler_random(2024, counter++) % n);
}

struct world {
    struct kvcache *cache;
    struct model_sequence m[N_SEQUENCES];
    uint32_t n_pages, n_matched_more;
};

/* How many table entries of all sequences are this block. */
static uint32_t n_holders(const struct world *w, const void *block)
{
    uint32_t n = 0;
    for (int s = 0; s < N_SEQUENCES; s++)
        for (uint32_t page = 0; w->m[s].open && page < MAX_PAGES; page++)
            n += kvcache_block(w->cache, s, page, 0, 0) == block;
    return n;
}

/* Pages that somebody references, counted by looking at the blocks. */
static uint32_t n_distinct(const struct world *w)
{
    const void *seen[N_SEQUENCES * MAX_PAGES];
    uint32_t n = 0;
    for (int s = 0; s < N_SEQUENCES; s++)
        for (uint32_t page = 0; w->m[s].open && page < MAX_PAGES; page++) {
            const void *block = kvcache_block(w->cache, s, page, 0, 0);
            uint32_t i = 0;
            while (i < n && seen[i] != block)
                i++;
            if (block && i == n)
                seen[n++] = block;
        }
    return n;
}

static void random_prompt(int32_t *tokens, uint32_t n)
{
    uint32_t kind = 0;
    for (uint32_t i = 0; i < n; i++) {
        if (i % KV_PAGE == 0)
            kind = pick(8) ? pick(2) : 2 + pick(3);
        tokens[i] = token_of(kind, i) + (pick(200) == 0);
    }
}

static void random_match(struct world *w, int sequence)
{
    struct model_sequence *m = &w->m[sequence];
    int32_t tokens[N_POSITIONS];
    uint32_t n = 1 + pick(N_POSITIONS - 1), sure = 0;
    random_prompt(tokens, n);
    int like = (int)pick(N_SEQUENCES); /* often what another sequence holds */
    if (w->m[like].open && pick(2))
        for (uint32_t i = 0; i < n && i < w->m[like].length; i++)
            tokens[i] = w->m[like].tokens[i];
    for (int s = 0; s < N_SEQUENCES; s++) { /* what an open sequence references is there for sure */
        const struct model_sequence *other = &w->m[s];
        uint32_t page = 0;
        while (other->open && other->salt == m->salt && (page + 1) * KV_PAGE < n && page < other->n_clean &&
               page < m->n_clean && (page + 1) * KV_PAGE <= other->length && !other->dropped[page] &&
               memcmp(other->tokens + page * KV_PAGE, tokens + page * KV_PAGE, KV_PAGE * sizeof *tokens) == 0)
            page++;
        sure = page > sure ? page : sure;
    }
    uint32_t foreseen = kvcache_find(w->cache, m->salt, tokens, n);
    uint32_t found = kvcache_match(w->cache, sequence, tokens, n);
    if (m->keep_last)
        assert_true(found <= foreseen);
    else
        assert_int_equal(found, foreseen);
    assert_int_equal(found % KV_PAGE, 0);
    assert_in_range(found, sure * KV_PAGE, n - 1);
    for (uint32_t i = 0; i < found; i++) {
        m->tokens[i] = tokens[i];
        m->stamps[i + 1] = mix(m->stamps[i], (uint64_t)tokens[i] + 1);
    }
    m->length = found;
    m->n_mapped = found / KV_PAGE;
}

/* Goes on as another sequence does, or as nobody, and takes what is there of that. */
static void random_match_more(struct world *w, int sequence)
{
    struct model_sequence *m = &w->m[sequence];
    const struct model_sequence *like = &w->m[pick(N_SEQUENCES)];
    int32_t tokens[N_POSITIONS];
    uint32_t n = m->length + pick(N_POSITIONS - m->length + 1), before = m->length;
    random_prompt(tokens, N_POSITIONS);
    memcpy(tokens, m->tokens, m->length * sizeof *tokens);
    for (uint32_t i = m->length; like->open && i < like->length; i++)
        tokens[i] = like->tokens[i];
    uint32_t found = kvcache_match_more(w->cache, sequence, tokens, n);
    if (found == before)
        return;
    assert_true(m->n_reserved == 0 && found > before && found < n && found % KV_PAGE == 0);
    assert_true(found / KV_PAGE <= m->n_clean);
    for (uint32_t i = before; i < found; i++) {
        m->tokens[i] = tokens[i];
        m->stamps[i + 1] = mix(m->stamps[i], (uint64_t)tokens[i] + 1);
    }
    m->length = found;
    m->n_mapped = found / KV_PAGE;
    w->n_matched_more++;
}

static void random_reserve(struct world *w, int sequence)
{
    struct model_sequence *m = &w->m[sequence];
    uint32_t n = pick(4) ? pick(3) + 1 : pick(3 * KV_PAGE) + 1;
    uint32_t whole = m->length - m->length % KV_PAGE, wanted = (m->length + n + KV_PAGE - 1) / KV_PAGE;
    bool drop[MAX_PAGES] = {false};
    uint32_t available = w->n_pages - n_distinct(w), needed = wanted > m->n_mapped ? wanted - m->n_mapped : 0;
    for (uint32_t page = 0; m->keep_last && page < MAX_PAGES; page++) {
        drop[page] = page * KV_PAGE >= m->keep_first && (page + 1) * KV_PAGE + m->keep_last <= whole;
        if (drop[page] && !m->dropped[page])
            available += n_holders(w, kvcache_block(w->cache, sequence, page, 0, 0)) == 1;
    }
    if (m->length % KV_PAGE)
        needed += n_holders(w, kvcache_block(w->cache, sequence, m->length / KV_PAGE, 0, 0)) > 1;
    struct kvcache_stats before = stats_of(w->cache);
    int status = kvcache_reserve(w->cache, sequence, n);
    if (status) {
        assert_int_equal(status, m->length + n > N_POSITIONS ? RUNNEL_ECONTEXT : RUNNEL_ENOMEM);
        assert_true(status == RUNNEL_ECONTEXT || needed > available);
        struct kvcache_stats after = stats_of(w->cache);
        assert_memory_equal(&before, &after, sizeof before);
        return;
    }
    assert_true(needed <= available);
    for (uint32_t page = 0; page < MAX_PAGES; page++)
        m->dropped[page] |= drop[page];
    m->n_mapped = wanted > m->n_mapped ? wanted : m->n_mapped;
    m->n_reserved = n > m->n_reserved ? n : m->n_reserved;
}

static void random_commit(struct world *w, int sequence)
{
    struct model_sequence *m = &w->m[sequence];
    int32_t tokens[N_POSITIONS];
    uint32_t n = pick(3) ? m->n_reserved : pick(m->n_reserved + 1);
    int like = (int)pick(N_SEQUENCES);
    uint32_t kind = pick(3);
    for (uint32_t i = 0; i < n; i++) {
        bool same = w->m[like].open && w->m[like].length > m->length + i;
        tokens[i] = same ? w->m[like].tokens[m->length + i] : token_of(kind, m->length + i);
    }
    commit(w->cache, sequence, m, tokens, n);
}

static void random_truncate(struct world *w, int sequence)
{
    struct model_sequence *m = &w->m[sequence];
    uint32_t n = pick(m->length + 1);
    if (m->length && pick(2))
        n = m->length - pick(m->length < 40 ? m->length : 40);
    if (n / KV_PAGE < MAX_PAGES &&
        (m->dropped[n / KV_PAGE] || (n % KV_PAGE == 0 && n && m->dropped[n / KV_PAGE - 1])))
        return;
    kvcache_truncate(w->cache, sequence, n);
    m->length = n;
    m->n_reserved = 0;
    m->n_mapped = (n + KV_PAGE - 1) / KV_PAGE;
    bool any = false;
    for (uint32_t page = 0; page < MAX_PAGES; page++) {
        m->dropped[page] &= page < m->n_mapped;
        any |= m->dropped[page];
    }
    if (m->keep_last) {
        uint32_t fresh = (m->keep_first + KV_PAGE - 1) / KV_PAGE + 1 + (m->keep_last + KV_PAGE - 1) / KV_PAGE;
        if (!any)
            m->n_clean = m->n_mapped <= (m->keep_first + KV_PAGE - 1) / KV_PAGE || fresh < m->n_clean
                             ? fresh
                             : m->n_clean;
        else if (n / KV_PAGE < m->n_clean)
            m->n_clean = n / KV_PAGE;
    }
}

static void random_step(struct world *w)
{
    int sequence = (int)pick(N_SEQUENCES);
    struct model_sequence *m = &w->m[sequence];
    if (!m->open) {
        uint32_t keep_last = pick(4) ? 0 : 1 + pick(3 * KV_PAGE);
        int number;
        struct model_sequence fresh =
            opened(w->cache, &number, pick(2), keep_last ? pick(3 * KV_PAGE) : 0, keep_last);
        m = &w->m[number];
        *m = fresh;
        int from = (int)pick(N_SEQUENCES);
        const struct model_sequence *source = &w->m[from];
        if (pick(2)) {
            random_match(w, number);
        } else if (from != number && source->open && !source->n_reserved) {
            uint32_t n = pick(source->length + 1);
            kvcache_share(w->cache, from, number, n);
            if (source->salt == m->salt && !source->keep_last && !m->keep_last) {
                memcpy(m->tokens, source->tokens, sizeof m->tokens);
                memcpy(m->stamps, source->stamps, sizeof m->stamps);
                m->length = n;
                m->n_mapped = (n + KV_PAGE - 1) / KV_PAGE;
            }
        }
        sequence = number;
    } else if (m->n_reserved && pick(8)) {
        random_commit(w, sequence);
    } else {
        switch (pick(16)) {
        case 0:
            kvcache_close(w->cache, sequence);
            m->open = false;
            break;
        case 1:
            kvcache_rollback(w->cache, sequence);
            m->n_reserved = 0;
            m->n_mapped = (m->length + KV_PAGE - 1) / KV_PAGE;
            break;
        case 2:
            random_truncate(w, sequence);
            break;
        case 3:
        case 4:
            random_match_more(w, sequence);
            break;
        default:
            random_reserve(w, sequence);
        }
    }
    check(w->cache);
    assert_int_equal(stats_of(w->cache).n_referenced, n_distinct(w));
    for (int s = 0; s < N_SEQUENCES; s++)
        if (w->m[s].open && (s == sequence || pick(4) == 0))
            verify(w->cache, s, &w->m[s]);
}

static void test_random_operations(void **state)
{
    (void)state;
    static const uint32_t sizes[] = {5, 16, 40, 90};
    for (int i = 0; i < 4; i++) {
        struct world w = {.cache = create(sizes[i]), .n_pages = sizes[i]};
        n_allocations = 0;
        for (int step = 0; step < (SANITIZED ? 30000 : 100000); step++)
            random_step(&w);
        assert_int_equal(n_allocations, 0);
        struct kvcache_stats stats = stats_of(w.cache);
        assert_true(stats.n_hits > 100 && stats.n_evicted > 100); /* the interesting things did happen */
        assert_true(w.n_matched_more > 50);
        kvcache_free(w.cache);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_match_after_close),
        cmocka_unit_test(test_match_more),
        cmocka_unit_test(test_evicted_parent),
        cmocka_unit_test(test_evicts_least_recently_used_leaves_first),
        cmocka_unit_test(test_share_and_copy_on_write),
        cmocka_unit_test(test_truncate_into_an_indexed_page),
        cmocka_unit_test(test_equal_pages_become_one),
        cmocka_unit_test(test_reserve_fails_without_a_trace),
        cmocka_unit_test(test_rollback),
        cmocka_unit_test(test_window),
        cmocka_unit_test(test_create_refuses),
        cmocka_unit_test(test_random_operations),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
