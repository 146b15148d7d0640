/* neighbour.c: see neighbour.h. Pure. */
#include "kernels/neighbour.h"

#include <stdio.h>
#include <stdlib.h>

/* Rounds of the same work on an idle machine are within a tenth of each other. */
static const double slowed = 0.8;

/* Every CPU with AVX2 renames at least 4 instructions a cycle, and a core gives each of two busy threads half of what it has: at most 3 of 6 on
 * the widest. What lies between is an idle core. */
static const double width_of_half_a_core = 3.4;

static int by_together(const void *a, const void *b)
{
    const struct neighbour_round *x = a, *y = b;
    return (x->together > y->together) - (x->together < y->together);
}

static int by_alone(const void *a, const void *b)
{
    const struct neighbour_round *x = a, *y = b;
    return (x->alone > y->alone) - (x->alone < y->alone);
}

static int by_width(const void *a, const void *b)
{
    const struct neighbour_round *x = a, *y = b;
    return (x->width > y->width) - (x->width < y->width);
}

struct neighbour neighbour_judge(struct neighbour_round *rounds, size_t n_rounds, unsigned n_threads,
                                 double n_cpus)
{
    qsort(rounds, n_rounds, sizeof *rounds, by_width);
    double width = rounds[n_rounds / 2].width, widest = rounds[n_rounds - 1].width;
    qsort(rounds, n_rounds, sizeof *rounds, by_alone);
    double alone = rounds[n_rounds / 2].alone;
    qsort(rounds, n_rounds, sizeof *rounds, by_together);
    double together = rounds[n_rounds / 2].together, best = rounds[n_rounds - 1].together;
    if (width > 0 && width < slowed * widest)
        return (struct neighbour){NEIGHBOUR_SIBLING, width, widest};
    if (width > 0 && width < width_of_half_a_core)
        return (struct neighbour){NEIGHBOUR_SIBLING, width, 0};
    if (n_cpus < n_threads)
        return (struct neighbour){NEIGHBOUR_NONE, together, together};
    if (together < slowed * best)
        return (struct neighbour){NEIGHBOUR_AT_TIMES, together, best};
    if (together < slowed * n_threads * alone)
        return (struct neighbour){NEIGHBOUR_SHARES, together, n_threads * alone};
    return (struct neighbour){NEIGHBOUR_NONE, together, best};
}

void neighbour_describe(const struct neighbour *neighbour, char *line, size_t size)
{
    switch (neighbour->sign) {
    case NEIGHBOUR_NONE:
        snprintf(line, size, "%s", "");
        break;
    case NEIGHBOUR_SIBLING:
        if (neighbour->possible > 0)
            snprintf(
                line, size,
                "a neighbour slows this machine: %.1f of %.1f instructions a cycle, as the other half of a "
                "core is busy",
                neighbour->found, neighbour->possible);
        else
            snprintf(line, size,
                     "a neighbour slows this machine: %.1f of at least 4 instructions a cycle, as the other "
                     "half of "
                     "a core is busy",
                     neighbour->found);
        break;
    case NEIGHBOUR_AT_TIMES:
        snprintf(line, size, "a neighbour slows this machine: %.0f of %.0f GMAC/s that it had at times",
                 neighbour->found, neighbour->possible);
        break;
    case NEIGHBOUR_SHARES:
        snprintf(
            line, size,
            "a neighbour slows this machine, or its CPUs share cores: %.0f of %.0f GMAC/s that its threads "
            "have one by one",
            neighbour->found, neighbour->possible);
        break;
    }
}
