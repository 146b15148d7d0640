/* limits.h: what this process may use of the machine: CPUs by affinity and cgroup quota. Owns nothing; any
 * thread. */
#ifndef RUNNEL_BASE_LIMITS_H
#define RUNNEL_BASE_LIMITS_H

/* CPUs that the affinity mask and the cgroup's CPU quota (v2 cpu.max, v1 cpu.cfs_*; of every level up to the
 * root) allow, rounded up, at least 1. */
unsigned limits_cpus(void);

/* The parts of limits_cpus, apart so that tests can give them made-up trees. */

/* The smallest CPU quota of this process's cgroups and all above them, in CPUs (1.5: three halves); 0 if
 * there is none. cgroup_file: "/proc/self/cgroup"; cgroup_root: "/sys/fs/cgroup". What cannot be read or
 * understood is no limit. */
double limits_cgroup_cpus(const char *cgroup_file, const char *cgroup_root);

/* CPUs in the calling thread's affinity mask; 0 if it cannot be had. */
unsigned limits_affinity_cpus(void);

#endif
