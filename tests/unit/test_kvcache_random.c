/* test_kvcache_random.c: the KV cache under random operations, against the model of helpers/kv_model.h, with
 * kvcache_check after every step; and the program's allocations counted: one that fails while a cache is made leaves
 * nothing, and a cache that is made allocates no more. */
#include "engine/sampler.h" /* for its random numbers */
#include "helpers/kv_model.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
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

static void test_create_refuses(void **state)
{
    (void)state;
    struct kvcache_options good = {.n_pages = 3, .n_sequences = 2, .n_positions = 100};
    struct kvcache *cache = NULL;
    runnel_error error;
    struct kvcache_options bad[4] = {good, good, good, good};
    bad[0].n_pages = 0;
    bad[1].n_sequences = 0;
    bad[2].n_positions = 0;
    bad[3].n_pages = UINT32_MAX;
    for (int i = 0; i < 4; i++) {
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
    struct kv_model_sequence m[N_SEQUENCES];
    uint32_t n_pages, n_matched_more;
    uint32_t n_copies; /* asked for, and made by a later call */
};

/* How many table entries of all sequences are this page. */
static uint32_t n_holders(const struct world *w, uint32_t page)
{
    uint32_t n = 0;
    for (int s = 0; s < N_SEQUENCES; s++)
        for (uint32_t i = 0; w->m[s].open && i < MAX_PAGES; i++)
            n += kv_model_page(w->cache, s, i) == page;
    return n;
}

/* Pages that somebody references, counted by looking at the tables. */
static uint32_t n_distinct(const struct world *w)
{
    bool seen[POOL_PAGES_MAX] = {false};
    uint32_t n = 0;
    for (int s = 0; s < N_SEQUENCES; s++)
        for (uint32_t i = 0; w->m[s].open && i < MAX_PAGES; i++) {
            uint32_t page = kv_model_page(w->cache, s, i);
            if (page != NO_PAGE && !seen[page])
                seen[page] = ++n;
        }
    return n;
}

static void random_prompt(int32_t *tokens, uint32_t n)
{
    uint32_t kind = 0;
    for (uint32_t i = 0; i < n; i++) {
        if (i % KV_PAGE == 0)
            kind = pick(8) ? pick(2) : 2 + pick(3);
        tokens[i] = kv_model_token(kind, i) + (pick(200) == 0);
    }
}

static void random_match(struct world *w, int sequence)
{
    struct kv_model_sequence *m = &w->m[sequence];
    int32_t tokens[N_POSITIONS];
    uint32_t n = 1 + pick(N_POSITIONS - 1), sure = 0;
    random_prompt(tokens, n);
    int like = (int)pick(N_SEQUENCES); /* often what another sequence holds */
    if (w->m[like].open && pick(2))
        for (uint32_t i = 0; i < n && i < w->m[like].length; i++)
            tokens[i] = w->m[like].tokens[i];
    for (int s = 0; s < N_SEQUENCES; s++) { /* what an open sequence references is there for sure */
        const struct kv_model_sequence *other = &w->m[s];
        uint32_t page = 0;
        while (other->open && other->salt == m->salt && (page + 1) * KV_PAGE < n && page < other->n_clean &&
               page < m->n_clean && (page + 1) * KV_PAGE <= other->length && !other->dropped[page] &&
               memcmp(other->tokens + page * KV_PAGE, tokens + page * KV_PAGE, KV_PAGE * sizeof *tokens) == 0)
            page++;
        sure = page > sure ? page : sure;
    }
    uint32_t n_held, n_cached = kv_model_stats(w->cache).n_cached;
    uint32_t foreseen = kvcache_find(w->cache, m->salt, tokens, n, &n_held);
    uint32_t found = kvcache_match(w->cache, sequence, tokens, n);
    assert_true(n_held <= foreseen && n_held >= sure * KV_PAGE);
    if (m->keep_last) {
        assert_true(found <= foreseen);
    } else {
        assert_int_equal(found, foreseen);
        n_cached -= kv_model_stats(w->cache).n_cached; /* what nobody held was cached */
        assert_int_equal(n_held + n_cached * KV_PAGE, found);
    }
    assert_int_equal(found % KV_PAGE, 0);
    assert_in_range(found, sure * KV_PAGE, n - 1);
    for (uint32_t i = 0; i < found; i++) {
        m->tokens[i] = tokens[i];
        m->stamps[i + 1] = kv_model_mix(m->stamps[i], (uint64_t)tokens[i] + 1);
    }
    m->length = found;
    m->n_mapped = found / KV_PAGE;
}

/* Goes on as another sequence does, or as nobody, and takes what is there of that. */
static void random_match_more(struct world *w, int sequence)
{
    struct kv_model_sequence *m = &w->m[sequence];
    const struct kv_model_sequence *like = &w->m[pick(N_SEQUENCES)];
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
        m->stamps[i + 1] = kv_model_mix(m->stamps[i], (uint64_t)tokens[i] + 1);
    }
    m->length = found;
    m->n_mapped = found / KV_PAGE;
    w->n_matched_more++;
}

