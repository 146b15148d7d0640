/* vnni_functions.h: the functions of vnni_instructions.h as functions that a program can call: the CPU's own, and emulated. */
#ifndef TESTS_EMULATED_VNNI_FUNCTIONS_H
#define TESTS_EMULATED_VNNI_FUNCTIONS_H

#include <stdint.h>

struct vnni_functions { /* each on 8 lanes of 32 bits, in place */
    void (*dot_bytes)(int32_t sums[8], const uint8_t w[32], const int8_t a[32]);
    void (*dot_both)(int32_t sums0[8], int32_t sums1[8], const uint8_t w[64], const int8_t a[4]);
    void (*dot_pairs)(int32_t sums[8], const int16_t a[16], const int16_t b[16]);
};

extern const struct vnni_functions vnni_of_cpu; /* an illegal instruction where the CPU lacks AVX-VNNI */
extern const struct vnni_functions vnni_emulated;

#endif
