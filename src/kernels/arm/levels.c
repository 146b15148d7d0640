/* levels.c: the instruction sets of ARM that have kernels here: none yet, so plain C (ref.c) does all. Constant; any thread. */
#include "kernels/levels.h"

const struct kernels_level kernels_machine_levels[KERNELS_LEVELS_MAX] = {{0}};
