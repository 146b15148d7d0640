/* test_kvcache.c: what the KV cache promises, case by case, against the model of helpers/kv_model.h. kvcache_check runs
 * after every step. test_kvcache_random.c does what comes to it. */
#include "helpers/kv_model.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

static void test_match_after_close(void **state)
{
    (void)state;
    struct kvcache *cache = kv_model_create(10);
    int a, b;
    struct kv_model_sequence m = kv_model_open(cache, &a, 7, 0, 0);
    kv_model_grow(cache, a, &m, 1, 3 * KV_PAGE + 5);
    kvcache_close(cache, a);
    assert_int_equal(kv_model_stats(cache).n_cached, 3); /* the partial page is free again */
    kv_model_check(cache);

    kv_model_open(cache, &b, 8, 0, 0); /* another salt */
    assert_int_equal(kvcache_match(cache, b, m.tokens, m.length), 0);
    kvcache_close(cache, b);
    kv_model_open(cache, &b, 7, 0, 0);
    assert_int_equal(kvcache_match(cache, b, m.tokens, 3 * KV_PAGE),
                     2 * KV_PAGE); /* one token is left to compute */
    kvcache_close(cache, b);
    struct kv_model_sequence n = kv_model_open(cache, &b, 7, 0, 0);
    assert_int_equal(kvcache_match(cache, b, m.tokens, 3 * KV_PAGE + 1), 3 * KV_PAGE);
    memcpy(n.stamps, m.stamps, sizeof n.stamps);
    n.length = 3 * KV_PAGE;
    n.n_mapped = 3;
    kv_model_verify(cache, b, &n);
    kv_model_check(cache);
    kvcache_close(cache, b);
    int32_t other[3 * KV_PAGE + 1];
    memcpy(other, m.tokens, sizeof other);
    other[KV_PAGE + 3]++; /* the second page differs: the third must not be found either */
    kv_model_open(cache, &b, 7, 0, 0);
    assert_int_equal(kvcache_match(cache, b, other, 3 * KV_PAGE + 1), KV_PAGE);
    assert_int_equal(kvcache_match(cache, b, other, 0), KV_PAGE);
    struct kvcache_stats stats = kv_model_stats(cache);
    assert_int_equal(stats.n_queries, m.length + 3 * KV_PAGE + 2 * (3 * KV_PAGE + 1));
    kv_model_check(cache);
    kvcache_free(cache);
}

/* Two sequences want the same page; one has begun it when the other one commits it. */
static void test_match_more(void **state)
{
    (void)state;
    struct kvcache *cache = kv_model_create(8);
    int a, b, c;
    struct kv_model_sequence first = kv_model_open(cache, &a, 7, 0, 0),
                             second = kv_model_open(cache, &b, 7, 0, 0);
    struct kv_model_sequence other = kv_model_open(cache, &c, 8, 0, 0); /* another salt */
    int32_t tokens[3 * KV_PAGE + 1], longer[3 * KV_PAGE + 1];
    for (uint32_t i = 0; i < 3 * KV_PAGE + 1; i++)
        longer[i] = tokens[i] = kv_model_token(1, i);
    longer[3 * KV_PAGE - 1]++;
    assert_true(kvcache_same_next(cache, a, tokens, b, longer));
    assert_false(kvcache_same_next(cache, a, tokens, c, tokens));
    kv_model_grow(cache, b, &second, 1, 5);
    assert_true(kvcache_same_next(cache, a, tokens, b, longer));
    kv_model_grow(cache, a, &first, 1, 2 * KV_PAGE + 3);
    assert_false(kvcache_same_next(cache, a, tokens, b, longer));       /* it is behind */
    assert_int_equal(kvcache_match_more(cache, b, longer, KV_PAGE), 5); /* the last one is to be computed */
    assert_int_equal(kvcache_match_more(cache, b, longer, 3 * KV_PAGE + 1), 2 * KV_PAGE);
    assert_int_equal(kvcache_match_more(cache, c, tokens, 3 * KV_PAGE + 1), 0);
    memcpy(second.tokens, first.tokens, sizeof second.tokens);
    memcpy(second.stamps, first.stamps, sizeof second.stamps);
    second.length = 2 * KV_PAGE;
    second.n_mapped = 2;
    kv_model_verify(cache, b, &second);
    kv_model_check(cache);
    assert_int_equal(kv_model_stats(cache).n_referenced, 3); /* what b had begun is free again */
    assert_int_equal(kv_model_stats(cache).n_hits, 2 * KV_PAGE - 5);
    assert_false(kvcache_same_next(cache, a, tokens, b, longer)); /* the third page differs */
    assert_true(kvcache_same_next(cache, a, tokens, b, tokens));
    assert_int_equal(kvcache_reserve(cache, b, 4), 0);
    kv_model_grow(cache, a, &first, 1, KV_PAGE);
    assert_int_equal(kvcache_match_more(cache, b, tokens, 3 * KV_PAGE + 1),
                     2 * KV_PAGE); /* rows are on their way */
    kvcache_rollback(cache, b);
    assert_int_equal(kvcache_match_more(cache, b, tokens, 3 * KV_PAGE + 1), 3 * KV_PAGE);
    kv_model_verify(cache, c, &other);
    kv_model_check(cache);
    kvcache_free(cache);
}

