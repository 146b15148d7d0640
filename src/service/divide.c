/* divide.c: see divide.h. */
#include "service/divide.h"

static const float STEP_BUDGET_MS = 60;

static uint32_t part_of(uint32_t whole, uint32_t rank, uint32_t n_workers)
{
    uint32_t part = whole / n_workers + (rank < whole % n_workers);
    return part ? part : 1;
}

static uint64_t part_of_kv(const struct divide_amounts *whole, uint32_t n_workers)
{
    uint64_t part = whole->n_kv_bytes / n_workers;
    return part > whole->n_kv_bytes_least ? part : whole->n_kv_bytes_least;
}

struct divide_amounts divide_among(const struct divide_amounts *whole, uint32_t rank, uint32_t n_workers)
{
    return (struct divide_amounts){
        .n_threads = part_of(whole->n_threads, rank, n_workers),
        .n_parallel = part_of(whole->n_parallel, rank, n_workers),
        .n_kv_bytes = part_of_kv(whole, n_workers),
        .n_kv_bytes_least = whole->n_kv_bytes_least,
    };
}

float divide_step_budget_ms(float asked_ms, uint32_t n_workers)
{
    return asked_ms > 0 ? asked_ms : STEP_BUDGET_MS * (float)n_workers;
}
