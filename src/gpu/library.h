/* library.h: a driver's library, which is looked for when the program runs. Private to src/gpu. It is never closed. */
#ifndef RUNNEL_GPU_LIBRARY_H
#define RUNNEL_GPU_LIBRARY_H

#include "base/error.h"

/* NULL: it is not installed; or it is and cannot be loaded, for what problem says then. */
void *gpu_library_open(const char *name, runnel_error *problem);

#endif
