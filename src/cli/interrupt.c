/* interrupt.c: see interrupt.h. A signal handler has no other way to speak than a variable of the file. */
#include "cli/interrupt.h"

#include <signal.h>
#include <stdatomic.h>

static atomic_bool came;

static void on_interrupt(int signal_number)
{
    (void)signal_number;
    atomic_store(&came, true);
}

void interrupt_watch(void)
{
    struct sigaction action = {.sa_handler = on_interrupt, .sa_flags = SA_RESETHAND};
    atomic_store(&came, false);
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
}

bool interrupt_came(void)
{
    return atomic_load(&came);
}