/* A page whose predecessor was evicted and came back with other content must not be found behind it. */
static void test_evicted_parent(void **state)
{
    (void)state;
    struct kvcache *cache = kv_model_create(4);
    int a, b;
    struct kv_model_sequence m =
        kv_model_open(cache, &a, 0, 0, KV_PAGE); /* drops page 0 while page 1 and 2 are referenced */
    kv_model_grow(cache, a, &m, 1, 2 * KV_PAGE);
    assert_int_equal(kvcache_reserve(cache, a, 1), 0);
    m.dropped[0] = true;
    m.n_reserved = 1;
    m.n_mapped = 3;
    kv_model_verify(cache, a, &m);
    assert_int_equal(kv_model_stats(cache).n_cached, 1);
    struct kv_model_sequence n = kv_model_open(cache, &b, 0, 0, 0);
    kv_model_grow(cache, b, &n, 2, KV_PAGE + 1); /* takes the free page and the cached one */
    assert_int_equal(kv_model_stats(cache).n_evicted, 1);
    kvcache_close(cache, a); /* page 1 is cached; it was behind the evicted one */
    kvcache_close(cache, b);
    kv_model_check(cache);
    kv_model_open(cache, &a, 0, 0, 0);
    assert_int_equal(kvcache_match(cache, a, m.tokens, 2 * KV_PAGE + 1), 0);
    n = kv_model_open(cache, &b, 0, 0, 0);
    kv_model_grow(cache, b, &n, 1, KV_PAGE); /* page 0 again; equal tokens, another id */
    kv_model_check(cache);
    int32_t tokens[2 * KV_PAGE + 1];
    for (uint32_t i = 0; i < 2 * KV_PAGE + 1; i++)
        tokens[i] = kv_model_token(1, i);
    assert_int_equal(kvcache_match(cache, a, tokens, 2 * KV_PAGE + 1), KV_PAGE);
    kv_model_check(cache);
    kvcache_free(cache);
}

static void test_evicts_least_recently_used_leaves_first(void **state)
{
    (void)state;
    struct kvcache *cache = kv_model_create(6);
    int a, b;
    struct kv_model_sequence first = kv_model_open(cache, &a, 0, 0, 0);
    kv_model_grow(cache, a, &first, 1, 3 * KV_PAGE);
    kvcache_close(cache, a);
    struct kv_model_sequence second = kv_model_open(cache, &a, 0, 0, 0);
    kv_model_grow(cache, a, &second, 2, 2 * KV_PAGE);
    kvcache_close(cache, a);
    struct kv_model_sequence third = kv_model_open(cache, &a, 0, 0, 0);
    kv_model_grow(cache, a, &third, 3, 2 * KV_PAGE); /* one free, one from the end of the first */
    assert_int_equal(kv_model_stats(cache).n_evicted, 1);
    kv_model_open(cache, &b, 0, 0, 0);
    int32_t tokens[4 * KV_PAGE];
    for (uint32_t i = 0; i < 4 * KV_PAGE; i++)
        tokens[i] = kv_model_token(1, i);
    assert_int_equal(kvcache_match(cache, b, tokens, 4 * KV_PAGE), 2 * KV_PAGE);
    kvcache_close(cache, b); /* used again: now the second one is the oldest */
    kv_model_grow(cache, a, &third, 3, 2 * KV_PAGE);
    kv_model_open(cache, &b, 0, 0, 0);
    assert_int_equal(kvcache_match(cache, b, tokens, 4 * KV_PAGE), 2 * KV_PAGE);
    kvcache_close(cache, b);
    kv_model_check(cache);
    kv_model_verify(cache, a, &third);
    kvcache_free(cache);
}

