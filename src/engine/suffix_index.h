/* suffix_index.h: where the latest tokens of a text stood before, in that text or in another one.
 *
 * An index remembers, for runs of 1, 2, 3, 4, 6, 8, 12 and 16 tokens, behind which position of its text each was seen last, and whether
 * what followed there had followed the times before, too. It is a table of fixed size that is written over: what is old may be
 * forgotten, and what is found is compared with the text, so that nothing is found that is not there. One thread at a time; nothing is
 * allocated but by the caller. */
#ifndef RUNNEL_ENGINE_SUFFIX_INDEX_H
#define RUNNEL_ENGINE_SUFFIX_INDEX_H

#include <stdint.h>

enum {
    SUFFIX_LENGTHS = 8,
    SUFFIX_MAX = 16, /* tokens of the longest run */
    SUFFIX_POSITIONS_MAX = (1 << 30) - 1,
    SUFFIX_NO_TOKEN = -1 /* between two texts in one: nothing that has it in it is ever found */
};

/* Tokens by position: position p is ids[p & mask]. */
struct suffix_text {
    const int32_t *ids;
    uint32_t mask; /* UINT32_MAX: all are there; else a ring of mask + 1 tokens, the latest ones */
    uint32_t n;    /* positions so far, SUFFIX_POSITIONS_MAX at most */
};

/* What followed a run, each time that it was there. */
enum suffix_habit {
    SUFFIX_ONCE,    /* it was there once */
    SUFFIX_CHANGED, /* the latest time another token followed than the time before */
    SUFFIX_SAME,    /* the same one */
    SUFFIX_ALWAYS,  /* ... and the time before, too */
    SUFFIX_HABITS
};

/* What is kept of a run. */
struct suffix_slot {
    uint32_t end : 30; /* the position behind it, where it was seen last; 0: none */
    uint32_t habit : 2;
};

struct suffix_index {
    struct suffix_slot *slots; /* [n_slots] */
    uint32_t n_slots;          /* a power of two */
    uint32_t n;                /* positions that it has seen */
    struct { /* of the runs that end there: where they were before, whose habits the next token tells */
        uint32_t slot, before; /* before 0: nowhere */
        uint32_t habit;
    } latest[SUFFIX_LENGTHS];
};

struct suffix_match {
    uint32_t end; /* what comes next stands at this position; 0: there is none */
    enum suffix_habit habit;
};

/* The length of runs by number, and the number of the greatest one that is no longer than length (1 or more). */
uint32_t suffix_length(uint32_t number);
uint32_t suffix_number(uint32_t length);

/* Slots for a text of n tokens, n_max at most; a power of two. */
uint32_t suffix_index_slots(uint64_t n, uint32_t n_max);

void suffix_index_clear(struct suffix_index *index);
/* Goes on to position end (text->n at most), but no further than n_most positions. */
void suffix_index_follow(struct suffix_index *index, const struct suffix_text *text, uint32_t end,
                         uint32_t n_most);

/* Where the last tokens of ids [n] stood in the text, for runs of each length: the latest place, if it has a token behind it. The text
 * may be the ids themselves, if the index has not seen the last one. */
void suffix_find(const struct suffix_index *index, const struct suffix_text *text, const int32_t *ids,
                 uint32_t n, struct suffix_match matches[SUFFIX_LENGTHS]);

#endif
