/* suffix_index.c: see suffix_index.h. */
#include "engine/suffix_index.h"

#include <stdbool.h>
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
    memset(index->slots, 0, index->n_slots * sizeof *index->slots);
    memset(index->latest, 0, sizeof index->latest);
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

/* Whether the run of that length before `end` is the one before `other`, or the end of ids. */
static bool is_run(const struct suffix_text *text, uint32_t end, const struct suffix_text *ids,
                   uint32_t other, uint32_t length)
{
    if (end < length || text->n - (end - length) - 1 > text->mask)
        return false;
    for (uint32_t i = 1; i <= length; i++)
        if (text->ids[(end - i) & text->mask] != ids->ids[(other - i) & ids->mask])
            return false;
    return true;
}

/* The token at position end - 1 has come: it is the same as what followed the runs before it the time before, or another one. */
static void learn_habits(struct suffix_index *index, const struct suffix_text *text, uint32_t end)
{
    int32_t token = text->ids[(end - 1) & text->mask];
    for (uint32_t number = 0; number < SUFFIX_LENGTHS; number++) {
        struct suffix_slot *slot = &index->slots[index->latest[number].slot];
        uint32_t before = index->latest[number].before, habit = index->latest[number].habit;
        if (!before || slot->end != end - 1 || text->n - before - 1 > text->mask)
            continue;
        if (text->ids[before & text->mask] != token)
            slot->habit = SUFFIX_CHANGED;
        else
            slot->habit = habit == SUFFIX_SAME || habit == SUFFIX_ALWAYS ? SUFFIX_ALWAYS : SUFFIX_SAME;
    }
}

/* Remembers the runs that end behind a position. */
static void add(struct suffix_index *index, const struct suffix_text *text, uint32_t end)
{
    uint64_t hash = 0;
    learn_habits(index, text, end);
    memset(index->latest, 0, sizeof index->latest);
    for (uint32_t i = 1, number = 0; i <= SUFFIX_MAX && i <= end; i++) {
        int32_t token = text->ids[(end - i) & text->mask];
        if (token == SUFFIX_NO_TOKEN)
            return;
        hash = hash_further(hash, token);
        if (i != lengths[number])
            continue;
        uint32_t at = slot_of(index, hash + number);
        struct suffix_slot *slot = &index->slots[at];
        bool was_there = slot->end && is_run(text, slot->end, text, end, i);
        index->latest[number].slot = at;
        index->latest[number].before = was_there ? slot->end : 0;
        index->latest[number].habit = was_there ? slot->habit : SUFFIX_ONCE;
        *slot = (struct suffix_slot){end, SUFFIX_ONCE};
        number++;
    }
}

void suffix_index_follow(struct suffix_index *index, const struct suffix_text *text, uint32_t end,
                         uint32_t n_most)
{
    if (index->n < end && n_most < end - index->n)
        end = index->n + n_most;
    while (index->n < end)
        add(index, text, ++index->n);
}

void suffix_find(const struct suffix_index *index, const struct suffix_text *text, const int32_t *ids,
                 uint32_t n, struct suffix_match matches[SUFFIX_LENGTHS])
{
    const struct suffix_text wanted = {.ids = ids, .mask = UINT32_MAX, .n = n};
    uint64_t hash = 0;
    memset(matches, 0, SUFFIX_LENGTHS * sizeof *matches);
    for (uint32_t i = 1, number = 0; i <= SUFFIX_MAX && i <= n; i++) {
        hash = hash_further(hash, ids[n - i]);
        if (i != lengths[number])
            continue;
        const struct suffix_slot *slot = &index->slots[slot_of(index, hash + number)];
        if (slot->end && slot->end < text->n && is_run(text, slot->end, &wanted, n, i) &&
            text->ids[slot->end & text->mask] != SUFFIX_NO_TOKEN)
            matches[number] = (struct suffix_match){slot->end, (enum suffix_habit)slot->habit};
        number++;
    }
}
