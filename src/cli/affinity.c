/* affinity.c: see affinity.h. */
#include "cli/affinity.h"

#include "base/error.h"

#include <ctype.h>
#include <errno.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>

/* Reads a number and moves on; false if there is none below CPU_SETSIZE. */
static bool read_cpu(const char **at, unsigned long *cpu)
{
    char *end;
    if (!isdigit((unsigned char)**at))
        return false;
    *cpu = strtoul(*at, &end, 10);
    *at = end;
    return *cpu < CPU_SETSIZE;
}

static bool read_list(const char *at, cpu_set_t *cpus)
{
    CPU_ZERO(cpus);
    for (;;) {
        unsigned long first, last;
        if (!read_cpu(&at, &first))
            return false;
        last = first;
        if (*at == '-' && (at++, !read_cpu(&at, &last)))
            return false;
        if (last < first)
            return false;
        for (unsigned long cpu = first; cpu <= last; cpu++)
            CPU_SET(cpu, cpus);
        if (*at == '\0')
            return true;
        if (*at++ != ',')
            return false;
    }
}

int affinity_set(const char *list, runnel_error *error)
{
    cpu_set_t cpus, allowed;
    if (!read_list(list, &cpus))
        return error_set(error, RUNNEL_EINVAL, "cpu-affinity: expected CPUs such as 0,2-3, found \"%.64s\"",
                         list);
    CPU_ZERO(&allowed);
    if (sched_getaffinity(0, sizeof allowed, &allowed) == 0)
        for (int cpu = 0; cpu < CPU_SETSIZE; cpu++)
            if (CPU_ISSET(cpu, &cpus) && !CPU_ISSET(cpu, &allowed))
                return error_set(error, RUNNEL_EINVAL,
                                 "cpu-affinity: CPU %d is not one that this process may use", cpu);
    if (sched_setaffinity(0, sizeof cpus, &cpus))
        return error_set(error, RUNNEL_EINVAL, "cpu-affinity: %s", strerror(errno));
    return RUNNEL_OK;
}
