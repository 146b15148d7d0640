/* step_cost.h: how long a step takes, learned from the steps that were measured.
 *
 * A step of few rows costs mostly one reading of the weights; one of many rows is bound by arithmetic; between are those of many
 * streams, of guesses, and of small parts of prompts. Each of the three is a line, and none begins below where the one before it ends:
 *
 *     floor + per_row * rows + per_pair * pairs
 *
 * For few and some of them it is told of each number of rows, besides, by how much it is off the line.
 * pairs: the sum over the rows of the positions that each one attends to. Each line is a least-squares fit of
 * relative errors over measured steps, old ones fading, with no negative part; what the measurements leave
 * open stays near the values before the first one, times what this machine is slower. A step that took far longer than expected
 * (the machine did something else) counts less, unless several do, one after the other: then the machine is another one. Pure arithmetic: no clock, no allocation; one thread at a time. */
#ifndef RUNNEL_ENGINE_STEP_COST_H
#define RUNNEL_ENGINE_STEP_COST_H

#include <stdint.h>

enum {
    STEP_COST_FEW = 8,   /* rows at most */
    STEP_COST_SOME = 32, /* likewise */
    STEP_COST_TERMS = 3
};

/* One line: the normal equations of the fit, and its solution: floor, a row, a thousand pairs (ms). */
struct step_fit {
    double matrix[STEP_COST_TERMS][STEP_COST_TERMS], right[STEP_COST_TERMS];
    double prior[STEP_COST_TERMS], spread[STEP_COST_TERMS], ms[STEP_COST_TERMS];
};

struct step_cost {
    struct step_fit few, some, many;
    /* By number of rows, up to STEP_COST_SOME: what a step took by what its line says, fading sums. Kernels do some numbers of rows
     * together, so a second row can be free and a third dear. */
    struct {
        double n, ratio;
    } by_rows[STEP_COST_SOME + 1];
    uint64_t n_samples, n_outliers;
    uint32_t n_in_a_row; /* outliers, up to now */
};

void step_cost_init(struct step_cost *cost); /* values of a 1.5B model on two cores */

/* A step of n_rows (1 or more) took ms. Values that are not finite or not positive are ignored. */
void step_cost_learn(struct step_cost *cost, uint32_t n_rows, double n_pairs, double ms);

/* 0 rows take no time. Never falls with more rows or pairs. */
double step_cost_ms(const struct step_cost *cost, uint32_t n_rows, double n_pairs);

/* How many rows, at most n_max, one prompt may add at its position to a step of n_rows and n_pairs so that
 * all take at most limit_ms. */
uint32_t step_cost_fit_rows(const struct step_cost *cost, uint32_t n_rows, double n_pairs, uint32_t position,
                            uint32_t n_max, double limit_ms);

/* The pairs of n rows of one sequence from a position on. */
static inline double step_cost_pairs(uint32_t position, uint32_t n)
{
    return (double)n * position + (double)n * (n + 1.0) / 2;
}

#endif
