/* stacks.c: see stacks.h. */
#include "constrain/stacks.h"

#include "constrain/table.h"

#include <stdlib.h>
#include <string.h>

#define TEXT_END UINT32_MAX

enum {
    FRAMES_END = 1,      /* the set of one frame, the end of the text */
    MAX_DEPTH = 3000,    /* of frames that are joined */
    MAX_FOUND = 1 << 14, /* members and borders of one step */
};

static uint32_t power_of_two(uint32_t n)
{
    uint32_t power = 16;
    while (power < n)
        power *= 2;
    return power;
}

static uint64_t hash_bytes(const void *bytes, size_t n_words)
{
    const uint32_t *words = bytes;
    uint64_t hash = 0x51ed270b7a1fu;
    for (size_t i = 0; i < n_words; i++) {
        hash = (hash ^ words[i]) * 0x9e3779b97f4a7c15u;
        hash ^= hash >> 29;
    }
    return hash >> 8;
}

static uint32_t fail(struct stacks *stacks, const char *what)
{
    if (!stacks->failed)
        stacks->failed = what;
    return 0;
}

static bool works_too_long(struct stacks *stacks)
{
    if (++stacks->work > stacks->max_work)
        fail(stacks, "the ways in which the text can be read");
    return stacks->failed;
}

/* --- frames --------------------------------------------------------------------------------------------------------- */

static uint32_t frames_n(const struct stacks *stacks, uint32_t set)
{
    return stacks->frame_sets[set + 1] - stacks->frame_sets[set];
}

static const struct frame *frames_of(const struct stacks *stacks, uint32_t set)
{
    return stacks->frames + stacks->frame_sets[set];
}

/* The number of a set: frames in the order of their positions. */
static uint32_t frames_intern(struct stacks *stacks, const struct frame *frames, uint32_t n)
{
    uint32_t at = (uint32_t)hash_bytes(frames, (size_t)n * 2) & stacks->frame_index_mask;
    for (; stacks->frame_index[at]; at = (at + 1) & stacks->frame_index_mask) {
        uint32_t set = stacks->frame_index[at];
        if (frames_n(stacks, set) == n && !memcmp(frames_of(stacks, set), frames, n * sizeof *frames))
            return set;
    }
    if (stacks->n_frames == stacks->max_frames || n > stacks->max_frame_items - stacks->n_frame_items)
        return fail(stacks, "how deep the text is nested, in how many ways");
    memmove(stacks->frames + stacks->n_frame_items, frames, n * sizeof *frames);
    stacks->n_frame_items += n;
    stacks->frame_index[at] = stacks->n_frames;
    stacks->frame_sets[stacks->n_frames + 1] = stacks->n_frame_items;
    return stacks->n_frames++;
}

/* The set of all frames of both. */
static uint32_t frames_join(struct stacks *stacks, uint32_t one, uint32_t other, uint32_t depth)
{
    uint32_t begin = stacks->n_merged, n_one = frames_n(stacks, one), n_other = frames_n(stacks, other),
             i = 0, k = 0;
    if (one == other || one == FRAMES_NONE || other == FRAMES_NONE)
        return one == FRAMES_NONE ? other : one;
    if (depth > MAX_DEPTH)
        return fail(stacks, "how deep the text is nested, in how many ways");
    while (i < n_one || k < n_other) {
        const struct frame *a = frames_of(stacks, one) + i, *b = frames_of(stacks, other) + k;
        struct frame frame;
        if (k == n_other || (i < n_one && a->position < b->position)) {
            frame = *a;
            i++;
        } else if (i == n_one || b->position < a->position) {
            frame = *b;
            k++;
        } else {
            frame = (struct frame){a->position, frames_join(stacks, a->below, b->below, depth + 1)};
            i++;
            k++;
        }
        if (works_too_long(stacks) || stacks->n_merged == stacks->max_found) {
            stacks->n_merged = begin;
            return fail(stacks, "the ways in which the text can be read");
        }
        stacks->merged[stacks->n_merged++] = frame;
    }
    uint32_t set = frames_intern(stacks, stacks->merged + begin, stacks->n_merged - begin);
    stacks->n_merged = begin;
    return set;
}

