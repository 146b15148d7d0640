/* signals.h: whose the process's signals are, while drivers begin.
 *
 * A driver's compiler that is LLVM takes nearly all of them, once in a process, so that its files are removed should one come: a server
 * would no more be told to end, nor write what it crashed with. */
#ifndef RUNNEL_GPU_SIGNALS_H
#define RUNNEL_GPU_SIGNALS_H

#include <signal.h>

struct signals {
    struct sigaction of[NSIG]; /* by number; SIG_ERR: it is nobody's */
};

/* Another thread sets none between these two. */
void signals_note(struct signals *signals);
/* Those that are another's now go back to whose they were. */
void signals_give_back(const struct signals *signals);

#endif
