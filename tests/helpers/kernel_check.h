/* kernel_check.h: what the tests of kernels share: every table of this machine, random inputs, comparing bit
 * for bit. */
#ifndef TESTS_HELPERS_KERNEL_CHECK_H
#define TESTS_HELPERS_KERNEL_CHECK_H

#include "kernels/ops.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

enum { GUARD = 64 };

extern const struct kernels *tables; /* "ref" first */
extern int n_tables;
void fill_tables(void);
/* Where the arguments of a program are --level NAME: leaves that and "ref". false: this machine has none of that name. */
bool keep_tables_asked_for(int argc, char **argv);

/* Random numbers, the same in every run. */
uint32_t random_u32(void);
uint32_t random_below(uint32_t n);
float random_float(void); /* about normal, -6 .. 6 */
void random_floats(float *x, size_t n);

void *allocate(size_t n); /* aligned to 64 bytes */

/* Bit for bit, but that any NaN equals any NaN. */
bool same_floats(const float *a, const float *b, size_t n);

#define CHECK_SAME(a, b, n, ...)                                                                             \
    do {                                                                                                     \
        if (!same_floats(a, b, n)) {                                                                         \
            print_error(__VA_ARGS__);                                                                        \
            for (size_t i_ = 0; i_ < (size_t)(n); i_++)                                                      \
                if (!same_floats((a) + i_, (b) + i_, 1)) {                                                   \
                    print_error(": value %zu is %.9g, expected %.9g", i_, (double)(a)[i_], (double)(b)[i_]); \
                    break;                                                                                   \
                }                                                                                            \
            fail_msg("differs");                                                                             \
        }                                                                                                    \
    } while (0)

#endif