static void test_share_and_copy_on_write(void **state)
{
    (void)state;
    struct kvcache *cache = kv_model_create(8);
    int a, b, c;
    struct kv_model_sequence m = kv_model_open(cache, &a, 5, 0, 0);
    kv_model_grow(cache, a, &m, 1, 2 * KV_PAGE + 7);
    struct kv_model_sequence n = kv_model_open(cache, &b, 5, 0, 0);
    kvcache_share(cache, a, b, 2 * KV_PAGE + 4);
    memcpy(n.stamps, m.stamps, sizeof n.stamps);
    n.length = 2 * KV_PAGE + 4;
    n.n_mapped = 3;
    kv_model_verify(cache, b, &n);
    assert_int_equal(kv_model_stats(cache).n_referenced, 3);
    kv_model_check(cache);
    assert_int_equal(kv_model_page(cache, a, 2), kv_model_page(cache, b, 2));
    kv_model_grow(cache, b, &n, 2, 1); /* writes: its own copy */
    assert_int_not_equal(kv_model_page(cache, a, 2), kv_model_page(cache, b, 2));
    assert_int_equal(kv_model_page(cache, a, 1), kv_model_page(cache, b, 1));
    kv_model_verify(cache, a, &m);
    uint32_t before = kv_model_page(cache, a, 2);
    kv_model_grow(cache, a, &m, 3, 1); /* alone again: no copy */
    assert_int_equal(before, kv_model_page(cache, a, 2));
    kv_model_verify(cache, b, &n);

    kv_model_open(cache, &c, 6, 0, 0);
    kvcache_share(cache, a, c, 4); /* another salt */
    assert_int_equal(kvcache_length(cache, c), 0);
    kvcache_close(cache, c);
    kv_model_open(cache, &c, 5, 0, KV_PAGE);
    kvcache_share(cache, a, c, 4); /* a window */
    assert_int_equal(kvcache_length(cache, c), 0);
    kv_model_check(cache);
    kvcache_free(cache);
}

/* Copies are asked for in their order until a step makes them, and not for pages that are gone by then. */
static void test_copies_wait_for_the_step(void **state)
{
    (void)state;
    struct kvcache *cache = kv_model_create(8);
    int a, b, c;
    struct kv_model_sequence m = kv_model_open(cache, &a, 5, 0, 0);
    kv_model_grow(cache, a, &m, 1, 7);
    const struct page_copy *copies;
    assert_int_equal(kvcache_copies(cache, &copies), 0);
    kv_model_open(cache, &b, 5, 0, 0);
    kv_model_open(cache, &c, 5, 0, 0);
    kvcache_share(cache, a, b, 4);
    kvcache_share(cache, a, c, 5);
    assert_int_equal(kvcache_reserve(cache, b, 1), 0);
    assert_int_equal(kvcache_reserve(cache, c, 1), 0);
    assert_int_equal(kvcache_reserve(cache, c, 2), 0); /* is its own already */
    assert_int_equal(kvcache_copies(cache, &copies), 2);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(copies[i].from, kv_model_page(cache, a, 0));
        assert_int_equal(copies[i].to, kv_model_page(cache, i ? c : b, 0));
    }
    kv_model_check(cache);
    kvcache_close(cache, b);
    assert_int_equal(kvcache_copies(cache, &copies), 1);
    assert_int_equal(copies[0].to, kv_model_page(cache, c, 0));
    kv_model_check(cache);

    /* A copy of a copy that is not made yet: the first one's target is gone, its bytes are wanted. */
    kvcache_rollback(cache, c);
    kv_model_open(cache, &b, 5, 0, 0);
    kvcache_share(cache, c, b, 5);
    assert_int_equal(kvcache_reserve(cache, b, 1), 0);
    kvcache_close(cache, c);
    assert_int_equal(kvcache_copies(cache, &copies), 2);
    assert_int_equal(copies[0].from, kv_model_page(cache, a, 0));
    assert_int_equal(copies[0].to, copies[1].from);
    assert_int_equal(copies[1].to, kv_model_page(cache, b, 0));
    kv_model_check(cache);
    kvcache_close(cache, b); /* nothing of it is wanted any more */
    assert_int_equal(kvcache_copies(cache, &copies), 0);
    kv_model_check(cache);
    kvcache_free(cache);
}

