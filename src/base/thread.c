/* thread.c: see thread.h. */
#include "base/thread.h"

#include <signal.h>

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