/* --- states --------------------------------------------------------------------------------------------------------- */

static uint32_t state_hash(const struct member *members, uint32_t n, bool is_end)
{
    return (uint32_t)(hash_bytes(members, (size_t)n * 3) + is_end);
}

/* The number of a state: members in order. */
static uint32_t state_intern(struct stacks *stacks, const struct member *members, uint32_t n, bool is_end)
{
    if (!n && !is_end)
        return STATE_DEAD;
    uint32_t at = state_hash(members, n, is_end) & stacks->state_index_mask;
    for (; stacks->state_index[at]; at = (at + 1) & stacks->state_index_mask) {
        const struct text_state *state = &stacks->states[stacks->state_index[at]];
        if (state->n == n && state->is_end == is_end &&
            !memcmp(stacks->members + state->first, members, n * sizeof *members))
            return stacks->state_index[at];
    }
    if (stacks->n_states == stacks->max_states || n > stacks->max_members - stacks->n_members) {
        fail(stacks, "the states that one token can lead to");
        return STATE_DEAD;
    }
    memmove(stacks->members + stacks->n_members, members, n * sizeof *members);
    stacks->states[stacks->n_states] =
        (struct text_state){.first = stacks->n_members, .n = n, .is_end = is_end};
    stacks->n_members += n;
    stacks->state_index[at] = stacks->n_states;
    return stacks->n_states++;
}

bool stacks_are_full(const struct stacks *stacks)
{
    return stacks->n_states > stacks->max_states / 4 * 3 || stacks->n_members > stacks->max_members / 4 * 3 ||
           stacks->n_frames > stacks->max_frames / 4 * 3 ||
           stacks->n_frame_items > stacks->max_frame_items / 4 * 3;
}

/* Marks the sets that these states have, and what lies below: a set's number is greater than those below it. */
static void mark_frames(struct stacks *stacks, uint32_t *const *in_use, size_t n)
{
    memset(stacks->kept, 0, stacks->n_frames * sizeof *stacks->kept);
    stacks->kept[FRAMES_END] = 1;
    for (size_t i = 0; i < n; i++) {
        const struct text_state *state = &stacks->states[*in_use[i]];
        for (uint32_t k = 0; *in_use[i] > STATE_DEAD && k < state->n; k++)
            stacks->kept[stacks->members[state->first + k].frames] = 1;
    }
    for (uint32_t set = stacks->n_frames; set-- > FRAMES_END;)
        for (uint32_t i = 0; stacks->kept[set] && i < frames_n(stacks, set); i++)
            stacks->kept[frames_of(stacks, set)[i].below] = 1;
    stacks->kept[FRAMES_NONE] = FRAMES_NONE;
}

/* Marked sets move down in the order in which they lie, as states do. */
static void forget_frames(struct stacks *stacks)
{
    uint32_t n_sets = stacks->n_frames;
    memset(stacks->frame_index, 0, ((size_t)stacks->frame_index_mask + 1) * sizeof *stacks->frame_index);
    stacks->n_frames = FRAMES_END;
    stacks->n_frame_items = 0;
    for (uint32_t set = FRAMES_END; set < n_sets; set++) {
        struct frame *frames = stacks->frames + stacks->frame_sets[set];
        uint32_t n = frames_n(stacks, set);
        if (!stacks->kept[set])
            continue;
        for (uint32_t i = 0; i < n; i++)
            frames[i].below = stacks->kept[frames[i].below];
        stacks->kept[set] = frames_intern(stacks, frames, n);
    }
}

