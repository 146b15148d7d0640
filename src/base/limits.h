/* limits.h: what this process may use of the machine: CPUs by affinity and cgroup quota. Owns nothing; any
 * thread. */
#ifndef RUNNEL_BASE_LIMITS_H
#define RUNNEL_BASE_LIMITS_H

/* CPUs that the affinity mask and the cgroup's CPU quota (v2 cpu.max, v1 cpu.cfs_*; of every level up to the
 * root) allow, rounded up, at least 1. */
unsigned limits_cpus(void);

#endif
