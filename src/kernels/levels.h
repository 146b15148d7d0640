/* levels.h: the instruction sets of a kind of machine. Each folder of machines (x86/, arm/) has a levels.c that lists its own; a
 * machine without a folder gets no_levels.c, and runs ref.c alone. Private to src/kernels. */
#ifndef RUNNEL_KERNELS_LEVELS_H
#define RUNNEL_KERNELS_LEVELS_H

#include "kernels/ops.h"

enum { KERNELS_LEVELS_MAX = 8 }; /* of a machine, without "ref" */

struct kernels_level {
    const char *name;          /* of the table, and in RUNNEL_CPU; NULL: there are no more levels */
    bool (*is_possible)(void); /* the CPU has it, and the operating system saves its registers */
    /* Replaces what this level does better in a copy of the table of the best possible level below it. */
    void (*fill)(struct kernels *kernels);
    /* Where is_possible says no: what stands in the way though the CPU has the instructions; NULL: it lacks them. Left out
     * (NULL) where only the CPU decides. */
    const char *(*why_refused)(void);
};

/* From the lowest up: the last possible one is taken where nobody asks for another. */
extern const struct kernels_level kernels_machine_levels[KERNELS_LEVELS_MAX];

/* The table of plain C (ref.c): what every level starts from. */
void kernels_fill_ref(struct kernels *kernels);
void kernels_fill_ref_products(struct kernels *kernels); /* a part of it (ref_products.c) */
void kernels_fill_ref_encode(struct kernels *kernels);   /* likewise (ref_encode.c) */

#endif
