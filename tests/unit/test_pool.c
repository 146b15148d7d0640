/* test_pool.c: the memory pool: classes, limit, reuse, misuse, threads. */
#include "base/pool.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#if defined(__SANITIZE_ADDRESS__)
#define WITH_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define WITH_ASAN 1
#endif
#endif

static struct pool *create(size_t limit_bytes)
{
    struct pool *pool = NULL;
    assert_int_equal(pool_create(limit_bytes, &pool, NULL), RUNNEL_OK);
    return pool;
}

static struct pool_stats stats_of(struct pool *pool)
{
    struct pool_stats stats;
    pool_get_stats(pool, &stats);
    return stats;
}

static void check(struct pool *pool)
{
    const char *wrong = pool_check(pool);
    if (wrong)
        fail_msg("%s", wrong);
}

static void test_sizes_and_alignment(void **state)
{
    (void)state;
    struct pool *pool = create(64 << 20);
    struct pool_stats stats = stats_of(pool);
    assert_int_equal(stats.classes[0].block_bytes, 64);
    assert_int_equal(stats.classes[2].block_bytes, 192);
    assert_int_equal(stats.classes[POOL_CLASSES - 1].block_bytes, POOL_BLOCK_BYTES_MAX);
    void *blocks[400];
    size_t n = 0;
    for (size_t n_bytes = 0; n_bytes < 200000; n_bytes = n_bytes < 300 ? n_bytes + 1 : n_bytes * 9 / 8) {
        char *block = pool_take(pool, n_bytes);
        assert_non_null(block);
        assert_int_equal((uintptr_t)block % POOL_ALIGNMENT, 0);
        assert_true(pool_block_bytes(block) >= n_bytes);
        assert_true(pool_block_bytes(block) <= 2 * n_bytes + 64); /* no class wastes more than half */
        memset(block, (int)n, pool_block_bytes(block));
        blocks[n++] = block;
    }
    check(pool);
    for (size_t i = 0; i < n; i++) /* nobody wrote into another one's block */
        for (size_t j = 0; j < pool_block_bytes(blocks[i]); j++)
            assert_int_equal(((unsigned char *)blocks[i])[j], i & 0xff);
    for (size_t i = 0; i < n; i++)
        pool_give(pool, blocks[i]);
    pool_give(pool, NULL);
    check(pool);
    stats = stats_of(pool);
    assert_int_equal(stats.n_in_use, 0);
    assert_int_equal(stats.n_allocations, n);
    assert_int_equal(pool_free(pool, NULL), 0);
}

static void test_reuse(void **state)
{
    (void)state;
    struct pool *pool = create(1 << 20);
    for (int i = 0; i < 1000; i++) {
        char *block = pool_take(pool, 1000), *large = pool_take(pool, 100000);
        assert_true(block && large);
        block[999] = large[99999] = 1;
        pool_give(pool, block);
        pool_give(pool, large);
    }
    struct pool_stats stats = stats_of(pool);
    assert_int_equal(stats.n_allocations, 2000);
    assert_int_equal(stats.n_reuses, 999);
    assert_true(stats.peak_in_use_bytes >= 101000 && stats.peak_in_use_bytes < 110000);
    assert_true(stats.held_bytes <= 80000); /* one slab; the large ones went back */
    assert_int_equal(stats.n_misuses, 0);
    assert_int_equal(pool_free(pool, NULL), 0);
}

static void test_limit(void **state)
{
    (void)state;
    enum { LIMIT = 1 << 20 };
    struct pool *pool = create(LIMIT);
    void *blocks[10000];
    size_t n = 0;
    while ((blocks[n] = pool_take(pool, 500)))
        n++;
    check(pool);
    struct pool_stats stats = stats_of(pool);
    assert_true(n > LIMIT / 600 && stats.held_bytes <= LIMIT);
    assert_int_equal(stats.n_refusals, 1);
    assert_int_equal(stats.classes[5].n_refusals, 1);
    assert_null(pool_take(pool, 100000));
    assert_null(pool_take(pool, SIZE_MAX));
    assert_null(pool_take(pool, SIZE_MAX - 100));
    assert_int_equal(stats_of(pool).classes[POOL_CLASSES].n_refusals, 3);
    pool_give(pool, blocks[--n]); /* one block's room is there again */
    assert_non_null(blocks[n] = pool_take(pool, 500));
    n++;
    /* What one class had is there for another, once it is not in use. */
    while (n)
        pool_give(pool, blocks[--n]);
    void *large = pool_take(pool, LIMIT - 200);
    assert_non_null(large);
    check(pool);
    assert_null(pool_take(pool, 500));
    assert_true(stats_of(pool).peak_held_bytes <= LIMIT);
    pool_give(pool, large);
    check(pool);
    assert_int_equal(stats_of(pool).held_bytes, 0);
    pool_free(pool, NULL);

    pool = create(300); /* less than a slab: single blocks */
    void *block = pool_take(pool, 64);
    assert_non_null(block);
    assert_null(pool_take(pool, 64));
    pool_give(pool, block);
    pool_free(pool, NULL);
}

