/* gpu.h: the back end that computes on a GPU, with the functions of gpu/kernels.h, on the weights as they are packed. Same bits
 * as the CPU's. */
#ifndef RUNNEL_BACKEND_GPU_H
#define RUNNEL_BACKEND_GPU_H

#include "backend/backend.h"

extern const struct backend_kind gpu_backend;

#endif