/* As many copies as sequences can wait; the next one is refused, until a step makes them. */
static void test_copies_are_bounded(void **state)
{
    (void)state;
    struct kvcache *cache = kv_model_create(8);
    int a, b;
    struct kv_model_sequence m = kv_model_open(cache, &a, 5, 0, 0);
    kv_model_grow(cache, a, &m, 1, 7);
    const struct page_copy *copies;
    for (uint32_t n = 0;; n++) { /* each is a copy of the one before */
        kv_model_open(cache, &b, 5, 0, 0);
        kvcache_share(cache, a, b, 4);
        assert_int_equal(kvcache_copies(cache, &copies), n);
        int status = kvcache_reserve(cache, b, 1);
        kv_model_check(cache);
        if (n == N_SEQUENCES) {
            assert_int_equal(status, RUNNEL_ENOMEM);
            assert_int_equal(kv_model_page(cache, a, 0), kv_model_page(cache, b, 0));
            break;
        }
        assert_int_equal(status, 0);
        kvcache_rollback(cache, b);
        kvcache_close(cache, a);
        a = b;
    }
    kvcache_copies_made(cache);
    assert_int_equal(kvcache_reserve(cache, b, 1), 0);
    assert_int_equal(kvcache_copies(cache, &copies), 1);
    kv_model_check(cache);
    kvcache_free(cache);
}

/* A page that was whole and indexed is cut by truncate and written again. */
static void test_truncate_into_an_indexed_page(void **state)
{
    (void)state;
    struct kvcache *cache = kv_model_create(8);
    int a, b;
    struct kv_model_sequence m = kv_model_open(cache, &a, 0, 0, 0);
    kv_model_grow(cache, a, &m, 1, 3 * KV_PAGE);
    struct kv_model_sequence n = kv_model_open(cache, &b, 0, 0, 0);
    assert_int_equal(kvcache_match(cache, b, m.tokens, 3 * KV_PAGE), 2 * KV_PAGE);
    memcpy(n.stamps, m.stamps, sizeof n.stamps);
    memcpy(n.tokens, m.tokens, sizeof n.tokens);
    n.length = 2 * KV_PAGE;
    kvcache_truncate(cache, a, KV_PAGE + 10);
    m.length = KV_PAGE + 10;
    m.n_mapped = 2;
    kv_model_check(cache);
    kv_model_verify(cache, a, &m);
    kv_model_grow(cache, a, &m, 9, 3); /* shared with b: a copy */
    kv_model_verify(cache, b, &n);
    kvcache_truncate(cache, b, KV_PAGE + 1);
    n.length = KV_PAGE + 1;
    kv_model_grow(cache, b, &n, 8, KV_PAGE); /* b's alone, indexed: leaves the index and is written */
    kv_model_verify(cache, a, &m);
    kvcache_close(cache, a);
    kvcache_close(cache, b);
    kv_model_check(cache);
    kv_model_open(cache, &a, 0, 0, 0);
    assert_int_equal(kvcache_match(cache, a, n.tokens, 2 * KV_PAGE + 1), 2 * KV_PAGE);
    kvcache_free(cache);
}

/* Two that compute the same end with the same pages. */
static void test_equal_pages_become_one(void **state)
{
    (void)state;
    struct kvcache *cache = kv_model_create(8);
    int a, b;
    struct kv_model_sequence m = kv_model_open(cache, &a, 0, 0, 0), n = kv_model_open(cache, &b, 0, 0, 0);
    kv_model_grow(cache, a, &m, 1, 2 * KV_PAGE + 3);
    kv_model_grow(cache, b, &n, 1, 2 * KV_PAGE + 3);
    assert_int_equal(kv_model_page(cache, a, 1), kv_model_page(cache, b, 1));
    assert_int_not_equal(kv_model_page(cache, a, 2), kv_model_page(cache, b, 2));
    assert_int_equal(kv_model_stats(cache).n_referenced, 4);
    kvcache_free(cache);
}