/* States move down in the order in which they lie, so none is overwritten before it was moved. */
void stacks_forget(struct stacks *stacks, uint32_t **in_use, size_t n)
{
    uint32_t before = STATE_DEAD, now = STATE_DEAD;
    for (size_t i = 1; i < n; i++) { /* by number; there are few */
        uint32_t *state = in_use[i];
        size_t at = i;
        for (; at && *in_use[at - 1] > *state; at--)
            in_use[at] = in_use[at - 1];
        in_use[at] = state;
    }
    mark_frames(stacks, in_use, n);
    forget_frames(stacks);
    memset(stacks->rows, 0, (size_t)stacks->n_states * stacks->scanner->n_classes * sizeof *stacks->rows);
    memset(stacks->state_index, 0, ((size_t)stacks->state_index_mask + 1) * sizeof *stacks->state_index);
    stacks->n_states = STATE_DEAD + 1;
    stacks->n_members = 0;
    for (size_t i = 0; i < n; i++) {
        if (*in_use[i] > STATE_DEAD && *in_use[i] != before) {
            const struct text_state state = stacks->states[*in_use[i]];
            before = *in_use[i];
            for (uint32_t k = 0; k < state.n; k++)
                stacks->members[state.first + k].frames =
                    stacks->kept[stacks->members[state.first + k].frames];
            now = state_intern(stacks, stacks->members + state.first, state.n, state.is_end);
        }
        if (*in_use[i] > STATE_DEAD)
            *in_use[i] = now;
    }
}

void stacks_mark_scans(const struct stacks *stacks)
{
    struct scanner *scanner = stacks->scanner;
    memset(scanner->kept, 0, scanner->n * sizeof *scanner->kept);
    for (uint32_t i = 0; i < stacks->n_members; i++)
        scanner->kept[stacks->members[i].scan] = 1;
}

void stacks_renumber_scans(struct stacks *stacks)
{
    memset(stacks->state_index, 0, ((size_t)stacks->state_index_mask + 1) * sizeof *stacks->state_index);
    for (uint32_t i = 0; i < stacks->n_members; i++)
        stacks->members[i].scan = stacks->scanner->kept[stacks->members[i].scan];
    for (uint32_t number = STATE_DEAD + 1; number < stacks->n_states; number++) {
        const struct text_state *state = &stacks->states[number];
        uint32_t at =
            state_hash(stacks->members + state->first, state->n, state->is_end) & stacks->state_index_mask;
        while (stacks->state_index[at])
            at = (at + 1) & stacks->state_index_mask;
        stacks->state_index[at] = number;
    }
}

/* --- a step --------------------------------------------------------------------------------------------------------- */

static void begin_step(struct stacks *stacks)
{
    stacks->n_found = stacks->n_borders = stacks->n_merged = 0;
    stacks->found_end = false;
    if (!++stacks->step) { /* after four thousand million steps: their numbers begin again */
        memset(stacks->border_index, 0, (size_t)stacks->max_found * 2 * sizeof *stacks->border_index);
        stacks->step = 1;
    }
}

static void find_member(struct stacks *stacks, uint32_t scan, uint32_t position, uint32_t frames)
{
    if (works_too_long(stacks))
        return;
    if (stacks->n_found == stacks->max_found)
        fail(stacks, "the ways in which the text can be read");
    else
        stacks->found[stacks->n_found++] = (struct member){scan, position, frames};
}

/* To be followed, unless it was. */
static void find_border(struct stacks *stacks, uint32_t position, uint32_t frames)
{
    struct border border = {position, frames};
    uint32_t mask = stacks->max_found * 2 - 1, at = (uint32_t)hash_bytes(&border, 2) & mask;
    if (works_too_long(stacks))
        return;
    for (; stacks->border_index[at] >> 32 == stacks->step; at = (at + 1) & mask) {
        const struct border *other = &stacks->borders[(uint32_t)stacks->border_index[at]];
        if (other->position == position && other->frames == frames)
            return;
    }
    if (stacks->n_borders == stacks->max_found) {
        fail(stacks, "the ways in which the text can be read");
        return;
    }
    stacks->border_index[at] = (uint64_t)stacks->step << 32 | stacks->n_borders;
    stacks->borders[stacks->n_borders++] = border;
}

/* Nothing comes after it in its rule: whoever calls from there need not come back. */
static bool is_only_end(const struct stacks *stacks, uint32_t position)
{
    return stacks->network->positions[position].is_end && !stacks->network->positions[position].n;
}

