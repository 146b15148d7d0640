/* divide.h: what one of several workers gets of the threads and the memory of a server. Owns nothing; any thread. */
#ifndef RUNNEL_SERVICE_DIVIDE_H
#define RUNNEL_SERVICE_DIVIDE_H

#include <stdint.h>

struct divide_amounts {
    uint32_t n_threads, n_parallel;
    uint64_t n_kv_bytes;
};

/* The part of the rank-th of n_workers, ranks from 0 on. Parts add up to the whole, but for KV memory, where less than a byte
 * a worker is lost, and but for threads and requests that are fewer than workers: each gets one at least. Lower ranks get what
 * does not divide. */
struct divide_amounts divide_among(const struct divide_amounts *whole, uint32_t rank, uint32_t n_workers);

#endif
