/* kernel_bench.h: times the products of each instruction set. */
#ifndef TESTS_HELPERS_KERNEL_BENCH_H
#define TESTS_HELPERS_KERNEL_BENCH_H

#include "kernels/ops.h"

/* filter: "" or names of instruction sets; types: "" or names of tensor types; only: 0 or the
 * one number of rows of activations. Prints GMAC/s and GB/s by
 * type, rows of activations and threads. */
int kernel_bench(const struct kernels *tables, int n_tables, const char *filter, const char *types,
                 uint32_t only);

#endif
