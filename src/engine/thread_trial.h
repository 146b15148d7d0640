/* thread_trial.h: measures with how many threads a model computes faster, where that is not plain (thread_choice.h). */
#ifndef RUNNEL_ENGINE_THREAD_TRIAL_H
#define RUNNEL_ENGINE_THREAD_TRIAL_H

#include "engine/thread_choice.h"
#include "kernels/team.h"
#include "model/weights.h"

/* Between as many threads as the team has and one fewer. quota: in CPUs, 0: none. A look at whether all threads can run takes 20 ms;
 * where they cannot, measuring takes another 0.25 s (twice, and a pause, before fewer threads are taken), under a quota that is no whole number 0.7 s. Models whose tokens read less
 * than 32 MB are not worth it: all threads, at once. */
int thread_trial_choose(const struct kernels *kernels, const struct weights *weights, struct team *team,
                        double quota, struct thread_choice *choice, runnel_error *error);

/* The measurement alone, for a team of 2 or more. */
int thread_trial_measure(const struct kernels *kernels, const struct weights *weights, struct team *team,
                         enum thread_cause cause, double quota, struct thread_choice *choice,
                         runnel_error *error);

#endif
