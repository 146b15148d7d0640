/* vnni_instructions.h: the instructions of AVX-VNNI, which avxvnni_*.c use through these functions alone. Tests compile the
 * same files with a header of this name that does without them (tests/emulated). Owns nothing; any thread.
 *
 * In assembly, as gcc 12 moves sums about around the intrinsics; {vex}, as without it an assembler takes the form of
 * AVX-512. */
#ifndef RUNNEL_KERNELS_X86_VNNI_INSTRUCTIONS_H
#define RUNNEL_KERNELS_X86_VNNI_INSTRUCTIONS_H

#include <immintrin.h>

/* sum + the 4 products of each lane's unsigned bytes of w and signed ones of a, in 32 bits, which wrap. */
static inline __attribute__((always_inline)) __m256i vnni_dot_bytes(__m256i sum, __m256i w, __m256i a)
{
    __asm__("%{vex%} vpdpbusd %[a], %[w], %[sum]" : [sum] "+x"(sum) : [w] "x"(w), [a] "x"(a));
    return sum;
}

/* The same for two sums, with the 4 bytes at q in every lane. */
static inline __attribute__((always_inline)) void vnni_dot_both(__m256i *sum0, __m256i *sum1, __m256i w0,
                                                                __m256i w1, const void *q)
{
    const struct __attribute__((packed, may_alias)) {
        int four;
    } *bytes = q;
    __m256i a;
    __asm__("vpbroadcastd %[q], %[a]\n\t"
            "%{vex%} vpdpbusd %[a], %[w0], %[sum0]\n\t"
            "%{vex%} vpdpbusd %[a], %[w1], %[sum1]"
            : [sum0] "+x"(*sum0), [sum1] "+x"(*sum1), [a] "=&x"(a)
            : [w0] "x"(w0), [w1] "x"(w1), [q] "m"(*bytes));
}

/* sum + both products of each lane's 16-bit pairs, in 32 bits, which wrap. */
static inline __attribute__((always_inline)) __m256i vnni_dot_pairs(__m256i sum, __m256i a, __m256i b)
{
    __asm__("%{vex%} vpdpwssd %[b], %[a], %[sum]" : [sum] "+x"(sum) : [a] "x"(a), [b] "x"(b));
    return sum;
}

#endif
