/* admit.c: who is let in. See admit.h. */
#include "server/limits/admit.h"

void admit_init(struct admit *admit, uint32_t n_max, uint32_t n_keys)
{
    *admit = (struct admit){.n_max = n_max, .n_keys = n_keys};
}

uint32_t admit_share(const struct admit *admit)
{
    uint64_t share = (uint64_t)admit->n_max * ADMIT_SHARE / (ADMIT_SHARE + 1);
    return admit->n_keys < 2 ? admit->n_max : share ? (uint32_t)share : 1;
}

/* A key that holds nothing may always take one place, if there is one. */
static bool is_over_share(const struct admit *admit, uint32_t key, uint32_t n)
{
    uint64_t held = (uint64_t)admit->n_by_key[key] + n;
    uint64_t free_after = admit->n_max - admit->n_requests - n;
    return admit->n_keys > 1 && held > 1 && held > ADMIT_SHARE * free_after;
}

enum admit_answer admit_take(struct admit *admit, uint32_t key, uint32_t n)
{
    if (n > admit->n_max - admit->n_requests) {
        admit->n_full++;
        return ADMIT_FULL;
    }
    if (is_over_share(admit, key, n)) {
        admit->n_over_share++;
        return ADMIT_OVER_SHARE;
    }
    admit->n_requests += n;
    admit->n_by_key[key] += n;
    return ADMIT_TAKEN;
}

void admit_give(struct admit *admit, uint32_t key, uint32_t n)
{
    admit->n_requests -= n;
    admit->n_by_key[key] -= n;
}

void admit_timed_out(struct admit *admit)
{
    admit->n_timeouts++;
    admit->n_timeouts_in_a_row++;
}

void admit_answered(struct admit *admit)
{
    admit->n_timeouts_in_a_row = 0;
}
