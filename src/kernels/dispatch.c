/* dispatch.c: which kernels this machine can run, and which it shall.
 *
 * Owns the tables, filled once and then only read; any thread. */
#include "kernels/levels.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct kernels tables[1 + KERNELS_LEVELS_MAX]; /* of the possible levels, from the lowest up */
static size_t n_tables;
static char refusal[192]; /* "": nothing was refused */
static pthread_once_t once = PTHREAD_ONCE_INIT;

static void fill_tables(void)
{
    kernels_fill_ref(&tables[n_tables++]);
    for (size_t i = 0; i < KERNELS_LEVELS_MAX && kernels_machine_levels[i].name; i++) {
        const struct kernels_level *level = &kernels_machine_levels[i];
        if (!level->is_possible()) {
            const char *why = level->why_refused ? level->why_refused() : NULL;
            if (why)
                snprintf(refusal, sizeof refusal, "%s: %s", level->name, why);
            continue;
        }
        tables[n_tables] = tables[n_tables - 1];
        tables[n_tables].name = level->name;
        level->fill(&tables[n_tables++]);
    }
}

size_t kernels_possible(const struct kernels **all)
{
    pthread_once(&once, fill_tables);
    *all = tables;
    return n_tables;
}

const char *kernels_refused(void)
{
    pthread_once(&once, fill_tables);
    return *refusal ? refusal : NULL;
}

const struct kernels *kernels_get(char *message, size_t size)
{
    const struct kernels *all;
    const char *asked = getenv("RUNNEL_CPU");
    size_t n = kernels_possible(&all);
    if (!asked || !*asked)
        return &all[n - 1];
    for (size_t i = 0; i < n; i++)
        if (strcmp(asked, all[i].name) == 0)
            return &all[i];
    char names[128] = "";
    for (size_t i = 0, length = 0; i < n && length < sizeof names; i++)
        length +=
            (size_t)snprintf(names + length, sizeof names - length, "%s%s", i > 0 ? ", " : "", all[i].name);
    if (size > 0)
        snprintf(message, size, "RUNNEL_CPU is \"%.32s\", but this machine can do: %s%s%s", asked, names,
                 *refusal ? "; " : "", refusal);
    return NULL;
}