static void test_reserve_fails_without_a_trace(void **state)
{
    (void)state;
    struct kvcache *cache = kv_model_create(4);
    int a, b;
    struct kv_model_sequence m = kv_model_open(cache, &a, 0, 0, 0);
    kv_model_grow(cache, a, &m, 1, 2 * KV_PAGE + 1);
    struct kv_model_sequence n = kv_model_open(cache, &b, 0, 0, 0);
    struct kvcache_stats before = kv_model_stats(cache), after;
    assert_int_equal(kvcache_reserve(cache, b, KV_PAGE + 1), RUNNEL_ENOMEM);
    assert_int_equal(kvcache_reserve(cache, b, N_POSITIONS + 1), RUNNEL_ECONTEXT);
    assert_int_equal(kvcache_reserve(cache, b, UINT32_MAX), RUNNEL_ECONTEXT);
    assert_int_equal(kvcache_reserve(cache, a, N_POSITIONS - m.length + 1), RUNNEL_ECONTEXT);
    after = kv_model_stats(cache);
    assert_memory_equal(&before, &after, sizeof before);
    assert_int_equal(kv_model_page(cache, b, 0), NO_PAGE);
    kv_model_check(cache);
    kv_model_grow(cache, b, &n, 2, KV_PAGE);
    assert_int_equal(kvcache_reserve(cache, b, 1), RUNNEL_ENOMEM);
    kvcache_close(cache, a); /* what preemption does */
    kv_model_grow(cache, b, &n, 2, 1);
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
    struct kvcache *cache = kv_model_create(6);
    int a;
    struct kv_model_sequence m = kv_model_open(cache, &a, 0, 0, 0);
    kv_model_grow(cache, a, &m, 1, KV_PAGE - 2);
    assert_int_equal(kvcache_reserve(cache, a, 2 * KV_PAGE), 0);
    assert_int_equal(kv_model_stats(cache).n_referenced, 3);
    int32_t tokens[2] = {1, 2};
    m.n_reserved = 2 * KV_PAGE;
    m.n_mapped = 3;
    kv_model_commit(cache, a, &m, tokens, 1); /* a draft of which one token stands */
    kvcache_rollback(cache, a);
    m.n_reserved = 0;
    m.n_mapped = 1;
    assert_int_equal(kv_model_stats(cache).n_referenced, 1);
    kv_model_check(cache);
    kv_model_verify(cache, a, &m);
    kvcache_commit(cache, a, tokens, 2); /* nothing is reserved: nothing is committed */
    kv_model_verify(cache, a, &m);
    kvcache_free(cache);
}

/* Any length in constant memory; and the chunks that keep results independent of how a prompt is cut. */
static void test_window(void **state)
{
    (void)state;
    struct kvcache *cache = kv_model_create(6);
    int a;
    struct kv_model_sequence m = kv_model_open(cache, &a, 0, 10, KV_PAGE + 5);
    assert_int_equal(kvcache_chunk(cache, a),
                     4 * KV_PAGE); /* page 0 kept, page 1 the first to go, 2 and 3 kept */
    kv_model_grow(cache, a, &m, 1, 2 * KV_PAGE + 1);
    assert_int_equal(kvcache_chunk(cache, a), 2 * KV_PAGE - 1);
    kv_model_grow(cache, a, &m, 1, 2 * KV_PAGE - 1);
    assert_int_equal(kvcache_chunk(cache, a), KV_PAGE);
    for (uint32_t length = 4 * KV_PAGE; length < N_POSITIONS; length++) {
        uint32_t whole = length - length % KV_PAGE;
        for (uint32_t page = 1; (page + 1) * KV_PAGE + m.keep_last <= whole; page++)
            m.dropped[page] = true;
        kv_model_grow(cache, a, &m, 1, 1);
        assert_true(kv_model_stats(cache).n_referenced <= 5);
    }
    assert_true(m.dropped[8] && !m.dropped[0] && !m.dropped[11]);
    assert_int_equal(kvcache_chunk(cache, a), KV_PAGE - N_POSITIONS % KV_PAGE);
    kvcache_truncate(cache, a, 3); /* before all that was dropped: as new */
    memset(m.dropped, 0, sizeof m.dropped);
    m.length = 3;
    m.n_mapped = 1;
    kv_model_check(cache);
    kv_model_verify(cache, a, &m);
    kv_model_grow(cache, a, &m, 1, 4 * KV_PAGE - 3);
    kv_model_check(cache);
    kvcache_free(cache);
    assert_int_equal(KV_PAGE, 32);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_match_after_close),
        cmocka_unit_test(test_match_more),
        cmocka_unit_test(test_evicted_parent),
        cmocka_unit_test(test_evicts_least_recently_used_leaves_first),
        cmocka_unit_test(test_share_and_copy_on_write),
        cmocka_unit_test(test_copies_wait_for_the_step),
        cmocka_unit_test(test_copies_are_bounded),
        cmocka_unit_test(test_truncate_into_an_indexed_page),
        cmocka_unit_test(test_equal_pages_become_one),
        cmocka_unit_test(test_reserve_fails_without_a_trace),
        cmocka_unit_test(test_rollback),
        cmocka_unit_test(test_window),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
