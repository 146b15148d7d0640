/* thread_choice.c: see thread_choice.h. */
#include "engine/thread_choice.h"

#include <stdio.h>

/* A quota this near below the number of threads stops them for less than can be measured. */
static const double nearly_whole = 0.05;

/* A thread is held up if it ran for less than this part of the time, or did less than this part of what the best one did. (Efficient
 * cores beside fast ones do half: then it is measured, too, and costs a quarter of a second.) */
static const double runs_enough = 0.75, does_enough = 0.6;

/* By how much more threads must be faster, or fewer threads. Under a quota fewer threads are taken where there is hardly a difference, as they
 * are never stopped, so that tokens come evenly; a busy CPU may be free in a minute, so fewer threads must be clearly faster. */
static const double quota_gain_of_more = 1.05, busy_gain_of_fewer = 1.15;

enum thread_cause thread_choice_cause(unsigned n_threads, double quota, const struct thread_share *shares)
{
    if (n_threads < 2)
        return THREADS_PLAIN;
    if (quota > 0 && quota < n_threads - nearly_whole)
        return THREADS_QUOTA;
    if (!shares)
        return THREADS_PLAIN;
    double best = 0;
    for (unsigned i = 0; i < n_threads; i++)
        if (shares[i].work > best * shares[i].wall_ms)
            best = shares[i].work / shares[i].wall_ms;
    for (unsigned i = 0; i < n_threads; i++)
        if (shares[i].cpu_ms < runs_enough * shares[i].wall_ms ||
            shares[i].work < does_enough * best * shares[i].wall_ms)
            return THREADS_BUSY_CPU;
    return THREADS_PLAIN;
}

struct thread_choice thread_choice_take(enum thread_cause cause, double quota, unsigned n_all,
                                        double speed_of_all, double speed_of_fewer)
{
    bool fewer = cause == THREADS_QUOTA      ? speed_of_all < quota_gain_of_more * speed_of_fewer
                 : cause == THREADS_BUSY_CPU ? speed_of_fewer > busy_gain_of_fewer * speed_of_all
                                             : false;
    return (struct thread_choice){
        .cause = cause,
        .n_threads = fewer ? n_all - 1 : n_all,
        .n_other = fewer ? n_all : n_all - 1,
        .times_as_fast = fewer ? speed_of_fewer / speed_of_all : speed_of_all / speed_of_fewer,
        .quota = quota,
    };
}

void thread_choice_describe(const struct thread_choice *choice, char *line, size_t size)
{
    char where[64] = "while a CPU is busy or slow";
    if (choice->cause == THREADS_PLAIN) {
        snprintf(line, size, "%s", "");
        return;
    }
    if (choice->cause == THREADS_QUOTA)
        snprintf(where, sizeof where, "under a quota of %.3g CPUs", choice->quota);
    snprintf(line, size, "%u thread%s, not %u: %s%.2f times as fast %s", choice->n_threads,
             choice->n_threads == 1 ? "" : "s", choice->n_other,
             choice->times_as_fast < 1 ? "hardly a difference, " : "", choice->times_as_fast, where);
}
