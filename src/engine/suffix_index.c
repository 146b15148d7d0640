/* suffix_index.c: see suffix_index.h. */
#include "engine/suffix_index.h"

#include <string.h>

static const uint8_t lengths[SUFFIX_LENGTHS] = {1, 2, 3, 4, 6, 8, 12, SUFFIX_MAX};

uint32_t suffix_length(uint32_t number)
{
    return lengths[number];
}

uint32_t suffix_number(uint32_t length)
{
    uint32_t number = 0;
    while (number + 1 < SUFFIX_LENGTHS && lengths[number + 1] <= length)
        number++;
    return number;
}

uint32_t suffix_index_slots(uint64_t n, uint32_t n_max)
{
    uint32_t n_slots = SUFFIX_LENGTHS;
    while (n_slots < n * SUFFIX_LENGTHS && n_slots < n_max)
        n_slots *= 2;
    return n_slots;
}

void suffix_index_clear(struct suffix_index *index)
{
    memset(index->ends, 0, index->n_slots * sizeof *index->ends);
    index->n = 0;
}

/* Of a run that has one token more at its beginning. */
static uint64_t hash_further(uint64_t hash, int32_t token)
{
    hash = (hash ^ (uint32_t)token) * 0x9e3779b97f4a7c15u;
    return hash ^ hash >> 29;
}

static uint32_t slot_of(const struct suffix_index *index, uint64_t hash)
{
    return (uint32_t)(hash ^ hash >> 32) & (index->n_slots - 1);
}

/* Remembers the runs that end behind a position. */
static void add(struct suffix_index *index, const struct suffix_text *text, uint32_t end)
{
    uint64_t hash = 0;
    for (uint32_t i = 1, number = 0; i <= SUFFIX_MAX && i <= end; i++) {
        int32_t token = text->ids[(end - i) & text->mask];
        if (token == SUFFIX_NO_TOKEN)
            return;
        hash = hash_further(hash, token);
        if (i == lengths[number]) {
            index->ends[slot_of(index, hash + number)] = end;
            number++;
        }
    }
}

void suffix_index_follow(struct suffix_index *index, const struct suffix_text *text, uint32_t end, uint32_t n_most)
{
    if (index->n < end && n_most < end - index->n)
        end = index->n + n_most;
    while (index->n < end)
        add(index, text, ++index->n);
}

/* Whether the run of that length before the place is the end of ids, and there is something behind it. */
static int is_run(const struct suffix_text *text, uint32_t end, const int32_t *ids, uint32_t n, uint32_t length)
{
    if (end < length || end >= text->n || text->n - (end - length) - 1 > text->mask)
        return 0;
    for (uint32_t i = 1; i <= length; i++)
        if (text->ids[(end - i) & text->mask] != ids[n - i])
            return 0;
    return text->ids[end & text->mask] != SUFFIX_NO_TOKEN;
}

struct suffix_match suffix_find(const struct suffix_index *index, const struct suffix_text *text, const int32_t *ids,
                                uint32_t n)
{
    struct suffix_match found = {.length = 0};
    uint64_t hash = 0;
    for (uint32_t i = 1, number = 0; i <= SUFFIX_MAX && i <= n; i++) {
        hash = hash_further(hash, ids[n - i]);
        if (i != lengths[number])
            continue;
        uint32_t end = index->ends[slot_of(index, hash + number)];
        if (is_run(text, end, ids, n, i))
            found = (struct suffix_match){.end = end, .length = i};
        number++;
    }
    return found;
}
