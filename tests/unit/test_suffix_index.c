/* test_suffix_index.c: where runs of tokens stood before, against a search that looks everywhere. */
#include "engine/suffix_index.h"
#include "helpers/chance.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { N = 600, RING = 128 };

static struct suffix_index new_index(uint32_t n_slots)
{
    struct suffix_index index = {.ends = calloc(n_slots, sizeof *index.ends), .n_slots = n_slots};
    assert_non_null(index.ends);
    return index;
}

/* The latest place behind the longest run, looked for everywhere. */
static struct suffix_match search(const struct suffix_text *text, const int32_t *ids, uint32_t n)
{
    struct suffix_match best = {.length = 0};
    uint32_t first = text->mask != UINT32_MAX && text->n > text->mask + 1 ? text->n - text->mask - 1 : 0;
    for (uint32_t end = first + 1; end < text->n; end++) {
        uint32_t length = 0;
        while (length < SUFFIX_MAX && length < n && end - length > first &&
               text->ids[(end - length - 1) & text->mask] == ids[n - length - 1])
            length++;
        if (!length || text->ids[end & text->mask] == SUFFIX_NO_TOKEN)
            continue;
        length = suffix_length(suffix_number(length));
        if (length >= best.length)
            best = (struct suffix_match){end, length};
    }
    return best;
}

static void lengths_and_their_numbers(void **state)
{
    (void)state;
    assert_int_equal(suffix_length(0), 1);
    assert_int_equal(suffix_length(SUFFIX_LENGTHS - 1), SUFFIX_MAX);
    for (uint32_t i = 1; i < 40; i++) {
        uint32_t number = suffix_number(i);
        assert_true(suffix_length(number) <= i);
        assert_true(number + 1 == SUFFIX_LENGTHS || suffix_length(number + 1) > i);
    }
    assert_int_equal(suffix_index_slots(1000, 1 << 20), 8192);
    assert_int_equal(suffix_index_slots(1000, 1024), 1024);
}

/* In a table with room, the same as everywhere, at each token of random texts of few tokens. */
static void finds_what_is_there(void **state)
{
    (void)state;
    unsigned n_found[SUFFIX_LENGTHS + 1] = {0}, n_missed = 0;
    for (uint32_t round = 0; round < 8; round++) {
        int32_t ids[N];
        struct suffix_index index = new_index(1 << 20);
        for (uint32_t i = 0; i < N; i++) {
            uint32_t back = 20 + chance_below(60);
            ids[i] = i > 100 && chance_below(10) ? ids[i - back + chance_below(2)] : (int32_t)chance_below(2 + 9 * round);
        }
        for (uint32_t i = 100; i + 30 < N; i += 60)
            memcpy(ids + i, ids + i - 90, 25 * sizeof *ids);
        for (uint32_t n = 1; n <= N; n++) {
            const struct suffix_text text = {.ids = ids, .mask = UINT32_MAX, .n = n};
            suffix_index_follow(&index, &text, n - 1, UINT32_MAX);
            struct suffix_match found = suffix_find(&index, &text, ids, n), expected = search(&text, ids, n);
            assert_true(found.length <= expected.length);
            n_missed += found.length < expected.length; /* two runs in one slot */
            if (found.length && found.length == expected.length)
                assert_int_equal(found.end, expected.end);
            n_found[found.length ? suffix_number(found.length) : SUFFIX_LENGTHS]++;
        }
        free(index.ends);
    }
    for (uint32_t i = 0; i <= SUFFIX_LENGTHS; i++)
        assert_true(n_found[i] > 10);
    assert_true(n_missed < 8 * N / 50);
}

/* A ring keeps its latest tokens, and a match is never of what is gone, nor across two texts. */
static void a_ring_forgets(void **state)
{
    (void)state;
    int32_t ring[RING];
    struct suffix_text text = {.ids = ring, .mask = RING - 1};
    struct suffix_index index = new_index(1 << 16);
    unsigned n_found = 0;
    for (uint32_t i = 0; i < 3000; i++) {
        ring[text.n++ & text.mask] = chance_below(25) ? (int32_t)chance_below(4) : SUFFIX_NO_TOKEN;
        suffix_index_follow(&index, &text, text.n, UINT32_MAX);
        int32_t ids[20];
        uint32_t n = 1 + chance_below(20);
        for (uint32_t j = 0; j < n; j++)
            ids[j] = (int32_t)chance_below(4);
        struct suffix_match found = suffix_find(&index, &text, ids, n), expected = search(&text, ids, n);
        assert_true(found.length <= expected.length); /* the latest place may be the end, with nothing behind it */
        assert_true(found.length == 0 || text.n - found.end < RING);
        for (uint32_t j = 1; j <= found.length; j++)
            assert_int_equal(ring[(found.end - j) & text.mask], ids[n - j]);
        n_found += found.length > 2;
    }
    assert_true(n_found > 500);
    free(index.ends);
}

/* Too small a table forgets, and finds nothing that is not there. */
static void a_small_table_forgets(void **state)
{
    (void)state;
    int32_t ids[N];
    struct suffix_index index = new_index(256);
    unsigned n_found = 0;
    for (uint32_t i = 0; i < N; i++)
        ids[i] = i < 300 ? (int32_t)chance_below(50) : ids[i - 300];
    for (uint32_t n = 2; n < N; n++) {
        const struct suffix_text text = {.ids = ids, .mask = UINT32_MAX, .n = n};
        suffix_index_follow(&index, &text, n - 1, UINT32_MAX);
        struct suffix_match found = suffix_find(&index, &text, ids, n);
        assert_true(found.length <= n && found.end < n);
        assert_memory_equal(ids + found.end - found.length, ids + n - found.length, found.length * sizeof *ids);
        n_found += found.length > 0;
    }
    assert_true(n_found > 50 && n_found < N - 100);
    free(index.ends);
}

/* A long text in several calls. */
static void follows_in_pieces(void **state)
{
    (void)state;
    int32_t ids[N] = {0};
    const struct suffix_text text = {.ids = ids, .mask = UINT32_MAX, .n = N};
    struct suffix_index index = new_index(1 << 13);
    suffix_index_follow(&index, &text, N, 250);
    assert_int_equal(index.n, 250);
    suffix_index_follow(&index, &text, N, 250);
    suffix_index_follow(&index, &text, N, 250);
    assert_int_equal(index.n, N);
    suffix_index_follow(&index, &text, 10, 250);
    assert_int_equal(index.n, N);
    suffix_index_clear(&index);
    assert_int_equal(suffix_find(&index, &text, ids, N).length, 0);
    free(index.ends);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lengths_and_their_numbers), cmocka_unit_test(finds_what_is_there),
        cmocka_unit_test(a_ring_forgets), cmocka_unit_test(a_small_table_forgets),
        cmocka_unit_test(follows_in_pieces),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
