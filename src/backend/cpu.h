/* cpu.h: the back end that computes on this machine's CPU with the kernels' table and the team, on the weights as they are
 * packed. */
#ifndef RUNNEL_BACKEND_CPU_H
#define RUNNEL_BACKEND_CPU_H

#include "backend/backend.h"

extern const struct backend_kind cpu_backend;

#endif
