/* team.h: the compute threads.
 *
 * A team has n members; member 0 is the thread that calls team_run, the others sleep until there is work. Waiting spins
 * for some tens of microseconds and then sleeps on a futex, so that an oversubscribed machine goes on working. */
#ifndef RUNNEL_KERNELS_TEAM_H
#define RUNNEL_KERNELS_TEAM_H

#include "base/error.h"

struct team;

/* Starts n - 1 threads. */
int team_create(unsigned n, struct team **team, runnel_error *error);
void team_free(struct team *team);
unsigned team_size(const struct team *team);

/* Runs work(arg, member) on all members at once and returns when all have returned. One caller at a time. */
void team_run(struct team *team, void (*work)(void *arg, unsigned member), void *arg);

/* Inside work: waits until every member has come here. What members wrote before is visible to all after. */
void team_barrier(struct team *team, unsigned member);

/* Inside work: hands out [0, n) in parts between two barriers. The first call of a member gives its fixed share, later
 * ones small shares of the rest, until false. phase counts the loops between barriers, the same on every member. */
struct team_share {
    uint32_t begin, end;
};

#endif