static void random_reserve(struct world *w, int sequence)
{
    struct kv_model_sequence *m = &w->m[sequence];
    uint32_t n = pick(4) ? pick(3) + 1 : pick(3 * KV_PAGE) + 1;
    uint32_t whole = m->length - m->length % KV_PAGE, wanted = (m->length + n + KV_PAGE - 1) / KV_PAGE;
    bool drop[MAX_PAGES] = {false};
    uint32_t available = w->n_pages - n_distinct(w), needed = wanted > m->n_mapped ? wanted - m->n_mapped : 0;
    for (uint32_t page = 0; m->keep_last && page < MAX_PAGES; page++) {
        drop[page] = page * KV_PAGE >= m->keep_first && (page + 1) * KV_PAGE + m->keep_last <= whole;
        if (drop[page] && !m->dropped[page])
            available += n_holders(w, kv_model_page(w->cache, sequence, page)) == 1;
    }
    const struct page_copy *copies;
    uint32_t n_copies = kvcache_copies(w->cache, &copies);
    bool takes_copy =
        m->length % KV_PAGE && n_holders(w, kv_model_page(w->cache, sequence, m->length / KV_PAGE)) > 1;
    needed += takes_copy;
    struct kvcache_stats before = kv_model_stats(w->cache);
    int status = kvcache_reserve(w->cache, sequence, n);
    if (status) {
        assert_int_equal(status, m->length + n > N_POSITIONS ? RUNNEL_ECONTEXT : RUNNEL_ENOMEM);
        assert_true(status == RUNNEL_ECONTEXT || needed > available ||
                    (takes_copy && n_copies == N_SEQUENCES));
        assert_int_equal(kvcache_copies(w->cache, &copies), n_copies);
        struct kvcache_stats after = kv_model_stats(w->cache);
        assert_memory_equal(&before, &after, sizeof before);
        return;
    }
    assert_true(needed <= available);
    assert_int_equal(kvcache_copies(w->cache, &copies), n_copies + takes_copy);
    w->n_copies += takes_copy;
    for (uint32_t page = 0; page < MAX_PAGES; page++)
        m->dropped[page] |= drop[page];
    m->n_mapped = wanted > m->n_mapped ? wanted : m->n_mapped;
    m->n_reserved = n > m->n_reserved ? n : m->n_reserved;
}

static void random_commit(struct world *w, int sequence)
{
    struct kv_model_sequence *m = &w->m[sequence];
    int32_t tokens[N_POSITIONS];
    uint32_t n = pick(3) ? m->n_reserved : pick(m->n_reserved + 1);
    int like = (int)pick(N_SEQUENCES);
    uint32_t kind = pick(3);
    for (uint32_t i = 0; i < n; i++) {
        bool same = w->m[like].open && w->m[like].length > m->length + i;
        tokens[i] = same ? w->m[like].tokens[m->length + i] : kv_model_token(kind, m->length + i);
    }
    kv_model_commit(w->cache, sequence, m, tokens, n);
}

static void random_truncate(struct world *w, int sequence)
{
    struct kv_model_sequence *m = &w->m[sequence];
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
    struct kv_model_sequence *m = &w->m[sequence];
    if (!m->open) {
        uint32_t keep_last = pick(4) ? 0 : 1 + pick(3 * KV_PAGE);
        int number;
        struct kv_model_sequence fresh =
            kv_model_open(w->cache, &number, pick(2), keep_last ? pick(3 * KV_PAGE) : 0, keep_last);
        m = &w->m[number];
        *m = fresh;
        int from = (int)pick(N_SEQUENCES);
        const struct kv_model_sequence *source = &w->m[from];
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
    kv_model_check(w->cache);
    assert_int_equal(kv_model_stats(w->cache).n_referenced, n_distinct(w));
    for (int s = 0; s < N_SEQUENCES; s++)
        if (w->m[s].open && (s == sequence || pick(4) == 0))
            kv_model_verify(w->cache, s, &w->m[s]);
}

static void test_random_operations(void **state)
{
    (void)state;
    static const uint32_t sizes[] = {5, 16, 40, 90};
    for (int i = 0; i < 4; i++) {
        struct world w = {.cache = kv_model_create(sizes[i]), .n_pages = sizes[i]};
        n_allocations = 0;
        for (int step = 0; step < (SANITIZED ? 30000 : 100000); step++)
            random_step(&w);
        assert_int_equal(n_allocations, 0);
        struct kvcache_stats stats = kv_model_stats(w.cache);
        assert_true(stats.n_hits > 100 && stats.n_evicted > 100); /* the interesting things did happen */
        assert_true(w.n_matched_more > 50 && w.n_copies > 20);
        kvcache_free(w.cache);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_create_refuses),
        cmocka_unit_test(test_random_operations),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
