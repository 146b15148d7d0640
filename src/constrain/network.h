/* network.h: the rules of a grammar as positions and steps between them.
 *
 * A position lies before or behind a symbol of a rule. A step from it leads to another one: without a byte, through a terminal, or
 * through a call of what begins at a third one. What is regular between two calls is one terminal. A rule that begins with a
 * call of itself, at once or through others, is changed into one that begins with what it can begin with else, and then repeats
 * what may follow, so that following calls comes to an end. From each position that is left, the end of its rule can be reached.
 * Never changed once it is made; owned by whoever made it. */
#ifndef RUNNEL_CONSTRAIN_NETWORK_H
#define RUNNEL_CONSTRAIN_NETWORK_H

#include "constrain/grammar.h"
#include "constrain/scanner.h"

enum step_kind {
    STEP_EMPTY,
    STEP_TERMINAL, /* expression a */
    STEP_CALL,     /* of what begins at position a */
};

struct network_step {
    uint8_t kind;
    uint32_t from, a, to;
};

struct network_position {
    uint32_t first, n; /* its steps */
    bool is_end;       /* of its rule */
};

struct network {
    struct network_position *positions;
    uint32_t n_positions, cap_positions;
    struct network_step *steps; /* in the order of their positions */
    uint32_t n_steps, cap_steps;
    uint32_t start;
    uint32_t max;           /* of positions, and of steps */
    bool failed, no_memory; /* there was no room for one; no memory */
};

/* For the files that make one. */
uint32_t network_add_position(struct network *network, bool is_end);
void network_add_step(struct network *network, enum step_kind kind, uint32_t from, uint32_t a, uint32_t to);
/* Steps in the order of their positions, which then know theirs. */
int network_order(struct network *network, runnel_error *error);

/* grammar was checked. Makes expressions. On failure network is empty. */
int network_create(struct grammar *grammar, struct network *network, runnel_error *error);
/* Drops what leads to no end, now that the scanner can say which terminals have words. */
int network_prune(struct network *network, struct scanner *scanner, uint64_t max_work, runnel_error *error);
void network_free(struct network *network);

#endif
