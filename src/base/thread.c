/* thread.c: see thread.h. */
#include "base/thread.h"

#include <signal.h>
#include <stdatomic.h>
#include <sys/prctl.h>

static _Atomic(void (*)(void)) at_begin; /* for all threads of the process */

int thread_start(pthread_t *thread, void *(*run)(void *), void *arg)
{
    static const int of_the_thread_itself[] = {SIGSEGV, SIGBUS,  SIGFPE,  SIGILL, SIGTRAP,
                                               SIGSYS,  SIGABRT, SIGPIPE, SIGPROF};
    sigset_t blocked, before;
    sigfillset(&blocked);
    for (size_t i = 0; i < sizeof of_the_thread_itself / sizeof *of_the_thread_itself; i++)
        sigdelset(&blocked, of_the_thread_itself[i]);
    pthread_sigmask(SIG_SETMASK, &blocked, &before);
    int failure = pthread_create(thread, NULL, run, arg); /* it inherits the mask */
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return failure;
}

void thread_begin(const char *name)
{
    void (*run)(void) = atomic_load(&at_begin);
    prctl(PR_SET_NAME, name);
    if (run)
        run();
}

void thread_at_begin(void (*run)(void))
{
    atomic_store(&at_begin, run);
}
