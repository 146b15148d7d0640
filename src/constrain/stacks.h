/* stacks.h: where in a network a text may stand, and where the next byte leads.
 *
 * A frame is a position to return to, and the set of frames below it; frames are sets, too, with at most one for each position: two ways with
 * different frames below have the union of them. A state is a set of members (a terminal's scanner state, the position behind
 * that terminal, the frames), and whether the text may end there. Sets are numbers: equal ones are the same number, so the steps
 * from a state are found once, and kept in its row.
 *
 * Frames are kept for good. States are forgotten (stacks_forget) when their pool is three quarters full, but for those that
 * somebody still stands in. One thread at a time. */
#ifndef RUNNEL_CONSTRAIN_STACKS_H
#define RUNNEL_CONSTRAIN_STACKS_H

#include "constrain/network.h"
#include "constrain/scanner.h"

enum {
    STATE_UNKNOWN = 0, /* in a row; no state */
    STATE_DEAD = 1,
    FRAMES_NONE = 0, /* the empty set */
};

struct frame {
    uint32_t position; /* UINT32_MAX: the end of the text */
    uint32_t below;    /* frames */
};

struct member {
    uint32_t scan, position, frames;
};

struct text_state {
    uint32_t first, n; /* members */
    bool is_end;       /* the text may end here */
};

/* Positions to be followed from a border of terminals. */
struct border {
    uint32_t position, frames;
};

struct stacks {
    const struct network *network;
    struct scanner *scanner;

    struct frame *frames; /* [max_frames * 4] of all sets */
    uint32_t n_frame_items, max_frame_items;
    uint32_t *frame_sets; /* [max_frames + 1] where each set begins; it ends where the next one does */
    uint32_t n_frames, max_frames;
    uint32_t *frame_index, frame_index_mask;
    uint32_t *kept; /* [max_frames] while some are forgotten: the new numbers of the others */

    struct member *members; /* [max_members] of all states */
    uint32_t n_members, max_members;
    struct text_state *states; /* [max_states] */
    uint32_t n_states, max_states;
    uint32_t *rows; /* [max_states, n_classes] */
    uint32_t *state_index, state_index_mask;

    /* While one step is worked out. */
    struct member *found; /* [max_found] */
    uint32_t n_found;
    bool found_end;
    struct border *borders; /* [max_found] to be followed, and those that were: a list without doubles */
    uint32_t n_borders;
    uint64_t *border_index; /* [max_found * 2] number of the step, shifted by 32, and of the border */
    uint32_t step;
    struct frame *merged; /* [max_found] a stack of sets being joined */
    uint32_t n_merged, max_found;

    uint64_t work, max_work; /* since the caller set work to 0 */
    const char *failed;      /* what was too large; NULL: nothing */
};

int stacks_create(const struct network *network, struct scanner *scanner,
                  const struct constrain_limits *limits, struct stacks *stacks, runnel_error *error);
void stacks_free(struct stacks *stacks);

/* The state at the beginning of a text. */
uint32_t stacks_start(struct stacks *stacks);
/* A state of some members of another one. */
uint32_t stacks_part(struct stacks *stacks, const struct member *members, uint32_t n);
/* The state at the border after a terminal: of what comes at this position under these frames. */
uint32_t stacks_border(struct stacks *stacks, uint32_t position, uint32_t frames);
uint32_t stacks_find_next(struct stacks *stacks, uint32_t state, unsigned column);

static inline uint32_t stacks_next(struct stacks *stacks, uint32_t state, unsigned byte)
{
    unsigned column = stacks->scanner->class_of[byte];
    uint32_t next = stacks->rows[(size_t)state * stacks->scanner->n_classes + column];
    return next != STATE_UNKNOWN ? next : stacks_find_next(stacks, state, column);
}

/* As exprs_bytes, of what is here. */
size_t stacks_bytes(const struct stacks *stacks, bool all);

/* Whether there may soon be no room for states, or for sets of frames. */
bool stacks_are_full(const struct stacks *stacks);
/* Forgets all states but those of the list, which get new numbers, and all sets of frames but theirs. */
void stacks_forget(struct stacks *stacks, uint32_t **in_use, size_t n);
/* Marks the scanner's states that there are, in its kept; and takes their new numbers from there. */
void stacks_mark_scans(const struct stacks *stacks);
void stacks_renumber_scans(struct stacks *stacks);

#endif
