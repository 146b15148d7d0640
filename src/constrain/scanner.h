/* scanner.h: expressions as states of one deterministic automaton, which is made as it is walked.
 *
 * A state is an expression: what may still come of a terminal. Bytes that no expression tells apart are one class. A state from
 * which no word can be completed is SCAN_DEAD, also where only a search finds that out (and, not), so that whoever is in
 * another state can always go on to an end. The scanner makes derivatives in the exprs that it was given, which outlive it. One
 * thread at a time. */
#ifndef RUNNEL_CONSTRAIN_SCANNER_H
#define RUNNEL_CONSTRAIN_SCANNER_H

#include "constrain/exprs.h"

enum {
    SCAN_UNKNOWN = 0, /* in a row: not asked for yet; no state */
    SCAN_DEAD = 1,
};

struct scan_state {
    uint32_t expr;
    bool accepts; /* the terminal may end here */
    bool goes_on; /* ... and there is a longer word */
    bool is_wide; /* many bytes may come next */
};

struct scanner {
    struct exprs *exprs;
    uint8_t class_of[256];
    uint8_t byte_of[256]; /* [n_classes] one byte of each class */
    uint32_t n_classes;
    struct scan_state *states;        /* [max] */
    uint32_t n, max, least;           /* least: those that were left when others were forgotten */
    uint32_t *rows;                   /* [max, n_classes] the next state, or SCAN_UNKNOWN */
    uint32_t *state_of;               /* [exprs->max] 0: none yet */
    uint8_t *life;                    /* [exprs->max] whether it has words: found out so far */
    uint32_t *queue, *parents, *seen; /* [exprs->max] of the search */
    uint32_t search;                  /* its number: seen holds those of this one */
    uint32_t *kept;                   /* [max] while some are forgotten: the new numbers of the others */
    bool failed;                      /* there is no room for a state; exprs->failed is apart */
};

/* The sets of bytes that exprs has now decide the classes: all terminals are made before. NULL: no memory. */
struct scanner *scanner_create(struct exprs *exprs, uint32_t max_states);
void scanner_free(struct scanner *scanner);
/* The state of an expression. */
uint32_t scanner_state(struct scanner *scanner, uint32_t expr);
/* Whether an expression has a word at all. */
bool scanner_has_words(struct scanner *scanner, uint32_t expr);
uint32_t scanner_find_next(struct scanner *scanner, uint32_t state, unsigned column);

/* Whether there may soon be no room for states, or for their expressions. */
bool scanner_is_full(const struct scanner *scanner);
/* Forgets all states but those for which kept is not 0: it becomes the new number; their order stays. All expressions are forgotten
 * but theirs and terminals[0, n), which get new numbers. */
void scanner_forget(struct scanner *scanner, uint32_t **terminals, size_t n);

/* As exprs_bytes, without the expressions. */
size_t scanner_bytes(const struct scanner *scanner, bool all);

static inline uint32_t scanner_next(struct scanner *scanner, uint32_t state, unsigned column)
{
    uint32_t next = scanner->rows[(size_t)state * scanner->n_classes + column];
    return next != SCAN_UNKNOWN ? next : scanner_find_next(scanner, state, column);
}

#endif
