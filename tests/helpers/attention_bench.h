/* attention_bench.h: times attention of each instruction set. */
#ifndef TESTS_HELPERS_ATTENTION_BENCH_H
#define TESTS_HELPERS_ATTENTION_BENCH_H

#include "kernels/ops.h"

/* filter: "" or names of instruction sets; only: 0 or the one number of query rows. Prints GMAC/s and GB/s of
 * one core by head_dim, kind of keys, query rows and positions. */
int attention_bench(const struct kernels *tables, int n_tables, const char *filter, int only);

#endif
