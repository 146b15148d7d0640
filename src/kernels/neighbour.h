/* neighbour.h: does something else slow the CPUs of this machine? Judged from what probe.c measured: a program that computes on
 * the same CPUs, another machine on the same host, or whoever has the other half of a core (its hyperthread). Owns nothing;
 * any thread. */
#ifndef RUNNEL_KERNELS_NEIGHBOUR_H
#define RUNNEL_KERNELS_NEIGHBOUR_H

#include <stddef.h>

/* Measured one right after the other. */
struct neighbour_round {
    double alone;    /* GMAC/s of one thread while the others sleep: each round another one */
    double together; /* GMAC/s of all threads at once */
    double
        width; /* instructions a cycle that one thread gets at most while the others sleep; 0: cannot be measured here */
};

enum neighbour_sign {
    NEIGHBOUR_NONE,
    NEIGHBOUR_SIBLING, /* a core executes only half of the instructions that it could: the other half of it is busy */
    NEIGHBOUR_AT_TIMES, /* in some rounds the same work was much faster */
    NEIGHBOUR_SHARES,   /* all threads together have less than the same number of threads alone */
};

struct neighbour {
    enum neighbour_sign sign;
    double found,
        possible; /* GMAC/s; of a sibling instructions a cycle, possible 0: it was busy all the time */
};

/* n_cpus: on how many cores the n_threads may run at once. Where that is fewer, they hold up each other, and only a sibling is looked
 * for. n_rounds: at least 1. Sorts the rounds by what they had together. */
struct neighbour neighbour_judge(struct neighbour_round *rounds, size_t n_rounds, unsigned n_threads,
                                 double n_cpus);

/* One line for people; "" if there is none. */
void neighbour_describe(const struct neighbour *neighbour, char *line, size_t size);

#endif
