/* limits.h: what this process may use of the machine: CPUs by affinity and cgroup quota, memory by cgroup limit. Owns
 * nothing; any thread. */
#ifndef RUNNEL_BASE_LIMITS_H
#define RUNNEL_BASE_LIMITS_H

#include <stdbool.h>
#include <stdint.h>

/* CPUs that the affinity mask and the cgroup's CPU quota (v2 cpu.max, v1 cpu.cfs_*; of every level up to the
 * root) allow, rounded up, at least 1. */
unsigned limits_cpus(void);

/* The quota alone, in CPUs (1.5: three halves); 0: none. */
double limits_quota_cpus(void);

/* Cores of the CPUs in the affinity mask: hyperthreads of one core count once. */
unsigned limits_cores(void);

/* The smallest memory limit: of this process's cgroups and all above them (v2 memory.max, v1
 * memory.limit_in_bytes), or the machine's memory; and what is in use of it. Files in the page cache that nobody used
 * lately do not count, as they give way. Both 0 if nothing can be read. */
struct limits_memory {
    uint64_t used_bytes, limit_bytes;
};
struct limits_memory limits_memory(void);

/* How much more memory this process may use: the least that any of its cgroups, all above them, and the machine have left. Files in the
 * page cache do not count as used, as they give way. False if nothing can be read. */
bool limits_memory_room(uint64_t *n_bytes);

/* Of these limits the one of which the largest part is in use, again and again, from files that stay open: for a process that may
 * open none later. One that is moved to another cgroup meanwhile is not followed. */
enum { LIMITS_GROUPS_MAX = 16 };
struct limits_memory_group {
    int limit, used, stat; /* descriptors; -1: there is no such file */
    bool v2;               /* the version of its files */
};
struct limits_memory_files {
    struct limits_memory_group groups[LIMITS_GROUPS_MAX]; /* the innermost first */
    unsigned n_groups;
    int machine;
};
void limits_memory_open(struct limits_memory_files *files); /* what cannot be opened is left out */
struct limits_memory limits_memory_read(const struct limits_memory_files *files);
void limits_memory_close(struct limits_memory_files *files);

/* The parts of these, apart so that tests can give them made-up trees. */

/* The smallest CPU quota of this process's cgroups and all above them, in CPUs (1.5: three halves); 0 if
 * there is none. cgroup_file: "/proc/self/cgroup"; cgroup_root: "/sys/fs/cgroup". What cannot be read or
 * understood is no limit. */
double limits_cgroup_cpus(const char *cgroup_file, const char *cgroup_root);

/* Likewise, the smallest memory limit of the cgroups; both 0 if there is none. */
struct limits_memory limits_cgroup_memory(const char *cgroup_file, const char *cgroup_root);

/* The least that one of the cgroups has left; UINT64_MAX: there is no limit. */
uint64_t limits_cgroup_room(const char *cgroup_file, const char *cgroup_root);
/* As limits_memory_open; NULL: nothing of the cgroups, or of the machine. */
void limits_memory_open_in(struct limits_memory_files *files, const char *cgroup_file,
                           const char *cgroup_root, const char *meminfo_file);

/* The whole machine's, from "/proc/meminfo". */
struct limits_memory limits_machine_memory(const char *meminfo_file);

/* The same by the folder "/sys/devices/system/cpu"; a CPU that tells nothing there is a core of its own. */
unsigned limits_cores_of(const char *cpu_folder);

/* CPUs in the calling thread's affinity mask; 0 if it cannot be had. */
unsigned limits_affinity_cpus(void);

#endif
