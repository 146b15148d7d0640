/* interrupt.c: see interrupt.h. A signal handler has no other way to speak than a variable of the file. */
#include "cli/interrupt.h"

#include <signal.h>
#include <stdatomic.h>
#include <stddef.h>

static atomic_bool came;

static void on_interrupt(int signal_number)
{
    (void)signal_number;
    atomic_store(&came, true);
}

static void watch(bool each)
{
    static const int signals[] = {SIGINT, SIGTERM, SIGHUP};
    struct sigaction action = {.sa_handler = on_interrupt, .sa_flags = each ? 0 : (int)SA_RESETHAND}, before;
    atomic_store(&came, false);
    for (size_t i = 0; i < sizeof signals / sizeof *signals; i++)
        if (!sigaction(signals[i], NULL, &before) && before.sa_handler != SIG_IGN)
            sigaction(signals[i], &action, NULL);
}

void interrupt_watch(void)
{
    watch(false);
}

void interrupt_watch_each(void)
{
    watch(true);
}

bool interrupt_came(void)
{
    return atomic_load(&came);
}
