/* team.h: the compute threads.
 *
 * A team has n members; member 0 is the thread that calls team_run, the others sleep until there is work.
 * Waiting spins for some tens of microseconds and then sleeps on a futex, so that an oversubscribed machine
 * goes on working. */
#ifndef RUNNEL_KERNELS_TEAM_H
#define RUNNEL_KERNELS_TEAM_H

#include "base/error.h"

#include <stdbool.h>
#include <stdint.h>

struct team;

/* Starts n - 1 threads (n at least 1). */
int team_create(unsigned n, struct team **team, runnel_error *error);
void team_free(struct team *team); /* NULL is fine */
unsigned team_size(const struct team *team);

/* Runs work(arg, member) on all members at once and returns when all have returned. One caller at a time. */
void team_run(struct team *team, void (*work)(void *arg, unsigned member), void *arg);

/* Inside work: waits until every member has come here. What members wrote before is visible to all after. */
void team_barrier(struct team *team);

/* A loop over items [0, n) that the members share, at most one between two barriers:
 *
 *     struct team_loop loop = {.n = n, .grain = 4};
 *     while (team_next(team, member, &loop))
 *         for (uint32_t i = loop.begin; i < loop.end; i++) ...
 *     team_barrier(team);
 *
 * Each member first gets a fixed contiguous share (so that each reads its own stretch of memory in order),
 * then parts of what is left, of `grain` items and towards the end of fewer, so that nobody waits long for a member that
 * is slower or that the system has held up. n and grain must be the same on every member. */
struct team_loop {
    uint32_t n, grain;
    uint32_t begin, end; /* the part to work on now */
    bool started;
};
bool team_next(struct team *team, unsigned member, struct team_loop *loop);

#endif
