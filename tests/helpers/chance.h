/* chance.h: random numbers for simulations, the same in every run of a program. */
#ifndef RUNNEL_TESTS_CHANCE_H
#define RUNNEL_TESTS_CHANCE_H

#include <stdint.h>

uint32_t chance_below(uint32_t n);
double chance_uniform(void); /* between 0 and 1, neither included */

#endif
