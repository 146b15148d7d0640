/* process.c: see process.h. */
#include "service/process.h"

#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

static pid_t first_parent, adopter;
static volatile sig_atomic_t may_be_adopted;

void process_reset_signals(void)
{
    static const int changed[] = {SIGTERM, SIGCHLD, SIGUSR1, SIGUSR2, SIGALRM};
    sigset_t none;
    for (size_t i = 0; i < sizeof changed / sizeof *changed; i++)
        signal(changed[i], SIG_DFL);
    signal(SIGINT, SIG_IGN);
    signal(SIGHUP, SIG_IGN);
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
}

void process_die_with(pid_t parent)
{
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent) /* it died before that */
        _exit(EXIT_FAILURE);
}

/* The system sends this signal once the new parent is known. It also does where only the thread has ended that made this process:
 * then another thread of the keeper is the parent, until the next signal. A handler, so that it works in a worker that hangs, too. */
static void on_parent_death(int number)
{
    pid_t parent = getppid();
    (void)number;
    if (parent != first_parent && (parent != adopter || !may_be_adopted))
        syscall(SYS_exit_group,
                EXIT_FAILURE); /* _exit is a sanitizer's, which looks for leaks amid all work */
}

void process_die_with_keeper(pid_t keeper, pid_t supervisor)
{
    struct sigaction action = {.sa_handler = on_parent_death, .sa_flags = SA_RESTART};
    first_parent = keeper;
    adopter = supervisor;
    may_be_adopted = false;
    sigaction(SIGUSR2, &action, NULL);
    prctl(PR_SET_PDEATHSIG, SIGUSR2);
    if (getppid() != keeper)
        _exit(EXIT_FAILURE);
}

void process_outlive_keeper(void)
{
    may_be_adopted = true;
}
