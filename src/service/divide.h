/* divide.h: what one of several workers gets of the threads, the memory and the time of a server. Owns nothing; any thread. */
#ifndef RUNNEL_SERVICE_DIVIDE_H
#define RUNNEL_SERVICE_DIVIDE_H

#include <stdint.h>

struct divide_amounts {
    uint32_t n_threads, n_parallel;
    uint64_t n_kv_bytes,
        n_kv_bytes_least; /* of a part at least, 0: anything; then parts may be more than the whole */
};

/* The part of the rank-th of n_workers, ranks from 0 on. Parts add up to the whole, but for KV memory, where less than a byte
 * a worker is lost and none has less than n_kv_bytes_least, and but for threads and requests that are fewer than workers: each gets
 * one at least. Lower ranks get what does not divide. */
struct divide_amounts divide_among(const struct divide_amounts *whole, uint32_t rank, uint32_t n_workers);

/* Milliseconds that a step of one of n_workers may take while answers run: as asked, or without that (0) 60 times their number.
 * With a part of the threads a step takes so many times as long, and would leave hardly any time for prompts. */
float divide_step_budget_ms(float asked_ms, uint32_t n_workers);

#endif