static void follow(struct stacks *stacks, struct border border)
{
    const struct network_position *position = &stacks->network->positions[border.position];
    if (position->is_end)
        for (uint32_t i = 0; i < frames_n(stacks, border.frames); i++) {
            struct frame frame = frames_of(stacks, border.frames)[i];
            if (frame.position == TEXT_END)
                stacks->found_end = true;
            else
                find_border(stacks, frame.position, frame.below);
        }
    for (uint32_t s = position->first; s < position->first + position->n && !stacks->failed; s++) {
        const struct network_step *step = &stacks->network->steps[s];
        uint32_t frames = border.frames, scan;
        switch ((enum step_kind)step->kind) {
        case STEP_EMPTY:
            find_border(stacks, step->to, frames);
            break;
        case STEP_TERMINAL:
            scan = scanner_state(stacks->scanner, step->a);
            if (scan != SCAN_DEAD && stacks->scanner->states[scan].goes_on)
                find_member(stacks, scan, step->to, frames);
            break;
        case STEP_CALL:
            if (!is_only_end(stacks, step->to))
                frames = frames_intern(stacks, &(struct frame){step->to, frames}, 1);
            find_border(stacks, step->a, frames);
            break;
        }
    }
}

static bool is_before(const struct member *a, const struct member *b)
{
    if (a->scan != b->scan)
        return a->scan < b->scan;
    return a->position != b->position ? a->position < b->position : a->frames < b->frames;
}

/* Shell's: qsort would allocate. */
static void sort(struct member *members, uint32_t n)
{
    for (uint32_t gap = n / 2; gap; gap = gap == 2 ? 1 : gap * 5 / 11)
        for (uint32_t i = gap; i < n; i++) {
            struct member member = members[i];
            uint32_t at = i;
            for (; at >= gap && is_before(&member, &members[at - gap]); at -= gap)
                members[at] = members[at - gap];
            members[at] = member;
        }
}

/* The state of what was found. */
static uint32_t end_step(struct stacks *stacks)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < stacks->n_borders && !stacks->failed; i++)
        follow(stacks, stacks->borders[i]);
    sort(stacks->found, stacks->n_found);
    for (uint32_t i = 0; i < stacks->n_found && !stacks->failed; i++) {
        const struct member member = stacks->found[i];
        struct member *last = n ? &stacks->found[n - 1] : NULL;
        if (last && last->scan == member.scan && last->position == member.position)
            last->frames = frames_join(stacks, last->frames, member.frames, 0);
        else
            stacks->found[n++] = member;
    }
    if (stacks->scanner->failed)
        fail(stacks, "the states of its terminals");
    if (stacks->scanner->exprs->failed)
        fail(stacks, "the expressions of its terminals");
    return stacks->failed ? STATE_DEAD : state_intern(stacks, stacks->found, n, stacks->found_end);
}

uint32_t stacks_border(struct stacks *stacks, uint32_t position, uint32_t frames)
{
    begin_step(stacks);
    find_border(stacks, position, frames);
    return end_step(stacks);
}

uint32_t stacks_start(struct stacks *stacks)
{
    return stacks_border(stacks, stacks->network->start, FRAMES_END);
}

uint32_t stacks_part(struct stacks *stacks, const struct member *members, uint32_t n)
{
    return state_intern(stacks, members, n, false);
}

uint32_t stacks_find_next(struct stacks *stacks, uint32_t number, unsigned column)
{
    const struct text_state state = stacks->states[number];
    begin_step(stacks);
    for (uint32_t i = 0; i < state.n && !stacks->failed; i++) {
        const struct member member = stacks->members[state.first + i];
        uint32_t scan = scanner_next(stacks->scanner, member.scan, column);
        if (scan == SCAN_DEAD)
            continue;
        if (stacks->scanner->states[scan].goes_on)
            find_member(stacks, scan, member.position, member.frames);
        if (stacks->scanner->states[scan].accepts)
            find_border(stacks, member.position, member.frames);
    }
    uint32_t next = end_step(stacks);
    if (!stacks->failed)
        stacks->rows[(size_t)number * stacks->scanner->n_classes + column] = next;
    return next;
}

/* --- memory --------------------------------------------------------------------------------------------------------- */

