/* requests.h: requests that each have sampling values of their own, in one block of memory. Any thread. */
#ifndef RUNNEL_SERVER_CORE_REQUESTS_H
#define RUNNEL_SERVER_CORE_REQUESTS_H

#include "runnel.h"

#include <string.h>

/* What n of them take. */
static inline size_t requests_bytes(size_t n)
{
    return n * (sizeof(runnel_request) + sizeof(runnel_sampling));
}

/* The values of a request that requests_copy made, to be changed. */
static inline runnel_sampling *requests_sampling(const runnel_request *request)
{
    return (runnel_sampling *)(uintptr_t)request->sampling;
}

/* Makes request `index` of n in the block a copy of `from`, whose sampling values are copied, too. */
static inline void requests_copy(runnel_request *requests, size_t n, size_t index, const runnel_request *from)
{
    runnel_sampling *sampling = (runnel_sampling *)(requests + n) + index;
    *sampling = *from->sampling;
    requests[index] = *from;
    requests[index].sampling = sampling;
}

#endif
