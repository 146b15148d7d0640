/* affinity.h: on which CPUs this process computes. Owns nothing; called before other threads start, which inherit it. */
#ifndef RUNNEL_CLI_AFFINITY_H
#define RUNNEL_CLI_AFFINITY_H

#include "runnel.h"

/* Binds the calling thread to the CPUs of a list such as "0,2-3", as taskset and the kernel write them. RUNNEL_EINVAL
 * names what is wrong with the list, or the CPUs that this process may not use. */
int affinity_set(const char *list, runnel_error *error);

#endif
