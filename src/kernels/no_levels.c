/* no_levels.c: the list of levels of a machine that has no folder here: ref.c does all. */
#include "kernels/levels.h"

const struct kernels_level kernels_machine_levels[KERNELS_LEVELS_MAX] = {{0}};
