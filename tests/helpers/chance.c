/* chance.c: see chance.h. */
#include "helpers/chance.h"

static uint64_t seed = 1;

uint32_t chance_below(uint32_t n)
{
    seed = seed * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)((seed >> 33) % n);
}

double chance_uniform(void)
{
    return (chance_below(1u << 30) + 0.5) / (1u << 30);
}
