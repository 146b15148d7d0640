#include "gpu/signals.h"

#include <stddef.h>

void signals_note(struct signals *signals)
{
    for (int number = 1; number < NSIG; number++)
        if (sigaction(number, NULL, &signals->of[number]))
            signals->of[number].sa_handler = SIG_ERR;
}

void signals_give_back(const struct signals *signals)
{
    struct sigaction now;
    for (int number = 1; number < NSIG; number++) {
        const struct sigaction *before = &signals->of[number];
        if (before->sa_handler != SIG_ERR && !sigaction(number, NULL, &now) &&
            now.sa_handler != before->sa_handler)
            sigaction(number, before, NULL);
    }
}