static void test_resize(void **state)
{
    (void)state;
    struct pool *pool = create(400000);
    char *text = pool_resize(pool, NULL, 10);
    assert_non_null(text);
    for (size_t i = 0; i < 70000; i++) {
        if (i >= pool_block_bytes(text))
            assert_non_null(text = pool_resize(pool, text, 2 * i));
        text[i] = (char)(i % 127);
    }
    assert_null(pool_resize(pool, text, 300000)); /* old and new together pass the limit */
    for (size_t i = 0; i < 70000; i++)
        assert_int_equal(text[i], i % 127);
    text = pool_resize(pool, text, 100);
    assert_true(pool_block_bytes(text) < 200);
    assert_int_equal(text[99], 99);
    assert_int_equal(stats_of(pool).n_in_use, 1);
    struct pool_stats last;
    assert_int_equal(pool_free(pool, &last), 1); /* still out at stop: reported */
    assert_int_equal(last.in_use_bytes, 128);
    assert_int_equal(last.classes[1].n_in_use, 1);
}

static void test_misuse(void **state)
{
    (void)state;
    struct pool *pool = create(1 << 20);
    char *block = pool_take(pool, 100), *other = pool_take(pool, 100);
    assert_true(block && other);
    pool_give(pool, block);
    pool_give(pool, block);
    assert_int_equal(stats_of(pool).n_misuses, 1);
    check(pool);
    void *first = pool_take(pool, 100), *second = pool_take(pool, 100);
    assert_ptr_not_equal(first, second); /* the block was not listed twice */
    pool_give(pool, first);
    pool_give(pool, second);
#if !defined(NDEBUG) && !defined(WITH_ASAN)
    ((volatile char *)second)[50] = 7; /* after it was given back */
    assert_ptr_equal(pool_take(pool, 100), second);
    assert_int_equal(stats_of(pool).n_misuses, 2);
#endif
    pool_free(pool, NULL);
}

/* Threads take, fill, pass to one another through a table of slots, and check what they get. */
enum { N_THREADS = 4, N_SLOTS = 64, N_ROUNDS = 20000 };

struct message {
    size_t n_bytes;
    unsigned char bytes[];
};

struct exchange {
    struct pool *pool;
    struct message *slots[N_SLOTS]; /* atomic exchange */
};

struct worker {
    struct exchange *exchange;
    uint64_t random;
    uint64_t n_bad, n_refused, n_done;
};

static uint64_t next_random(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

static void *work(void *argument)
{
    struct worker *worker = argument;
    struct exchange *exchange = worker->exchange;
    for (int round = 0; round < N_ROUNDS; round++) {
        uint64_t random = next_random(&worker->random);
        size_t n_bytes = random % 50 ? (random >> 8) % 3000 : (random >> 8) % 150000;
        struct message *message = pool_take(exchange->pool, sizeof *message + n_bytes);
        if (message) {
            message->n_bytes = n_bytes;
            memset(message->bytes, (int)(n_bytes & 0xff), n_bytes);
            worker->n_done++;
        } else {
            worker->n_refused++;
        }
        struct message **slot = &exchange->slots[(random >> 40) % N_SLOTS];
        struct message *old = __atomic_exchange_n(slot, message, __ATOMIC_ACQ_REL);
        for (size_t i = 0; old && i < old->n_bytes; i += 17)
            worker->n_bad += old->bytes[i] != (old->n_bytes & 0xff);
        pool_give(exchange->pool, old);
    }
    return NULL;
}

static void test_threads(void **state)
{
    (void)state;
    struct exchange exchange = {.pool = create(1000000)};
    struct worker workers[N_THREADS];
    pthread_t threads[N_THREADS];
    for (int i = 0; i < N_THREADS; i++) {
        workers[i] = (struct worker){.exchange = &exchange, .random = 77 + (uint64_t)i};
        assert_int_equal(pthread_create(&threads[i], NULL, work, &workers[i]), 0);
    }
    uint64_t n_refused = 0, n_done = 0, n_left = 0;
    for (int i = 0; i < N_THREADS; i++) {
        assert_int_equal(pthread_join(threads[i], NULL), 0);
        assert_int_equal(workers[i].n_bad, 0);
        n_refused += workers[i].n_refused;
        n_done += workers[i].n_done;
    }
    check(exchange.pool);
    struct pool_stats stats = stats_of(exchange.pool);
    assert_int_equal(stats.n_allocations, n_done);
    assert_int_equal(stats.n_refusals, n_refused);
    assert_int_equal(stats.n_misuses, 0);
    assert_true(n_refused > 0 && n_done > N_THREADS * N_ROUNDS / 2); /* the limit was met, and lived with */
    for (int i = 0; i < N_SLOTS; i++)
        n_left += exchange.slots[i] != NULL;
    assert_int_equal(stats.n_in_use, n_left);
    assert_int_equal(pool_free(exchange.pool, NULL), n_left);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sizes_and_alignment),
        cmocka_unit_test(test_reuse),
        cmocka_unit_test(test_limit),
        cmocka_unit_test(test_resize),
        cmocka_unit_test(test_misuse),
        cmocka_unit_test(test_threads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
