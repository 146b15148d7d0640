/* thread_choice.h: with how many threads a model computes where the number of CPUs does not tell: under a quota of 1.5 CPUs two threads are
 * stopped together again and again, and beside a program that keeps a CPU busy each step waits for the thread that shares it. Pure:
 * what is decided here was measured by thread_trial.c. */
#ifndef RUNNEL_ENGINE_THREAD_CHOICE_H
#define RUNNEL_ENGINE_THREAD_CHOICE_H

#include <stdbool.h>
#include <stddef.h>

enum thread_cause {
    THREADS_PLAIN,    /* there is nothing to measure */
    THREADS_QUOTA,    /* the quota is not a whole number of CPUs */
    THREADS_BUSY_CPU, /* one thread gets far less done than it could */
};

/* What one of some threads that did the same work at once got, all measured by itself. */
struct thread_share {
    double wall_ms, cpu_ms; /* time that passed; time that it ran */
    double work;            /* how much it got done */
};

/* quota: in CPUs, 0: none; shares of n_threads threads, NULL: not measured yet. */
enum thread_cause thread_choice_cause(unsigned n_threads, double quota, const struct thread_share *shares);

struct thread_choice {
    enum thread_cause cause;
    unsigned n_threads, n_other; /* taken; not taken */
    double times_as_fast;        /* as the other number */
    double quota;
};

/* Between n_all threads and one fewer (2 or more, and what each of the two did in the same time). */
struct thread_choice thread_choice_take(enum thread_cause cause, double quota, unsigned n_all,
                                        double speed_of_all, double speed_of_fewer);

/* One line: what was taken and why; "" for THREADS_PLAIN. */
void thread_choice_describe(const struct thread_choice *choice, char *line, size_t size);

#endif