void stacks_free(struct stacks *stacks)
{
    table_free(stacks->frames);
    table_free(stacks->frame_sets);
    table_free(stacks->frame_index);
    table_free(stacks->kept);
    table_free(stacks->members);
    table_free(stacks->states);
    table_free(stacks->rows);
    table_free(stacks->state_index);
    table_free(stacks->found);
    table_free(stacks->borders);
    table_free(stacks->border_index);
    table_free(stacks->merged);
    *stacks = (struct stacks){0};
}

size_t stacks_bytes(const struct stacks *stacks, bool all)
{
    size_t n_sets = all ? stacks->max_frames : stacks->n_frames,
           n_frames = all ? stacks->max_frame_items : stacks->n_frame_items,
           n_states = all ? stacks->max_states : stacks->n_states,
           n_members = all ? stacks->max_members : stacks->n_members;
    return n_frames * sizeof *stacks->frames + n_sets * (sizeof *stacks->frame_sets + sizeof *stacks->kept) +
           n_states * (sizeof *stacks->states + stacks->scanner->n_classes * sizeof *stacks->rows) +
           n_members * sizeof *stacks->members +
           stacks->max_found * (sizeof *stacks->found + sizeof *stacks->borders + sizeof *stacks->merged +
                                2 * sizeof *stacks->border_index) +
           table_scattered_bytes(n_sets, (size_t)stacks->frame_index_mask + 1, sizeof *stacks->frame_index) +
           table_scattered_bytes(n_states, (size_t)stacks->state_index_mask + 1, sizeof *stacks->state_index);
}

int stacks_create(const struct network *network, struct scanner *scanner,
                  const struct constrain_limits *limits, struct stacks *out, runnel_error *error)
{
    struct stacks stacks = {
        .network = network,
        .scanner = scanner,
        .max_frames = limits->n_frames,
        .max_frame_items = limits->n_frames * 4,
        .frame_index_mask = power_of_two(limits->n_frames * 2) - 1,
        .max_states = limits->n_states,
        .max_members = limits->n_states * 8,
        .state_index_mask = power_of_two(limits->n_states * 2) - 1,
        .max_found = MAX_FOUND,
        .max_work = limits->work_step,
    };
    stacks.frames = table_create(stacks.max_frame_items, sizeof *stacks.frames);
    stacks.frame_sets = table_create((size_t)stacks.max_frames + 1, sizeof *stacks.frame_sets);
    stacks.frame_index = table_create((size_t)stacks.frame_index_mask + 1, sizeof *stacks.frame_index);
    stacks.kept = table_create(stacks.max_frames, sizeof *stacks.kept);
    stacks.members = table_create(stacks.max_members, sizeof *stacks.members);
    stacks.states = table_create(stacks.max_states, sizeof *stacks.states);
    stacks.rows = table_create((size_t)stacks.max_states * scanner->n_classes, sizeof *stacks.rows);
    stacks.state_index = table_create((size_t)stacks.state_index_mask + 1, sizeof *stacks.state_index);
    stacks.found = table_create(MAX_FOUND, sizeof *stacks.found);
    stacks.borders = table_create(MAX_FOUND, sizeof *stacks.borders);
    stacks.border_index = table_create((size_t)MAX_FOUND * 2, sizeof *stacks.border_index);
    stacks.merged = table_create(MAX_FOUND, sizeof *stacks.merged);
    if (!stacks.frames || !stacks.frame_sets || !stacks.frame_index || !stacks.kept || !stacks.members ||
        !stacks.states || !stacks.rows || !stacks.state_index || !stacks.found || !stacks.borders ||
        !stacks.border_index || !stacks.merged) {
        stacks_free(&stacks);
        return error_set(error, RUNNEL_ENOMEM, "no memory for the states of a grammar");
    }
    stacks.n_states = STATE_DEAD + 1;
    stacks.n_frames = FRAMES_END; /* the empty set begins and ends at 0 */
    frames_intern(&stacks, &(struct frame){.position = TEXT_END}, 1);
    *out = stacks;
    return RUNNEL_OK;
}
