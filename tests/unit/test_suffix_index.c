/* test_suffix_index.c: where runs of tokens stood before, against a search that looks everywhere. */
#include "engine/suffix_index.h"
#include "helpers/chance.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { N = 600, RING = 128 };

static struct suffix_index new_index(uint32_t n_slots)
{
    struct suffix_index index = {.slots = calloc(n_slots, sizeof *index.slots), .n_slots = n_slots};
    assert_non_null(index.slots);
    return index;
}

/* Whether the run of that length before a position of the text is the end of ids. */
static bool is_end_of(const struct suffix_text *text, uint32_t end, const int32_t *ids, uint32_t n,
                      uint32_t length)
{
    if (end < length || length > n)
        return false;
    for (uint32_t i = 1; i <= length; i++)
        if (text->ids[(end - i) & text->mask] != ids[n - i])
            return false;
    return true;
}

/* The latest place before the text's end, and what followed in the places before it, looked for everywhere from a position on. */
static struct suffix_match search(const struct suffix_text *text, uint32_t first, const int32_t *ids,
                                  uint32_t n, uint32_t length)
{
    struct suffix_match best = {.end = 0};
    for (uint32_t end = first + length; end < text->n; end++) {
        if (!is_end_of(text, end, ids, n, length))
            continue;
        if (best.end && text->ids[best.end & text->mask] != text->ids[end & text->mask])
            best.habit = SUFFIX_CHANGED;
        else if (best.end)
            best.habit =
                best.habit == SUFFIX_SAME || best.habit == SUFFIX_ALWAYS ? SUFFIX_ALWAYS : SUFFIX_SAME;
        best.end = end;
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
    unsigned n_found[SUFFIX_LENGTHS][SUFFIX_HABITS] = {{0}}, n_wrong = 0;
    for (uint32_t round = 0; round < 8; round++) {
        int32_t ids[N];
        struct suffix_index index = new_index(1 << 20);
        for (uint32_t i = 0; i < N; i++) {
            uint32_t back = 20 + chance_below(60);
            ids[i] = i > 100 && chance_below(10) ? ids[i - back + chance_below(2)]
                                                 : (int32_t)chance_below(2 + 9 * round);
        }
        for (uint32_t i = 100; i + 30 < N; i += 60)
            memcpy(ids + i, ids + i - 90, 25 * sizeof *ids);
        memcpy(ids + N - 90, ids + N - 120, 30 * sizeof *ids); /* several times the same */
        memcpy(ids + N - 60, ids + N - 120, 30 * sizeof *ids);
        memcpy(ids + N - 30, ids + N - 120, 30 * sizeof *ids);
        ids[N - 60 + 20] = 1000; /* but once */
        for (uint32_t n = 1; n <= N; n++) {
            const struct suffix_text text = {.ids = ids, .mask = UINT32_MAX, .n = n};
            struct suffix_match found[SUFFIX_LENGTHS];
            suffix_index_follow(&index, &text, n - 1, UINT32_MAX);
            suffix_find(&index, &text, ids, n, found);
            for (uint32_t i = 0; i < SUFFIX_LENGTHS; i++) {
                struct suffix_match expected = search(&text, 0, ids, n, suffix_length(i));
                /* The habit at the latest place is told by the token behind it, which the index sees one later. */
                if (expected.end == n - 1 && found[i].end == n - 1)
                    expected.habit = found[i].habit;
                n_wrong += found[i].end != expected.end ||
                           found[i].habit != expected.habit; /* two runs in one slot */
                n_found[i][found[i].habit] += found[i].end > 0;
            }
        }
        free(index.slots);
    }
    for (uint32_t i = 0; i < SUFFIX_LENGTHS; i++)
        for (uint32_t habit = 0; habit < SUFFIX_HABITS; habit++)
            if (n_found[i][habit] < 4)
                fail_msg("habit %u of runs of %u was found %u times", habit, suffix_length(i),
                         n_found[i][habit]);
    assert_true(n_wrong < 8 * N * SUFFIX_LENGTHS / 100);
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
        struct suffix_match found[SUFFIX_LENGTHS];
        suffix_find(&index, &text, ids, n, found);
        for (uint32_t j = 0; j < SUFFIX_LENGTHS; j++) {
            if (!found[j].end)
                continue;
            assert_true(text.n - found[j].end + suffix_length(j) <= RING);
            assert_true(is_end_of(&text, found[j].end, ids, n, suffix_length(j)));
            assert_true(ring[found[j].end & text.mask] != SUFFIX_NO_TOKEN);
            n_found += j >= 2;
        }
    }
    assert_true(n_found > 500);
    free(index.slots);
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
        struct suffix_match found[SUFFIX_LENGTHS];
        suffix_index_follow(&index, &text, n - 1, UINT32_MAX);
        suffix_find(&index, &text, ids, n, found);
        for (uint32_t i = 0; i < SUFFIX_LENGTHS; i++) {
            assert_true(!found[i].end ||
                        (found[i].end < n && is_end_of(&text, found[i].end, ids, n, suffix_length(i))));
            n_found += found[i].end > 0;
        }
    }
    assert_true(n_found > 50 && n_found < (N - 300) * SUFFIX_LENGTHS / 2);
    free(index.slots);
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
    struct suffix_match found[SUFFIX_LENGTHS];
    suffix_find(&index, &text, ids, N, found);
    for (uint32_t i = 0; i < SUFFIX_LENGTHS; i++)
        assert_int_equal(found[i].end, 0);
    free(index.slots);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lengths_and_their_numbers),
        cmocka_unit_test(finds_what_is_there),
        cmocka_unit_test(a_ring_forgets),
        cmocka_unit_test(a_small_table_forgets),
        cmocka_unit_test(follows_in_pieces),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
